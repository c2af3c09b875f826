//! One member of the consumer group: the telemetry consumer, its shared queue, and the group's events as values.
//!
//! A rebalance is only noted in librdkafka's callback; the worker answers it from its own loop, after it has drained
//! (RDKAFKA 2). Exceptions: once the member is closing, the callback gives partitions back at once.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{
    BaseConsumer, CommitMode, Consumer, ConsumerContext, ConsumerGroupMetadata,
};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset as RawOffset, TopicPartitionList};

use super::client::{CommitBy, Logged, Settings, create};
use super::ffi::{Batch, SharedQueue, generation};
use super::{EdgeError, admin, is_transient};
use crate::partition::{Offset, PartitionId};

/// What happened to the membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupEvent {
    /// Partitions are ours from now on; they are read once [`Member::assign`] is called.
    Assigned(Vec<PartitionId>),
    /// Partitions are to be given back; [`Member::unassign`] does it.
    Revoked(Vec<PartitionId>),
    /// Partitions are another member's already.
    Lost(Vec<PartitionId>),
}

/// Notes the events of the group.
pub struct GroupContext {
    logged: Logged,
    topic: String,
    events: Mutex<Events>,
    closing: AtomicBool,
    /// As it stood when the newest event came. In the classic protocol never asked for later: a member that was thrown out
    /// has one without a generation, which a broker does not check (KAFKA 0.5), so what a zombie committed with it would
    /// count.
    metadata: Mutex<Option<ConsumerGroupMetadata>>,
}

/// What happened to the group, in order, from its coming until it is answered.
#[derive(Default)]
struct Events {
    unanswered: VecDeque<GroupEvent>,
    /// How many of them [`Member::poll`] has handed out.
    handed_out: usize,
}

impl GroupContext {
    fn events(&self) -> MutexGuard<'_, Events> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn partitions(&self, list: &TopicPartitionList) -> Vec<PartitionId> {
        list.elements_for_topic(&self.topic)
            .iter()
            .map(|element| PartitionId(element.partition()))
            .collect()
    }
}

impl ClientContext for GroupContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.logged.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.logged.error(error, reason);
    }
}

impl ConsumerContext for GroupContext {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        error: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        if self.closing.load(Ordering::Acquire) {
            // `close` waits for the partitions to be given back, and nobody else would.
            if error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS {
                drop(consumer.incremental_unassign(list));
            } else {
                drop(consumer.incremental_assign(&TopicPartitionList::new()));
            }
            return;
        }
        let partitions = self.partitions(list);
        *self.metadata.lock().unwrap_or_else(PoisonError::into_inner) =
            if consumer.assignment_lost() {
                None
            } else {
                consumer.group_metadata()
            };
        let event = match error {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                GroupEvent::Assigned(partitions)
            }
            _ if consumer.assignment_lost() => GroupEvent::Lost(partitions),
            _ => GroupEvent::Revoked(partitions),
        };
        self.events().unanswered.push_back(event);
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        // The client repeats a failed commit with its next one, as the stored offset stays above the committed one.
        if let Err(error) = result
            && error.rdkafka_error_code() != Some(RDKafkaErrorCode::NoOffset)
        {
            tracing::debug!(target: "ringfence::kafka", %error, "commit failed, it is repeated");
        }
    }
}

/// Where a partition is read from.
///
/// The log's own bounds are found by the client, once and whenever a leader answers: asked for by us, one partition
/// without a leader kept the worker from all the others.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// The next record to read, as committed.
    At(Offset),
    /// The log end as it was when it was asked for: to be committed.
    Chosen(Offset),
    /// The log start.
    LogStart,
    /// The log end.
    LogEnd,
}

/// A member of the group.
pub struct Member {
    // Declared, so dropped, before the context is needed no more.
    queue: SharedQueue<GroupContext>,
    topic: String,
    timeout: Duration,
    /// Whether the generation rises without an event: see [`Member::group_metadata`].
    rises_silently: bool,
}

impl Member {
    /// One that has begun to join the group, for `topic`; batches hold at most `batch_max` messages; stored offsets are
    /// committed as `offsets` says.
    ///
    /// # Errors
    /// [`EdgeError::Settings`].
    pub fn join(
        settings: &Settings,
        topic: &str,
        batch_max: usize,
        offsets: CommitBy,
    ) -> Result<Self, EdgeError> {
        let member = Self::new(settings, topic, batch_max, offsets)?;
        member.begin()?;
        Ok(member)
    }

