//! A server under test: a real process, found by what it logs once it serves, and measured through `/proc`.

use std::{
    collections::VecDeque,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, ChildStderr, Command, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How long a server may take to come up, and to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// `USER_HZ`, the unit of times in `/proc`: the same on every machine that Linux runs servers on.
const TICKS: f64 = 100.0;
/// Lines of its log that are kept for a message.
const LINES: usize = 20;

/// A running server, killed when it is dropped.
pub struct Server {
    child: Child,
    /// Where events are posted to.
    pub events: SocketAddr,
    /// Where webhooks are posted to.
    pub receivers: Option<SocketAddr>,
    /// Where the API is.
    pub api: Option<SocketAddr>,
    /// Where the metrics are.
    pub metrics: Option<SocketAddr>,
    health: Option<SocketAddr>,
    started: Instant,
    log: Arc<Mutex<VecDeque<String>>>,
}

/// Resident memory, in MiB.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Now.
    pub now: f64,
    /// The most that there ever was.
    pub peak: f64,
}

impl Server {
    /// Starts Belfry from a directory of manifests.
    ///
    /// # Errors
    /// When it doesn't come up.
    pub fn belfry(binary: &Path, config: &Path, data: &Path) -> anyhow::Result<Self> {
        let data = data.to_str().context("a folder whose name is no text")?;
        Self::belfry_on(binary, config, &["--data", data])
    }

    /// The same on a store that these flags name.
    ///
    /// # Errors
    /// When it doesn't come up.
    pub fn belfry_on(binary: &Path, config: &Path, store: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new(binary);
        command.arg("serve").arg("--config").arg(config).args(store);
        // A store of a million events must not begin to prune.
        command.args(["--retention-bytes", "68719476736", "--retention-age", "1440h"]);
        for port in ["--events-addr", "--receiverAddr", "--api-addr", "--metrics-addr", "--health-addr"] {
            command.args([port, "127.0.0.1:0"]);
        }
        Self::start(command)
    }

    /// Starts a program that logs, as JSON, that it is `serving`, and where.
    ///
    /// # Errors
    /// When it doesn't come up.
    pub fn start(mut command: Command) -> anyhow::Result<Self> {
        let started = Instant::now();
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.with_context(|| format!("can't start {}", command.get_program().display()))?;
        let log = Arc::new(Mutex::new(VecDeque::new()));
        let (serving, served) = mpsc::channel();
        if let Some(stderr) = child.stderr.take() {
            let log = log.clone();
            std::thread::spawn(move || read_log(stderr, &log, &serving));
        }
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server =
            Self { child, events: nowhere, receivers: None, api: None, metrics: None, health: None, started, log };
        let Ok(line) = served.recv_timeout(PATIENCE) else {
            bail!("{} did not come up:\n{}", command.get_program().display(), server.last_words());
        };
        let address = |key: &str| line.get(key)?.as_str()?.parse().ok();
        server.events = address("events").context("it doesn't say where it takes events")?;
        server.receivers = address("receivers");
        server.api = address("api");
        server.metrics = address("metrics");
        server.health = address("health");
        Ok(server)
    }

    /// Waits until `/readyz` answers 200, and gives the time since the start.
    ///
    /// # Errors
    /// When it doesn't.
    pub fn ready(&self) -> anyhow::Result<Duration> {
        let health = self.health.context("it has no health port")?;
        while self.started.elapsed() < PATIENCE {
            if get(health, "/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
                return Ok(self.started.elapsed());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        bail!("it is not ready after {PATIENCE:?}:\n{}", self.last_words())
    }

    /// CPU time that the process has taken, in seconds.
    ///
    /// # Errors
    /// When it doesn't run.
    pub fn cpu(&self) -> anyhow::Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).context("the server doesn't run")?;
        // Fields are counted behind the name, which may hold anything.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |field: usize| fields.get(field).and_then(|ticks| ticks.parse::<f64>().ok()).context("no CPU time");
        Ok((ticks(11)? + ticks(12)?) / TICKS)
    }

    /// Bytes that it has made the kernel write to files.
    ///
    /// # Errors
    /// When it doesn't run.
    pub fn written(&self) -> anyhow::Result<u64> {
        let io = fs::read_to_string(format!("/proc/{}/io", self.child.id())).context("the server doesn't run")?;
        let bytes = io.lines().find_map(|line| line.strip_prefix("write_bytes:")).context("no figure for writes")?;
        Ok(bytes.trim().parse()?)
    }

    /// Its resident memory.
    ///
    /// # Errors
    /// When it doesn't run.
    pub fn memory(&self) -> anyhow::Result<Memory> {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.child.id())).context("the server doesn't run")?;
        let field = |name: &str| -> anyhow::Result<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).context("no figure for memory")?;
            Ok(line.trim().trim_end_matches("kB").trim().parse::<f64>()? / 1024.0)
        };
        Ok(Memory { now: field("VmRSS:")?, peak: field("VmHWM:")? })
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// When it doesn't end; it is killed then.
    pub fn terminate(mut self) -> anyhow::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("no process number")?;
        kill_process(pid, Signal::TERM)?;
        let asked = Instant::now();
        while asked.elapsed() < PATIENCE {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        bail!("it doesn't end:\n{}", self.last_words())
    }

    /// `kill -9`.
    pub fn kill(self) {
        drop(self);
    }

    fn last_words(&self) -> String {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_log(stderr: ChildStderr, log: &Mutex<VecDeque<String>>, serving: &mpsc::Sender<Value>) {
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        if let Ok(value) = serde_json::from_str::<Value>(&line)
            && value.get("message").and_then(Value::as_str) == Some("serving")
        {
            let _ = serving.send(value);
        }
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        log.push_back(line);
        if log.len() > LINES {
            log.pop_front();
        }
    }
}

/// Gets a page, head and all.
///
/// # Errors
/// When nobody answers.
pub fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.take(1 << 20).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
