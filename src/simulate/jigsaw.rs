//! The zones of the simulated world: rows of zones side by side whose common borders, staircases of three steps, move
//! within lanes of their own; and round depots over them that move, close and expire, for everything else that zones do.

use std::time::Duration;

use crate::time::EventTime;

use super::rng::Rng;
use super::{Micro, SOUTH, WEST, push_degrees};

/// The width and height of a zone at rest.
const CELL: Micro = 10_000;
/// Steps of a border.
const STEPS: usize = 3;
/// One depot for so many jigsaw zones.
const ZONES_PER_DEPOT: usize = 20;

/// A record for the zones topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneRecord {
    /// The zone id.
    pub key: String,
    /// A Feature, or a deletion with its instant.
    pub value: Vec<u8>,
}

/// Where a border stands in each of its steps, south to north.
type Border = [Micro; STEPS];

/// A tiling whose borders move.
#[derive(Clone, Debug)]
pub struct Jigsaw {
    /// Of each row its borders, west to east, the fixed outer ones among them.
    rows: Vec<Vec<Border>>,
    width: Micro,
    depots: usize,
    rng: Rng,
}

impl Jigsaw {
    /// A tiling of this many zones, at least one.
    #[must_use]
    pub fn new(zones: usize, seed: u64) -> Self {
        let zones = zones.max(1);
        let columns = zones.isqrt().max(1);
        let row_count = zones.div_ceil(columns);
        let micro = |count: usize| Micro::try_from(count).expect("zones are few");
        let width = micro(columns) * CELL;
        let rows = (0..row_count)
            .map(|row| {
                let count = columns.min(zones - row * columns);
                (0..=count)
                    .map(|j| [even(width * micro(j) / micro(count)); STEPS])
                    .collect()
            })
            .collect();
        Self {
            rows,
            width,
            depots: zones / ZONES_PER_DEPOT,
            rng: Rng::new(seed),
        }
    }

    /// Width and height of the tiled area in millionths of a degree.
    #[must_use]
    pub fn size(&self) -> (i64, i64) {
        (
            self.width,
            CELL * Micro::try_from(self.rows.len()).expect("rows are few"),
        )
    }

    /// How many zones tile the area.
    #[must_use]
    pub fn zone_count(&self) -> usize {
        self.rows.iter().map(|borders| borders.len() - 1).sum()
    }

    /// The ids of the tiling's zones.
    pub fn ids(&self) -> impl Iterator<Item = String> {
        let zones = self.rows.iter().enumerate();
        zones.flat_map(|(row, borders)| (0..borders.len() - 1).map(move |column| id(row, column)))
    }

    /// Every zone as it stands, all in force from `effective_at` on.
    pub fn publish(&mut self, effective_at: EventTime) -> Vec<ZoneRecord> {
        let mut records = Vec::new();
        for row in 0..self.rows.len() {
            for column in 0..self.rows[row].len() - 1 {
                records.push(self.record(row, column, effective_at));
            }
        }
        for depot in 0..self.depots {
            records.push(self.depot(depot, effective_at, None));
        }
        records
    }

    /// The next change: mostly a border that moves, so two records. All of them are in force from `effective_at` on,
    /// which must not be before that of any earlier call, as a zone's later record tells all that happened before.
    pub fn change(&mut self, effective_at: EventTime) -> Vec<ZoneRecord> {
        if self.depots > 0 && self.rng.chance(0.05) {
            return vec![self.depot_change(effective_at)];
        }
        let movable: u64 = self
            .rows
            .iter()
            .map(|borders| borders.len() as u64 - 2)
            .sum();
        if movable == 0 {
            return Vec::new();
        }
        let mut number = usize::try_from(self.rng.below(movable)).expect("zones are few");
        let mut row = 0;
        while number >= self.rows[row].len() - 2 {
            number -= self.rows[row].len() - 2;
            row += 1;
        }
        let border = number + 1;
        let count = Micro::try_from(self.rows[row].len() - 1).expect("zones are few");
        let lane = self.width / count;
        let center = self.width * Micro::try_from(border).expect("zones are few") / count;
        for step in 0..STEPS {
            // A lane's middle half is its border's own, so neighbouring borders never meet.
            self.rows[row][border][step] = even(center + self.rng.between(-lane / 4, lane / 4));
        }
        vec![
            self.record(row, border - 1, effective_at),
            self.record(row, border, effective_at),
        ]
    }

