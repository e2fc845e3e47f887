//! What is said of CommitStatuses.

use belfry_core::config::{Options, Snapshot, compile};
use serde_json::{Value, json};

use super::*;

fn manifest(kind: &str, name: &str, uid: &str, spec: Value) -> Document {
    let version = if kind == "CommitStatus" { "v1beta1" } else { "v1beta3" };
    let metadata = json!({"name": name, "namespace": "apps", "uid": uid, "generation": 4});
    let value = json!({
        "apiVersion": format!("notification.toolkit.fluxcd.io/{version}"),
        "kind": kind, "metadata": metadata, "spec": spec,
    });
    Document { origin: String::new(), value }
}

fn status(name: &str, uid: &str, more: Value) -> Document {
    let mut spec = json!({
        "providerRef": {"name": "git"}, "prefix": "prod", "eventSources": [{"kind": "Kustomization", "name": "*"}],
    });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    manifest("CommitStatus", name, uid, spec)
}

fn git() -> Document {
    manifest("Provider", "git", "p", json!({"type": "github", "secretRef": {"name": "token"}}))
}

fn configure(board: &StatusBoard, documents: &[Document]) -> Snapshot {
    let (snapshot, findings) = compile(documents, &Snapshot::default(), &Options::default());
    board.configured(documents, &findings);
    snapshot
}

fn object(name: &str) -> ObjectKey {
    ObjectKey { kind: "Kustomization".into(), namespace: "apps".into(), name: name.into(), ..ObjectKey::default() }
}

fn shown(context: &str) -> Shown {
    Shown { context: context.into(), commit: "7d8b790e325ffa0885be99788a08f4ae67d382a5".into(), state: State::Success }
}

const AT: Time = Time(1_767_225_600_000_000);

#[test]
fn findings_become_states() {
    let reason = |documents: &[Document]| {
        let board = StatusBoard::default();
        let reports = board.reports();
        configure(&board, documents);
        let all = reports.borrow().clone();
        let report = all.iter().find(|report| *report.key.name == *"a").unwrap().clone();
        assert_eq!((&*report.uid, report.generation), ("u", 4));
        let conflict = report.conflict.as_ref().map(|_| " conflict").unwrap_or_default();
        match &report.state {
            CommitStatusState::Ready { remarks } => format!("{}{conflict}", remarks.iter().flatten().count()),
            CommitStatusState::Suspended => "suspended".to_owned(),
            CommitStatusState::Failed { reason, message } => {
                assert!(message.starts_with("spec."), "{message}");
                (*reason).to_owned()
            }
        }
    };
    let plain = || status("a", "u", json!({}));
    let slack = manifest("Provider", "git", "p", json!({"type": "slack", "secretRef": {"name": "s"}}));
    let everywhere = json!({"eventSources": [{"kind": "Kustomization", "name": "*", "namespace": "*"}]});
    assert_eq!(reason(&[plain(), git()]), "0");
    assert_eq!(reason(&[plain()]), "ProviderNotFound");
    assert_eq!(reason(&[plain(), slack]), "NotAGitProvider");
    assert_eq!(reason(&[status("a", "u", json!({"prefix": ""})), git()]), "ValidationFailed");
    assert_eq!(reason(&[status("a", "u", json!({"contextExpr": "event."})), git()]), "InvalidCELExpression");
    assert_eq!(reason(&[status("a", "u", json!({"suspend": true})), git()]), "suspended");
    assert_eq!(reason(&[status("a", "u", everywhere), git()]), "1", "what never matches is said, and does no harm");
    assert_eq!(reason(&[plain(), status("b", "v", json!({})), git()]), "0 conflict");
}

