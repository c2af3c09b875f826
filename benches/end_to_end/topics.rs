//! The topics of a run: made, filled, counted, deleted.

use std::time::Duration;

use ringfence::clock::Clock;
use ringfence::codec::headers;
use ringfence::kafka::admin::{Admin, End, TopicSpec};
use ringfence::kafka::client::Settings;
use ringfence::kafka::reader::TopicReader;
use ringfence::kafka::writer::{Outgoing, TopicWriter};

use crate::support::{self, Seeded};

pub(crate) fn admin(bootstrap: &str) -> Admin {
    admin_of(bootstrap, "bench")
}

/// Asks for what this group has committed too.
pub(crate) fn admin_of(bootstrap: &str, group: &str) -> Admin {
    let settings = Settings::new(bootstrap, group);
    Admin::new(&settings, Duration::from_secs(30)).expect("the settings are right")
}

pub(crate) fn create(admin: &Admin, name: &str, partitions: i32, properties: &[(&str, &str)]) {
    let spec = TopicSpec {
        name: name.to_owned(),
        partitions,
        replication: None,
        properties: properties
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
    };
    admin
        .create_topic(&spec, false)
        .expect("the topic is created");
}

pub(crate) fn delete(admin: &Admin, name: &str) {
    admin.delete_topic(name).expect("the topic is deleted");
}

/// How many records of a topic a reader of committed records sees: all are read, as markers of transactions take offsets. None
/// may be flagged: each event is of an instant that the zones have reached.
pub(crate) fn count(bootstrap: &str, admin: &Admin, name: &str) -> usize {
    let settings = Settings::new(bootstrap, "bench");
    let reader = TopicReader::all(&settings, admin, name).expect("the topic exists");
    let mut records = 0;
    reader
        .read_all(Duration::from_secs(30), |record| {
            let flags = record.headers.iter().find_map(|(name, value)| match *name {
                headers::FLAGS => *value,
                headers::ALL => {
                    let all = std::str::from_utf8((*value)?).ok()?;
                    headers::part_of_all(all, headers::FLAGS).map(str::as_bytes)
                }
                _ => None,
            });
            assert_eq!(flags, None, "every event is settled");
            records += 1;
        })
        .expect("the topic is read to its end");
    records
}

/// Whether a group has finished a topic that was written without transactions.
pub(crate) fn is_committed(admin: &Admin, name: &str) -> bool {
    let partitions = admin.existing(name).expect("the topic exists").ids();
    let ends = admin
        .offsets(name, &partitions, End::Log)
        .expect("the offsets are known");
    let committed = admin
        .committed(name, &partitions)
        .expect("the group is known");
    ends.iter()
        .all(|(partition, range)| committed.contains(&(*partition, Some(range.to))))
}

/// Writes records without waiting for each, and waits for all.
pub(crate) fn write(
    bootstrap: &str,
    topic: &str,
    records: impl Iterator<Item = (String, String)>,
) -> usize {
    let writer =
        TopicWriter::new(&Settings::new(bootstrap, "bench")).expect("the settings are right");
    let mut bytes = 0;
    for (tag, (key, value)) in records.enumerate() {
        let record = Outgoing {
            topic,
            key: Some(key.as_bytes()),
            value: Some(value.as_bytes()),
            ..Outgoing::default()
        };
        bytes += value.len();
        while !writer.send(&record, tag).expect("the record is taken") {
            take_receipts(&writer);
        }
    }
    finish(&writer);
    bytes
}

/// Waits until all that was given to a writer is written.
pub(crate) fn finish(writer: &TopicWriter) {
    while writer.in_flight() > 0 {
        take_receipts(writer);
    }
    take_receipts(writer);
}

fn take_receipts(writer: &TopicWriter) {
    let first = writer.receipt(Duration::from_millis(10));
    for receipt in first.into_iter().chain(writer.receipts()) {
        receipt.outcome.expect("the record is written");
    }
}

/// Writes events of ten thousand vehicles at uniform places, each of the instant at which it is written; gives the bytes of
/// their values.
pub(crate) fn fill(bootstrap: &str, topic: &str, events: usize) -> usize {
    let mut seeded = Seeded::new(3);
    let record = |number: usize| {
        let value = support::event(number, Clock::wall(), &mut seeded);
        (support::vehicle(number), value)
    };
    write(bootstrap, topic, (0..events).map(record))
}
