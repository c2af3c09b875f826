//! A partitioned log in memory, as a broker shows it: stamps by the broker's clock, records that are stamped and not
//! readable yet (replication), open transactions, compaction, gaps in offsets. Time is an argument: true milliseconds.
//!
//! ```text
//!   records ─── stable (first open transaction) ─── end (replicated) ─── stamped, not yet below the end
//! ```

use std::collections::{BTreeMap, BTreeSet};

/// A record of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Logged {
    pub(crate) offset: i64,
    /// Its LogAppendTime.
    pub(crate) stamp: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
}

#[derive(Clone, Debug)]
enum Entry {
    Data {
        record: Logged,
        transaction: Option<u32>,
    },
    /// Ends a transaction.
    Marker { offset: i64 },
}

impl Entry {
    fn offset(&self) -> i64 {
        match self {
            Self::Data { record, .. } => record.offset,
            Self::Marker { offset } => *offset,
        }
    }
}

/// What a read gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) records: Vec<Logged>,
    /// Where the next read begins: past what was skipped, too.
    pub(crate) next_offset: i64,
    /// Whether the read came to the end that it may see: an end-of-partition event.
    pub(crate) at_end: bool,
}

/// One partition.
#[derive(Clone, Debug, Default)]
pub(crate) struct PartitionLog {
    entries: Vec<Entry>,
    /// When each entry gets below the end offset, by offset; never before an earlier one.
    readable_at: BTreeMap<i64, i64>,
    last_readable_at: i64,
    next: i64,
    open: BTreeMap<u32, i64>,
    aborted: BTreeSet<u32>,
}

