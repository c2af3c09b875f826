//! The seeded simulation of the whole pure core: gate, index and pipeline over logs in memory. A seed decides everything:
//! which partition is read when, how late answers and builds come, who crashes, what a clock says. Every step checks the
//! invariants against the truth, every change ever written; `cargo test -- --nocapture` prints one line a step with
//! `RINGFENCE_SIMULATION_LOG=1`, and `RINGFENCE_SEED=n` runs that seed alone.
//!
//! The moving border of `l` and `r` (two partitions, one `effective_at`) is the jigsaw: one of them at every instant.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ringfence::codec::headers::{self, Flag};
use ringfence::gate::GateInput;
use ringfence::gate::{MaxTimestamp, ProofRound};
use ringfence::geometry::Position;
use ringfence::index::BuildFailure;
use ringfence::partition::{Offset, RecordPosition};
use ringfence::pipeline::AckResult;
use ringfence::simulate::Rng;
use ringfence::time::EventTime;

use crate::support::worker::Written;
use crate::support::world::{World, WorldConfig, zones_of};
use crate::support::zones::{change, rectangle, t};

const START: i64 = 1_700_000_000_000;
const STEPS: usize = 1_500;
const ZONE_PARTITIONS: usize = 3;
const TELEMETRY_PARTITIONS: usize = 2;
const COMPACTION_LAG: i64 = 12_000;

/// What is done wrong on purpose, in the world around the core: each must be found.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Defect {
    Lost,
    Doubled,
    Swapped,
    WrongZone,
    /// Proofs that count although a stamped record is invisible.
    PromotedTooEarly,
    CommitPastAcknowledged,
}

#[derive(Debug, Default)]
struct Tally {
    outputs: usize,
    unflagged: usize,
    epochs: u64,
    crashes: usize,
    restarts: usize,
}

struct Simulation {
    world: World,
    rng: Rng,
    defect: Option<Defect>,
    rounds: Vec<ProofRound>,
    /// Outputs of the worker that were looked at.
    seen: usize,
    /// The offset that must come next, by partition; a new ownership begins at the committed one.
    next: BTreeMap<i32, i64>,
    acknowledged: BTreeSet<RecordPosition>,
    /// The first unflagged value of each record: a second one must be the same (I10).
    values: BTreeMap<RecordPosition, Vec<u8>>,
    as_of: Option<EventTime>,
    last_epoch: u64,
    has_failed_build: bool,
    transactions: u32,
    open: Vec<(u32, usize, Vec<ringfence::zone::StagedChange>)>,
    wall_wrong_until: i64,
    tally: Tally,
    last_action: u64,
    /// The floor when the last step was checked.
    floor: EventTime,
}

type Verdict = Result<(), String>;

fn expect(holds: bool, what: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(what()) }
}

impl Simulation {
    fn new(seed: u64, defect: Option<Defect>) -> Self {
        let mut rng = Rng::new(seed);
        let mut config = WorldConfig::new(START);
        config.zone_partitions = ZONE_PARTITIONS;
        config.telemetry_partitions = TELEMETRY_PARTITIONS;
        config.compaction_lag = Some(Duration::from_millis(COMPACTION_LAG as u64));
        config.gate.max_schedule = Duration::from_millis(3_000);
        config.gate.staging_max = 4 + rng.below(12) as usize;
        let mut world = World::new(config);
        for ahead in &mut world.broker_ahead {
            *ahead = rng.between(-60, 60);
        }
        Self {
            world,
            rng,
            defect,
            rounds: Vec::new(),
            seen: 0,
            next: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            values: BTreeMap::new(),
            as_of: None,
            last_epoch: 0,
            has_failed_build: false,
            transactions: 0,
            open: Vec::new(),
            wall_wrong_until: 0,
            tally: Tally::default(),
            last_action: 0,
            floor: EventTime::MIN,
        }
    }

    /// A position on an odd millionth: never on the border.
    fn place(&mut self) -> Position {
        let odd = |rng: &mut Rng| (rng.between(-400_000, 399_999) * 2 + 1) as f64 / 1e6;
        Position {
            lon: odd(&mut self.rng),
            lat: odd(&mut self.rng).abs(),
        }
    }

    /// How long a record stays invisible: mostly replication, now and then a dead replica.
    fn delay(&mut self) -> i64 {
        // The first record of a partition: an empty log has no largest stamp that could tell of an invisible record.
        if self.world.now == START {
            0
        } else if self.rng.chance(0.004) {
            self.rng.between(2_000, 9_000)
        } else {
            self.rng.between(0, 80)
        }
    }

