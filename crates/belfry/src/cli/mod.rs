//! The command line.

mod check;
mod client;
mod deliveries;
mod demo;
mod events;
mod explain;
mod flags;
mod output;
mod receivers;
mod replay;
mod rollouts;
mod store;
mod wait;

use std::process::ExitCode;

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
    /// List events, newest first, or follow them as they come
    Events(Box<events::Events>),
    /// List rollouts, newest first: which object went to which revision, and what came of it
    Rollouts(rollouts::Rollouts),
    /// Show which Alerts, CommitStatuses and Providers tell of an object, what keeps others from it, and what went out
    Explain(explain::Explain),
    /// List deliveries, newest first
    Deliveries(deliveries::List),
    /// Deliver again what was delivered, superseded or given up
    Redeliver(deliveries::Redeliver),
    /// List Receivers, their paths, and their last webhooks
    Receivers(receivers::List),
    /// Wait until a revision is live, and say so with the exit code
    Wait(Box<wait::Wait>),
    /// Look into a store, move it, write it out, bring it back
    Store(store::Store),
    /// See it work: a server, recorded Flux events, and a destination that fails and recovers
    Demo(demo::Demo),
    /// Post recorded events to any address
    Replay(replay::Replay),
}

/// The exit code of a command line that can't be understood: that of sysexits.h, as the small ones mean something.
const USAGE: u8 = 64;

impl Cli {
    /// Reads the process' command line.
    ///
    /// # Errors
    /// With the exit code when there is nothing to run, after what there is to say about it.
    pub fn from_command_line() -> Result<Self, ExitCode> {
        Self::try_parse().map_err(|error| {
            // Help and version are asked for.
            let code = if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
            let _ = error.print();
            code
        })
    }

    /// Runs the command; the result is the process' exit code.
    ///
    /// # Errors
    /// When the command could not do what it was asked to; the chain of causes is for the person at the terminal.
    pub async fn run(self) -> anyhow::Result<u8> {
        match self.command {
            Command::Serve(flags) => flags.run().await.map(|()| 0),
            Command::Check(check) => check.run(),
            Command::Crds => check::print_crds().map(|()| 0),
            Command::Events(events) => events.run().await.map(|()| 0),
            Command::Rollouts(rollouts) => rollouts.run().await.map(|()| 0),
            Command::Explain(explain) => explain.run().await.map(|()| 0),
            Command::Deliveries(list) => list.run().await.map(|()| 0),
            Command::Redeliver(redeliver) => redeliver.run().await,
            Command::Receivers(list) => list.run().await.map(|()| 0),
            Command::Wait(wait) => Ok(wait.run().await),
            Command::Store(store) => store.run().await.map(|()| 0),
            Command::Demo(demo) => demo.run().await.map(|()| 0),
            Command::Replay(replay) => replay.run().await,
        }
    }
}
