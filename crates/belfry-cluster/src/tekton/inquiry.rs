//! The question of one run, asked on behalf of its ServiceAccount: of what is answered, only what that account may read
//! gets any further.

use std::{collections::BTreeSet, sync::Arc};

use belfry_core::{
    ObjectKey,
    verdict::{Answer, Question, Selector},
};
use futures::{StreamExt as _, future::try_join_all, stream::BoxStream};

use super::{Ask, May, ServiceAccount, Subject, params::written, plan::Heard};
use crate::{Error, backoff::Backoff, kinds::OBJECTS};

/// Who asks, and of whom.
#[derive(Clone)]
pub(super) struct Asker {
    pub(super) ask: Ask,
    pub(super) may: May,
    pub(super) account: ServiceAccount,
    /// The name of the local cluster.
    pub(super) cluster: Arc<str>,
}

/// A question that is being answered.
pub(super) struct Inquiry {
    asker: Asker,
    question: Question,
    /// None until the objects that the question names are known to be readable.
    answers: Option<Answers>,
    /// The same question about those objects alone that may be read, when others are among the answers too.
    narrowed: Option<(Vec<Selector>, Answers)>,
    backoff: Backoff,
}

/// The answers to a question, and the newest until it was judged.
struct Answers {
    stream: BoxStream<'static, Arc<Answer>>,
    newest: Option<Arc<Answer>>,
}

impl Answers {
    /// Waits for the next one. Loses none when it is dropped.
    async fn next(&mut self) {
        match self.stream.next().await {
            Some(answer) => self.newest = Some(answer),
            // Whoever answers has gone, and so will whoever asks.
            None => std::future::pending().await,
        }
    }
}

impl Inquiry {
    pub(super) fn new(asker: Asker, question: Question) -> Self {
        Self { asker, question, answers: None, narrowed: None, backoff: Backoff::new() }
    }

    pub(super) fn question(&self) -> &Question {
        &self.question
    }

    /// Waits for what is to be heard next. May be dropped and called again at any time.
    pub(super) async fn next(&mut self) -> Heard {
        loop {
            match self.step().await {
                Ok(Some(heard)) => {
                    self.backoff.reset();
                    return heard;
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!("asking what a run's ServiceAccount may read: {}", error.explain());
                    self.backoff.wait().await;
                }
            }
        }
    }

    /// Goes one step; an answer stays the newest until it was judged, so that a step that is dropped is done again.
    async fn step(&mut self) -> Result<Option<Heard>, Error> {
        let Some(answers) = &mut self.answers else {
            if let Some(selector) = self.asker.forbidden(&self.question).await? {
                return Ok(Some(Heard::Forbidden(written(selector))));
            }
            self.answers = Some(self.asker.asked(self.question.clone()));
            return Ok(None);
        };
        if let Some(answer) = answers.newest.clone() {
            let (readable, hidden) = self.asker.sorted(&answer).await?;
            answers.newest = None;
            return Ok(self.judge(answer, &readable, &hidden));
        }
        let Some((selectors, narrowed)) = &mut self.narrowed else {
            answers.next().await;
            return Ok(None);
        };
        if let Some(answer) = narrowed.newest.clone() {
            let (_, hidden) = self.asker.sorted(&answer).await?;
            narrowed.newest = None;
            // What is hidden now has the name of what is readable, but is in another cluster.
            return Ok(Some(
                match selectors.iter().find(|selector| hidden.iter().any(|hidden| fits(selector, hidden))) {
                    Some(selector) => Heard::Forbidden(written(selector)),
                    None => Heard::Answer(answer),
                },
            ));
        }
        tokio::select! {
            () = answers.next() => {}
            () = narrowed.next() => {}
        }
        Ok(None)
    }

