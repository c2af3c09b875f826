//! zones(t) by the witness's own bookkeeping (DESIGN 4): every change of every zone with the instants it rules, found
//! by place through a hash grid whose cells follow the size of each shape. Plain and slow beside the daemon's index,
//! and made of none of its parts.

use std::collections::HashMap;
use std::sync::Arc;

use crate::geometry::Position;
use crate::partition::RecordPosition;
use crate::time::EventTime;

use super::shape::{Bounds, Covers, Shape};

/// The finest level of the grid: cells of 360° / 2^20, some 40 m.
const LEVEL_MAX: u8 = 20;

/// A change as the log has it.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) zone: Arc<str>,
    pub(super) position: RecordPosition,
    pub(super) commit_time: EventTime,
    pub(super) valid_from: EventTime,
    pub(super) expires_at: Option<EventTime>,
    /// `None`: the zone is gone.
    pub(super) upsert: Option<Upsert>,
}

/// What an upsert says.
#[derive(Debug)]
pub(super) struct Upsert {
    pub(super) shape: Shape,
    /// The configured properties as they must stand in the output.
    pub(super) properties: Option<Box<str>>,
}

impl Change {
    /// Within a partition offsets decide; across two, commit time, partition, offset (DESIGN 3).
    fn is_after(&self, other: &Self) -> bool {
        let (a, b) = (self.position, other.position);
        if a.partition == b.partition {
            a.offset > b.offset
        } else {
            (self.commit_time, a.partition, a.offset) > (other.commit_time, b.partition, b.offset)
        }
    }
}

#[derive(Debug)]
struct Version {
    change: Change,
    bounds: Option<Bounds>,
    /// It rules in [`valid_from`, `end`).
    end: EventTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Cell {
    level: u8,
    column: u32,
    row: u32,
}

/// A zone at one place and instant.
#[derive(Debug)]
pub(super) struct Hit<'a> {
    pub(super) zone: &'a str,
    pub(super) covers: Covers,
    pub(super) properties: Option<&'a str>,
}

/// All changes read so far.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    versions: Vec<Version>,
    of_zone: HashMap<Arc<str>, Vec<u32>>,
    grid: HashMap<Cell, Vec<u32>>,
    /// How many versions are filed at each level: levels without any are not looked at.
    at_level: [usize; LEVEL_MAX as usize + 1],
}

/// Instants are whole milliseconds up to the year 9999, so this end is never reached.
const NO_END: EventTime = EventTime::MAX;

impl Timeline {
    /// Takes a change, in any order of arrival.
    pub(super) fn add(&mut self, change: Change) {
        let mut end = change.expires_at.unwrap_or(NO_END);
        let number = u32::try_from(self.versions.len()).expect("fewer than 2^32 changes");
        let siblings = self.of_zone.entry(change.zone.clone()).or_default();
        for &sibling in siblings.iter() {
            let sibling = &mut self.versions[sibling as usize];
            if sibling.change.is_after(&change) {
                end = end.min(sibling.change.valid_from);
            } else {
                sibling.end = sibling.end.min(change.valid_from);
            }
        }
        siblings.push(number);
        let bounds = change.upsert.as_ref().map(|upsert| upsert.shape.bounds());
        self.versions.push(Version {
            change,
            bounds,
            end,
        });
        self.file(number);
    }

    fn file(&mut self, number: u32) {
        let version = &self.versions[number as usize];
        let Some(bounds) = version
            .bounds
            .filter(|_| version.change.valid_from < version.end)
        else {
            return; // a removal, or emptied for good
        };
        let size = (bounds.lon_max - bounds.lon_min).max(bounds.lat_max - bounds.lat_min);
        let level = (0..LEVEL_MAX)
            .find(|&level| cell_size(level + 1) < size)
            .unwrap_or(LEVEL_MAX);
        self.at_level[usize::from(level)] += 1;
        let (west, south) = (column(bounds.lon_min, level), row(bounds.lat_min, level));
        for column in west..=column(bounds.lon_max, level) {
            for row in south..=row(bounds.lat_max, level) {
                self.grid
                    .entry(Cell { level, column, row })
                    .or_default()
                    .push(number);
            }
        }
    }

