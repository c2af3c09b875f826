#![allow(
    dead_code,
    unreachable_pub,
    clippy::disallowed_methods,
    reason = "each benchmark uses a part of it; measuring reads the clock"
)]
//! Seeded worlds that several benchmarks share.

pub mod measure;
pub mod plain;
pub mod record;

use std::fmt::Write as _;
use std::sync::Arc;

use ringfence::geometry::{Area, Position, RawShape, ShapeRules};
use ringfence::index::{BuildRules, EngineKind, Index};
use ringfence::partition::RecordPosition;
use ringfence::time::EventTime;
use ringfence::zone::{DecodedChange, StagedChange, Zone, ZoneChange, ZoneId};

/// Forgets no history.
pub const RULES: BuildRules = BuildRules {
    history_bytes_max: usize::MAX,
    filing: false,
};

/// A small generator (xorshift64*); a benchmark must see the same world in every run.
pub struct Seeded(u64);

impl Seeded {
    pub fn new(seed: u64) -> Self {
        Self(seed.max(1))
    }

    /// A number from 0 to 1, exclusive.
    pub fn unit(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A whole number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        (self.unit() * end as f64) as u64
    }

    /// One of these, each as likely as the others.
    pub fn one_of(&mut self, texts: &[&'static str]) -> &'static str {
        texts[self.below(texts.len() as u64) as usize]
    }
}

/// The outer ring of zone `number` of a tessellation of `side` × `side` wavy cells over one degree, closed. Neighbours share
/// their borders, so every position lies in one cell; `per_edge` points a side make 4 × `per_edge` vertices.
pub fn cell(side: usize, number: usize, per_edge: usize) -> Vec<Position> {
    let step = 1.0 / side as f64;
    let (column, row) = ((number % side) as f64, (number / side) as f64);
    let wave = |along: f64| (along * 40.0 * std::f64::consts::PI).sin() * step * 0.1;
    let mut ring = Vec::with_capacity(4 * per_edge + 1);
    let corner = |c: f64, r: f64| (c * step, r * step);
    let sides = [
        (corner(column, row), corner(column + 1.0, row)),
        (corner(column + 1.0, row), corner(column + 1.0, row + 1.0)),
        (corner(column + 1.0, row + 1.0), corner(column, row + 1.0)),
        (corner(column, row + 1.0), corner(column, row)),
    ];
    for ((x0, y0), (x1, y1)) in sides {
        for point in 0..per_edge {
            let part = point as f64 / per_edge as f64;
            let (x, y) = (x0 + (x1 - x0) * part, y0 + (y1 - y0) * part);
            // The wave is zero at the corners, and a function of the place alone, so both neighbours draw the same line.
            let bump = (part * std::f64::consts::PI).sin() * wave(x + y);
            ring.push(if y0 == y1 {
                Position {
                    lon: x,
                    lat: y + bump,
                }
            } else {
                Position {
                    lon: x + bump,
                    lat: y,
                }
            });
        }
    }
    ring.push(ring[0]);
    ring
}

/// The id of zone `number`.
pub fn zone_id(number: usize) -> String {
    format!("zone-{number:07}")
}

/// The change that puts zone `number` where `ring` is.
pub fn upsert(number: usize, ring: Vec<Position>, offset: i64) -> StagedChange {
    let id = zone_id(number);
    let area = Area::new(
        RawShape::MultiPolygon(vec![vec![ring]]),
        &ShapeRules::default(),
    )
    .expect("a cell is valid");
    StagedChange {
        zone_id: ZoneId::new(&id),
        change: ZoneChange::Upsert(Arc::new(Zone {
            id: ZoneId::new(&id),
            id_json: format!("\"{id}\"").into(),
            area,
            properties_json: None,
            version: None,
        })),
        position: RecordPosition::new(0, offset),
        commit_time: EventTime::clamped(offset),
        valid_from: EventTime::clamped(offset),
        expires_at: None,
        bytes: 1_000,
        record: None,
    }
}

/// A decoded record's change as the `number`th of its partition, in force from the beginning of time.
pub fn staged(decoded: DecodedChange, number: usize, bytes: usize) -> StagedChange {
    StagedChange {
        zone_id: decoded.zone_id,
        change: decoded.change,
        position: RecordPosition::new(0, number as i64),
        commit_time: EventTime::clamped(0),
        valid_from: EventTime::clamped(0),
        expires_at: None,
        bytes,
        record: None,
    }
}

/// A tessellation of `side` × `side` cells.
pub fn tessellation(side: usize, per_edge: usize) -> Vec<StagedChange> {
    tessellation_from(0, side, per_edge)
}

/// The same, where the first zone has the number `first`.
pub fn tessellation_from(first: usize, side: usize, per_edge: usize) -> Vec<StagedChange> {
    (0..side * side)
        .map(|number| (first + number, cell(side, number, per_edge)))
        .map(|(number, ring)| upsert(number, ring, number as i64))
        .collect()
}

/// The change `made` (from 0 on) of a tessellation of so many zones: which zone, and the cell that it is in from then on. Two
/// neighbours change places at a time, so that it stays a tessellation; all over the world in turn, and once all have, they go
/// back. The last one of an odd number stays.
pub fn swapped(made: usize, zones: usize) -> (usize, usize) {
    let pairs = zones / 2;
    let number = made / 2 * 7_919 % pairs * 2 + made % 2;
    let have_moved = made / 2 / pairs % 2 == 1;
    (number, if have_moved { number } else { number ^ 1 })
}

/// Zone `number` of that tessellation as a record's value, its coordinates with seven decimals.
pub fn feature(number: usize, side: usize, per_edge: usize, out: &mut String) {
    feature_of(number, &cell(side, number, per_edge), out);
}

/// A zone of that number with this outer ring.
pub fn feature_of(number: usize, ring: &[Position], out: &mut String) {
    out.clear();
    let text = "a string takes everything";
    write!(
        out,
        r#"{{"type":"Feature","id":"{}","properties":{{}},"geometry":{{"type":"Polygon","coordinates":[["#,
        zone_id(number)
    )
    .expect(text);
    for (place, at) in ring.iter().enumerate() {
        let comma = if place == 0 { "" } else { "," };
        write!(out, "{comma}[{:.7},{:.7}]", at.lon, at.lat).expect(text);
    }
    out.push_str("]]}}");
}

/// Event `number` of ten thousand vehicles at uniform places of the square, as a record's value of about 300 bytes; its key is
/// [`vehicle`]'s. Values have as many digits and letters as they come to have: what reads them cannot know from one where those of
/// the next one end. As in the bus file of the real data, positions have six decimals at most, speeds are whole numbers, and zero in
/// three of ten events; route, trip, driver and odometer are the vehicle's. The rest is drawn anew for each event, and a vehicle
/// comes back after 10,000: too late for lz4 to know it, whose blocks have 200 records. In the bus file, of 490 buses, they do.
pub fn event(number: usize, time: EventTime, seeded: &mut Seeded) -> String {
    let own = Own::of(vehicle_number(number));
    let mut decimal = |end: u64, scale: f64| seeded.below(end) as f64 / scale;
    let (lat, lon) = (decimal(1_000_000, 1e6), decimal(1_000_000, 1e6));
    let accuracy = decimal(250, 10.0);
    let is_standing = seeded.below(10) < 3;
    let speed = if is_standing { 0 } else { seeded.below(100) };
    let heading = seeded.below(360);
    let engine = if is_standing { "idle" } else { "on" };
    let stop = 1 + seeded.below(40);
    let occupancy = seeded.one_of(&[
        "FEW_SEATS_AVAILABLE",
        "EMPTY",
        "MANY_SEATS_AVAILABLE",
        "STANDING_ROOM_ONLY",
    ]);
    // Some 30 m since the vehicle's event before.
    let odometer = own.odometer + 30 * (number / VEHICLES) as u64;
    format!(
        concat!(
            r#"{{"id":"{}","ts":{},"lat":{},"lon":{},"#,
            r#""speed_kmh":{},"heading":{},"accuracy_m":{},"odometer_m":{},"engine":"{}","#,
            r#""route":{{"id":"{}","trip":"{}","headsign":"{}","stop_sequence":{}}},"#,
            r#""driver":"d-{}","occupancy":"{}","seq":{}}}"#
        ),
        vehicle(number),
        time.millis(),
        lat,
        lon,
        speed,
        heading,
        accuracy,
        odometer,
        engine,
        own.route,
        own.trip,
        own.headsign,
        stop,
        own.driver,
        occupancy,
        number
    )
}

/// What all events of a vehicle say alike.
struct Own {
    route: &'static str,
    headsign: &'static str,
    trip: u64,
    driver: u64,
    odometer: u64,
}

impl Own {
    fn of(vehicle: usize) -> Self {
        // Seeds that are neighbours begin alike.
        let mut seeded = Seeded::new((vehicle as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let routes = [
            ("803", "Domain North Lamar"),
            ("7", "Duval"),
            ("801", "Tech Ridge via Congress"),
            ("20", "Manor Riverside"),
        ];
        let (route, headsign) = routes[seeded.below(4) as usize];
        Self {
            route,
            headsign,
            trip: 1_874_000 + seeded.below(1_000),
            driver: seeded.below(3_000),
            odometer: seeded.below(400_000_000),
        }
    }
}

const VEHICLES: usize = 10_000;

fn vehicle_number(number: usize) -> usize {
    number * 7_919 % VEHICLES
}

/// The vehicle that event `number` comes from.
pub fn vehicle(number: usize) -> String {
    format!("vehicle-{:06}", vehicle_number(number))
}

/// The polygons of that tessellation.
pub fn polygons(side: usize, per_edge: usize) -> impl Iterator<Item = plain::Rings> {
    (0..side * side).map(move |number| vec![cell(side, number, per_edge)])
}

/// When a world is looked at: its zones have been in force for long, as most are.
pub const AS_OF: EventTime = EventTime::clamped(1_600_000_000_000);

/// The engine that is measured: `RINGFENCE_BENCH_ENGINE`, or the default.
pub fn engine() -> EngineKind {
    std::env::var("RINGFENCE_BENCH_ENGINE").map_or(EngineKind::default(), |name| {
        EngineKind::from_name(&name).expect("RINGFENCE_BENCH_ENGINE is `tiles` or `rtree`")
    })
}

/// The index of these zones.
pub fn index(changes: &[StagedChange]) -> Index {
    Index::empty(engine())
        .promote(changes, AS_OF, &RULES)
        .expect("it builds")
        .index
}
