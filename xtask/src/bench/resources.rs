//! Memory, and how long a start takes, with nothing in the store and with much.

use std::{path::Path, time::Duration};

use super::{
    Bed, Scale,
    events::{About, MOST_OBJECTS},
    load::{Load, drive},
    manifests,
    process::Server,
    report::{Report, Target},
    sink::{Answer, Sink},
    throughput::CONNECTIONS,
};

/// How long a server is left alone before its memory is looked at.
const REST: Duration = Duration::from_secs(2);
const MEMORY: &str = "Resident memory";
const MEMORY_FLEET: &str = "Resident memory, each event about an object of its own";
const START: &str = "Start to ready (/readyz answers 200)";

/// Measures memory once, with as many objects as are usual, and then with one for each event.
///
/// # Errors
/// When a server doesn't come up or can't be reached.
pub fn memory(bed: &Bed, scale: &Scale, report: &mut Report) -> anyhow::Result<()> {
    remember(bed, scale, scale.objects, MEMORY, report)?;
    remember(bed, scale, scale.remembered, MEMORY_FLEET, report)
}

fn remember(bed: &Bed, scale: &Scale, objects: u64, part: &'static str, report: &mut Report) -> anyhow::Result<()> {
    bed.say(&format!("memory, {objects} objects"))?;
    let sink = Sink::start(scale.remembered, Answer::NoContent)?;
    let folder = bed.folder()?;
    let config = folder.path().join("config");
    manifests::write(&config, sink.address, 0)?;
    let server = Server::belfry(&bed.belfry, &config, &folder.path().join("data"))?;
    server.ready()?;
    std::thread::sleep(REST);
    report.add(part, "idle", "MiB", server.memory()?.now, Target::Most(25.0));
    let posted = post(&server, 0..scale.remembered, About::Kustomizations, objects)?;
    sink.tally.wait_for(posted, Duration::from_secs(300));
    std::thread::sleep(REST);
    let memory = server.memory()?;
    report.add(part, "after the events, all delivered", "MiB", memory.now, Target::Most(100.0));
    report.add(part, "most there ever was", "MiB", memory.peak, None);
    report.add(part, "events posted for it", "", posted as f64, None);
    server.terminate()
}

/// Measures starts, with an empty store and with a full one.
///
/// # Errors
/// When a server doesn't come up or can't be reached.
pub fn starts(bed: &Bed, scale: &Scale, rounds: usize, report: &mut Report) -> anyhow::Result<()> {
    let sink = Sink::start(scale.stored, Answer::Down)?;
    let folder = bed.folder()?;
    let (config, full) = (folder.path().join("config"), folder.path().join("full"));
    manifests::write(&config, sink.address, 0)?;
    bed.say("filling a store")?;
    fill(bed, scale, &config, &full)?;
    bed.say("starts")?;
    for round in 0..rounds {
        let empty = folder.path().join(format!("empty-{round}"));
        let server = Server::belfry(&bed.belfry, &config, &empty)?;
        report.add(START, "empty store", "ms", millis(server.ready()?), Target::Most(100.0));
        server.terminate()?;
        let server = Server::belfry(&bed.belfry, &config, &full)?;
        report.add(START, "full store, after kill -9", "ms", millis(server.ready()?), Target::Most(1000.0));
        server.terminate()?;
        let server = Server::belfry(&bed.belfry, &config, &full)?;
        report.add(START, "full store, after SIGTERM", "ms", millis(server.ready()?), Target::Most(1000.0));
        // What a log is like that a crash left behind.
        post(
            &server,
            scale.stored + round as u64 * 1000..scale.stored + (round as u64 + 1) * 1000,
            About::HelmReleases,
            MOST_OBJECTS / 10,
        )?;
        if round + 1 == rounds {
            sink.tally.set_answer(Answer::NoContent);
            let missing = sink.tally.wait_for(scale.waiting, Duration::from_secs(120));
            report.add(START, "events in the full store", "", scale.stored as f64, None);
            report.add(START, "deliveries waiting in it", "", scale.waiting as f64, None);
            report.add(START, "of these not delivered in the end", "", missing as f64, Target::Most(0.0));
            report.add(START, "memory with the full store", "MiB", server.memory()?.now, None);
        }
        server.kill();
    }
    Ok(())
}

/// Fills a store by posting to a real server: most of it is selected by no Alert, the rest waits for a sink that is down.
/// The server is killed in the end.
fn fill(bed: &Bed, scale: &Scale, config: &Path, data: &Path) -> anyhow::Result<()> {
    let server = Server::belfry(&bed.belfry, config, data)?;
    server.ready()?;
    let quiet = post(&server, scale.waiting..scale.stored, About::HelmReleases, MOST_OBJECTS / 10)?;
    let waiting = post(&server, 0..scale.waiting, About::Kustomizations, MOST_OBJECTS / 10)?;
    anyhow::ensure!(quiet + waiting == scale.stored, "only {quiet} and {waiting} events were accepted");
    server.kill();
    Ok(())
}

fn post(server: &Server, numbers: std::ops::Range<u64>, about: About, objects: u64) -> anyhow::Result<u64> {
    let load = Load { to: server.events, connections: CONNECTIONS, numbers, about, objects, rate: None };
    Ok(drive(&load, None)?.accepted())
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
