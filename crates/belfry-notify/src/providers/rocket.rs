//! `rocket`: Slack's payload in Rocket.Chat's colours, and as the Provider says, without defaults.

use belfry_core::notification::Notification;
use belfry_http::{Request, Url};

use super::{post, slack::Payload};
use crate::{
    Misconfigured,
    protocol::{Protocol, Unsent},
    settings::Resolved,
};

struct Rocket {
    url: Url,
    channel: String,
    username: String,
}

pub(crate) fn open(resolved: &Resolved<'_>) -> Result<Box<dyn Protocol>, Misconfigured> {
    Ok(Box::new(Rocket {
        url: resolved.url()?,
        channel: resolved.channel.to_owned(),
        username: resolved.username.to_owned(),
    }))
}

impl Protocol for Rocket {
    fn render(&self, notification: &Notification) -> Result<Vec<Request>, Unsent> {
        let payload = Payload::new(&notification.event, &self.channel, &self.username, ["#0076D7", "#FF0000"]);
        Ok(vec![post(&self.url, &payload)])
    }
}
