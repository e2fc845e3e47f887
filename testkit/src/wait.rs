//! Waiting for something that another process does: the one place that polls.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};

const PAUSE: Duration = Duration::from_millis(10);

/// Calls `probe` until it gives a value, and says what was waited for, and why it did not come, once `timeout` is over.
///
/// The limit also holds for a probe that never answers.
pub async fn until<T, F>(what: &str, timeout: Duration, mut probe: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let deadline = Instant::now() + timeout;
    let mut last = anyhow!("never probed");
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(last).with_context(|| format!("{what}: not within {timeout:?}"));
        }
        match tokio::time::timeout(left, probe()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => last = error,
            Err(_) => last = last.context("and the last probe had no answer"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}
