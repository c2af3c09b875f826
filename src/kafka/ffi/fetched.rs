//! That what a batch has fetched ahead is the batch.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer as _;
use rdkafka::topic_partition_list::Offset as RawOffset;

use crate::kafka::client::{Logged, PlainConsumer, Settings, create};
use crate::kafka::ffi::{AHEAD, FETCHED_MAX, MessageRef, SharedQueue};
use crate::kafka::mock::EmbeddedCluster;
use crate::kafka::writer::{Outgoing, TopicWriter};
use crate::partition::PartitionId;

#[test]
fn what_is_fetched_ahead_is_the_batch_whatever_its_length_and_that_of_its_values() {
    let cluster = EmbeddedCluster::start(1).unwrap();
    cluster.create_topic("fetched", 1).unwrap();
    let settings = Settings::new(&cluster.bootstrap_servers(), "fetched");
    let lengths = [0, 1, 63, 64, 65, 128, FETCHED_MAX, FETCHED_MAX + 1, 100_000];
    let values: Vec<Option<Vec<u8>>> = (0..6 * AHEAD)
        .map(|number| (number % 10 > 0).then(|| vec![b'x'; lengths[number % 10 - 1]]))
        .collect();
    let writer = TopicWriter::new(&settings).unwrap();
    for (tag, value) in values.iter().enumerate() {
        let record = Outgoing {
            topic: "fetched",
            value: value.as_deref(),
            ..Outgoing::default()
        };
        assert!(writer.send(&record, tag).unwrap());
        writer
            .receipt(Duration::from_secs(30))
            .expect("it is written")
            .outcome
            .unwrap();
    }
    // Batches that end before anything is ahead, one that has all, and some between. None is waited for until it is full.
    for batch_max in [1, AHEAD, 2 * AHEAD + 1, values.len()] {
        let consumer: PlainConsumer = create(&settings.tool_consumer(), Logged::default()).unwrap();
        let mut queue = SharedQueue::new(Arc::new(consumer), batch_max);
        queue.forward("fetched", PartitionId(0));
        let mut from = TopicPartitionList::new();
        from.add_partition_offset("fetched", 0, RawOffset::Beginning)
            .unwrap();
        queue.consumer().assign(&from).unwrap();
        let mut seen = Vec::new();
        while seen.len() < values.len() {
            queue.consumer().poll(Duration::ZERO);
            let batch = queue.take(values.len() - seen.len(), Duration::from_secs(30));
            assert!(!batch.is_empty(), "it comes");
            let said = |message: MessageRef<'_>| {
                assert!(message.error().is_none());
                (message.offset(), message.value().map(<[u8]>::to_vec))
            };
            let fetched: Vec<_> = batch.fetched().map(said).collect();
            assert_eq!(fetched, batch.messages().map(said).collect::<Vec<_>>());
            seen.extend(fetched.into_iter().map(|(_, value)| value));
        }
        assert_eq!(seen, values);
    }
}
