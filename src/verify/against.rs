//! Two output topics side by side: every record that is unflagged in both must have the same key, value and
//! `ringfence-at` (I10). Records are paired by their source; the first occurrence of each counts.

use std::collections::HashMap;

use serde::Serialize;

use crate::codec::headers;
use crate::telemetry::RecordRef;

use super::source::Stored;

/// How many differing records are named.
const NAMED: usize = 10;

/// Which of the two topics a record is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

#[derive(Debug)]
enum Half {
    Waiting(Side, Box<Stored>),
    Paired,
}

/// What the comparison found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Difference {
    /// Records in both.
    pub pairs: u64,
    /// Pairs unflagged in both, so compared byte by byte.
    pub compared: u64,
    /// Compared pairs that differ.
    pub different: u64,
    /// The first of them: `partition:offset: what`.
    pub first: Vec<String>,
    /// Records of the first topic alone, within the range of sources that both cover.
    pub only_left: u64,
    /// Records of the second topic alone, within that range.
    pub only_right: u64,
    /// Records without a readable source header.
    pub unreadable: u64,
}

impl Difference {
    /// Whether all compared records are the same and none is missing.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.different + self.only_left + self.only_right + self.unreadable == 0
            && self.compared > 0
    }
}

/// Pairs the records of two output topics.
#[derive(Debug, Default)]
pub struct Comparison {
    halves: HashMap<(i32, i64), Half>,
    /// The range of source offsets of each partition and side.
    ranges: HashMap<(i32, bool), (i64, i64)>,
    found: Difference,
}

impl Comparison {
    /// Takes a record of the first topic.
    pub fn left(&mut self, record: &RecordRef<'_>) {
        self.take(Side::Left, record);
    }

    /// Takes a record of the second topic.
    pub fn right(&mut self, record: &RecordRef<'_>) {
        self.take(Side::Right, record);
    }

    fn take(&mut self, side: Side, record: &RecordRef<'_>) {
        let stored = Stored::of(record);
        let source = stored.header(headers::SOURCE).and_then(|source| {
            let (partition, offset) = source.split_once(':')?;
            Some((partition.parse().ok()?, offset.parse().ok()?))
        });
        let Some(source) = source else {
            self.found.unreadable += 1;
            return;
        };
        let range = self
            .ranges
            .entry((source.0, side == Side::Left))
            .or_insert((source.1, source.1));
        *range = (range.0.min(source.1), range.1.max(source.1));
        match self.halves.get_mut(&source) {
            None => {
                self.halves
                    .insert(source, Half::Waiting(side, Box::new(stored)));
            }
            Some(half) => match std::mem::replace(half, Half::Paired) {
                Half::Waiting(other, first) if other == side => {
                    *half = Half::Waiting(other, first); // a duplicate: the first counts
                }
                Half::Waiting(_, first) => self.compare(source, &first, &stored),
                Half::Paired => {}
            },
        }
    }

    fn compare(&mut self, source: (i32, i64), first: &Stored, second: &Stored) {
        self.found.pairs += 1;
        if first.header(headers::FLAGS).is_some() || second.header(headers::FLAGS).is_some() {
            return;
        }
        self.found.compared += 1;
        let what = if first.value != second.value {
            "values differ"
        } else if first.key != second.key {
            "keys differ"
        } else if first.header(headers::AT) != second.header(headers::AT) {
            "instants differ"
        } else {
            return;
        };
        self.found.different += 1;
        if self.found.first.len() < NAMED {
            self.found
                .first
                .push(format!("{}:{}: {what}", source.0, source.1));
        }
    }

    /// Records that wait for their other half.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.halves
            .values()
            .filter(|half| matches!(half, Half::Waiting(..)))
            .count()
    }

    /// What was found, once both topics are read.
    #[must_use]
    pub fn finish(mut self) -> Difference {
        for ((partition, offset), half) in &self.halves {
            let Half::Waiting(side, _) = half else {
                continue;
            };
            // Alone counts only where the other topic has earlier and later ones.
            let other = self.ranges.get(&(*partition, *side == Side::Right));
            if other.is_some_and(|(from, to)| from < offset && offset < to) {
                match side {
                    Side::Left => self.found.only_left += 1,
                    Side::Right => self.found.only_right += 1,
                }
            }
        }
        self.found
    }
}
