//! A connection, and perhaps one beside it, driven by the thread that waits for their answers. What is sent together takes one round trip.

use std::{collections::HashMap, error::Error as _, future::poll_fn, pin::pin, task::Poll, time::Duration};

use futures::future::join_all;
use tokio::{
    runtime::{Builder, Runtime},
    sync::{Notify, mpsc},
};
use tokio_postgres::{AsyncMessage, Client, Row, Statement, error::SqlState, types::ToSql};

use super::{APPEND_LOCK, place::Database};
use crate::engine::{EngineError, Result};

/// What every connection is told. Each statement must see what was there when it began, or who waited for the append lock would miss
/// what was appended meanwhile. A replica that hangs must not hold the append lock for long: it loses it before the others
/// give up waiting.
const SESSION: &str = "SET jit = off; SET client_min_messages = warning; SET timezone = 'UTC'; SET default_transaction_isolation = 'read committed';
    SET idle_in_transaction_session_timeout = '5s'; SET lock_timeout = '8s'; SET statement_timeout = '10s';
    SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') IN ('off', 'local')";
/// What connections are told that write. They say the same few things again and again, each about few rows that are found by their numbers:
/// planned once, and not by reading a table as a whole because the planner takes it for small, of which it may know nothing yet, nor by a
/// bitmap, which takes longer to set up than to read what little there is.
const WRITING: &str = "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_bitmapscan = off";
/// Written to make sure that all before it is on disk; leaves nothing behind but itself in the log.
const FLUSH: &str = "SELECT pg_logical_emit_message(true, 'belfry', '')";
/// How long an answer may take; a little more than the server gives itself.
const PATIENCE: Duration = Duration::from_secs(12);

/// A parameter.
pub(super) type Param<'a> = &'a (dyn ToSql + Sync);

/// A statement and its parameters.
#[derive(Clone)]
pub(super) struct Step<'a> {
    sql: &'a str,
    params: Vec<Param<'a>>,
    /// It is several statements.
    script: bool,
}

impl<'a> Step<'a> {
    pub fn new(sql: &'a str, params: &[Param<'a>]) -> Self {
        Self { sql, params: params.to_vec(), script: false }
    }

    /// Statements without parameters, which are answered together, with nothing. They are parsed each time.
    pub fn script(sql: &'a str) -> Self {
        Self { sql, params: Vec::new(), script: true }
    }
}

