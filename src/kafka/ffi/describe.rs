//! DescribeTopics and DescribeConsumerGroups: what a topic is, and what this principal may do with a topic or the group
//! (KIP-430).

use std::ffi::CString;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::consumer::{Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;

use super::{AdminQueue, Event, NO_ERROR, Options};
use crate::partition::PartitionId;

/// What may be done to a topic or a group; only what Ringfence asks for has a name here.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Fetch its records; join the group and commit for it.
    Read,
    /// Produce to it.
    Write,
    /// Any other.
    Other,
}

/// What DescribeTopics says of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedTopic {
    /// Its id (KIP-516); `None` where the cluster has none.
    pub id: Option<(i64, i64)>,
    /// Each partition with its leader, if it has one.
    pub partitions: Vec<(PartitionId, Option<i32>)>,
    /// What this principal may do; `None` where it was not asked for, or the cluster does not tell.
    pub allowed: Option<Vec<Operation>>,
}

impl<C: ConsumerContext + 'static> AdminQueue<C> {
    /// Asks for the id, the partitions and their leaders of `topic`, and `with_allowed` for what may be done to it.
    pub fn ask_topic(&self, topic: &str, with_allowed: bool, timeout: Duration, tag: usize) {
        let Ok(name) = CString::new(topic) else {
            return;
        };
        let mut names = [name.as_ptr()];
        let options = Options::new(
            self.client.client(),
            sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
            timeout,
            tag,
        );
        options.include_allowed(with_allowed);
        // SAFETY: one C string; the collection copies it and is destroyed here; the call copies what it keeps.
        unsafe {
            let topics =
                sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
            sys::rd_kafka_DescribeTopics(
                self.client.client().native_ptr(),
                topics,
                options.0.as_ptr(),
                self.queue.raw(),
            );
            sys::rd_kafka_TopicCollection_destroy(topics);
        }
    }

    /// Asks for what may be done with the consumer group `group`.
    pub fn ask_group(&self, group: &str, timeout: Duration, tag: usize) {
        let Ok(name) = CString::new(group) else {
            return;
        };
        let mut names = [name.as_ptr()];
        let options = Options::new(
            self.client.client(),
            sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS,
            timeout,
            tag,
        );
        options.include_allowed(true);
        // SAFETY: one C string in an array of one; the call copies what it keeps.
        unsafe {
            sys::rd_kafka_DescribeConsumerGroups(
                self.client.client().native_ptr(),
                names.as_mut_ptr(),
                names.len(),
                options.0.as_ptr(),
                self.queue.raw(),
            );
        }
    }
}

impl Options {
    fn include_allowed(&self, include: bool) {
        // SAFETY: live options of a Describe call; an error, which there is none of for these, would be ours to destroy.
        unsafe {
            let error = sys::rd_kafka_AdminOptions_set_include_authorized_operations(
                self.0.as_ptr(),
                i32::from(include),
            );
            debug_assert!(error.is_null(), "Describe calls take this option");
        }
    }
}

/// # Safety
/// `operations` is null or points to `count` operations.
unsafe fn allowed(
    operations: *const sys::rd_kafka_AclOperation_t,
    count: usize,
) -> Option<Vec<Operation>> {
    use sys::rd_kafka_AclOperation_t as Raw;
    if operations.is_null() {
        return None;
    }
    let mut allowed: Vec<Operation> = (0..count)
        // SAFETY: by the contract above.
        .map(|index| match unsafe { *operations.add(index) } {
            Raw::RD_KAFKA_ACL_OPERATION_READ => Operation::Read,
            Raw::RD_KAFKA_ACL_OPERATION_WRITE => Operation::Write,
            _ => Operation::Other,
        })
        .collect();
    allowed.sort_unstable();
    allowed.dedup();
    Some(allowed)
}

impl Event {
    pub(super) fn topic(&self) -> Result<DescribedTopic, RDKafkaErrorCode> {
        let (mut topics, mut count, mut operation_count) = (0, 0, 0);
        // SAFETY: a DescribeTopics event; everything read belongs to it and is copied out.
        unsafe {
            let result = sys::rd_kafka_event_DescribeTopics_result(self.raw());
            let descriptions = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut topics);
            if topics == 0 {
                return Err(RDKafkaErrorCode::UnknownTopicOrPartition);
            }
            let topic = *descriptions;
            let error = sys::rd_kafka_error_code(sys::rd_kafka_TopicDescription_error(topic));
            if error != NO_ERROR {
                return Err(error.into());
            }
            let uuid = sys::rd_kafka_TopicDescription_topic_id(topic);
            let id = (!uuid.is_null())
                .then(|| {
                    (
                        sys::rd_kafka_Uuid_most_significant_bits(uuid),
                        sys::rd_kafka_Uuid_least_significant_bits(uuid),
                    )
                })
                .filter(|bits| *bits != (0, 0));
            let infos = sys::rd_kafka_TopicDescription_partitions(topic, &raw mut count);
            let partitions = (0..count)
                .map(|index| {
                    let info = *infos.add(index);
                    let leader = sys::rd_kafka_TopicPartitionInfo_leader(info);
                    let leader = (!leader.is_null())
                        .then(|| sys::rd_kafka_Node_id(leader))
                        .filter(|id| *id >= 0);
                    (
                        PartitionId(sys::rd_kafka_TopicPartitionInfo_partition(info)),
                        leader,
                    )
                })
                .collect();
            let operations = sys::rd_kafka_TopicDescription_authorized_operations(
                topic,
                &raw mut operation_count,
            );
            Ok(DescribedTopic {
                id,
                partitions,
                allowed: allowed(operations, operation_count),
            })
        }
    }

    pub(super) fn group(&self) -> Result<Option<Vec<Operation>>, RDKafkaErrorCode> {
        let (mut groups, mut operation_count) = (0, 0);
        // SAFETY: a DescribeConsumerGroups event; everything read belongs to it and is copied out.
        unsafe {
            let result = sys::rd_kafka_event_DescribeConsumerGroups_result(self.raw());
            let descriptions =
                sys::rd_kafka_DescribeConsumerGroups_result_groups(result, &raw mut groups);
            if groups == 0 {
                return Err(RDKafkaErrorCode::InvalidGroupId);
            }
            let group = *descriptions;
            let error =
                sys::rd_kafka_error_code(sys::rd_kafka_ConsumerGroupDescription_error(group));
            if error != NO_ERROR {
                return Err(error.into());
            }
            let operations = sys::rd_kafka_ConsumerGroupDescription_authorized_operations(
                group,
                &raw mut operation_count,
            );
            Ok(allowed(operations, operation_count))
        }
    }
}
