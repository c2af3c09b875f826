//! Bounded memory (issue 4): the resident memory of a `ringfence run` stays below what its configured bounds add up to,
//! whatever stands still; and so does that of the pure core. Run it by `scripts/soak`.
//!
//! By its environment: `RINGFENCE_SOAK_MINUTES` (0 = each phase once, short), `_CHANGES` (of an import), `_LEAK` (a bound that is set absurdly high,
//! which must turn it red), and `RINGFENCE_TEST_BINARY`.

mod core;
mod resident;

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use resident::{Resident, mib};
use ringfence::clock::Clock;
use ringfence::time::MonoTime;

use crate::support::daemon::{Daemon, eventually};
use crate::support::kafka::{Cluster, free_ports};
use crate::support::stage::Stage;
use crate::support::zones::rectangle;
use crate::torture::proxy::Proxy;

const MIB: u64 = 1 << 20;
const PARTITIONS: i32 = 4;
const PATIENCE: Duration = Duration::from_secs(240);
/// Zones that an import changes again and again: the index stays of one size.
const ZONES: usize = 200;
/// A cycle's peak may lie so far above those of the first two: an allocator keeps what it has.
const SLACK: u64 = 24 * MIB;
const WARM: usize = 2;
/// What three clients at full speed take beside their queues, batches and buffers. Measured: 86 to 88 MiB above idle as a backlog
/// drains, 58 of which the queues may have.
const CLIENTS: u64 = 64 * MIB;
/// The allocator gives back at once what is freed: as it comes it keeps it for a second, which at full speed is 30 to 60 MiB more,
/// by how busy the machine is, and says nothing of what the program holds.
const GIVE_BACK_AT_ONCE: &str = "MIMALLOC_PURGE_DELAY";

/// The bounds of the daemon, small ones.
const BOUNDS: [(&str, u64); 12] = [
    ("delivery.in_flight_max", 2_000),
    ("delivery.in_flight_max_bytes", 2 * MIB),
    ("delivery.hold_max", 2_000),
    ("delivery.hold_max_bytes", 2 * MIB),
    ("gate.staging_max", 1_000),
    ("gate.staging_max_bytes", 2 * MIB),
    ("gate.history_bytes", 8 * MIB),
    ("index.max_live_snapshots", 2),
    ("kafka.consumer.queued.min.messages", 1_000),
    ("kafka.consumer.queued.max.messages.kbytes", 2_048),
    ("kafka.zones.queued.min.messages", 1_000),
    ("kafka.zones.queued.max.messages.kbytes", 2_048),
];
/// What can be set absurdly high, `core` for the pure core: memory must show it.
const LEAKS: [&str; 3] = ["core", "delivery.in_flight_max", "delivery.hold_max"];
/// What a client reads at once, for either of the two.
const FETCH: u64 = 2 * MIB;
/// What a change takes until `as_of` has passed it: no history yet, and the builder does not wait. Measured are 170, as changes
/// of one zone in one batch have one stamp, and only the last of them is in force.
const AHEAD: u64 = 256;
/// What a record in a queue takes beside its bytes: in librdkafka's queue, in the ledger, in the hold.
const RECORD: u64 = 2_048;

fn bound(name: &str) -> u64 {
    let found = BOUNDS.iter().find(|(known, _)| *known == name);
    found.expect("a bound of this soak").1
}

/// What the bounds allow above an idle process: every queue full, each byte there twice (as it came and as it goes), a
/// history for each live index.
fn allowance() -> u64 {
    let records: u64 = BOUNDS
        .iter()
        .filter(|(name, _)| !name.contains("bytes") && !name.ends_with("snapshots"))
        .map(|(_, count)| count)
        .sum();
    let queued = [
        "delivery.in_flight_max_bytes",
        "delivery.hold_max_bytes",
        "gate.staging_max_bytes",
    ];
    let bytes = queued.iter().map(|name| bound(name)).sum::<u64>()
        + bound("kafka.consumer.queued.max.messages.kbytes") * 1_024
        + bound("kafka.zones.queued.max.messages.kbytes") * 1_024
        + 2 * FETCH;
    let histories = bound("gate.history_bytes") * bound("index.max_live_snapshots");
    2 * bytes + records * RECORD + histories + CLIENTS
}

/// How long and how much.
struct Measure {
    length: Duration,
    stall: Duration,
    backlog: usize,
    changes: usize,
    rebalances: usize,
    leak: Option<String>,
}

impl Measure {
    fn from_environment() -> Self {
        let read = |name: &str| std::env::var(format!("RINGFENCE_SOAK_{name}")).ok();
        let minutes: f64 = read("MINUTES").map_or(0.0, |text| text.parse().expect("minutes"));
        let leak = read("LEAK");
        let is_known = |name: &String| LEAKS.contains(&name.as_str());
        assert!(leak.iter().all(is_known), "{leak:?} is none of {LEAKS:?}");
        let is_long = minutes > 0.0;
        Self {
            length: Duration::from_secs_f64(minutes * 60.0),
            stall: Duration::from_secs(if is_long { 60 } else { 8 }),
            backlog: if is_long { 500_000 } else { 200_000 },
            changes: read("CHANGES").map_or(if is_long { 1_000_000 } else { 50_000 }, |text| {
                text.parse().expect("a number")
            }),
            rebalances: 10_000,
            leak,
        }
    }
}

