//! What the errors of transaction calls mean (KAFKA 1), and the calls of one worker's producer.
//!
//! The client has one code for *fenced by another producer* and *timed out at the coordinator*, errors of a flush
//! within a commit, and calls that outlast their time-out: each has its path here and its row in the tests.

use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::producer::Producer;

use crate::pipeline::transaction::Abort;

/// How long one call may take: between two the group is polled, so it stays below any session time-out.
pub(super) const CALL: Duration = Duration::from_millis(500);

/// How long the client may take over a call that heeds no time-out: its `socket.timeout.ms` (KAFKA 0.4).
pub(super) const CALL_MAX: Duration = Duration::from_secs(3);

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

/// What becomes of a worker after a call that cannot be repeated.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It ends: the process stood still, so its name may be its successor's.
    StoodStill(Duration),
    /// It ends: another producer has its name.
    Fenced,
    /// It is made anew, as often as the cluster lets it wait.
    Outage,
    /// It is made anew.
    Anew,
}

/// Judges by the error, how long the process stood still (if too long), and how old the transaction is.
///
/// Fenced although the coordinator cannot have given up on us yet: another producer has our name. To register again would
/// fence that one, and so on for ever (KAFKA 0.2), but for a worker whose process another one decides for (`run::restarts`).
/// Nor may one that stood still register again, whatever it is told.
pub(super) fn fate(
    cure: Cure,
    stood_still: Option<Duration>,
    age: Duration,
    transaction_timeout: Duration,
) -> Fate {
    let has_timed_out = age + Duration::from_secs(1) >= transaction_timeout;
    match (stood_still, cure) {
        (Some(time), _) => Fate::StoodStill(time),
        (None, Cure::Fenced) if !has_timed_out => Fate::Fenced,
        (None, Cure::Again) => Fate::Outage,
        (None, _) if has_timed_out => Fate::Outage,
        (None, _) => Fate::Anew,
    }
}

/// What an abort for this says of what comes next; `None` = no further try helps, so the worker ends, as it does outside
/// of transactions (FS-43).
pub(super) fn after_abort(code: Option<RDKafkaErrorCode>) -> Option<Abort> {
    use RDKafkaErrorCode as Code;
    match code {
        Some(
            Code::TopicAuthorizationFailed
            | Code::UnknownTopic
            | Code::UnknownTopicOrPartition
            | Code::UnknownPartition,
        ) => None,
        Some(Code::MessageTimedOut | Code::OperationTimedOut | Code::RequestTimedOut) => {
            Some(Abort::Waiting)
        }
        _ => Some(Abort::Trouble),
    }
}

/// One transaction call.
pub(super) enum Call {
    Init,
    Begin,
    Offsets(TopicPartitionList, ConsumerGroupMetadata),
    Commit,
    Abort,
}

impl Call {
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

#[cfg(test)]
mod tests {
    use rdkafka::consumer::{BaseConsumer, Consumer};
    use rdkafka::mocking::MockCoordinator;
    use rdkafka::producer::{BaseRecord, DefaultProducerContext, ThreadedProducer};
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use super::*;
    use crate::clock::Clock;
    use crate::kafka::client::{Settings, create};
    use crate::kafka::mock::EmbeddedCluster;

    type TestProducer = ThreadedProducer<DefaultProducerContext>;

    fn producer_at(address: &str) -> TestProducer {
        let settings = Settings::new(address, "g");
        let config = settings.transactional_producer(1_000, 1 << 20, "name");
        create(&config, DefaultProducerContext).unwrap()
    }

    /// A cluster with topic `t`, and a producer with an open transaction of one record.
    fn open_transaction() -> (EmbeddedCluster, TestProducer) {
        let cluster = EmbeddedCluster::start(1).unwrap();
        cluster.create_topic("t", 1).unwrap();
        let producer = producer_at(&cluster.bootstrap_servers());
        patiently(&producer, &Call::Init);
        Call::Begin.make(&producer).unwrap();
        send(&producer);
        (cluster, producer)
    }

    fn send(producer: &TestProducer) {
        let record = BaseRecord::<str, str>::to("t").payload("x");
        assert!(producer.send(record).is_ok());
    }

    /// As the worker does: the same call again while that is the cure.
    fn patiently(producer: &TestProducer, call: &Call) -> usize {
        let begun = Clock::mono();
        let mut repeated = 0;
        while let Err(error) = call.make(producer) {
            assert_eq!(cure(&error), Cure::Again, "{error}");
            assert!(Clock::mono().since(begun) < Duration::from_secs(30));
            repeated += 1;
        }
        repeated
    }

    fn cure_of(result: KafkaResult<()>) -> Cure {
        cure(&result.expect_err("it fails"))
    }

    #[test]
    fn fs_33_a_call_without_an_answer_is_made_again() {
        let producer = producer_at("127.0.0.1:1");
        assert_eq!(cure_of(Call::Init.make(&producer)), Cure::Again);
    }

