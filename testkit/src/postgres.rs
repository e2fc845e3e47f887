//! A PostgreSQL server of the tests' own: a data folder and a Unix socket in a temporary folder, gone with the process.
//!
//! Everything here blocks, so that it can be used where a runtime must not be.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::{guard::Guarded, port};

/// Where Debian puts the programs, by version.
const DEBIAN: &str = "/usr/lib/postgresql";
/// How long a server may take to come up, recovery included.
const PATIENCE: Duration = Duration::from_secs(60);
/// Name of the superuser.
const USER: &str = "postgres";
/// Without these a server forgets what it answered when the machine crashes, which no test does; and it is much faster.
pub const FAST: &[(&str, &str)] = &[("fsync", "off"), ("full_page_writes", "off")];

/// How a server is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Connections are ended, everything is written.
    Fast,
    /// As in a crash: the next start recovers.
    Immediate,
}

/// A running server.
pub struct Postgres {
    folder: TempDir,
    port: u16,
    settings: Vec<(String, String)>,
    server: Mutex<Option<Guarded>>,
}

/// The folder of the programs, if they are on this machine.
pub fn programs() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let versions = fs::read_dir(DEBIAN).into_iter().flatten().flatten().map(|version| version.path().join("bin"));
    let mut folders: Vec<PathBuf> = versions.collect();
    folders.sort();
    folders.into_iter().rev().chain(std::env::split_paths(&path)).find(|folder| folder.join("initdb").is_file())
}

