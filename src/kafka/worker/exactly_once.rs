//! The worker's transactions (DESIGN 7, KAFKA 1): outputs, dead letters and offsets in one, fenced by the group.
//!
//! The calls that end a transaction are made by a thread of their own ([`Calls`]), and the worker goes on meanwhile, as it
//! does while the transaction drains: what it writes waits for the next transaction
//! ([`crate::pipeline::transaction::NextOutputs`]), which is begun once this one is committed, and is given up with it.
//!
//! A call is repeated until the coordinator has answered. What happens to the group meanwhile waits until the transaction has
//! ended: it is committed or aborted before a partition is given back.

mod aborts;

use std::sync::Arc;
use std::time::Duration;

use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};

use super::{Worker, WorkerError};
use crate::clock::Clock;
use crate::enriched::Token;
use crate::kafka::EdgeError;
use crate::kafka::calls::{Answer, Calls, Order};
use crate::kafka::member::GroupEvent;
use crate::kafka::outbox::Outbox;
use crate::kafka::transaction::{CALL_MAX, Call, Cure, Fate, after_abort, cure, fate};
use crate::partition::{Offset, PartitionId, RecordPosition};
use crate::pipeline::transaction::{Abort, Cycle, StandStill, Step};
use crate::pipeline::{AckResult, Refusal, Zones};
use crate::shutdown::Shutdown;
use crate::time::MonoTime;

/// How long a turn of a wait for a call takes: reports and the group are served this often.
const CALL_TURN: Duration = Duration::from_millis(1);

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
    calls: Calls,
    /// The end of the open one, while it is under way.
    end: Option<End>,
    /// Whether the client has one begun; the coordinator hears of it with the first output.
    is_begun: bool,
    /// Why the open one cannot be committed, if so.
    broken: Option<Broken>,
    /// Why the open one is being aborted: the cause of whatever goes wrong with that.
    aborted_as: Option<String>,
    /// Records of it whose outputs a broker refused.
    refused: Vec<(RecordPosition, Refusal)>,
    /// What happened to the group and waits for the end of the open one.
    pub(super) pending: Vec<GroupEvent>,
    stand_still: StandStill,
}

