//! Asks until there is an answer: over one stream if it holds, over as many as it takes if not.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use reqwest::Client;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout_at},
};

use super::answer::{Answer, Verdict};
use crate::cli::client::{Backoff, Failure, Remote};

/// How long one question to the server may last at most; it refuses more.
const LONGEST: Duration = Duration::from_secs(3600);
/// For how long after the timeout the server's last word is awaited.
const GRACE: Duration = Duration::from_secs(10);
/// What is left of the timeout when it isn't worth another question.
const NEGLIGIBLE: Duration = Duration::from_millis(500);
/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What is asked, but for when.
#[derive(Clone, Debug, Default)]
pub(super) struct Question {
    /// Parameters that stay the same.
    pub parameters: Vec<(&'static str, String)>,
    /// Since when things count.
    pub not_before: Option<Since>,
    /// For how long it is asked.
    pub timeout: Duration,
}

/// A point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Since {
    /// By the clock.
    At(Timestamp),
    /// So long before the question.
    Ago(Duration),
}

/// What is told while it is asked.
#[derive(Debug)]
pub(super) enum News {
    /// How things stand.
    Answer(Answer),
    /// Nobody answers, and why.
    Away(String),
}

/// How it ended.
#[derive(Debug)]
pub(super) enum End {
    /// With the server's last word.
    Verdict(Answer),
    /// Time is over and the last word is missing.
    TimedOut {
        /// What was heard last.
        last: Option<Answer>,
        /// What went wrong last.
        trouble: Option<String>,
    },
    /// The server won't say, or can't be asked.
    Refused(Failure),
}

/// When it was first asked, by several clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    /// The one that is never set.
    pub instant: Instant,
    /// This machine's.
    pub wall: Timestamp,
    /// How far the server's is ahead, once known.
    pub skew: SignedDuration,
}

impl Start {
    /// Now.
    pub fn now() -> Self {
        Self { instant: Instant::now(), wall: Timestamp::now(), skew: SignedDuration::ZERO }
    }

    /// Now, by the server's clock.
    pub fn server_now(&self) -> Timestamp {
        Timestamp::now().saturating_add(self.skew).unwrap_or(self.wall)
    }

    /// Learns from a date that the server just gave. It counts whole seconds, so that less than two mean nothing.
    fn learn(&mut self, date: Timestamp, now: Timestamp) {
        let skew = date.duration_since(now);
        self.skew = if skew.abs() > SignedDuration::from_secs(2) { skew } else { SignedDuration::ZERO };
    }
}

impl Question {
    /// The path to ask when it was first asked `since` ago; `again` says when that was.
    fn path(&self, since: Duration, again: Option<Timestamp>) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(&self.parameters);
        // Of the hour that a question may last at most, the next one takes the rest.
        let left = self.timeout.saturating_sub(since).min(LONGEST);
        query.append_pair("timeout", &format!("{}ms", left.as_millis()));
        match self.not_before {
            Some(Since::At(time)) => query.append_pair("not-before", &time.to_string()),
            Some(Since::Ago(ago)) => query.append_pair("not-before", &format!("{}ms", (ago + since).as_millis())),
            None => &mut query,
        };
        // The server's own clock is the best for the first time.
        again.map(|time| query.append_pair("asked", &time.to_string()));
        format!("/api/v1/wait?{}", query.finish())
    }
}

/// One wait.
pub(super) struct Follow<'a> {
    pub remote: &'a Remote,
    pub question: &'a Question,
    pub start: Start,
    pub news: mpsc::Sender<(Start, News)>,
    /// What was heard last.
    pub last: Option<Answer>,
}

