//! End to end on a real Kafka (`RINGFENCE_BENCH_KAFKA` = its address): the same topic is drained into fresh output topics
//! by the worker's Kafka code alone, by the whole worker, and by a plain build; one after the other, round after round,
//! each in a process of its own, so that its CPU time is its own. `benches/README.md` describes the workload.

#![allow(
    clippy::disallowed_methods,
    reason = "a benchmark reads the clock and paces its load"
)]

#[path = "../support/mod.rs"]
mod support;

mod bootstrap;
mod enriched;
mod pass_through;
mod plain;
mod topics;

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use support::measure::{self, Cost, Row, Spread, Target};

/// Zones a side: 10,000 zones.
const SIDE: usize = 100;
/// Points a side of a zone: 64 vertices.
const PER_EDGE: usize = 16;
const WAYS: [&str; 4] = ["pass-through", "enriched", "latest", "plain"];

/// What one process is to do.
#[derive(Clone, Debug)]
struct Job {
    bootstrap: String,
    from: String,
    to: String,
    group: String,
    events: usize,
}

impl Job {
    fn into_arguments(self) -> [String; 5] {
        [
            self.bootstrap,
            self.from,
            self.to,
            self.group,
            self.events.to_string(),
        ]
    }

    fn from_arguments(arguments: &[String]) -> Option<Self> {
        let [bootstrap, from, to, group, events] = arguments else {
            return None;
        };
        Some(Self {
            bootstrap: bootstrap.clone(),
            from: from.clone(),
            to: to.clone(),
            group: group.clone(),
            events: events.parse().ok()?,
        })
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some((way, rest)) = arguments.split_first()
        && let Some(job) = Job::from_arguments(rest)
    {
        let cost = match way.as_str() {
            "pass-through" => pass_through::drain(&job),
            "enriched" => enriched::drain(&job, enriched::event_time()),
            "latest" => enriched::drain(&job, enriched::latest()),
            "plain" => plain::drain(&job),
            "bootstrap" => bootstrap::to_ready(&job),
            other => panic!("unknown way `{other}`"),
        };
        let line = json!({"wall": cost.wall, "cpu": cost.cpu});
        writeln!(std::io::stdout(), "{line}").expect("the parent reads");
        return;
    }
    let Ok(bootstrap) = std::env::var("RINGFENCE_BENCH_KAFKA") else {
        measure::say("end_to_end: skipped, RINGFENCE_BENCH_KAFKA names no Kafka");
        return;
    };
    let run = std::process::id();
    rounds(&bootstrap, run);
    bootstrap::report(&bootstrap, run);
}

/// Runs one job in a process of its own.
fn in_child(way: &str, job: Job) -> Cost {
    let program = std::env::current_exe().expect("this program has a path");
    let output = Command::new(program)
        .arg(way)
        .args(job.into_arguments())
        .stderr(Stdio::inherit())
        .output()
        .expect("the child starts");
    assert!(output.status.success(), "{way} failed");
    let cost: Value = serde_json::from_slice(&output.stdout).expect("the child reports its cost");
    Cost {
        wall: cost["wall"].as_f64().expect("a number"),
        cpu: cost["cpu"].as_f64().expect("a number"),
    }
}

fn rounds(bootstrap: &str, run: u32) {
    let (events, rounds) = if measure::is_quick() {
        (20_000, 1)
    } else {
        (400_000, 5)
    };
    let from = format!("bench-telemetry-{run}");
    let admin = topics::admin(bootstrap);
    topics::create(&admin, &from, 8, &[]);
    let bytes = topics::fill(bootstrap, &from, events);
    measure::say(&format!(
        "  {events} records of {} B on average in 8 partitions",
        bytes / events
    ));
    let mut costs: [Vec<Cost>; 4] = Default::default();
    for round in 0..rounds {
        for (way, costs) in WAYS.iter().zip(&mut costs) {
            let to = format!("bench-{way}-{run}-{round}");
            topics::create(&admin, &to, 8, &[]);
            let job = Job {
                bootstrap: bootstrap.to_owned(),
                from: from.clone(),
                to: to.clone(),
                group: to.clone(),
                events,
            };
            let cost = in_child(way, job);
            let written = topics::count(&admin, &to);
            assert_eq!(written, events, "{way} wrote each event once");
            topics::delete(&admin, &to);
            let each = cost.per(events);
            measure::say(&format!(
                "  round {round}, {way}: {} an event, {:.0} events/s",
                measure::shown(each),
                1.0 / each.wall
            ));
            costs.push(each);
        }
    }
    topics::delete(&admin, &from);
    report(&costs);
}

fn report([pass_through, enriched, latest, plain]: &[Vec<Cost>; 4]) {
    let wall = |cost: &Cost| 1.0 / cost.wall;
    let cpu = |cost: &Cost| cost.cpu;
    let compare = |what: &str,
                   above: &[Cost],
                   below: &[Cost],
                   of: fn(&Cost) -> f64,
                   ours_is_above: bool,
                   target: Target| {
        let ratios = above.iter().zip(below).map(|(a, b)| of(a) / of(b));
        let (ours, baseline) = if ours_is_above {
            (above, below)
        } else {
            (below, above)
        };
        Row {
            what,
            ours: middle(ours),
            baseline: middle(baseline),
            value: Spread::new(ratios),
            target,
        }
        .report();
    };
    compare(
        "throughput: enriched, 10 k zones ÷ pass-through",
        enriched,
        pass_through,
        wall,
        true,
        Target::AtLeast(0.70, 0.92),
    );
    compare(
        "CPU per event: enriched ÷ pass-through",
        enriched,
        pass_through,
        cpu,
        true,
        Target::AtMost(1.6, 1.25),
    );
    compare(
        "CPU per event: plain build ÷ ours, 10 k zones",
        plain,
        enriched,
        cpu,
        false,
        Target::AtLeast(4.0, 6.0),
    );
    compare(
        "throughput: ours ÷ plain build, 10 k zones",
        enriched,
        plain,
        wall,
        true,
        Target::None,
    );
    compare(
        "CPU per event: matching at event time ÷ `latest`",
        enriched,
        latest,
        cpu,
        true,
        Target::AtMost(1.15, 1.03),
    );
}

/// The median event, as it stands in the table.
fn middle(costs: &[Cost]) -> String {
    let of = |part: fn(&Cost) -> f64| Spread::new(costs.iter().map(part)).median;
    let cost = Cost {
        wall: of(|cost| cost.wall),
        cpu: of(|cost| cost.cpu),
    };
    format!(
        "{} ({:.0} k/s)",
        measure::shown(cost),
        1.0 / cost.wall / 1_000.0
    )
}
