//! Every bound that Belfry sets, in one place.

use std::time::Duration;

/// Bytes of a body on the events port, inclusive; one more is answered 413 (as the peer).
pub const EVENT_BODY: usize = 3 * 1024 * 1024;
/// Bytes of the headers of a request; more is answered 431 (as the peer).
pub const REQUEST_HEADERS: usize = 256 * 1024;
/// Time for the headers of a request to arrive, which is also how long a kept-alive connection may idle.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a body to arrive once the headers have.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(20);
/// Connections that one listener keeps open at a time; the one that has waited longest for its peer makes room.
pub const CONNECTIONS: usize = 2048;
/// Bytes of bodies that wait for the store's writer; beyond it, 503.
pub const APPEND_QUEUE_BYTES: usize = 64 * 1024 * 1024;
/// Events that wait for the store's writer; beyond it, 503.
pub const APPEND_QUEUE: usize = 16 * 1024;
/// Events in one commit.
pub const APPEND_BATCH: usize = 512;
/// Keys that the window for repeats remembers; the oldest go first.
pub const REPEAT_WINDOW: usize = 256 * 1024;
/// Objects whose state is kept in memory.
pub const OBJECT_CACHE: usize = 16 * 1024;
/// Bytes kept of an answer that isn't a success.
pub const ANSWER_KEPT: usize = 256;
/// Bytes read of an answer at most.
pub const ANSWER_READ: usize = 64 * 1024;
/// Bytes of one server-sent event that the command line reads: a verdict over thousands of objects.
pub const STREAM_EVENT: usize = 16 * 1024 * 1024;
/// Lanes of one provider that are being drained at a time.
pub const PROVIDER_CONCURRENCY: u32 = 32;
/// Lanes that are being drained at a time over all providers.
pub const DISPATCH_CONCURRENCY: u32 = 512;
/// Deliveries taken from one lane at a time.
pub const LANE_CLAIM: u32 = 16;
/// Undelivered deliveries of one provider before the oldest become dead letters.
pub const PROVIDER_BACKLOG: u64 = 100_000;
/// Undelivered deliveries of one namespace's providers before the oldest become dead letters.
pub const NAMESPACE_BACKLOG: u64 = 500_000;
/// Time to finish what is in flight after SIGTERM.
pub const DRAIN: Duration = Duration::from_secs(8);
/// How long a Secret is taken from memory.
pub const SECRET_AGE: Duration = Duration::from_secs(30);
/// Size of a compiled regular expression, in bytes.
pub const REGEX_SIZE: usize = 1024 * 1024;
/// Bytes of a manifest file.
pub const MANIFEST: u64 = 4 * 1024 * 1024;
/// Items on a page of the API.
pub const PAGE: u32 = 500;
/// Rows that are looked at for one page, where no index leads to what is asked for.
pub const LOOKED_AT: usize = 20_000;
/// Streams of events, and lists that are sent piece by piece, at a time; beyond it, 503.
pub const STREAMS: usize = 256;
/// How long a stream waits for a reader that takes nothing; then it ends.
pub const STREAM_STALL: Duration = Duration::from_secs(30);
/// After this long without an event a stream says that it is alive.
pub const HEARTBEAT: Duration = Duration::from_secs(10);
/// How often who reads a stream is asked for anew.
pub const STREAM_RECHECK: Duration = Duration::from_secs(30);
/// Bytes of bodies on the API port that are held at a time; beyond it, 503.
pub const API_BODIES: usize = 64 * 1024 * 1024;
/// Bytes of webhooks' bodies that are held at a time; beyond it, 503.
pub const HOOK_BODIES: usize = 64 * 1024 * 1024;
/// Connections to the receivers' port.
pub const HOOK_CONNECTIONS: usize = 512;
/// Webhooks that are verified at a time.
pub const HOOK_VERIFIERS: usize = 8;
/// Genuine webhooks of one Receiver a second, in the long run; more are answered 429.
pub const HOOK_RATE: u32 = 10;
/// Genuine webhooks of one Receiver that may come at once.
pub const HOOK_BURST: u32 = 100;
/// Objects that one webhook reconciles.
pub const HOOK_OBJECTS: usize = 5_000;
/// Time for the filters of one webhook, over all of its objects.
pub const HOOK_FILTERS: Duration = Duration::from_secs(5);
/// For how long the delivery id of a webhook is remembered.
pub const HOOK_REPEAT: Duration = Duration::from_secs(300);
/// Delivery ids remembered at a time; the oldest go first.
pub const HOOK_WINDOW: usize = 64 * 1024;
/// Webhooks kept of one Receiver, and as many that it refused.
pub const HOOKS_KEPT: u32 = 50;
