//! Wrong memberships after many random changes, against a linear search over the zones as they are now, with geo's exact
//! `Intersects`: no code shared with the index.

use std::collections::{BTreeMap, BTreeSet};

use geo::{Intersects, Polygon};
use ringfence::geometry::Position;
use ringfence::time::EventTime;
use ringfence::zone::{StagedChange, ZoneChange, ZoneId};

use crate::support::measure::{self, Row, Spread, Target};
use crate::support::{self, Seeded, plain};

const SIDE: usize = 32;
const PER_EDGE: usize = 16;
const CHANGES: usize = 10_000;

/// Counts the queries whose zones are not the oracle's.
pub(crate) fn memberships() {
    let points = if measure::is_quick() { 300 } else { 10_000 };
    let seed = 4_711;
    let mut seeded = Seeded::new(seed);
    let mut pick = move |below: usize| (seeded.unit() * below as f64) as usize;
    let zones = SIDE * SIDE;
    let mut index = support::index(&support::tessellation(SIDE, PER_EDGE));
    let mut rings: BTreeMap<String, Vec<Position>> = (0..zones)
        .map(|number| {
            let ring = support::cell(SIDE, number, PER_EDGE);
            (support::zone_id(number), ring)
        })
        .collect();
    let mut made = 0;
    while made < CHANGES {
        let count = (1 + pick(40)).min(CHANGES - made);
        let changes: Vec<StagedChange> = (0..count)
            .map(|place| {
                let offset = (zones + made + place) as i64;
                let number = pick(zones + 200);
                let id = support::zone_id(number);
                // Cells of another, coarser world too: zones overlap.
                let side = [SIDE, 11][pick(2)];
                let ring = support::cell(side, pick(side * side), PER_EDGE);
                let mut change = support::upsert(number, ring.clone(), offset);
                if pick(4) == 0 {
                    change.change = ZoneChange::Remove;
                    change.zone_id = ZoneId::new(&id);
                    rings.remove(&id);
                } else {
                    rings.insert(id, ring);
                }
                change
            })
            .collect();
        made += count;
        index = index
            .promote(
                &changes,
                EventTime::clamped((zones + made) as i64),
                &support::RULES,
            )
            .expect("it builds")
            .index;
    }
    let oracle: Vec<(&str, Polygon<f64>)> = rings
        .iter()
        .map(|(id, ring)| (id.as_str(), plain::polygon(std::slice::from_ref(ring))))
        .collect();
    let vertices: Vec<Position> = rings.values().flatten().copied().collect();
    let at = EventTime::clamped(1_700_000_000_000);
    let mut seeded = Seeded::new(seed + 1);
    let wrong = (0..points)
        .filter(|number| {
            // Every other point is a vertex of a zone: on its boundary, and often on its neighbours'.
            let position = if number % 2 == 0 {
                vertices[(seeded.unit() * vertices.len() as f64) as usize]
            } else {
                Position {
                    lon: seeded.unit(),
                    lat: seeded.unit(),
                }
            };
            let found: BTreeSet<&str> = index
                .zones_at(position, at)
                .iter()
                .map(|version| version.zone().id.as_str())
                .collect();
            let point = geo::Point::new(position.lon, position.lat);
            let right = oracle
                .iter()
                .filter(|(_, polygon)| polygon.intersects(&point))
                .map(|(id, _)| *id)
                .collect();
            found != right
        })
        .count();
    Row {
        what: &format!("wrong memberships after 10 k random changes, seed {seed} (half the points on boundaries)"),
        ours: format!("{wrong} of {points}"),
        baseline: "linear search with geo".to_owned(),
        value: Spread::once(wrong as f64),
        target: Target::AtMost(0.0, 0.0),
    }
    .report();
    assert_eq!(wrong, 0, "seed {seed}");
}
