//! Two output topics side by side: every record that is unflagged in both must have the same key, value and
//! `ringfence-at` (I10). Records are paired by their source; the first occurrence of each counts. One that stands alone
//! is a difference too, unless what the other topic lacks is explained: see [`Known`].

use std::collections::{BTreeMap, HashMap};

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
    /// Records of the first topic alone, before or behind all that the second has of their partition, or of a partition
    /// that it has nothing of.
    pub beyond_left: u64,
    /// Likewise of the second topic.
    pub beyond_right: u64,
    /// Of those beyond, the ones that the other topic cannot have, or need not have any more.
    pub explained: u64,
    /// Where the topics begin and end differently, by partition.
    pub ranges: Vec<String>,
    /// Records without a readable source header.
    pub unreadable: u64,
}

impl Difference {
    /// Whether all that both topics cover is the same, and nothing is missing in between.
    #[must_use]
    pub fn is_same_in_overlap(&self) -> bool {
        self.different + self.only_left + self.only_right + self.unreadable == 0
            && self.compared > 0
    }

    /// Records beyond what the other topic covers for which there is no explanation.
    #[must_use]
    pub fn unexplained(&self) -> u64 {
        self.beyond_left + self.beyond_right - self.explained
    }

    /// Whether all compared records are the same, and none is missing without an explanation.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.is_same_in_overlap() && self.unexplained() == 0
    }
}

/// What explains that a topic begins later than the other, or lacks a partition of it.
///
/// A replay reads what the telemetry topic still has; and an output topic forgets its oldest records too. Nothing
/// explains that one ends earlier: it is not finished, or it lost records.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The oldest record of each partition that the telemetry topic still has.
    pub telemetry_from: BTreeMap<i32, i64>,
    /// Whether the first topic has forgotten its oldest records.
    pub left_forgets: bool,
    /// Whether the second topic has.
    pub right_forgets: bool,
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
    pub fn finish(mut self, known: &Known) -> Difference {
        for ((partition, offset), half) in &self.halves {
            let Half::Waiting(side, _) = half else {
                continue;
            };
            let is_left = *side == Side::Left;
            let other = self.ranges.get(&(*partition, !is_left));
            let found = &mut self.found;
            if other.is_some_and(|(from, to)| from < offset && offset < to) {
                *if is_left {
                    &mut found.only_left
                } else {
                    &mut found.only_right
                } += 1;
                continue;
            }
            *if is_left {
                &mut found.beyond_left
            } else {
                &mut found.beyond_right
            } += 1;
            let is_before = other.is_some_and(|(from, _)| offset < from);
            let is_behind = other.is_some_and(|(_, to)| offset > to);
            let other_forgets = if is_left {
                known.right_forgets
            } else {
                known.left_forgets
            };
            let source = known.telemetry_from.get(partition);
            let has_no_source = source.is_some_and(|from| offset < from) && !is_behind;
            found.explained += u64::from(has_no_source || is_before && other_forgets);
        }
        self.found.ranges = self.uneven();
        self.found
    }

    /// The partitions that the topics do not begin and end with alike.
    fn uneven(&self) -> Vec<String> {
        let partitions: std::collections::BTreeSet<i32> = self
            .ranges
            .keys()
            .map(|(partition, _)| *partition)
            .collect();
        let covered = |partition, is_left| {
            self.ranges.get(&(partition, is_left)).map_or_else(
                || "nothing".to_owned(),
                |(from, last)| format!("{from} to {last}"),
            )
        };
        partitions
            .into_iter()
            .map(|partition| {
                (
                    partition,
                    covered(partition, true),
                    covered(partition, false),
                )
            })
            .filter(|(_, left, right)| left != right)
            .map(|(partition, left, right)| {
                format!("partition {partition}: {left} in the first, {right} in the second")
            })
            .collect()
    }
}