    /// The zones in force at `at` whose shape covers the place or may do so, ids ascending.
    pub(super) fn zones(&self, place: Position, at: EventTime) -> Vec<Hit<'_>> {
        let mut hits = Vec::new();
        for level in (0..=LEVEL_MAX).filter(|&level| self.at_level[usize::from(level)] > 0) {
            let cell = Cell {
                level,
                column: column(place.lon, level),
                row: row(place.lat, level),
            };
            for &number in self.grid.get(&cell).into_iter().flatten() {
                let version = &self.versions[number as usize];
                let rules = version.change.valid_from <= at && at < version.end;
                let Some(upsert) = version.change.upsert.as_ref().filter(|_| rules) else {
                    continue;
                };
                if !version.bounds.is_some_and(|bounds| bounds.holds(place)) {
                    continue;
                }
                let covers = upsert.shape.covers(place);
                if covers != Covers::No {
                    let properties = upsert.properties.as_deref();
                    hits.push(Hit {
                        zone: &version.change.zone,
                        covers,
                        properties,
                    });
                }
            }
        }
        hits.sort_unstable_by_key(|hit| hit.zone);
        hits
    }

    /// Why an output may say `found` of the zone where this timeline says the opposite: the change it must have acted
    /// on, and whether too early or not at all.
    pub(super) fn explain(
        &self,
        zone: &str,
        place: Position,
        at: EventTime,
        as_of: EventTime,
        found: bool,
    ) -> Explanation {
        let Some(numbers) = self.of_zone.get(zone) else {
            return Explanation::UnknownZone;
        };
        let changes = || {
            numbers
                .iter()
                .map(|&number| &self.versions[number as usize].change)
        };
        let says = |change: &Change| {
            let upsert = change.upsert.as_ref();
            upsert.is_some_and(|upsert| upsert.shape.covers(place) == Covers::Yes) == found
        };
        let in_force = changes()
            .filter(|change| change.valid_from <= at)
            .reduce(|last, change| if change.is_after(last) { change } else { last });
        let before = |last: &Change| {
            changes()
                .filter(|change| change.valid_from <= at && last.is_after(change))
                .reduce(|last, change| if change.is_after(last) { change } else { last })
        };
        // Both may fit; the change that is in force and was not applied is the plainer story.
        if let Some(last) = in_force
            && last.commit_time <= as_of
            && !says(last)
            && before(last).map_or(!found, says)
        {
            return Explanation::NotApplied(last.position, last.commit_time);
        }
        changes()
            .filter(|change| change.valid_from > at && says(change))
            .min_by_key(|change| change.valid_from)
            .map_or(Explanation::None, |early| {
                Explanation::TooEarly(early.position, early.valid_from)
            })
    }

    /// Forgets versions that ended before `before`; answers from then on stay exact.
    pub(super) fn forget(&mut self, before: EventTime) {
        let versions = std::mem::take(self).versions;
        for version in versions.into_iter().filter(|version| version.end > before) {
            let number = u32::try_from(self.versions.len()).expect("fewer than before");
            self.of_zone
                .entry(version.change.zone.clone())
                .or_default()
                .push(number);
            self.versions.push(version);
            self.file(number);
        }
    }

    /// How many versions are kept.
    pub(super) fn len(&self) -> usize {
        self.versions.len()
    }
}

/// What a wrong membership may come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Explanation {
    None,
    /// No change ever named the zone.
    UnknownZone,
    /// As if a change had acted before it came into force.
    TooEarly(RecordPosition, EventTime),
    /// As if a change committed at this time were not known: read too late (a gate violation), or skipped.
    NotApplied(RecordPosition, EventTime),
}

fn cell_size(level: u8) -> f64 {
    360.0 / f64::from(1_u32 << level)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "within the globe"
)]
fn column(lon: f64, level: u8) -> u32 {
    ((lon + 180.0) / cell_size(level)).floor() as u32
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "within the globe"
)]
fn row(lat: f64, level: u8) -> u32 {
    ((lat + 90.0) / cell_size(level)).floor() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> EventTime {
        EventTime::clamped(millis)
    }

    fn square(size: f64) -> Shape {
        let corner = |lon, lat| Position { lon, lat };
        let ring = vec![
            corner(0.0, 0.0),
            corner(size, 0.0),
            corner(size, size),
            corner(0.0, size),
            corner(0.0, 0.0),
        ];
        Shape::polygons(&[vec![ring]], false)
    }

    fn change(offset: i64, commit: i64, valid_from: i64, size: Option<f64>) -> Change {
        Change {
            zone: "z".into(),
            position: RecordPosition::new(0, offset),
            commit_time: at(commit),
            valid_from: at(valid_from),
            expires_at: None,
            upsert: size.map(|size| Upsert {
                shape: square(size),
                properties: None,
            }),
        }
    }

    fn zones(timeline: &Timeline, lon: f64, millis: i64) -> usize {
        timeline.zones(Position { lon, lat: 0.5 }, at(millis)).len()
    }

    #[test]
    fn a_later_change_cancels_what_earlier_ones_had_scheduled() {
        let mut timeline = Timeline::default();
        timeline.add(change(2, 30, 30, None));
        timeline.add(change(0, 10, 10, Some(1.0)));
        timeline.add(change(1, 20, 90, Some(5.0)));
        assert_eq!(zones(&timeline, 0.5, 9), 0);
        assert_eq!(zones(&timeline, 0.5, 10), 1);
        assert_eq!(zones(&timeline, 0.5, 29), 1);
        assert_eq!(zones(&timeline, 0.5, 30), 0);
        assert_eq!(zones(&timeline, 0.5, 90), 0, "the schedule was cancelled");
    }

    #[test]
    fn a_scheduled_move_acts_at_its_instant_and_expiry_ends_it() {
        let mut timeline = Timeline::default();
        timeline.add(change(0, 10, 10, Some(1.0)));
        timeline.add(Change {
            expires_at: Some(at(70)),
            ..change(1, 11, 50, Some(5.0))
        });
        assert_eq!(
            (zones(&timeline, 3.0, 49), zones(&timeline, 3.0, 50)),
            (0, 1)
        );
        assert_eq!(
            (zones(&timeline, 3.0, 69), zones(&timeline, 0.5, 70)),
            (1, 0)
        );
        let place = Position { lon: 3.0, lat: 0.5 };
        let early = timeline.explain("z", place, at(49), at(60), true);
        assert_eq!(
            early,
            Explanation::TooEarly(RecordPosition::new(0, 1), at(50))
        );
        let unread = timeline.explain("z", place, at(50), at(60), false);
        assert_eq!(
            unread,
            Explanation::NotApplied(RecordPosition::new(0, 1), at(11))
        );
    }

    #[test]
    fn forgetting_what_ended_changes_no_later_answer() {
        let mut timeline = Timeline::default();
        for i in 0..100 {
            timeline.add(change(i, i, i, Some(1.0 + (i % 3) as f64)));
        }
        let before: Vec<_> = (60..110).map(|t| zones(&timeline, 2.5, t)).collect();
        timeline.forget(at(60));
        assert_eq!(timeline.len(), 40);
        assert_eq!(
            before,
            (60..110)
                .map(|t| zones(&timeline, 2.5, t))
                .collect::<Vec<_>>()
        );
    }
}
