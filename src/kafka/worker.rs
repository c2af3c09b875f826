//! A worker: one thread, one member of the group, one engine; from poll to commit (DESIGN 2).
//!
//! ```text
//!   poll the group ─► answer its events ─► acknowledgements ─► backpressure ─► take a batch ─► engine ─► commit
//! ```
//!
//! It owns no decision: what to take, hold, pause and commit is the engine's to say. Nothing here waits for anything
//! but the next batch, but for the bounded drain of a revoke.

mod exactly_once;
mod intake;
mod settings;
mod starts;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use self::intake::MatchDuration;
use super::EdgeError;
use super::client::{Settings, cap_batches};
use super::member::{GroupEvent, Member};
use super::outbox::Outbox;
pub use super::worker_error::WorkerError;
pub use super::worker_window::{WorkerSeen, WorkerWindow};
use crate::clock::{Clock, GuardedTime};
use crate::partition::{Offset, PartitionId};
use crate::pipeline::{Engine, Flow, PauseCause, PipelineConfig, Sending, Zones};
use crate::shutdown::Shutdown;
use crate::time::MonoTime;
pub use exactly_once::ExactlyOnce;
use exactly_once::Transactions;
pub use settings::{StartAt, WorkerSettings};

/// Messages taken at once: enough that a turn costs little beside them (RDKAFKA 7), and so few that what is touched of them
/// three times, when they are read, matched and written, stays in the core's own cache: 1,000 cost a sixth more for each.
const BATCH: usize = 256;
/// How long a turn waits for the first message: acknowledgements, held events and commits are served this often.
const TURN: Duration = Duration::from_millis(5);
/// How long a turn of a drain waits: acknowledgements and the group are served this often.
const DRAIN_TURN: Duration = Duration::from_millis(1);
/// How often finished offsets are handed to the client.
const STORE_EVERY: Duration = Duration::from_millis(20);
/// How long the last commit before partitions are given back is repeated while the group rebalances. It takes a round trip
/// of each member; one that hangs is not waited for.
const REBALANCE_WAIT: Duration = Duration::from_secs(5);
/// How often what is seen from outside is published.
const PUBLISH_EVERY: Duration = Duration::from_millis(100);
/// How long clients may take to close before it is told.
const SLOW_CLOSE: Duration = Duration::from_secs(5);

/// One worker.
pub struct Worker<Z: Zones, L> {
    engine: Engine<Z>,
    member: Member,
    outbox: Outbox,
    load: L,
    kafka: Settings,
    settings: WorkerSettings,
    time: Arc<GuardedTime>,
    window: Arc<WorkerWindow>,
    /// The offset from which each owned partition is read, until something of it can be committed.
    starts: BTreeMap<PartitionId, Offset>,
    /// Owned partitions that the client starts at a bound of their log, of which nothing was read yet: where that is,
    /// their first record tells.
    unstarted: BTreeSet<PartitionId>,
    seen: WorkerSeen,
    transactions: Option<Transactions>,
    flow: Flow,
    commits: Vec<(PartitionId, Offset)>,
    stored_at: MonoTime,
    published_at: MonoTime,
    match_duration: MatchDuration,
}