    fn depot_change(&mut self, effective_at: EventTime) -> ZoneRecord {
        let depot = usize::try_from(self.rng.below(self.depots as u64)).expect("depots are few");
        match self.rng.below(4) {
            0 => {
                let mut value = format!("{{\"id\":\"depot-{depot}\",\"deleted\":true").into_bytes();
                value.extend_from_slice(b",\"effective_at\":");
                value.extend_from_slice(
                    itoa::Buffer::new().format(effective_at.millis()).as_bytes(),
                );
                value.push(b'}');
                ZoneRecord {
                    key: format!("depot-{depot}"),
                    value,
                }
            }
            1 => {
                let open = Duration::from_millis(self.rng.below(20_000));
                self.depot(depot, effective_at, Some(effective_at.plus(open)))
            }
            _ => self.depot(depot, effective_at, None),
        }
    }

    fn record(&self, row: usize, column: usize, effective_at: EventTime) -> ZoneRecord {
        let key = id(row, column);
        let south = CELL * Micro::try_from(row).expect("rows are few");
        let (west, east) = (&self.rows[row][column], &self.rows[row][column + 1]);
        let height = |step: usize| {
            south + even(CELL * Micro::try_from(step).expect("steps are few") / STEPS as Micro)
        };
        let mut ring: Vec<(Micro, Micro)> = Vec::with_capacity(4 * STEPS + 1);
        for (step, &lon) in east.iter().enumerate() {
            ring.extend([(lon, height(step)), (lon, height(step + 1))]);
        }
        for (step, &lon) in west.iter().enumerate().rev() {
            ring.extend([(lon, height(step + 1)), (lon, height(step))]);
        }
        ring.push(ring[0]);
        ring.dedup(); // where two steps stand at one longitude
        let mut value = head(&key, effective_at, None);
        value.extend_from_slice(b"},\"geometry\":{\"type\":\"Polygon\",\"coordinates\":[[");
        for (i, &(lon, lat)) in ring.iter().enumerate() {
            value.extend_from_slice(if i > 0 { b",[" } else { b"[" });
            push_degrees(&mut value, WEST + lon);
            value.push(b',');
            push_degrees(&mut value, SOUTH + lat);
            value.push(b']');
        }
        value.extend_from_slice(b"]]}}");
        ZoneRecord { key, value }
    }

    fn depot(&mut self, depot: usize, from: EventTime, until: Option<EventTime>) -> ZoneRecord {
        let key = format!("depot-{depot}");
        let (width, height) = self.size();
        let (lon, lat) = (self.rng.between(0, width), self.rng.between(0, height));
        let radius_m = self.rng.between(200, 2_000);
        let mut value = head(&key, from, until);
        value.extend_from_slice(
            format!(
                ",\"radius_m\":{radius_m}}},\"geometry\":{{\"type\":\"Point\",\"coordinates\":["
            )
            .as_bytes(),
        );
        push_degrees(&mut value, WEST + lon);
        value.push(b',');
        push_degrees(&mut value, SOUTH + lat);
        value.extend_from_slice(b"]}}");
        ZoneRecord { key, value }
    }
}

fn id(row: usize, column: usize) -> String {
    format!("jigsaw-{row}-{column}")
}

