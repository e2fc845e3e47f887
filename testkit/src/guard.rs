//! Child processes that cannot outlive the test process, not even when it is killed or exits without running `Drop`
//! (as it does for what lives in a `static`).

use std::{
    io,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
};

/// Waits for the end of its input, which is the end of the test process, then kills `$1` and removes the folder `$2`.
/// Interrupts are ignored because they go to the whole group, and the work comes after them.
const WATCHDOG: &str = r#"trap "" INT TERM HUP; read -r _; kill -9 "$1" 2>/dev/null; [ -z "$2" ] || rm -rf "$2""#;

/// A child process, killed on drop, and by a watchdog where nothing is dropped.
pub(crate) struct Guarded {
    child: Child,
    watchdog: Option<Child>,
}

impl Guarded {
    /// Starts `command`. `folder` is what the watchdog removes.
    pub(crate) fn spawn(command: &mut Command, folder: Option<&Path>) -> io::Result<Self> {
        let mut child = command.spawn()?;
        let watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(child.id().to_string())
            .arg(folder.unwrap_or(Path::new("")))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match watchdog {
            Ok(watchdog) => Ok(Self { child, watchdog: Some(watchdog) }),
            Err(error) => {
                child.kill()?;
                child.wait()?;
                Err(error)
            }
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        let status = self.child.try_wait()?;
        if status.is_some() {
            self.dismiss();
        }
        Ok(status)
    }

    /// SIGKILL, and waits for the end.
    pub(crate) fn kill(&mut self) -> io::Result<ExitStatus> {
        self.dismiss();
        self.child.kill()?;
        self.child.wait()
    }

    /// Ends the watchdog before the child's number may be another process's.
    fn dismiss(&mut self) {
        if let Some(mut watchdog) = self.watchdog.take() {
            let _ = watchdog.kill();
            let _ = watchdog.wait();
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}
