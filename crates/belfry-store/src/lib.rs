//! The durable log, object states, rollouts, webhooks, lanes and deliveries: one [`Store`] over a small private trait, with group commit, the
//! fold under the append lock, the window for repeats, caches and the head of the log. It knows nothing of HTTP,
//! Kubernetes or providers, and of the fold only that it is [`belfry_core::plan::plan`].

mod backlog;
mod cache;
mod circuits;
mod clean;
mod engine;
mod error;
mod flush;
mod fold;
mod hooks;
mod postgres;
mod prune;
mod queries;
mod queue;
mod rev;
mod sqlite;
mod stats;
mod store;
pub mod transfer;
mod types;
mod windows;
mod writer;

pub use circuits::Probe;
pub use error::{OpenError, RedeliverError, Refused, StoreError};
pub use hooks::{Hook, HookRow, HookVerdict, Hooked, TriggerRef};
pub use postgres::Database;
pub use prune::Pruned;
pub use queries::{
    AttemptRow, DeliveryKind, DeliveryQuery, DeliveryRow, DeliveryState, EventQuery, EventRow, ObjectFilter,
    ObjectQuery, ObjectRow, Page, RolloutQuery, RolloutRow,
};
pub use stats::{COMMIT_BUCKETS, CommitTimes, Pending, Stats};
pub use store::Store;
pub use types::{
    Appended, AttemptOutcome, AttemptRecord, Claim, Claims, Clock, DestId, Finish, LaneId, Options, Redelivered, Room,
    Row, RowResult, RowState, Settlement, What,
};
