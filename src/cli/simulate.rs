//! `simulate`: writes the seeded world of [`crate::simulate`] to the topics at a given rate, and watches by the
//! acknowledgements' stamps that both halves of each border's move came before the instant they name.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use super::interrupt::stop_on_signal;
use super::{Context, Failure, Outcome, duration};
use crate::clock::Clock;
use crate::codec::geojson::removal;
use crate::config::Config;
use crate::kafka::EdgeError;
use crate::kafka::admin::Admin;
use crate::kafka::client::Settings;
use crate::kafka::reader::TopicReader;
use crate::kafka::writer::{Outgoing, TopicWriter};
use crate::shutdown::Shutdown;
use crate::simulate::{Emission, EventBuffer, Fleet, FleetRules, Jigsaw, ZoneRecord};
use crate::time::{EventTime, MonoTime};
use crate::zone::ZoneId;

/// How long the cluster may take to answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// Records are written in bursts so far apart.
const TICK: Duration = Duration::from_millis(10);
/// How long a burst of one kind of records keeps the other waiting.
const BURST_MAX: Duration = Duration::from_millis(100);

/// More than any machine writes: a figure beyond it is a slip of the hand.
pub(super) const RATE_MAX: u64 = 10_000_000;
const ZONE_RATE_MAX: u64 = 1_000_000;
/// They are kept in memory.
const ZONES_MAX: u64 = 1_000_000;
const ENTITIES_MAX: u64 = 10_000_000;

/// A count between two bounds, with an error that names them.
pub(super) fn range(least: u64, most: u64) -> impl clap::builder::TypedValueParser<Value = u64> {
    clap::value_parser!(u64).range(least..=most)
}

/// Arguments of `simulate`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  ringfence -c ringfence.toml simulate --rate 20000 --invalid 0.01 --for 60s\n  \
    ringfence simulate --zones 100 --zone-rate 10 --seed 7"
)]
pub struct Args {
    /// Events a second.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = range(0, RATE_MAX))]
    rate: u64,
    /// Vehicles.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = range(1, ENTITIES_MAX))]
    entities: u64,
    /// Zones that tile the area.
    #[arg(long, value_name = "N", default_value_t = 400, value_parser = range(1, ZONES_MAX))]
    zones: u64,
    /// Zone changes a second; a border that moves is two.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = range(0, ZONE_RATE_MAX))]
    zone_rate: u64,
    /// The share of events that are seconds late, 0 to 1.
    #[arg(long, value_name = "F", default_value_t = 0.0, value_parser = share)]
    late: f64,
    /// The share of events sent twice.
    #[arg(long, value_name = "F", default_value_t = 0.0, value_parser = share)]
    duplicate: f64,
    /// The share of records that are no event, in many ways.
    #[arg(long, value_name = "F", default_value_t = 0.0, value_parser = share)]
    invalid: f64,
    /// The same seed gives the same world.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// How long; without it until a signal.
    #[arg(long = "for", value_name = "D", value_parser = duration)]
    length: Option<Duration>,
}

fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| format!("`{text}` is no number"))?;
    if (0.0..=1.0).contains(&share) {
        Ok(share)
    } else {
        Err("must be from 0 to 1".to_owned())
    }
}

/// Writes the world until its time is over or a signal comes.
///
/// # Errors
/// A topic is missing, or the cluster does not answer.
pub fn run(args: &Args, context: &Context) -> Result<Outcome, Failure> {
    let config = context.kafka_config()?;
    let world = World {
        settings: Settings::from(&config.kafka),
        telemetry_topic: config.telemetry.topic.clone(),
        zones_topic: config.zones.topic.clone(),
        rate: args.rate,
        zones: usize::try_from(args.zones).unwrap_or(usize::MAX),
        zone_rate: args.zone_rate,
        fleet: FleetRules {
            entities: usize::try_from(args.entities).unwrap_or(usize::MAX),
            late: args.late,
            duplicate: args.duplicate,
            invalid: args.invalid,
            ..FleetRules::default()
        },
        seed: args.seed,
        length: args.length,
        lead: lead(&config),
    };
    let counts = Counts::default();
    let stop = stop_on_signal()?;
    world
        .write(&counts, &stop)
        .map_err(|why| Failure::failed("cannot simulate", why))?;
    let summary = counts.summary();
    if context.json {
        context.report_json(&json!(summary));
    } else {
        context.report(format_args!(
            "seed {}: {} events ({} of them invalid; {} valid ones were sent twice), {} zone changes, {} clipped, {} records failed",
            args.seed, summary.events, summary.invalid, summary.twice, summary.zone_changes,
            summary.clipped, summary.failed
        ));
    }
    Ok(if summary.clipped + summary.failed == 0 {
        Outcome::Done
    } else {
        Outcome::Found
    })
}

