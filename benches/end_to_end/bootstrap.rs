//! From a zones topic of a million zones to a daemon that is ready: the daemon itself, as `ringfence run` starts it.

use std::time::Duration;

use ringfence::config::Config;
use ringfence::run::{Handle, run};

use crate::job::{Job, PER_EDGE};
use crate::support::measure::{self, Cost, Row, Spread, Target};
use crate::{in_child, support, topics};

/// In the child: how long the daemon takes until it is ready.
pub(crate) fn to_ready(job: &Job) -> Cost {
    let mut config = Config::defaults();
    config.kafka.set_common("bootstrap.servers", &job.bootstrap);
    config.kafka.set_common("group.id", &job.group);
    config.http.listen = "127.0.0.1:0".to_owned();
    config.zones.topic = job.from.clone();
    config.telemetry.topic = format!("{}-telemetry", job.to);
    config.enriched.topic = format!("{}-enriched", job.to);
    config.dead_letter.topic = None;
    let handle = Handle::new();
    let (cost, daemon) = measure::cost_of(|| {
        let (config, running) = (config, handle.clone());
        let daemon = std::thread::spawn(move || run(&config, &running));
        while !handle.is_ready() {
            assert!(!daemon.is_finished(), "{:?}", daemon.join());
            std::thread::sleep(Duration::from_millis(5));
        }
        daemon
    });
    handle.stop();
    let ended = daemon.join().expect("the daemon does not panic");
    ended.expect("the daemon drains");
    cost
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
    let others = ["telemetry", "enriched"].map(|kind| format!("{to}-{kind}"));
    topics::create(
        &admin,
        &zones,
        4,
        &[("message.timestamp.type", "LogAppendTime")],
    );
    for topic in &others {
        topics::create(&admin, topic, 8, &[]);
    }
    let records = (0..side * side).map(|number| {
        let mut value = String::new();
        support::feature(number, side, PER_EDGE, &mut value);
        (format!("zone-{number:07}"), value)
    });
    let bytes = topics::write(bootstrap, &zones, records);
    let job = Job {
        bootstrap: bootstrap.to_owned(),
        from: zones.clone(),
        to: to.clone(),
        group: to,
        events: 0,
    };
    let cost = in_child("bootstrap", job);
    for topic in others.iter().chain([&zones]) {
        topics::delete(&admin, topic);
    }
    Row {
        what: name,
        ours: measure::shown(cost),
        baseline: format!("{} MB of GeoJSON", measure::figure(bytes as f64 / 1e6)),
        value: Spread::once(cost.wall),
        target: Target::AtMost(60.0, 15.0),
    }
    .report();
}
