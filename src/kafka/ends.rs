//! Asks the brokers for the ends of the zone partitions: what proofs are made of (DESIGN 4, "Watermark").
//!
//! Nothing here waits. Each leader has its own round, so a slow broker delays the proofs of its own partitions only.
//! A round asks LATEST and MAX_TIMESTAMP (KIP-734), isolation `read_uncommitted`; EARLIEST once a second. The topic's
//! partitions, leaders and id are asked for every five, by a thread of its own, as that call of rdkafka waits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;

use super::admin::{Partitions, partitions_in, topic_in};
use super::ffi::{AdminQueue, Answer, AnswerBody, DescribedTopic, ListedOffset, OffsetSpec};
use crate::partition::{Offset, PartitionId};
use crate::time::{EventTime, MonoTime};

/// How often partitions and topic id are asked for (DESIGN 2).
const DESCRIBE_EVERY: Duration = Duration::from_secs(5);
/// How often log start offsets are asked for: they serve to tell that a log is empty, and move slowly.
const STARTS_EVERY: Duration = Duration::from_secs(1);
/// How long the topic is not asked for after a question that was not answered.
const AFTER_FAILURE: Duration = Duration::from_secs(2);
/// When a question is given up, and asked anew.
const PATIENCE: Duration = Duration::from_secs(8);

/// What a partition's broker says of the record with the largest timestamp.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum LargestStamp {
    /// The cluster does not know the question.
    Unsupported,
    /// No answer: the log is empty, or that record is not yet below the end offset.
    Unanswered,
    /// The record's offset.
    At(Offset),
}

/// The ends of one partition's log, all asked for in one round.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct PartitionEnds {
    /// The partition.
    pub partition: PartitionId,
    /// Its log start offset, at most a second old; never above the real one.
    pub log_start: Offset,
    /// Its log end offset.
    pub log_end: Offset,
    /// Its largest timestamp.
    pub largest: LargestStamp,
}

/// The answers of one leader to one round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndRound {
    /// T, read before the round was asked.
    pub asked_at: EventTime,
    /// The partitions that answered.
    pub ends: Vec<PartitionEnds>,
}

/// What has come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndEvent {
    /// A round of one leader.
    Round(EndRound),
    /// The topic's partitions with their leaders.
    Partitions(Vec<(PartitionId, Option<i32>)>),
    /// The topic's id (KIP-516), where the cluster has such.
    TopicId(i64, i64),
    /// The topic is not there.
    Gone,
}

/// Whether the cluster answers questions about timestamps.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum StampSupport {
    Unknown,
    Yes,
    No,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Ends,
    Largest,
    Starts,
    /// The first record at or after 1970: every record that there is. A cluster that finds none in a log that is not
    /// empty cannot look up timestamps at all (librdkafka's mock).
    Probe,
}

#[derive(Debug)]
struct Round {
    asked_at: EventTime,
    asked_mono: MonoTime,
    /// The questions that are not answered yet, with their tags.
    open: BTreeMap<usize, Kind>,
    answers: BTreeMap<Kind, Vec<ListedOffset>>,
    failed: bool,
}

#[derive(Debug, Default)]
struct Leader {
    partitions: Vec<PartitionId>,
    round: Option<Round>,
    last_asked: Option<MonoTime>,
    starts_asked: Option<MonoTime>,
}

/// Asks, and gathers what comes back.
pub struct EndAsker<C: ConsumerContext + 'static> {
    queue: AdminQueue<C>,
    client: Arc<BaseConsumer<C>>,
    topic: String,
    interval: Duration,
    leaders: BTreeMap<i32, Leader>,
    starts: BTreeMap<PartitionId, Offset>,
    support: StampSupport,
    next_tag: usize,
    identifying: Option<usize>,
    identified_at: Option<MonoTime>,
    metadata: Metadata,
    /// Nobody answers: no more is asked than who leads, as each open question keeps the client busy (FS-66).
    is_away: bool,
}

