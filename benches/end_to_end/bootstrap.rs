//! From a zones topic of a million zones to a daemon that is ready, and then enriches: the daemon itself, as `ringfence run`
//! starts it.

use std::time::Duration;

use crate::daemon::{self, Daemon};
use crate::job::Job;
use crate::support::measure::{self, Cost, Row, Spread, Target};
use crate::{in_child, topics, watch};

const PEAK: &str = "memory of that bootstrap, and of enriching 200 k events by it";
/// Enriched once the daemon is ready: a million zones are there to be asked.
const EVENTS: usize = 200_000;

/// In the child: how long the daemon takes until it is ready.
pub(crate) fn to_ready(job: &Job) -> Cost {
    let [telemetry, enriched] = others(&job.to);
    let config = daemon::config(job, &job.zones, &telemetry, &enriched);
    let start = || {
        let daemon = Daemon::start(config);
        while !daemon.is_ready() {
            daemon.assert_goes_on();
            std::thread::sleep(Duration::from_millis(5));
        }
        daemon
    };
    let (cost, daemon) = measure::profiled(|| measure::cost_of(start));
    topics::fill(&job.bootstrap, &telemetry, job.events);
    let admin = topics::admin(&job.bootstrap);
    watch::until_written(&admin, &enriched, job.events, || daemon.assert_goes_on());
    daemon.stop();
    let enriched = topics::count(&job.bootstrap, &admin, &enriched);
    assert_eq!(enriched, job.events, "each event was enriched once");
    cost
}

/// The topics beside that of the zones.
fn others(to: &str) -> [String; 2] {
    ["telemetry", "enriched"].map(|kind| format!("{to}-{kind}"))
}

/// Fills a zones topic and starts the daemon over it.
pub(crate) fn report(bootstrap: &str, run: u32) {
    let (side, name) = if measure::is_quick() {
        (
            100,
            "bootstrap of 1 M zones from Kafka to ready, s (quick: 10 k instead of 1 M)",
        )
    } else {
        (1_000, "bootstrap of 1 M zones from Kafka to ready, s")
    };
    let admin = topics::admin(bootstrap);
    let (zones, to) = (format!("bench-zones-{run}"), format!("bench-ready-{run}"));
    let others = others(&to);
    for topic in &others {
        topics::create(&admin, topic, 8, &[]);
    }
    let bytes = daemon::fill(bootstrap, &admin, &zones, side);
    let job = Job {
        bootstrap: bootstrap.to_owned(),
        from: String::new(),
        to: to.clone(),
        group: to,
        zones: zones.clone(),
        events: EVENTS,
    };
    let told = in_child("bootstrap", job);
    for topic in others.iter().chain([&zones]) {
        topics::delete(&admin, topic);
    }
    Row {
        what: name,
        ours: measure::shown(told.cost),
        baseline: format!("{} MB of GeoJSON", measure::figure(bytes as f64 / 1e6)),
        value: Spread::once(told.cost.wall),
        target: Target::AtMost(60.0, 15.0),
    }
    .report();
    Row {
        what: &format!("{PEAK} ({} zones), beside a broker, GB", side * side),
        ours: "the daemon, its peak".to_owned(),
        baseline: "–".to_owned(),
        value: Spread::once(told.peak_bytes / 1e9),
        target: Target::None,
    }
    .report();
}
