//! What an event takes from its sender to its destination when there is room to breathe.

use std::time::Duration;

use super::{
    Bed, Scale,
    events::About,
    load::{Load, drive},
    manifests,
    process::Server,
    report::{Report, Target},
    sink::{Answer, Sink},
};

/// Events a second.
const RATE: u64 = 1_000;
const PART: &str = "1,000 events/s, 16 connections";

/// Measures once.
///
/// # Errors
/// When a server doesn't come up or can't be reached.
pub fn round(bed: &Bed, scale: &Scale, report: &mut Report) -> anyhow::Result<()> {
    bed.say("steady")?;
    let events = scale.steady;
    let sink = Sink::start(events, Answer::NoContent)?;
    let folder = bed.folder()?;
    let config = folder.path().join("config");
    manifests::write(&config, sink.address, 0)?;
    let server = Server::belfry(&bed.belfry, &config, &folder.path().join("data"))?;
    server.ready()?;
    let before = server.cpu()?;
    let load = Load {
        to: server.events,
        connections: 16,
        numbers: 0..events,
        about: About::Kustomizations,
        objects: scale.objects,
        rate: Some(RATE),
    };
    let posted = drive(&load, Some(&sink.tally))?;
    let missing = sink.tally.wait_for(posted.accepted(), Duration::from_secs(30));
    let cpu = server.cpu()? - before;
    let end_to_end = sink.tally.end_to_end();
    report.add(PART, "answer p50", "ms", posted.latency.quantile(0.5), None);
    report.add(PART, "answer p99", "ms", posted.latency.quantile(0.99), None);
    report.add(PART, "event to delivery p50", "ms", end_to_end.quantile(0.5), None);
    report.add(PART, "event to delivery p99", "ms", end_to_end.quantile(0.99), None);
    report.add(PART, "server CPU per event", "ms", cpu * 1e3 / events as f64, None);
    report.add(PART, "not delivered", "events", missing as f64, Target::Most(0.0));
    server.terminate()
}
