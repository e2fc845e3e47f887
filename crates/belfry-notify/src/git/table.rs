//! One comment for all objects of a Provider: a table that is read back, and of which one row is written anew.

use std::collections::BTreeMap;

use belfry_core::notification::Notification;

use crate::text;

const HEAD: &str = "| Object | State | Revision | Message |\n| --- | --- | --- | --- |";
/// What an error's state begins with.
const WARNING: &str = "⚠\u{fe0f}";
/// What stands in an empty cell.
const NOTHING: &str = "–";
/// Characters of a message, a revision and everything else; the rest of a long message is in the log.
const MESSAGE: usize = 200;
const REVISION: usize = 100;
const NAME: usize = 400;

/// What stands behind the object.
struct Row {
    state: String,
    revision: String,
    message: String,
}

/// The comment that takes the place of `before`. `fits` says whether a host takes it.
pub(super) fn body(marker: &str, before: &str, notification: &Notification, fits: impl Fn(&str) -> bool) -> String {
    let mut rows = read(before);
    let event = &notification.event;
    let object = &event.involved_object;
    let emoji = if event.severity == "error" { WARNING } else { "ℹ\u{fe0f}" };
    let revision = event.metadata.get("revision").map(String::as_str).unwrap_or_default().replace('`', "'");
    let row = Row {
        state: cell(&format!("{emoji} {}", text::words(&event.reason)), NAME),
        revision: if revision.is_empty() { NOTHING.to_owned() } else { format!("`{}`", cell(&revision, REVISION)) },
        message: cell(&event.message, MESSAGE),
    };
    let own = cell(&format!("{}/{}/{}", object.kind, object.namespace, object.name), NAME);
    rows.insert(own.clone(), row);
    fitted(marker, rows, &own, fits)
}

/// Gives up what matters least: messages of what is well, then all of them, then objects that are well, then others.
fn fitted(marker: &str, mut rows: BTreeMap<String, Row>, own: &str, fits: impl Fn(&str) -> bool) -> String {
    for all in [false, true] {
        let body = write(marker, &rows, 0);
        if fits(&body) {
            return body;
        }
        let silenced = rows.values_mut().filter(|row| all || !row.state.starts_with(WARNING));
        silenced.for_each(|row| NOTHING.clone_into(&mut row.message));
    }
    let mut dropped = 0;
    loop {
        let body = write(marker, &rows, dropped);
        let mut others = rows.iter().rev().filter(|(object, _)| *object != own);
        let well = others.clone().find(|(_, row)| !row.state.starts_with(WARNING));
        let Some(last) = well.or_else(|| others.next()).map(|(object, _)| object.clone()).filter(|_| !fits(&body))
        else {
            return body;
        };
        rows.remove(&last);
        dropped += 1;
    }
}

fn write(marker: &str, rows: &BTreeMap<String, Row>, dropped: usize) -> String {
    let mut body = format!("{marker}\n\n## Flux Status\n\n{HEAD}\n");
    for (object, Row { state, revision, message }) in rows {
        body += &format!("| {object} | {state} | {revision} | {message} |\n");
    }
    if dropped > 0 {
        body += &format!("\n{dropped} more left out: a comment holds no more.\n");
    }
    body
}

/// The rows of a comment. What people wrote into it is no row, and goes.
fn read(body: &str) -> BTreeMap<String, Row> {
    let rows = body.lines().skip_while(|line| !line.starts_with("| ---")).skip(1);
    let row = |line: &str| {
        let mut cells = line.trim_end().strip_prefix("| ")?.strip_suffix(" |")?.splitn(4, " | ").map(str::to_owned);
        let object = cells.next()?;
        Some((object, Row { state: cells.next()?, revision: cells.next()?, message: cells.next()? }))
    };
    rows.filter_map(row).collect()
}

/// Text that stays within its cell, and is no HTML: no `|` stands in it without a backslash.
fn cell(text: &str, most: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text::cut(&line, most).replace('|', r"\|").replace('<', "&lt;") {
        empty if empty.is_empty() => NOTHING.to_owned(),
        cell => cell,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tests::probe;

    fn about(name: &str, severity: &str, message: &str) -> Notification {
        let mut notification = probe(severity);
        notification.event.involved_object.name = name.into();
        notification.event.message = message.into();
        notification
    }

    #[test]
    fn an_object_has_one_row() {
        let mut comment = String::new();
        for (name, severity, message) in [
            ("web", "error", "no such | file\n| Object | <!-- x -->"),
            ("api", "info", ""),
            ("web-2", "error", "timeout"),
            ("web", "info", "fine"),
            ("api", "error", r"a \| b | c |"),
        ] {
            comment = body("<!-- m -->", &comment, &about(name, severity, message), |_| true).replace('\n', "\r\n");
        }
        insta::assert_snapshot!(comment.replace('\r', ""));
    }

    #[test]
    fn what_matters_least_goes_first() {
        let message = "x".repeat(150);
        let table = |most: usize| {
            let severity = |number: usize| if number.is_multiple_of(10) { "error" } else { "info" };
            (0..100).fold(String::new(), |comment, number| {
                let notification = about(&format!("app-{number:03}"), severity(number), &message);
                let comment = body("<!-- m -->", &comment, &notification, |body| body.len() <= most);
                assert!(comment.len() <= most && comment.contains(&format!("app-{number:03} ")), "{comment}");
                comment
            })
        };
        let failures = |comment: &str| comment.matches(WARNING).count();
        let told = |comment: &str| comment.matches(&message).count();
        assert_eq!((failures(&table(60_000)), told(&table(60_000))), (10, 100));
        let tight = table(20_000);
        assert_eq!((failures(&tight), tight.lines().filter(|line| line.contains("app-")).count()), (10, 100));
        let tighter = table(6_000);
        assert!(failures(&tighter) == 10 && tighter.contains("more left out"), "{tighter}");
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_table(message in ".{0,60}", name in ".{1,20}", reason in ".{0,10}", revision in ".{0,20}") {
            let mut notification = about(&name, "error", &message);
            notification.event.reason = reason;
            notification.event.metadata.insert("revision".into(), revision);
            let once = body("<!-- m -->", "", &about("other", "info", "x"), |_| true);
            let twice = body("<!-- m -->", &once, &notification, |_| true);
            prop_assert_eq!(read(&twice).len(), 2, "{}", twice);
            let again = body("<!-- m -->", &twice, &notification, |_| true);
            prop_assert_eq!(again, twice);
        }
    }
}
