//! Tests of what a wait looks like.

use serde_json::json;
use unicode_width::UnicodeWidthStr as _;

use super::*;

const STYLE: Style = Style { columns: 80, rows: 24, colour: false, unicode: true };

fn answer(verdict: &str, objects: &serde_json::Value) -> Answer {
    let text = json!({
        "verdict": verdict, "reason": "Waiting", "message": "apps waits for infra", "revision": "main@sha1:7d8b790e",
        "objects": objects,
    });
    Answer::parse(&text.to_string()).unwrap()
}

fn standing(name: &str, state: &str, more: serde_json::Value) -> serde_json::Value {
    let mut object = json!({"object": format!("Kustomization/flux-system/{name}"), "state": state,
        "started": "2026-01-02T03:04:00Z"});
    object.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    object
}

/// One object in each state, with texts that want to be more than text.
fn mixed() -> Answer {
    let failed =
        "timeout waiting for: [Deployment/apps/podinfo status: 'InProgress']\n\x1b[31mred\n::error::mine\n##[warning]x";
    let objects = json!([
        standing(
            "apps",
            "failed",
            json!({"reason": "HealthCheckFailed", "message": failed,
            "finished": "2026-01-02T03:04:31Z", "live": "main@sha1:00000000"})
        ),
        standing("infra", "succeeded", json!({"finished": "2026-01-02T03:04:12Z", "message": "Applied revision"})),
        standing(
            "other",
            "superseded",
            json!({"supersededBy": "main@sha1:ffffffff",
            "finished": "2026-01-02T03:04:13Z", "cluster": "edge"})
        ),
        standing(
            "slow",
            "progressing",
            json!({"reason": "Progressing", "message": "größer 中文字 waits for health checks"})
        ),
        standing("zeta", "pending", json!({"started": null})),
    ]);
    answer("pending", &objects)
}

fn shown(answer: Option<&Answer>) -> Shown<'_> {
    Shown {
        revision: "7d8b790",
        timeout: Duration::from_secs(300),
        elapsed: Duration::from_secs(65),
        now: "2026-01-02T03:05:05Z".parse().unwrap(),
        answer,
        away: None,
    }
}

fn draw(shown: &Shown<'_>, style: Style) -> String {
    let lines = frame(shown, style);
    for line in &lines {
        let visible = line.split('\x1b').map(|part| part.split_once('m').map_or(part, |(_, text)| text));
        assert!(style.colour || visible.collect::<String>().width() < style.columns, "{line}");
    }
    assert!(lines.len() < style.rows, "{lines:?}");
    lines.join("\n")
}

#[test]
fn a_terminal_shows_a_line_for_each_object() {
    let answer = mixed();
    insta::assert_snapshot!("terminal", draw(&shown(Some(&answer)), STYLE));
}

#[test]
fn a_narrow_terminal_shows_less() {
    let answer = mixed();
    insta::assert_snapshot!("narrow_terminal", draw(&shown(Some(&answer)), Style { columns: 44, rows: 7, ..STYLE }));
    for columns in 1..80 {
        draw(&shown(Some(&answer)), Style { columns, ..STYLE });
        draw(&shown(Some(&answer)), Style { columns, unicode: false, ..STYLE });
    }
}

#[test]
fn a_plain_terminal_gets_plain_characters() {
    let answer = mixed();
    let text = draw(&shown(Some(&answer)), Style { columns: 120, unicode: false, ..STYLE });
    assert!(text.is_ascii(), "{text}");
    assert!(text.contains("gr??er ??? waits"), "{text}");
}

#[test]
fn colours_end_with_their_line() {
    let answer = mixed();
    let text = draw(&shown(Some(&answer)), Style { colour: true, ..STYLE });
    for line in text.lines().skip(1) {
        assert!(line.starts_with("\x1b[") && line.ends_with("\x1b[0m"), "{line:?}");
        assert_eq!(line.matches('\x1b').count(), 2, "{line:?}");
    }
}

#[test]
fn a_terminal_says_why_nothing_is_known() {
    let nothing = Shown { away: Some("can't reach http://b: no\nroute"), ..shown(None) };
    insta::assert_snapshot!("away", draw(&nothing, STYLE));
    let empty = answer("unknown", &json!([]));
    insta::assert_snapshot!("nothing_tracked", draw(&shown(Some(&empty)), STYLE));
}

#[test]
fn a_log_gets_a_line_for_each_change() {
    let at = Duration::from_secs;
    let first =
        answer("pending", &json!([standing("a", "progressing", json!({})), standing("b", "pending", json!({}))]));
    let same = answer(
        "pending",
        &json!([standing("a", "progressing", json!({"message": "1 of 2 ready"})), standing("b", "pending", json!({}))]),
    );
    let failed = answer(
        "pending",
        &json!([
            standing("a", "failed", json!({"reason": "BuildFailed", "message": "no such\n::set-output name=x::y"})),
            standing("b", "pending", json!({}))
        ]),
    );
    let lines: Vec<String> =
        [changes(at(1), None, &first), changes(at(2), Some(&first), &same), changes(at(75), Some(&same), &failed)]
            .concat();
    insta::assert_snapshot!("log", lines.join("\n"));
    assert_eq!(still(&shown(Some(&failed))), "[ 1m05s] still waiting: 1 failed, 1 pending");
    assert_eq!(still(&shown(None)), "[ 1m05s] still waiting: an answer");
    assert_eq!(away(at(3), "gone\x07"), "[    3s] gone; trying again");
}

#[test]
fn a_log_is_not_flooded() {
    let many: Vec<_> = (0..1000).map(|n| standing(&format!("app-{n:04}"), "pending", json!({}))).collect();
    let many = answer("pending", &many.into());
    let lines = changes(Duration::ZERO, None, &many);
    assert_eq!(lines.len(), LINES + 1);
    assert_eq!(lines[LINES], "[    0s] and 950 more: 950 pending");
    assert_eq!(conclusion(&many, true, Duration::ZERO).len(), LINES + 2);
    assert_eq!(frame(&shown(Some(&many)), STYLE).len(), 22);
}

#[test]
fn the_last_words_tell_what_is_missing() {
    let mut answer = mixed();
    let at = Duration::from_secs(300);
    insta::assert_snapshot!("last_words", conclusion(&answer, true, at).join("\n"));
    answer.verdict = Verdict::Succeeded;
    assert_eq!(conclusion(&answer, false, at), ["succeeded after 5m00s: apps waits for infra"]);
    answer.verdict = Verdict::Unknown;
    assert_eq!(conclusion(&answer, true, at)[0], "not tracked after 5m00s: apps waits for infra");
    answer.verdict = Verdict::Superseded;
    assert_eq!(conclusion(&answer, false, at)[0], "superseded after 5m00s: apps waits for infra");
}

#[test]
fn annotations_are_for_what_failed() {
    let mut answer = mixed();
    assert!(annotations(&answer).is_empty());
    answer.verdict = Verdict::Failed;
    insta::assert_snapshot!("annotations", annotations(&answer).join("\n"));
}
