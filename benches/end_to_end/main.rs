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
mod comparison;
mod daemon;
mod enriched;
mod job;
mod pass_through;
mod topics;
mod watch;

use std::process::{Command, Stdio};

use comparison::Costs;
use daemon::Changes;
use enriched::Ways;
use job::{Job, PLAIN, PLAIN_WITH_HEADERS, SIDE, Told};
use ringfence::codec::headers::HeaderForm;
use ringfence::kafka::admin::Admin;
use support::measure::{self, Cost};

/// In the order of a round: what is compared stands near each other, as the machine's speed drifts. Every other round goes the
/// other way round. The two that the first rows compare come twice: what others are held against is near, and twice as many
/// pairs say more.
const ROUND: [&str; 16] = [
    PASS_THROUGH_UNCOMPRESSED,
    UNCOMPRESSED,
    PLAIN,
    WITHOUT_HEADERS,
    ONE_HEADER,
    ENRICHED,
    PASS_THROUGH,
    EXACTLY_ONCE,
    PLAIN_WITH_HEADERS,
    LATEST,
    ENRICHED,
    PASS_THROUGH,
    DAEMON,
    PASS_THROUGH_CHANGING,
    DAEMON_CHANGING,
    DAEMON_REPLAYING,
];
const PASS_THROUGH: &str = "pass-through";
const ENRICHED: &str = "enriched";
const LATEST: &str = "latest";
const EXACTLY_ONCE: &str = "exactly-once";
const WITHOUT_HEADERS: &str = "without-headers";
const ONE_HEADER: &str = "one-header";
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
/// What `RINGFENCE_BENCH_ONLY` may name beside the ways.
const BOOTSTRAP: &str = "bootstrap";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some((way, rest)) = arguments.split_first()
        && let Some(job) = Job::from_arguments(rest)
    {
        job::end_by_panic();
        let cost = match way.as_str() {
            PASS_THROUGH | PASS_THROUGH_CHANGING | PASS_THROUGH_UNCOMPRESSED => {
                pass_through::drain(&job)
            }
            ENRICHED | UNCOMPRESSED => enriched::drain(&job, Ways::default()),
            LATEST => {
                let mode = enriched::latest();
                enriched::drain(
                    &job,
                    Ways {
                        mode,
                        ..Ways::default()
                    },
                )
            }
            WITHOUT_HEADERS | ONE_HEADER => {
                let headers = (way == ONE_HEADER).then_some(HeaderForm::One);
                let ways = Ways {
                    headers,
                    ..Ways::default()
                };
                enriched::drain(&job, ways)
            }
            EXACTLY_ONCE => {
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
    let program = if matches!(way, PLAIN | PLAIN_WITH_HEADERS) {
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
    let events = if measure::is_quick() {
        20_000
    } else {
        measure::events()
    };
    let rounds = measure::rounds();
    let mut ways = ROUND.to_vec();
    ways.retain(|way| measure::is_wanted(way));
    // Where one of the two is wanted alone, once a round is enough.
    ways.dedup();
    if ways.is_empty() {
        return;
    }
    let mut order: Vec<_> = ways.into_iter().enumerate().collect();
    let world = World::new(bootstrap, run, events, rounds);
    let mut costs = Costs::default();
    for round in 0..rounds {
        for (place, way) in &order {
            let each = world.drain(way, round, *place);
            measure::say(&format!(
                "  round {round}, {way}: {} an event, {:.0} events/s",
                measure::shown(each),
                1.0 / each.wall
            ));
            costs.add(round, *place, way, each);
        }
        // There and back: what a way leaves behind (a warm broker, pages that are being written to the disk) meets not always
        // the same one.
        order.reverse();
    }
    world.delete();
    comparison::report(&costs);
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

    /// What an event costs, all drained once this way, at this place of the round.
    fn drain(&self, way: &str, round: usize, place: usize) -> Cost {
        let (bootstrap, admin, events) = (&self.bootstrap, &self.admin, self.events);
        let to = format!("bench-{way}-{}-{round}-{place}", self.run);
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
