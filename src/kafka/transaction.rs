//! What the errors of transaction calls mean (KAFKA 1), and the calls of one worker's producer.
//!
//! The client has one code for *fenced by another producer* and *timed out at the coordinator*, errors of a flush
//! within a commit, and calls that outlast their time-out: each has its path here and its row in the tests.

use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::producer::Producer;

/// How long one call may take: between two the group is polled, so it stays below any session time-out.
pub(super) const CALL: Duration = Duration::from_millis(500);

/// What is to be done about an error.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Cure {
    /// The same call again, and no other.
    Again,
    /// Abort, rewind, go on.
    Abort,
    /// Another producer of this name is at work, or the coordinator has given up on our transaction.
    Fenced,
    /// A new producer.
    Rebuild,
}

/// What an error of a transaction call means.
pub(super) fn cure(error: &KafkaError) -> Cure {
    use RDKafkaErrorCode as Code;
    match error {
        // The crate flushes before it commits; nothing is lost (KAFKA 0.3).
        KafkaError::Flush(_) => Cure::Again,
        KafkaError::Transaction(inner) => match inner.code() {
            Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch
                if !inner.txn_requires_abort() =>
            {
                Cure::Fenced
            }
            _ if inner.is_fatal() => Cure::Rebuild,
            _ if inner.txn_requires_abort() => Cure::Abort,
            _ if inner.is_retriable() => Cure::Again,
            // An error without a class is as good as fatal (FS-36).
            _ => Cure::Rebuild,
        },
        _ => Cure::Rebuild,
    }
}

/// One transaction call.
pub(super) enum Call<'a> {
    Init,
    Begin,
    Offsets(&'a TopicPartitionList, &'a ConsumerGroupMetadata),
    Commit,
    Abort,
}

impl Call<'_> {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Init => "register the transactional producer",
            Self::Begin => "begin a transaction",
            Self::Offsets(..) => "add offsets to the transaction",
            Self::Commit => "commit the transaction",
            Self::Abort => "abort the transaction",
        }
    }

    /// Blocks for [`CALL`] at most, but for `Offsets`: that one is bounded by `socket.timeout.ms` (KAFKA 0.4).
    pub(super) fn make<C, P: Producer<C>>(&self, producer: &P) -> KafkaResult<()>
    where
        C: rdkafka::producer::ProducerContext<rdkafka::producer::NoCustomPartitioner>,
    {
        match self {
            Self::Init => producer.init_transactions(CALL),
            Self::Begin => producer.begin_transaction(),
            Self::Offsets(offsets, group) => {
                producer.send_offsets_to_transaction(offsets, group, CALL)
            }
            Self::Commit => producer.commit_transaction(CALL),
            Self::Abort => producer.abort_transaction(CALL),
        }
    }
}
