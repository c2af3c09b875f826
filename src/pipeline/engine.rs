//! The engine of one worker: records in, outputs and effects out.
//!
//! A record whose partition holds nothing, and which is settled, is matched straight from the borrowed batch: no copy,
//! no allocation. One lookup call answers for all events of a batch, from one snapshot (I13). Whatever must wait goes
//! to its partition's hold queue, and everything after it in that partition too (I8).

use std::mem::take;

use crate::codec::headers::{Flag, Flags};
use crate::codec::pointer::Layouts;
use crate::codec::splice::Splice;
use crate::enriched::Token;
use crate::index::Query;
use crate::partition::{Offset, RecordPosition};
use crate::pipeline::at::{Decision, View, decide};
use crate::pipeline::breaker::Breaker;
use crate::pipeline::config::{OnInvalid, PipelineConfig};
use crate::pipeline::counters::Counters;
use crate::pipeline::flow::{FlowControl, PartitionUsage};
use crate::pipeline::hold::{ChunkPool, HeldTask};
use crate::pipeline::ledger::OutputKind;
use crate::pipeline::output::{Sink, Source, WriteRules, Writer};
use crate::pipeline::ownership::{SlotState, Slots};
use crate::pipeline::repair::{Refusal, Repair};
use crate::pipeline::stop::{Stop, StopReason};
use crate::pipeline::suspects::Suspects;
use crate::pipeline::view::{Found, Zones, query};
use crate::rejection::{Rejection, RejectionReason};
use crate::telemetry::RecordRef;
use crate::time::{EventTime, Now};
use crate::zone::ZoneText;

/// Held records are released in batches of this size.
const RELEASE_BATCH: usize = 1_024;
/// At most so many batches in one call, so that polling goes on (I9).
const RELEASE_BATCHES: usize = 8;

/// What is to be written of one record.
#[derive(Copy, Clone, Debug)]
enum Task {
    /// The answer to the next query.
    Enrich {
        splice: Splice,
        at: EventTime,
        flags: Flags,
    },
    Forward,
    Late,
    /// Not valid: what is wrong is found out again, as the record's bytes are all that was kept.
    Refuse,
}

/// One record of the batch at hand that gives an output.
#[derive(Copy, Clone, Debug)]
struct Work {
    slot: usize,
    sequence: u64,
    /// Its place in the batch, or in its hold queue.
    place: usize,
    task: Task,
}

/// The telemetry side of one worker (I5 to I8, I13, I15).
#[derive(Debug)]
pub struct Engine<Z: Zones> {
    pub(super) config: PipelineConfig,
    pub(super) slots: Slots,
    pub(super) writer: Writer,
    pub(super) counters: Counters,
    pub(super) control: FlowControl,
    pub(super) held_bytes: usize,
    pub(super) in_flight_bytes: usize,
    pub(super) stop: Option<Stop>,
    /// Outputs that the broker refused, to be sent as dead letters.
    pub(super) refused: Vec<(Token, Refusal)>,
    pub(super) repair: Repair,
    pub(super) usages: Vec<PartitionUsage>,
    /// Records among which one is that the broker refuses (`exactly_once`).
    pub(super) suspects: Suspects,
    pub(super) breaker: Breaker,
    /// How the last records were laid out.
    layouts: Layouts,
    pool: ChunkPool,
    work: Vec<Work>,
    queries: Vec<Query>,
    hits: Z::Hits,
    /// Between batches empty.
    found: Found<'static>,
    /// The slot that releases first next time, so that none is starved.
    turn_of: usize,
}

