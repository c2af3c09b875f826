//! End to end on a real Kafka (`RINGFENCE_BENCH_KAFKA` = its address): the same topic is drained into fresh output topics
//! by the worker's Kafka code alone, by the whole worker, and by a plain build; one after the other, round after round,
//! each in a process of its own, so that its CPU time is its own. `benches/README.md` describes the workload.

#![allow(
    clippy::disallowed_methods,
    reason = "a benchmark reads the clock and paces its load"
)]

#[path = "../support/allocator.rs"]
mod allocator;
#[path = "../support/mod.rs"]
mod support;

mod bootstrap;
mod daemon;
mod enriched;
mod job;
mod pass_through;
mod topics;
mod watch;

use std::process::{Command, Stdio};

use daemon::Changes;
use enriched::Ways;
use job::{Job, SIDE, Told};
use ringfence::codec::headers::HeaderForm;
use ringfence::kafka::admin::Admin;
use support::measure::{self, Cost, Row, Spread, Target};

/// In the order of a round. What is compared stands close together, as the machine's speed drifts; the slowest way is the first,
/// which finds the broker cold. Each with its rounds: more where a row has a *must*.
const WAYS: [(&str, usize); 13] = [
    (PLAIN, ROUNDS_JUDGED),
    (PASS_THROUGH_UNCOMPRESSED, ROUNDS),
    (UNCOMPRESSED, ROUNDS),
    ("latest", ROUNDS_JUDGED),
    ("exactly-once", ROUNDS_JUDGED),
    ("enriched", ROUNDS_JUDGED),
    ("pass-through", ROUNDS_JUDGED),
    (PASS_THROUGH_CHANGING, ROUNDS_JUDGED),
    (DAEMON_CHANGING, ROUNDS_JUDGED),
    (DAEMON, ROUNDS),
    (DAEMON_REPLAYING, ROUNDS),
    ("without-headers", ROUNDS),
    ("one-header", ROUNDS),
];
const DAEMON: &str = "daemon";
/// Pass-through while as many zone changes are written as for [`DAEMON_CHANGING`]: the writer and what the broker does for it
/// are not the daemon's price.
const PASS_THROUGH_CHANGING: &str = "pass-through-changing";
const DAEMON_CHANGING: &str = "daemon-changing";
const DAEMON_REPLAYING: &str = "daemon-replaying";
const UNCOMPRESSED: &str = "uncompressed";
const PASS_THROUGH_UNCOMPRESSED: &str = "pass-through-uncompressed";
/// As many changes after the last event as there are zones: each has changed once.
const REPLAYED_CHANGES: usize = SIDE * SIDE;
/// Of eleven measurements the second and the last but one tell where the middle is (`measure::Spread`); of seventeen the fifth
/// and the last but four, which stand closer together.
const ROUNDS: usize = 11;
const ROUNDS_JUDGED: usize = 17;
/// The way that is a program of its own.
const PLAIN: &str = "plain";
/// What `RINGFENCE_BENCH_ONLY` may name beside the ways.
const BOOTSTRAP: &str = "bootstrap";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some((way, rest)) = arguments.split_first()
        && let Some(job) = Job::from_arguments(rest)
    {
        job::end_by_panic();
        let cost = match way.as_str() {
            "pass-through" | PASS_THROUGH_CHANGING | PASS_THROUGH_UNCOMPRESSED => {
                pass_through::drain(&job)
            }
            "enriched" | UNCOMPRESSED => enriched::drain(&job, Ways::default()),
            "latest" => {
                let mode = enriched::latest();
                enriched::drain(
                    &job,
                    Ways {
                        mode,
                        ..Ways::default()
                    },
                )
            }
            "without-headers" | "one-header" => {
                let headers = (way == "one-header").then_some(HeaderForm::One);
                let ways = Ways {
                    headers,
                    ..Ways::default()
                };
                enriched::drain(&job, ways)
            }
            "exactly-once" => {
                let once = Some(enriched::exactly_once(&job));
                enriched::drain(
                    &job,
                    Ways {
                        once,
                        ..Ways::default()
                    },
                )
            }
            DAEMON | DAEMON_CHANGING | DAEMON_REPLAYING => daemon::drain(&job),
            BOOTSTRAP => bootstrap::to_ready(&job),
            other => panic!("unknown way `{other}`"),
        };
        job::tell(cost);
        return;
    }
    let Ok(bootstrap) = std::env::var("RINGFENCE_BENCH_KAFKA") else {
        measure::say("end_to_end: skipped, RINGFENCE_BENCH_KAFKA names no Kafka");
        return;
    };
    let run = std::process::id();
    rounds(&bootstrap, run);
    if measure::is_wanted(BOOTSTRAP) {
        bootstrap::report(&bootstrap, run);
    }
}

