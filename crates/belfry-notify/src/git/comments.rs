//! The steps to a comment on a pull or merge request: one for each Provider and object, or one for each Provider, found
//! again by a marker in it, and edited when there is more to say.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, PoisonError, Weak},
};

use belfry_api::{CommentMode, Event};
use belfry_core::{go_json, notification::Notification};
use belfry_http::{Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::{
    auth::Auth,
    event::{Naming, change_request},
    list::{List, Page},
    table,
    verdict::{judge, stop, taken},
};
use crate::{
    Misconfigured,
    line::{Boxed, Conversation, Line, Stop},
    protocol::{Unsent, Verdict},
    settings::Resolved,
    text,
};

/// Bytes of a comment as JSON: below GitHub's 65,536 characters, and little enough to read back in one answer.
const BODY: usize = 40 * 1024;
/// Comments whose ids are kept in memory; beyond that they are looked for again.
const KEPT: usize = 4096;

/// A git host that takes comments on requests.
pub(crate) trait CommentHost: Send + Sync {
    /// Asks who the token belongs to.
    fn whoami(&self) -> Result<Request, Unsent>;

    /// The name in the answer to that, as comments show it.
    fn me(&self, about: &Value) -> String;

    /// Asks for a page of the request's comments, from the oldest on.
    fn list(&self, number: u64, page: Page) -> Result<Request, Unsent>;

    /// Whether nothing follows a page that came whole.
    fn is_last(&self, page: Page, list: &List) -> bool {
        !list.next && (list.items.len() as u64) < page.size
    }

    /// The largest page after one that was too much for one answer.
    fn largest_again(&self) -> u64 {
        Page::FIRST.size
    }

    /// An element of the list, if it is a comment.
    fn comment(&self, item: &Value) -> Option<Comment>;

    /// Asks for one comment.
    fn read(&self, number: u64, id: u64) -> Result<Request, Unsent>;

    /// Writes a comment.
    fn create(&self, number: u64, body: &Value) -> Result<Request, Unsent>;

    /// Writes a comment anew.
    fn edit(&self, number: u64, id: u64, body: &Value) -> Result<Request, Unsent>;
}

/// A comment that is there.
pub(crate) struct Comment {
    id: u64,
    author: String,
    body: String,
}

impl Comment {
    /// From JSON, with the author's name at `author`.
    pub(crate) fn read(item: &Value, author: &str) -> Option<Self> {
        let text = |pointer| super::list::text(item, pointer).to_owned();
        Some(Self { id: item.get("id")?.as_u64()?, author: text(author), body: text("/body") })
    }
}

/// The id of one comment, once it is known; locked while an attempt looks for it or writes it.
type Known = Arc<tokio::sync::Mutex<Option<u64>>>;

/// One attempt's aim.
struct Write<'a> {
    notification: &'a Notification,
    number: u64,
    marker: &'a str,
}

/// A Provider that writes comments.
pub(crate) struct Comments<H> {
    host: H,
    auth: Auth,
    naming: Naming,
    mode: CommentMode,
    marker: &'static str,
    /// The Provider and its address: which comments are the same, whichever notifier writes them.
    place: String,
    me: OnceCell<String>,
    known: Mutex<HashMap<String, Known>>,
}