impl Transactions {
    pub(super) fn new(
        settings: ExactlyOnce,
        interval: Duration,
        outbox: &Outbox,
    ) -> Result<Self, EdgeError> {
        let stand_still = StandStill::new(settings.stand_still_limit(), Clock::mono());
        let calls = Calls::start(Arc::clone(outbox.producer()))
            .map_err(|error| EdgeError::Settings(format!("no thread for calls: {error}")))?;
        Ok(Self {
            settings,
            cycle: Cycle::new(interval),
            calls,
            end: None,
            is_begun: false,
            broken: None,
            aborted_as: None,
            refused: Vec::new(),
            pending: Vec::new(),
            stand_still,
        })
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// An output of the open transaction was not delivered.
    fn failed(&mut self, position: RecordPosition, result: AckResult) {
        if let AckResult::Refused(refusal) = result {
            self.refused.push((position, refusal));
        }
        self.broken.get_or_insert_with(|| {
            let why = format!("the output of telemetry record {position} was not delivered");
            Broken::new(why, None)
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
    /// Nothing is wrong with it: it was there to ask by.
    is_asked: bool,
}

impl Broken {
    fn new(why: String, code: Option<RDKafkaErrorCode>) -> Self {
        Self {
            why,
            code,
            is_asked: false,
        }
    }

    /// What its abort says of what comes next.
    fn verdict(&self) -> Option<Abort> {
        if self.is_asked {
            Some(Abort::Asked)
        } else {
            after_abort(self.code)
        }
    }

    /// An output waited for its broker in vain.
    fn late(why: String) -> Self {
        Self::new(why, Some(RDKafkaErrorCode::MessageTimedOut))
    }
}

/// The calls that end a transaction: its offsets, then the commit.
struct End {
    commits: Vec<(PartitionId, Offset)>,
    /// Since when the call at hand is tried.
    since: MonoTime,
}

/// What an answer to a call says.
enum Judged {
    Done,
    /// The same call again.
    Again,
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
        // One that is to stop takes no name from whoever has it.
        while !shutdown.is_requested() {
            let begun = Clock::mono();
            let doubts = self.window.doubts();
            let (call, answer) = self.call_once(Call::Init);
            self.waited_since(begun);
            // Stopped within the call: its successor may have the name by now.
            if let Some(stood_still) = self.open().stood_still() {
                return Err(stood_still);
            }
            match answer {
                Ok(()) => {
                    self.window.proven(doubts);
                    return self.begin_transaction();
                }
                Err(error) if cure(&error) == Cure::Again => {
                    tracing::debug!(%error, "registering the transactional producer");
                }
                Err(_) if shutdown.is_requested() => return Ok(()),
                Err(error) => return Err(self.gave_up(&call, error)),
            }
        }
        Ok(())
    }

    /// Has a call made, and waits for it; nothing else is under way.
    fn call_once(&mut self, call: Call) -> (Call, Result<(), KafkaError>) {
        self.open().calls.give(Order::Call(call));
        loop {
            if let Some(Answer::Called(call, result)) = self.open().calls.answer(CALL_TURN) {
                return (call, result);
            }
            // An abort waits for what is reported of its outputs.
            self.outbox.serve();
        }
    }

    /// Waits for what is under way: a flush, or one call of an end that is given up. What a commit came to, if it was one.
    fn settle(&mut self) -> Option<KafkaResult<()>> {
        let begun = Clock::mono();
        let mut committed = None;
        while self.open().calls.is_busy() {
            match self.open().calls.answer(CALL_TURN) {
                Some(Answer::Called(Call::Offsets(_, group), _)) => {
                    self.member.keep_group_metadata(group);
                }
                Some(Answer::Called(Call::Commit, result)) => committed = Some(result),
                _ => {}
            }
            self.outbox.serve();
        }
        self.open().end = None;
        self.waited_since(begun);
        committed
    }

    /// The client's own doing: nobody is asked.
    fn begin_transaction(&mut self) -> Result<(), WorkerError> {
        if let Err(error) = Call::Begin.make(&**self.outbox.producer()) {
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

    /// Whether records may be taken in this turn; goes on with the end of the transaction, or begins it where its time has
    /// come.
    pub(super) fn transact(&mut self) -> Result<bool, WorkerError> {
        if self.transactions.is_none() {
            return Ok(true);
        }
        if let Some(stood_still) = self.open().stood_still() {
            // Its partitions are others' and its name may be its successor's: to register it again would fence that one.
            return Err(stood_still);
        }
        if let Some(answer) = self.open().calls.answer(Duration::ZERO) {
            self.answered(answer)?;
        }
        if self.open().is_broken() {
            self.abort_and_rewind()?;
            return Ok(true);
        }
        if self.window.is_doubted() {
            self.prove_its_name()?;
            return Ok(true);
        }
        let now = Clock::mono();
        let is_advanced = self.engine.is_advanced();
        let in_flight = self.outbox.unacknowledged();
        let transactions = self.open();
        let step = transactions.cycle.step(in_flight, is_advanced, now);
        let is_busy = transactions.calls.is_busy();
        match step {
            Step::Rest => return Ok(false),
            Step::Fill => return Ok(true),
            Step::FillNext => {
                if !is_busy {
                    transactions.calls.give(Order::Flush);
                }
                self.outbox.fill_next();
            }
            // A flush is answered in a moment: there is nothing left for it to wait for.
            Step::End if is_busy => self.outbox.fill_next(),
            Step::End => self.begin_end(Vec::new())?,
        }
        Ok(true)
    }

    /// What happened to the group, once no transaction is being ended.
    pub(super) fn group_events(
        &mut self,
        mut events: Vec<GroupEvent>,
    ) -> Result<Vec<GroupEvent>, WorkerError> {
        if self.transactions.is_some() {
            self.open().pending.append(&mut events);
            if !self.open().pending.is_empty() {
                // It may be aborted, and the group joined anew: then these are none of the new member's.
                self.finish_end()?;
            }
            events.append(&mut self.open().pending);
        }
        Ok(events)
    }

    /// Begins to commit what is finished, with `extra` offsets of partitions that are being given back; everything that was
    /// sent is acknowledged. Where it cannot be committed it is aborted, and the partitions that stay are rewound.
    fn begin_end(&mut self, extra: Vec<(PartitionId, Offset)>) -> Result<(), WorkerError> {
        if self.open().is_broken() {
            return self.abort_and_rewind();
        }
        self.outbox.fill_next();
        let mut commits = extra;
        self.engine.take_commits(&mut commits);
        if commits.is_empty() {
            // Outputs without offsets cannot be: whatever is acknowledged is a finished prefix, as none overtakes
            // what is held. So there is nothing in it.
            self.open().cycle.was_empty();
            self.begin_next();
            return Ok(());
        }
        let offsets = self.member.list(&commits)?;
        let Some(group) = self.member.group_metadata() else {
            let why = "not a member of the group".to_owned();
            self.open().broken = Some(Broken::new(why, None));
            return self.abort_and_rewind();
        };
        let since = Clock::mono();
        let transactions = self.open();
        transactions.cycle.ends();
        transactions.end = Some(End { commits, since });
        transactions
            .calls
            .give(Order::Call(Call::Offsets(offsets, group)));
        Ok(())
    }

    /// An answer has come: the end goes on with the next call, the same one again, or an abort.
    fn answered(&mut self, answer: Answer) -> Result<(), WorkerError> {
        let Answer::Called(call, result) = answer else {
            return Ok(());
        };
        let end = self.open().end.take();
        let mut end = end.expect("calls are given to end a transaction");
        let judged = self.judge(&call, result, end.since)?;
        if matches!(judged, Judged::Again) {
            self.open().end = Some(end);
            self.open().calls.give(Order::Call(call));
            return Ok(());
        }
        let was_commit = matches!(call, Call::Commit);
        if let Call::Offsets(_, group) = call {
            self.member.keep_group_metadata(group);
        }
        if let Judged::MustAbort(error) = judged {
            let code = error.rdkafka_error_code();
            self.open().broken = Some(Broken::new(error.to_string(), code));
            return self.abort_and_rewind();
        }
        if was_commit {
            return self.committed_all(&end.commits);
        }
        end.since = Clock::mono();
        self.open().end = Some(end);
        self.open().calls.give(Order::Call(Call::Commit));
        Ok(())
    }

    fn committed_all(&mut self, commits: &[(PartitionId, Offset)]) -> Result<(), WorkerError> {
        self.engine.transaction_committed(commits);
        let transactions = self.open();
        transactions.is_begun = false;
        transactions.cycle.committed();
        self.begin_transaction()?;
        self.begin_next();
        Ok(())
    }

    fn begin_next(&mut self) {
        let engine = &self.engine;
        self.outbox
            .begin_next(|token| engine.position(token).is_some());
    }

    /// Waits for the end of the transaction, if it is under way.
    pub(super) fn finish_end(&mut self) -> Result<(), WorkerError> {
        while self
            .transactions
            .as_ref()
            .is_some_and(|all| all.end.is_some())
        {
            let now = Clock::mono();
            let answer = self.open().calls.answer(CALL_TURN);
            self.waited_since(now);
            if let Some(answer) = answer {
                self.answered(answer)?;
            }
            self.serve_group()?;
        }
        Ok(())
    }

    /// Beats and polls the group while a call is waited for: what happens to it waits for the end of the transaction.
    fn serve_group(&mut self) -> Result<(), WorkerError> {
        self.beat();
        let mut events = Vec::new();
        // What it tells is kept also where it then fails.
        let polled = self.member.poll(&mut events);
        self.open().pending.append(&mut events);
        polled?;
        Ok(())
    }

    /// Ends the transaction before partitions are given back: what could not be drained in time is not in it.
    pub(super) fn end_transaction(
        &mut self,
        commits: Vec<(PartitionId, Offset)>,
    ) -> Result<(), WorkerError> {
        let left = self.outbox.unacknowledged();
        if left > 0 {
            self.open().broken.get_or_insert_with(|| {
                Broken::late(format!("{left} outputs were not acknowledged in time"))
            });
        }
        drop(self.settle());
        self.begin_end(commits)?;
        self.finish_end()
    }

    /// Ends the worker after an error: nothing is committed, all of it is read again. A transaction that cannot be aborted
    /// is ended by the next producer of this name, or by the coordinator after its time-out. Why it ends, as that shows.
    pub(super) fn abandon(&mut self, why: WorkerError) -> WorkerError {
        let committed = self.settle();
        let is_begun = self.open().is_begun;
        let why = match why {
            WorkerError::Edge(lost) if is_begun && lost.is_fenced_member() => {
                self.lost_its_member(lost, committed)
            }
            WorkerError::StoodStill(_) | WorkerError::Fenced(_) => why,
            why => {
                if is_begun && let (_, Err(error)) = self.call_once(Call::Abort) {
                    tracing::debug!(%error, "abort at the end of the worker");
                }
                why
            }
        };
        let owned = self.engine.owned();
        self.engine.lost(&owned);
        self.publish(Clock::mono());
        self.outbox.purge();
        why
    }

    /// What is to be done after a call that was first made at `since`. Tried in vain for longer than the coordinator would
    /// wait for us, its outcome is unknown: new clients resolve it, and read back what is committed (FS-33, FS-34).
    fn judge(
        &mut self,
        call: &Call,
        result: Result<(), KafkaError>,
        since: MonoTime,
    ) -> Result<Judged, WorkerError> {
        let Err(error) = result else {
            return Ok(Judged::Done);
        };
        let within = self.open().settings.transaction_timeout;
        match cure(&error) {
            Cure::Abort => Ok(Judged::MustAbort(error)),
            Cure::Again if Clock::mono().since(since) < within => Ok(Judged::Again),
            Cure::Again | Cure::Fenced | Cure::Rebuild => Err(self.gave_up(call, error)),
        }
    }

    /// What an error of a call means for the worker.
    fn gave_up(&mut self, call: &Call, source: KafkaError) -> WorkerError {
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
