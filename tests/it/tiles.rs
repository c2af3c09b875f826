//! The tile engine against the naive answer, every zone asked for itself (I12): at vertices, on edges, one ulp off, on tile
//! borders, at ±180° and the poles; after thousands of random replacements and removals, with tiles split at several counts.
//! Planted defects show that it would be seen if they answered otherwise.

use std::collections::BTreeMap;
use std::f64::consts::TAU;
use std::sync::Arc;

use ringfence::geometry::{Area, Position, RawShape, ShapeRules};
use ringfence::index::{BuildRules, EngineKind, Hits, Index, Query};
use ringfence::partition::RecordPosition;
use ringfence::time::EventTime;
use ringfence::zone::{StagedChange, Zone, ZoneChange, ZoneId};

const RULES: BuildRules = BuildRules {
    history_bytes_max: usize::MAX,
    filing: false,
};
const ENGINES: [EngineKind; 5] = [
    EngineKind::FineTiles(2),
    EngineKind::FineTiles(7),
    EngineKind::Tiles,
    EngineKind::FineTiles(60),
    EngineKind::Rtree,
];

/// xorshift64*; a failure prints the seed.
struct Seeded(u64);

impl Seeded {
    fn unit(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn below(&mut self, end: usize) -> usize {
        (self.unit() * end as f64) as usize
    }
}

fn at(lon: f64, lat: f64) -> Position {
    Position { lon, lat }
}

fn area(rings: Vec<Vec<Position>>) -> Option<Area> {
    let shape = RawShape::MultiPolygon(vec![rings]);
    Area::new(shape, &ShapeRules::default()).ok()
}

fn closed(mut ring: Vec<Position>) -> Vec<Position> {
    ring.push(ring[0]);
    ring
}

/// A star-shaped ring around a place; longitudes beyond 180 go on at the other side.
fn star(seeded: &mut Seeded, center: Position, reach: f64, count: usize) -> Vec<Position> {
    let ring = (0..count).map(|corner| {
        let angle = TAU * (corner as f64 + 0.3 * seeded.unit()) / count as f64;
        let away = reach * (0.4 + 0.6 * seeded.unit());
        let mut lon = center.lon + away * angle.cos();
        if lon > 180.0 {
            lon -= 360.0;
        } else if lon < -180.0 {
            lon += 360.0;
        }
        at(lon, (center.lat + away * angle.sin()).clamp(-90.0, 90.0))
    });
    closed(ring.collect())
}

fn rectangle(west: f64, south: f64, east: f64, north: f64) -> Vec<Position> {
    closed(vec![
        at(west, south),
        at(east, south),
        at(east, north),
        at(west, north),
    ])
}

/// Somewhere: in the neighbourhood where most are, or at the ends of the world.
fn center(seeded: &mut Seeded) -> Position {
    match seeded.below(8) {
        0 => at([-180.0, 180.0][seeded.below(2)], seeded.unit() * 4.0),
        1 => at(
            seeded.unit() * 360.0 - 180.0,
            [-89.0, 89.5][seeded.below(2)],
        ),
        2 => at(seeded.unit() * 360.0 - 180.0, seeded.unit() * 180.0 - 90.0),
        _ => at(seeded.unit(), seeded.unit()),
    }
}

/// Shapes of every kind, many with corners on tile borders.
fn some_area(seeded: &mut Seeded) -> Area {
    loop {
        let middle = center(seeded);
        let reach = 10_f64.powf(seeded.unit() * 6.0 - 5.0);
        let made = match seeded.below(9) {
            0 => {
                let radius_m = reach * 111_000.0;
                let center = middle;
                Area::new(
                    RawShape::Circle { center, radius_m },
                    &ShapeRules::default(),
                )
                .ok()
            }
            1 => {
                // Along tile borders.
                let step = 2_f64.powi(-(seeded.below(12) as i32));
                let (x, y) = (
                    seeded.below(20) as f64 * step,
                    seeded.below(20) as f64 * step,
                );
                // And beyond one by less than the margin that a tile keeps around it.
                let off = [0.0, step / 2_500.0, -step / 2_500.0][seeded.below(3)];
                area(vec![rectangle(x - off, y + off, x + step, y + 2.0 * step)])
            }
            2 => {
                // All longitudes round a pole.
                let lat = 60.0 + seeded.unit() * 29.0;
                let lat = if seeded.below(2) == 0 { lat } else { -lat };
                let ring = (0..5).map(|n| at(-180.0 + 72.0 * f64::from(n), lat));
                area(vec![closed(ring.collect())])
            }
            3 => {
                let outer = rectangle(
                    middle.lon - reach,
                    middle.lat - reach,
                    middle.lon + reach,
                    middle.lat + reach,
                );
                let hole = star(seeded, middle, reach * 0.9, 7);
                area(vec![outer, hole])
            }
            4 => area(vec![rectangle(-180.0, middle.lat.min(80.0), 180.0, 90.0)]),
            _ => {
                let corners = 3 + seeded.below(60);
                area(vec![star(seeded, middle, reach, corners)])
            }
        };
        if let Some(made) = made {
            return made;
        }
    }
}

fn staged(number: usize, area: Option<Area>, offset: i64) -> StagedChange {
    let id = ZoneId::new(&format!("z{number}"));
    let change = match area {
        None => ZoneChange::Remove,
        Some(area) => ZoneChange::Upsert(Arc::new(Zone {
            id: id.clone(),
            id_json: format!("\"{id}\"").into(),
            area,
            properties_json: None,
            version: None,
        })),
    };
    StagedChange {
        zone_id: id,
        change,
        position: RecordPosition::new(0, offset),
        commit_time: EventTime::clamped(offset),
        valid_from: EventTime::clamped(offset),
        expires_at: None,
        bytes: 100,
        record: None,
    }
}

fn is_in_world(place: &Position) -> bool {
    place.lon.abs() <= 180.0 && place.lat.abs() <= 90.0
}

/// Vertices, places on edges, and an ulp off them.
fn probes_of(area: &Area, most: usize, seeded: &mut Seeded, probes: &mut Vec<Position>) {
    let edges: Vec<_> = area.edges().collect();
    for _ in 0..most.min(edges.len()) {
        let edge = edges[seeded.below(edges.len())];
        let part = [0.0, 0.5, seeded.unit()][seeded.below(3)];
        let on = at(
            edge.from.lon + part * (edge.to.lon - edge.from.lon),
            edge.from.lat + part * (edge.to.lat - edge.from.lat),
        );
        probes.push(on);
        probes.push(at(on.lon.next_up(), on.lat));
        probes.push(at(on.lon.next_down(), on.lat));
        probes.push(at(on.lon, on.lat.next_up()));
        probes.push(at(on.lon, on.lat.next_down()));
        probes.push(at(on.lon + 1e-7, on.lat - 1e-7));
    }
    if let Some(circle) = area.circle() {
        let reach = (circle.radius_m() / 6_371_008.8).to_degrees();
        for _ in 0..most {
            let angle = TAU * seeded.unit();
            let center = circle.center();
            probes.push(at(
                center.lon + reach * angle.cos() / center.lat.to_radians().cos().max(0.01),
                center.lat + reach * angle.sin(),
            ));
        }
    }
}

fn world_probes(seeded: &mut Seeded) -> Vec<Position> {
    let mut probes = Vec::new();
    for lon in [-180.0, -179.999, 0.0, 0.5, 180.0, 180_f64.next_down()] {
        for lat in [-90.0, -89.9, 0.0, 0.25, 1.0, 89.9, 90.0, 90_f64.next_down()] {
            probes.push(at(lon, lat));
        }
    }
    for _ in 0..200 {
        probes.push(at(seeded.unit(), seeded.unit()));
        probes.push(at(
            seeded.unit() * 360.0 - 180.0,
            seeded.unit() * 180.0 - 90.0,
        ));
        probes.push(at(
            [-180.0, 180.0][seeded.below(2)],
            seeded.unit() * 6.0 - 1.0,
        ));
        // Tile borders, and an ulp beside them.
        let border = seeded.below(4_096) as f64 / 2_048.0;
        let beside = [border, border.next_down(), border.next_up()][seeded.below(3)];
        probes.push(at(beside, seeded.unit()));
        probes.push(at(seeded.unit(), beside));
    }
    probes
}

/// The first wrong answer, if there is one.
fn judge(
    index: &Index,
    zones: &BTreeMap<String, Area>,
    probes: &[Position],
    instant: EventTime,
    what: &str,
) -> Result<(), String> {
    let asked: Vec<_> = (probes.iter())
        .map(|place| (*place, instant, zones))
        .collect();
    judge_each(index, &asked, what)
}

/// The same of places at instants of their own, each with the zones of then; all are looked up together.
fn judge_each(
    index: &Index,
    asked: &[(Position, EventTime, &BTreeMap<String, Area>)],
    what: &str,
) -> Result<(), String> {
    let asked = asked.iter().filter(|(place, ..)| is_in_world(place));
    let (queries, zones): (Vec<Query>, Vec<&BTreeMap<_, _>>) = asked
        .map(|&(position, at, zones)| (Query { position, at }, zones))
        .unzip();
    let mut hits = Hits::default();
    index.lookup(&queries, &mut hits);
    for (number, (query, zones)) in queries.iter().zip(zones).enumerate() {
        let found: Vec<&str> = hits
            .of(number)
            .iter()
            .map(|slot| index.version(*slot).zone().id.as_str())
            .collect();
        let right: Vec<&str> = zones
            .iter()
            .filter(|(_, area)| area.covers(query.position))
            .map(|(id, _)| id.as_str())
            .collect();
        if found != right {
            return Err(format!(
                "{what}: {:?} at {}: found {found:?}, right is {right:?}",
                query.position, query.at
            ));
        }
    }
    Ok(())
}

/// A defect of the index, done to what it is given: the storm must see each of them, or it would say nothing of the index.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Plant {
    /// Boundaries are kept one ulp east of where they are.
    OneUlpEast,
    /// One change in forty leaves a tile as it was.
    TileLeftAsItWas,
    /// A zone that goes stays where it was.
    Left,
    /// Who asks the index of before a batch is answered by the one after it.
    ChangedUnderTheReader,
}