impl<H: CommentHost + 'static> Comments<H> {
    /// As a conversation. `marker` is the peer's name of the key in the marker.
    pub(crate) fn open(
        resolved: &Resolved<'_>,
        host: H,
        auth: Auth,
        marker: &'static str,
    ) -> Result<Box<dyn Conversation>, Misconfigured> {
        let (naming, me, known) = (Naming::of(resolved)?, OnceCell::new(), Mutex::default());
        let mode = resolved.spec().comment.unwrap_or_default();
        let place = format!("{} {}", resolved.provider(), resolved.spec().address.as_deref().unwrap_or_default());
        Ok(Box::new(Self { host, auth, naming, mode, marker, place, me, known }))
    }

    async fn tell(&self, notification: &Notification, line: &Line<'_>) -> Result<(), Stop> {
        let number = change_request(&notification.event)?;
        let marker = match self.mode {
            CommentMode::Each => self.naming.comment(notification),
            CommentMode::Single => self.naming.table(notification),
        };
        let marker = format!("<!-- {}:{marker} -->", self.marker);
        let write = Write { notification, number, marker: &marker };
        let me = line.wait(WAITING, self.me.get_or_try_init(|| self.whoami(line))).await??;

        let key = format!("{number} {marker}");
        let turn = turn(format!("{} {key}", self.place));
        let _turn = line.wait(WAITING, turn.lock()).await?;
        let known = self.known(key);
        let mut id = line.wait(WAITING, known.lock()).await?;
        if let Some(there) = *id {
            if self.rewrite(&write, there, None, line).await? {
                return Ok(());
            }
            // Somebody deleted it.
            *id = None;
        }
        let found = self.find(number, me, &marker, line).await?;
        *id = found.as_ref().map(|found| found.id);
        match found {
            Some(there) => {
                if !self.rewrite(&write, there.id, Some(there.body), line).await? {
                    *id = None;
                    return Err(Stop::Unconfirmed("the comment was deleted while it was written"));
                }
            }
            None => {
                let body = self.body(&write, "");
                let answer = done(self.auth.send(self.host.create(number, &body)?, line).await?, line)?;
                let written: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                *id = written.get("id").and_then(Value::as_u64);
            }
        }
        Ok(())
    }

    /// Writes a comment anew, knowing what it says or not; `false` when it is gone.
    async fn rewrite(&self, write: &Write<'_>, id: u64, says: Option<String>, line: &Line<'_>) -> Result<bool, Stop> {
        let number = write.number;
        let before = match (self.mode, says) {
            (CommentMode::Each, _) => String::new(),
            (CommentMode::Single, Some(says)) => says,
            (CommentMode::Single, None) => {
                let answer = self.auth.send(self.host.read(number, id)?, line).await?;
                if answer.status == StatusCode::NOT_FOUND {
                    return Ok(false);
                }
                let answer = done(answer, line)?;
                let item: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                let Some(comment) = self.host.comment(&item) else {
                    return Err(stop(answer, Verdict::Retry("the host's comment is none".into()), line.now()));
                };
                comment.body
            }
        };
        let body = self.body(write, &before);
        if body.get("body").and_then(Value::as_str) == Some(&before) {
            return Ok(true);
        }
        let answer = self.auth.send(self.host.edit(number, id, &body)?, line).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(false);
        }
        done(answer, line).map(|_| true)
    }

    /// What the comment is to say that says `before`.
    fn body(&self, write: &Write<'_>, before: &str) -> Value {
        match self.mode {
            CommentMode::Each => body(write.marker, &write.notification.event),
            CommentMode::Single => {
                let fits = |body: &str| go_json::to_vec(&json!({ "body": body })).len() <= BODY;
                json!({ "body": table::body(write.marker, before, write.notification, fits) })
            }
        }
    }

    async fn whoami(&self, line: &Line<'_>) -> Result<String, Stop> {
        if let Auth::App(app) = &self.auth {
            return app.login(line).await;
        }
        let answer = done(self.auth.send(self.host.whoami()?, line).await?, line)?;
        let about: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let me = self.host.me(&about);
        if me.is_empty() {
            let why = "the host doesn't say whom the token belongs to".into();
            return Err(stop(answer, Verdict::Retry(why), line.now()));
        }
        Ok(me)
    }

    /// Our comment on the request. Looks through all pages: a second comment must never come into being.
    async fn find(&self, number: u64, me: &str, marker: &str, line: &Line<'_>) -> Result<Option<Comment>, Stop> {
        let (mut page, mut largest) = (Page::FIRST, Page::FIRST.size);
        loop {
            let answer = done(self.auth.send(self.host.list(number, page)?, line).await?, line)?;
            let list = List::read(&answer);
            let comments = list.items.iter().filter_map(|item| self.host.comment(item));
            if let Some(ours) = comments.into_iter().find(|there| there.author == me && there.body.contains(marker)) {
                return Ok(Some(ours));
            }
            if list.complete && self.host.is_last(page, &list) {
                return Ok(None);
            }
            page = match page.smaller() {
                _ if list.complete => page.next(largest),
                _ if answer.complete => {
                    return Err(stop(answer, Verdict::Retry("the host's list of comments is none".into()), line.now()));
                }
                Some(smaller) => {
                    largest = self.host.largest_again();
                    smaller
                }
                // Too long for one answer, which ours never is.
                None => page.next(largest),
            };
        }
    }

    fn known(&self, key: String) -> Known {
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= KEPT && !all.contains_key(&key) {
            all.retain(|_, known| Arc::strong_count(known) > 1);
        }
        all.entry(key).or_default().clone()
    }
}

/// Who may write a comment. Notifiers of one Provider may overlap while it or its Secret changes, and what one read the
/// other must not overwrite.
static TURNS: LazyLock<Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>> = LazyLock::new(Mutex::default);

fn turn(key: String) -> Arc<tokio::sync::Mutex<()>> {
    let mut turns = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
    if turns.len() >= KEPT {
        turns.retain(|_, turn| turn.strong_count() > 0);
    }
    let turn = turns.get(&key).and_then(Weak::upgrade).unwrap_or_default();
    turns.insert(key, Arc::downgrade(&turn));
    turn
}

/// What concurrent attempts wait for.
const WAITING: &str = "another attempt was still writing this comment";

impl<H: CommentHost + 'static> Conversation for Comments<H> {
    fn hold<'a>(&'a self, notification: &'a Notification, line: &'a Line<'a>) -> Boxed<'a, Result<(), Stop>> {
        Box::pin(self.tell(notification, line))
    }
}

fn done(answer: Response, line: &Line<'_>) -> Result<Response, Stop> {
    let verdict = judge(&answer);
    taken(answer, verdict, line.now())
}

/// `{"body": …}`, with as much of the message as fits.
fn body(marker: &str, event: &Event) -> Value {
    let whole = |message: &str| json!({ "body": format!("{marker}\n\n{}", text::markdown(event, message)) });
    let bytes = text::fit(BODY, &event.message, |message| go_json::to_vec(&whole(message)));
    serde_json::from_slice(&bytes).unwrap_or_else(|_| whole(""))
}
