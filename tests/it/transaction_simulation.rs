//! The seeded simulation of a worker's transactions: engine, cycle and the outputs of the next transaction as the worker
//! wires them, over a broker in memory that acknowledges, refuses, aborts and loses answers, and a group that takes partitions.
//!
//! The record at every offset gives one output, so after every step what a reader of committed records sees of a source
//! partition is exactly the offsets below the committed one, those enriched in order: nothing lost, doubled, or committed apart
//! (FI6, I8).

use std::collections::BTreeMap;
use std::time::Duration;

use ringfence::partition::{Offset, PartitionId, RecordPosition};
use ringfence::pipeline::transaction::{Abort, Cycle, NextOutputs, Step};
use ringfence::pipeline::{
    AckResult, BreakerRules, DeadLetter, Engine, Flow, Limits, Output, PipelineConfig, Refusal,
    Sink, Token,
};
use ringfence::simulate::Rng;
use ringfence::telemetry::{RecordRef, RecordTimestamp};
use ringfence::time::{EventTime, MonoTime, Now};

use crate::support::seeds;
use crate::support::worker::{config, event};
use crate::support::zones::{PlainZones, t};

const START: i64 = 1_700_000_000_000;
const STEPS: usize = 2_000;
const PARTITIONS: i32 = 3;
const IN_FLIGHT_MAX: usize = 60;
const INTERVAL: Duration = Duration::from_millis(100);

/// What is done wrong on purpose: each must be found.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Defect {
    /// Outputs go into the transaction whose offsets were sent.
    IntoTheEndedOne,
    /// What was made for the next transaction outlives the abort of the open one.
    KeptAfterAbort,
    /// And the end of its ownership.
    KeptAfterRevoke,
}

#[derive(Debug, Default)]
struct Tally {
    commits: usize,
    aborts: usize,
    refusals: usize,
    revokes: usize,
    losses: usize,
    crashes: usize,
    /// Outputs that waited for the next transaction and went into it.
    went_ahead: usize,
    /// And that were given up with the open one, or with their ownership.
    given_up: usize,
}

impl Tally {
    fn add(&mut self, more: &Self) {
        self.commits += more.commits;
        self.aborts += more.aborts;
        self.refusals += more.refusals;
        self.revokes += more.revokes;
        self.losses += more.losses;
        self.crashes += more.crashes;
        self.went_ahead += more.went_ahead;
        self.given_up += more.given_up;
    }
}

#[derive(Copy, Clone, Debug)]
struct Sent {
    token: Token,
    source: RecordPosition,
    is_dead_letter: bool,
}

/// What is under way to the broker, in order, and what waits.
#[derive(Default)]
struct Out {
    under_way: Vec<Sent>,
    next: NextOutputs<Sent>,
    waiting: usize,
    is_defect: bool,
}

impl Out {
    fn take(&mut self, sent: Sent) {
        if self.next.is_filled() && !self.is_defect {
            self.waiting += 1;
            self.next.push(sent.token, sent);
        } else {
            self.under_way.push(sent);
        }
    }
}

impl Sink for Out {
    fn enriched(&mut self, output: Output<'_>) {
        self.take(Sent {
            token: output.token,
            source: output.source,
            is_dead_letter: false,
        });
    }

    fn dead_letter(&mut self, letter: DeadLetter<'_>) {
        self.take(Sent {
            token: letter.token,
            source: letter.source,
            is_dead_letter: true,
        });
    }
}

/// What the brokers hold.
#[derive(Default)]
struct Broker {
    open: Vec<Sent>,
    offsets: Vec<(PartitionId, Offset)>,
    /// Of each source partition: enriched records, and dead letters (whose order nobody promises).
    log: BTreeMap<PartitionId, [Vec<i64>; 2]>,
    committed: BTreeMap<PartitionId, i64>,
}

impl Broker {
    fn abort(&mut self) {
        self.open.clear();
        self.offsets.clear();
    }

    fn commit(&mut self) {
        for sent in self.open.drain(..) {
            let topics = self.log.entry(sent.source.partition).or_default();
            topics[usize::from(sent.is_dead_letter)].push(sent.source.offset.0);
        }
        for (partition, offset) in self.offsets.drain(..) {
            self.committed.insert(partition, offset.0);
        }
    }

    fn committed(&self, partition: PartitionId) -> i64 {
        self.committed.get(&partition).copied().unwrap_or(0)
    }

