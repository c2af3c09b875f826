//! From one index to the next: changes in, a new index or a failure out. Pure; the index before is left as it is, so a
//! failed promotion can be tried again or split. Validates what it built before anybody sees it (DESIGN 6).

use std::collections::BTreeSet;
use std::fmt;

use rayon::prelude::*;

use super::engine::{Engine, Update};
use super::timeline::{Cut, Displaced, Ruler, TimelineEntry};
use super::versions::{ZoneVersion, zone_byte_len};
use super::{Index, VersionSlot};
use crate::time::EventTime;
use crate::zone::{StagedChange, ZoneChange, ZoneId};

/// What a build must respect.
#[derive(Copy, Clone, Debug)]
pub struct BuildRules {
    /// Most bytes of versions that have ended (`gate.history_bytes`).
    pub history_bytes_max: usize,
    /// Only files the changes: the versions are kept, and nothing can be found by position before a build that does not
    /// file. For what is read from the log's start, where nobody asks before the end: one build then costs far less than
    /// one for each part (DESIGN 4, *Bootstrap*).
    pub filing: bool,
}

/// What a build found out beside the index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildReport {
    /// The latest end of a version that went from the history: the floor is at least there.
    pub dropped_history_end: Option<EventTime>,
    /// Changes whose `version` did not rise; applied all the same.
    pub version_regressions: u64,
    /// Changes of a zone that had one from another partition.
    pub foreign_partition_changes: u64,
    /// Changes that later ones in the log had cancelled.
    pub never_ruled: u64,
}

/// So many zones are validated by one thread at least.
const ZONES_PER_THREAD: usize = 1_024;

/// A removal's version is looked for behind so many others: each was looked after when it came.
const REMOVALS_PASSED: usize = 64;

/// A new index and what was found out.
#[derive(Debug)]
pub struct Built {
    /// The new index.
    pub index: Index,
    /// What was found out.
    pub report: BuildReport,
}

/// Why a build is not to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildFailure {
    /// The zone that gave a wrong answer, if it is one zone.
    pub zone: Option<ZoneId>,
    /// What was wrong.
    pub detail: Box<str>,
}

impl fmt::Display for BuildFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.zone {
            Some(zone) => write!(f, "zone `{zone}`: {}", self.detail),
            None => f.write_str(&self.detail),
        }
    }
}

impl std::error::Error for BuildFailure {}

impl Index {
    /// The index with `changes` in it, in whatever order they come.
    ///
    /// `as_of` is the instant up to which answers are asked for from now on; what ended before it counts as history.
    ///
    /// # Errors
    /// A [`BuildFailure`] where the new index does not answer as its own changes demand.
    pub fn promote(
        &self,
        changes: &[StagedChange],
        as_of: EventTime,
        rules: &BuildRules,
    ) -> Result<Built, BuildFailure> {
        let mut next = Build {
            index: self.clone(),
            update: Update::default(),
            report: BuildReport::default(),
            as_of,
        };
        next.count_ended();
        let mut changed = BTreeSet::new();
        for change in changes {
            next.apply(change);
            // Else all zones are looked at in the end, or none.
            if self.is_searchable && !rules.filing {
                changed.insert(change.zone_id.clone());
            }
        }
        next.forget(rules.history_bytes_max);
        let Build {
            mut index,
            update,
            report,
            ..
        } = next;
        let was_searchable = std::mem::replace(&mut index.is_searchable, !rules.filing);
        let kind = index.kind;
        let Index {
            engine, versions, ..
        } = &mut index;
        if rules.filing {
            *engine = Engine::empty(kind);
            // No tree refers to any slot.
            for (slot, _) in update.dropped {
                versions.empty(slot);
            }
            versions.recycle();
        } else if was_searchable {
            engine.update(update, versions, as_of);
            index.validate(&changed)?;
        } else {
            for (slot, _) in update.dropped {
                versions.empty(slot);
            }
            engine.rebuild(versions, as_of);
            index.validate_all()?;
        }
        Ok(Built { index, report })
    }