impl<Z, G, L> Worker<Z, L>
where
    Z: Zones,
    G: Deref<Target = Z>,
    L: Fn() -> G,
{
    /// A worker that has yet to join the group; `load` lends the snapshot of the moment (I13: once per batch).
    ///
    /// # Errors
    /// [`EdgeError::Settings`].
    pub fn new(
        kafka: &Settings,
        settings: WorkerSettings,
        pipeline: PipelineConfig,
        load: L,
        time: Arc<GuardedTime>,
        window: Arc<WorkerWindow>,
    ) -> Result<Self, EdgeError> {
        let kafka = &match &settings.static_member {
            Some(id) => kafka.for_static_member(id),
            None => kafka.clone(),
        };
        let limits = pipeline.limits;
        let (records, bytes) = (limits.in_flight_max, limits.in_flight_max_bytes);
        let mut producer = match &settings.exactly_once {
            Some(once) => kafka.transactional_producer(records, bytes, &once.transactional_id),
            None => kafka.producer(records, bytes),
        };
        let dead_letter_max = pipeline.dead_letter_max_bytes.unwrap_or(usize::MAX);
        cap_batches(
            &mut producer,
            pipeline.enriched_max_bytes.min(dead_letter_max),
        );
        let outbox = Outbox::new(
            &producer,
            &settings.enriched_topic,
            settings.dead_letter_topic.as_deref(),
        )?;
        let member = Member::new(
            kafka,
            &settings.telemetry_topic,
            BATCH,
            settings.commit_by(),
        )?;
        let transactions = settings
            .exactly_once
            .clone()
            .map(|once| Transactions::new(once, settings.commit_interval, &outbox))
            .transpose()?;
        Ok(Self {
            engine: Engine::new(pipeline),
            member,
            outbox,
            load,
            kafka: kafka.clone(),
            settings,
            time,
            window,
            starts: BTreeMap::new(),
            unstarted: BTreeSet::new(),
            seen: WorkerSeen::default(),
            transactions,
            flow: Flow::default(),
            commits: Vec::new(),
            stored_at: Clock::mono(),
            published_at: MonoTime::default(),
            match_duration: MatchDuration::new(),
        })
    }

    /// Turns until `shutdown` is requested, then drains, commits and leaves the group.
    ///
    /// # Errors
    /// Why it ended before; what was acknowledged until then is committed all the same.
    pub fn run(mut self, shutdown: &Shutdown) -> Result<(), WorkerError> {
        let ended = self.turn_to_the_end(shutdown);
        let begun = Clock::mono();
        self.window.end_begins(begun);
        drop(self);
        let took = Clock::mono().since(begun);
        if took > SLOW_CLOSE {
            tracing::info!(seconds = took.as_secs(), "its clients took long to close");
        }
        ended
    }

    fn turn_to_the_end(&mut self, shutdown: &Shutdown) -> Result<(), WorkerError> {
        self.begin_transactions(shutdown)?;
        // Of its two names the producer's comes first, and decides (FS-78).
        if !shutdown.is_requested() {
            self.member.begin()?;
        }
        let ended = loop {
            if shutdown.is_requested() {
                break Ok(());
            }
            if let Err(error) = self.turn() {
                break Err(error);
            }
        };
        let ended = ended.and_then(|()| self.finish_end());
        match ended {
            Err(error) if self.transactions.is_some() => {
                let error = self.unless_stood_still(error);
                Err(self.abandon(error))
            }
            ended => {
                let drained = self.leave();
                ended.and(drained)
            }
        }
    }

    fn turn(&mut self) -> Result<(), WorkerError> {
        let mut events = Vec::new();
        let polled = self.member.poll(&mut events);
        for event in self.group_events(events)? {
            self.answer(event)?;
        }
        polled?;
        self.take_acks()?;
        self.repair()?;
        self.beat();
        let is_taking = self.transact()?;
        self.apply_backpressure();
        if !is_taking {
            self.outbox.wait(DRAIN_TURN);
        } else if self.flow.take > 0 {
            self.ingest()?;
        } else {
            // The member is polled, acknowledgements are taken; only nothing new comes in.
            std::thread::park_timeout(Duration::from_millis(1));
        }
        if is_taking {
            let snapshot = (self.load)();
            self.engine
                .turn(&snapshot, self.time.now(), &mut self.outbox);
        }
        self.tell_breaker_changes();
        if let Some(stop) = self.engine.stopped() {
            return Err(WorkerError::Stopped(stop.clone()));
        }
        let now = Clock::mono();
        if self.transactions.is_none() && now.since(self.stored_at) >= STORE_EVERY {
            self.stored_at = now;
            self.commit();
        }
        if now.since(self.published_at) >= PUBLISH_EVERY {
            self.publish(now);
        }
        Ok(())
    }

    fn beat(&self) {
        self.window
            .beat_micros
            .store(self.time.now().mono.micros(), Ordering::Relaxed);
    }

    fn apply_backpressure(&mut self) {
        self.engine.backpressure(self.time.now(), &mut self.flow);
        self.member.pause(&self.flow.pause);
        self.member.resume(&self.flow.resume);
    }

    /// Sends in batches or one by one, as what was refused demands.
    fn repair(&mut self) -> Result<(), WorkerError> {
        match self.engine.sending() {
            Sending::Batches | Sending::OneByOne => {}
            Sending::Refused => self.send_one_by_one()?,
            Sending::Mended => {
                self.outbox.send_batches()?;
                self.engine.back_to_batches();
                tracing::info!("what was refused is dealt with: outputs are sent in batches again");
            }
        }
        Ok(())
    }

    /// Part of a batch is at fault, and which part is not known: every partition goes back to its oldest unfinished
    /// record, to be sent one by one.
    fn send_one_by_one(&mut self) -> Result<(), WorkerError> {
        tracing::warn!(
            in_flight = self.engine.in_flight_count(),
            "a batch was refused or its producer failed: what is in flight is sent again, one by one"
        );
        self.seen.batches_refused += 1;
        self.commit();
        let owned = self.engine.owned();
        let positions: Vec<_> = owned
            .iter()
            // A partition of which nothing was read goes on as it is.
            .filter_map(|id| Some((*id, self.engine.unfinished_from(*id)?)))
            .collect();
        self.outbox.send_one_by_one()?;
        self.engine.begin_one_by_one();
        self.starts.extend(positions.iter().copied());
        if let Err(error) = self.member.seek(&positions) {
            tracing::warn!(%error, "joining the group anew instead");
            return self.rejoin();
        }
        Ok(())
    }

    /// The oldest record of a partition that is not finished; `None` where nothing was read and nothing is committed.
    fn position(&self, partition: PartitionId) -> Option<Offset> {
        self.engine
            .unfinished_from(partition)
            .or_else(|| self.starts.get(&partition).copied())
    }

    /// Leaves the group and joins it anew, to go on at what is committed.
    ///
    /// A partition whose position was out of range can neither be sought nor be given back and taken again: the client
    /// does not seek what it has stopped reading, and forgets the forwarding to the shared queue some time after it was
    /// given back, so also after it was taken again.
    fn rejoin(&mut self) -> Result<(), WorkerError> {
        let owned = self.engine.owned();
        self.engine.revoking(&owned);
        self.drain(|engine| engine.in_flight_count() == 0)?;
        let mut commits = Vec::new();
        self.engine.revoked(&owned, &mut commits);
        self.commit_and_wait(commits)?;
        self.join_anew()
    }

    /// Joins the group as another member, with nothing of the old one.
    fn join_anew(&mut self) -> Result<(), WorkerError> {
        self.starts.clear();
        self.unstarted.clear();
        if let Some(transactions) = &mut self.transactions {
            // They are of the old member, which answers them itself as it goes.
            transactions.pending.clear();
        }
        self.member = Member::join(
            &self.kafka,
            &self.settings.telemetry_topic,
            BATCH,
            self.settings.commit_by(),
        )?;
        Ok(())
    }

    fn answer(&mut self, event: GroupEvent) -> Result<(), WorkerError> {
        match event {
            GroupEvent::Assigned(partitions) => {
                let starts = match self.starting_offsets(&partitions) {
                    Ok(starts) => starts,
                    Err(error) => {
                        // The client waits for an answer to its event, whatever it is.
                        self.member.assign(&[])?;
                        return Err(error.into());
                    }
                };
                if !partitions.is_empty() {
                    self.seen.assignments += 1;
                    tracing::info!(partitions = %Listed(&partitions), "assigned");
                }
                self.begin(&starts)
            }
            GroupEvent::Revoked(partitions) => {
                self.engine.revoking(&partitions);
                self.drain(|engine| partitions.iter().all(|id| engine.in_flight(*id) == 0))?;
                let mut commits = Vec::new();
                self.engine.revoked(&partitions, &mut commits);
                tracing::debug!(?commits, "commits at a revoke");
                self.commit_and_wait(commits)?;
                self.give_back(&partitions)?;
                tracing::info!(partitions = %Listed(&partitions), "revoked");
                Ok(())
            }
            GroupEvent::Lost(partitions) => {
                self.engine.lost(&partitions);
                self.give_back(&partitions)?;
                if self.transactions.is_some() {
                    // What it wrote of them stands in the same transaction as the rest.
                    self.abort_and_rewind()?;
                }
                tracing::warn!(partitions = %Listed(&partitions), "lost: another member has them already");
                Ok(())
            }
        }
    }

    fn give_back(&mut self, partitions: &[PartitionId]) -> Result<(), WorkerError> {
        for partition in partitions {
            self.starts.remove(partition);
            self.unstarted.remove(partition);
        }
        Ok(self.member.unassign(partitions)?)
    }

    fn take_acks(&mut self) -> Result<(), WorkerError> {
        while let Some((token, result)) = self.outbox.ack() {
            self.take_ack(token, result);
        }
        match self.outbox.take_refusal() {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }

    /// Takes acknowledgements until `done`, for at most `drain_timeout`; within transactions until all that went into the
    /// open one is acknowledged.
    fn drain(&mut self, done: impl Fn(&Engine<Z>) -> bool) -> Result<(), WorkerError> {
        let begun = Clock::mono();
        loop {
            self.take_acks()?;
            self.beat();
            let now = self.time.now();
            if let Some(transactions) = &self.transactions {
                // Nothing more goes into a transaction that is to end, and a broken one has nothing to wait for.
                if transactions.is_broken() {
                    return Ok(());
                }
            } else {
                // What the broker refused as too large goes out as a dead letter meanwhile.
                let snapshot = (self.load)();
                self.engine.turn(&snapshot, now, &mut self.outbox);
            }
            let is_done = match &self.transactions {
                Some(_) => self.outbox.unacknowledged() == 0,
                None => done(&self.engine),
            };
            if is_done {
                return Ok(());
            }
            if self.engine.sending() == Sending::Refused {
                tracing::warn!(
                    in_flight = self.engine.in_flight_count(),
                    "the broker refused a batch: what is in flight is left to the partitions' next owner"
                );
                return Ok(());
            }
            if now.mono.since(begun) >= self.settings.drain_timeout {
                tracing::warn!(
                    in_flight = self.engine.in_flight_count(),
                    "not all output was acknowledged within `shutdown.drain_timeout_ms`; it will be written again"
                );
                return Ok(());
            }
            self.outbox.wait(DRAIN_TURN);
            self.waited_since(now.mono);
        }
    }

    /// Hands what has advanced to the client, which commits it every `commit_interval` until it is committed (I6).
    fn commit(&mut self) {
        self.commits.clear();
        self.engine.take_commits(&mut self.commits);
        if let Err(error) = self.member.store(&self.commits) {
            tracing::debug!(%error, "store");
        }
    }

    /// Commits before partitions are given back; their output is drained, as far as it could be.
    fn commit_and_wait(&mut self, commits: Vec<(PartitionId, Offset)>) -> Result<(), WorkerError> {
        if self.transactions.is_some() {
            return self.end_transaction(commits);
        }
        let begun = Clock::mono();
        while let Err(error) = self.member.commit(&commits) {
            let now = Clock::mono();
            let is_over = self.member.has_lost() || now.since(begun) >= REBALANCE_WAIT;
            if !error.is_rebalancing() || is_over {
                // The partitions' next owner reads a little again: at least once.
                tracing::warn!(%error, "offsets were not committed, some records will be written twice");
                break;
            }
            // The client joins the new generation by itself.
            std::thread::park_timeout(Duration::from_millis(20));
            self.beat();
            self.waited_since(now);
        }
        Ok(())
    }

    fn publish(&mut self, now: MonoTime) {
        self.published_at = now;
        let owned = self.engine.owned();
        self.seen.owned = owned
            .into_iter()
            .map(|id| (id, self.position(id)))
            .collect();
        self.seen.lag = self
            .seen
            .owned
            .iter()
            .filter_map(|(id, position)| {
                let log_end = self.member.known_log_end(*id)?;
                let behind = log_end.0 - (*position)?.0;
                Some((*id, u64::try_from(behind).unwrap_or(0)))
            })
            .collect();
        self.seen.counters = *self.engine.counters();
        self.seen.held_partitions = self.engine.held_partitions();
        self.seen.paused = PauseCause::ALL
            .map(|cause| (cause, self.engine.paused_count(cause)))
            .into();
        self.window.seen.store(Arc::new(self.seen.clone()));
    }

    /// Drains, commits and leaves the group.
    fn leave(&mut self) -> Result<(), WorkerError> {
        self.engine.drain();
        let drained = self.drain(|engine| engine.in_flight_count() == 0);
        let owned = self.engine.owned();
        let commits: Vec<_> = owned
            .iter()
            .filter_map(|id| Some((*id, self.engine.committable(*id)?)))
            .collect();
        // What waits for the next transaction is left to its partitions' next owner: that one would stay open.
        self.outbox.abort_next();
        let committed = self.commit_and_wait(commits);
        let mut rest = Vec::new();
        self.engine.revoked(&owned, &mut rest);
        self.publish(Clock::mono());
        self.outbox.purge();
        drained.and(committed)
    }
}

/// Partition numbers for a log line.
struct Listed<'a>(&'a [PartitionId]);

impl std::fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, partition) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            partition.fmt(f)?;
        }
        Ok(())
    }
}
