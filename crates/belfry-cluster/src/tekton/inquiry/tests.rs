//! Who hears what: answers that one moves, and accounts that may read some of the objects.

use std::{sync::Mutex, time::Duration};

use belfry_core::{
    rollout::Phase,
    verdict::{Standing, Verdict},
};
use futures::stream;

use super::*;

/// A name, perhaps with its cluster; nothing: the object without a name.
fn key(name: &str) -> ObjectKey {
    if name.is_empty() {
        return ObjectKey::default();
    }
    let (cluster, name) = name.split_once('/').unwrap_or(("", name));
    ObjectKey {
        cluster: cluster.to_owned(),
        group: "kustomize.toolkit.fluxcd.io".to_owned(),
        kind: "Kustomization".to_owned(),
        namespace: "apps".to_owned(),
        name: name.to_owned(),
    }
}

/// An answer about objects.
fn answer(verdict: Verdict, question: &Question, names: &[&str]) -> Arc<Answer> {
    let standing = |name: &&str| Standing {
        object: key(name),
        cluster: String::new(),
        state: Phase::Pending,
        revision: None,
        origin_revision: None,
        reason: String::new(),
        message: String::new(),
        live: None,
        superseded_by: None,
        rollout: None,
        event: None,
        started: None,
        finished: None,
        said: None,
    };
    Arc::new(Answer {
        verdict,
        reason: "",
        message: String::new(),
        revision: question.revision.clone(),
        origin_revision: None,
        object: None,
        superseded_by: None,
        event: None,
        started: None,
        finished: None,
        objects: names.iter().map(standing).collect(),
    })
}

