//! Partners for tests: a real API server, a real PostgreSQL, a scripted HTTP sink, processes to kill.
//!
//! Everything here runs on 127.0.0.1 and ends with the test process, however that ends. The sink keeps real time on a
//! runtime of its own, so it also serves a test whose clock is paused; what waits for processes needs a clock that runs.
//!
//! Knows nothing of Belfry's crates: what it offers, it offers to any program.

pub mod cluster;
pub mod port;
pub mod postgres;
pub mod probe;
pub mod process;
pub mod sink;

mod guard;
mod skip;
mod wait;

pub use cluster::Cluster;
pub use postgres::Postgres;
pub use process::{Process, Program};
pub use sink::{Answer, Sink};
pub use skip::skip;
pub use wait::until;
