//! From an event to what a commit is told: whether it concerns git hosts at all, which commit, and in which words.

use belfry_api::Event;
use belfry_core::{ConfigKey, notification::Notification, revision::Revision};

use super::{Origin, State, Status};
use crate::{Misconfigured, line::Stop, protocol::Unsent, settings::Resolved, text};

/// Hex digits of a commit.
const SHA: usize = 40;

/// How a Provider names what it writes.
pub(crate) struct Naming {
    provider: ConfigKey,
}

impl Naming {
    pub(crate) fn of(resolved: &Resolved<'_>) -> Result<Self, Misconfigured> {
        Ok(Self { provider: resolved.provider().clone() })
    }

    /// `kustomization/app/0c9c2e41`, or what the expression gave. Without a cluster there are no UIDs: the Provider's name
    /// stands in.
    fn id(&self, notification: &Notification) -> Result<String, Stop> {
        let object = &notification.event.involved_object;
        match &notification.commit_status_id {
            Some(id) if id.trim().is_empty() => {
                Err(Unsent::Reject("commitStatusExpr gives no id for this event".into()).into())
            }
            Some(id) => Ok(id.clone()),
            None => {
                let uid = notification.provider_uid.split('-').next().filter(|part| !part.is_empty());
                let last = uid.unwrap_or(&self.provider.name);
                Ok(format!("{}/{}/{last}", object.kind, object.name).to_lowercase())
            }
        }
    }

    /// What tells a Provider's comment about all objects from all others.
    pub(crate) fn table(&self, notification: &Notification) -> String {
        match &*notification.provider_uid {
            "" => format!("{}/{}/objects", self.provider.namespace, self.provider.name),
            uid => format!("{uid}/objects"),
        }
    }

    /// What tells a Provider's comments about an object from all others.
    pub(crate) fn comment(&self, notification: &Notification) -> String {
        let object = &notification.event.involved_object;
        let about = format!("{}/{}/{}", object.kind, object.namespace, object.name);
        match &*notification.provider_uid {
            "" => format!("{}/{}/{about}", self.provider.namespace, self.provider.name),
            uid => format!("{uid}/{about}"),
        }
    }

    /// The status that an event is about. `progress`: whether this host is told that something is under way.
    ///
    /// The peer decides by the event as it came, before an Alert's metadata is combined with it; a notification holds the
    /// combined one, so here `eventMetadata` with a `commit` lets events through that the peer drops.
    pub(crate) fn status(&self, notification: &Notification, progress: bool) -> Result<Status, Stop> {
        let event = &notification.event;
        let value = |key: &str| event.metadata.get(key).map(String::as_str).unwrap_or_default();
        if value("commit").is_empty() && value("commit_status") != "update" && event.severity != "error" {
            return Err(
                Unsent::Skip("the event changes no commit's status: it is no error, and names no commit").into()
            );
        }
        let state = state(event, progress)?;
        let summary = event.metadata.get("summary").filter(|summary| !summary.is_empty());
        let object = &event.involved_object;
        Ok(Status {
            sha: commit(event)?,
            id: self.id(notification)?,
            state,
            name: format!("{}/{}", object.kind, object.name).to_lowercase(),
            description: text::words(&event.reason),
            summary: summary.cloned(),
            link: None,
            origin: Origin::Alert,
        })
    }
}

fn state(event: &Event, progress: bool) -> Result<State, Unsent> {
    match (event.reason.as_str(), event.severity.as_str()) {
        ("Progressing", _) if progress => Ok(State::Pending),
        ("Progressing", _) => Err(Unsent::Skip("progress is no status of a commit for this type of Provider")),
        (_, "info") => Ok(State::Success),
        (_, "error") => Ok(State::Failure),
        _ => Err(Unsent::Reject("only events of severity info and error have a commit status".into())),
    }
}

/// The peer's rule: the first key that is there names the commit, with a whole SHA-1.
fn commit(event: &Event) -> Result<String, Unsent> {
    let mut named = ["commit", "originRevision", "revision"].iter().filter_map(|key| event.metadata.get(*key));
    let revision = named.next().ok_or_else(|| Unsent::Reject("missing revision metadata".into()))?;
    let hash = Revision::parse(revision).whole_hash().filter(|hash| hash.len() == SHA);
    let why = || Unsent::Reject(format!("failed to extract commit hash from '{revision}' revision"));
    hash.map(str::to_owned).ok_or_else(why)
}

