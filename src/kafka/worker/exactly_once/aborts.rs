//! How a transaction is aborted: what went wrong with it, and where its records are read again.

use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};

use super::{Broken, Judged, Worker, WorkerError};
use crate::clock::Clock;
use crate::kafka::EdgeError;
use crate::kafka::transaction::Call;
use crate::partition::{Offset, PartitionId};
use crate::pipeline::transaction::Abort;
use crate::pipeline::{AckResult, Zones};

impl<Z, G, L> Worker<Z, L>
where
    Z: Zones,
    G: std::ops::Deref<Target = Z>,
    L: Fn() -> G,
{
    /// Gives up the open transaction and reads again from what is committed.
    pub(in crate::kafka::worker) fn abort_and_rewind(&mut self) -> Result<(), WorkerError> {
        drop(self.settle());
        let lost = || Broken::new("partitions of it were lost".to_owned(), None);
        let mut broken = self.open().broken.take().unwrap_or_else(lost);
        if self.open().is_begun {
            if let Some(cause) = self.cause() {
                broken.why = format!("{}: {cause}", broken.why);
                broken.code = broken.code.or(cause.rdkafka_error_code());
            }
            if self.open().refused.is_empty() && broken.verdict().is_none() {
                // Said before the abort: of a transaction that the coordinator never took in, that fails.
                return Err(self.undeliverable(self.undelivered(), &broken));
            }
            self.open().aborted_as = Some(broken.why.clone());
            self.abort()?;
            self.open().is_begun = false;
        }
        self.outbox.abort_next();
        // The client hands out every acknowledgement before an abort ends, also of what broke the transaction.
        while let Some((token, result)) = self.outbox.ack() {
            if result != AckResult::Delivered {
                self.take_ack(token, result);
            }
        }
        debug_assert!(self.outbox.unacknowledged() == 0, "each is reported");
        let undelivered = self.undelivered();
        let transactions = self.open();
        transactions.broken = None;
        transactions.aborted_as = None;
        let refused = std::mem::take(&mut transactions.refused);
        if let Some((what, error)) = &undelivered {
            broken.why = format!("{what} was not delivered: {error}");
            broken.code = error.rdkafka_error_code();
            broken.is_asked = false;
        }
        tracing::warn!(why = %broken.why, refused = refused.len(), "transaction aborted, its records are read again");
        let verdict = if refused.is_empty() {
            broken.verdict()
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
    pub(super) fn undelivered(&self) -> Option<(String, KafkaError)> {
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
        match Call::Begin.make(&**self.outbox.producer()) {
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

    /// Aborts the open transaction, however often it takes to ask for it.
    fn abort(&mut self) -> Result<(), WorkerError> {
        self.see_through(Call::Abort, Self::serve_group)
    }

    /// Makes a call however often it takes, with something to do between two.
    fn see_through(
        &mut self,
        mut call: Call,
        between: impl Fn(&mut Self) -> Result<(), WorkerError>,
    ) -> Result<(), WorkerError> {
        let begun = Clock::mono();
        loop {
            let now = Clock::mono();
            let (same, result) = self.call_once(call);
            self.waited_since(now);
            match self.judge(&same, result, begun)? {
                Judged::Done => return Ok(()),
                Judged::MustAbort(error) => return Err(self.gave_up(&same, error)),
                Judged::Again => call = same,
            }
            between(self)?;
        }
    }

    /// What it comes to that the group has replaced this worker's member: whether its producer is replaced, too, the
    /// coordinator says with the end of the open transaction, or has just said with its commit. If not, its double is the one to
    /// go, and it comes back (FS-78).
    pub(super) fn lost_its_member(
        &mut self,
        lost: EdgeError,
        committed: Option<KafkaResult<()>>,
    ) -> WorkerError {
        // The group has nothing more to say to it.
        let nothing = |_: &mut Self| Ok(());
        let answered = match committed {
            Some(Ok(())) => Ok(()),
            // The client takes no other call before this one has ended.
            Some(Err(_)) => self.see_through(Call::Commit, nothing),
            None => {
                let touched = self.touch_transaction(nothing);
                tracing::debug!(?touched, "an offset at the end of the worker");
                self.see_through(Call::Abort, nothing)
            }
        };
        match answered {
            Err(
                end
                @ (WorkerError::Fenced(_) | WorkerError::StoodStill(_) | WorkerError::Outage(_)),
            ) => end,
            // It has the other name still, or nobody could say.
            Ok(()) | Err(_) => WorkerError::Transaction(lost),
        }
    }

    /// Asks the coordinator whether its producer's name is its own still, at the price of what is in the open transaction:
    /// a worker that writes nothing would never be told (FS-38).
    ///
    /// By the abort of a transaction that the coordinator has heard of. Only a plain answer tells that it has, and that nothing
    /// more comes of what it was told; after anything else the worker is made anew, whose registration takes the name, and
    /// ends whatever is under way.
    pub(super) fn prove_its_name(&mut self) -> Result<(), WorkerError> {
        let doubts = self.window.doubts();
        self.finish_end()?;
        drop(self.settle());
        match self.touch_transaction(Self::serve_group) {
            Ok(()) => {}
            // The group is asked once the coordinator has heard.
            Err(WorkerError::Transaction(error)) if error.is_refused_member() => {}
            Err(error) => return Err(error),
        }
        self.open().broken = Some(Broken {
            is_asked: true,
            ..Broken::new("another worker's name was taken".to_owned(), None)
        });
        self.abort_and_rewind()?;
        self.window.proven(doubts);
        Ok(())
    }

    /// Has the coordinator hear of the open transaction, so that its abort is the coordinator's to answer: one of which it
    /// has not heard ends in the client. The offset is not committed: what follows is the abort, or another registration.
    fn touch_transaction(
        &mut self,
        between: impl Fn(&mut Self) -> Result<(), WorkerError>,
    ) -> Result<(), WorkerError> {
        let offsets = self.member.list(&[(PartitionId(0), Offset(0))])?;
        let identity = self.member.identity();
        let identity = identity.expect("a consumer with a group id has an identity in it");
        self.see_through(Call::Offsets(offsets, identity), between)
    }
}