impl Plant {
    const ALL: [Self; 4] = [
        Self::OneUlpEast,
        Self::TileLeftAsItWas,
        Self::Left,
        Self::ChangedUnderTheReader,
    ];

    /// What the index gets to know of a change.
    fn done_to(self, change: StagedChange, number: usize) -> Option<StagedChange> {
        match (self, &change.change) {
            (Self::OneUlpEast, ZoneChange::Upsert(zone)) => {
                let ring = zone.area.edges();
                let ring = ring.map(|edge| at(edge.from.lon.next_up(), edge.from.lat));
                let ring: Vec<_> = ring.collect();
                let moved = (!ring.is_empty())
                    .then(|| area(vec![closed(ring)]))
                    .flatten();
                // Of several rings, or at the ends of the world, it stays as it is.
                Some(match moved {
                    Some(moved) => StagedChange {
                        change: ZoneChange::Upsert(Arc::new(Zone {
                            id: zone.id.clone(),
                            id_json: zone.id_json.clone(),
                            area: moved,
                            properties_json: None,
                            version: None,
                        })),
                        ..change
                    },
                    None => change,
                })
            }
            (Self::TileLeftAsItWas, _) if number % 40 == 39 => None,
            (Self::Left, ZoneChange::Remove) => None,
            _ => Some(change),
        }
    }
}

