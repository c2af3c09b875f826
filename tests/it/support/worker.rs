//! One engine with a clock that the test turns, a sink that keeps what it is given, and a broker that acknowledges when
//! it is told to. After every input it checks I5, I6, I8 and I15 against what it saw itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ringfence::codec::headers::{self, Flags};
use ringfence::codec::telemetry::{FieldRules, Fields};
use ringfence::partition::{Offset, PartitionId, RecordPosition};
use ringfence::pipeline::{
    AckResult, Counters, DeadLetter, Engine, Flow, Output, PipelineConfig, Sink, Token, Zones,
};
use ringfence::telemetry::{RecordRef, RecordTimestamp};
use ringfence::time::{EventTime, MonoTime, Now};

/// Owned headers of an output: the record's own and ours.
pub(crate) type OwnedHeaders = Vec<(String, Option<Vec<u8>>)>;

/// What the sink was given.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) token: Token,
    pub(crate) source: RecordPosition,
    /// `None` = the dead-letter topic.
    pub(crate) partition: Option<PartitionId>,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) timestamp: Option<EventTime>,
    pub(crate) headers: OwnedHeaders,
}

impl Written {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().rev().find(|(known, _)| known == name)?;
        value
            .as_deref()
            .map(|value| std::str::from_utf8(value).unwrap())
    }

    pub(crate) fn flags(&self) -> Flags {
        self.header(headers::FLAGS)
            .map_or(Flags::NONE, |flags| Flags::parse(flags).unwrap())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(self.value.as_deref().unwrap()).unwrap()
    }

    pub(crate) fn is_dead_letter(&self) -> bool {
        self.partition.is_none()
    }
}

/// Keeps everything.
#[derive(Debug, Default)]
pub(crate) struct Collector(pub(crate) Vec<Written>);

fn owned<'a>(
    original: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>,
    added: impl Iterator<Item = (&'static str, &'a [u8])>,
) -> OwnedHeaders {
    original
        .map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec)))
        .chain(added.map(|(name, value)| (name.to_owned(), Some(value.to_vec()))))
        .collect()
}

impl Sink for Collector {
    fn enriched(&mut self, output: Output<'_>) {
        let added = output.added.into_iter().flat_map(|added| added.iter());
        self.0.push(Written {
            token: output.token,
            source: output.source,
            partition: Some(output.partition),
            key: output.key.map(<[u8]>::to_vec),
            value: output.value.map(<[u8]>::to_vec),
            timestamp: output.timestamp,
            headers: owned(output.headers.iter(), added),
        });
    }

    fn dead_letter(&mut self, letter: DeadLetter<'_>) {
        self.0.push(Written {
            token: letter.token,
            source: letter.source,
            partition: None,
            key: letter.key.map(<[u8]>::to_vec),
            value: letter.value.map(<[u8]>::to_vec),
            timestamp: letter.timestamp,
            headers: owned(letter.headers.iter(), letter.added.iter()),
        });
    }
}

/// The default configuration over the default fields, with a topic named `telemetry`.
pub(crate) fn config() -> PipelineConfig {
    PipelineConfig::new(Fields::new(&FieldRules::default()).unwrap(), "telemetry")
}

