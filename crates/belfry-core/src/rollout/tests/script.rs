//! The language of the scenarios.
//!
//! `# title` begins one, `object Kind` says what it is about. Then, one a line, what is said of the object:
//! `SECOND Reason [revision] [flag …] [: message] -> what happens`. A `!` before the reason makes it an error, a `~` takes
//! its severity; the kind `-` is that of the unnamed object; the second
//! is that of the timestamp, `-` for none. A single capital letter stands for a revision of a branch. Flags: `update`
//! (`commit_status`), `deleting`, `tests=yes|no`, `status=ready|failed|neither` (what a watch saw when the event came),
//! `uid=`, `token=`, `digest=`, `origin=`. The reasons `+Ready`, `+NotReady` and `+Gone` are what a watch saw. A rollout is named by its revision and the line that opened it. The lines
//! that begin with `=` are what is known at the end.

use super::super::{Input, Observation, Phase, Report, Rollout, Seen, State, What, step};
use crate::{ObjectKey, Seq, index::Agreement, revision};

/// Plays all scenarios of a text, and gives it back with what really happens.
pub fn play(text: &str) -> String {
    let mut out = Vec::new();
    let mut scene = Scene::default();
    for line in text.lines() {
        if let Some(kind) = line.strip_prefix("object ") {
            scene = Scene::of(kind.trim());
            out.push(line.to_owned());
        } else if line.starts_with('#') {
            out.push(line.to_owned());
        } else if line.is_empty() {
            scene.finish(&mut out);
            out.push(String::new());
        } else if !line.starts_with('=') {
            let said = line.split(" -> ").next().unwrap_or_default().trim_end();
            let happened = scene.play(said);
            out.push(format!("{said:<56} -> {happened}"));
        }
    }
    scene.finish(&mut out);
    out.join("\n") + "\n"
}

#[derive(Default)]
struct Scene {
    object: ObjectKey,
    state: State,
    lines: i64,
}

impl Scene {
    fn of(kind: &str) -> Self {
        let group = match kind {
            "Kustomization" => "kustomize.toolkit.fluxcd.io",
            "HelmRelease" => "helm.toolkit.fluxcd.io",
            "GitRepository" => "source.toolkit.fluxcd.io",
            _ => "",
        };
        let object = match kind {
            "-" => ObjectKey::default(),
            _ => ObjectKey { kind: kind.into(), group: group.into(), name: "app".into(), ..ObjectKey::default() },
        };
        Self { object, ..Self::default() }
    }

    fn finish(&mut self, out: &mut Vec<String>) {
        if self.lines == 0 {
            return;
        }
        out.extend(self.state.rollouts().iter().map(|rollout| format!("= {}", row(rollout))));
        if self.state.rollouts().is_empty() {
            out.push("= nothing".into());
        }
        if let Some(live) = self.state.live() {
            let rollout = live.rollout.map_or("?".into(), |id| line_of(id).to_string());
            out.push(format!("= live {}#{rollout}", short(&live.revision)));
        }
        self.lines = 0;
    }