/// The daemon under watch, on a cluster of its own.
struct Soak {
    measure: Measure,
    address: String,
    stage: Stage,
    /// Before the broker, for the daemon.
    proxy: Proxy,
    daemon: Daemon,
    resident: Resident,
    limit: u64,
    /// What the last import had built ahead of `as_of`: an allocator keeps it.
    ahead: u64,
    /// Of all events ever written.
    events: usize,
    /// The peaks of each phase, by cycle.
    peaks: BTreeMap<&'static str, Vec<u64>>,
}

impl Soak {
    fn start(cluster: &Cluster, proxy: Proxy, measure: Measure) -> Self {
        let stage = Stage::on(cluster.address(), "soak", "");
        stage.create_topics(PARTITIONS, &[]);
        let elsewhere = rectangle("elsewhere", 50.0, 50.0, 51.0, 51.0, "");
        stage.write("zones", [(None, "elsewhere".to_owned(), elsewhere)]);
        let mut values: Vec<_> = BOUNDS
            .iter()
            .map(|(name, value)| match measure.leak.as_deref() {
                Some(leak) if leak == *name && name.contains("bytes") => {
                    format!("{name}={}", 1_u64 << 40)
                }
                Some(leak) if leak == *name => format!("{name}=10000000"),
                _ => format!("{name}={value}"),
            })
            .collect();
        if let Some(leak) = measure.leak.as_deref()
            && leak.starts_with("delivery.")
            && !leak.ends_with("bytes")
        {
            // Either bound alone would do.
            values.push(format!("{leak}_bytes={}", 1_u64 << 40));
        }
        for section in ["consumer", "zones"] {
            values.push(format!("kafka.{section}.fetch.max.bytes={FETCH}"));
        }
        values.push("gate.on_stall=wait".to_owned());
        values.push(format!(
            "kafka.bootstrap.servers=127.0.0.1:{}",
            proxy.port()
        ));
        let values: Vec<_> = values.iter().map(String::as_str).collect();
        let mut daemon = stage.daemon_in("soak", &values, &[(GIVE_BACK_AT_ONCE, "0".into())]);
        daemon.wait_ready();
        let resident = Resident::of(&daemon.pid().to_string());
        let idle = resident.now();
        let limit = idle + allowance();
        println!("idle {} MiB, limit {} MiB", mib(idle), mib(limit));
        Self {
            measure,
            address: cluster.address().to_owned(),
            stage,
            proxy,
            daemon,
            resident,
            limit,
            ahead: 0,
            events: 0,
            peaks: BTreeMap::new(),
        }
    }

    /// Writes a backlog of events of now, half a kilobyte each; gives its bytes.
    fn write_backlog(&mut self) -> u64 {
        let now = Clock::wall().millis();
        let padding = "x".repeat(440);
        let event = |number: usize| {
            format!(
                r#"{{"id":"v{}","ts":{now},"lat":0.5,"lon":0.5,"n":{number},"pad":"{padding}"}}"#,
                number % 1_000
            )
        };
        let numbers = self.events..self.events + self.measure.backlog;
        self.events = numbers.end;
        let bytes = event(numbers.start).len() * numbers.len();
        let records = numbers.map(|number| {
            let partition = (number % PARTITIONS as usize) as i32;
            (
                Some(partition),
                format!("v{}", number % 1_000),
                event(number),
            )
        });
        self.stage.write("telemetry", records);
        bytes as u64
    }

    fn metric(&self, name: &str) -> f64 {
        self.daemon.metric(name, "").unwrap_or(0.0)
    }

    /// Does it while memory is watched, and says what was seen.
    fn phase(&mut self, name: &'static str, run: impl FnOnce(&mut Self) -> String) {
        let begun = Clock::mono();
        self.resident.reset_peak();
        let what = run(self);
        let (peak, limit) = (self.resident.peak(), self.limit + self.ahead);
        println!(
            "{name}: peak {} MiB of {} MiB, now {} MiB; {what}; {:.0} s",
            mib(peak),
            mib(limit),
            mib(self.resident.now()),
            Clock::mono().since(begun).as_secs_f64()
        );
        assert!(
            peak <= limit,
            "{name}: {} MiB are above {} MiB",
            mib(peak),
            mib(limit)
        );
        let peaks = self.peaks.entry(name).or_default();
        peaks.push(peak);
        let warm = peaks.iter().take(WARM).max().copied().unwrap_or(peak);
        assert!(
            peak <= warm + SLACK,
            "{name}: {} MiB, and {} MiB in the first cycles: it grows",
            mib(peak),
            mib(warm)
        );
    }