#[test]
fn what_was_posted_is_said_the_latest_first_and_a_success_ends_a_refusal() {
    let board = StatusBoard::default();
    let mut reports = board.reports();
    let documents = [status("a", "u", json!({})), git()];
    let snapshot = configure(&board, &documents);
    let rule = snapshot.commit_status(&ConfigKey::commit_status("apps", "a")).unwrap();
    let said = |reports: &mut watch::Receiver<Reports>| reports.borrow_and_update()[0].clone();
    assert_eq!(said(&mut reports).state, CommitStatusState::Ready { remarks: None });
    for i in 0..30 {
        board.posted(rule, &shown(&format!("c{i}")), AT);
    }
    board.posted(rule, &shown("c20"), Time(AT.0 + 1_000_000));
    let report = said(&mut reports);
    assert_eq!(report.posted.len(), POSTED_CONTEXTS);
    let first = &report.posted[0];
    assert_eq!((&*first.context, &*first.state, &*first.time), ("c20", "success", "2026-01-01T00:00:01Z"));
    assert_eq!(report.posted.iter().filter(|posted| posted.context == "c20").count(), 1);

    board.refused(rule, Some(&shown("c1")), &object("app"), "no such commit");
    board.refused(rule, None, &object("odd"), &"€".repeat(TEXT));
    let CommitStatusState::Ready { remarks: Some(remarks) } = &said(&mut reports).state else { panic!("not ready") };
    assert!(remarks[0].starts_with("'Kustomization/apps/odd' was refused: €"), "{remarks:?}");
    assert!(remarks[0].len() <= TEXT);
    assert_eq!(remarks[1], "'c1' at 7d8b790e325f was refused: no such commit");
    board.posted(rule, &shown("c1"), AT);
    let CommitStatusState::Ready { remarks: Some(remarks) } = &said(&mut reports).state else { panic!("not ready") };
    assert_eq!(remarks.len(), 1);
    for i in 0..99 {
        board.refused(rule, Some(&shown(&format!("c{i}"))), &object("app"), "no");
    }
    let CommitStatusState::Ready { remarks: Some(remarks) } = &said(&mut reports).state else { panic!("not ready") };
    assert_eq!(remarks.len(), REFUSALS);

    // What is known already is no news, and neither is a configuration that says the same.
    board.names_commit(rule, &object("app"), false);
    assert_eq!(said(&mut reports).commits, [("Kustomization/apps/app".to_owned(), false)].into());
    board.names_commit(rule, &object("app"), false);
    configure(&board, &documents);
    assert!(!reports.has_changed().unwrap());

    // Another object of that name begins with nothing, and what is still under way of the old one is none of its.
    configure(&board, &[status("a", "other", json!({})), git()]);
    board.posted(rule, &shown("late"), AT);
    let report = said(&mut reports);
    assert_eq!((&*report.uid, report.posted.len(), report.commits.len()), ("other", 0, 0));
    configure(&board, &[git()]);
    assert!(reports.borrow_and_update().is_empty());
}

#[test]
fn boards_of_several_replicas_say_the_same() {
    let documents = [status("a", "u", json!({})), git()];
    let boards: [StatusBoard; 2] = std::array::from_fn(|_| StatusBoard::default());
    let reports = boards.each_ref().map(StatusBoard::reports);
    let mut notes = boards[0].notes.subscribe();
    let snapshot = configure(&boards[0], &documents);
    let rule = snapshot.commit_status(&ConfigKey::commit_status("apps", "a")).unwrap();
    let pass_on = |notes: &mut broadcast::Receiver<Note>| {
        let note = serde_json::to_string(&notes.try_recv().expect("news")).unwrap();
        boards[1].take_in(&serde_json::from_str(&note).unwrap())
    };
    boards[0].posted(rule, &shown("c"), Time(AT.0 + 1_000_000));
    assert!(pass_on(&mut notes), "also before the other has heard of the object");
    assert!(reports[1].borrow().is_empty());
    configure(&boards[1], &documents);
    boards[0].names_commit(rule, &object("app"), false);
    boards[0].refused(rule, Some(&shown("d")), &object("app"), &"é\u{1}".repeat(TEXT));
    assert!(notes.len() == 2 && pass_on(&mut notes) && pass_on(&mut notes));
    assert_eq!(reports[0].borrow()[0], reports[1].borrow()[0]);
    // What it posted itself meanwhile is newer, and no note is passed on again.
    let mut others = boards[1].notes.subscribe();
    boards[1].posted(rule, &shown("c"), Time(AT.0 + 2_000_000));
    boards[0].posted(rule, &shown("c"), Time(AT.0 + 1_000_000));
    assert!(!pass_on(&mut notes));
    assert_eq!(reports[1].borrow()[0].posted[0].time, "2026-01-01T00:00:02Z");
    assert!(others.try_recv().is_ok() && others.try_recv().is_err());
    // What is known already isn't told.
    boards[0].names_commit(rule, &object("app"), false);
    assert!(notes.is_empty());
}

#[test]
fn what_is_posted_before_the_api_server_answers_is_kept_and_nothing_standalone() {
    let documents = [status("a", "u", json!({})), git()];
    let (saved, _) = compile(&documents, &Snapshot::default(), &Options::default());
    let rule = saved.commit_status(&ConfigKey::commit_status("apps", "a")).unwrap();
    let board = StatusBoard::default();
    board.posted(rule, &shown("c"), AT);
    assert!(board.known.lock().unwrap().is_empty(), "nobody asks");
    let reports = board.reports();
    board.posted(rule, &shown("c"), AT);
    assert!(reports.borrow().is_empty(), "what compiled isn't known yet");
    configure(&board, &documents);
    assert_eq!(reports.borrow()[0].posted[0].context, "c");
}
