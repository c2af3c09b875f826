//! The worker's Kafka code with nothing between consuming and producing: the same member, queue, batches, producer,
//! acknowledgements and commits as in `kafka::worker`, the records as they came.

use std::thread::ScopedJoinHandle;
use std::time::Duration;

use ringfence::clock::Clock;
use ringfence::kafka::client::{CommitBy, cap_batches};
use ringfence::kafka::member::{GroupEvent, Member, Start};
use ringfence::kafka::outbox::Outbox;
use ringfence::partition::{Offset, PartitionId, RecordPosition};
use ringfence::pipeline::{AckResult, Limits, Output, Sink as _, Token};
use ringfence::shutdown::Shutdown;
use ringfence::telemetry::HeaderRef;

use crate::job::{COMMIT_EVERY, Job, workers};
use crate::support::measure::Cost;
use crate::watch::{self, Done};

/// As in the worker.
const BATCH: usize = 256;
const TURN: Duration = Duration::from_millis(5);
const STORE_EVERY: Duration = Duration::from_millis(20);
/// Low bits of a token: the offset.
const OFFSET_BITS: u32 = 40;

pub(crate) fn drain(job: &Job) -> Cost {
    let limits = Limits::default();
    let kafka = job.settings();
    let mut producer = kafka.producer(limits.in_flight_max, limits.in_flight_max_bytes);
    cap_batches(&mut producer, 1_048_588);
    let shutdown = Shutdown::new();
    let loops: Vec<_> = (0..workers())
        .map(|_| Loop {
            outbox: Outbox::new(&producer, &job.to, None).expect("the settings are right"),
            member: Member::join(&kafka, &job.from, BATCH, CommitBy::Interval(COMMIT_EVERY))
                .expect("the settings are right"),
            next: vec![None; 64],
            in_flight: 0,
            shutdown: &shutdown,
        })
        .collect();
    std::thread::scope(|scope| {
        let turning: Vec<_> = loops
            .into_iter()
            .map(|one| scope.spawn(move || one.run(limits.in_flight_max)))
            .collect();
        let cost = watch::cost_of_outputs(job, Done::Written, || {
            assert!(
                !turning.iter().any(ScopedJoinHandle::is_finished),
                "the loop goes on"
            );
        });
        shutdown.request();
        cost
    })
}

struct Loop<'a> {
    outbox: Outbox,
    member: Member,
    /// The offset to commit next, by partition.
    next: Vec<Option<Offset>>,
    in_flight: usize,
    shutdown: &'a Shutdown,
}

impl Loop<'_> {
    fn run(mut self, in_flight_max: usize) {
        let mut stored_at = Clock::mono();
        while !self.shutdown.is_requested() {
            self.answer();
            self.take_acks();
            self.pass(in_flight_max);
            let now = Clock::mono();
            if now.since(stored_at) >= STORE_EVERY {
                stored_at = now;
                self.store();
            }
        }
    }

    fn answer(&mut self) {
        let mut events = Vec::new();
        self.member.poll(&mut events).expect("the group is served");
        for event in events {
            match event {
                GroupEvent::Assigned(partitions) => {
                    let starts: Vec<_> =
                        partitions.iter().map(|id| (*id, Start::LogStart)).collect();
                    self.member.assign(&starts).expect("assigned");
                }
                GroupEvent::Revoked(partitions) | GroupEvent::Lost(partitions) => {
                    while self.in_flight > 0 {
                        self.take_acks();
                        std::thread::park_timeout(Duration::from_millis(1));
                    }
                    let commits = self.commits();
                    self.member.commit(&commits).expect("committed");
                    self.member.unassign(&partitions).expect("given back");
                }
            }
        }
    }

    fn take_acks(&mut self) {
        while let Some((token, result)) = self.outbox.ack() {
            assert_eq!(result, AckResult::Delivered);
            let raw = token.into_raw();
            // Acknowledgements of a partition come in order, so the last is the furthest.
            self.next[raw >> OFFSET_BITS] =
                Some(Offset((raw & ((1 << OFFSET_BITS) - 1)) as i64 + 1));
            self.in_flight -= 1;
        }
    }

    fn pass(&mut self, in_flight_max: usize) {
        let take = (in_flight_max - self.in_flight).min(BATCH);
        if take == 0 {
            std::thread::park_timeout(Duration::from_millis(1));
            return;
        }
        let batch = self.member.take(take, TURN);
        if batch.is_empty() {
            return;
        }
        let mut headers: Vec<HeaderRef<'_>> = Vec::new();
        for message in batch.fetched() {
            assert!(message.error().is_none(), "{:?}", message.error());
            headers.clear();
            message.headers(&mut headers);
            let (partition, offset) = (message.partition(), message.offset());
            self.outbox.enriched(Output {
                token: Token::from_raw((partition.0 as usize) << OFFSET_BITS | offset.0 as usize),
                source: RecordPosition { partition, offset },
                partition,
                key: message.key(),
                value: message.value(),
                timestamp: message.timestamp().instant(),
                headers: ringfence::enriched::OriginalHeaders::lent(&headers),
                added: None,
            });
            self.in_flight += 1;
        }
    }

    /// What was acknowledged since the last call.
    fn commits(&mut self) -> Vec<(PartitionId, Offset)> {
        self.next
            .iter_mut()
            .enumerate()
            .filter_map(|(id, next)| Some((PartitionId(id as i32), next.take()?)))
            .collect()
    }

    fn store(&mut self) {
        let commits = self.commits();
        self.member.store(&commits).expect("offsets are stored");
    }
}
