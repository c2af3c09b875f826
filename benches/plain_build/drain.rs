//! What a user would write with the usual crates, in good faith: rdkafka's `StreamConsumer` and `FutureProducer` on tokio, one
//! task, `serde_json::Value`, rstar and geo; offsets stored once the output is acknowledged. It knows nothing of event time,
//! late changes, rejections or rebalances; its headers, where it adds some, say what ours say of an event without a flag. The
//! client settings are ours; but it has the client time its linger, as everybody does, where ours has a thread for it
//! (`kafka::linger`).

use std::collections::VecDeque;
use std::time::Duration;

use rdkafka::Message as _;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer as _};
use ringfence::clock::Clock;
use ringfence::codec::headers::{AS_OF, AT, SOURCE};
use ringfence::kafka::client::CommitBy;
use ringfence::pipeline::Limits;
use serde_json::Value;

use crate::job::{COMMIT_EVERY, Job, PER_EDGE, SIDE};
use crate::support;
use crate::support::measure::Cost;
use crate::support::plain::Geo;
use crate::watch::{self, Done};

pub(crate) fn drain(job: &Job, with_headers: bool) -> Cost {
    let zones = Geo::new(support::polygons(SIDE, PER_EDGE));
    let ids: Vec<String> = (0..SIDE * SIDE).map(support::zone_id).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    std::thread::scope(|scope| {
        let enriching =
            scope.spawn(|| runtime.block_on(enrich_all(job, &zones, &ids, with_headers)));
        let cost = watch::cost_of_outputs(job, Done::Written, || ());
        enriching.join().expect("all is enriched");
        cost
    })
}

/// An event with the zones of its position added.
struct Enriched {
    value: Vec<u8>,
    /// Its time.
    at: i64,
}

fn enrich(value: &[u8], zones: &Geo, ids: &[String]) -> Option<Enriched> {
    let mut event: Value = serde_json::from_slice(value).ok()?;
    let (lat, lon) = (event.get("lat")?.as_f64()?, event.get("lon")?.as_f64()?);
    let mut found: Vec<&str> = zones
        .at(lon, lat)
        .map(|number| ids[number].as_str())
        .collect();
    found.sort_unstable();
    event["zones"] = found.into();
    let at = event.get("ts")?.as_i64()?;
    let value = serde_json::to_vec(&event).ok()?;
    Some(Enriched { value, at })
}

/// Until the last one is acknowledged.
async fn enrich_all(job: &Job, zones: &Geo, ids: &[String], with_headers: bool) {
    let as_of = Clock::wall().millis().to_string();
    let limits = Limits::default();
    let kafka = job.settings();
    let mut settings = kafka.telemetry_consumer(CommitBy::Interval(COMMIT_EVERY));
    settings.set("auto.offset.reset", "earliest");
    let consumer: StreamConsumer = settings.create().expect("the settings are right");
    consumer.subscribe(&[&job.from]).expect("subscribed");
    let producer: FutureProducer = kafka
        .producer(limits.in_flight_max, limits.in_flight_max_bytes)
        .create()
        .expect("the settings are right");
    let mut in_flight: VecDeque<(DeliveryFuture, i32, i64)> = VecDeque::new();
    for _ in 0..job.events {
        let message = consumer.recv().await.expect("a message");
        let value = message.payload().expect("a value");
        let Enriched { value, at } = enrich(value, zones, ids).expect("the event is valid");
        let mut record = FutureRecord::to(&job.to)
            .partition(message.partition())
            .payload(&value)
            .key(message.key().unwrap_or_default());
        if with_headers {
            let source = format!("{}:{}", message.partition(), message.offset());
            let headers = [(AT, &at.to_string()), (AS_OF, &as_of), (SOURCE, &source)];
            let mut list = OwnedHeaders::new_with_capacity(headers.len());
            for (key, value) in headers {
                let value = Some(value);
                list = list.insert(Header { key, value });
            }
            record = record.headers(list);
        }
        record.timestamp = message.timestamp().to_millis();
        let sent = producer
            .send_result(record)
            .unwrap_or_else(|(error, _)| panic!("{error}"));
        in_flight.push_back((sent, message.partition(), message.offset()));
        if in_flight.len() >= limits.in_flight_max / 2 {
            finish(&consumer, &job.from, in_flight.drain(..1_000)).await;
        }
    }
    producer
        .flush(Duration::from_secs(30))
        .expect("everything is written");
    finish(&consumer, &job.from, in_flight.drain(..)).await;
}

async fn finish(
    consumer: &StreamConsumer,
    topic: &str,
    sent: impl Iterator<Item = (DeliveryFuture, i32, i64)>,
) {
    for (sent, partition, offset) in sent {
        sent.await
            .expect("the producer is alive")
            .unwrap_or_else(|(error, _)| panic!("{error}"));
        consumer
            .store_offset(topic, partition, offset)
            .expect("the offset is stored");
    }
}