impl<C: ConsumerContext + 'static> EndAsker<C> {
    /// An asker for `topic` with a round every `interval`.
    #[must_use]
    pub fn new(client: Arc<BaseConsumer<C>>, topic: &str, interval: Duration) -> Self {
        let metadata = Metadata::start(Arc::clone(&client), topic);
        Self {
            queue: AdminQueue::new(Arc::clone(&client)),
            client,
            topic: topic.to_owned(),
            interval,
            leaders: BTreeMap::new(),
            starts: BTreeMap::new(),
            support: StampSupport::Unknown,
            next_tag: 0,
            identifying: None,
            identified_at: None,
            metadata,
            is_away: false,
        }
    }

    /// Whether the cluster is known not to tell the largest timestamps, so that plain proofs count.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.support == StampSupport::No
    }

    /// Takes what has come back and asks what is due; `now` and `wall` (T) were read just before.
    ///
    /// Of each leader one round is open at a time: the next is asked once the answers of the one before are among
    /// `events`. By that the gate tells an answer that is merely late from a truncated log.
    pub fn turn(&mut self, now: MonoTime, wall: EventTime, events: &mut Vec<EndEvent>) {
        // Serves the client's log and error queue, else it grows; no message comes to a client without partitions.
        drop(self.client.poll(Duration::ZERO));
        while let Some(answer) = self.queue.answer(Duration::ZERO) {
            self.take(answer, events);
        }
        while let Ok(seen) = self.metadata.seen.try_recv() {
            self.is_away = seen.is_err();
            match seen {
                Ok(Some(partitions)) => {
                    self.lead(&partitions);
                    events.push(EndEvent::Partitions(partitions));
                }
                Ok(None) => events.push(EndEvent::Gone),
                Err(_) => {}
            }
        }
        self.identify_if_due(now);
        let leaders: Vec<i32> = self.leaders.keys().copied().collect();
        for id in leaders {
            self.finish_or_give_up(id, now, events);
            self.ask_if_due(id, now, wall);
        }
    }

    fn take(&mut self, answer: Answer, events: &mut Vec<EndEvent>) {
        if self.identifying == Some(answer.tag) {
            self.identifying = None;
            if let Ok(AnswerBody::Topic(DescribedTopic {
                id: Some((most, least)),
                ..
            })) = answer.body
            {
                events.push(EndEvent::TopicId(most, least));
            }
            return;
        }
        let found = self.leaders.values_mut().find_map(|leader| {
            let round = leader.round.as_mut()?;
            round.open.remove(&answer.tag).map(|kind| (round, kind))
        });
        // An answer to a round that was given up finds none.
        let Some((round, kind)) = found else { return };
        match answer.body {
            Ok(AnswerBody::Offsets(offsets)) => {
                if offsets.iter().any(|listed| listed.offset.is_err()) {
                    // A leader has moved, or the topic is gone: ask at once who leads now.
                    self.metadata.ask_now();
                }
                round.answers.insert(kind, offsets);
            }
            Ok(AnswerBody::Topic(_) | AnswerBody::Group(_)) | Err(_) => {
                round.failed = true;
                self.metadata.ask_now();
            }
        }
    }

    /// Sorts the partitions by leader; rounds under way of leaders that stay the same go on.
    fn lead(&mut self, topic: &[(PartitionId, Option<i32>)]) {
        let mut partitions: BTreeMap<i32, Vec<PartitionId>> = BTreeMap::new();
        for (partition, leader) in topic {
            if let Some(leader) = leader {
                partitions.entry(*leader).or_default().push(*partition);
            }
        }
        self.leaders.retain(|id, leader| {
            partitions
                .get(id)
                .is_some_and(|now| *now == leader.partitions)
        });
        for (id, partitions) in partitions {
            self.leaders.entry(id).or_insert_with(|| Leader {
                partitions,
                ..Leader::default()
            });
        }
    }

    fn identify_if_due(&mut self, now: MonoTime) {
        let due = self
            .identified_at
            .is_none_or(|at| now.since(at) >= DESCRIBE_EVERY);
        if due && self.identifying.is_none() && !self.is_away {
            self.next_tag += 1;
            self.queue
                .ask_topic(&self.topic, false, PATIENCE, self.next_tag);
            self.identifying = Some(self.next_tag);
            self.identified_at = Some(now);
        }
    }

    fn ask_if_due(&mut self, id: i32, now: MonoTime, wall: EventTime) {
        if self.is_away {
            return;
        }
        let support = self.support;
        let interval = self.interval;
        let Some(leader) = self.leaders.get_mut(&id) else {
            return;
        };
        if leader.round.is_some() || leader.last_asked.is_some_and(|at| now.since(at) < interval) {
            return;
        }
        let mut kinds = vec![Kind::Ends];
        if support != StampSupport::No {
            kinds.push(Kind::Largest);
        }
        if leader
            .starts_asked
            .is_none_or(|at| now.since(at) >= STARTS_EVERY)
        {
            leader.starts_asked = Some(now);
            kinds.push(Kind::Starts);
            if support == StampSupport::Unknown {
                kinds.push(Kind::Probe);
            }
        }
        leader.last_asked = Some(now);
        let mut open = BTreeMap::new();
        for kind in kinds {
            self.next_tag += 1;
            open.insert(self.next_tag, kind);
            let spec = match kind {
                Kind::Ends => OffsetSpec::Latest,
                Kind::Largest => OffsetSpec::MaxTimestamp,
                Kind::Starts => OffsetSpec::Earliest,
                Kind::Probe => OffsetSpec::At(EventTime::clamped(0)),
            };
            self.queue.ask_offsets(
                &self.topic,
                &leader.partitions,
                spec,
                PATIENCE,
                self.next_tag,
            );
        }
        leader.round = Some(Round {
            asked_at: wall,
            asked_mono: now,
            open,
            answers: BTreeMap::new(),
            failed: false,
        });
    }

    fn finish_or_give_up(&mut self, id: i32, now: MonoTime, events: &mut Vec<EndEvent>) {
        let Some(leader) = self.leaders.get_mut(&id) else {
            return;
        };
        let Some(round) = &leader.round else { return };
        if !round.open.is_empty() && now.since(round.asked_mono) < PATIENCE + PATIENCE {
            return;
        }
        let round = leader.round.take().expect("it was just seen");
        if !round.open.is_empty() || round.failed {
            return;
        }
        for listed in round.answers.get(&Kind::Starts).into_iter().flatten() {
            if let Ok(Some(start)) = listed.offset {
                self.starts.insert(listed.partition, start);
            }
        }
        self.learn_support(&round);
        let ends = round.answers.get(&Kind::Ends).into_iter().flatten();
        let ends: Vec<_> = ends
            .filter_map(|listed| {
                let log_end = listed.offset.ok().flatten()?;
                let largest = match self.support {
                    StampSupport::No => LargestStamp::Unsupported,
                    StampSupport::Unknown | StampSupport::Yes => largest(&round, listed.partition)?,
                };
                let log_start = self.starts.get(&listed.partition).copied()?;
                // Deleted and made again: the start that is remembered may be above the new end.
                Some(PartitionEnds {
                    partition: listed.partition,
                    log_start: log_start.min(log_end),
                    log_end,
                    largest,
                })
            })
            .collect();
        if !ends.is_empty() {
            events.push(EndEvent::Round(EndRound {
                asked_at: round.asked_at,
                ends,
            }));
        }
    }

    fn learn_support(&mut self, round: &Round) {
        if self.support != StampSupport::Unknown {
            return;
        }
        for probe in round.answers.get(&Kind::Probe).into_iter().flatten() {
            let Some(end) = answer_of(round, Kind::Ends, probe.partition).flatten() else {
                continue;
            };
            let Some(start) = self.starts.get(&probe.partition) else {
                continue;
            };
            match probe.offset {
                Ok(Some(_)) => self.support = StampSupport::Yes,
                Ok(None) if *start < end => self.support = StampSupport::No,
                Ok(None) | Err(_) => {}
            }
        }
    }
}

