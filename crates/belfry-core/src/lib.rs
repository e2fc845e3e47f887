//! Belfry's rules as values: what an event says, what configuration means, which routes an event takes, what the fold
//! decides, when an attempt is made again. No async runtime, no I/O, no clock, no randomness: time and chance are
//! parameters.

pub mod announcement;
pub mod cel;
pub mod commit_status;
pub mod config;
pub mod decide;
pub mod duration;
pub mod event;
pub mod go_json;
pub mod index;
pub mod limits;
pub mod notification;
pub mod object;
pub mod passed;
pub mod plan;
pub mod regexes;
pub mod revision;
pub mod rollout;
pub mod secret;
pub mod time;
pub mod verdict;

pub use object::{ConfigKey, ConfigKind, ObjectKey};
pub use time::{Seq, Time};