/// Runs one job in a process of its own.
fn in_child(way: &str, job: Job) -> Told {
    let program = if way == PLAIN {
        plain_build()
    } else {
        std::env::current_exe().expect("this program has a path")
    };
    let mut child = Command::new(program);
    child
        .arg(way)
        .args(job.into_arguments())
        .stderr(Stdio::inherit());
    if matches!(way, UNCOMPRESSED | PASS_THROUGH_UNCOMPRESSED) {
        let others = std::env::var(job::SET).unwrap_or_default();
        child.env(job::SET, format!("{others},producer.compression.type=none"));
    }
    let output = child.output().expect("the child starts");
    assert!(output.status.success(), "{way} failed");
    job::told(&output.stdout)
}

/// The program of the plain build: the newest one of its name beside this one.
fn plain_build() -> std::path::PathBuf {
    let this = std::env::current_exe().expect("this program has a path");
    let folder = this.parent().expect("a program is in a folder");
    let programs = std::fs::read_dir(folder).expect("our own folder can be read");
    programs
        .filter_map(Result::ok)
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with("plain_build-") && !name.contains('.')
        })
        .max_by_key(|entry| {
            let written = entry.metadata().and_then(|meta| meta.modified());
            written.expect("a file has a time")
        })
        .map(|entry| entry.path())
        .expect("build it first: `cargo bench --no-run --bench plain_build`")
}