/// What is answered to all, by verdict and names.
type Told = (Verdict, Vec<&'static str>);

struct Scene {
    told: watch::Sender<Told>,
    /// What may be read; `None` while that can't be known.
    may: Arc<Mutex<Option<Vec<&'static str>>>>,
}

impl Scene {
    fn new(may: &[&'static str], verdict: Verdict, names: &[&'static str]) -> Self {
        Self { told: watch::channel((verdict, names.to_vec())).0, may: Arc::new(Mutex::new(Some(may.to_vec()))) }
    }

    fn inquiry(&self, objects: &[Selector]) -> Inquiry {
        let told = self.told.clone();
        // As waits do it: the same answer is not given twice.
        let ask: Ask = Arc::new(move |question, sees| {
            let mut told = told.subscribe();
            told.mark_changed();
            stream::unfold((told, question, sees, None), |(mut told, question, sees, last)| async move {
                loop {
                    told.changed().await.ok()?;
                    let (mut verdict, names) = told.borrow_and_update().clone();
                    let mut seen = Vec::new();
                    for name in names {
                        if sees(&key(name)).await.unwrap() {
                            seen.push(name);
                        }
                    }
                    if seen.is_empty() {
                        verdict = Verdict::Unknown;
                    }
                    if last.as_ref() != Some(&(verdict, seen.clone())) {
                        let answer = answer(verdict, &question, &seen);
                        return Some((answer, (told, question, sees, Some((verdict, seen)))));
                    }
                }
            })
            .boxed()
        });
        let may = self.may.clone();
        let may: May = Arc::new(move |account, object| {
            assert_eq!((&*account.namespace, &*account.name), ("ci", "builder"));
            let all = may.lock().unwrap().clone();
            let unavailable = || Error::Unavailable { what: "asking".to_owned(), source: "it is down".into() };
            let may = all.ok_or_else(unavailable).map(|all| all.iter().any(|name| key(name) == object));
            async move { may }.boxed()
        });
        let account = ServiceAccount { namespace: "ci".to_owned(), name: "builder".to_owned() };
        let asker = Asker { ask, may, account, cluster: "".into() };
        Inquiry::new(asker, Question { revision: "a".to_owned(), objects: objects.to_vec(), ..Question::default() })
    }
}

/// What is heard, in a line.
fn line(heard: &Heard) -> String {
    let answer = match heard {
        Heard::Answer(answer) => answer,
        Heard::Forbidden(object) => return format!("forbidden: {object}"),
        Heard::NothingReadable { over: None } => return "nothing".to_owned(),
        Heard::NothingReadable { over: Some(_) } => return "nothing any more".to_owned(),
    };
    let names: Vec<_> = answer.objects.iter().map(|one| one.object.name.as_str()).collect();
    format!("{} [{}]", answer.verdict.as_str(), names.join(" "))
}

/// All that is heard while nothing happens.
async fn lines(inquiry: &mut Inquiry) -> Vec<String> {
    let mut lines = Vec::new();
    while let Ok(heard) = tokio::time::timeout(Duration::from_secs(60), inquiry.next()).await {
        lines.push(line(&heard));
    }
    lines
}

fn exactly(name: &str) -> Selector {
    let ObjectKey { kind, namespace, name, .. } = key(name);
    Selector { kind: Some(kind), namespace: Some(namespace), name: Some(name) }
}

#[tokio::test(start_paused = true)]
async fn only_what_may_be_read_is_heard() {
    let app = [exactly("app")];
    let (waits, over) = ("nothing", "nothing any more");
    let forbidden = "forbidden: Kustomization/apps/app";
    for (may, asked, verdict, names, expected) in [
        (vec!["app", "web"], &[][..], Verdict::Pending, vec!["app", "web"], &["pending [app web]"][..]),
        (vec![""], &[], Verdict::Failed, vec![""], &["failed []"]),
        (vec![], &[], Verdict::Unknown, vec![], &["unknown []"]),
        (vec!["app"], &[], Verdict::Failed, vec!["app", "web"], &["failed [app]"]),
        (vec![], &[], Verdict::Pending, vec!["app"], &[waits]),
        (vec![], &[], Verdict::Failed, vec!["app"], &[waits, over]),
        (vec!["app"], &[], Verdict::Failed, vec![""], &[waits, over]),
        // An object that the run names.
        (vec!["app"], &app, Verdict::Pending, vec!["app"], &["pending [app]"]),
    ] {
        let mut inquiry = Scene::new(&may, verdict, &names).inquiry(asked);
        assert_eq!(lines(&mut inquiry).await, expected, "{may:?} {asked:?} {names:?}");
    }
    for (may, names) in [(vec!["web"], vec!["app"]), (vec![], vec![]), (vec!["prod/app"], vec!["app"])] {
        let mut inquiry = Scene::new(&may, Verdict::Pending, &names).inquiry(&app);
        assert_eq!(line(&inquiry.next().await), forbidden, "{may:?} {names:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_hidden_may_come_and_go() {
    let scene = Scene::new(&["app"], Verdict::Unknown, &[]);
    let mut inquiry = scene.inquiry(&[]);
    assert_eq!(lines(&mut inquiry).await, ["unknown []"]);
    // To the account the answer is the same, but no longer for want of objects.
    scene.told.send_replace((Verdict::Pending, vec!["db"]));
    assert_eq!(lines(&mut inquiry).await, ["nothing"]);
    scene.told.send_replace((Verdict::Pending, vec!["db", "app"]));
    assert_eq!(lines(&mut inquiry).await, ["pending [app]"]);
    scene.told.send_replace((Verdict::Failed, vec!["db", "app"]));
    assert_eq!(lines(&mut inquiry).await, ["failed [app]"]);
    scene.told.send_replace((Verdict::Succeeded, vec!["db"]));
    let gone = ["nothing", "nothing any more"];
    assert_eq!(lines(&mut inquiry).await, gone);
}

#[tokio::test(start_paused = true)]
async fn while_nobody_can_say_what_may_be_read_nothing_is_heard() {
    let scene = Scene::new(&["app"], Verdict::Pending, &["app"]);
    let known = scene.may.lock().unwrap().take();
    let mut inquiry = scene.inquiry(&[exactly("app")]);
    assert!(lines(&mut inquiry).await.is_empty());
    *scene.may.lock().unwrap() = known;
    assert_eq!(lines(&mut inquiry).await, ["pending [app]"]);
}

#[tokio::test(start_paused = true)]
async fn a_question_that_is_no_longer_answered_is_waited_on() {
    let ask: Ask = Arc::new(|_, _| stream::empty().boxed());
    let may: May = Arc::new(|_, _| async { Ok(true) }.boxed());
    let account = ServiceAccount { namespace: "ci".to_owned(), name: "builder".to_owned() };
    let mut inquiry = Inquiry::new(Asker { ask, may, account, cluster: "".into() }, Question::default());
    assert!(lines(&mut inquiry).await.is_empty());
}