    /// [`Self::join`], but for that it is yet to [`Self::begin`].
    ///
    /// # Errors
    /// [`EdgeError::Settings`].
    pub(super) fn new(
        settings: &Settings,
        topic: &str,
        batch_max: usize,
        offsets: CommitBy,
    ) -> Result<Self, EdgeError> {
        let context = GroupContext {
            logged: Logged::default(),
            topic: topic.to_owned(),
            events: Mutex::default(),
            closing: AtomicBool::new(false),
            metadata: Mutex::new(None),
        };
        let consumer: BaseConsumer<GroupContext> =
            create(&settings.telemetry_consumer(offsets), context)?;
        let queue = SharedQueue::new(Arc::new(consumer), batch_max);
        Ok(Self {
            queue,
            topic: topic.to_owned(),
            timeout: Duration::from_secs(5),
            rises_silently: !settings.is_classic(),
        })
    }

    /// Begins to join the group.
    ///
    /// # Errors
    /// What the client says against it.
    pub(super) fn begin(&self) -> Result<(), EdgeError> {
        self.consumer()
            .subscribe(&[&self.topic])
            .map_err(self.doing("subscribe to"))
    }

    fn consumer(&self) -> &BaseConsumer<GroupContext> {
        self.queue.consumer()
    }

    /// Serves the group: to be called in every turn, also while everything is paused (I9). Each event is to be answered,
    /// in order: an assignment by [`Self::assign`], the others by [`Self::unassign`]. What is not is answered at the end.
    ///
    /// # Errors
    /// A fatal error of the client: it is to be built anew.
    pub fn poll(&self, events: &mut Vec<GroupEvent>) -> Result<(), EdgeError> {
        // Each call serves one event; no message comes this way. The bound keeps the loop turning.
        for _ in 0..16 {
            match self.consumer().poll(Duration::ZERO) {
                None => break,
                // A partition's forwarding was lost: dropping its message would lose it, so the member is made anew.
                Some(Ok(_)) => {
                    let doing = format!("consume topic `{}` past the shared queue", self.topic);
                    let code = RDKafkaErrorCode::State;
                    return Err(EdgeError::cluster(doing)(
                        KafkaError::MessageConsumptionFatal(code),
                    ));
                }
                Some(Err(error)) => {
                    // What stands behind a transient error may be for good: that one is told.
                    let error = match self.consumer().client().fatal_error() {
                        Some((code, _)) => KafkaError::MessageConsumptionFatal(code),
                        None => error,
                    };
                    let is_fatal = matches!(error, KafkaError::MessageConsumptionFatal(_));
                    let is_transient = error.rdkafka_error_code().is_some_and(is_transient);
                    if is_fatal || !is_transient {
                        return Err(EdgeError::cluster(format!(
                            "consume topic `{}`",
                            self.topic
                        ))(error));
                    }
                }
            }
        }
        let mut all = self.consumer().context().events();
        events.extend(all.unanswered.iter().skip(all.handed_out).cloned());
        all.handed_out = all.unanswered.len();
        Ok(())
    }