/// Replacements and removals, in batches, with the time going on so that old versions leave the tree; all probes now and
/// then. An index of before a batch goes on answering as it did (I4).
fn storm(engine: EngineKind, seed: u64, count: usize, plant: Option<Plant>) -> Result<(), String> {
    let mut seeded = Seeded(seed);
    let mut index = Index::empty(engine);
    let mut zones: BTreeMap<String, Area> = BTreeMap::new();
    let mut made = 0;
    let mut offset = 0;
    let what = format!("{engine:?}, seed {seed}");
    while made < count {
        let before = (index.clone(), zones.clone(), EventTime::clamped(offset));
        let batch = 1 + seeded.below(24);
        let mut changes = Vec::new();
        for _ in 0..batch {
            // A minute is 60 changes: what was replaced leaves the tree soon.
            offset += 1_000;
            let number = seeded.below(90);
            let area = (seeded.below(4) != 0).then(|| some_area(&mut seeded));
            match &area {
                Some(area) => zones.insert(format!("z{number}"), area.clone()),
                None => zones.remove(&format!("z{number}")),
            };
            let change = staged(number, area, offset);
            changes.extend(match plant {
                Some(plant) => plant.done_to(change, (offset / 1_000) as usize),
                None => Some(change),
            });
        }
        made += batch;
        index = index
            .promote(&changes, EventTime::clamped(offset), &RULES)
            .unwrap_or_else(|why| {
                let zone = why.zone.as_ref().map(|id| &zones[id.as_str()]);
                panic!("{what}: {why}: {zone:?}")
            })
            .index;
        let mut probes = Vec::new();
        for change in &changes {
            if let ZoneChange::Upsert(zone) = &change.change {
                probes_of(&zone.area, 3, &mut seeded, &mut probes);
            }
        }
        if seeded.below(12) == 0 {
            probes.extend(world_probes(&mut seeded));
            for area in zones.values() {
                probes_of(area, 6, &mut seeded, &mut probes);
            }
        }
        let (old, old_zones, then) = before;
        let (old, instant) = match plant {
            Some(Plant::ChangedUnderTheReader) => (&index, EventTime::clamped(offset)),
            _ => (&old, then),
        };
        let of_before = format!("{what}, the index before");
        judge(old, &old_zones, &probes, instant, &of_before)?;
        judge(&index, &zones, &probes, EventTime::clamped(offset), &what)?;
        // The past is asked of the new one: versions that ended, in the tree or apart.
        let instant_before = format!("{what}, the instant before");
        judge(&index, &old_zones, &probes, then, &instant_before)?;
    }
    Ok(())
}

