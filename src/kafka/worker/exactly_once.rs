//! The worker's transactions (DESIGN 7, KAFKA 1): outputs, dead letters and offsets in one, fenced by the group.
//!
//! Every call blocks for a moment only and is repeated until the coordinator has answered; between two the group is
//! polled and the heart beats. What happened to the group meanwhile waits until the transaction has ended: it is
//! committed or aborted before a partition is given back.

use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::{Worker, WorkerError};
use crate::clock::Clock;
use crate::enriched::Token;
use crate::kafka::EdgeError;
use crate::kafka::member::{GroupEvent, Start};
use crate::kafka::transaction::{Call, Cure, cure};
use crate::partition::{Offset, PartitionId, RecordPosition};
use crate::pipeline::transaction::{Cycle, StandStill, Step};
use crate::pipeline::{AckResult, Refusal, Zones};
use crate::shutdown::Shutdown;
use crate::time::MonoTime;

/// `exactly_once`, as a worker is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExactlyOnce {
    /// Stable over restarts and no other worker's: the next producer of this name ends what its predecessor left open.
    pub transactional_id: String,
    /// After so long the coordinator aborts an open transaction by itself.
    pub transaction_timeout: Duration,
    /// After so long the group gives a silent member's partitions to others.
    pub session_timeout: Duration,
}

/// The transactions of a worker.
pub(super) struct Transactions {
    settings: ExactlyOnce,
    cycle: Cycle,
    /// Whether the client has one begun; the coordinator hears of it with the first output.
    is_begun: bool,
    /// Why the open one cannot be committed, if so.
    broken: Option<String>,
    /// Records of it whose outputs a broker refused.
    refused: Vec<(RecordPosition, Refusal)>,
    /// What happened to the group while a call was repeated.
    pub(super) pending: Vec<GroupEvent>,
    stand_still: StandStill,
}

