//! Real processes: started, watched, killed and started again, as an operating system does it to them.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{BufRead as _, BufReader, PipeReader, Write as _},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{guard::Guarded, probe, until};

/// So many lines of output stay in memory; the file has all.
const TAIL_LINES: usize = 2000;

/// What to start.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
}

impl Program {
    /// The program at `path`: for Belfry `env!("CARGO_BIN_EXE_belfry")`, which only the caller's crate knows.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), args: Vec::new(), env: Vec::new() }
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// A variable, beside those of the test process.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// When there is no such program, or no place for its output.
    pub fn spawn(self) -> Result<Process> {
        let folder = tempfile::Builder::new().prefix("testkit-process-").tempdir()?;
        let output = Output { file: Arc::new(File::create(folder.path().join("output"))?), tail: Arc::default() };
        let running = Some(Running::start(&self, &output, folder.path())?);
        Ok(Process { running, status: None, program: self, output, folder })
    }
}

/// A process, killed when it is dropped.
pub struct Process {
    running: Option<Running>,
    /// How it ended, once it has.
    status: Option<ExitStatus>,
    program: Program,
    output: Output,
    folder: TempDir,
}

struct Running {
    child: Guarded,
    reader: JoinHandle<()>,
}

impl Running {
    fn start(program: &Program, output: &Output, folder: &Path) -> Result<Self> {
        // One pipe for both, so that their lines keep their order.
        let (reader, writer) = std::io::pipe()?;
        let mut command = Command::new(&program.path);
        command.args(&program.args).envs(program.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
        let child = Guarded::spawn(&mut command, Some(folder)).with_context(|| program.path.display().to_string())?;
        // It holds the writing end: the reader would never see the end.
        drop(command);
        let output = output.clone();
        let reader = std::thread::Builder::new().name("output".to_owned()).spawn(move || output.take_in(reader))?;
        Ok(Self { child, reader })
    }

    /// After its end: the rest of its output.
    fn drain(self) {
        let _ = self.reader.join();
    }
}

impl Process {
    /// Its process number, while it runs.
    ///
    /// # Errors
    /// When it doesn't.
    pub fn id(&self) -> Result<u32> {
        let running = self.running.as_ref().context("the process doesn't run")?;
        Ok(running.child.id())
    }

    /// Whether it runs.
    ///
    /// # Errors
    /// When the system doesn't tell.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.ended()?.is_none())
    }