#[test]
fn i12_tiles_answer_as_every_zone_for_itself_through_thousands_of_changes() {
    let count = if cfg!(debug_assertions) { 300 } else { 5_000 };
    for (number, engine) in ENGINES.into_iter().enumerate() {
        storm(engine, 4_711 + number as u64, count, None).unwrap();
    }
}

#[test]
fn each_defect_planted_in_the_tiles_is_seen_by_the_storm() {
    for (number, engine) in ENGINES.into_iter().enumerate() {
        for plant in Plant::ALL {
            let seen = storm(engine, 4_711 + number as u64, 300, Some(plant));
            assert!(seen.is_err(), "{engine:?}: {plant:?} is not seen");
        }
    }
}

/// A replay: hours of changes, of which most versions are settled or in the past, and instants of all of them side by side.
#[test]
fn instants_of_hours_are_answered_together_each_by_the_zones_of_then() {
    const STEP_MS: i64 = 20_000;
    let filing = BuildRules {
        filing: true,
        ..RULES
    };
    for (number, engine) in ENGINES.into_iter().enumerate() {
        let seed = 88 + number as u64;
        let mut seeded = Seeded(seed);
        let (mut changes, mut states) = (Vec::new(), vec![BTreeMap::new()]);
        for change in 1..=500 {
            let number = seeded.below(40 + change / 4);
            let area = (seeded.below(5) != 0).then(|| some_area(&mut seeded));
            let mut zones = states[change - 1].clone();
            match &area {
                Some(area) => zones.insert(format!("z{number}"), area.clone()),
                None => zones.remove(&format!("z{number}")),
            };
            states.push(zones);
            changes.push(staged(number, area, STEP_MS * change as i64));
        }
        let as_of = |made: usize| EventTime::clamped(STEP_MS * made as i64);
        let mut probes = world_probes(&mut seeded);
        for zones in states.iter().step_by(50) {
            for area in zones.values() {
                probes_of(area, 1, &mut seeded, &mut probes);
            }
        }
        let asked: Vec<_> = (probes.into_iter())
            .map(|place| {
                let state = seeded.below(states.len());
                let later = seeded.below(STEP_MS as usize) as i64;
                let at = EventTime::clamped(STEP_MS * state as i64 + later);
                (place, at.min(as_of(changes.len())), &states[state])
            })
            .collect();
        for built_at_once in [0, 1, 250, 499] {
            let (first, rest) = changes.split_at(built_at_once);
            let filed = Index::empty(engine).promote(first, as_of(built_at_once), &filing);
            let mut index = filed.unwrap().index;
            let mut made = built_at_once;
            for batch in rest.chunks(7) {
                made += batch.len();
                index = index.promote(batch, as_of(made), &RULES).unwrap().index;
            }
            let what = format!("{engine:?}, seed {seed}, {built_at_once} built at once");
            judge_each(&index, &asked, &what).unwrap();
        }
    }
}