impl Transactions {
    pub(super) fn new(settings: ExactlyOnce, interval: Duration) -> Self {
        let stand_still = StandStill::new(settings.session_timeout, Clock::mono());
        Self {
            settings,
            cycle: Cycle::new(interval),
            is_begun: false,
            broken: None,
            refused: Vec::new(),
            pending: Vec::new(),
            stand_still,
        }
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// An output of the open transaction was not delivered.
    pub(super) fn failed(&mut self, position: RecordPosition, result: AckResult) {
        if let AckResult::Refused(refusal) = result {
            self.refused.push((position, refusal));
        }
        self.broken
            .get_or_insert_with(|| format!("the output of {position} was not delivered"));
    }
}

/// How a call ended that the client let us finish.
enum Ended {
    Done,
    /// The transaction is to be aborted.
    MustAbort(KafkaError),
}

impl<Z, G, L> Worker<Z, L>
where
    Z: Zones,
    G: std::ops::Deref<Target = Z>,
    L: Fn() -> G,
{
    /// Registers the producer: whatever its predecessor of this name left open is ended by it.
    pub(super) fn begin_transactions(&mut self, shutdown: &Shutdown) -> Result<(), WorkerError> {
        if self.transactions.is_none() {
            return Ok(());
        }
        loop {
            match self.call_once(&Call::Init) {
                Ok(()) => return self.begin_transaction(),
                Err(error) if cure(&error) == Cure::Again && !shutdown.is_requested() => {
                    tracing::debug!(%error, "registering the transactional producer");
                }
                Err(_) if shutdown.is_requested() => return Ok(()),
                Err(error) => return Err(self.gave_up(&Call::Init, error)),
            }
        }
    }

    fn call_once(&self, call: &Call<'_>) -> Result<(), KafkaError> {
        call.make(self.outbox.producer())
    }

    fn begin_transaction(&mut self) -> Result<(), WorkerError> {
        if let Err(error) = self.call_once(&Call::Begin) {
            return Err(self.gave_up(&Call::Begin, error));
        }
        self.open().is_begun = true;
        Ok(())
    }

    fn open(&mut self) -> &mut Transactions {
        self.transactions
            .as_mut()
            .expect("only called in `exactly_once`")
    }

    /// Whether records may be taken and outputs sent in this turn, and ends the transaction where its time has come.
    pub(super) fn transact(&mut self) -> Result<bool, WorkerError> {
        if self.transactions.is_none() {
            return Ok(true);
        }
        let now = Clock::mono();
        let is_advanced = self.engine.is_advanced();
        let in_flight = self.engine.in_flight_count();
        let transactions = self.open();
        if let Some(stood_still) = transactions.stand_still.turned(now) {
            // Its partitions are others' and its name may be its successor's: to register it again would fence that one.
            return Err(WorkerError::StoodStill(stood_still));
        }
        if transactions.broken.is_some() {
            self.abort_and_rewind()?;
            return Ok(true);
        }
        match transactions.cycle.step(in_flight, is_advanced, now) {
            Step::Fill => Ok(true),
            Step::Drain => Ok(false),
            Step::Commit => {
                self.commit_transaction(Vec::new())?;
                Ok(true)
            }
        }
    }

    /// Commits what is finished, with `extra` offsets of partitions that are being given back; everything in flight is
    /// acknowledged. Where it cannot be committed it is aborted, and the partitions that stay are rewound.
    pub(super) fn commit_transaction(
        &mut self,
        extra: Vec<(PartitionId, Offset)>,
    ) -> Result<(), WorkerError> {
        if self.open().broken.is_some() {
            return self.abort_and_rewind();
        }
        let mut commits = extra;
        self.engine.take_commits(&mut commits);
        if commits.is_empty() {
            // Outputs without offsets cannot be: whatever is acknowledged is a finished prefix, as none overtakes
            // what is held. So there is nothing in it.
            return Ok(());
        }
        let offsets = self.member.list(&commits)?;
        let Some(group) = self.member.group_metadata() else {
            self.open().broken = Some("not a member of the group".to_owned());
            return self.abort_and_rewind();
        };
        let mut ended = self.call(&Call::Offsets(&offsets, &group))?;
        self.member.keep_group_metadata(group);
        if matches!(ended, Ended::Done) {
            ended = self.call(&Call::Commit)?;
        }
        if let Ended::MustAbort(error) = ended {
            self.open().broken = Some(error.to_string());
            return self.abort_and_rewind();
        }
        self.engine.transaction_committed(&commits);
        let transactions = self.open();
        transactions.is_begun = false;
        transactions.cycle.committed();
        self.begin_transaction()
    }

    /// Ends the transaction before partitions are given back: what could not be drained in time is not in it.
    pub(super) fn end_transaction(
        &mut self,
        commits: Vec<(PartitionId, Offset)>,
    ) -> Result<(), WorkerError> {
        let left = self.engine.in_flight_count();
        let stale = self.outbox.in_flight();
        let transactions = self.open();
        if left > 0 || stale > 0 {
            transactions.broken.get_or_insert_with(|| {
                format!("{} outputs were not acknowledged in time", left.max(stale))
            });
        }
        self.commit_transaction(commits)
    }

    /// Ends the worker after an error: nothing is committed, all of it is read again. A transaction that cannot be aborted
    /// is ended by the next producer of this name, or by the coordinator after its time-out.
    pub(super) fn abandon(&mut self, why: &WorkerError) {
        if !matches!(why, WorkerError::StoodStill(_) | WorkerError::Fenced(_))
            && self.open().is_begun
            && let Err(error) = self.call_once(&Call::Abort)
        {
            tracing::debug!(%error, "abort at the end of the worker");
        }
        let owned = self.engine.owned();
        self.engine.lost(&owned);
        self.publish(Clock::mono());
        self.outbox.purge();
    }

    /// Gives up the open transaction and reads again from what is committed.
    pub(super) fn abort_and_rewind(&mut self) -> Result<(), WorkerError> {
        let transactions = self.open();
        let why = transactions.broken.take().unwrap_or_default();
        let refused = std::mem::take(&mut transactions.refused);
        let cause = transactions.is_begun.then(|| self.cause()).flatten();
        let cause = cause.filter(|_| refused.is_empty());
        let why = cause
            .as_ref()
            .map_or_else(|| why.clone(), |cause| format!("{why}: {cause}"));
        tracing::warn!(%why, refused = refused.len(), "transaction aborted, its records are read again");
        if let Some(source) = cause
            && source.rdkafka_error_code() == Some(RDKafkaErrorCode::TopicAuthorizationFailed)
        {
            // No try again helps: fails closed, as at least once (FS-43). The end of the worker aborts it.
            let doing = "write outputs or dead letters in a transaction".to_owned();
            return Err(WorkerError::Edge(EdgeError::Cluster { doing, source }));
        }
        if self.open().is_begun {
            match self.call(&Call::Abort)? {
                Ended::Done => {}
                Ended::MustAbort(error) => return Err(self.gave_up(&Call::Abort, error)),
            }
        }
        // Acknowledgements that came meanwhile are of the old ownership: the engine takes them for stale.
        let owned = self.engine.transaction_aborted(&refused);
        let transactions = self.open();
        transactions.is_begun = false;
        transactions.refused.clear();
        let goes_on = transactions.cycle.aborted();
        if !refused.is_empty() {
            transactions.cycle.narrowed();
        } else if !goes_on {
            return Err(WorkerError::Edge(EdgeError::TimedOut(format!(
                "transaction after transaction was aborted, the last one as: {why}"
            ))));
        }
        let positions = self.committed_positions(&owned)?;
        self.member.seek(&positions)?;
        self.starts.extend(positions);
        self.apply_backpressure();
        self.begin_transaction()
    }

    /// Why the client can do no more with the open transaction but abort it; an output that was not delivered tells of its
    /// own time-out only. Asked by a call that is not allowed within a transaction, so it changes nothing: it fails, in this
    /// state with what came first.
    fn cause(&self) -> Option<KafkaError> {
        match self.call_once(&Call::Begin) {
            Err(KafkaError::Transaction(inner)) if inner.txn_requires_abort() => {
                Some(KafkaError::Transaction(inner))
            }
            _ => None,
        }
    }

    /// Where to read these partitions on after an abort: at what is committed, else where they were begun. One that is in
    /// neither list has given no record yet.
    fn committed_positions(
        &self,
        owned: &[PartitionId],
    ) -> Result<Vec<(PartitionId, Offset)>, EdgeError> {
        let starts = self.starting_offsets(owned)?.into_iter();
        Ok(starts
            .filter_map(|(partition, start)| match start {
                Start::At(offset) => Some((partition, offset)),
                Start::LogStart | Start::LogEnd => Some((partition, *self.starts.get(&partition)?)),
            })
            .collect())
    }

    /// Repeats a call until it has an answer. In vain for longer than the coordinator would wait for us, the outcome is
    /// unknown: new clients resolve it, and read back what is committed (FS-33, FS-34).
    fn call(&mut self, call: &Call<'_>) -> Result<Ended, WorkerError> {
        let begun = Clock::mono();
        let mut now = begun;
        loop {
            let answer = self.call_once(call);
            self.waited_since(now);
            let error = match answer {
                Ok(()) => return Ok(Ended::Done),
                Err(error) => error,
            };
            now = Clock::mono();
            let within = self.open().settings.transaction_timeout;
            match cure(&error) {
                Cure::Abort => return Ok(Ended::MustAbort(error)),
                Cure::Again if now.since(begun) < within => {}
                Cure::Again | Cure::Fenced | Cure::Rebuild => {
                    return Err(self.gave_up(call, error));
                }
            }
            self.beat();
            let mut events = Vec::new();
            let polled = self.member.poll(&mut events);
            self.open().pending.append(&mut events);
            self.waited_since(now);
            polled?;
        }
    }

    /// What an error of a call means for the worker.
    fn gave_up(&mut self, call: &Call<'_>, error: KafkaError) -> WorkerError {
        let now = Clock::mono();
        let transactions = self.open();
        // Fenced although the coordinator cannot have given up on us yet: another producer has our name. To register
        // again would fence that one, and so on for ever (KAFKA 0.2).
        let has_timed_out = transactions.cycle.age(now) + Duration::from_secs(1)
            >= transactions.settings.transaction_timeout;
        if cure(&error) == Cure::Fenced && !has_timed_out {
            return WorkerError::Fenced(transactions.settings.transactional_id.clone());
        }
        WorkerError::Transaction(EdgeError::Cluster {
            doing: call.name().to_owned(),
            source: error,
        })
    }

    /// The worker waited for somebody else from `begun` until now: the process did not stand still.
    pub(super) fn waited_since(&self, begun: MonoTime) {
        if let Some(transactions) = &self.transactions {
            transactions.stand_still.waited(begun, Clock::mono());
        }
    }

    /// Takes an acknowledgement; one that is not of a delivery breaks the open transaction.
    pub(super) fn take_ack(&mut self, token: Token, result: AckResult) {
        if let Some(transactions) = &mut self.transactions
            && result != AckResult::Delivered
            && let Some(position) = self.engine.position(token)
        {
            transactions.failed(position, result);
            return;
        }
        self.engine.acked(token, result);
    }
}