/// How far ahead moves are announced: beyond the margin of a topic whose stamps are the producer's own, and within the
/// schedule that the daemon accepts.
fn lead(config: &Config) -> Duration {
    let margin = config
        .gate
        .create_time_margin
        .unwrap_or(config.gate.settle_margin);
    (margin + Duration::from_secs(2)).min(config.gate.max_schedule * 4 / 5)
}

/// A world and where to write it.
#[derive(Debug)]
pub(super) struct World {
    pub(super) settings: Settings,
    pub(super) telemetry_topic: String,
    pub(super) zones_topic: String,
    /// Events a second.
    pub(super) rate: u64,
    pub(super) zones: usize,
    /// Zone changes a second.
    pub(super) zone_rate: u64,
    pub(super) fleet: FleetRules,
    pub(super) seed: u64,
    /// From the first event on; `None` = until the stop.
    pub(super) length: Option<Duration>,
    /// How far ahead of its instant a zone change is written.
    pub(super) lead: Duration,
}

/// Counted while it runs, for whoever watches.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) events: AtomicU64,
    pub(super) invalid: AtomicU64,
    pub(super) twice: AtomicU64,
    pub(super) zone_changes: AtomicU64,
    pub(super) clipped: AtomicU64,
    pub(super) failed: AtomicU64,
}

/// What was written.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Summary {
    pub(super) events: u64,
    pub(super) invalid: u64,
    pub(super) twice: u64,
    pub(super) zone_changes: u64,
    pub(super) clipped: u64,
    pub(super) failed: u64,
}

impl Counts {
    pub(super) fn summary(&self) -> Summary {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Summary {
            events: read(&self.events),
            invalid: read(&self.invalid),
            twice: read(&self.twice),
            zone_changes: read(&self.zone_changes),
            clipped: read(&self.clipped),
            failed: read(&self.failed),
        }
    }
}

fn add(count: &AtomicU64, by: u64) {
    count.fetch_add(by, Ordering::Relaxed);
}

impl World {
    /// Writes the world: the zones, then, once they are in force, the fleet and the moves.
    ///
    /// # Errors
    /// A topic is missing, the cluster does not answer, or a zone change could not be written.
    pub(super) fn write(&self, counts: &Counts, stop: &Shutdown) -> Result<(), EdgeError> {
        let admin = Admin::new(&self.settings, PATIENCE)?;
        admin.existing(&self.telemetry_topic)?;
        let mut jigsaw = Jigsaw::new(self.zones, self.seed);
        let leftovers = self.leftovers(&admin, &jigsaw)?;
        let mut zones = ZoneSide::new(self, counts)?;
        let size = jigsaw.size();
        let mut fleet = FleetSide {
            world: self,
            counts,
            writer: TopicWriter::new(&self.settings)?,
            fleet: Fleet::new(self.fleet, size, self.seed),
            event: EventBuffer::default(),
            repeat: false,
            pending: false,
        };
        let start = Clock::wall().plus(self.lead);
        for record in jigsaw.publish(start) {
            if stop.is_requested() {
                return zones.finish();
            }
            zones.send(&record, start)?;
        }
        for key in leftovers {
            let value = removal(&ZoneId::new(&key), Some(start)).into_bytes();
            zones.send(&ZoneRecord { key, value }, start)?;
        }
        // Acknowledged and in force, before the first event.
        while !stop.is_requested() && (zones.in_flight() || Clock::wall() < start) {
            zones.wait(TICK)?;
        }
        let begin = Clock::mono();
        let mut moves = Paced::new(begin, self.zone_rate);
        let mut events = Paced::new(begin, self.rate);
        let mut effective_at = start;
        let is_over = |now: MonoTime| {
            stop.is_requested() || self.length.is_some_and(|length| now.since(begin) >= length)
        };
        loop {
            let now = Clock::mono();
            if is_over(now) {
                break;
            }
            // More may be due than can be written: the end comes all the same, and the events have their turn.
            let until = now.plus(BURST_MAX);
            while moves.is_due(now) && Clock::mono() < until && !is_over(Clock::mono()) {
                // Never before that of an earlier change: a zone's later record tells all that happened before.
                effective_at = effective_at.max(Clock::wall().plus(self.lead));
                let records = jigsaw.change(effective_at);
                moves.done(records.len().max(1) as u64);
                for record in records {
                    zones.send(&record, effective_at)?;
                }
            }
            let until = Clock::mono().plus(BURST_MAX);
            while events.is_due(now) && Clock::mono() < until && fleet.send(start)? {
                events.done(1);
            }
            fleet.collect();
            zones.wait(TICK)?;
        }
        fleet.finish();
        zones.finish()
    }