/// The thread that asks for the topic's partitions; it ends when this value is dropped.
struct Metadata {
    wake: Sender<()>,
    /// The partitions with their leaders; `None` = there is no such topic; an error = nobody answers.
    seen: Receiver<Result<Option<Partitions>, KafkaError>>,
}

impl Metadata {
    fn start<C: ConsumerContext + 'static>(client: Arc<BaseConsumer<C>>, topic: &str) -> Self {
        let (wake, woken) = bounded::<()>(1);
        let (tell, seen) = bounded(1);
        let topic = topic.to_owned();
        let ask = move || {
            let mut failures = 0_u32;
            loop {
                let answer = partitions_of(&client, &topic, metadata_patience(failures));
                failures = if answer.is_ok() { 0 } else { failures + 1 };
                // Failed once, it may have been slow. Nobody listens any more = the asker is gone.
                if failures != 1 && tell.send(answer).is_err() {
                    return;
                }
                if failures > 0 {
                    std::thread::park_timeout(AFTER_FAILURE);
                }
                match woken.recv_timeout(if failures > 0 {
                    Duration::ZERO
                } else {
                    DESCRIBE_EVERY
                }) {
                    // Asked for by every failed round: at most twice a second all the same.
                    Ok(()) if failures == 0 => {
                        std::thread::park_timeout(Duration::from_millis(500))
                    }
                    Ok(()) => {}
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("zones-topic".to_owned())
            .spawn(ask);
        drop(thread.expect("a process can start a thread"));
        Self { wake, seen }
    }

    fn ask_now(&self) {
        // Full = it is asked already.
        self.wake.try_send(()).ok();
    }
}

/// How long an answer is waited for after so many failures in a row: while no broker is up, the call does not rest but
/// keeps the client's threads busy (FS-66: measured a core). Now and then it waits for long all the same, as the brokers
/// may just be slow.
fn metadata_patience(failures: u32) -> Duration {
    if failures.is_multiple_of(20) {
        DESCRIBE_EVERY
    } else {
        Duration::from_millis(500)
    }
}

fn partitions_of<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    topic: &str,
    patience: Duration,
) -> Result<Option<Partitions>, KafkaError> {
    let metadata = client.fetch_metadata(Some(topic), patience)?;
    let found = topic_in(&metadata, topic)?;
    Ok(found.map(partitions_in))
}

fn answer_of(round: &Round, kind: Kind, partition: PartitionId) -> Option<Option<Offset>> {
    round
        .answers
        .get(&kind)?
        .iter()
        .find(|listed| listed.partition == partition)?
        .offset
        .ok()
}

/// `None` where the question itself failed.
fn largest(round: &Round, partition: PartitionId) -> Option<LargestStamp> {
    Some(match answer_of(round, Kind::Largest, partition)? {
        Some(offset) => LargestStamp::At(offset),
        None => LargestStamp::Unanswered,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::kafka::client::{Logged, PlainConsumer, Settings, create};
    use crate::kafka::mock::EmbeddedCluster;
    use crate::kafka::writer::{Outgoing, TopicWriter};

    fn asker(settings: &Settings) -> EndAsker<Logged> {
        let client: PlainConsumer = create(&settings.asker(), Logged::default()).unwrap();
        EndAsker::new(Arc::new(client), "zones", Duration::from_millis(20))
    }

    /// Turns until `enough` says so, for at most 30 s.
    fn turn_until(asker: &mut EndAsker<Logged>, mut enough: impl FnMut(&EndEvent) -> bool) -> bool {
        let begun = Clock::mono();
        let mut events = Vec::new();
        while Clock::mono().since(begun) < Duration::from_secs(30) {
            asker.turn(Clock::mono(), Clock::wall(), &mut events);
            if events.drain(..).any(|event| enough(&event)) {
                return true;
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
        false
    }

    #[test]
    fn an_empty_topic_and_a_filled_one_answer_their_ends() {
        let cluster = EmbeddedCluster::start(2).unwrap();
        cluster.create_topic("zones", 2).unwrap();
        let settings = Settings::new(&cluster.bootstrap_servers(), "g");
        let mut asker = asker(&settings);
        let mut empty = std::collections::BTreeSet::new();
        assert!(turn_until(&mut asker, |event| {
            if let EndEvent::Round(round) = event {
                empty.extend(
                    round
                        .ends
                        .iter()
                        .filter(|ends| ends.log_start == ends.log_end)
                        .map(|ends| ends.partition),
                );
            }
            empty.len() == 2
        }));
        let writer = TopicWriter::new(&settings).unwrap();
        let record = Outgoing {
            topic: "zones",
            partition: Some(PartitionId(1)),
            value: Some(b"x"),
            ..Outgoing::default()
        };
        assert!(writer.send(&record, 0).unwrap());
        assert!(
            writer
                .receipt(Duration::from_secs(20))
                .unwrap()
                .outcome
                .is_ok()
        );
        // The mock cannot look up timestamps: it is found out, and the plain proof counts.
        assert!(turn_until(&mut asker, |event| {
            matches!(event, EndEvent::Round(round) if round.ends.iter().any(|ends| {
                ends.partition == PartitionId(1) && ends.log_end == Offset(1) && ends.largest == LargestStamp::Unsupported
            }))
        }));
        assert!(asker.is_plain());
    }

    #[test]
    fn a_slow_leader_delays_the_proofs_of_its_own_partitions_only() {
        let cluster = EmbeddedCluster::start(2).unwrap();
        cluster.create_topic("zones", 2).unwrap();
        for (partition, broker) in [(0, 1), (1, 2)] {
            cluster
                .controls()
                .partition_leader("zones", partition, Some(broker))
                .unwrap();
        }
        let settings = Settings::new(&cluster.bootstrap_servers(), "g");
        let mut asker = asker(&settings);
        let mut seen = std::collections::BTreeSet::new();
        assert!(turn_until(&mut asker, |event| {
            if let EndEvent::Round(round) = event {
                seen.extend(round.ends.iter().map(|ends| ends.partition));
            }
            seen.len() == 2
        }));
        cluster
            .controls()
            .broker_round_trip_time(2, Duration::from_secs(2))
            .unwrap();
        let (mut quick, mut slow) = (0, 0);
        assert!(turn_until(&mut asker, |event| {
            if let EndEvent::Round(round) = event {
                quick += usize::from(
                    round
                        .ends
                        .iter()
                        .any(|ends| ends.partition == PartitionId(0)),
                );
                slow += usize::from(
                    round
                        .ends
                        .iter()
                        .any(|ends| ends.partition == PartitionId(1)),
                );
            }
            quick >= 20
        }));
        assert!(
            slow <= 3,
            "the slow leader answered {slow} rounds while the other answered {quick}"
        );
    }
}