    fn validate(&self, changed: &BTreeSet<ZoneId>) -> Result<(), BuildFailure> {
        self.validate_counts()?;
        changed.iter().try_for_each(|id| self.validate_zone(id))
    }

    /// The same of every zone, by all cores.
    fn validate_all(&self) -> Result<(), BuildFailure> {
        self.validate_counts()?;
        let zones: Vec<&ZoneId> = self.timelines.ids(&self.versions).collect();
        // Whichever thread finds one: the first failure in the order of the zones is told, as one thread would.
        let failure = zones
            .par_iter()
            .with_min_len(ZONES_PER_THREAD)
            .find_map_first(|id| self.validate_zone(id).err());
        failure.map_or(Ok(()), Err)
    }

    fn validate_counts(&self) -> Result<(), BuildFailure> {
        if self.engine.entry_count() < self.versions.len() {
            return Err(BuildFailure {
                zone: None,
                detail: format!(
                    "{} index entries for {} zone versions",
                    self.engine.entry_count(),
                    self.versions.len()
                )
                .into(),
            });
        }
        Ok(())
    }

    fn validate_zone(&self, id: &ZoneId) -> Result<(), BuildFailure> {
        let failure = |detail: &str| BuildFailure {
            zone: Some(id.clone()),
            detail: detail.into(),
        };
        let Some(timeline) = self.timeline(id.as_str()) else {
            return Ok(());
        };
        let Some(last) = timeline.entries().last() else {
            return Ok(());
        };
        match last.ruler {
            Ruler::Upsert { slot, .. } => {
                let zone = self.version(slot).zone();
                let at = zone.area.interior_point();
                let is_found = self
                    .zones_at(at, last.valid_from)
                    .iter()
                    .any(|found| std::ptr::eq(found.zone(), zone));
                if !is_found {
                    return Err(failure("not found at a point of its own"));
                }
            }
            Ruler::Remove => {
                let before = timeline
                    .entries()
                    .iter()
                    .rev()
                    .take(REMOVALS_PASSED)
                    .find_map(TimelineEntry::slot);
                if let Some(slot) = before {
                    let at = self.version(slot).zone().area.interior_point();
                    if self
                        .zones_at(at, last.valid_from)
                        .iter()
                        .any(|found| found.zone().id == *id)
                    {
                        return Err(failure("still found after its removal"));
                    }
                }
            }
        }
        Ok(())
    }
}

/// An index in the making.
struct Build {
    index: Index,
    update: Update,
    report: BuildReport,
    as_of: EventTime,
}

impl Build {
    fn apply(&mut self, change: &StagedChange) {
        let id = &change.zone_id;
        let order = change.order();
        let mut timeline = self.index.timeline(id.as_str()).unwrap_or_default();
        let was_alive = timeline.is_alive(self.as_of);
        self.count_oddities(change, &timeline);
        if let ZoneChange::Upsert(zone) = &change.change {
            timeline.version = zone.version.max(timeline.version);
        }
        match timeline.ruled_until(change.valid_from, &order) {
            Err(_) => self.report.never_ruled += 1,
            Ok(ruled_until) => {
                // An upsert that has expired before it begins is a removal (DESIGN 4).
                let upsert = match &change.change {
                    ZoneChange::Upsert(zone)
                        if change
                            .expires_at
                            .is_none_or(|expires| expires > change.valid_from) =>
                    {
                        Some(zone)
                    }
                    _ => None,
                };
                let mut entry = TimelineEntry {
                    valid_from: change.valid_from,
                    ruled_until,
                    order,
                    ruler: Ruler::Remove,
                };
                if let Some(zone) = upsert {
                    let slot = self.index.versions.insert(ZoneVersion::new(
                        zone.clone(),
                        change.valid_from,
                        None,
                        order,
                    ));
                    entry.ruler = Ruler::Upsert {
                        slot,
                        expires_at: change.expires_at,
                    };
                    self.index.versions.set_end(slot, entry.version_end());
                    self.index.area_bytes += zone_byte_len(zone);
                    self.update.added.push(slot);
                }
                self.add(id, &mut timeline, entry);
            }
        }
        let is_alive = timeline.is_alive(self.as_of);
        self.index.in_force_count += usize::from(is_alive);
        self.index.in_force_count -= usize::from(was_alive);
        self.put(id, timeline);
    }