fn rounds(bootstrap: &str, run: u32) {
    let (events, at_most) = if measure::is_quick() {
        (20_000, 1)
    } else {
        (measure::events(), ROUNDS_JUDGED)
    };
    let ways = WAYS.map(|(way, rounds)| {
        let is_wanted = measure::is_wanted(way);
        (way, if is_wanted { rounds.min(at_most) } else { 0 })
    });
    let rounds = ways.iter().map(|(_, rounds)| *rounds).max().unwrap_or(0);
    if rounds == 0 {
        return;
    }
    let world = World::new(bootstrap, run, events, rounds);
    let mut costs: [Vec<Cost>; WAYS.len()] = Default::default();
    for round in 0..rounds {
        // There and back: what a way leaves behind (a warm broker, pages that are being written to the disk) meets not always
        // the same one.
        let mut order: Vec<usize> = (0..WAYS.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for number in order {
            let (way, rounds) = ways[number];
            if round >= rounds {
                continue;
            }
            let each = world.drain(way, round);
            measure::say(&format!(
                "  round {round}, {way}: {} an event, {:.0} events/s",
                measure::shown(each),
                1.0 / each.wall
            ));
            costs[number].push(each);
        }
    }
    world.delete();
    report(&costs);
}

/// What is drained: the events of a telemetry topic, and for the daemons the zones.
struct World {
    bootstrap: String,
    admin: Admin,
    run: u32,
    from: String,
    events: usize,
    zones: Vec<String>,
    /// From when the events were written on.
    changes: Changes,
}

impl World {
    /// Zones of the daemons that are wanted, then events; meanwhile zones change wherever they go on changing later, and
    /// afterwards in the topic whose history is replayed.
    fn new(bootstrap: &str, run: u32, events: usize, rounds: usize) -> Self {
        let from = format!("bench-telemetry-{run}");
        let admin = topics::admin(bootstrap);
        topics::create(&admin, &from, 8, &[]);
        let mut world = Self {
            bootstrap: bootstrap.to_owned(),
            admin,
            run,
            from,
            events,
            zones: Vec::new(),
            changes: Changes::default(),
        };
        let of_rounds = |way| -> Vec<String> {
            let rounds = if measure::is_wanted(way) { rounds } else { 0 };
            (0..rounds)
                .map(|round| world.zones_of(way, round))
                .collect()
        };
        let changing = of_rounds(DAEMON_CHANGING);
        let unread = of_rounds(PASS_THROUGH_CHANGING);
        let steady = [DAEMON, DAEMON_REPLAYING].into_iter();
        let steady = steady.filter(|way| measure::is_wanted(way));
        let steady: Vec<_> = steady.map(|way| world.zones_of(way, 0)).collect();
        world.zones = [steady, changing.clone()].concat();
        for zones in &world.zones {
            daemon::fill(bootstrap, &world.admin, zones, SIDE);
        }
        for zones in &unread {
            daemon::create(&world.admin, zones);
        }
        world.zones.extend(unread);
        let fill = || topics::fill(bootstrap, &world.from, events);
        let bytes = if changing.is_empty() {
            fill()
        } else {
            daemon::while_changing(bootstrap, &changing, &mut world.changes, fill)
        };
        measure::say(&format!(
            "  {events} records of {} B on average in 8 partitions",
            bytes / events
        ));
        if measure::is_wanted(DAEMON_REPLAYING) {
            let changes = Changes::default().take(REPLAYED_CHANGES);
            topics::write(bootstrap, &world.zones_of(DAEMON_REPLAYING, 0), changes);
        }
        world
    }

    /// The zones topic of a way; empty where it has none. Each round finds as much history in one whose zones change.
    fn zones_of(&self, way: &str, round: usize) -> String {
        match way {
            DAEMON | DAEMON_REPLAYING => format!("{}-{way}-zones", self.from),
            DAEMON_CHANGING | PASS_THROUGH_CHANGING => format!("{}-{way}-{round}-zones", self.from),
            _ => String::new(),
        }
    }

    /// What an event costs, all drained once this way.
    fn drain(&self, way: &str, round: usize) -> Cost {
        let (bootstrap, admin, events) = (&self.bootstrap, &self.admin, self.events);
        let to = format!("bench-{way}-{}-{round}", self.run);
        topics::create(admin, &to, 8, &[]);
        let zones = self.zones_of(way, round);
        let job = Job {
            bootstrap: bootstrap.clone(),
            from: self.from.clone(),
            to: to.clone(),
            group: to.clone(),
            zones: zones.clone(),
            events,
        };
        let cost = if matches!(way, DAEMON_CHANGING | PASS_THROUGH_CHANGING) {
            let mut changes = self.changes;
            daemon::while_changing(bootstrap, &[zones], &mut changes, || {
                in_child(way, job).cost
            })
        } else {
            in_child(way, job).cost
        };
        let written = topics::count(bootstrap, admin, &to);
        assert_eq!(written, events, "{way} wrote each event once");
        topics::delete(admin, &to);
        cost.per(events)
    }

    fn delete(self) {
        for topic in self.zones.iter().chain([&self.from]) {
            topics::delete(&self.admin, topic);
        }
    }
}

/// A row of the table: one way beside another, round by round.
struct Comparison<'a> {
    what: &'a str,
    ours: &'a [Cost],
    baseline: &'a [Cost],
    /// Of one round: ours, then the baseline.
    ratio: fn(&Cost, &Cost) -> f64,
    target: Target,
}

impl Comparison<'_> {
    fn report(&self) {
        if self.ours.is_empty() || self.baseline.is_empty() {
            return;
        }
        // Of the rounds that both have: the last ones may have been of another hour.
        let common = self.ours.len().min(self.baseline.len());
        let (ours, baseline) = (&self.ours[..common], &self.baseline[..common]);
        let rounds = ours.iter().zip(baseline);
        Row {
            what: self.what,
            ours: middle(ours),
            baseline: middle(baseline),
            value: Spread::new(rounds.map(|(ours, baseline)| (self.ratio)(ours, baseline))),
            target: self.target,
        }
        .report();
    }
}