/// A statement of a pipeline.
pub(super) fn step<'a, const N: usize>(sql: &'a str, params: [Param<'a>; N]) -> Step<'a> {
    Step::new(sql, &params)
}

/// A statement that owns its parameters, so that it can wait until others are sent.
pub(super) struct Staged {
    sql: &'static str,
    params: Vec<Box<dyn ToSql + Send + Sync>>,
}

impl Staged {
    pub fn new(sql: &'static str) -> Self {
        Self { sql, params: Vec::new() }
    }

    /// With the next parameter.
    pub fn with(mut self, param: impl ToSql + Send + Sync + 'static) -> Self {
        self.params.push(Box::new(param));
        self
    }

    pub fn step(&self) -> Step<'_> {
        Step { sql: self.sql, params: self.params.iter().map(|param| &**param as Param<'_>).collect(), script: false }
    }
}

/// One connection, and perhaps one beside it.
pub(super) struct Link {
    runtime: Option<Runtime>,
    line: Line,
    beside: Option<Line>,
    heard: mpsc::UnboundedReceiver<String>,
    patience: Duration,
    broken: bool,
}

struct Line {
    client: Client,
    statements: HashMap<String, Statement>,
}

impl Line {
    /// Connects, from within the runtime that is to drive it.
    async fn open(database: &Database, tell: mpsc::UnboundedSender<String>) -> Result<Self> {
        let (config, tls) = database.target().map_err(EngineError::Down)?;
        let connector = tls.connector().map_err(EngineError::Down)?;
        let opened = async {
            let (client, mut connection) = config.connect(connector).await?;
            tokio::spawn(async move {
                while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
                    if let AsyncMessage::Notification(notification) = message {
                        let _ = tell.send(notification.payload().to_owned());
                    }
                }
            });
            client.batch_execute(SESSION).await?;
            Ok(Self { client, statements: HashMap::new() })
        };
        opened.await.map_err(|error| classify(&error))
    }

    async fn pipeline(&mut self, steps: &[Step<'_>]) -> std::result::Result<Vec<Vec<Row>>, tokio_postgres::Error> {
        let Self { client, statements } = self;
        for step in steps.iter().filter(|step| !step.script) {
            if !statements.contains_key(step.sql) {
                let statement = client.prepare(step.sql).await?;
                statements.insert(step.sql.to_owned(), statement);
            }
        }
        let sent = steps.iter().map(async |step| match statements.get(step.sql) {
            Some(statement) => client.query(statement, &step.params).await,
            None => client.batch_execute(step.sql).await.map(|()| Vec::new()),
        });
        join_all(sent).await.into_iter().collect()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Never waits, for it may happen on a thread that must not.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Link {
    pub fn open(database: &Database) -> Result<Self> {
        let runtime =
            Builder::new_current_thread().enable_all().build().map_err(|error| EngineError::Down(error.to_string()))?;
        let (tell, heard) = mpsc::unbounded_channel();
        let line = runtime.block_on(Line::open(database, tell))?;
        Ok(Self { runtime: Some(runtime), line, beside: None, heard, patience: PATIENCE, broken: false })
    }

    /// One for writing. It knows `EXECUTE append_lock` and `EXECUTE flush`.
    pub fn open_writing(database: &Database) -> Result<Self> {
        let mut link = Self::open(database)?;
        link.batch(WRITING)?;
        // What scripts say in each turn is planned once too.
        link.batch(&format!("PREPARE append_lock AS {APPEND_LOCK}; PREPARE flush AS {FLUSH}"))?;
        Ok(link)
    }

    /// Opens a second connection, if there is none.
    pub fn open_beside(&mut self, database: &Database) -> Result<()> {
        if self.beside.as_ref().is_none_or(|line| line.client.is_closed())
            && let Some(runtime) = &self.runtime
        {
            let beside = runtime.block_on(Line::open(database, mpsc::unbounded_channel().0))?;
            runtime.block_on(beside.client.batch_execute(WRITING)).map_err(|error| classify(&error))?;
            self.beside = Some(beside);
        }
        Ok(())
    }

    /// Whether it can still be used.
    pub fn is_broken(&self) -> bool {
        self.broken || self.line.client.is_closed()
    }

    /// Statements may take this long from now on.
    pub fn set_patience(&mut self, patience: Duration) -> Result<()> {
        self.patience = patience + Duration::from_secs(2);
        self.batch(&format!("SET statement_timeout = {}", patience.as_millis()))
    }

    /// Statements without parameters or answers.
    pub fn batch(&mut self, sql: &str) -> Result<()> {
        self.wait(async |line| line.client.batch_execute(sql).await)
    }

    /// Sends statements without waiting for what comes of them. If they fail, so does what follows in their transaction.
    pub fn send(&mut self, sql: &str) -> Result<()> {
        self.wait(async |line| match futures::poll!(pin!(line.client.batch_execute(sql))) {
            Poll::Ready(ended) => ended,
            Poll::Pending => Ok(()),
        })
    }

    pub fn query(&mut self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>> {
        let mut answers = self.pipeline(&[Step::new(sql, params)])?;
        Ok(answers.pop().unwrap_or_default())
    }

    /// Sends all steps at once; their rows, in order. The first that fails decides.
    pub fn pipeline(&mut self, steps: &[Step<'_>]) -> Result<Vec<Vec<Row>>> {
        self.wait(async |line| line.pipeline(steps).await)
    }

    /// The same on the connection beside, whose transactions are of one statement each.
    pub fn pipeline_beside(&mut self, steps: &[Step<'_>]) -> Result<Vec<Vec<Row>>> {
        let Some(mut beside) = self.beside.take() else {
            return Err(EngineError::Down("the second connection is closed".into()));
        };
        let rows = self.wait(async |_| beside.pipeline(steps).await);
        self.beside = Some(beside);
        rows
    }

    /// A statement that isn't used again.
    pub fn query_once(&mut self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>> {
        self.wait(async |line| line.client.query(sql, params).await)
    }

    /// Waits for notifications, at most so long or until it is to stop; `None` when the connection is lost.
    pub fn listen(&mut self, most: Duration, stop: &Notify) -> Option<Vec<String>> {
        let runtime = self.runtime.as_ref()?;
        runtime.block_on(async {
            let mut heard = Vec::new();
            tokio::select! {
                more = self.heard.recv_many(&mut heard, 1024) => if more == 0 { return None },
                () = tokio::time::sleep(most) => {}
                () = stop.notified() => {}
            }
            Some(heard)
        })
    }

    fn wait<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut Line) -> std::result::Result<T, tokio_postgres::Error>,
    ) -> Result<T> {
        let Some(runtime) = &self.runtime else { return Err(EngineError::Down("the connection is closed".into())) };
        let line = &mut self.line;
        let answer = runtime.block_on(async { tokio::time::timeout(self.patience, work(line)).await });
        match answer {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                self.broken |= error.is_closed() || error.as_db_error().is_none_or(|_| is_unfit(&error));
                Err(classify(&error))
            }
            Err(_) => {
                // Nobody knows what its next answer would be one to.
                self.broken = true;
                Err(EngineError::Down("PostgreSQL does not answer".into()))
            }
        }
    }
}

/// The server is stopping, or takes no writes: another connection may find a better one.
fn is_unfit(error: &tokio_postgres::Error) -> bool {
    let unfit = [
        SqlState::READ_ONLY_SQL_TRANSACTION,
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
        SqlState::CANNOT_CONNECT_NOW,
        SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
    ];
    error.code().is_some_and(|code| unfit.contains(code))
}

fn classify(error: &tokio_postgres::Error) -> EngineError {
    let Some(db) = error.as_db_error() else {
        let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
        return EngineError::Down(format!("PostgreSQL: {error}{source}"));
    };
    let detail = format!("PostgreSQL: {} ({})", db.message(), db.code().code());
    // What was sent first isn't heard of, see [`Link::send`].
    if *db.code() == SqlState::IN_FAILED_SQL_TRANSACTION {
        return EngineError::Down(
            "PostgreSQL did not begin a transaction, or another replica held the append lock for too long".into(),
        );
    }
    // Who waits for each other begins anew.
    if [SqlState::T_R_DEADLOCK_DETECTED, SqlState::T_R_SERIALIZATION_FAILURE].contains(db.code()) {
        tracing::debug!(detail, "a transaction gives way to another");
        return EngineError::Overtaken;
    }
    // Values that don't fit, broken constraints, and what is too large for an index.
    match db.code().code().get(..2) {
        Some("22" | "23" | "54") => EngineError::Data(detail),
        _ => EngineError::Down(detail),
    }
}