    /// Waits until so long it has stood still, with this metric up; says how that looked.
    fn stand_still(&self, since: MonoTime, metric: &str) -> String {
        let enriched = self.metric("ringfence_records_enriched_total");
        let stall = self.measure.stall;
        let most = eventually("it stands still", PATIENCE, || {
            let value = self.metric(metric);
            (value > 0.0 && Clock::mono().since(since) >= stall).then_some(value)
        });
        let more = self.metric("ringfence_records_enriched_total") - enriched;
        let queues = bound("delivery.in_flight_max") + bound("delivery.hold_max");
        assert!(
            self.measure.leak.is_some() || more <= queues as f64,
            "{more} records went on while it was to stand still"
        );
        let resident = mib(self.resident.now());
        format!(
            "{resident} MiB while {most} {} wait",
            metric.trim_start_matches("ringfence_")
        )
    }

    fn drain(&self) {
        self.stage.wait_committed(self.stage.group(), PATIENCE);
    }

    /// No request to produce comes to the broker; all others do.
    fn stall_output(&mut self) {
        self.phase("stalled output", |soak| {
            soak.proxy.stall_output(true);
            let bytes = soak.write_backlog();
            let most = soak.stand_still(Clock::mono(), "ringfence_records_in_flight");
            soak.proxy.stall_output(false);
            soak.drain();
            format!("{most} of a backlog of {} MiB", mib(bytes))
        });
    }

    /// A transaction on the zones topic stays open: nothing after it can be read, and the gate stands.
    fn stall_zones(&mut self) {
        self.phase("stalled zones topic", |soak| {
            let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
                .set("bootstrap.servers", &soak.address)
                .set("transactional.id", "soak")
                .set("transaction.timeout.ms", "600000")
                .create()
                .expect("a producer");
            producer.init_transactions(PATIENCE).expect("registered");
            producer.begin_transaction().expect("begun");
            let zone = rectangle("open", 60.0, 60.0, 61.0, 61.0, "");
            let topic = soak.stage.topic("zones");
            let record = BaseRecord::<str, str>::to(&topic).key("open");
            producer.send(record.payload(&zone)).expect("queued");
            producer.flush(PATIENCE).expect("written");
            let bytes = soak.write_backlog();
            let most = soak.stand_still(Clock::mono(), "ringfence_records_held");
            producer.commit_transaction(PATIENCE).expect("committed");
            soak.drain();
            format!("{most} of a backlog of {} MiB", mib(bytes))
        });
    }

    fn import_zones(&mut self) {
        self.phase("zone import", |soak| {
            let count = soak.measure.changes;
            let begun = Clock::wall().millis();
            let changes = (0..count).map(|number| {
                let (id, west) = (number % ZONES, (number % 7) as f64 / 10.0);
                let id = format!("zone-{id}");
                let zone = rectangle(&id, west, 0.0, west + 1.0, 1.0, "");
                (None, id, zone)
            });
            soak.stage.write("zones", changes);
            let written = Clock::wall().millis();
            let mut behind = 0.0_f64;
            eventually("the import is in force", PATIENCE * 4, || {
                let as_of = soak.metric("ringfence_as_of_timestamp_seconds") * 1e3;
                behind = behind.max(Clock::wall().millis() as f64 - as_of);
                (as_of > written as f64).then_some(())
            });
            let took = (Clock::wall().millis() - begun) as f64 / 1e3;
            let behind = behind / 1e3;
            // Versions that end above as_of are no history yet, and no bound of the configuration holds them.
            let ahead = behind.min(took) * count as f64 / took * AHEAD as f64;
            soak.ahead = ahead as u64;
            format!(
                "{count} changes of {ZONES} zones in force after {took:.1} s, as_of up to {behind:.1} s behind: {} MiB for \
                 what is built ahead of it",
                mib(soak.ahead)
            )
        });
    }
}

#[test]
#[ignore = "takes a minute and a cluster of its own: `scripts/soak`"]
fn resident_memory_stays_within_the_bounds_whatever_stands_still() {
    let measure = Measure::from_environment();
    // First: what the tests themselves need later is not measured.
    core::rebalances(measure.rebalances, measure.leak.as_deref() == Some("core"));
    core::snapshots_held_by_workers_that_stopped();
    let begun = Clock::mono();
    let port = free_ports(4);
    let cluster = Cluster::start_at(port, 1, Some(port + 3), "");
    let proxy = Proxy::start(port + 3, cluster.behind_proxy(1, 1));
    let mut soak = Soak::start(&cluster, proxy, measure);
    let mut cycles = 0;
    loop {
        cycles += 1;
        soak.stall_output();
        soak.stall_zones();
        soak.import_zones();
        if Clock::mono().since(begun) >= soak.measure.length {
            break;
        }
    }
    println!(
        "soak: {cycles} cycles, {:.1} minutes, {} events",
        Clock::mono().since(begun).as_secs_f64() / 60.0,
        soak.events
    );
    soak.daemon.stop();
}