    fn put(&mut self, id: &ZoneId, timeline: super::Timeline) {
        let Index {
            timelines,
            versions,
            ..
        } = &mut self.index;
        timelines.put(id, timeline, versions);
    }

    fn count_oddities(&mut self, change: &StagedChange, timeline: &super::Timeline) {
        if let ZoneChange::Upsert(zone) = &change.change
            && let (Some(version), Some(before)) = (zone.version, timeline.version)
            && version <= before
        {
            self.report.version_regressions += 1;
        }
        if timeline.is_foreign_to(change.position.partition) {
            self.report.foreign_partition_changes += 1;
        }
    }

    fn add(&mut self, id: &ZoneId, timeline: &mut super::Timeline, entry: TimelineEntry) {
        let Index {
            versions, history, ..
        } = &mut self.index;
        let Displaced { cut, gone } = timeline.add(entry);
        if let Some(Cut { longer, shorter }) = cut {
            history.unnote(id, &longer, |old| byte_len(versions, old));
            history.note(id, &shorter, |old| byte_len(versions, old));
            if let Some(slot) = shorter.slot() {
                versions.set_end(slot, shorter.version_end());
                self.update.ended.push(slot);
            }
        }
        history.note(id, &entry, |new| byte_len(versions, new));
        for entry in gone {
            self.drop_entry(id, &entry);
        }
    }

    fn drop_entry(&mut self, id: &ZoneId, entry: &TimelineEntry) {
        let Index {
            versions,
            history,
            area_bytes,
            ..
        } = &mut self.index;
        history.unnote(id, entry, |old| byte_len(versions, old));
        if let Some(slot) = entry.slot() {
            let version = versions.remove(slot);
            *area_bytes -= version.byte_len();
            self.update.dropped.push((slot, version));
        }
    }

    /// Counts what has ended by `as_of`, and the zones that are no longer in force by it. Comes before the changes, so
    /// that these are judged at one `as_of`.
    fn count_ended(&mut self) {
        let counted_to = self.index.history.counted_to();
        let mut ended = BTreeSet::new();
        self.index.history.count_to(self.as_of, |id| {
            ended.insert(id.clone());
        });
        // The first promotion begins with nothing.
        let Some(counted_to) = counted_to else { return };
        for id in ended {
            if let Some(timeline) = self.index.timeline(id.as_str())
                && timeline.is_alive(counted_to)
                && !timeline.is_alive(self.as_of)
            {
                self.index.in_force_count -= 1;
            }
        }
    }

    fn forget(&mut self, history_bytes_max: usize) {
        while self.index.history.bytes() > history_bytes_max {
            let Some((end, id)) = self.index.history.first() else {
                break;
            };
            let mut timeline = self
                .index
                .timeline(id.as_str())
                .expect("what the history knows of has a timeline");
            for entry in timeline.forget(end) {
                if entry.slot().is_some() {
                    let ended = entry.version_end();
                    self.report.dropped_history_end = self.report.dropped_history_end.max(ended);
                }
                self.drop_entry(&id, &entry);
            }
            self.put(&id, timeline);
        }
    }
}

fn byte_len(versions: &super::versions::VersionTable, entry: &TimelineEntry) -> usize {
    entry.slot().map_or(0, |slot: VersionSlot| {
        versions
            .get(slot)
            .map_or(0, |version| zone_byte_len(version.zone()))
    })
}
