//! What the figures were measured on.

use std::{
    fs,
    io::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::histogram::Histogram;

/// Writes that are made durable to see how long the disk takes.
const WRITES: usize = 300;
/// The longest that may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The machine, as it was before anything was measured.
pub struct Machine {
    cores: usize,
    model: String,
    kernel: String,
    load: f64,
    sync: Histogram,
}

impl Machine {
    /// Looks at this machine and at the disk that this folder is on.
    ///
    /// # Errors
    /// When nothing can be written there.
    pub fn look(folder: &Path) -> anyhow::Result<Self> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpus = read("/proc/cpuinfo");
        let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Ok(Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            model: model.map_or("unknown CPU", |(_, model)| model).trim().to_owned(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load: load(),
            sync: sync(folder)?,
        })
    }

    /// In one line.
    pub fn line(&self) -> String {
        format!(
            "{} × {}, Linux {}, fdatasync {:.2} ms (p99 {:.1} ms), load average {:.2} before",
            self.cores,
            self.model,
            self.kernel,
            self.sync.quantile(0.5),
            self.sync.quantile(0.99),
            self.load
        )
    }

    /// For other programs.
    pub fn json(&self) -> Value {
        json!({
            "cores": self.cores, "model": self.model, "kernel": self.kernel, "load": self.load,
            "fdatasyncMillis": {"p50": self.sync.quantile(0.5), "p99": self.sync.quantile(0.99)},
        })
    }
}

/// The load average of the last minute.
fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or_default()
}

fn sync(folder: &Path) -> anyhow::Result<Histogram> {
    let mut file = tempfile::tempfile_in(folder)?;
    let mut histogram = Histogram::default();
    let begun = Instant::now();
    for _ in 0..WRITES {
        let start = Instant::now();
        file.write_all(&[0x55; 4096])?;
        file.sync_data()?;
        histogram.record(start.elapsed());
        if begun.elapsed() > PATIENCE {
            break;
        }
    }
    Ok(histogram)
}