#[test]
fn tiles_built_at_once_answer_as_every_zone_for_itself() {
    for (number, engine) in ENGINES.into_iter().enumerate() {
        let seed = 1_234 + number as u64;
        let mut seeded = Seeded(seed);
        let mut zones = BTreeMap::new();
        let mut changes = Vec::new();
        for number in 0..300 {
            let area = some_area(&mut seeded);
            zones.insert(format!("z{number}"), area.clone());
            changes.push(staged(number, Some(area), number as i64));
        }
        let as_of = EventTime::clamped(1_000_000);
        let filed = Index::empty(engine)
            .promote(
                &changes,
                as_of,
                &BuildRules {
                    filing: true,
                    ..RULES
                },
            )
            .unwrap()
            .index;
        let at_once = filed.promote(&[], as_of, &RULES).unwrap().index;
        let added = Index::empty(engine)
            .promote(&changes, as_of, &RULES)
            .unwrap()
            .index;
        let mut probes = world_probes(&mut seeded);
        for area in zones.values() {
            probes_of(area, 6, &mut seeded, &mut probes);
        }
        for (index, how) in [(&at_once, "at once"), (&added, "added")] {
            let what = format!("{engine:?}, seed {seed}, {how}");
            judge(index, &zones, &probes, as_of, &what).unwrap();
        }
    }
}

/// Tiles are squares of degrees, and a pole has all longitudes.
#[test]
fn small_circles_at_the_poles_take_few_tiles_and_answer_as_they_do_themselves() {
    let mut seeded = Seeded(90);
    let as_of = EventTime::clamped(1_000_000);
    for lat in [
        90.0, -90.0, 89.999_99, -89.999, 89.99, -89.9, 89.0, -86.0, 85.0,
    ] {
        for radius_m in [1.0, 5.0, 500.0, 5_000.0] {
            let circle = RawShape::Circle {
                center: at(10.0, lat),
                radius_m,
            };
            let area = Area::new(circle, &ShapeRules::default()).unwrap();
            let mut probes = world_probes(&mut seeded);
            probes_of(&area, 40, &mut seeded, &mut probes);
            let change = staged(0, Some(area.clone()), 0);
            let index = Index::empty(EngineKind::Tiles)
                .promote(&[change], as_of, &RULES)
                .unwrap()
                .index;
            let what = format!("{radius_m} m at {lat}");
            let bytes = index.tile_bytes().unwrap();
            assert!(bytes < 200_000, "{what}: {bytes} bytes");
            let zones = BTreeMap::from([("z0".to_owned(), area)]);
            judge(&index, &zones, &probes, as_of, &what).unwrap();
        }
    }
}

#[test]
fn emptied_tiles_leave_nothing_behind() {
    let mut seeded = Seeded(99);
    let changes: Vec<StagedChange> = (0..200)
        .map(|number| staged(number, Some(some_area(&mut seeded)), number as i64))
        .collect();
    let as_of = EventTime::clamped(1_000);
    let index = Index::empty(EngineKind::Tiles)
        .promote(&changes, as_of, &RULES)
        .unwrap()
        .index;
    assert!(index.tile_bytes().unwrap() > 0);
    let gone: Vec<StagedChange> = (0..200)
        .map(|n| staged(n, None, 2_000 + n as i64))
        .collect();
    let index = index
        .promote(&gone, EventTime::clamped(3_000), &RULES)
        .unwrap()
        .index;
    // A minute later what ended leaves the tree.
    let index = index
        .promote(&[], EventTime::clamped(100_000), &RULES)
        .unwrap()
        .index;
    assert_eq!(index.tile_bytes(), Some(0));
}