    /// What the run may hear of an answer, some of whose objects it may read.
    fn judge(&mut self, answer: Arc<Answer>, readable: &[ObjectKey], hidden: &[ObjectKey]) -> Option<Heard> {
        if hidden.is_empty() {
            self.narrowed = None;
            return Some(Heard::Answer(answer));
        }
        let exact = self.question.objects.iter().filter(|selector| is_exact(selector));
        if let Some(selector) = exact.clone().find(|selector| hidden.iter().any(|object| fits(selector, object))) {
            return Some(Heard::Forbidden(written(selector)));
        }
        let mut selectors: Vec<Selector> = exact.cloned().collect();
        for object in readable.iter().filter(|object| !object.kind.is_empty()) {
            let selector = selector(object);
            if !selectors.contains(&selector) {
                selectors.push(selector);
            }
        }
        if selectors.is_empty() {
            self.narrowed = None;
            return Some(Heard::NothingReadable { over: answer.verdict.is_final() });
        }
        if self.narrowed.as_ref().is_none_or(|(narrowed, _)| *narrowed != selectors) {
            let question = Question { objects: selectors.clone(), ..self.question.clone() };
            self.narrowed = Some((selectors, self.asker.asked(question)));
        }
        None
    }
}

impl Asker {
    fn asked(&self, question: Question) -> Answers {
        Answers { stream: (self.ask)(question), newest: None }
    }

    /// The first of the objects that a question names which may not be read.
    async fn forbidden<'q>(&self, question: &'q Question) -> Result<Option<&'q Selector>, Error> {
        let cluster = question.cluster.as_deref().unwrap_or(&self.cluster);
        let named = question.objects.iter().filter_map(|selector| Some((selector, named(selector, cluster)?)));
        let asked = named.map(async |(selector, object)| {
            let may = (self.may)(self.account.clone(), Subject::Object(object)).await?;
            Ok::<_, Error>((!may).then_some(selector))
        });
        Ok(try_join_all(asked).await?.into_iter().flatten().next())
    }

    /// The objects of an answer that may be read, and those that may not.
    async fn sorted(&self, answer: &Answer) -> Result<(Vec<ObjectKey>, Vec<ObjectKey>), Error> {
        let objects = answer.objects.iter().map(|standing| &standing.object).chain(&answer.object);
        let objects: BTreeSet<&ObjectKey> = objects.collect();
        if objects.is_empty() || (self.may)(self.account.clone(), Subject::Any).await? {
            return Ok((objects.into_iter().cloned().collect(), Vec::new()));
        }
        let asked = objects.into_iter().map(async |object| {
            // Nobody may read what can't be named but who may read everything.
            let may =
                !object.kind.is_empty() && (self.may)(self.account.clone(), Subject::Object(object.clone())).await?;
            Ok::<_, Error>((object.clone(), may))
        });
        let (readable, hidden): (Vec<_>, Vec<_>) = try_join_all(asked).await?.into_iter().partition(|(_, may)| *may);
        let objects = |sorted: Vec<(ObjectKey, bool)>| sorted.into_iter().map(|(object, _)| object).collect();
        Ok((objects(readable), objects(hidden)))
    }
}

/// Whether it names one object.
fn is_exact(selector: &Selector) -> bool {
    selector.kind.is_some() && selector.namespace.is_some() && selector.name.is_some()
}

/// The one object that it names.
fn named(selector: &Selector, cluster: &str) -> Option<ObjectKey> {
    let kind = selector.kind.as_deref()?;
    Some(ObjectKey {
        cluster: cluster.to_owned(),
        group: OBJECTS.iter().find(|known| known.name == kind)?.group.to_owned(),
        kind: kind.to_owned(),
        namespace: selector.namespace.clone()?,
        name: selector.name.clone()?,
    })
}

fn selector(object: &ObjectKey) -> Selector {
    let ObjectKey { kind, namespace, name, .. } = object.clone();
    Selector { kind: Some(kind), namespace: Some(namespace), name: Some(name) }
}

fn fits(selector: &Selector, object: &ObjectKey) -> bool {
    let parts =
        [(&selector.kind, &object.kind), (&selector.namespace, &object.namespace), (&selector.name, &object.name)];
    parts.into_iter().all(|(wanted, has)| wanted.as_ref().is_none_or(|wanted| wanted == has))
}

#[cfg(test)]
mod tests;