fn report(costs: &[Vec<Cost>; WAYS.len()]) {
    let [
        plain,
        pass_through_uncompressed,
        uncompressed,
        latest,
        exactly_once,
        enriched,
        pass_through,
        pass_through_changing,
        changing,
        daemon,
        replaying,
        bare,
        one_header,
    ] = costs;
    let faster: fn(&Cost, &Cost) -> f64 = |ours, baseline| baseline.wall / ours.wall;
    let dearer: fn(&Cost, &Cost) -> f64 = |ours, baseline| ours.cpu / baseline.cpu;
    let cheaper: fn(&Cost, &Cost) -> f64 = |ours, baseline| baseline.cpu / ours.cpu;
    let rows = [
        Comparison {
            what: "throughput: enriched, 10 k zones ÷ pass-through",
            ours: enriched,
            baseline: pass_through,
            ratio: faster,
            target: Target::AtLeast(0.70, 0.92),
        },
        Comparison {
            what: "CPU per event: enriched ÷ pass-through",
            ours: enriched,
            baseline: pass_through,
            ratio: dearer,
            target: Target::AtMost(1.6, 1.25),
        },
        Comparison {
            what: "CPU per event: plain build ÷ ours, 10 k zones",
            ours: enriched,
            baseline: plain,
            ratio: cheaper,
            target: Target::AtLeast(4.0, 6.0),
        },
        // It adds no headers: like beside like.
        Comparison {
            what: "CPU per event: plain build ÷ ours without headers",
            ours: bare,
            baseline: plain,
            ratio: cheaper,
            target: Target::None,
        },
        Comparison {
            what: "throughput: ours ÷ plain build, 10 k zones",
            ours: enriched,
            baseline: plain,
            ratio: faster,
            target: Target::None,
        },
        Comparison {
            what: "CPU per event: matching at event time ÷ `latest`",
            ours: enriched,
            baseline: latest,
            ratio: dearer,
            target: Target::AtMost(1.15, 1.03),
        },
        Comparison {
            what: "CPU per event: with `ringfence-*` headers ÷ without",
            ours: enriched,
            baseline: bare,
            ratio: dearer,
            target: Target::None,
        },
        Comparison {
            what: "CPU per event: with one `ringfence` header ÷ without",
            ours: one_header,
            baseline: bare,
            ratio: dearer,
            target: Target::None,
        },
        Comparison {
            what: "CPU per event: enriched with one header ÷ pass-through",
            ours: one_header,
            baseline: pass_through,
            ratio: dearer,
            target: Target::None,
        },
        Comparison {
            what: "throughput: enriched ÷ pass-through, both without compression",
            ours: uncompressed,
            baseline: pass_through_uncompressed,
            ratio: faster,
            target: Target::None,
        },
        Comparison {
            what: "CPU per event: enriched ÷ pass-through, both without compression",
            ours: uncompressed,
            baseline: pass_through_uncompressed,
            ratio: dearer,
            target: Target::None,
        },
        Comparison {
            what: "throughput: enriched without compression ÷ with lz4",
            ours: uncompressed,
            baseline: enriched,
            ratio: faster,
            target: Target::None,
        },
        Comparison {
            what: "throughput: exactly once ÷ at least once, 100 ms",
            ours: exactly_once,
            baseline: enriched,
            ratio: faster,
            target: Target::AtLeast(0.70, 0.95),
        },
        Comparison {
            what: "CPU per event: the whole daemon, 100 zone changes/s ÷ none",
            ours: changing,
            baseline: daemon,
            ratio: dearer,
            target: Target::None,
        },
        Comparison {
            what: "throughput: the whole daemon, 100 zone changes/s ÷ none",
            ours: changing,
            baseline: daemon,
            ratio: faster,
            target: Target::None,
        },
        Comparison {
            what: "throughput: the whole daemon ÷ pass-through, both beside 100 zone changes/s",
            ours: changing,
            baseline: pass_through_changing,
            ratio: faster,
            target: Target::AtLeast(0.70, 0.92),
        },
        Comparison {
            what: "CPU per event: the whole daemon ÷ pass-through, both beside 100 zone changes/s",
            ours: changing,
            baseline: pass_through_changing,
            ratio: dearer,
            target: Target::AtMost(1.6, 1.25),
        },
        Comparison {
            what: "throughput: the whole daemon, 100 zone changes/s ÷ pass-through, none",
            ours: changing,
            baseline: pass_through,
            ratio: faster,
            target: Target::None,
        },
        Comparison {
            what: "throughput: the whole daemon, no change ÷ pass-through",
            ours: daemon,
            baseline: pass_through,
            ratio: faster,
            target: Target::None,
        },
        Comparison {
            what: "CPU per event: the whole daemon, each zone changed after the events ÷ none",
            ours: replaying,
            baseline: daemon,
            ratio: dearer,
            target: Target::None,
        },
    ];
    for row in rows {
        row.report();
    }
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
