//! The hold queue of one partition: events that wait for `as_of`, in reading order, with their bytes.
//!
//! Bytes are copied once, into chunks that are used again: a record that is held costs no allocation of its own. The
//! bounds (I7) are kept by the engine, per worker; see [`flow`](crate::pipeline::flow).

use std::collections::VecDeque;

use crate::codec::splice::Splice;
use crate::enriched::{OriginalHeaders, pack_headers};
use crate::partition::Offset;
use crate::telemetry::{Event, RecordRef, RecordTimestamp};
use crate::time::MonoTime;

/// Records are packed into chunks of this size; a larger record has one of its own.
const CHUNK_BYTES: usize = 64 * 1024;
/// Empty chunks that are kept for the next records.
const SPARE_CHUNKS: usize = 64;

/// Empty chunks, shared by the queues of one worker.
#[derive(Debug, Default)]
pub(crate) struct ChunkPool(Vec<Vec<u8>>);

impl ChunkPool {
    fn take(&mut self, needed: usize) -> Vec<u8> {
        if needed > CHUNK_BYTES {
            return Vec::with_capacity(needed);
        }
        self.0
            .pop()
            .unwrap_or_else(|| Vec::with_capacity(CHUNK_BYTES))
    }

    fn give(&mut self, mut chunk: Vec<u8>) {
        if chunk.capacity() == CHUNK_BYTES && self.0.len() < SPARE_CHUNKS {
            chunk.clear();
            self.0.push(chunk);
        }
    }
}

/// What is to be done with a held record once it is its turn.
#[derive(Copy, Clone, Debug)]
pub(crate) enum HeldTask {
    /// An event, to be matched.
    Match(Event, Splice),
    /// Not valid, to be forwarded as it came; held to keep its place.
    Forward,
    /// Not valid, to be dead-lettered; held as too much output is in flight.
    Refuse,
}

/// One held record, without its bytes.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Held {
    pub(crate) sequence: u64,
    pub(crate) offset: Offset,
    pub(crate) timestamp: RecordTimestamp,
    pub(crate) read_at: MonoTime,
    pub(crate) task: HeldTask,
    chunk: u64,
    start: u32,
    /// `None` = a null key.
    key_len: Option<u32>,
    value_len: Option<u32>,
    headers_len: u32,
}

impl Held {
    /// Bytes of the record.
    pub(crate) fn stored_len(&self) -> usize {
        self.key_len.unwrap_or(0) as usize
            + self.value_len.unwrap_or(0) as usize
            + self.headers_len as usize
    }
}

/// The bytes of a held record, lent.
#[derive(Copy, Clone, Debug)]
pub(crate) struct HeldBytes<'a> {
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: OriginalHeaders<'a>,
}

/// The hold queue of one partition.
#[derive(Debug, Default)]
pub(crate) struct HoldQueue {
    records: VecDeque<Held>,
    chunks: VecDeque<Vec<u8>>,
    /// The number of the first chunk.
    first_chunk: u64,
    bytes: usize,
}

impl HoldQueue {
    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes of all held records.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Puts a record at the end and gives its bytes.
    pub(crate) fn push(
        &mut self,
        record: &RecordRef<'_>,
        sequence: u64,
        read_at: MonoTime,
        task: HeldTask,
        pool: &mut ChunkPool,
    ) -> usize {
        // Each header takes two lengths beside its bytes.
        let needed = record.byte_len() + 8 * record.headers.len();
        if self
            .chunks
            .back()
            .is_none_or(|last| last.capacity() - last.len() < needed)
        {
            self.chunks.push_back(pool.take(needed));
        }
        let chunk = self.first_chunk + self.chunks.len() as u64 - 1;
        let last = self
            .chunks
            .back_mut()
            .expect("a chunk was just made sure of");
        let start = last.len();
        last.extend_from_slice(record.key.unwrap_or_default());
        last.extend_from_slice(record.value.unwrap_or_default());
        let headers_start = last.len();
        pack_headers(record.headers, last);
        let held = Held {
            sequence,
            offset: record.offset,
            timestamp: record.timestamp,
            read_at,
            task,
            chunk,
            start: start as u32,
            key_len: record.key.map(|key| key.len() as u32),
            value_len: record.value.map(|value| value.len() as u32),
            headers_len: (last.len() - headers_start) as u32,
        };
        let bytes = held.stored_len();
        self.bytes += bytes;
        self.records.push_back(held);
        bytes
    }

