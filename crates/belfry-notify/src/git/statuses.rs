//! The steps to a commit's status: read what the host shows, and write unless it is the same.

use belfry_core::notification::Notification;

use super::{
    GitHost, Match, Step,
    auth::Auth,
    event::Naming,
    verdict::{stop, taken},
};
use crate::{
    Misconfigured,
    line::{Boxed, Conversation, Line, Stop},
    protocol::Verdict,
    settings::Resolved,
};

/// A Provider that writes statuses for an Alert.
pub(crate) struct Statuses<H> {
    host: H,
    auth: Auth,
    naming: Naming,
    /// The host is told what is under way.
    progress: bool,
}

impl<H: GitHost + 'static> Statuses<H> {
    /// As a conversation.
    pub(crate) fn open(
        resolved: &Resolved<'_>,
        host: H,
        auth: Auth,
        progress: bool,
    ) -> Result<Box<dyn Conversation>, Misconfigured> {
        Ok(Box::new(Self { host, auth, naming: Naming::of(resolved)?, progress }))
    }

    async fn tell(&self, notification: &Notification, line: &Line<'_>) -> Result<(), Stop> {
        let status = self.host.fitted(self.naming.status(notification, self.progress)?);
        let there = self.auth.send(self.host.read(&status, 0)?, line).await?;
        let verdict = self.host.classify(Step::Read, &there, &status);
        let there = taken(there, verdict, line.now())?;
        if self.host.shows(&there, &status, Match::Whole) {
            return Ok(());
        }
        let answer = self.auth.send(self.host.post(&status)?, line).await?;
        match self.host.classify(Step::Post, &answer, &status) {
            Verdict::Taken => Ok(()),
            verdict => Err(stop(answer, verdict, line.now())),
        }
    }
}

impl<H: GitHost + 'static> Conversation for Statuses<H> {
    fn hold<'a>(&'a self, notification: &'a Notification, line: &'a Line<'a>) -> Boxed<'a, Result<(), Stop>> {
        Box::pin(self.tell(notification, line))
    }
}