    /// Takes the messages at hand, at most `max`, waiting at most `timeout` for the first.
    pub fn take(&mut self, max: usize, timeout: Duration) -> Batch<'_, GroupContext> {
        self.queue.take(max, timeout)
    }

    /// What the group has committed of these partitions, if anything.
    ///
    /// # Errors
    /// No answer.
    pub fn committed(
        &self,
        partitions: &[PartitionId],
    ) -> Result<Vec<(PartitionId, Option<Offset>)>, EdgeError> {
        admin::committed(self.consumer(), &self.topic, partitions, self.timeout)
    }

    /// The log start and end offsets of a partition (`read_committed`).
    ///
    /// # Errors
    /// No answer.
    pub fn log_bounds(&self, partition: PartitionId) -> Result<(Offset, Offset), EdgeError> {
        self.consumer()
            .fetch_watermarks(&self.topic, partition.0, self.timeout)
            .map(|(start, end)| (Offset(start), Offset(end)))
            .map_err(EdgeError::cluster(format!(
                "ask for the offsets of topic `{}`",
                self.topic
            )))
    }

    /// The log end offset of a partition as last heard of; `None` before the first fetch.
    #[must_use]
    pub fn known_log_end(&self, partition: PartitionId) -> Option<Offset> {
        self.queue.known_log_end(&self.topic, partition)
    }

    /// Begins to read partitions from there.
    ///
    /// # Errors
    /// What the client says against it.
    pub fn assign(&self, starts: &[(PartitionId, Start)]) -> Result<(), EdgeError> {
        let mut list = TopicPartitionList::with_capacity(starts.len());
        for (partition, start) in starts {
            self.queue.forward(&self.topic, *partition);
            let offset = match start {
                Start::At(offset) | Start::Chosen(offset) => RawOffset::Offset(offset.0),
                Start::LogStart => RawOffset::Beginning,
                Start::LogEnd => RawOffset::End,
            };
            list.add_partition_offset(&self.topic, partition.0, offset)
                .map_err(self.doing("name offsets of"))?;
        }
        self.consumer()
            .incremental_assign(&list)
            .map_err(self.doing("take partitions of"))?;
        self.answered();
        Ok(())
    }

    /// Goes back (or on) to these offsets; what was fetched and not taken yet is dropped.
    ///
    /// # Errors
    /// What the client says against it: then where it reads is not known.
    pub fn seek(&self, positions: &[(PartitionId, Offset)]) -> Result<(), EdgeError> {
        if positions.is_empty() {
            return Ok(());
        }
        let list = self
            .consumer()
            .seek_partitions(self.list(positions)?, self.timeout)
            .map_err(self.doing("go back in"))?;
        for element in list.elements_for_topic(&self.topic) {
            element.error().map_err(self.doing("go back in"))?;
        }
        Ok(())
    }

    /// Gives partitions back.
    ///
    /// # Errors
    /// What the client says against it.
    pub fn unassign(&self, partitions: &[PartitionId]) -> Result<(), EdgeError> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition(&self.topic, partition.0);
        }
        self.consumer()
            .incremental_unassign(&list)
            .map_err(self.doing("give back partitions of"))?;
        self.answered();
        Ok(())
    }

    fn answered(&self) {
        let mut events = self.consumer().context().events();
        events.unanswered.pop_front();
        events.handed_out = events.handed_out.saturating_sub(1);
    }

    /// Names the offsets (the next one to read of each partition) that the client's next commit takes along: every
    /// `delivery.commit_ms`. Unlike a commit of our own, which would be forgotten when it fails, it is repeated.
    ///
    /// # Errors
    /// What the client says against it.
    pub fn store(&self, commits: &[(PartitionId, Offset)]) -> Result<(), EdgeError> {
        if commits.is_empty() {
            return Ok(());
        }
        self.consumer()
            .store_offsets(&self.list(commits)?)
            .map_err(self.doing("store offsets of"))
    }

    /// Whether the group has given its partitions to others: what it had is no longer its own to commit. So until the
    /// event that says so is answered.
    pub(crate) fn has_lost(&self) -> bool {
        self.consumer().assignment_lost()
    }

    /// Commits offsets and waits for the answer.
    ///
    /// They are stored too, and first: the client's own commits go on meanwhile, and one of an older stored offset that is
    /// sent behind this one would take the group back to it (seen: each graceful leave was written twice for 0.1 to 0.3 s).
    ///
    /// # Errors
    /// What the cluster says against it.
    pub fn commit(&self, commits: &[(PartitionId, Offset)]) -> Result<(), EdgeError> {
        if commits.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.store(commits) {
            // Of what is not assigned nothing older is stored either.
            tracing::debug!(target: "ringfence::kafka", %error, "store before a commit");
        }
        self.consumer()
            .commit(&self.list(commits)?, CommitMode::Sync)
            .map_err(self.doing("commit offsets of"))
    }

    /// The membership as of the newest event that [`Self::poll`] gave: it fences the offsets of a transaction. `None`
    /// before the first, after a loss, and while it is lent.
    ///
    /// In the new protocol (KIP-848) the coordinator raises the epoch of members whose partitions stay, too, and the client
    /// takes it over without an event: it is asked for anew, unless an event waits for its answer. While a revoke does, the
    /// epoch stands still; after a loss the transaction is none of the new epoch's.
    pub(super) fn group_metadata(&self) -> Option<ConsumerGroupMetadata> {
        if self.rises_silently && self.consumer().context().events().unanswered.is_empty() {
            return self.fresh_group_metadata();
        }
        self.consumer()
            .context()
            .metadata
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// The membership of now, if it is still the one that the worker's partitions came with. Asked in this order: a loss is
    /// noted before the generation goes, and stays noted until the worker has answered it.
    fn fresh_group_metadata(&self) -> Option<ConsumerGroupMetadata> {
        let consumer = self.consumer();
        if generation(consumer.client()) <= 0 {
            return None;
        }
        let metadata = consumer.group_metadata();
        let is_still_member = !consumer.assignment_lost() && generation(consumer.client()) > 0;
        metadata.filter(|_| is_still_member)
    }

    /// Puts back what [`Self::group_metadata`] lent, unless an event has brought newer.
    pub(super) fn keep_group_metadata(&self, metadata: ConsumerGroupMetadata) {
        self.consumer()
            .context()
            .metadata
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(metadata);
    }

    /// Who it is in the group, whatever the group thinks of it: to ask with, as nothing may be committed by it.
    pub(super) fn identity(&self) -> Option<ConsumerGroupMetadata> {
        self.consumer().group_metadata()
    }

    /// Pauses partitions; one that is not assigned any more is left out (FS-03).
    pub fn pause(&self, partitions: &[PartitionId]) {
        self.pausing(partitions, |consumer, list| consumer.pause(list));
    }

    /// Resumes partitions; one that is not assigned any more is left out (FS-03).
    pub fn resume(&self, partitions: &[PartitionId]) {
        self.pausing(partitions, |consumer, list| consumer.resume(list));
    }

    fn pausing(
        &self,
        partitions: &[PartitionId],
        call: impl Fn(&BaseConsumer<GroupContext>, &TopicPartitionList) -> KafkaResult<()>,
    ) {
        if partitions.is_empty() {
            return;
        }
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition(&self.topic, partition.0);
        }
        if let Err(error) = call(self.consumer(), &list) {
            tracing::debug!(target: "ringfence::kafka", %error, ?partitions, "pause or resume");
        }
    }

    pub(super) fn list(
        &self,
        offsets: &[(PartitionId, Offset)],
    ) -> Result<TopicPartitionList, EdgeError> {
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for (partition, offset) in offsets {
            list.add_partition_offset(&self.topic, partition.0, RawOffset::Offset(offset.0))
                .map_err(self.doing("name offsets of"))?;
        }
        Ok(list)
    }

    fn doing(&self, what: &str) -> impl FnOnce(KafkaError) -> EdgeError {
        EdgeError::cluster(format!("{what} topic `{}`", self.topic))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // From here on the callback gives partitions back by itself, or `rd_kafka_consumer_close` would wait for ever.
        self.consumer()
            .context()
            .closing
            .store(true, Ordering::Release);
        // What came and was not answered is answered here, also where a worker ended over it: the client waits for an answer
        // to each event, and its end would wait with it.
        let events = std::mem::take(&mut *self.consumer().context().events());
        for event in events.unanswered {
            let answered = match event {
                GroupEvent::Assigned(_) => self.assign(&[]),
                GroupEvent::Revoked(partitions) | GroupEvent::Lost(partitions) => {
                    self.unassign(&partitions)
                }
            };
            if let Err(error) = answered {
                tracing::debug!(target: "ringfence::kafka", %error, "leave the group");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::kafka::ffi::raise_fatal_error;
    use crate::kafka::mock::EmbeddedCluster;
    use crate::kafka::worker::WorkerError;

    /// Of a static member: the client knows no other fatal error of the classic protocol, and one that is raised in a
    /// dynamic member, which no broker can do, makes its end wait for ever.
    #[test]
    fn a_fatal_error_of_the_client_is_told_and_a_worker_made_anew_may_do_better() {
        let cluster = EmbeddedCluster::start(1).unwrap();
        cluster.create_topic("t", 1).unwrap();
        let mut settings = Settings::new(&cluster.bootstrap_servers(), "g");
        settings
            .consumer
            .insert("group.instance.id".into(), "one".into());
        let by = CommitBy::Interval(Duration::from_millis(100));
        let member = Member::join(&settings, "t", 10, by).unwrap();
        let mut events = Vec::new();
        let begun = Clock::mono();
        while events.is_empty() {
            member.poll(&mut events).unwrap();
            assert!(Clock::mono().since(begun) < Duration::from_secs(20));
            std::thread::park_timeout(Duration::from_millis(5));
        }
        assert_eq!(events, [GroupEvent::Assigned(vec![PartitionId(0)])]);
        member.assign(&[(PartitionId(0), Start::LogStart)]).unwrap();
        raise_fatal_error(member.consumer().client());
        let error = loop {
            if let Err(error) = member.poll(&mut events) {
                break error;
            }
            assert!(Clock::mono().since(begun) < Duration::from_secs(20));
            std::thread::park_timeout(Duration::from_millis(5));
        };
        assert!(error.to_string().contains("consume topic `t`"), "{error}");
        assert!(WorkerError::from(error).is_passing());
        // A member that failed lets its process end.
        drop(member);
    }
}