    fn check(&self) -> Result<(), String> {
        for partition in (0..PARTITIONS).map(PartitionId) {
            let committed = self.committed(partition);
            let Some(topics) = self.log.get(&partition) else {
                continue;
            };
            let [enriched, _] = topics;
            if !enriched.is_sorted() {
                return Err(format!("I8: of {partition} out of order: {enriched:?}"));
            }
            let mut all = topics.concat();
            all.sort_unstable();
            if !all.iter().copied().eq(0..committed) {
                let tail = &all[all.len().saturating_sub(8)..];
                return Err(format!(
                    "FI6: {partition}: committed up to {committed}, and of {} outputs the last are {tail:?}",
                    all.len()
                ));
            }
        }
        Ok(())
    }
}

#[derive(Copy, Clone, PartialEq, Eq)]
enum Call {
    Offsets,
    Commit,
}

struct Simulation {
    rng: Rng,
    defect: Option<Defect>,
    broker: Broker,
    engine: Engine<PlainZones>,
    zones: PlainZones,
    now: Now,
    cycle: Cycle,
    out: Out,
    flow: Flow,
    /// Where each partition is read next.
    positions: BTreeMap<PartitionId, i64>,
    /// The end of the open transaction, while it is under way.
    end: Option<(Call, Vec<(PartitionId, Offset)>)>,
    broken: Option<Abort>,
    refused: Vec<(RecordPosition, Refusal)>,
    tally: Tally,
}

fn engine() -> Engine<PlainZones> {
    let limits = Limits {
        in_flight_max: IN_FLIGHT_MAX,
        hold_max: 40,
        ..Limits::default()
    };
    let breaker = BreakerRules {
        percent: 0,
        ..BreakerRules::default()
    };
    Engine::new(PipelineConfig {
        limits,
        breaker,
        ..config()
    })
}

/// Whether the broker refuses the output of this record, and takes its dead letter only.
fn is_bad(source: RecordPosition) -> bool {
    source.offset.0 % 211 == 50 + i64::from(source.partition.0)
}

impl Simulation {
    fn new(seed: u64, defect: Option<Defect>) -> Self {
        let mut all = Self {
            rng: Rng::new(seed),
            defect,
            broker: Broker::default(),
            engine: engine(),
            zones: PlainZones::new(START),
            now: Now {
                mono: MonoTime::from_micros(0),
                wall: EventTime::clamped(START),
            },
            cycle: Cycle::new(INTERVAL),
            out: Out::default(),
            flow: Flow::default(),
            positions: BTreeMap::new(),
            end: None,
            broken: None,
            refused: Vec::new(),
            tally: Tally::default(),
        };
        all.out.is_defect = defect == Some(Defect::IntoTheEndedOne);
        all.assign();
        all
    }

    /// All that are not owned are given to the worker.
    fn assign(&mut self) {
        let owned = self.engine.owned();
        let all = (0..PARTITIONS).map(PartitionId);
        let new: Vec<_> = all.filter(|id| !owned.contains(id)).collect();
        self.engine.assigned(&new);
        self.read_from_committed(&new);
    }

    fn read_from_committed(&mut self, partitions: &[PartitionId]) {
        for partition in partitions {
            let committed = self.broker.committed(*partition);
            self.positions.insert(*partition, committed);
        }
    }

    fn advance(&mut self, millis: i64) {
        let by = Duration::from_millis(millis.unsigned_abs());
        self.now.mono = self.now.mono.plus(by);
        self.now.wall = self.now.wall.plus(by);
    }

    fn read(&mut self, count: usize) {
        self.engine.backpressure(self.now, &mut self.flow);
        let count = count.min(self.flow.take);
        let owned = self.engine.owned();
        if count == 0 || owned.is_empty() {
            return;
        }
        let partition = owned[self.rng.below(owned.len() as u64) as usize];
        let from = self.positions[&partition];
        let values: Vec<String> = (0..count)
            .map(|_| match self.rng.below(10) {
                0 => "invalid".to_owned(),
                // Held until as_of has passed it.
                1 => event(self.zones.view.as_of.millis() + 30, 0.5, 0.5),
                _ => event(START - 1, 0.5, 0.5),
            })
            .collect();
        let records: Vec<_> = values
            .iter()
            .zip(from..)
            .map(|(value, offset)| RecordRef {
                partition,
                offset: Offset(offset),
                timestamp: RecordTimestamp::Missing,
                key: None,
                value: Some(value.as_bytes()),
                headers: &[],
            })
            .collect();
        self.positions.insert(partition, from + count as i64);
        self.engine
            .ingest(&records, &self.zones, self.now, &mut self.out);
    }

