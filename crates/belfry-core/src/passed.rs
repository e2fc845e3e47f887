//! What one Belfry says of an event that it passes on to another, beside the event itself: a header that the receiving
//! side believes as far as it believes the sender's credential.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::{index::Agreement, plan::Origin, rollout::Hints};

/// Stores that an event may have been in before it is refused.
pub const HOPS: usize = 8;
/// Bytes of a store's name.
const NAME: usize = 64;
/// Characters of an event's id.
const ID: usize = 128;

/// How an event came to the Belfry that passes it on, and what was known of its object there. The default is that of an
/// event of which nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// The form of its body; `None` leaves it to the body.
    pub form: Option<Origin>,
    /// What was known of its object.
    pub hints: Hints,
    /// The stores that it was in, the first one first.
    pub via: Vec<String>,
}

/// A header that can't be read. Says why, and repeats nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadPassed(&'static str);

impl Passed {
    /// Reads the header. What a later version may add is passed over.
    ///
    /// # Errors
    /// When a part that is known says something unknown, or says it twice.
    pub fn parse(text: &str) -> Result<Self, BadPassed> {
        let mut passed = Self::default();
        let mut seen = Vec::new();
        for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            if seen.contains(&name) {
                return Err(BadPassed("it says something twice"));
            }
            seen.push(name);
            match (name, value) {
                ("form", "recorder") => passed.form = Some(Origin::Recorder),
                ("form", "forwarded") => passed.form = Some(Origin::Forwarded),
                ("status", "ready") => passed.hints.status = Some(Agreement::Ready),
                ("status", "failed") => passed.hints.status = Some(Agreement::Failed),
                ("status", "neither") => passed.hints.status = Some(Agreement::Neither),
                ("tests", "decide") => passed.hints.tests_decide = Some(true),
                ("tests", "ignored") => passed.hints.tests_decide = Some(false),
                ("deleting", "") => passed.hints.deleting = true,
                ("via", names) => passed.via = via(names)?,
                ("form" | "status" | "tests" | "deleting", _) => return Err(BadPassed("it has an unknown value")),
                _ => {}
            }
        }
        Ok(passed)
    }
}

/// The names of stores, as [`Passed`] and the log write them.
///
/// # Errors
/// When there are too many, or one can't be the name of a store.
pub fn via(names: &str) -> Result<Vec<String>, BadPassed> {
    let names: Vec<String> = names.split(' ').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let is_name = |name: &String| name.len() <= NAME && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    match names {
        _ if names.len() > HOPS => Err(BadPassed("the event was passed on too often")),
        _ if !names.iter().all(is_name) => Err(BadPassed("it names a store that can't be one")),
        names => Ok(names),
    }
}

impl fmt::Display for Passed {
    /// `form=recorder; status=ready; via=0a1b2c 3d4e5f`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Hints { tests_decide, deleting, status } = self.hints;
        let form = self.form.map(|form| match form {
            Origin::Recorder => "form=recorder",
            Origin::Forwarded | Origin::Observed => "form=forwarded",
        });
        let status = status.map(|status| match status {
            Agreement::Ready => "status=ready",
            Agreement::Failed => "status=failed",
            Agreement::Neither => "status=neither",
        });
        let tests = tests_decide.map(|decide| if decide { "tests=decide" } else { "tests=ignored" });
        let parts = [form, status, tests, deleting.then_some("deleting")];
        let mut parts: Vec<String> = parts.into_iter().flatten().map(str::to_owned).collect();
        if !self.via.is_empty() {
            parts.push(format!("via={}", self.via.join(" ")));
        }
        f.write_str(&parts.join("; "))
    }
}

/// What the sender of an event says of it, once its credential was found good.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Number of its id and cluster: the same event has the same one, however often and late it comes.
    pub identity: u64,
    /// The stores that it was in, the first one first.
    pub via: Vec<String>,
}

/// The number of an event's id in its cluster; `None` for what can't be an id.
pub fn identity(cluster: &str, id: &str) -> Option<u64> {
    if id.is_empty() || id.len() > ID || !id.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let digest = Sha256::new().chain_update(cluster).chain_update([0]).chain_update(id).finalize();
    Some(digest.as_slice().iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_reads_as_it_is_written() {
        let hints = Hints { tests_decide: Some(true), deleting: true, status: Some(Agreement::Neither) };
        let all = Passed { form: Some(Origin::Recorder), hints, via: vec!["0a".into(), "1b".into()] };
        let text = "form=recorder; status=neither; tests=decide; deleting; via=0a 1b";
        assert_eq!((all.to_string(), Passed::parse(text)), (text.to_owned(), Ok(all)));
        assert_eq!(Passed::parse(""), Ok(Passed::default()));
        assert_eq!(Passed::parse(" form=forwarded ;later=x; also "), Passed::parse("form=forwarded"));
    }

    #[test]
    fn what_is_wrong_is_refused() {
        let ring = ["a"; HOPS + 1].join(" ");
        for bad in
            ["form=", "form=observed", "status=live", "tests", "deleting=no", "via=a b\"", "form=recorder;form=x"]
        {
            assert!(Passed::parse(bad).is_err(), "{bad}");
        }
        assert!(Passed::parse(&format!("via={ring}")).unwrap_err().to_string().contains("too often"));
        assert!(Passed::parse(&format!("via={}", &ring[2..])).is_ok());
    }

    #[test]
    fn an_id_is_of_its_cluster() {
        let known = identity("eu", "1").unwrap();
        for (cluster, id) in [("us", "1"), ("eu", "2"), ("", "eu1"), ("e", "u1")] {
            assert_ne!(identity(cluster, id), Some(known), "{cluster} {id}");
        }
        for bad in ["", "a b", "ä", "\n", &"x".repeat(129)] {
            assert_eq!(identity("eu", bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_header_panics(text in "[a-z=; ]{0,80}|\\PC*") {
            if let Ok(passed) = Passed::parse(&text) {
                prop_assert_eq!(Passed::parse(&passed.to_string()), Ok(passed));
            }
        }
    }
}