/// The pull or merge request that an event is about.
pub(crate) fn change_request(event: &Event) -> Result<u64, Unsent> {
    let Some(number) = event.metadata.get("change_request").filter(|number| !number.is_empty()) else {
        return Err(Unsent::Skip("the event belongs to no pull or merge request"));
    };
    let why = || Unsent::Reject(format!("invalid \"change_request\" metadata value '{number}': it must be a number"));
    number.parse().map_err(|_| why())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::probe;

    const SHA1: &str = "5394cb7f48332b2de7c17dd8b8384bbc84b7e738";

    fn event(pairs: &[(&str, &str)]) -> Event {
        let metadata = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Event { metadata, ..probe("error").event }
    }

    #[test]
    fn commits_are_the_peers() {
        for good in [
            format!("main@sha1:{SHA1}"),
            format!("sha1:{SHA1}"),
            format!("refs/heads/main@sha1:{SHA1}"),
            format!("environment/dev@sha1:{SHA1}"),
            format!("environment/dev/{SHA1}"),
            format!("HEAD/{SHA1}"),
            SHA1.to_owned(),
        ] {
            assert_eq!(commit(&event(&[("revision", &good)])), Ok(SHA1.to_owned()), "{good}");
        }
        let sha256 = format!("v1.0@sha256:{SHA1}{}", &SHA1[..24]);
        for bad in ["main", "main/5394cb7", "6.0.0", "latest@sha256:dead", &sha256, "main@sha1:XYZ", "sha1:abc", ""] {
            let why = Unsent::Reject(format!("failed to extract commit hash from '{bad}' revision"));
            assert_eq!(commit(&event(&[("revision", bad)])), Err(why), "{bad}");
        }
        assert_eq!(commit(&event(&[])), Err(Unsent::Reject("missing revision metadata".into())));
        // The first that is there decides, even when a later one would do.
        let origin = format!("main@sha1:{SHA1}");
        let pairs = [("revision", "latest@sha256:dead"), ("originRevision", origin.as_str())];
        assert_eq!(commit(&event(&pairs)), Ok(SHA1.to_owned()));
        assert!(commit(&event(&[("commit", ""), ("revision", &origin)])).is_err());
    }

    fn naming() -> Naming {
        Naming { provider: ConfigKey::provider("apps", "Hub") }
    }

    #[test]
    fn only_some_events_change_a_commits_status() {
        let reaches = |severity: &str, pairs: &[(&str, &str)]| {
            let mut notification = probe(severity);
            notification.event.metadata.extend(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
            !matches!(naming().status(&notification, false), Err(Stop::Unsent(Unsent::Skip(_))))
        };
        assert!(!reaches("info", &[]));
        assert!(!reaches("info", &[("commit", "")]) && !reaches("info", &[("commit_status", "true")]));
        assert!(reaches("info", &[("commit", SHA1)]));
        assert!(reaches("info", &[("commit_status", "update")]));
        assert!(reaches("error", &[]));
    }

    #[test]
    fn states_follow_severity_and_reason() {
        let of = |severity: &str, reason: &str, progress| {
            state(&Event { reason: reason.into(), ..probe(severity).event }, progress)
        };
        assert_eq!(of("info", "ApplySucceeded", false), Ok(State::Success));
        assert_eq!(of("error", "ApplySucceeded", true), Ok(State::Failure));
        assert_eq!(of("info", "Progressing", true), Ok(State::Pending));
        assert!(matches!(of("error", "Progressing", false), Err(Unsent::Skip(_))));
        assert!(matches!(of("trace", "x", false), Err(Unsent::Reject(_))));
    }

    #[test]
    fn ids_are_the_peers_unless_there_is_no_cluster_or_an_expression() {
        let mut notification = probe("error");
        assert_eq!(naming().id(&notification).unwrap(), "kustomization/app/0c9c2e41");
        notification.provider_uid = "".into();
        assert_eq!(naming().id(&notification).unwrap(), "kustomization/app/hub");
        assert_eq!(naming().comment(&notification), "apps/Hub/Kustomization/apps/app");
        notification.commit_status_id = Some("Prod/App".into());
        assert_eq!(naming().id(&notification).unwrap(), "Prod/App");
        notification.commit_status_id = Some(String::new());
        assert!(matches!(naming().id(&notification), Err(Stop::Unsent(Unsent::Reject(_)))));
    }

    #[test]
    fn change_requests_are_numbers() {
        assert_eq!(change_request(&event(&[("change_request", "42")])), Ok(42));
        assert!(matches!(change_request(&event(&[])), Err(Unsent::Skip(_))));
        assert!(matches!(change_request(&event(&[("change_request", "x")])), Err(Unsent::Reject(_))));
    }
}