    #[test]
    fn fs_36_an_error_without_a_class_needs_a_new_producer() {
        let producer = producer_at("127.0.0.1:1");
        // Not registered: the client says neither that it is fatal, nor to abort, nor to try again.
        let error = Call::Begin.make(&producer).unwrap_err();
        assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::State));
        assert_eq!(cure(&error), Cure::Rebuild, "{error}");
        assert_eq!(cure(&KafkaError::Canceled), Cure::Rebuild);
    }

    #[test]
    fn fs_36_a_fatal_error_needs_a_new_producer() {
        let (cluster, producer) = open_transaction();
        let fatal = RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_TXN_STATE;
        cluster
            .controls()
            .request_errors(RDKafkaApiKey::EndTxn, &[fatal]);
        assert_eq!(cure_of(Call::Commit.make(&producer)), Cure::Rebuild);
    }

    #[test]
    fn fs_38_an_end_refused_to_an_old_epoch_is_a_fence() {
        for error in [
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_PRODUCER_FENCED,
        ] {
            let (cluster, producer) = open_transaction();
            let controls = cluster.controls();
            controls.request_errors(RDKafkaApiKey::EndTxn, &[error]);
            assert_eq!(cure_of(Call::Commit.make(&producer)), Cure::Fenced);
        }
    }

    #[test]
    fn fs_35_offsets_of_an_old_generation_are_aborted_and_the_producer_goes_on() {
        let (cluster, producer) = open_transaction();
        let settings = Settings::new(&cluster.bootstrap_servers(), "g");
        let consumer: BaseConsumer = settings.tool_consumer().create().unwrap();
        let group = consumer.group_metadata().unwrap();
        let mut offsets = TopicPartitionList::new();
        offsets
            .add_partition_offset("t", 0, rdkafka::Offset::Offset(1))
            .unwrap();
        let controls = cluster.controls();
        controls
            .coordinator(MockCoordinator::Group("g".into()), 1)
            .unwrap();
        let old = RDKafkaRespErr::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION;
        controls.request_errors(RDKafkaApiKey::TxnOffsetCommit, &[old]);
        let answer = Call::Offsets(offsets, group).make(&producer);
        assert_eq!(cure_of(answer), Cure::Abort);
        patiently(&producer, &Call::Abort);
        Call::Begin.make(&producer).unwrap();
        send(&producer);
        patiently(&producer, &Call::Commit);
    }

    #[test]
    fn fs_33_a_commit_that_waits_for_its_outputs_in_vain_is_made_again_and_loses_none() {
        let (cluster, producer) = open_transaction();
        let slowly = Duration::from_secs(2);
        cluster
            .controls()
            .broker_round_trip_time(1, slowly)
            .unwrap();
        send(&producer);
        let error = Call::Commit.make(&producer).unwrap_err();
        assert!(matches!(error, KafkaError::Flush(_)), "{error}");
        assert_eq!(cure(&error), Cure::Again);
        cluster
            .controls()
            .broker_round_trip_time(1, Duration::ZERO)
            .unwrap();
        patiently(&producer, &Call::Commit);
        assert_eq!(producer.in_flight_count(), 0);
    }

    #[test]
    fn fs_32_a_worker_that_stood_still_within_a_call_never_registers_its_name_again() {
        let (timeout, still) = (Duration::from_secs(8), Duration::from_secs(9));
        for cure in [Cure::Again, Cure::Abort, Cure::Fenced, Cure::Rebuild] {
            for age in [Duration::ZERO, still] {
                let fate = fate(cure, Some(still), age, timeout);
                assert_eq!(fate, Fate::StoodStill(still), "{cure:?} {age:?}");
            }
        }
    }

    #[test]
    fn fs_38_fs_80_a_fence_before_the_time_out_is_another_producers_and_after_it_the_coordinators()
    {
        let seconds = Duration::from_secs;
        let judged = |cure, age| fate(cure, None, seconds(age), seconds(8));
        assert_eq!(judged(Cure::Fenced, 6), Fate::Fenced);
        assert_eq!(judged(Cure::Fenced, 7), Fate::Outage);
        assert_eq!(judged(Cure::Again, 0), Fate::Outage);
        assert_eq!(judged(Cure::Rebuild, 0), Fate::Anew);
        assert_eq!(judged(Cure::Rebuild, 9), Fate::Outage);
    }

    #[test]
    fn fs_35_an_abort_for_a_late_output_is_a_wait_and_one_for_a_topic_that_is_gone_the_end() {
        use RDKafkaErrorCode as Code;
        assert_eq!(
            after_abort(Some(Code::MessageTimedOut)),
            Some(Abort::Waiting)
        );
        assert_eq!(
            after_abort(Some(Code::IllegalGeneration)),
            Some(Abort::Trouble)
        );
        assert_eq!(after_abort(None), Some(Abort::Trouble));
        assert_eq!(after_abort(Some(Code::UnknownTopic)), None);
        assert_eq!(after_abort(Some(Code::TopicAuthorizationFailed)), None);
    }
}