    fn move_border(&mut self) {
        let border = (self.rng.between(-400_000, 400_000) * 2) as f64 / 1e6;
        let effective_at = self.world.now + self.rng.between(100, 2_500);
        let more = format!(r#""effective_at":{effective_at}"#);
        let left = rectangle("l", -1.0, 0.0, border, 1.0, &more);
        let right = rectangle("r", border, 0.0, 1.0, 1.0, &more);
        for (partition, id, zone) in [(0, "l", left), (1, "r", right)] {
            let delay = self.delay();
            self.world.write_zone(partition, id, Some(&zone), delay);
        }
    }

    /// Any change of one of a few other zones, which overlap the jigsaw.
    fn write_other(&mut self) {
        let number = self.rng.below(4);
        let (partition, id) = (number as usize % ZONE_PARTITIONS, format!("x{number}"));
        let delay = self.delay();
        if self.rng.chance(0.2) {
            return self.world.write_zone(partition, &id, None, delay);
        }
        let now = self.world.now;
        let mut more = Vec::new();
        if self.rng.chance(0.5) {
            let at = now + self.rng.between(-1_000, 2_500);
            more.push(format!(r#""effective_at":{at}"#));
        }
        if self.rng.chance(0.3) {
            let at = now + self.rng.between(-500, 4_000);
            more.push(format!(r#""expires_at":{at}"#));
        }
        let west = self.rng.between(-9, 0) as f64 / 10.0;
        let zone = rectangle(&id, west, 0.0, west + 0.7, 1.0, &more.join(","));
        if self.rng.chance(0.15) {
            self.transactions += 1;
            let number = self.transactions;
            let stamp = now + self.world.broker_ahead[partition];
            let log = &mut self.world.zones[partition];
            let offset = log.append_in(
                number,
                stamp,
                now + delay,
                Some(id.as_bytes()),
                Some(zone.as_bytes()),
            );
            let change = change(partition as i32, offset, stamp, &id, Some(&zone));
            self.open.push((number, partition, vec![change]));
        } else {
            self.world.write_zone(partition, &id, Some(&zone), delay);
        }
    }

    fn end_transaction(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let pick = self.rng.below(self.open.len() as u64) as usize;
        let (number, partition, changes) = self.open.swap_remove(pick);
        let is_committed = self.rng.chance(0.7);
        let readable_at = self.world.now + self.rng.between(0, 50);
        self.world.zones[partition].end_transaction(number, is_committed, readable_at);
        if is_committed {
            self.world.truth.changes.extend(changes);
        }
    }

    fn write_events(&mut self) {
        for _ in 0..self.rng.below(4) {
            let place = self.place();
            let partition = self.rng.below(TELEMETRY_PARTITIONS as u64) as usize;
            let age = if self.rng.chance(0.1) {
                self.rng.between(-400, 4_000)
            } else {
                self.rng.between(0, 300)
            };
            let time = self.world.now - age;
            self.world
                .write_event(partition, time, place.lon, place.lat);
        }
    }

    fn step_clock(&mut self) {
        // Not for longer than a minute: then a step forward is believed, as it must be.
        if self.world.now < self.wall_wrong_until {
            return;
        }
        self.world.wall_ahead = self.rng.between(-60, 60);
        if self.rng.chance(0.02) {
            let hours = [-7_200_000, 7_200_000, 3_600_000, -500][self.rng.below(4) as usize];
            self.world.wall_ahead = hours;
            self.wall_wrong_until = self.world.now + self.rng.between(200, 8_000);
        }
    }

    fn ask(&mut self) {
        // As the edge: a broker has one round open at a time.
        if !self.rounds.is_empty() {
            return;
        }
        let mut round = self.world.ask();
        if self.defect == Some(Defect::PromotedTooEarly) {
            for (_, answer) in &mut round.answers {
                answer.max_timestamp = MaxTimestamp::Unsupported;
            }
        }
        // A broker that does not answer this time.
        if self.rng.chance(0.1) {
            let silent = self.rng.below(ZONE_PARTITIONS as u64) as usize;
            round.answers.remove(silent);
        }
        self.rounds.push(round);
    }

    fn build(&mut self) {
        let Some(build) = self.world.builds.front() else {
            return;
        };
        // Not three times in a row: the third would refuse a change that the truth has.
        if !self.has_failed_build && self.rng.chance(0.1) {
            let number = build.number;
            self.has_failed_build = true;
            self.world.builds.pop_front();
            let failure = BuildFailure {
                zone: None,
                detail: "as the simulation wants it".into(),
            };
            self.world.tell(GateInput::Built(number, Err(failure)));
        } else {
            self.has_failed_build = false;
            self.world.build_one();
        }
    }

    fn acknowledge(&mut self) {
        let Some(worker) = &mut self.world.worker else {
            return;
        };
        while !worker.unacked.is_empty() && self.rng.chance(0.8) {
            let pick = self.rng.below(worker.unacked.len() as u64) as usize;
            let token = worker.unacked[pick];
            let source = worker.written.iter().rev().find(|out| out.token == token);
            self.acknowledged
                .insert(source.expect("what is in flight was written").source);
            worker.ack(token, AckResult::Delivered);
        }
    }

    fn commit(&mut self) -> Verdict {
        if self.world.worker.is_none() {
            return Ok(());
        }
        self.world.commit();
        let mut committed = self.world.committed.clone();
        if self.defect == Some(Defect::CommitPastAcknowledged)
            && let Some(offset) = committed.get_mut(&0)
        {
            *offset += 1;
        }
        self.check_committed(&committed)
    }

    fn check_committed(&self, committed: &BTreeMap<i32, i64>) -> Verdict {
        for (partition, end) in committed {
            for offset in 0..*end {
                let position = RecordPosition::new(*partition, offset);
                expect(self.acknowledged.contains(&position), || {
                    format!("I6: {partition} is committed to {end}, {offset} is not acknowledged")
                })?;
            }
        }
        Ok(())
    }

    fn join(&mut self, partitions: &[i32]) {
        for partition in partitions {
            let committed = self.world.committed.get(partition).copied().unwrap_or(0);
            self.next.insert(*partition, committed);
        }
        if self.world.worker.is_some() {
            self.world.assign(partitions);
        } else {
            self.seen = 0;
            self.world.start_worker(partitions);
        }
    }

    /// A partition goes to nobody for a moment, and comes back.
    fn rebalance(&mut self) -> Verdict {
        let partition = self.rng.below(TELEMETRY_PARTITIONS as u64) as i32;
        self.check_outputs()?;
        let Some(worker) = &mut self.world.worker else {
            return Ok(());
        };
        for (partition, offset) in worker.revoke(&[partition]) {
            let before = self.world.committed.insert(partition.0, offset.0);
            expect(before <= Some(offset.0), || {
                "I6: a commit went back".to_owned()
            })?;
        }
        self.check_committed(&self.world.committed)?;
        self.join(&[partition]);
        Ok(())
    }

    fn act(&mut self) -> Verdict {
        self.step_clock();
        let action = self.rng.below(100);
        self.last_action = action;
        match action {
            0..4 => self.move_border(),
            4..14 => self.write_other(),
            14..18 => self.end_transaction(),
            18..40 => {
                let partition = self.rng.below(ZONE_PARTITIONS as u64) as usize;
                let max = self.rng.between(1, 6) as usize;
                self.world.read_zones(partition, max);
            }
            40..52 => self.ask(),
            52..66 if !self.rounds.is_empty() => {
                let round = self.rounds.remove(0);
                self.world.answer(round);
            }
            66..74 => self.build(),
            74..82 => self.acknowledge(),
            82..87 => self.commit()?,
            87 => self.rebalance()?,
            88 => {
                let before = self.world.now - COMPACTION_LAG;
                let now = self.world.now;
                for log in &mut self.world.zones {
                    log.compact(before + log_clock_slack(), i64::MIN, now);
                }
            }
            89 if self.world.worker.is_some() && self.rng.chance(0.3) => {
                self.check_outputs()?;
                self.tally.crashes += 1;
                self.world.crash();
            }
            90 if self.world.now >= self.wall_wrong_until && self.rng.chance(0.3) => {
                self.check_outputs()?;
                self.tally.restarts += 1;
                self.world.wall_ahead = 0;
                self.rounds.clear();
                self.world.restart();
                (self.as_of, self.last_epoch) = (None, 0);
            }
            _ => self.write_events(),
        }
        if self.world.worker.is_some() {
            let partition = self.rng.below(TELEMETRY_PARTITIONS as u64) as i32;
            self.world.work(partition, 5);
            self.world.turn();
        } else if self.world.bootstrapped && self.rng.chance(0.2) {
            self.join(&[0, 1]);
        }
        let millis = self.rng.between(0, 40);
        self.world.advance(millis);
        self.check()
    }

    fn check(&mut self) -> Verdict {
        expect(self.world.stopped.is_none(), || {
            format!("stopped: {:?}", self.world.stopped)
        })?;
        let status = self.world.gate.status();
        expect(status.staged <= 64, || {
            format!("I7: {} staged", status.staged)
        })?;
        expect(
            status.counters.violations as usize >= self.world.late_changes.len().min(1),
            || "I16: a late change is not counted".to_owned(),
        )?;
        expect(self.world.late_changes.is_empty(), || {
            format!("a change came too late: {:?}", self.world.late_changes)
        })?;
        self.check_snapshot()?;
        self.check_outputs()?;
        self.floor = self.current_floor();
        Ok(())
    }

    fn current_floor(&self) -> EventTime {
        self.world
            .snapshot()
            .map_or(EventTime::MIN, |snapshot| snapshot.floor)
    }

    fn check_snapshot(&mut self) -> Verdict {
        let Some(snapshot) = self.world.snapshot() else {
            return expect(self.world.worker.is_none(), || {
                "I14: telemetry too early".to_owned()
            });
        };
        expect(self.as_of <= Some(snapshot.as_of), || {
            "I1: as_of went back".to_owned()
        })?;
        let epoch = snapshot.epoch.0;
        expect(epoch - self.last_epoch <= 8, || {
            format!("I3: epoch {epoch}")
        })?;
        (self.as_of, self.last_epoch) = (Some(snapshot.as_of), epoch);
        self.tally.epochs = self.tally.epochs.max(epoch);
        if snapshot.floor > snapshot.as_of {
            return Ok(());
        }
        let (floor, as_of) = (snapshot.floor.millis(), snapshot.as_of.millis());
        for _ in 0..3 {
            let recent = self.rng.between(floor.max(as_of - 200), as_of);
            let any = self.rng.between(floor, as_of);
            for at in [recent, any, as_of] {
                let place = self.place();
                let found = snapshot.index.zones_at(place, t(at));
                let found: Vec<_> = found.iter().map(|found| found.zone().id.clone()).collect();
                let truth = self.world.truth.at(place, t(at));
                let truth: Vec<_> = truth.iter().map(|zone| zone.id.clone()).collect();
                expect(found == truth, || {
                    format!(
                        "I2 at {} (floor {}, as_of {}): {found:?}, not {truth:?}",
                        at - START,
                        floor - START,
                        as_of - START
                    )
                })?;
            }
        }
        Ok(())
    }

    /// The worker's new outputs, with the planted defect done to them.
    fn new_outputs(&mut self) -> Vec<Written> {
        let Some(worker) = &self.world.worker else {
            return Vec::new();
        };
        let mut outputs = worker.written[self.seen..].to_vec();
        self.seen = worker.written.len();
        if self.seen < 20 || outputs.is_empty() {
            return outputs;
        }
        match self.defect {
            Some(Defect::Lost) => drop(outputs.remove(0)),
            Some(Defect::Doubled) => outputs.insert(0, outputs[0].clone()),
            Some(Defect::Swapped) => {
                for at in 1..outputs.len() {
                    if outputs[at].source.partition == outputs[at - 1].source.partition {
                        outputs.swap(at - 1, at);
                        break;
                    }
                }
            }
            Some(Defect::WrongZone) => {
                let text = outputs[0]
                    .text()
                    .replace(r#""l""#, r#""m""#)
                    .replace(r#""r""#, r#""l""#);
                outputs[0].value = Some(text.into_bytes());
            }
            _ => {}
        }
        outputs
    }

    fn check_outputs(&mut self) -> Verdict {
        for out in self.new_outputs() {
            let RecordPosition { partition, offset } = out.source;
            let next = self.next.entry(partition.0).or_default();
            expect(offset == Offset(*next), || {
                format!(
                    "I5, I8: output of {} after that of {next} was due",
                    out.source
                )
            })?;
            *next = offset.next().0;
            self.tally.outputs += 1;
            self.check_value(&out)?;
        }
        Ok(())
    }

    fn check_value(&mut self, out: &Written) -> Verdict {
        let flags = out.flags();
        // The floor of a compacted topic may lie above as_of: no answer is promised there.
        let at: i64 = out.header(headers::AT).expect("enriched").parse().unwrap();
        if t(at) < self.floor.max(self.current_floor()) {
            let is_said =
                flags.has(Flag::Late) || flags.has(Flag::Unsettled) || flags.has(Flag::Degraded);
            return expect(is_said, || format!("I10: {} below the floor", out.source));
        }
        let value: serde_json::Value = serde_json::from_str(out.text()).unwrap();
        let place = Position {
            lon: value["lon"].as_f64().unwrap(),
            lat: value["lat"].as_f64().unwrap(),
        };
        let zones = zones_of(out);
        let truth = self.world.expected_zones(place, out);
        expect(zones == truth, || {
            format!(
                "I10: {} at {:?}: {zones:?}, not {truth:?}",
                out.source, out.headers
            )
        })?;
        let halves = zones.iter().filter(|id| *id == "l" || *id == "r").count();
        // The first two are in force by then.
        expect(halves == 1 || at < START + 2_500, || {
            format!("the jigsaw: {} in {zones:?}", out.source)
        })?;
        if flags.is_empty() {
            self.tally.unflagged += 1;
            let value = out.value.clone().unwrap_or_default();
            let first = self
                .values
                .entry(out.source)
                .or_insert_with(|| value.clone());
            expect(*first == value, || {
                format!("I10: {} has two values", out.source)
            })?;
        }
        Ok(())
    }
}

/// Compaction goes by the brokers' stamps, which may be behind true time: no record goes before its lag is over.
fn log_clock_slack() -> i64 {
    -60
}

fn run(seed: u64, defect: Option<Defect>) -> Result<Tally, String> {
    let mut simulation = Simulation::new(seed, defect);
    let log = std::env::var_os("RINGFENCE_SIMULATION_LOG").is_some();
    simulation.move_border();
    let zone = rectangle("x2", -0.5, 0.0, 0.5, 1.0, "");
    simulation.world.write_zone(2, "x2", Some(&zone), 0);
    simulation.world.advance(3_000);
    for step in 0..STEPS {
        let verdict = simulation.act();
        if log {
            let status = simulation.world.gate.status();
            println!(
                "seed {seed} step {step} action {} now {} as_of {:?} staged {} epoch {} outputs {}",
                simulation.last_action,
                simulation.world.now - START,
                status.as_of.map(|at| at.millis() - START),
                status.staged,
                status.epoch,
                simulation.tally.outputs
            );
        }
        verdict.map_err(|wrong| format!("seed {seed} step {step}: {wrong}"))?;
    }
    Ok(simulation.tally)
}

fn seeds() -> Vec<u64> {
    if let Ok(seed) = std::env::var("RINGFENCE_SEED") {
        return vec![seed.parse().expect("a number")];
    }
    let random = std::collections::hash_map::RandomState::new();
    let random = std::hash::BuildHasher::hash_one(&random, 0);
    (1..=8)
        .chain((0..3).map(|more| random.wrapping_add(more)))
        .collect()
}

#[test]
fn core_keeps_its_invariants_and_the_jigsaw_under_every_seed() {
    let mut total = Tally::default();
    for seed in seeds() {
        println!("seed {seed}");
        let tally = run(seed, None).unwrap_or_else(|wrong| panic!("{wrong}"));
        total.outputs += tally.outputs;
        total.unflagged += tally.unflagged;
        total.epochs += tally.epochs;
        total.crashes += tally.crashes;
        total.restarts += tally.restarts;
    }
    println!("{total:?}");
    // A simulation in which nothing happens proves nothing.
    assert!(total.outputs > 1_000 && total.unflagged > 500, "{total:?}");
    assert!(
        total.epochs > 100 && total.crashes > 3 && total.restarts > 3,
        "{total:?}"
    );
}

#[test]
fn planted_defects_are_each_caught() {
    for (defect, sign) in [
        (Defect::Lost, "I5"),
        (Defect::Doubled, "I5"),
        (Defect::Swapped, "I8"),
        (Defect::WrongZone, "I10"),
        (Defect::PromotedTooEarly, "I2"),
        (Defect::CommitPastAcknowledged, "I6"),
    ] {
        let caught = (1..=12).find_map(|seed| run(seed, Some(defect)).err());
        println!("{defect:?}: {caught:?}");
        let caught = caught.unwrap_or_else(|| panic!("{defect:?} was not caught"));
        assert!(
            caught.contains(sign)
                || (defect == Defect::PromotedTooEarly && caught.contains("too late")),
            "{defect:?} was taken for something else: {caught}"
        );
    }
}
