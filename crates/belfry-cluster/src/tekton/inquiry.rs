//! The question of one run, asked on behalf of its ServiceAccount: objects that this may not read don't count, and nothing
//! of them is heard.

use std::sync::Arc;

use belfry_core::{
    ObjectKey,
    verdict::{Answer, Question, Selector, Verdict},
};
use futures::{FutureExt as _, StreamExt as _, future::try_join_all, stream::BoxStream};
use tokio::sync::watch;

use super::{Ask, May, Sees, ServiceAccount, now, params::written, plan::Heard};
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
    backoff: Backoff,
}

type Stream = BoxStream<'static, Arc<Answer>>;

struct Answers {
    stream: Stream,
    /// Whether an object was kept from the account.
    hidden: watch::Receiver<bool>,
    /// Whether the last answer was about no object.
    empty: bool,
    /// The same question as others see it, to know whether it is over, while the account sees nothing but there is something.
    unseen: Option<Stream>,
}

enum News {
    Answer(Arc<Answer>),
    Hidden,
    Unseen(Verdict),
}

impl Inquiry {
    pub(super) fn new(asker: Asker, question: Question) -> Self {
        Self { asker, question, answers: None, backoff: Backoff::new() }
    }

    pub(super) fn question(&self) -> &Question {
        &self.question
    }

    /// Waits for what is to be heard next. May be dropped and called again at any time.
    pub(super) async fn next(&mut self) -> Heard {
        loop {
            if let Some(answers) = &mut self.answers {
                return answers.next(&self.asker, &self.question).await;
            }
            match self.asker.forbidden(&self.question).await {
                Ok(Some(selector)) => return Heard::Forbidden(written(selector)),
                Ok(None) => self.answers = Some(self.asker.asked(&self.question)),
                Err(error) => {
                    tracing::debug!("asking what a run's ServiceAccount may read: {}", error.explain());
                    self.backoff.wait().await;
                }
            }
        }
    }
}

impl Answers {
    async fn next(&mut self, asker: &Asker, question: &Question) -> Heard {
        loop {
            let was_hidden = *self.hidden.borrow();
            let news = tokio::select! {
                answer = next(Some(&mut self.stream)) => News::Answer(answer),
                Ok(_) = self.hidden.wait_for(|hidden| *hidden), if !was_hidden => News::Hidden,
                answer = next(self.unseen.as_mut()) => News::Unseen(answer.verdict),
            };
            match news {
                News::Answer(answer) => {
                    self.empty = answer.objects.is_empty();
                    if !self.empty || !*self.hidden.borrow() {
                        self.unseen = None;
                        return Heard::Answer(answer);
                    }
                }
                // The answer stays what it was, but now it is so for another reason.
                News::Hidden if self.empty => {}
                News::Unseen(verdict) if verdict.is_final() => return Heard::NothingReadable { over: Some(now()) },
                News::Hidden | News::Unseen(_) => continue,
            }
            let everything: Sees = Arc::new(|_| std::future::ready(Ok(true)).boxed());
            if self.unseen.is_none() {
                self.unseen = Some((asker.ask)(question.clone(), everything));
                return Heard::NothingReadable { over: None };
            }
        }
    }
}

/// The next answer of a stream. Whoever answers no more has gone, and so will whoever asks.
async fn next(stream: Option<&mut Stream>) -> Arc<Answer> {
    match stream {
        Some(stream) => match stream.next().await {
            Some(answer) => answer,
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

impl Asker {
    fn asked(&self, question: &Question) -> Answers {
        let (hide, hidden) = watch::channel(false);
        let (may, account, hide) = (self.may.clone(), self.account.clone(), Arc::new(hide));
        let sees: Sees = Arc::new(move |object| {
            let (may, hide) = (may(account.clone(), with_group(object)), hide.clone());
            async move {
                let may = may.await.map_err(|error| error.explain())?;
                if !may {
                    hide.send_if_modified(|hidden| !std::mem::replace(hidden, true));
                }
                Ok(may)
            }
            .boxed()
        });
        Answers { stream: (self.ask)(question.clone(), sees), hidden, empty: false, unseen: None }
    }

    /// The first of the objects that a question names which may not be read.
    async fn forbidden<'q>(&self, question: &'q Question) -> Result<Option<&'q Selector>, Error> {
        let cluster = question.cluster.as_deref().unwrap_or(&self.cluster);
        let named = question.objects.iter().filter_map(|selector| Some((selector, named(selector, cluster)?)));
        let asked = named.map(async |(selector, object)| {
            let may = (self.may)(self.account.clone(), object).await?;
            Ok::<_, Error>((!may).then_some(selector))
        });
        Ok(try_join_all(asked).await?.into_iter().flatten().next())
    }
}

fn group(kind: &str) -> Option<&'static str> {
    OBJECTS.iter().find(|known| known.name == kind).map(|known| known.group)
}

/// Of an object that is known by its name alone, the group is that of its kind.
fn with_group(object: &ObjectKey) -> ObjectKey {
    let mut object = object.clone();
    if object.group.is_empty() {
        object.group = group(&object.kind).unwrap_or_default().to_owned();
    }
    object
}

/// The one object that a selector names.
fn named(selector: &Selector, cluster: &str) -> Option<ObjectKey> {
    let kind = selector.kind.as_deref()?;
    Some(ObjectKey {
        cluster: cluster.to_owned(),
        group: group(kind)?.to_owned(),
        kind: kind.to_owned(),
        namespace: selector.namespace.clone()?,
        name: selector.name.clone()?,
    })
}

#[cfg(test)]
mod tests;