impl Follow<'_> {
    /// Asks until the verdict, a refusal, or the timeout.
    pub async fn run(mut self) -> End {
        let client = match self.remote.streaming() {
            Ok(client) => client,
            Err(failure) => return End::Refused(failure),
        };
        let (mut backoff, mut again) = (Backoff::new(LONGEST_PAUSE), false);
        let mut trouble = None;
        loop {
            let begun = Instant::now();
            let deadline = self.start.instant + self.question.timeout;
            let Ok(ended) = timeout_at(deadline.max(begun) + GRACE, self.attempt(&client, again)).await else {
                return End::TimedOut { last: self.last, trouble };
            };
            again = true;
            if self.last.is_some() {
                backoff.lasted(begun.elapsed());
            }
            let mut wanted = None;
            match ended {
                Ok(answer) if self.is_last_word(&answer) => return End::Verdict(answer),
                // The server's own limit is shorter than what we were asked for.
                Ok(answer) => self.last = Some(answer),
                Err(failure) if self.is_final(&failure) => return End::Refused(failure),
                // Streams break. Only one that can't be opened again is worth a word.
                Err(failure @ Failure::Broken(_)) => trouble = Some(failure.message().to_owned()),
                Err(failure) => {
                    trouble = Some(failure.message().to_owned());
                    self.tell(News::Away(failure.message().to_owned())).await;
                    if let Failure::Away { after, .. } = failure {
                        wanted = after;
                    }
                }
            }
            if self.left().is_zero() {
                return End::TimedOut { last: self.last, trouble };
            }
            // The last attempt is made when the time is over, for the last word.
            sleep(backoff.next(wanted).min(self.left())).await;
        }
    }

    /// One stream, until its verdict.
    async fn attempt(&mut self, client: &Client, again: bool) -> Result<Answer, Failure> {
        let asked = again.then(|| self.start.wall.saturating_add(self.start.skew).unwrap_or(self.start.wall));
        let path = self.question.path(self.start.instant.elapsed(), asked);
        let mut events = self.remote.open(client, &path).await?;
        if let Some(date) = events.date() {
            self.start.learn(date, Timestamp::now());
        }
        loop {
            let event = events.next().await?;
            let is_verdict = match event.name.as_str() {
                "answer" => false,
                "verdict" => true,
                // Something that this version doesn't know.
                _ => continue,
            };
            let Some(answer) = Answer::parse(&event.data) else {
                let message = format!("{} sent an answer that can't be read", self.remote.server());
                return Err(Failure::Away { message, after: None });
            };
            if is_verdict {
                return Ok(answer);
            }
            self.last = Some(answer.clone());
            self.tell(News::Answer(answer)).await;
        }
    }

    fn left(&self) -> Duration {
        self.question.timeout.saturating_sub(self.start.instant.elapsed())
    }

    fn is_last_word(&self, answer: &Answer) -> bool {
        let open = matches!(answer.verdict, Verdict::Pending | Verdict::Other)
            || (answer.verdict == Verdict::Unknown && answer.timed_out);
        !open || self.left() < NEGLIGIBLE
    }

    /// Whether asking again is of no use. What answers strangely is a wrong address, unless it is known to be right: then
    /// a proxy may stand there while the server restarts.
    fn is_final(&self, failure: &Failure) -> bool {
        match failure {
            Failure::Refused(status, _) => matches!(status.as_u16(), 400 | 401 | 403) || self.last.is_none(),
            Failure::Unusable(_) => self.last.is_none(),
            Failure::Broken(_) | Failure::Away { .. } => false,
        }
    }

    async fn tell(&self, news: News) {
        // Nobody listens any more when the command is about to end.
        let _ = self.news.send((self.start, news)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_that_is_asked_again_stays_the_same_question() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let question = |timeout: u64, not_before| Question {
            parameters: vec![("revision", "main@sha1:7d8b".into()), ("object", "Kustomization/*/a".into())],
            not_before,
            timeout: Duration::from_secs(timeout),
        };
        let same = "/api/v1/wait?revision=main%40sha1%3A7d8b&object=Kustomization%2F*%2Fa";
        let asked = Some(at("2026-01-02T03:04:05.5Z"));
        let ago = Some(Since::Ago(Duration::from_secs(600)));
        let noon = Some(Since::At(at("2026-01-02T12:00:00Z")));
        for (question, since, again, rest) in [
            (question(300, None), 0, None, "&timeout=300000ms"),
            (question(300, None), 100, asked, "&timeout=200000ms&asked=2026-01-02T03%3A04%3A05.5Z"),
            (question(300, None), 400, None, "&timeout=0ms"),
            (question(7200, None), 0, None, "&timeout=3600000ms"),
            (question(7200, None), 7100, None, "&timeout=100000ms"),
            (question(300, ago), 100, None, "&timeout=200000ms&not-before=700000ms"),
            (question(300, noon), 100, None, "&timeout=200000ms&not-before=2026-01-02T12%3A00%3A00Z"),
        ] {
            assert_eq!(question.path(Duration::from_secs(since), again), format!("{same}{rest}"));
        }
    }

    #[test]
    fn the_servers_clock_is_learned_if_it_differs() {
        let now: Timestamp = "2026-01-02T03:04:05.9Z".parse().unwrap();
        for (date, skew) in
            [("2026-01-02T03:04:05Z", 0), ("2026-01-02T03:05:05.9Z", 60), ("2026-01-02T02:04:05.9Z", -3600)]
        {
            let mut start = Start::now();
            start.learn(date.parse().unwrap(), now);
            assert_eq!(start.skew, SignedDuration::from_secs(skew));
        }
    }
}