    /// Zones of an earlier world that this one does not have: they would overlap it.
    fn leftovers(&self, admin: &Admin, jigsaw: &Jigsaw) -> Result<BTreeSet<String>, EdgeError> {
        let mut leftovers = BTreeSet::new();
        let reader = TopicReader::all(&self.settings, admin, &self.zones_topic)?;
        reader.read_all(PATIENCE, |record| {
            if let Some(key) = record.key.and_then(|key| std::str::from_utf8(key).ok())
                && key.starts_with("jigsaw-")
            {
                if record.value.is_some() {
                    leftovers.insert(key.to_owned());
                } else {
                    leftovers.remove(key);
                }
            }
        })?;
        jigsaw.ids().for_each(|id| _ = leftovers.remove(&id));
        Ok(leftovers)
    }
}

/// So many a second, none forgotten.
struct Paced {
    begin: MonoTime,
    rate: u64,
    done: u64,
}

impl Paced {
    fn new(begin: MonoTime, rate: u64) -> Self {
        Self {
            begin,
            rate,
            done: 0,
        }
    }

    fn is_due(&self, now: MonoTime) -> bool {
        let micros = now.since(self.begin).as_micros();
        micros * u128::from(self.rate) / 1_000_000 > u128::from(self.done)
    }

    fn done(&mut self, count: u64) {
        self.done += count;
    }
}

/// Writes zone changes and reads their acknowledgements.
struct ZoneSide<'a> {
    world: &'a World,
    counts: &'a Counts,
    writer: TopicWriter,
    /// The instant that each change asked for, by its tag.
    asked: HashMap<usize, EventTime>,
    next: usize,
}

impl<'a> ZoneSide<'a> {
    fn new(world: &'a World, counts: &'a Counts) -> Result<Self, EdgeError> {
        let writer = TopicWriter::new(&world.settings)?;
        Ok(Self {
            world,
            counts,
            writer,
            asked: HashMap::new(),
            next: 0,
        })
    }

    fn send(&mut self, record: &ZoneRecord, effective_at: EventTime) -> Result<(), EdgeError> {
        let outgoing = Outgoing {
            topic: &self.world.zones_topic,
            key: Some(record.key.as_bytes()),
            value: Some(&record.value),
            ..Outgoing::default()
        };
        self.asked.insert(self.next, effective_at);
        while !self.writer.send(&outgoing, self.next)? {
            self.wait(TICK)?;
        }
        self.next += 1;
        add(&self.counts.zone_changes, 1);
        Ok(())
    }

    fn in_flight(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Takes acknowledgements for this long.
    fn wait(&mut self, time: Duration) -> Result<(), EdgeError> {
        let until = Clock::mono().plus(time);
        loop {
            let left = until.since(Clock::mono());
            if left.is_zero() {
                return Ok(());
            }
            let Some(receipt) = self.writer.receipt(left) else {
                continue;
            };
            let asked = self.asked.remove(&receipt.tag);
            // A change that is not in the log leaves a hole in the tiling: there is no going on.
            let (_, stamp) = receipt.outcome.map_err(EdgeError::cluster(format!(
                "write to topic `{}`",
                self.world.zones_topic
            )))?;
            if let (Some(asked), Some(stamp)) = (asked, stamp.instant())
                && stamp > asked
            {
                add(&self.counts.clipped, 1);
            }
        }
    }

    fn finish(mut self) -> Result<(), EdgeError> {
        while self.in_flight() {
            self.wait(TICK)?;
        }
        Ok(())
    }
}

/// Writes telemetry.
struct FleetSide<'a> {
    world: &'a World,
    counts: &'a Counts,
    writer: TopicWriter,
    fleet: Fleet,
    event: EventBuffer,
    /// The event in the buffer goes out once more after this.
    repeat: bool,
    /// The event in the buffer was not taken yet.
    pending: bool,
}

impl FleetSide<'_> {
    /// Sends the next record; false where the producer is full.
    fn send(&mut self, earliest: EventTime) -> Result<bool, EdgeError> {
        if !self.pending {
            let emission = self.fleet.next(Clock::wall(), earliest, &mut self.event);
            self.repeat = emission == Emission::Twice;
            self.pending = true;
            add(&self.counts.twice, u64::from(self.repeat));
        }
        let outgoing = Outgoing {
            topic: &self.world.telemetry_topic,
            key: Some(&self.event.key),
            value: (!self.event.is_null).then_some(self.event.value.as_slice()),
            ..Outgoing::default()
        };
        if !self.writer.send(&outgoing, 0)? {
            return Ok(false);
        }
        add(&self.counts.events, 1);
        // Of records, not of events: one that is sent twice is dead-lettered twice.
        add(&self.counts.invalid, u64::from(self.event.is_invalid));
        self.pending = std::mem::take(&mut self.repeat);
        Ok(true)
    }

    fn collect(&self) {
        let failed = self
            .writer
            .receipts()
            .filter(|receipt| receipt.outcome.is_err())
            .count();
        add(&self.counts.failed, failed as u64);
    }

    fn finish(self) {
        while self.writer.in_flight() > 0 {
            if let Some(receipt) = self.writer.receipt(Duration::from_millis(100)) {
                add(&self.counts.failed, u64::from(receipt.outcome.is_err()));
            }
        }
        self.collect();
    }
}