    fn play(&mut self, said: &str) -> String {
        self.lines += 1;
        let (words, message) = said.split_once(" : ").unwrap_or((said, ""));
        let mut words = words.split_whitespace();
        let timestamp = words.next().and_then(|word| word.parse().ok());
        let reason = words.next().unwrap();
        let (mut names, mut flags) = (Vec::new(), Vec::new());
        for word in words {
            let flag = word.contains('=') || matches!(word, "update" | "deleting");
            if flag { &mut flags } else { &mut names }.push(word);
        }
        let flag = |name: &str| flags.iter().find_map(|flag| flag.strip_prefix(name)?.strip_prefix('='));
        let revision = names.first().map(|name| whole(name));
        let origin = flag("origin").map(whole);
        let commit = [&origin, &revision].into_iter().flatten();
        let commit = commit.filter_map(|text| revision::Revision::parse(text).whole_hash()).next();
        let seq = Seq((1_000_000 + self.lines) * 1_000_000);
        let (object, uid) = (&self.object, flag("uid").unwrap_or("u1"));
        let (revision, origin_revision) = (revision.as_deref(), origin.as_deref());
        let seen = match reason {
            "+Ready" => Some(Seen::Ready),
            "+NotReady" => Some(Seen::Failed { reason: "Seen", message }),
            "+Gone" => Some(Seen::Gone),
            _ => None,
        };
        let input = match seen {
            Some(seen) => {
                Input::Observed(Observation { seq, object, uid, timestamp, revision, origin_revision, commit, seen })
            }
            None => Input::Reported(Report {
                seq,
                object,
                uid,
                severity: match reason.chars().next() {
                    Some('!') => "error",
                    Some('~') => "",
                    _ => "info",
                },
                reason: reason.trim_start_matches(['!', '~']),
                message,
                timestamp,
                revision,
                origin_revision,
                commit,
                updates_commit_status: flags.contains(&"update"),
                token: flag("token"),
                oci_digest: flag("digest"),
                tests_decide: flag("tests").map(|value| value == "yes"),
                deleting: flags.contains(&"deleting"),
                status: status(&flags),
            }),
        };
        let done = step(&self.state, &input);
        self.state = done.state.clone();
        let told = done.transitions.iter().map(|t| told(done.changed(t.rollout).unwrap(), t.what));
        let told = told.collect::<Vec<_>>().join(", ");
        match done.about {
            _ if !told.is_empty() => told,
            Some(id) => match self.state.rollout(id) {
                Some(rollout) if done.changed.is_empty() => format!("({})", name(rollout)),
                Some(rollout) => format!("({} noted)", name(rollout)),
                None => "(forgotten)".into(),
            },
            None => "-".into(),
        }
    }
}

fn status(flags: &[&str]) -> Option<Agreement> {
    flags.iter().find_map(|flag| match *flag {
        "status=ready" => Some(Agreement::Ready),
        "status=failed" => Some(Agreement::Failed),
        "status=neither" => Some(Agreement::Neither),
        _ => None,
    })
}

/// What a person reads of a rollout.
pub fn row(rollout: &Rollout) -> String {
    let end = match &rollout.superseded_by {
        Some(next) => format!(" by {}#{}", short(&next.revision), line_of(next.id)),
        None => String::new(),
    };
    let lasted = rollout.finished.map(|finished| format!(" after {}s", finished.since(rollout.started).as_secs()));
    let attempts = if rollout.attempts == 1 { "attempt" } else { "attempts" };
    format!(
        "{} {}{end}{}, {} {attempts}, {}{}",
        name(rollout),
        rollout.state.as_str(),
        lasted.unwrap_or_default(),
        rollout.attempts,
        rollout.reason,
        if rollout.state == Phase::Failed && rollout.first_success.is_some() { ", succeeded before" } else { "" },
    )
}

fn told(rollout: &Rollout, what: What) -> String {
    let (name, now) = (name(rollout), rollout.state.as_str());
    match what {
        What::Opened => format!("{name} opened"),
        What::Progressed => format!("{name} {now}"),
        What::Recovered => format!("{name} recovered"),
        What::Superseded => match &rollout.superseded_by {
            Some(next) => format!("{name} superseded by {}#{}", short(&next.revision), line_of(next.id)),
            None => format!("{name} superseded"),
        },
        What::Failed | What::Succeeded => format!("{name} {now}"),
    }
}

fn name(rollout: &Rollout) -> String {
    format!("{}#{}", short(&rollout.revision), line_of(rollout.id))
}

fn line_of(id: Seq) -> i64 {
    id.0 / 1_000_000 - 1_000_000
}

/// `A` is a commit that begins and ends with `a`.
fn whole(name: &str) -> String {
    match name.as_bytes() {
        [letter @ b'A'..=b'Z'] => format!("main@sha1:{:02x}{}", letter, "0".repeat(38)),
        _ => name.to_owned(),
    }
}

fn short(revision: &str) -> String {
    let letter = revision.strip_prefix("main@sha1:").and_then(|hash| u8::from_str_radix(&hash[..2], 16).ok());
    letter.map_or_else(|| revision.to_owned(), |letter| char::from(letter).to_string())
}