impl PartitionLog {
    /// Appends a record with this stamp; it is readable from `readable_at` on. Gives its offset.
    pub(crate) fn append(
        &mut self,
        stamp: i64,
        readable_at: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> i64 {
        self.push(stamp, readable_at, key, value, None)
    }

    /// Appends a record of a transaction, which is open from its first record to [`Self::end_transaction`]. Each
    /// transaction has a number of its own.
    pub(crate) fn append_in(
        &mut self,
        transaction: u32,
        stamp: i64,
        readable_at: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> i64 {
        self.open.entry(transaction).or_insert(self.next);
        self.push(stamp, readable_at, key, value, Some(transaction))
    }

    fn push(
        &mut self,
        stamp: i64,
        readable_at: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        transaction: Option<u32>,
    ) -> i64 {
        let offset = self.take_offset(readable_at);
        let record = Logged {
            offset,
            stamp,
            key: key.map(<[u8]>::to_vec),
            value: value.map(<[u8]>::to_vec),
        };
        self.entries.push(Entry::Data {
            record,
            transaction,
        });
        offset
    }

    fn take_offset(&mut self, readable_at: i64) -> i64 {
        let offset = self.next;
        self.next += 1;
        self.last_readable_at = self.last_readable_at.max(readable_at);
        self.readable_at.insert(offset, self.last_readable_at);
        offset
    }

    /// Ends a transaction with a marker, which takes an offset.
    pub(crate) fn end_transaction(&mut self, transaction: u32, committed: bool, readable_at: i64) {
        self.open
            .remove(&transaction)
            .expect("the transaction is open");
        if !committed {
            self.aborted.insert(transaction);
        }
        let offset = self.take_offset(readable_at);
        self.entries.push(Entry::Marker { offset });
    }

    /// The offset of the next record, written or not.
    pub(crate) fn next_offset(&self) -> i64 {
        self.next
    }

    /// Whether the record is there still: compaction may have taken it.
    pub(crate) fn has(&self, offset: i64) -> bool {
        self.entries.iter().any(|entry| entry.offset() == offset)
    }

    /// The end offset as a `read_uncommitted` client is told.
    pub(crate) fn log_end(&self, now: i64) -> i64 {
        let hidden = self.readable_at.iter().find(|(_, at)| **at > now);
        hidden.map_or(self.next, |(offset, _)| *offset)
    }

    /// The end that a `read_committed` client sees.
    pub(crate) fn stable_end(&self, now: i64) -> i64 {
        let first_open = self.open.values().min().copied().unwrap_or(i64::MAX);
        self.log_end(now).min(first_open)
    }

    /// The offset of the record with the largest stamp (KIP-734): `None` while that record is not below the end offset,
    /// and where there is none.
    pub(crate) fn max_timestamp(&self, now: i64) -> Option<i64> {
        let data = self.entries.iter().filter_map(|entry| match entry {
            Entry::Data { record, .. } => Some((record.stamp, record.offset)),
            Entry::Marker { .. } => None,
        });
        let (_, offset) =
            data.max_by_key(|(stamp, offset)| (*stamp, std::cmp::Reverse(*offset)))?;
        (offset < self.log_end(now)).then_some(offset)
    }

    /// Reads as a `read_committed` consumer, at most `max` records.
    pub(crate) fn read(&self, from: i64, max: usize, now: i64) -> Read {
        let end = self.stable_end(now);
        let mut records = Vec::new();
        let mut next_offset = from;
        for entry in self
            .entries
            .iter()
            .filter(|entry| (from..end).contains(&entry.offset()))
        {
            if records.len() == max {
                return Read {
                    records,
                    next_offset,
                    at_end: false,
                };
            }
            next_offset = entry.offset() + 1;
            if let Entry::Data {
                record,
                transaction,
            } = entry
                && !transaction.is_some_and(|transaction| self.aborted.contains(&transaction))
            {
                records.push(record.clone());
            }
        }
        // What was compacted away at the tail does not move the position: only the end-of-partition event tells.
        Read {
            records,
            next_offset,
            at_end: true,
        }
    }

    /// Compacts, as Kafka does: only the log up to the first record stamped at or after `before` is looked at
    /// (`min.compaction.lag.ms`); in it a record goes where a later one has its key. Tombstones stamped before
    /// `tombstones_before` go too. The last record of the log stays, as the active segment does.
    pub(crate) fn compact(&mut self, before: i64, tombstones_before: i64, now: i64) {
        let young = self.entries.iter().find_map(|entry| match entry {
            Entry::Data { record, .. } if record.stamp >= before => Some(record.offset),
            _ => None,
        });
        let end = self.stable_end(now).min(young.unwrap_or(i64::MAX));
        let last_offset = self.next - 1;
        let mut latest: BTreeMap<Vec<u8>, i64> = BTreeMap::new();
        for entry in &self.entries {
            if let Entry::Data { record, .. } = entry
                && record.offset < end
                && !self.is_aborted(entry)
            {
                latest.insert(record.key.clone().unwrap_or_default(), record.offset);
            }
        }
        let aborted = self.aborted.clone();
        self.entries.retain(|entry| {
            let Entry::Data {
                record,
                transaction,
            } = entry
            else {
                return true;
            };
            if record.offset >= end || record.offset == last_offset {
                return true;
            }
            if transaction.is_some_and(|transaction| aborted.contains(&transaction)) {
                return false;
            }
            let key = record.key.clone().unwrap_or_default();
            let is_latest = latest.get(&key) == Some(&record.offset);
            is_latest && (record.value.is_some() || record.stamp >= tombstones_before)
        });
    }

    fn is_aborted(&self, entry: &Entry) -> bool {
        matches!(entry, Entry::Data { transaction: Some(id), .. } if self.aborted.contains(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(read: &Read) -> Vec<&str> {
        read.records
            .iter()
            .map(|record| {
                record
                    .value
                    .as_deref()
                    .map_or("-", |v| std::str::from_utf8(v).unwrap())
            })
            .collect()
    }

    #[test]
    fn a_stamped_record_that_is_not_replicated_hides_the_end_and_the_largest_stamp() {
        let mut log = PartitionLog::default();
        log.append(10, 10, Some(b"a"), Some(b"1"));
        log.append(20, 9_000, Some(b"b"), Some(b"2"));
        log.append(21, 25, Some(b"c"), Some(b"3"));
        assert_eq!((log.log_end(30), log.max_timestamp(30)), (1, None));
        assert_eq!(values(&log.read(0, 10, 30)), ["1"]);
        assert_eq!((log.log_end(9_000), log.max_timestamp(9_000)), (3, Some(2)));
    }

    #[test]
    fn an_open_transaction_holds_readers_back_and_not_the_end() {
        let mut log = PartitionLog::default();
        log.append(1, 1, Some(b"a"), Some(b"1"));
        log.append_in(7, 2, 2, Some(b"a"), Some(b"in"));
        log.append(3, 3, Some(b"b"), Some(b"2"));
        assert_eq!((log.stable_end(5), log.log_end(5)), (1, 3));
        let mut aborted = log.clone();
        log.end_transaction(7, true, 4);
        aborted.end_transaction(7, false, 4);
        assert_eq!(values(&log.read(0, 10, 5)), ["1", "in", "2"]);
        let read = aborted.read(0, 10, 5);
        assert_eq!(
            (values(&read), read.next_offset, read.at_end),
            (vec!["1", "2"], 4, true)
        );
    }

    #[test]
    fn compaction_keeps_the_latest_of_each_key_and_leaves_gaps() {
        let mut log = PartitionLog::default();
        for (stamp, key, value) in [
            (1, "a", Some("1")),
            (2, "b", Some("2")),
            (3, "a", Some("3")),
            (4, "b", None),
            (5, "c", Some("5")),
        ] {
            log.append(stamp, stamp, Some(key.as_bytes()), value.map(str::as_bytes));
        }
        let mut young = log.clone();
        young.compact(3, 0, 9);
        assert_eq!(
            values(&young.read(0, 10, 9)).len(),
            5,
            "what follows is young"
        );
        young.compact(4, 0, 9);
        assert_eq!(
            values(&young.read(0, 10, 9)),
            ["2", "3", "-", "5"],
            "only what is old enough"
        );
        log.compact(100, 0, 9);
        assert_eq!(values(&log.read(0, 10, 9)), ["3", "-", "5"]);
        log.compact(100, 100, 9);
        let read = log.read(0, 1, 9);
        assert_eq!(
            (values(&read), read.next_offset, read.at_end),
            (vec!["3"], 3, false)
        );
        assert_eq!(log.log_end(9), 5);
    }
}
