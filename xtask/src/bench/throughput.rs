//! What a server takes in and delivers when as much as possible is posted, beside the same server that discards.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use super::{
    Bed, Scale,
    events::About,
    load::{Load, drive},
    manifests,
    process::Server,
    report::{Report, Target},
    sink::{Answer, Sink},
};

/// Connections that post.
pub const CONNECTIONS: u64 = 64;
/// Deliveries a second that are waited for at least.
const SLOWEST: u64 = 500;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    /// The server reads events, and forgets them.
    Discard,
    /// One Alert; the sink answers 204.
    One,
    /// The same, and each event is about an object of its own.
    Fleet,
    /// One Alert, and a thousand that select nothing.
    Idle,
    /// One Alert; the sink answers 200 with an empty body.
    Empty,
}

const CASES: [Case; 5] = [Case::Discard, Case::One, Case::Fleet, Case::Idle, Case::Empty];

/// What one run gave.
struct Run {
    accepted: f64,
    latency: [f64; 3],
    delivered: f64,
    /// Milliseconds of CPU for each event, until the last one was accepted.
    cpu_accepting: f64,
    /// The same, until all were delivered.
    cpu: f64,
    /// KiB written to files for each event, until it was delivered.
    written: f64,
    connections: f64,
    missing: f64,
    twice: f64,
}

/// Measures every case once, each round beginning with another one.
///
/// # Errors
/// When a server doesn't come up or can't be reached.
pub fn round(bed: &Bed, scale: &Scale, round: usize, report: &mut Report) -> anyhow::Result<()> {
    let mut runs: Vec<(Case, Run)> = Vec::new();
    for turn in 0..CASES.len() {
        let case = CASES[(turn + round) % CASES.len()];
        bed.say(&format!("round {}: {case:?}", round + 1))?;
        runs.push((case, run(bed, case, scale, report)?));
    }
    let of = |wanted: Case| runs.iter().find(|(case, _)| *case == wanted).map(|(_, run)| run);
    let (Some(discard), Some(one), Some(fleet), Some(idle), Some(empty)) =
        (of(Case::Discard), of(Case::One), of(Case::Fleet), of(Case::Idle), of(Case::Empty))
    else {
        return Ok(());
    };
    tell_intake(report, discard, one, idle);
    tell_fleet(report, fleet);
    tell_delivery(report, one, empty);
    Ok(())
}

fn tell_intake(report: &mut Report, discard: &Run, one: &Run, idle: &Run) {
    const INTAKE: &str = "Durable intake: 1 Alert, 64 connections, sink answers 204";
    report.add(INTAKE, "accepted", "events/s", one.accepted, Target::Least(20_000.0));
    report.add(INTAKE, "answer p50", "ms", one.latency[0], None);
    report.add(INTAKE, "answer p99", "ms", one.latency[1], Target::Most(15.0));
    report.add(INTAKE, "answer max", "ms", one.latency[2], None);
    report.add(INTAKE, "the same server, discarding", "events/s", discard.accepted, None);
    report.add(INTAKE, "discarding: answer p99", "ms", discard.latency[1], None);
    report.add(
        INTAKE,
        "share of what discarding reaches",
        "%",
        100.0 * one.accepted / discard.accepted,
        Target::Least(25.0),
    );
    report.add(INTAKE, "server CPU per event while posting", "ms", one.cpu_accepting, None);
    report.add(INTAKE, "discarding: server CPU per event", "ms", discard.cpu, None);
    const IDLE: &str = "The same, and 1,000 Alerts that select nothing";
    report.add(IDLE, "accepted", "events/s", idle.accepted, None);
    report.add(IDLE, "answer p99", "ms", idle.latency[1], None);
    report.add(
        IDLE,
        "more CPU per event than without them",
        "%",
        100.0 * (idle.cpu / one.cpu - 1.0),
        Target::Most(10.0),
    );
}

fn tell_fleet(report: &mut Report, fleet: &Run) {
    const FLEET: &str = "The same, each event about an object of its own";
    report.add(FLEET, "accepted", "events/s", fleet.accepted, None);
    report.add(FLEET, "answer p99", "ms", fleet.latency[1], None);
    report.add(FLEET, "server CPU per event", "ms", fleet.cpu, None);
    report.add(FLEET, "written per event", "KiB", fleet.written, None);
}

fn tell_delivery(report: &mut Report, one: &Run, empty: &Run) {
    const EVENT: &str = "From event to delivery";
    report.add(EVENT, "server CPU per event", "ms", one.cpu, Target::Most(0.28));
    report.add(EVENT, "written per event", "KiB", one.written, None);
    let sinks =
        [("Delivery to one sink that answers 204", one), ("Delivery to one sink that answers 200, empty", empty)];
    for (part, run) in sinks {
        report.add(part, "delivered", "events/s", run.delivered, Target::Least(6_000.0));
        report.add(part, "not delivered", "events", run.missing, Target::Most(0.0));
        report.add(part, "delivered twice", "events", run.twice, Target::Most(0.0));
        report.add(part, "connections", "", run.connections, Target::Most(40.0));
    }
}

fn run(bed: &Bed, case: Case, scale: &Scale, report: &mut Report) -> anyhow::Result<Run> {
    let events = scale.events;
    let answer = if case == Case::Empty { Answer::Empty } else { Answer::NoContent };
    let sink = Sink::start(events, answer)?;
    let folder = bed.folder()?;
    let server = match case {
        Case::Discard => Server::start(Command::new(&bed.discard))?,
        Case::One | Case::Fleet | Case::Idle | Case::Empty => {
            let idle = if case == Case::Idle { manifests::IDLE_ALERTS } else { 0 };
            let config = folder.path().join("config");
            manifests::write(&config, sink.address, idle)?;
            let server = Server::belfry(&bed.belfry, &config, &folder.path().join("data"))?;
            server.ready()?;
            server
        }
    };
    let (before, written) = (server.cpu()?, server.written()?);
    let start = Instant::now();
    let load = Load {
        to: server.events,
        connections: CONNECTIONS,
        numbers: 0..events,
        about: About::Kustomizations,
        objects: if case == Case::Fleet { events } else { scale.objects },
        rate: None,
    };
    let posted = drive(&load, None)?;
    let accepting = server.cpu()? - before;
    let others = posted.others();
    if !others.is_empty() {
        report.note(format!("{case:?}: answers other than 202: {others}"));
    }
    let accepted = posted.accepted();
    let missing = match case {
        Case::Discard => 0,
        _ => sink.tally.wait_for(accepted, Duration::from_secs(10 + accepted / SLOWEST)),
    };
    let (cpu, written) = (server.cpu()? - before, server.written()? - written);
    let delivering = sink.tally.since(start).as_secs_f64();
    let run = Run {
        accepted: accepted as f64 / posted.took.as_secs_f64(),
        latency: [posted.latency.quantile(0.5), posted.latency.quantile(0.99), posted.latency.max()],
        delivered: sink.tally.distinct() as f64 / delivering.max(f64::MIN_POSITIVE),
        cpu_accepting: accepting * 1e3 / accepted.max(1) as f64,
        cpu: cpu * 1e3 / accepted.max(1) as f64,
        written: written as f64 / 1024.0 / accepted.max(1) as f64,
        connections: sink.tally.connections() as f64,
        missing: missing as f64,
        twice: sink.tally.requests().saturating_sub(sink.tally.distinct()) as f64,
    };
    if case == Case::Discard {
        server.kill();
    } else {
        server.terminate()?;
    }
    Ok(run)
}