    /// The broker answers for one output: the oldest under way of some partition, or a batch of them where it refuses one.
    fn acknowledge(&mut self) {
        if self.out.under_way.is_empty() {
            return;
        }
        let pick = self.rng.below(self.out.under_way.len() as u64) as usize;
        let picked = self.out.under_way[pick];
        let of_partition = |sent: &&Sent| {
            sent.source.partition == picked.source.partition
                && sent.is_dead_letter == picked.is_dead_letter
        };
        let batch: Vec<Sent> = self
            .out
            .under_way
            .iter()
            .filter(of_partition)
            .copied()
            .collect();
        let batch = &batch[..batch.len().min(1 + self.rng.below(8) as usize)];
        let is_refused = batch
            .iter()
            .any(|sent| !sent.is_dead_letter && is_bad(sent.source));
        for sent in batch {
            self.out.under_way.retain(|one| one.token != sent.token);
            let position = self.engine.position(sent.token);
            if !is_refused {
                // Once the client has failed a batch it takes back what is behind it.
                if self.broken.is_none() {
                    self.broker.open.push(*sent);
                    self.engine.acked(sent.token, AckResult::Delivered);
                }
            } else if let Some(position) = position {
                self.refused.push((position, Refusal::TooLarge));
                self.broken = Some(Abort::Narrowing);
            } else {
                self.broken.get_or_insert(Abort::Trouble);
            }
        }
        self.tally.refusals += usize::from(is_refused);
    }

    fn turn(&mut self) {
        if self.broken.is_some() {
            return self.abort();
        }
        let in_flight = self.out.under_way.len();
        let is_advanced = self.engine.is_advanced();
        match self.cycle.step(in_flight, is_advanced, self.now.mono) {
            Step::Rest => return,
            Step::Fill => {}
            Step::FillNext => self.out.next.fill(),
            Step::End => self.begin_end(Vec::new()),
        }
        let count = self.rng.below(12) as usize;
        self.read(count);
        self.engine.turn(&self.zones, self.now, &mut self.out);
    }

    fn begin_end(&mut self, mut commits: Vec<(PartitionId, Offset)>) {
        if self.broken.is_some() {
            return self.abort();
        }
        self.out.next.fill();
        self.engine.take_commits(&mut commits);
        if commits.is_empty() {
            self.cycle.was_empty();
            return self.begin_next();
        }
        self.cycle.ends();
        self.end = Some((Call::Offsets, commits));
    }

    /// The call that is under way is answered, in one way or another.
    fn answer(&mut self) {
        let Some((call, commits)) = self.end.take() else {
            return;
        };
        match (self.rng.below(12), call) {
            // A time-out: the same call again.
            (0..3, call) => self.end = Some((call, commits)),
            // Of an old generation, or of a coordinator that has given up.
            (3, _) => {
                self.broken = Some(Abort::Trouble);
                self.abort();
            }
            (_, Call::Offsets) => {
                self.broker.offsets.clone_from(&commits);
                self.end = Some((Call::Commit, commits));
            }
            (_, Call::Commit) => {
                // A flush of the client's own is part of it.
                let late: Vec<_> = self.out.under_way.drain(..).collect();
                for sent in late {
                    self.broker.open.push(sent);
                    self.engine.acked(sent.token, AckResult::Delivered);
                }
                self.broker.commit();
                self.tally.commits += 1;
                self.engine.transaction_committed(&commits);
                self.cycle.committed();
                self.begin_next();
            }
        }
    }

    fn begin_next(&mut self) {
        let engine = &self.engine;
        let keeps_all = self.defect == Some(Defect::KeptAfterRevoke);
        let begun = self
            .out
            .next
            .begin(|token| keeps_all || engine.position(token).is_some());
        self.tally.went_ahead += begun.len();
        self.tally.given_up += self.out.waiting - begun.len();
        self.out.waiting = 0;
        self.out
            .under_way
            .extend(begun.iter().map(|(_, sent)| *sent));
    }

    fn abort(&mut self) {
        let why = self.broken.take().unwrap_or(Abort::Trouble);
        self.tally.aborts += 1;
        self.end = None;
        self.broker.abort();
        self.out.under_way.clear();
        if self.defect == Some(Defect::KeptAfterAbort) {
            let kept = self.out.next.begin(|_| true);
            self.out
                .under_way
                .extend(kept.iter().map(|(_, sent)| *sent));
        }
        self.out.next.abort();
        self.tally.given_up += std::mem::take(&mut self.out.waiting);
        let refused = std::mem::take(&mut self.refused);
        let owned = self.engine.transaction_aborted(&refused);
        if !self.cycle.aborted(why, self.now.mono) {
            return self.crash();
        }
        self.read_from_committed(&owned);
    }

    /// An event of the group is answered once no transaction is being ended.
    fn finish_end(&mut self) {
        while self.end.is_some() {
            self.answer();
        }
    }

