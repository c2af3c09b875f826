//! What the witness found: counts by kind and partition with the first offsets of each, what was set aside and why, and
//! the verdict. Text for people, JSON for machines.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// How many offsets of a kind are named per partition.
const OFFSETS_NAMED: usize = 5;
/// How many findings are told in words.
const NOTES_MAX: usize = 20;

/// A kind of finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// Committed, and in no output.
    Lost,
    /// In the outputs more than once. Allowed at least once.
    Duplicate,
    /// Its first output stands behind that of a later record of its partition.
    Reordered,
    /// An output that is not what the two logs say.
    Wrong,
    /// Not in exactly one `jigsaw-*` zone.
    Jigsaw,
    /// An output without a source record, or without readable headers.
    Orphan,
    /// Runs of telemetry that the topic dropped before the audit read them (the first offset of each).
    Unread,
    /// Committed before it was in the outputs: a crash in between would have lost it.
    CommittedEarly,
}

/// How often, and where first.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Tally {
    /// How many records.
    pub count: u64,
    /// The first few offsets.
    pub first: Vec<i64>,
}

/// What was found so far.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Findings by kind, then telemetry partition (-1: unknown).
    pub findings: BTreeMap<Finding, BTreeMap<i32, Tally>>,
    /// Whether a duplicate fails the verdict.
    pub exactly_once: bool,
    /// Telemetry records judged: in a judged range, with all their outputs.
    pub judged: u64,
    /// Outputs whose content was judged.
    pub enriched: u64,
    /// Dead letters of telemetry whose content was judged.
    pub dead_letters: u64,
    /// Dead letters of zone changes.
    pub zone_dead_letters: u64,
    /// Records with each flag.
    pub flags: BTreeMap<String, u64>,
    /// Dead letters of each reason.
    pub reasons: BTreeMap<String, u64>,
    /// Zone changes read, and of those refused.
    pub zone_changes: u64,
    /// Zone changes that are no zone.
    pub zone_changes_rejected: u64,
    /// Changes whose `effective_at` lay before their commit time.
    pub clipped: u64,
    /// The first few of them, `partition:offset`.
    pub clipped_first: Vec<String>,
    /// Wrong values that one change explains which was committed but not applied: the gate was passed too early for it.
    pub gate_violations: u64,
    /// Events that were checked to lie in exactly one `jigsaw-*` zone.
    pub jigsaw_checked: u64,
    /// Events not checked for it: between the two halves of a clipped pair.
    pub jigsaw_excused: u64,
    /// Outputs not judged, by why.
    pub set_aside: BTreeMap<&'static str, u64>,
    /// The judged range of each partition: `[from, to)`.
    pub ranges: BTreeMap<i32, (i64, i64)>,
    /// The first findings in words.
    pub notes: Vec<String>,
}

impl Report {
    pub(super) fn find(
        &mut self,
        finding: Finding,
        partition: i32,
        offset: i64,
        note: impl FnOnce() -> String,
    ) {
        let tally = self
            .findings
            .entry(finding)
            .or_default()
            .entry(partition)
            .or_default();
        tally.count += 1;
        if tally.first.len() < OFFSETS_NAMED {
            tally.first.push(offset);
        }
        if self.notes.len() < NOTES_MAX && finding != Finding::Duplicate {
            let note = note();
            if !note.is_empty() {
                self.notes.push(format!("{partition}:{offset}: {note}"));
            }
        }
    }

    pub(super) fn set_aside(&mut self, why: &'static str) {
        *self.set_aside.entry(why).or_default() += 1;
    }

    /// How many records have this finding.
    #[must_use]
    pub fn count(&self, finding: Finding) -> u64 {
        self.findings
            .get(&finding)
            .into_iter()
            .flatten()
            .map(|(_, tally)| tally.count)
            .sum()
    }

    /// The first offsets with this finding, over all partitions.
    #[must_use]
    pub fn first(&self, finding: Finding) -> Vec<(i32, i64)> {
        let by_partition = self.findings.get(&finding).into_iter().flatten();
        by_partition
            .flat_map(|(partition, tally)| tally.first.iter().map(|offset| (*partition, *offset)))
            .collect()
    }

    /// Whether nothing was found that must not be.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings
            .keys()
            .all(|finding| *finding == Finding::Duplicate && !self.exactly_once)
    }

    /// Whether there was anything to judge: a witness who saw nothing says so, and clears nobody.
    #[must_use]
    pub fn saw_something(&self) -> bool {
        self.judged > 0 && self.enriched + self.dead_letters > 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "judged {} telemetry records in {} partitions: {} enriched outputs, {} dead letters",
            self.judged,
            self.ranges.len(),
            self.enriched,
            self.dead_letters
        )?;
        for (finding, name) in [
            (Finding::Lost, "lost"),
            (Finding::Duplicate, "duplicate"),
            (Finding::Reordered, "reordered"),
            (Finding::Wrong, "wrong"),
            (Finding::Orphan, "orphan"),
            (Finding::CommittedEarly, "committed early"),
            (Finding::Unread, "unread runs"),
        ] {
            write!(f, "  {name:<16}{}", self.count(finding))?;
            if finding == Finding::Duplicate && !self.exactly_once && self.count(finding) > 0 {
                write!(f, " (allowed at least once)")?;
            }
            writeln!(f)?;
            for (partition, tally) in self.findings.get(&finding).into_iter().flatten() {
                let first: Vec<String> = tally.first.iter().map(ToString::to_string).collect();
                let more = if tally.count > first.len() as u64 {
                    ", …"
                } else {
                    ""
                };
                writeln!(
                    f,
                    "    partition {partition}: {} at {}{more}",
                    tally.count,
                    first.join(", ")
                )?;
            }
        }
        if self.jigsaw_checked + self.jigsaw_excused > 0 {
            writeln!(
                f,
                "  jigsaw          {} of {} unflagged events not in exactly one jigsaw zone ({} excused)",
                self.count(Finding::Jigsaw),
                self.jigsaw_checked,
                self.jigsaw_excused
            )?;
        }
        writeln!(
            f,
            "zone changes {}: {} rejected, {} clipped, gate violations seen in {} outputs",
            self.zone_changes, self.zone_changes_rejected, self.clipped, self.gate_violations
        )?;
        if !self.clipped_first.is_empty() {
            writeln!(f, "  clipped: {}", self.clipped_first.join(", "))?;
        }
        for (title, counts) in [("flags", &self.flags), ("dead letters", &self.reasons)] {
            if !counts.is_empty() {
                let list: Vec<String> = counts
                    .iter()
                    .map(|(name, n)| format!("{name} {n}"))
                    .collect();
                writeln!(f, "{title}: {}", list.join(", "))?;
            }
        }
        for (why, count) in &self.set_aside {
            writeln!(f, "not judged: {count} ({why})")?;
        }
        for note in &self.notes {
            writeln!(f, "  {note}")?;
        }
        f.write_str(match (self.is_clean(), self.saw_something()) {
            (true, true) => "verdict: clean",
            (true, false) => "verdict: nothing to judge",
            (false, _) => "verdict: NOT clean",
        })
    }
}
