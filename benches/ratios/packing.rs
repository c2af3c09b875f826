//! How well records pack: the benchmark's events beside real telemetry. What compression costs every way end to end depends on it.
//! Their values alone: without keys, framing, and what outputs have beside.

use std::io::Write as _;
use std::path::Path;

use lz4_flex::frame::{BlockSize, FrameEncoder, FrameInfo};
use ringfence::time::EventTime;
use serde_json::{Map, Value};

use crate::data;
use crate::support::measure::{self, Row, Spread, Target};
use crate::support::{Seeded, event, vehicle};

/// Records of a frame, of one partition: a part of a producer's batch.
const FRAME: usize = 200;
/// As the benchmark's topics.
const PARTITIONS: usize = 8;
/// Of either kind, at most.
const RECORDS: usize = 200_000;
const RECORDS_QUICK: usize = 20_000;

/// A file of real telemetry, whose rows are records of about that shape.
const BUSES: &str = "austin-bus-capmetro.csv.gz";
/// Two of its columns, by number.
const VEHICLE: usize = 0;
const TIME: usize = 1;
/// All that a record is made of, with the names of the fields.
const FIELDS: [(usize, &str); 8] = [
    (VEHICLE, "id"),
    (TIME, "ts"),
    (5, "lat"),
    (6, "lon"),
    (2, "speed"),
    (3, "route"),
    (4, "trip"),
    (7, "headsign"),
];

/// Of each partition its records, in the order of time.
#[derive(Default)]
struct Partitions([Vec<String>; PARTITIONS]);

/// What records take, on average.
struct Packed {
    raw: f64,
    packed: f64,
}

impl Partitions {
    fn push(&mut self, vehicle: &str, record: String) {
        // Any spreading of vehicles will do.
        let hash = vehicle.bytes().fold(7, |hash: usize, byte| {
            hash.wrapping_mul(31).wrapping_add(byte.into())
        });
        self.0[hash % PARTITIONS].push(record);
    }

    fn packed(&self) -> Packed {
        let (mut count, mut raw, mut packed) = (0, 0, 0);
        for frame in self
            .0
            .iter()
            .flat_map(|records| records.chunks_exact(FRAME))
        {
            let mut info = FrameInfo::new();
            // As librdkafka's: blocks of their own, of 64 KB.
            info.block_size = BlockSize::Max64KB;
            let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
            for record in frame {
                encoder
                    .write_all(record.as_bytes())
                    .expect("memory takes everything");
                raw += record.len();
            }
            packed += encoder.finish().expect("memory takes everything").len();
            count += frame.len();
        }
        Packed {
            raw: raw as f64 / count as f64,
            packed: packed as f64 / count as f64,
        }
    }
}

impl Packed {
    fn ratio(&self) -> f64 {
        self.raw / self.packed
    }

    fn shown(&self, what: &str) -> String {
        format!(
            "{what}: {:.0} B to {:.0} B, 1 ÷ {:.2}",
            self.raw,
            self.packed,
            self.ratio()
        )
    }
}

/// The benchmark's events beside a file of real telemetry, where there is one.
pub(crate) fn report() {
    let Some(folder) = data::folder() else {
        measure::say("  packing: skipped, no real data at $RINGFENCE_DATA or ../shared/data");
        return;
    };
    let count = if measure::is_quick() {
        RECORDS_QUICK
    } else {
        RECORDS
    };
    let ours = events(count).packed();
    let real = buses(&folder.join(BUSES), count).packed();
    Row {
        what: "lz4 packs the benchmark's events ÷ real telemetry",
        ours: ours.shown("events"),
        baseline: real.shown("buses"),
        value: Spread::once(ours.ratio() / real.ratio()),
        target: Target::None,
    }
    .report();
}

fn events(count: usize) -> Partitions {
    let mut seeded = Seeded::new(7);
    let mut partitions = Partitions::default();
    for number in 0..count {
        // Some 50 a millisecond are written.
        let time = EventTime::clamped(1_700_000_000_123 + number as i64 / 50);
        partitions.push(&vehicle(number), event(number, time, &mut seeded));
    }
    partitions
}

/// The first so many in the order of time, which is not that of the file.
fn buses(path: &Path, count: usize) -> Partitions {
    let timed = |row: Vec<String>| {
        let time: jiff::Timestamp = row[TIME].parse().expect("an instant with an offset");
        (time.as_millisecond(), row)
    };
    let mut rows: Vec<(i64, Vec<String>)> = data::rows(path).map(timed).collect();
    rows.sort_by_key(|(time, _)| *time);
    rows.truncate(count);
    let mut partitions = Partitions::default();
    for (time, row) in &rows {
        let field = |(column, name): (usize, &str)| {
            let text = row[column].as_str();
            let value = match name {
                "ts" => (*time).into(),
                "lat" | "lon" | "speed" => serde_json::from_str(text).expect("a number"),
                _ => Value::from(text),
            };
            (name.to_owned(), value)
        };
        let record: Map<String, Value> = FIELDS.into_iter().map(field).collect();
        partitions.push(&row[VEHICLE], Value::from(record).to_string());
    }
    partitions
}
