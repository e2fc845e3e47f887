//! What the sink answers, and which answer is next.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;

/// One answer of the sink.
#[derive(Debug, Clone)]
pub enum Answer {
    /// A status without a body.
    Status(u16),
    /// A status with headers and a body.
    StatusWith(u16, Vec<(String, String)>, Bytes),
    /// Nothing, on a connection that stays open: until the client gives up or the sink is stopped.
    Hang,
    /// The connection is closed without a byte: the client can't know whether the request was taken.
    Close,
    /// The status and half of an announced body, then the connection is closed.
    CloseMidAnswer,
    /// The answer after a delay.
    Slow(Duration, Box<Answer>),
}

impl Answer {
    /// A status with a body of the given type.
    #[must_use]
    pub fn body(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        Self::StatusWith(status, vec![("content-type".to_owned(), content_type.to_owned())], body.into())
    }

    /// A status with one header, such as `retry-after`, and no body.
    #[must_use]
    pub fn header(status: u16, name: &str, value: &str) -> Self {
        Self::StatusWith(status, vec![(name.to_owned(), value.to_owned())], Bytes::new())
    }

    /// This answer after a delay.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self::Slow(delay, Box::new(self))
    }
}

/// The answers still to give.
pub(super) struct Script {
    default: Answer,
    defaults: HashMap<String, Answer>,
    once: VecDeque<Answer>,
    once_on: HashMap<String, VecDeque<Answer>>,
}

impl Script {
    pub(super) fn new(default: Answer) -> Self {
        Self { default, defaults: HashMap::new(), once: VecDeque::new(), once_on: HashMap::new() }
    }

    pub(super) fn set_default(&mut self, answer: Answer) {
        self.default = answer;
    }

    pub(super) fn set_default_on(&mut self, path: &str, answer: Answer) {
        self.defaults.insert(path.to_owned(), answer);
    }

    pub(super) fn push(&mut self, answers: impl IntoIterator<Item = Answer>) {
        self.once.extend(answers);
    }

    pub(super) fn push_on(&mut self, path: &str, answers: impl IntoIterator<Item = Answer>) {
        self.once_on.entry(path.to_owned()).or_default().extend(answers);
    }

    /// The answer to a request on `path`: the more particular first.
    pub(super) fn next(&mut self, path: &str) -> Answer {
        if let Some(answer) = self.once_on.get_mut(path).and_then(VecDeque::pop_front) {
            return answer;
        }
        if let Some(answer) = self.defaults.get(path) {
            return answer.clone();
        }
        self.once.pop_front().unwrap_or_else(|| self.default.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(script: &mut Script, path: &str) -> u16 {
        match script.next(path) {
            Answer::Status(status) => status,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_more_particular_answer_comes_first() {
        let mut script = Script::new(Answer::Status(200));
        script.push([Answer::Status(500), Answer::Status(501)]);
        script.push_on("/a", [Answer::Status(429)]);
        script.set_default_on("/a", Answer::Status(204));

        assert_eq!(next(&mut script, "/a"), 429);
        assert_eq!(next(&mut script, "/a"), 204, "a path with a default of its own leaves the common script alone");
        assert_eq!([next(&mut script, "/b"), next(&mut script, "/c"), next(&mut script, "/b")], [500, 501, 200]);
        script.set_default(Answer::Status(503));
        assert_eq!(next(&mut script, "/b"), 503);
    }
}
