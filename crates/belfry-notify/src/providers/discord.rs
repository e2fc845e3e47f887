//! `discord`: Slack's payload to the `/slack` side of a Discord webhook.

use belfry_core::notification::Notification;
use belfry_http::{Request, Url};

use super::{
    post,
    slack::{Payload, poster},
};
use crate::{
    Misconfigured,
    protocol::{Protocol, Unsent},
    settings::Resolved,
    text,
};

// An attachment becomes an embed (docs.discord.com/developers/resources/message, "Embed Limits").
const AUTHOR: usize = 256;
const DESCRIPTION: usize = 4096;
const FIELDS: usize = 25;
const FIELD_TITLE: usize = 256;
const FIELD_VALUE: usize = 1024;
/// Characters of all texts of an embed together.
const EMBED: usize = 6000;
/// Characters of the name to post under (docs.discord.com/developers/resources/webhook).
const USERNAME: usize = 80;

struct Discord {
    url: Url,
    username: String,
}

pub(crate) fn open(resolved: &Resolved<'_>) -> Result<Box<dyn Protocol>, Misconfigured> {
    let mut url = resolved.url()?;
    if !url.path().ends_with("/slack")
        && let Ok(mut path) = url.path_segments_mut()
    {
        path.pop_if_empty().push("slack");
    }
    Ok(Box::new(Discord { url, username: resolved.username.to_owned() }))
}

impl Protocol for Discord {
    fn render(&self, notification: &Notification) -> Result<Vec<Request>, Unsent> {
        let event = &notification.event;
        let username = text::cut(poster(&self.username, event), USERNAME);
        let mut payload = Payload::new(event, "", &username, ["good", "danger"]);
        for embed in &mut payload.attachments {
            embed.author_name = text::cut(&embed.author_name, AUTHOR).into_owned();
            embed.fields.truncate(FIELDS);
            let mut left = EMBED.saturating_sub(embed.author_name.chars().count());
            // The message matters more than what comes with it, but a field or two shall stay.
            let wanted = embed.text.chars().count().min(DESCRIPTION);
            embed.text = text::cut(&embed.text, DESCRIPTION).into_owned();
            left = left.saturating_sub(wanted);
            embed.fields.retain_mut(|field| {
                field.title = text::cut(&field.title, FIELD_TITLE).into_owned();
                field.value = text::cut(&field.value, FIELD_VALUE).into_owned();
                let size = field.title.chars().count() + field.value.chars().count();
                let fits = size <= left;
                if fits {
                    left -= size;
                }
                fits
            });
        }
        Ok(vec![post(&self.url, &payload)])
    }
}