/// An event's value.
pub(crate) fn event(time: i64, lon: f64, lat: f64) -> String {
    format!(r#"{{"id":"bus","ts":{time},"lat":{lat},"lon":{lon}}}"#)
}

/// The engine and its surroundings.
#[derive(Debug)]
pub(crate) struct Worker<Z: Zones> {
    pub(crate) engine: Engine<Z>,
    pub(crate) zones: Z,
    pub(crate) now: Now,
    pub(crate) written: Vec<Written>,
    /// Outputs that are not acknowledged, in sending order.
    pub(crate) unacked: Vec<Token>,
    pub(crate) flow: Flow,
    /// What the client has paused, owned or not: as librdkafka, it forgets nothing at a revoke.
    pub(crate) client_paused: BTreeSet<PartitionId>,
    /// The highest offset handed out for commit, by partition.
    pub(crate) commits: BTreeMap<PartitionId, Offset>,
    next_offset: BTreeMap<PartitionId, i64>,
    last_enriched: BTreeMap<PartitionId, Offset>,
}

impl<Z: Zones> Worker<Z> {
    pub(crate) fn new(config: PipelineConfig, zones: Z, wall: i64, owned: &[i32]) -> Self {
        let now = Now {
            mono: MonoTime::from_micros(0),
            wall: EventTime::clamped(wall),
        };
        let mut worker = Self {
            engine: Engine::new(config),
            zones,
            now,
            written: Vec::new(),
            unacked: Vec::new(),
            flow: Flow::default(),
            client_paused: BTreeSet::new(),
            commits: BTreeMap::new(),
            next_offset: BTreeMap::new(),
            last_enriched: BTreeMap::new(),
        };
        worker.assign(owned);
        worker
    }

    pub(crate) fn wait(&mut self, by: Duration) {
        self.now = Now {
            mono: self.now.mono.plus(by),
            wall: self.now.wall.plus(by),
        };
    }

    pub(crate) fn assign(&mut self, partitions: &[i32]) {
        let partitions: Vec<_> = partitions.iter().map(|id| PartitionId(*id)).collect();
        for partition in &partitions {
            self.last_enriched.remove(partition);
        }
        self.engine.assigned(&partitions);
        self.ask_flow();
    }

    /// Asks for the verdict and does what it says to the client.
    pub(crate) fn ask_flow(&mut self) {
        self.engine.backpressure(self.now, &mut self.flow);
        let owned = self.engine.owned();
        for partition in self.flow.pause.iter().chain(&self.flow.resume) {
            assert!(
                owned.contains(partition),
                "FS-03: only owned partitions are paused or resumed"
            );
        }
        self.client_paused.extend(self.flow.pause.iter().copied());
        for partition in &self.flow.resume {
            assert!(
                self.client_paused.remove(partition),
                "FS-04: nothing is resumed that runs"
            );
        }
        for partition in owned {
            let ours = self.engine.is_paused(partition);
            assert_eq!(
                self.client_paused.contains(&partition),
                ours,
                "FS-01: {partition}"
            );
        }
    }

    /// The next record of the partition is read at this offset.
    pub(crate) fn seek(&mut self, partition: i32, offset: i64) {
        self.next_offset.insert(PartitionId(partition), offset);
    }

    /// Hands in one record at the partition's next offset, which it gives.
    pub(crate) fn read(&mut self, partition: i32, value: &str) -> i64 {
        self.read_as(
            partition,
            Some(b"key"),
            Some(value.as_bytes()),
            RecordTimestamp::Missing,
        )
    }

    pub(crate) fn read_as(
        &mut self,
        partition: i32,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        timestamp: RecordTimestamp,
    ) -> i64 {
        let offset = *self.next_offset.entry(PartitionId(partition)).or_insert(0);
        self.ingest(&[RecordRef {
            partition: PartitionId(partition),
            offset: Offset(offset),
            timestamp,
            key,
            value,
            headers: &[("traceparent", Some(b"00-1"))],
        }]);
        offset
    }

    /// Hands in a batch.
    pub(crate) fn ingest(&mut self, batch: &[RecordRef<'_>]) {
        for record in batch {
            self.next_offset
                .insert(record.partition, record.offset.0 + 1);
        }
        let mut sink = Collector::default();
        self.engine.ingest(batch, &self.zones, self.now, &mut sink);
        self.take(sink);
    }

    pub(crate) fn turn(&mut self) {
        let mut sink = Collector::default();
        self.engine.turn(&self.zones, self.now, &mut sink);
        self.take(sink);
        self.ask_flow();
    }

    fn take(&mut self, sink: Collector) {
        let as_of = self.zones.view().as_of;
        for written in sink.0 {
            self.unacked.push(written.token);
            if !written.is_dead_letter() {
                let partition = written.source.partition;
                let before = self.last_enriched.insert(partition, written.source.offset);
                assert!(
                    before < Some(written.source.offset),
                    "I8: {:?}",
                    written.source
                );
            }
            if let Some(at) = written.header(headers::AT) {
                assert!(
                    at.parse::<i64>().unwrap() <= as_of.millis(),
                    "I15: {:?}",
                    written.source
                );
            }
            self.written.push(written);
        }
        self.check();
    }

    pub(crate) fn ack(&mut self, token: Token, result: AckResult) {
        self.unacked.retain(|open| *open != token);
        self.engine.acked(token, result);
        self.check();
    }

    /// Gives the producer up, as the edge does: nothing is in flight any more.
    pub(crate) fn begin_one_by_one(&mut self) {
        self.engine.begin_one_by_one();
        self.unacked.clear();
        self.last_enriched.clear();
        self.ask_flow();
        self.check();
    }

    /// Acknowledges all that is in flight.
    pub(crate) fn ack_all(&mut self) {
        for token in std::mem::take(&mut self.unacked) {
            self.engine.acked(token, AckResult::Delivered);
        }
        self.check();
    }

    /// Commits as the edge does; gives the offset to commit of one partition.
    pub(crate) fn commit(&mut self, partition: i32) -> Option<i64> {
        let mut commits = Vec::new();
        self.engine.take_commits(&mut commits);
        self.note(&commits);
        self.commits
            .get(&PartitionId(partition))
            .map(|offset| offset.0)
    }

    /// Revokes at once, without waiting for what is in flight; gives what is to be committed.
    pub(crate) fn revoke(&mut self, partitions: &[i32]) -> Vec<(PartitionId, Offset)> {
        let partitions: Vec<_> = partitions.iter().map(|id| PartitionId(*id)).collect();
        let mut commits = Vec::new();
        self.engine.revoking(&partitions);
        self.engine.revoked(&partitions, &mut commits);
        self.note(&commits);
        self.check();
        commits
    }

    fn note(&mut self, commits: &[(PartitionId, Offset)]) {
        for (partition, offset) in commits {
            let before = self.commits.insert(*partition, *offset);
            assert!(
                before <= Some(*offset),
                "I6: commits of {partition} do not go back"
            );
        }
    }

    pub(crate) fn counters(&self) -> &Counters {
        self.engine.counters()
    }

    fn check(&self) {
        self.counters().assert_sum();
    }
}