impl<Z: Zones> Engine<Z> {
    /// An engine that owns no partition yet.
    #[must_use]
    pub fn new(config: PipelineConfig) -> Self {
        let rules = WriteRules {
            headers: config.headers,
            telemetry_topic: config.telemetry_topic.clone(),
            partitioning: config.partitioning,
            enriched_max_bytes: config.enriched_max_bytes,
            dead_letter_max_bytes: config.dead_letter_max_bytes.unwrap_or(0),
            keep_originals: config.one_by_one,
        };
        Self {
            breaker: Breaker::new(config.breaker_in_force()),
            slots: Slots::default(),
            writer: Writer::new(rules),
            counters: Counters::default(),
            control: FlowControl::new(config.limits),
            held_bytes: 0,
            in_flight_bytes: 0,
            stop: None,
            refused: Vec::new(),
            repair: Repair::new(config.one_by_one),
            usages: Vec::new(),
            suspects: Suspects::default(),
            layouts: Layouts::default(),
            pool: ChunkPool::default(),
            work: Vec::new(),
            queries: Vec::new(),
            hits: Z::Hits::default(),
            found: Found::new(config.fields.with_properties()),
            turn_of: 0,
            config,
        }
    }

    /// Takes in a batch: in offset order within each partition, of whatever partitions.
    ///
    /// Records of partitions that are not owned, and records that were read before, are counted and ignored. After a
    /// [`Stop`] nothing more is taken in. It is for the caller to stay within [`Flow::take`](super::Flow): a batch
    /// beyond it is taken in all the same, as a record must not be lost (FS-02).
    pub fn ingest(
        &mut self,
        batch: &[RecordRef<'_>],
        snapshot: &Z,
        now: Now,
        sink: &mut impl Sink,
    ) {
        // What is settled by now goes first, or the batch would queue up behind it.
        self.release(snapshot, now, sink);
        self.work.clear();
        self.queries.clear();
        let view = snapshot.view();
        for (place, record) in batch.iter().enumerate() {
            if self.stop.is_some() {
                break;
            }
            self.read(place, record, view, now, sink);
        }
        let (work, mut hits) = (take(&mut self.work), take(&mut self.hits));
        let found = take(&mut self.found).ask(snapshot, &self.queries, &mut hits);
        let mut answers = (0..).map(|query| found.of(query));
        for item in &work {
            let record = &batch[item.place];
            let source = Source::of(record);
            self.write(item, &source, &mut answers, view.as_of, now, sink);
        }
        self.found = found.emptied();
        (self.work, self.hits) = (work, hits);
        self.counters.assert_sum();
    }

    /// One turn of the worker's loop: what has been settled, or has waited for long enough, leaves the hold queues; what
    /// the broker refused is dead-lettered.
    pub fn turn(&mut self, snapshot: &Z, now: Now, sink: &mut impl Sink) {
        self.resend_refused(now, sink);
        self.release(snapshot, now, sink);
        self.counters.assert_sum();
    }

    fn read(
        &mut self,
        place: usize,
        record: &RecordRef<'_>,
        view: View,
        now: Now,
        sink: &mut impl Sink,
    ) {
        let owned = self.slots.find(record.partition);
        let Some(slot) = owned.filter(|slot| self.slots[*slot].state == SlotState::Owned) else {
            self.counters.unowned += 1;
            return;
        };
        if self.slots[slot]
            .last_read
            .is_some_and(|last| record.offset <= last)
        {
            self.counters.repeated += 1;
            return;
        }
        // What is released before a batch may fill what the batch was allowed: then even settled records are held.
        let is_direct = self.slots[slot].hold.is_empty()
            && !self.is_in_flight_full()
            && !self.suspects.must_wait(record.partition, record.offset);
        let partition = record.partition;
        let (fields, layouts) = (&self.config.fields, &mut self.layouts);
        match fields.decode_by(layouts, record.value, record.timestamp) {
            Ok(decoded) => {
                let (event, splice) = (decoded.event, decoded.splice);
                let rules = &self.config.at;
                match decide(rules, event.time, record.timestamp, now.mono, view, now) {
                    Decision::Late
                        if is_direct && self.breaker.admits(partition, false, now.mono) =>
                    {
                        self.refuse(slot, record, &late(), now, sink);
                    }
                    Decision::Match { at, flags }
                        if is_direct && self.breaker.admits(partition, false, now.mono) =>
                    {
                        self.enter(
                            slot,
                            place,
                            record.offset,
                            Task::Enrich { splice, at, flags },
                        );
                        self.queries.push(query(&event, at));
                    }
                    Decision::Late | Decision::Match { .. } | Decision::Wait => {
                        self.hold(slot, record, now, HeldTask::Match(event, splice));
                    }
                }
            }
            Err(rejection) => {
                self.read_invalid(slot, place, record, &rejection, is_direct, now, sink);
            }
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one arm of `read`, apart for its length"
    )]
    fn read_invalid(
        &mut self,
        slot: usize,
        place: usize,
        record: &RecordRef<'_>,
        rejection: &Rejection,
        is_direct: bool,
        now: Now,
        sink: &mut impl Sink,
    ) {
        match self.config.on_invalid {
            // Behind held records it waits as they do: their partition's commits cannot pass them, so it would be
            // written twice after a restart (and, within transactions, be seen twice).
            OnInvalid::DeadLetter if self.config.dead_letter_max_bytes.is_some() => {
                self.breaker.met(record.partition, rejection.reason);
                if is_direct && self.breaker.admits(record.partition, true, now.mono) {
                    self.refuse(slot, record, rejection, now, sink);
                } else {
                    self.hold(slot, record, now, HeldTask::Refuse);
                }
            }
            OnInvalid::DeadLetter => self.refuse(slot, record, rejection, now, sink),
            OnInvalid::Forward if is_direct => {
                self.enter(slot, place, record.offset, Task::Forward);
            }
            OnInvalid::Forward => self.hold(slot, record, now, HeldTask::Forward),
            OnInvalid::Drop => {
                let sequence = self.take_in(slot, record.offset);
                self.slots[slot].ledger.dropped(sequence);
                self.counters.dropped(rejection.reason);
            }
        }
    }

    fn is_in_flight_full(&self) -> bool {
        let limits = self.control.limits();
        self.counters.in_flight as usize >= limits.in_flight_max
            || self.in_flight_bytes >= limits.in_flight_max_bytes
    }

    fn take_in(&mut self, slot: usize, offset: Offset) -> u64 {
        let slot = &mut self.slots[slot];
        slot.last_read = Some(offset);
        self.counters.consumed += 1;
        slot.ledger.read(offset)
    }

    fn enter(&mut self, slot: usize, place: usize, offset: Offset, task: Task) {
        let sequence = self.take_in(slot, offset);
        self.counters.in_flight += 1;
        self.work.push(Work {
            slot,
            sequence,
            place,
            task,
        });
    }

    fn hold(&mut self, slot: usize, record: &RecordRef<'_>, now: Now, task: HeldTask) {
        let sequence = self.take_in(slot, record.offset);
        let hold = &mut self.slots[slot].hold;
        self.held_bytes += hold.push(record, sequence, now.mono, task, &mut self.pool);
        self.counters.held += 1;
    }

    /// Dead-letters a record that was not taken in yet; without a dead-letter topic it never is.
    fn refuse(
        &mut self,
        slot: usize,
        record: &RecordRef<'_>,
        rejection: &Rejection,
        now: Now,
        sink: &mut impl Sink,
    ) {
        let source = Source::of(record);
        if self.config.dead_letter_max_bytes.is_none() {
            self.stop(
                StopReason::NoDeadLetterTopic(rejection.clone()),
                source.position,
            );
            return;
        }
        let sequence = self.take_in(slot, record.offset);
        self.counters.in_flight += 1;
        self.dead_letter(slot, sequence, &source, rejection, now, sink);
    }

    fn dead_letter(
        &mut self,
        slot: usize,
        sequence: u64,
        source: &Source<'_>,
        rejection: &Rejection,
        now: Now,
        sink: &mut impl Sink,
    ) {
        if self.config.dead_letter_max_bytes.is_none() {
            self.give_up(slot, sequence);
            self.stop(
                StopReason::NoDeadLetterTopic(rejection.clone()),
                source.position,
            );
            return;
        }
        let token = Token::new(slot, self.slots[slot].epoch, sequence);
        let bytes = self
            .writer
            .dead_letter(source, token, rejection, now.wall, sink);
        self.sent(
            slot,
            sequence,
            OutputKind::DeadLetter(rejection.reason),
            bytes,
        );
    }

    pub(super) fn sent(&mut self, slot: usize, sequence: u64, kind: OutputKind, bytes: usize) {
        self.slots[slot].ledger.sent(sequence, kind, bytes);
        self.in_flight_bytes += bytes;
    }

    /// Writes the output of one record, which takes its answer if it has one.
    fn write<'f>(
        &mut self,
        item: &Work,
        source: &Source<'_>,
        answers: &mut impl Iterator<Item = &'f [ZoneText<'f>]>,
        as_of: EventTime,
        now: Now,
        sink: &mut impl Sink,
    ) {
        let position = source.position;
        if let Some(refusal) = self.suspects.condemned(position.partition, position.offset) {
            if let Task::Enrich { .. } = item.task {
                answers.next();
            }
            let rejection = refusal.rejection();
            return self.dead_letter(item.slot, item.sequence, source, &rejection, now, sink);
        }
        let (matched, flags) = match &item.task {
            Task::Late => {
                return self.dead_letter(item.slot, item.sequence, source, &late(), now, sink);
            }
            Task::Refuse => {
                let decoded = self.config.fields.decode(source.value, source.timestamp);
                let rejection = decoded.expect_err("decoding depends on the record alone");
                return self.dead_letter(item.slot, item.sequence, source, &rejection, now, sink);
            }
            Task::Forward => (None, Flags::NONE.with(Flag::Invalid)),
            Task::Enrich { splice, at, flags } => {
                assert!(*at <= as_of, "I15: nothing is matched above as_of");
                let zones = answers.next().expect("each query has an answer");
                let value = source.value.expect("an event was decoded from a value");
                self.config.fields.splice(
                    value,
                    splice,
                    zones.iter().copied(),
                    &mut self.writer.value,
                );
                (Some((*at, as_of)), *flags)
            }
        };
        let token = Token::new(item.slot, self.slots[item.slot].epoch, item.sequence);
        match self
            .writer
            .output(source, token, matched, flags, now.wall, sink)
        {
            Ok(bytes) => {
                let kind = if matched.is_some() {
                    OutputKind::Enriched
                } else {
                    OutputKind::Forwarded
                };
                self.counters.flag(flags);
                self.sent(item.slot, item.sequence, kind, bytes);
            }
            Err(outgrown) => {
                let rejection = outgrown.rejection(self.config.enriched_max_bytes);
                self.dead_letter(item.slot, item.sequence, source, &rejection, now, sink);
            }
        }
    }

    /// Lets go of what need not wait any longer, from the front of each queue, as far as the bounds in flight allow.
    fn release(&mut self, snapshot: &Z, now: Now, sink: &mut impl Sink) {
        for _ in 0..RELEASE_BATCHES {
            if self.counters.held == 0 || self.stop.is_some() || self.repair.is_closed() {
                return;
            }
            self.gather_released(snapshot.view(), now);
            if self.work.is_empty() {
                return;
            }
            let mut hits = take(&mut self.hits);
            let found = take(&mut self.found).ask(snapshot, &self.queries, &mut hits);
            self.write_released(&found, snapshot.view().as_of, now, sink);
            self.found = found.emptied();
            self.hits = hits;
        }
    }

    fn gather_released(&mut self, view: View, now: Now) {
        self.work.clear();
        self.queries.clear();
        let limits = self.control.limits();
        let mut room = limits
            .in_flight_max
            .saturating_sub(self.counters.in_flight as usize);
        let mut room_bytes = limits
            .in_flight_max_bytes
            .saturating_sub(self.in_flight_bytes);
        let count = self.slots.len();
        for slot in (0..count).map(|at| (at + self.turn_of) % count) {
            let hold = &self.slots[slot].hold;
            let mut place = 0;
            let partition = self.slots[slot].partition;
            while let Some(held) = hold.get(place) {
                if self.suspects.must_wait(partition, held.offset) {
                    break;
                }
                if room == 0 || room_bytes == 0 || self.work.len() == RELEASE_BATCH {
                    self.turn_of = slot;
                    return;
                }
                let task = match held.task {
                    HeldTask::Forward => Task::Forward,
                    HeldTask::Refuse => Task::Refuse,
                    HeldTask::Match(event, splice) => {
                        let rules = &self.config.at;
                        match decide(rules, event.time, held.timestamp, held.read_at, view, now) {
                            Decision::Wait => break,
                            Decision::Late => Task::Late,
                            Decision::Match { at, flags } => Task::Enrich { splice, at, flags },
                        }
                    }
                };
                let is_refused = matches!(task, Task::Refuse);
                if !self.breaker.admits(partition, is_refused, now.mono) {
                    break;
                }
                if let (HeldTask::Match(event, _), Task::Enrich { at, .. }) = (held.task, &task) {
                    self.queries.push(query(&event, *at));
                }
                self.work.push(Work {
                    slot,
                    sequence: held.sequence,
                    place,
                    task,
                });
                room -= 1;
                // One oversized record is always admitted: the room is only asked before it.
                room_bytes = room_bytes.saturating_sub(held.stored_len());
                place += 1;
            }
        }
    }

    fn write_released(
        &mut self,
        found: &Found<'_>,
        as_of: EventTime,
        now: Now,
        sink: &mut impl Sink,
    ) {
        let work = take(&mut self.work);
        let mut answers = (0..).map(|query| found.of(query));
        for of_slot in work.chunk_by(|a, b| a.slot == b.slot) {
            let slot = of_slot[0].slot;
            // The queue lends the bytes while the engine writes: it is put back right after.
            let mut hold = take(&mut self.slots[slot].hold);
            let partition = self.slots[slot].partition;
            for item in of_slot {
                let held = hold.get(item.place).expect("it was just gathered");
                let bytes = hold.bytes_of(held);
                let source = Source {
                    position: RecordPosition {
                        partition,
                        offset: held.offset,
                    },
                    timestamp: held.timestamp,
                    key: bytes.key,
                    value: bytes.value,
                    headers: bytes.headers,
                };
                self.counters.held -= 1;
                self.counters.in_flight += 1;
                self.write(item, &source, &mut answers, as_of, now, sink);
            }
            self.held_bytes -= hold.remove_first(of_slot.len(), &mut self.pool);
            self.slots[slot].hold = hold;
        }
        self.work = work;
    }

    fn resend_refused(&mut self, now: Now, sink: &mut impl Sink) {
        for (token, refusal) in take(&mut self.refused) {
            let Some(slot) = self.slots.of_token(token) else {
                continue;
            };
            let refused = refusal.rejection();
            let (rejection, bytes) = self.writer.resend(token, refused, now.wall, sink);
            let kind = OutputKind::DeadLetter(rejection.reason);
            self.sent(slot, token.sequence(), kind, bytes);
        }
    }

    pub(super) fn stop(&mut self, reason: StopReason, position: RecordPosition) {
        // The first reason is the cause; what follows may be its consequence.
        self.stop.get_or_insert(Stop { reason, position });
    }

    /// Partitions of another count: see [`Partitioning`](super::Partitioning).
    pub fn set_partitioning(&mut self, partitioning: super::Partitioning) {
        self.writer.rules.partitioning = partitioning;
    }
}

fn late() -> Rejection {
    Rejection::new(RejectionReason::Late, "the event is older than the floor")
}