    fn revoke(&mut self) {
        self.finish_end();
        self.tally.revokes += 1;
        let partition = PartitionId(self.rng.below(PARTITIONS as u64) as i32);
        self.engine.revoking(&[partition]);
        let is_drained = self.rng.chance(0.8);
        while is_drained && self.broken.is_none() && !self.out.under_way.is_empty() {
            self.acknowledge();
        }
        let mut commits = Vec::new();
        self.engine.revoked(&[partition], &mut commits);
        if !self.out.under_way.is_empty() {
            self.broken.get_or_insert(Abort::Waiting);
        }
        self.begin_end(commits);
        self.finish_end();
        self.assign();
    }

    fn lose(&mut self) {
        self.finish_end();
        self.tally.losses += 1;
        let partition = PartitionId(self.rng.below(PARTITIONS as u64) as i32);
        self.engine.lost(&[partition]);
        self.abort();
        self.assign();
    }

    /// The process dies; its successor ends what it left open. Of a commit under way nobody knows how it ends.
    fn crash(&mut self) {
        self.tally.crashes += 1;
        if let Some((Call::Commit, _)) = self.end.take()
            && self.rng.chance(0.5)
        {
            self.broker.commit();
        }
        self.broker.abort();
        self.engine = engine();
        self.cycle = Cycle::new(INTERVAL);
        self.out = Out {
            is_defect: self.out.is_defect,
            ..Out::default()
        };
        (self.broken, self.refused) = (None, Vec::new());
        self.assign();
    }

    fn act(&mut self) -> Result<(), String> {
        match self.rng.below(1_000) {
            0..450 => self.turn(),
            450..750 => self.acknowledge(),
            750..900 => self.answer(),
            900..960 => {
                let as_of = self.zones.view.as_of.millis() + self.rng.between(0, 60);
                self.zones.view.as_of = t(as_of);
            }
            960..970 => self.revoke(),
            970..976 => self.lose(),
            976..980 => self.crash(),
            // An output that no broker took in time.
            980..985 if !self.out.under_way.is_empty() => {
                self.broken.get_or_insert(Abort::Waiting);
            }
            _ => {}
        }
        let millis = self.rng.between(0, 12);
        self.advance(millis);
        let in_flight = self.engine.in_flight_count();
        if in_flight > IN_FLIGHT_MAX + 40 {
            return Err(format!("I7: {in_flight} outputs are in flight or wait"));
        }
        self.broker.check()
    }

    /// All faults stop: whatever was read is committed soon after.
    fn finish(&mut self) -> Result<(), String> {
        let goal: BTreeMap<_, _> = self.positions.clone();
        for _ in 0..6_000 {
            self.turn();
            self.acknowledge();
            self.answer();
            self.advance(5);
            let as_of = self.zones.view.as_of.millis() + 5;
            self.zones.view.as_of = t(as_of);
            self.broker.check()?;
            let is_there = |(partition, goal): (&PartitionId, &i64)| {
                self.broker.committed(*partition) >= *goal
            };
            if goal.iter().all(is_there) {
                return Ok(());
            }
        }
        Err(format!("FI6: not committed up to {goal:?}"))
    }
}

fn run(seed: u64, defect: Option<Defect>) -> Result<Tally, String> {
    let mut simulation = Simulation::new(seed, defect);
    for step in 0..STEPS {
        let verdict = simulation.act();
        verdict.map_err(|wrong| format!("seed {seed} step {step}: {wrong}"))?;
    }
    let verdict = simulation.finish();
    verdict.map_err(|wrong| format!("seed {seed} at the end: {wrong}"))?;
    Ok(simulation.tally)
}

#[test]
fn fs_31_fs_35_transactions_lose_and_double_nothing_and_keep_the_order_under_every_seed() {
    let checked = |seed: u64| {
        println!("seed {seed}");
        run(seed, None).unwrap_or_else(|wrong| panic!("{wrong}"))
    };
    if let Some(seed) = seeds::named() {
        println!("{:?}", checked(seed));
        return;
    }
    let mut total = Tally::default();
    for seed in (1..=12).chain(seeds::random()) {
        total.add(&checked(seed));
    }
    println!("{total:?}");
    for happened in [
        total.commits / 10,
        total.aborts,
        total.refusals,
        total.revokes,
        total.losses,
        total.crashes,
        total.went_ahead / 100,
        total.given_up / 10,
    ] {
        assert!(happened > 10, "nothing happened: {total:?}");
    }
}

#[test]
fn planted_defects_of_transactions_are_each_caught() {
    for defect in [
        Defect::IntoTheEndedOne,
        Defect::KeptAfterAbort,
        Defect::KeptAfterRevoke,
    ] {
        let caught = (1..=24).find_map(|seed| run(seed, Some(defect)).err());
        println!("{defect:?}: {caught:?}");
        assert!(caught.is_some(), "{defect:?} was not caught");
    }
}