    /// SIGKILL: what `kill -9`, the out-of-memory killer and a lost node do. Does nothing where it doesn't run.
    ///
    /// # Errors
    /// When it can't be killed.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut running) = self.running.take() {
            self.status = Some(running.child.kill()?);
            running.drain();
        }
        Ok(())
    }

    /// SIGTERM, as Kubernetes sends it, and how it ended.
    ///
    /// # Errors
    /// When it doesn't run, or has not ended after `timeout`.
    pub async fn terminate(&mut self, timeout: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait(timeout).await
    }

    /// Waits until it has ended of itself, and says how it did.
    ///
    /// # Errors
    /// When it has not ended after `timeout`.
    pub async fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let ended = until("the process ends", timeout, || {
            let ended = self.ended().and_then(|status| status.context("it runs"));
            async move { ended }
        });
        let ended = ended.await;
        ended.map_err(|error| self.account(&error))
    }

    /// SIGSTOP: it holds what it holds and does nothing, as on a node that hangs.
    ///
    /// # Errors
    /// When it doesn't run.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT: ends [`Process::freeze`].
    ///
    /// # Errors
    /// When it doesn't run.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Kills it where it runs, and starts it again with the same arguments. Its lines so far are forgotten, the file
    /// keeps them.
    ///
    /// # Errors
    /// When it can't be killed or started.
    pub fn restart(&mut self) -> Result<()> {
        self.kill()?;
        self.output.tail().clear();
        self.status = None;
        self.running = Some(Running::start(&self.program, &self.output, self.folder.path())?);
        Ok(())
    }

    /// Waits for a line of output, of this start, that contains `part`, and gives it.
    ///
    /// # Errors
    /// When the process ends first, or there is none after `timeout`.
    pub async fn wait_for_line(&mut self, part: &str, timeout: Duration) -> Result<String> {
        let output = self.output.clone();
        self.unless_it_ends(&format!("a line with {part:?}"), timeout, || {
            let found = output.tail().iter().find(|line| line.contains(part)).cloned();
            async move { found.context("no such line") }
        })
        .await
    }

    /// Waits until a GET of `url` is answered with 200, and gives the body.
    ///
    /// # Errors
    /// When the process ends first, or it isn't after `timeout`.
    pub async fn wait_for_http(&mut self, url: &str, timeout: Duration) -> Result<String> {
        self.unless_it_ends(&format!("{url} answers 200"), timeout, || async move {
            let probed = probe::get(url).await?;
            ensure!(probed.status == 200, "{}: {}", probed.status, probed.body);
            Ok(probed.body)
        })
        .await
    }

    /// The last lines of this start's output, stdout and stderr as they came.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.output.tail().iter().cloned().collect()
    }

    /// The file with all output, of every start; removed with the process.
    #[must_use]
    pub fn output_path(&self) -> PathBuf {
        self.folder.path().join("output")
    }

    /// A folder for the program's own files, removed with the process and kept over its restarts.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Resident memory in KiB.
    ///
    /// # Errors
    /// When it doesn't run.
    pub fn rss_kib(&self) -> Result<u64> {
        self.memory("VmRSS:")
    }

    /// The most resident memory it ever had, in KiB.
    ///
    /// # Errors
    /// When it doesn't run.
    pub fn peak_rss_kib(&self) -> Result<u64> {
        self.memory("VmHWM:")
    }

    fn memory(&self, field: &str) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()?))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let figure = line.and_then(|rest| rest.split_whitespace().next());
        figure.with_context(|| format!("no {field}"))?.parse().context("no figure")
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.id()?).ok().and_then(Pid::from_raw).context("no process number")?;
        Ok(kill_process(pid, signal)?)
    }

    /// How it ended, if it has. Its output is then complete.
    fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if let Some(running) = &mut self.running {
            self.status = running.child.ended()?;
            if self.status.is_some()
                && let Some(running) = self.running.take()
            {
                running.drain();
            }
        }
        Ok(self.status)
    }

    /// Probes until there is a value, or the process has ended and there still is none.
    async fn unless_it_ends<T, F>(&mut self, what: &str, timeout: Duration, mut probe: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let found = until(what, timeout, || {
            // Before the probe, which then sees all that the process left.
            let ended = self.ended();
            let probed = probe();
            async move {
                match (probed.await, ended?) {
                    (Ok(value), _) => Ok(Ok(value)),
                    (Err(_), Some(status)) => Ok(Err(anyhow!("{what}: the process ended first, with {status}"))),
                    (Err(error), None) => Err(error),
                }
            }
        });
        let found = found.await.flatten();
        found.map_err(|error| self.account(&error))
    }

    /// An error together with what the process said last.
    fn account(&self, error: &anyhow::Error) -> anyhow::Error {
        anyhow!("{error:#}\n{}", self.last_words())
    }

    fn last_words(&self) -> String {
        let lines = self.lines();
        let last = &lines[lines.len().saturating_sub(20)..];
        format!("{} said last:\n{}\n", self.program.path.display(), last.join("\n"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
        if std::thread::panicking() {
            eprintln!("{}", self.last_words());
        }
    }
}

/// Where output goes.
#[derive(Clone)]
struct Output {
    file: Arc<File>,
    tail: Arc<Mutex<VecDeque<String>>>,
}

impl Output {
    fn tail(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in all there is, until the process ends.
    fn take_in(&self, pipe: PipeReader) {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            // A full disk is no reason to let the process hang on its output.
            let _ = (&*self.file).write_all(&line);
            let mut tail = self.tail();
            tail.push_back(String::from_utf8_lossy(&line).trim_end().to_owned());
            if tail.len() > TAIL_LINES {
                tail.pop_front();
            }
            line.clear();
        }
    }
}
