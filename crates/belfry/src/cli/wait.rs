//! `belfry wait`: holds a pipeline until a revision is live, and says so with its exit code.

mod answer;
mod follow;
mod screen;
pub(super) mod text;
mod view;

use std::{
    io::{self, Write as _},
    time::Duration,
};

use belfry_core::duration;
use clap::{Args, ValueEnum, builder::NonEmptyStringValueParser};
use jiff::Timestamp;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval},
};

use self::{
    answer::{Answer, Verdict},
    follow::{End, Follow, News, Question, Since, Start},
    screen::Screen,
    view::Shown,
};
use super::{
    USAGE,
    client::{Failure, Remote},
};

/// The exit codes from 64 on are those of sysexits.h.
const UNAVAILABLE: u8 = 69;
const OUTPUT_FAILED: u8 = 74;
const NOT_PERMITTED: u8 = 77;
const INTERRUPTED: u8 = 130;

/// How often a terminal is drawn, for its clock.
const TICK: Duration = Duration::from_secs(1);
/// How long a log may stay silent.
const SIGN_OF_LIFE: Duration = Duration::from_secs(60);

/// Wait until a revision is live; exit codes: 0 succeeded, 1 failed, 2 superseded, 3 timed out, 4 not tracked.
#[derive(Debug, Args)]
pub struct Wait {
    #[command(flatten)]
    remote: Remote,
    /// The revision: a commit (7 digits of it suffice), main@sha1:..., a digest, or a chart's version
    #[arg(long, value_name = "REVISION", value_parser = NonEmptyStringValueParser::new())]
    revision: String,
    /// An object that must have it, each part possibly *; may be repeated (default: whatever goes to the revision)
    #[arg(long, value_name = "KIND/NAMESPACE/NAME")]
    object: Vec<String>,
    /// Only objects of this cluster
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// For how long
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration::parse)]
    timeout: Duration,
    /// What a failure means: the answer, or nothing as Flux tries again
    #[arg(long, value_name = "WHAT", default_value = "fail")]
    on_failure: OnFailure,
    /// How long a failure must last to be the answer
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    failure_grace: Option<Duration>,
    /// What it means that another revision came first
    #[arg(long, value_name = "WHAT", default_value = "fail")]
    on_superseded: OnSuperseded,
    /// What happened before then doesn't count (RFC 3339, or how long ago, such as 10m)
    #[arg(long, value_name = "TIME", value_parser = since)]
    not_before: Option<Since>,
    /// What it means that nothing known goes to the revision
    #[arg(long, value_name = "WHAT", default_value = "wait")]
    unknown: OnUnknown,
    /// Form of the output: progress, or the answer alone as JSON (progress goes to standard error)
    #[arg(short, long, default_value = "text")]
    output: Output,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OnFailure {
    Fail,
    Wait,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OnSuperseded {
    Fail,
    Succeed,
    Wait,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OnUnknown {
    Fail,
    Wait,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

fn since(text: &str) -> Result<Since, String> {
    let ago = duration::parse(text).map(Since::Ago);
    ago.or_else(|_| text.parse::<Timestamp>().map(Since::At))
        .map_err(|_| "neither an RFC 3339 time nor a duration such as 1h30m".to_owned())
}

/// The word on the command line is the word of the API.
fn word(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

impl Wait {
    /// Waits. The exit code never says something about the revision that isn't known: what fails here has codes of its own.
    pub async fn run(self) -> u8 {
        match self.watch().await {
            Ok(code) => code,
            Err(error) => {
                let _ = writeln!(io::stderr(), "belfry: can't write: {error}");
                OUTPUT_FAILED
            }
        }
    }

    fn question(&self) -> Question {
        let mut parameters = vec![("revision", self.revision.clone())];
        parameters.extend(self.object.iter().map(|object| ("object", object.clone())));
        parameters.extend(self.cluster.iter().map(|cluster| ("cluster", cluster.clone())));
        parameters.push(("on-failure", word(&self.on_failure)));
        parameters.extend(self.failure_grace.map(|grace| ("failure-grace", format!("{}ms", grace.as_millis()))));
        parameters.push(("on-superseded", word(&self.on_superseded)));
        parameters.push(("unknown", word(&self.unknown)));
        Question { parameters, not_before: self.not_before, timeout: self.timeout }
    }

    async fn watch(&self) -> io::Result<u8> {
        let question = self.question();
        let (news, mut told) = mpsc::channel(16);
        let start = Start::now();
        let follow = Follow { remote: &self.remote, question: &question, start, news, last: None }.run();
        tokio::pin!(follow);
        let mut progress = Progress::new(self, start);
        progress.begin()?;
        let interrupted = tokio::signal::ctrl_c();
        tokio::pin!(interrupted);
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let end = loop {
            tokio::select! {
                end = &mut follow => break end,
                Some((start, news)) = told.recv() => progress.tell(start, news)?,
                _ = tick.tick() => progress.tick()?,
                Ok(()) = &mut interrupted => {
                    writeln!(io::stderr(), "belfry: interrupted; what Flux does goes on")?;
                    return Ok(INTERRUPTED);
                }
            }
        };
        while let Ok((start, news)) = told.try_recv() {
            progress.tell(start, news)?;
        }
        progress.finish(&end)?;
        if let (Output::Json, Some(answer)) = (self.output, answer_of(&end)) {
            let mut whole = answer.whole.clone();
            if let (End::TimedOut { .. }, Some(fields)) = (&end, whole.as_object_mut()) {
                fields.insert("timedOut".into(), true.into());
            }
            writeln!(io::stdout(), "{}", text::json(&whole))?;
        }
        Ok(code(&end))
    }
}

fn answer_of(end: &End) -> Option<&Answer> {
    match end {
        End::Verdict(answer) => Some(answer),
        End::TimedOut { last, .. } => last.as_ref(),
        End::Refused(_) => None,
    }
}

/// What the exit code says.
fn code(end: &End) -> u8 {
    match end {
        End::Verdict(answer) => match answer.verdict {
            Verdict::Succeeded => 0,
            Verdict::Failed => 1,
            Verdict::Superseded => 2,
            Verdict::Pending => 3,
            Verdict::Unknown => 4,
            Verdict::Other => UNAVAILABLE,
        },
        End::TimedOut { last: Some(_), .. } => 3,
        End::TimedOut { last: None, .. } => UNAVAILABLE,
        End::Refused(Failure::Refused(status, _)) => match status.as_u16() {
            400 => USAGE,
            401 | 403 => NOT_PERMITTED,
            _ => UNAVAILABLE,
        },
        End::Refused(Failure::Unusable(_)) => USAGE,
        End::Refused(Failure::Away { .. } | Failure::Broken(_)) => UNAVAILABLE,
    }
}

/// What has been shown.
struct Progress<'a> {
    wait: &'a Wait,
    screen: Screen,
    start: Start,
    answer: Option<Answer>,
    away: Option<String>,
    /// When a log last got a line.
    wrote: Instant,
}

impl<'a> Progress<'a> {
    fn new(wait: &'a Wait, start: Start) -> Self {
        let screen = Screen::open(wait.output == Output::Json);
        Self { wait, screen, start, answer: None, away: None, wrote: Instant::now() }
    }

    fn shown(&self) -> Shown<'_> {
        Shown {
            revision: &self.wait.revision,
            timeout: self.wait.timeout,
            elapsed: self.start.instant.elapsed(),
            now: self.start.server_now(),
            answer: self.answer.as_ref(),
            away: self.away.as_deref(),
        }
    }

    fn begin(&mut self) -> io::Result<()> {
        let Wait { revision, remote, timeout, .. } = self.wait;
        let line = format!("waiting for {revision}, {} at most, on {}", text::span(*timeout), remote.server());
        self.draw_or(vec![text::tame(&line)])
    }

    /// Draws a terminal anew, or writes these lines to a log.
    fn draw_or(&mut self, lines: Vec<String>) -> io::Result<()> {
        match self.screen.style() {
            Some(style) => {
                let frame = view::frame(&self.shown(), style);
                self.screen.draw(&frame)
            }
            None if lines.is_empty() => Ok(()),
            None => {
                self.wrote = Instant::now();
                self.screen.write(&lines)
            }
        }
    }

    fn tell(&mut self, start: Start, news: News) -> io::Result<()> {
        self.start = start;
        let elapsed = start.instant.elapsed();
        let lines = match news {
            News::Answer(answer) => {
                self.away = None;
                let lines = view::changes(elapsed, self.answer.as_ref(), &answer);
                self.answer = Some(answer);
                lines
            }
            // Said once, not at each attempt.
            News::Away(why) if self.away.is_some() => {
                self.away = Some(why);
                Vec::new()
            }
            News::Away(why) => {
                let line = view::away(elapsed, &why);
                self.away = Some(why);
                vec![line]
            }
        };
        self.draw_or(lines)
    }

    fn tick(&mut self) -> io::Result<()> {
        let silent = self.wrote.elapsed() >= SIGN_OF_LIFE;
        let lines = if silent { vec![view::still(&self.shown())] } else { Vec::new() };
        self.draw_or(lines)
    }

    fn finish(&mut self, end: &End) -> io::Result<()> {
        let elapsed = self.start.instant.elapsed();
        self.away = None;
        if let Some(answer) = answer_of(end) {
            let changes = view::changes(elapsed, self.answer.as_ref(), answer);
            self.answer = Some(answer.clone());
            self.draw_or(changes)?;
            let timed_out = answer.timed_out || matches!(end, End::TimedOut { .. });
            let mut lines = view::conclusion(answer, timed_out, elapsed);
            if std::env::var("GITHUB_ACTIONS").is_ok_and(|value| value == "true") {
                lines.extend(view::annotations(answer));
            }
            self.screen.write(&lines)?;
        }
        let complaint = match end {
            End::Refused(failure) => Some(failure.message().to_owned()),
            End::TimedOut { trouble, last: None } => {
                let why = trouble.as_deref().unwrap_or("nothing was answered");
                Some(format!("no answer within {}: {why}", text::span(self.wait.timeout)))
            }
            End::TimedOut { trouble: Some(trouble), .. } => Some(format!("the last answer may be old: {trouble}")),
            End::TimedOut { .. } | End::Verdict(_) => None,
        };
        complaint.map_or(Ok(()), |why| writeln!(io::stderr(), "belfry: {}", text::tame(&why)))
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[test]
    fn exit_codes() {
        let verdict = |verdict| End::Verdict(Answer { verdict, ..Answer::default() });
        let refused = |status| End::Refused(Failure::Refused(StatusCode::from_u16(status).unwrap(), String::new()));
        let timed_out = |last: Option<Answer>| End::TimedOut { last, trouble: None };
        for (end, expected) in [
            (verdict(Verdict::Succeeded), 0),
            (verdict(Verdict::Failed), 1),
            (verdict(Verdict::Superseded), 2),
            (verdict(Verdict::Pending), 3),
            (timed_out(Some(Answer::default())), 3),
            (verdict(Verdict::Unknown), 4),
            (refused(400), 64),
            (End::Refused(Failure::Unusable(String::new())), 64),
            (refused(404), 69),
            (timed_out(None), 69),
            (refused(401), 77),
            (refused(403), 77),
        ] {
            assert_eq!(code(&end), expected, "{end:?}");
        }
    }

    #[test]
    fn points_in_time_are_absolute_or_relative() {
        assert_eq!(since("10m"), Ok(Since::Ago(Duration::from_secs(600))));
        assert_eq!(since("2026-01-02T03:04:05Z"), Ok(Since::At("2026-01-02T03:04:05Z".parse().unwrap())));
        assert!(since("monday").is_err());
    }
}
