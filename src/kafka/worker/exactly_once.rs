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
use crate::kafka::member::GroupEvent;
use crate::kafka::transaction::{CALL_MAX, Call, Cure, Fate, after_abort, cure, fate};
use crate::partition::{Offset, PartitionId, RecordPosition};
use crate::pipeline::transaction::{Abort, Cycle, StandStill, Step};
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

impl ExactlyOnce {
    /// From how long on a process that stood still counts as replaced: once the group has given its partitions away. Twice
    /// the longest call at least, as none may look like a stand still.
    #[must_use]
    pub fn stand_still_limit(&self) -> Duration {
        self.session_timeout.max(CALL_MAX * 2)
    }
}

/// The transactions of a worker.
pub(super) struct Transactions {
    settings: ExactlyOnce,
    cycle: Cycle,
    /// Whether the client has one begun; the coordinator hears of it with the first output.
    is_begun: bool,
    /// Why the open one cannot be committed, if so.
    broken: Option<Broken>,
    /// Why the open one is being aborted: the cause of whatever goes wrong with that.
    aborted_as: Option<String>,
    /// Records of it whose outputs a broker refused.
    refused: Vec<(RecordPosition, Refusal)>,
    /// What happened to the group while a call was repeated.
    pub(super) pending: Vec<GroupEvent>,
    stand_still: StandStill,
}