/// A Feature up to inside its open properties.
fn head(key: &str, effective_at: EventTime, expires_at: Option<EventTime>) -> Vec<u8> {
    let mut head = format!(
        "{{\"type\":\"Feature\",\"id\":\"{key}\",\"properties\":{{\"effective_at\":{}",
        effective_at.millis()
    );
    if let Some(expires_at) = expires_at {
        head.push_str(&format!(",\"expires_at\":{}", expires_at.millis()));
    }
    head.into_bytes()
}

/// The even number at or below.
fn even(micro: Micro) -> Micro {
    micro.div_euclid(2) * 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::zone_change::{ZoneRules, decode};
    use crate::geometry::{Position, ShapeRules};
    use crate::zone::ZoneChange;

    fn areas(records: &[ZoneRecord]) -> Vec<(String, crate::geometry::Area)> {
        let rules = ZoneRules::new(ShapeRules::default(), 1 << 20, &[]);
        let mut areas = Vec::new();
        for record in records
            .iter()
            .filter(|record| record.key.starts_with("jigsaw-"))
        {
            let change = decode(Some(record.key.as_bytes()), Some(&record.value), &rules)
                .unwrap_or_else(|why| panic!("{}: {why}", record.key));
            let ZoneChange::Upsert(zone) = change.change else {
                panic!("not an upsert")
            };
            areas.push((record.key.clone(), zone.area.clone()));
        }
        areas
    }

    #[test]
    fn every_odd_place_lies_in_exactly_one_zone_after_any_moves() {
        for (zones, seed) in [(1, 1), (2, 2), (7, 3), (30, 4), (101, 5)] {
            let mut jigsaw = Jigsaw::new(zones, seed);
            assert_eq!(jigsaw.zone_count(), zones);
            assert_eq!(jigsaw.ids().count(), zones);
            let at = EventTime::clamped(0);
            let mut now: std::collections::BTreeMap<_, _> =
                areas(&jigsaw.publish(at)).into_iter().collect();
            let mut rng = Rng::new(seed);
            let (width, height) = jigsaw.size();
            for _ in 0..60 {
                let records = jigsaw.change(at);
                now.extend(areas(&records));
                let lon = WEST + rng.between(0, width / 2 - 1) * 2 + 1;
                let lat = SOUTH + rng.between(0, height / 2 - 1) * 2 + 1;
                let mut text = Vec::new();
                push_degrees(&mut text, lon);
                let lon: f64 = String::from_utf8(text).unwrap().parse().unwrap();
                let mut text = Vec::new();
                push_degrees(&mut text, lat);
                let lat: f64 = String::from_utf8(text).unwrap().parse().unwrap();
                let count = now
                    .values()
                    .filter(|area| area.covers(Position { lon, lat }))
                    .count();
                assert_eq!(count, 1, "seed {seed}, {zones} zones, {lon} {lat}");
            }
        }
    }

    #[test]
    fn a_seed_decides_the_world() {
        let run = |seed| {
            let mut jigsaw = Jigsaw::new(40, seed);
            let mut all = jigsaw.publish(EventTime::clamped(5));
            (0..50).for_each(|i| all.extend(jigsaw.change(EventTime::clamped(i))));
            all
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }

    #[test]
    fn depots_are_valid_changes() {
        let rules = ZoneRules::new(ShapeRules::default(), 1 << 20, &[]);
        let mut jigsaw = Jigsaw::new(100, 9);
        let mut kinds = [0; 3];
        for _ in 0..2_000 {
            for record in jigsaw.change(EventTime::clamped(5)) {
                if record.key.starts_with("depot-") {
                    let change = decode(Some(record.key.as_bytes()), Some(&record.value), &rules);
                    match change.unwrap() {
                        change if matches!(change.change, ZoneChange::Remove) => kinds[0] += 1,
                        change if change.expires_at.is_some() => kinds[1] += 1,
                        _ => kinds[2] += 1,
                    }
                }
            }
        }
        assert!(kinds.iter().all(|count| *count > 5), "{kinds:?}");
    }
}