    /// The held record at this place in the queue.
    pub(crate) fn get(&self, index: usize) -> Option<&Held> {
        self.records.get(index)
    }

    /// The bytes of a record of this queue.
    pub(crate) fn bytes_of(&self, held: &Held) -> HeldBytes<'_> {
        let chunk =
            usize::try_from(held.chunk - self.first_chunk).expect("the chunk is still here");
        let bytes = &self.chunks[chunk][held.start as usize..][..held.stored_len()];
        let (key, rest) = bytes.split_at(held.key_len.unwrap_or(0) as usize);
        let (value, headers) = rest.split_at(held.value_len.unwrap_or(0) as usize);
        HeldBytes {
            key: held.key_len.map(|_| key),
            value: held.value_len.map(|_| value),
            headers: OriginalHeaders::packed(headers),
        }
    }

    /// Takes the first `count` records out and gives their bytes.
    pub(crate) fn remove_first(&mut self, count: usize, pool: &mut ChunkPool) -> usize {
        let removed = self
            .records
            .drain(..count)
            .map(|held| held.stored_len())
            .sum();
        self.bytes -= removed;
        let needed = self.records.front().map(|held| held.chunk);
        while !self.chunks.is_empty() && needed != Some(self.first_chunk) {
            // The last chunk of an empty queue goes on to be filled from its start, unless it was made for one record.
            if needed.is_none()
                && self.chunks.len() == 1
                && let Some(last) = self.chunks.front_mut()
                && last.capacity() == CHUNK_BYTES
            {
                last.clear();
                break;
            }
            if let Some(chunk) = self.chunks.pop_front() {
                self.first_chunk += 1;
                pool.give(chunk);
            }
        }
        removed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::partition::PartitionId;
    use crate::telemetry::HeaderRef;

    fn push(
        queue: &mut HoldQueue,
        pool: &mut ChunkPool,
        sequence: u64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) {
        let headers: [HeaderRef<'_>; 2] = [("h", key), ("n", None)];
        let record = RecordRef {
            partition: PartitionId(0),
            offset: Offset(sequence as i64),
            timestamp: RecordTimestamp::Missing,
            key,
            value,
            headers: &headers,
        };
        let task = HeldTask::Forward;
        queue.push(&record, sequence, MonoTime::default(), task, pool);
    }

    proptest! {
        #[test]
        fn held_bytes_come_back_in_order_whatever_their_size(
            steps in prop::collection::vec((prop::option::of(0usize..90_000), 0usize..4), 1..80),
        ) {
            let (mut queue, mut pool) = (HoldQueue::default(), ChunkPool::default());
            let mut expected: VecDeque<(u64, Option<Vec<u8>>)> = VecDeque::new();
            for (step, (len, removals)) in steps.into_iter().enumerate() {
                let sequence = step as u64;
                let value = len.map(|len| vec![step as u8; len]);
                let key = if step % 3 == 0 { None } else { Some(b"key".as_slice()) };
                push(&mut queue, &mut pool, sequence, key, value.as_deref());
                expected.push_back((sequence, value));
                for (at, (sequence, value)) in expected.iter().enumerate() {
                    let held = queue.get(at).unwrap();
                    let bytes = queue.bytes_of(held);
                    prop_assert_eq!(held.sequence, *sequence);
                    prop_assert_eq!(bytes.value, value.as_deref());
                    let headers: Vec<_> = bytes.headers.iter().collect();
                    prop_assert_eq!(headers, vec![("h", bytes.key), ("n", None)]);
                }
                let removals = removals.min(expected.len());
                queue.remove_first(removals, &mut pool);
                expected.drain(..removals);
                prop_assert_eq!(queue.len(), expected.len());
                if expected.is_empty() { prop_assert_eq!(queue.bytes(), 0); }
            }
        }
    }

    #[test]
    fn chunks_are_used_again() {
        let (mut queue, mut pool) = (HoldQueue::default(), ChunkPool::default());
        let value = [7; 1000];
        for sequence in 0..100_000 {
            push(&mut queue, &mut pool, sequence, None, Some(&value));
            if queue.len() > 1_000 {
                queue.remove_first(1, &mut pool);
            }
        }
        assert!(
            queue.chunks.len() + pool.0.len() < 40,
            "{} + {}",
            queue.chunks.len(),
            pool.0.len()
        );
    }
}
