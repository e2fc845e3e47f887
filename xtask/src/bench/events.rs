//! What is posted: Flux events of about 1 KB, each unlike every other, as requests of which only the digits that differ
//! are written anew.

use std::net::SocketAddr;

/// A Kustomization's success, as kustomize-controller posts it. Placeholders keep their width when they are filled in.
const EVENT: &str = concat!(
    r#"{"involvedObject":{"kind":"<kind>","namespace":"team-<team>","name":"app-<app>","uid":"6f0c1a52-9d3e-4b7a-8c11-0000<team><app>","#,
    r#""apiVersion":"<group>/v1","resourceVersion":"<number>"},"severity":"info","timestamp":"2026-03-02T09:21:45Z","#,
    r#""message":"Deployment/team-<team>/app-<app> configured\nService/team-<team>/app-<app> unchanged\nIngress/team-<team>/app-<app> "#,
    r#"unchanged\nConfigMap/team-<team>/app-<app>-settings configured\nServiceAccount/team-<team>/app-<app> unchanged\n"#,
    r#"HorizontalPodAutoscaler/team-<team>/app-<app> unchanged\nReconciliation #<number> finished in 1.273s, next run in 10m0s","#,
    r#""reason":"ReconciliationSucceeded","metadata":{"<group>/commit_status":"update","#,
    r#""<group>/originRevision":"main@sha1:<commit>a3f1c09e","<group>/revision":"latest@sha256:<commit>77b0c1d2e3f405162738495a6b7c8d9e","#,
    r#""event.toolkit.fluxcd.io/team":"team-<team>"},"reportingController":"kustomize-controller","#,
    r#""reportingInstance":"kustomize-controller-6c8b7d5f9c-x2x4k"}"#
);

/// Namespaces that objects are in.
pub const TEAMS: u64 = 50;
/// The most objects that there are names for.
pub const MOST_OBJECTS: u64 = TEAMS * 10_000;
/// What stands before an event's number in its message, and nowhere else in it.
pub const MARK: u8 = b'#';

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// Kustomizations: the Alert selects them.
    Kustomizations,
    /// HelmReleases: no Alert selects them.
    HelmReleases,
}

/// One request, which can be made into any other.
#[derive(Clone, Debug)]
pub struct Request {
    bytes: Vec<u8>,
    slots: Vec<(usize, Slot)>,
    objects: u64,
}

#[derive(Clone, Copy, Debug)]
enum Slot {
    Team,
    App,
    Number,
    Commit,
}

impl Slot {
    const ALL: [(&str, Self); 4] =
        [("<team>", Self::Team), ("<app>", Self::App), ("<number>", Self::Number), ("<commit>", Self::Commit)];

    fn fill(self, number: u64, objects: u64) -> String {
        // Neighbours in time are strangers in the index, as in a fleet.
        let object = number.wrapping_mul(7_919) % objects;
        match self {
            Self::Team => format!("{:02}", object % TEAMS),
            Self::App => format!("{:04}", object / TEAMS),
            Self::Number => format!("{number:010}"),
            Self::Commit => format!("{:032x}", u128::from(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)) << 40),
        }
    }
}

impl Request {
    /// A POST to this address, about one of so many objects.
    pub fn new(about: About, objects: u64, to: SocketAddr) -> Self {
        let (kind, group) = match about {
            About::Kustomizations => ("Kustomization", "kustomize.toolkit.fluxcd.io"),
            About::HelmReleases => ("HelmRelease", "helm.toolkit.fluxcd.io"),
        };
        let event = EVENT.replace("<kind>", kind).replace("<group>", group);
        let (body, slots) = cut(&event);
        let head = format!(
            "POST / HTTP/1.1\r\nHost: {to}\r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: {}\r\n\
             Content-Type: application/json\r\nAccept-Encoding: gzip\r\n\r\n",
            body.len()
        );
        let slots = slots.into_iter().map(|(at, slot)| (head.len() + at, slot)).collect();
        let objects = objects.clamp(1, MOST_OBJECTS);
        let mut request = Self { bytes: [head.into_bytes(), body].concat(), slots, objects };
        request.set(0);
        request
    }

    /// Makes it the request with this number.
    pub fn set(&mut self, number: u64) {
        let fields = Slot::ALL.map(|(_, slot)| slot.fill(number, self.objects));
        for (at, slot) in &self.slots {
            let field = fields[*slot as usize].as_bytes();
            self.bytes[*at..*at + field.len()].copy_from_slice(field);
        }
    }

    /// What goes over the wire.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes of the body.
    pub fn body_len(&self) -> usize {
        let end_of_head = self.bytes.windows(4).position(|four| four == b"\r\n\r\n");
        end_of_head.map_or(0, |at| self.bytes.len() - at - 4)
    }
}

/// The text with room for each placeholder, and where they are.
fn cut(event: &str) -> (Vec<u8>, Vec<(usize, Slot)>) {
    let (mut bytes, mut slots, mut rest) = (Vec::new(), Vec::new(), event);
    while let Some(at) = rest.find('<') {
        let Some((placeholder, slot)) = Slot::ALL.into_iter().find(|(name, _)| rest[at..].starts_with(name)) else {
            break;
        };
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        slots.push((bytes.len(), slot));
        bytes.extend_from_slice(slot.fill(0, 1).as_bytes());
        rest = &rest[at + placeholder.len()..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    (bytes, slots)
}

/// The number of the event that these bytes tell of.
pub fn number(body: &[u8]) -> Option<u64> {
    let at = body.iter().position(|byte| *byte == MARK)? + 1;
    body.get(at..at + 10)?.iter().try_fold(0, |sum, digit| match digit {
        b'0'..=b'9' => Some(sum * 10 + u64::from(digit - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_can_be_made_into_any_other() {
        let to = SocketAddr::from(([127, 0, 0, 1], 9090));
        let mut request = Request::new(About::Kustomizations, 1_000, to);
        let (length, mut seen) = (request.bytes().len(), std::collections::BTreeSet::new());
        for at in [0, 1, 49_999, 50_000, 1_234_567] {
            request.set(at);
            assert_eq!((request.bytes().len(), number(request.bytes())), (length, Some(at)));
            let body = &request.bytes()[length - request.body_len()..];
            let event: serde_json::Value = serde_json::from_slice(body).unwrap();
            let revision = event["metadata"]["kustomize.toolkit.fluxcd.io/revision"].as_str().unwrap().to_owned();
            assert_eq!(revision.len(), "latest@sha256:".len() + 64, "{revision}");
            let origin = event["metadata"]["kustomize.toolkit.fluxcd.io/originRevision"].as_str().unwrap().to_owned();
            assert_eq!(origin.len(), "main@sha1:".len() + 40, "{origin}");
            seen.insert(revision);
        }
        assert_eq!(seen.len(), 5);
        assert!((1000..1500).contains(&request.body_len()), "{}", request.body_len());
    }

    #[test]
    fn objects_repeat_only_after_all_had_a_turn() {
        for objects in [1, 1_000, 50_000, 100_000] {
            let object = |number| Slot::Team.fill(number, objects) + &Slot::App.fill(number, objects);
            let names: std::collections::BTreeSet<String> = (0..objects).map(object).collect();
            assert_eq!(names.len() as u64, objects);
            assert!(names.iter().all(|name| name.len() == 6));
        }
    }
}
