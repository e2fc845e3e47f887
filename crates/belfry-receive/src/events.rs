//! Which event types pass: `spec.events` against a header.

use crate::{Inbound, Refused, inbound::quoted};

/// Where a sender says what happened.
pub(crate) struct EventHeader {
    /// The header.
    pub(crate) name: &'static str,
    /// What texts call the event.
    pub(crate) what: &'static str,
    /// Types that never trigger anything, whatever `spec.events` says: they only test the connection.
    pub(crate) tests: &'static [&'static str],
}

/// Whether an event passes.
pub(crate) enum Filtered {
    Passes,
    /// It doesn't, which is no fault of the sender; why.
    Ignored(String),
}

impl EventHeader {
    /// The event's type.
    pub(crate) fn of(&self, inbound: &Inbound<'_>) -> Option<String> {
        inbound.text(self.name).map(|text| text.into_owned())
    }

    /// Compares the event's type with the listed ones, ignoring case. An empty list lets everything pass.
    ///
    /// # Errors
    /// When there is a list, and the request doesn't say what it is.
    pub(crate) fn filter(&self, listed: &[String], inbound: &Inbound<'_>) -> Result<Filtered, Refused> {
        let event = self.of(inbound);
        let is = |name: &str| event.as_deref().is_some_and(|event| event.eq_ignore_ascii_case(name));
        if self.tests.iter().any(|name| is(name)) {
            return Ok(Filtered::Ignored(format!("the {} only tests the connection", self.what)));
        }
        if listed.is_empty() || listed.iter().any(|name| is(name)) {
            return Ok(Filtered::Passes);
        }
        match &event {
            Some(event) => Ok(Filtered::Ignored(format!("the {} {} is not authorised", self.what, quoted(event)))),
            None => Err(Refused::payload(format!("the {} \"\" is not authorised: no {}", self.what, self.name))),
        }
    }
}
