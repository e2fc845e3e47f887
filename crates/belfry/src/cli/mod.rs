//! The command line.

mod check;
mod client;
mod deliveries;
mod demo;
mod flags;
mod receivers;
mod replay;

use clap::{Parser, Subcommand};

pub use flags::{Logging, ServeFlags};

/// Flux events in, never lost, out to real destinations.
#[derive(Debug, Parser)]
#[command(name = "belfry", version, about, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Take in events and deliver them
    Serve(Box<ServeFlags>),
    /// Validate manifests, offline
    Check(check::Check),
    /// Print the custom resource definitions
    Crds,
    /// List deliveries, newest first
    Deliveries(deliveries::List),
    /// Deliver again what was delivered, superseded or given up
    Redeliver(deliveries::Redeliver),
    /// List Receivers, their paths, and their last webhooks
    Receivers(receivers::List),
    /// See it work: a server, recorded Flux events, and a destination that fails and recovers
    Demo(demo::Demo),
    /// Post recorded events to any address
    Replay(replay::Replay),
}

impl Cli {
    /// Runs the command; the result is the process' exit code.
    ///
    /// # Errors
    /// When the command could not do what it was asked to; the chain of causes is for the person at the terminal.
    pub async fn run(self) -> anyhow::Result<u8> {
        match self.command {
            Command::Serve(flags) => flags.run().await.map(|()| 0),
            Command::Check(check) => check.run(),
            Command::Crds => check::print_crds().map(|()| 0),
            Command::Deliveries(list) => list.run().await.map(|()| 0),
            Command::Redeliver(redeliver) => redeliver.run().await,
            Command::Receivers(list) => list.run().await.map(|()| 0),
            Command::Demo(demo) => demo.run().await.map(|()| 0),
            Command::Replay(replay) => replay.run().await,
        }
    }
}
