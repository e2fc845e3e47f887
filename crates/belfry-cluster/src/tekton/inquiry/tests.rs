//! Who hears what: answers that one moves, and accounts that may read some of the objects.

use std::{collections::HashMap, sync::Mutex, time::Duration};

use belfry_core::{
    rollout::Phase,
    verdict::{Standing, Verdict},
};
use futures::{FutureExt as _, stream};
use tokio::sync::watch;

use super::*;

fn object(name: &str) -> ObjectKey {
    let (cluster, name) = name.split_once('/').unwrap_or(("", name));
    ObjectKey {
        cluster: cluster.to_owned(),
        group: "kustomize.toolkit.fluxcd.io".to_owned(),
        kind: "Kustomization".to_owned(),
        namespace: "apps".to_owned(),
        name: name.to_owned(),
    }
}

/// An answer about objects, which also says what was asked.
fn answer(verdict: Verdict, question: &Question, names: &[&str]) -> Arc<Answer> {
    let standing = |name: &&str| Standing {
        object: if name.is_empty() { ObjectKey::default() } else { object(name) },
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
    };
    Arc::new(Answer {
        verdict,
        reason: "",
        message: question.objects.iter().map(written).collect::<Vec<_>>().join(" "),
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

/// What is answered to all, by verdict and names; of a question with objects, only what fits.
type Told = (Verdict, Vec<&'static str>);

struct Scene {
    told: watch::Sender<Told>,
    /// What may be read, everything for `*`; an account that isn't here can't be asked about.
    may: Arc<Mutex<Option<Vec<&'static str>>>>,
}

impl Scene {
    fn new(may: &[&'static str], verdict: Verdict, names: &[&'static str]) -> Self {
        Self { told: watch::channel((verdict, names.to_vec())).0, may: Arc::new(Mutex::new(Some(may.to_vec()))) }
    }

    fn inquiry(&self, objects: &[Selector]) -> Inquiry {
        let told = self.told.clone();
        let ask: Ask = Arc::new(move |question| {
            let mut told = told.subscribe();
            told.mark_changed();
            stream::unfold((told, question), |(mut told, question)| async move {
                told.changed().await.ok()?;
                let (verdict, mut names) = told.borrow_and_update().clone();
                let asked = |name: &&str| question.objects.iter().any(|selector| fits(selector, &object(name)));
                names.retain(|name| question.objects.is_empty() || asked(name));
                Some((answer(verdict, &question, &names), (told, question)))
            })
            .boxed()
        });
        let may = self.may.clone();
        let may: May = Arc::new(move |account, subject| {
            assert_eq!((&*account.namespace, &*account.name), ("ci", "builder"));
            let all = may.lock().unwrap().clone();
            let unavailable = || Error::Unavailable { what: "asking".to_owned(), source: "it is down".into() };
            let may = all.ok_or_else(unavailable).map(|all| match subject {
                Subject::Any => all.contains(&"*"),
                Subject::Object(wanted) => all.iter().any(|name| *name == "*" || object(name) == wanted),
            });
            async move { may }.boxed()
        });
        let account = ServiceAccount { namespace: "ci".to_owned(), name: "builder".to_owned() };
        let asker = Asker { ask, may, account, cluster: "".into() };
        Inquiry::new(asker, Question { revision: "a".to_owned(), objects: objects.to_vec(), ..Question::default() })
    }
}

/// What is heard, in a line: of an answer, the objects and those that were asked for.
fn line(heard: &Heard) -> String {
    let Heard::Answer(answer) = heard else { return format!("{heard:?}") };
    let names: Vec<_> = answer.objects.iter().map(|one| one.object.name.as_str()).collect();
    format!("{} [{}] asked [{}]", answer.verdict.as_str(), names.join(" "), answer.message)
}

fn exactly(name: &str) -> Selector {
    selector(&object(name))
}

#[tokio::test]
async fn only_what_may_be_read_is_heard() {
    let app = [exactly("app")];
    let in_apps = [Selector { namespace: Some("apps".to_owned()), ..Selector::default() }];
    for (may, asked, verdict, names, expected) in [
        (vec!["*"], &[][..], Verdict::Pending, vec!["app", "web"], "pending [app web] asked []"),
        (vec!["*"], &[], Verdict::Failed, vec![""], "failed [] asked []"),
        (vec!["app", "web"], &[], Verdict::Pending, vec!["app", "web"], "pending [app web] asked []"),
        (vec![], &[], Verdict::Unknown, vec![], "unknown [] asked []"),
        // The question is put again about what may be read.
        (vec!["app"], &[], Verdict::Pending, vec!["app", "web"], "pending [app] asked [Kustomization/apps/app]"),
        (vec!["app"], &in_apps, Verdict::Failed, vec!["app", "web"], "failed [app] asked [Kustomization/apps/app]"),
        (vec![], &[], Verdict::Pending, vec!["app"], "NothingReadable { over: false }"),
        (vec![], &[], Verdict::Failed, vec!["app"], "NothingReadable { over: true }"),
        (vec!["app"], &[], Verdict::Failed, vec![""], "NothingReadable { over: true }"),
        // An object that the run names.
        (vec!["app"], &app, Verdict::Pending, vec!["app", "web"], "pending [app] asked [Kustomization/apps/app]"),
        (vec!["web"], &app, Verdict::Pending, vec!["app"], "Forbidden(\"Kustomization/apps/app\")"),
        (vec![], &app, Verdict::Pending, vec![], "Forbidden(\"Kustomization/apps/app\")"),
        // The same name in another cluster.
        (vec!["app"], &app, Verdict::Pending, vec!["app", "prod/app"], "Forbidden(\"Kustomization/apps/app\")"),
        (vec!["app"], &[], Verdict::Pending, vec!["app", "prod/app"], "Forbidden(\"Kustomization/apps/app\")"),
        (vec!["app", "prod/app"], &app, Verdict::Pending, vec!["app", "prod/app"], {
            "pending [app app] asked [Kustomization/apps/app]"
        }),
    ] {
        let scene = Scene::new(&may, verdict, &names);
        let heard = scene.inquiry(asked).next().await;
        assert_eq!(line(&heard), expected, "{may:?} {asked:?} {names:?}");
    }
}

#[tokio::test]
async fn what_is_hidden_may_come_and_go() {
    let scene = Scene::new(&["app", "web"], Verdict::Pending, &["app", "db"]);
    let mut inquiry = scene.inquiry(&[]);
    assert_eq!(line(&inquiry.next().await), "pending [app] asked [Kustomization/apps/app]");
    scene.told.send_replace((Verdict::Pending, vec!["app", "db", "web"]));
    // The narrower question is answered too while the wider one is looked at.
    let both = "pending [app web] asked [Kustomization/apps/app Kustomization/apps/web]";
    let mut heard = line(&inquiry.next().await);
    if heard != both {
        assert_eq!(heard, "pending [app] asked [Kustomization/apps/app]");
        heard = line(&inquiry.next().await);
    }
    assert_eq!(heard, both);
    scene.told.send_replace((Verdict::Succeeded, vec!["app", "web"]));
    let mut heard = line(&inquiry.next().await);
    if heard.ends_with("asked [Kustomization/apps/app Kustomization/apps/web]") {
        heard = line(&inquiry.next().await);
    }
    assert_eq!(heard, "succeeded [app web] asked []");
}

#[tokio::test(start_paused = true)]
async fn while_nobody_can_say_what_may_be_read_nothing_is_heard() {
    for asked in [&[][..], &[exactly("app")]] {
        let scene = Scene::new(&["app"], Verdict::Pending, &["app"]);
        let known = scene.may.lock().unwrap().take();
        let mut inquiry = scene.inquiry(asked);
        assert!(tokio::time::timeout(Duration::from_secs(60), inquiry.next()).await.is_err());
        *scene.may.lock().unwrap() = known;
        // Nor is what came meanwhile lost.
        assert!(line(&inquiry.next().await).starts_with("pending [app]"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_question_that_is_no_longer_answered_is_waited_on() {
    let questions: Arc<Mutex<HashMap<String, u32>>> = Arc::default();
    let asked = questions.clone();
    let ask: Ask = Arc::new(move |question| {
        *asked.lock().unwrap().entry(question.revision).or_default() += 1;
        stream::empty().boxed()
    });
    let may: May = Arc::new(|_, _| async { Ok(true) }.boxed());
    let account = ServiceAccount { namespace: "ci".to_owned(), name: "builder".to_owned() };
    let question = Question { revision: "a".to_owned(), ..Question::default() };
    let mut inquiry = Inquiry::new(Asker { ask, may, account, cluster: "".into() }, question);
    assert!(tokio::time::timeout(Duration::from_secs(60), inquiry.next()).await.is_err());
    assert_eq!(questions.lock().unwrap()["a"], 1);
}