impl Transactions {
    pub(super) fn new(settings: ExactlyOnce, interval: Duration) -> Self {
        let stand_still = StandStill::new(settings.stand_still_limit(), Clock::mono());
        Self {
            settings,
            cycle: Cycle::new(interval),
            is_begun: false,
            broken: None,
            aborted_as: None,
            refused: Vec::new(),
            pending: Vec::new(),
            stand_still,
        }
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// An output of the open transaction was not delivered.
    fn failed(&mut self, position: RecordPosition, result: AckResult) {
        if let AckResult::Refused(refusal) = result {
            self.refused.push((position, refusal));
        }
        self.broken.get_or_insert_with(|| Broken {
            why: format!("the output of telemetry record {position} was not delivered"),
            code: None,
        });
    }

    /// For how long the process stood still until now, if for too long.
    fn stood_still(&self) -> Option<WorkerError> {
        let stood_still = self.stand_still.turned(Clock::mono())?;
        Some(WorkerError::StoodStill(stood_still))
    }
}

/// Why a transaction cannot be committed.
#[derive(Debug)]
struct Broken {
    why: String,
    /// Where the client has told.
    code: Option<RDKafkaErrorCode>,
}

impl Broken {
    /// An output waited for its broker in vain.
    fn late(why: String) -> Self {
        Self {
            why,
            code: Some(RDKafkaErrorCode::MessageTimedOut),
        }
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
            let begun = Clock::mono();
            let answer = self.call_once(&Call::Init);
            self.waited_since(begun);
            // Stopped within the call: its successor may have the name by now.
            if let Some(stood_still) = self.open().stood_still() {
                return Err(stood_still);
            }
            match answer {
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
        if let Some(stood_still) = transactions.stood_still() {
            // Its partitions are others' and its name may be its successor's: to register it again would fence that one.
            return Err(stood_still);
        }
        if transactions.broken.is_some() {
            self.abort_and_rewind()?;
            return Ok(true);
        }
        match transactions.cycle.step(in_flight, is_advanced, now) {
            Step::Fill => Ok(true),
            Step::Rest | Step::Drain => Ok(false),
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
            self.open().broken = Some(Broken {
                why: "not a member of the group".to_owned(),
                code: None,
            });
            return self.abort_and_rewind();
        };
        let mut ended = self.call(&Call::Offsets(&offsets, &group))?;
        self.member.keep_group_metadata(group);
        if matches!(ended, Ended::Done) {
            ended = self.call(&Call::Commit)?;
        }
        if let Ended::MustAbort(error) = ended {
            self.open().broken = Some(Broken {
                why: error.to_string(),
                code: error.rdkafka_error_code(),
            });
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
                let count = left.max(stale);
                Broken::late(format!("{count} outputs were not acknowledged in time"))
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
        let lost = || Broken {
            why: "partitions of it were lost".to_owned(),
            code: None,
        };
        let mut broken = self.open().broken.take().unwrap_or_else(lost);
        if self.open().is_begun {
            if let Some(cause) = self.cause() {
                broken.why = format!("{}: {cause}", broken.why);
                broken.code = broken.code.or(cause.rdkafka_error_code());
            }
            if self.open().refused.is_empty() && after_abort(broken.code).is_none() {
                // Said before the abort: of a transaction that the coordinator never took in, that fails.
                return Err(self.undeliverable(self.undelivered(), &broken));
            }
            self.open().aborted_as = Some(broken.why.clone());
            if let Ended::MustAbort(error) = self.call(&Call::Abort)? {
                return Err(self.gave_up(&Call::Abort, error));
            }
            self.open().is_begun = false;
        }
        // The client hands out every acknowledgement before an abort ends, also of what broke the transaction.
        while let Some((token, result)) = self.outbox.ack() {
            if result != AckResult::Delivered {
                self.take_ack(token, result);
            }
        }
        let undelivered = self.undelivered();
        let transactions = self.open();
        transactions.broken = None;
        transactions.aborted_as = None;
        let refused = std::mem::take(&mut transactions.refused);
        if let Some((what, error)) = &undelivered {
            broken.why = format!("{what} was not delivered: {error}");
            broken.code = error.rdkafka_error_code();
        }
        tracing::warn!(why = %broken.why, refused = refused.len(), "transaction aborted, its records are read again");
        let verdict = if refused.is_empty() {
            after_abort(broken.code)
        } else {
            Some(Abort::Narrowing)
        };
        let Some(verdict) = verdict else {
            return Err(self.undeliverable(undelivered, &broken));
        };
        let owned = self.engine.transaction_aborted(&refused);
        if !self.open().cycle.aborted(verdict, Clock::mono()) {
            return Err(WorkerError::Aborted(broken.why));
        }
        let positions = self.committed_positions(&owned)?;
        self.begin_transaction()?;
        if let Err(error) = self.member.seek(&positions) {
            tracing::warn!(%error, "joining the group anew instead");
            self.engine.lost(&owned);
            return self.join_anew();
        }
        self.starts.extend(positions);
        self.apply_backpressure();
        Ok(())
    }

    /// The first output of this transaction that was not delivered, and why, as far as the client has told.
    fn undelivered(&self) -> Option<(String, KafkaError)> {
        let first = self.outbox.take_undelivered()?;
        let of = match self.engine.position(first.token) {
            Some(position) => format!("the output of telemetry record {position}"),
            None => "an output".to_owned(),
        };
        Some((format!("{of} to topic `{}`", first.topic), first.error))
    }

    /// The end of a worker whose outputs no further try can deliver. What the coordinator refuses names no topic.
    fn undeliverable(
        &self,
        undelivered: Option<(String, KafkaError)>,
        broken: &Broken,
    ) -> WorkerError {
        let (doing, source) = match undelivered {
            Some((what, error)) => (format!("write {what}"), error),
            None => {
                let code = broken.code.unwrap_or(RDKafkaErrorCode::Unknown);
                let enriched = &self.settings.enriched_topic;
                let letters = self.settings.dead_letter_topic.as_deref();
                let or = letters.map_or_else(String::new, |dead| format!(" or `{dead}`"));
                let why = &broken.why;
                let doing = format!("write to topic `{enriched}`{or} in a transaction ({why})");
                (doing, KafkaError::MessageProduction(code))
            }
        };
        WorkerError::Undelivered(EdgeError::Cluster { doing, source })
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
        let committed = self.committed(owned)?.into_iter();
        Ok(committed
            .filter_map(|(partition, committed)| {
                let start = || self.starts.get(&partition).copied();
                Some((partition, committed.or_else(start)?))
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
    fn gave_up(&mut self, call: &Call<'_>, source: KafkaError) -> WorkerError {
        let undelivered = self.undelivered();
        let now = Clock::mono();
        let transactions = self.open();
        let fate = fate(
            cure(&source),
            transactions.stand_still.turned(now),
            transactions.cycle.age(now),
            transactions.settings.transaction_timeout,
        );
        let why = undelivered
            .map(|(what, error)| format!("{what} was not delivered: {error}"))
            .or_else(|| transactions.aborted_as.take());
        let doing = match why {
            Some(why) => format!("{} ({why})", call.name()),
            None => call.name().to_owned(),
        };
        let error = EdgeError::Cluster { doing, source };
        match fate {
            Fate::StoodStill(time) => WorkerError::StoodStill(time),
            Fate::Fenced => WorkerError::Fenced(transactions.settings.transactional_id.clone()),
            Fate::Outage => WorkerError::Outage(error),
            Fate::Anew => WorkerError::Transaction(error),
        }
    }

    /// A worker that stood still ends for that, whatever else came of it: an error that passes would have it register its
    /// name again, and fence its successor.
    pub(super) fn unless_stood_still(&mut self, error: WorkerError) -> WorkerError {
        match &self.transactions {
            Some(transactions) => transactions.stood_still().unwrap_or(error),
            None => error,
        }
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
