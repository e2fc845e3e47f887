//! Flux events in, never lost, out to real destinations: the servers, the dispatcher and the command line that the
//! `belfry` binary is made of.

pub mod access;
pub mod api;
pub mod cli;
pub mod configuration;
pub mod dispatcher;
pub mod environment;
pub mod expected_set;
pub mod intake;
pub mod manifests;
pub mod metrics;
pub mod observer;
pub mod operations;
pub mod receivers;
pub mod serve;
pub mod server;
pub mod source;
pub mod status_board;
mod tekton;
pub mod waits;