impl Postgres {
    /// A server with these settings beside the usual ones; `None` where PostgreSQL is not on this machine.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(settings: &[(&str, &str)]) -> Result<Option<Self>> {
        Self::start_with(settings, &[])
    }

    /// The same, with these files in its data folder, readable for the server alone.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_with(settings: &[(&str, &str)], files: &[(&str, &str)]) -> Result<Option<Self>> {
        let Some(programs) = programs() else { return Ok(None) };
        let folder = owned_folder()?;
        let data = folder.path().join("data");
        let init = ["--auth=trust", "--no-sync", "--no-instructions", "--encoding=UTF8", "--locale=C", "-U", USER];
        let output = as_user(&programs.join("initdb")).args(init).arg("-D").arg(&data).output()?;
        succeeded("initdb", &output)?;
        for (name, contents) in files {
            let path = data.join(name);
            fs::write(&path, contents)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
            if let Some((uid, gid)) = other_user() {
                chown(&path, Some(uid), Some(gid))?;
            }
        }
        Self::serve(folder, settings).map(Some)
    }

    /// A standby that follows `primary` by streaming, under this name.
    ///
    /// # Errors
    /// When it does not start.
    pub fn standby_of(primary: &Self, name: &str, settings: &[(&str, &str)]) -> Result<Self> {
        let programs = programs().context("PostgreSQL is gone")?;
        let folder = owned_folder()?;
        let data = folder.path().join("data");
        let output = as_user(&programs.join("pg_basebackup"))
            .args(["-h", &primary.socket(), "-p", &primary.port.to_string(), "-U", USER, "--no-sync", "-c", "fast"])
            .args(["-R", "-X", "stream", "-D"])
            .arg(&data)
            .output()?;
        succeeded("pg_basebackup", &output)?;
        let conninfo = format!("host={} port={} user={USER} application_name={name}", primary.socket(), primary.port);
        let mut settings = settings.to_vec();
        settings.push(("primary_conninfo", &conninfo));
        Self::serve(folder, &settings)
    }

    /// The server that all tests of this process share, where crashes are not what is tested.
    ///
    /// # Panics
    /// When it does not start.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<Postgres>> = OnceLock::new();
        let started = || Self::start(FAST).unwrap_or_else(|error| panic!("PostgreSQL: {error:#}"));
        SHARED.get_or_init(started).as_ref()
    }

    fn serve(folder: TempDir, settings: &[(&str, &str)]) -> Result<Self> {
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let server = Self { folder, port: port::free()?, settings, server: Mutex::new(None) };
        server.resume()?;
        Ok(server)
    }

    /// Starts it again after it was stopped or killed, and waits until it answers.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn resume(&self) -> Result<()> {
        let programs = programs().context("PostgreSQL is gone")?;
        let log = fs::OpenOptions::new().create(true).append(true).open(self.folder.path().join("log"))?;
        let mut command = as_user(&programs.join("postgres"));
        command.arg("-D").arg(self.folder.path().join("data")).args(["-p", &self.port.to_string()]);
        command.args(["-k", &self.socket()]);
        let usual = [("listen_addresses", ""), ("max_connections", "300"), ("max_wal_size", "256MB")];
        let given = self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in usual.into_iter().chain(given) {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let guarded = Guarded::spawn(&mut command, Some(self.folder.path()))?;
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = Some(guarded);
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = self.sql(USER, "SELECT 1") {
            if Instant::now() > deadline {
                let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                return Err(error.context(format!("PostgreSQL doesn't answer; its log:\n{log}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Stops it, and waits for that.
    ///
    /// # Errors
    /// When it can't be stopped.
    pub fn stop(&self, how: Stop) -> Result<()> {
        let mode = if how == Stop::Fast { "fast" } else { "immediate" };
        let programs = programs().context("PostgreSQL is gone")?;
        let data = self.folder.path().join("data");
        let output = as_user(&programs.join("pg_ctl")).args(["stop", "-w", "-m", mode, "-D"]).arg(data).output()?;
        succeeded("pg_ctl stop", &output)?;
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }

    /// SIGKILL to the server. What it had started ends soon after.
    ///
    /// # Errors
    /// When it is not running.
    pub fn kill(&self) -> Result<()> {
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner).take();
        server.context("it is not running")?.kill()?;
        Ok(())
    }

    /// A standby becomes the primary.
    ///
    /// # Errors
    /// When it can't.
    pub fn promote(&self) -> Result<()> {
        self.sql(USER, "SELECT pg_promote(true, 60)").map(drop)
    }

    /// An empty database with a name of its own.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn database(&self) -> Result<String> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("test_{}", NEXT.fetch_add(1, Relaxed));
        self.sql(USER, &format!("CREATE DATABASE {name}"))?;
        Ok(name)
    }

    /// Removes a database, whoever is connected to it.
    ///
    /// # Errors
    /// When it can't be removed.
    pub fn remove_database(&self, name: &str) -> Result<()> {
        self.sql(USER, &format!("DROP DATABASE {name} WITH (FORCE)")).map(drop)
    }

    /// The URL of a database, through the socket.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}@/{database}?host={}&port={}", self.socket(), self.port)
    }

    /// Where it listens, if `listen_addresses` says so.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Runs a statement as the superuser; its rows, one a line.
    ///
    /// # Errors
    /// When it fails.
    pub fn sql(&self, database: &str, statement: &str) -> Result<String> {
        let programs = programs().context("PostgreSQL is gone")?;
        let output = Command::new(programs.join("psql"))
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", &self.socket()])
            .args(["-p", &self.port.to_string(), "-U", USER, "-d", database, "-c", statement])
            .stdin(Stdio::null())
            .output()?;
        succeeded(statement, &output)?;
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }

    fn socket(&self) -> String {
        self.folder.path().display().to_string()
    }
}

/// A temporary folder of the user that the server runs as.
fn owned_folder() -> Result<TempDir> {
    let folder = tempfile::Builder::new().prefix("pg").tempdir()?;
    if let Some((uid, gid)) = other_user() {
        chown(folder.path(), Some(uid), Some(gid))?;
    }
    Ok(folder)
}

/// PostgreSQL refuses to run as root: then it runs as its own user, or as nobody.
fn other_user() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let of = |wanted: &str| {
        let mut fields =
            users.lines().map(|line| line.split(':')).find(|fields| fields.clone().next() == Some(wanted))?;
        Some((fields.nth(2)?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    of("postgres").or_else(|| of("nobody"))
}

fn as_user(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/").stdin(Stdio::null());
    if let Some((uid, gid)) = other_user() {
        command.uid(uid).gid(gid);
    }
    command
}

fn succeeded(what: &str, output: &Output) -> Result<()> {
    if !output.status.success() {
        bail!("{what}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
