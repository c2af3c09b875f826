//! The public benchmark's inputs as files (`benches/README.md`): zones, changes and events of a world of any size, for a
//! system that is no part of this project. The same numbers give the same bytes.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use ringfence::time::EventTime;
use serde_json::json;

use crate::support::measure;
use crate::support::{self, Seeded};

/// The world, as `NAME=N` arguments change it.
struct World {
    /// Zones in all layers, at least; each layer is a square of cells.
    zones: usize,
    /// Of a zone.
    vertices: usize,
    /// Layers: how many zones cover each place.
    overlap: usize,
    events: usize,
    events_per_second: usize,
    changes_per_second: usize,
    /// When the first event happens, in ms.
    start: usize,
}

/// The end of the year 9999, in ms: an instant that an event's time may be.
const START_MAX: usize = 253_402_300_799_999;
/// More is a slip of the keyboard, and would fill the disk.
const ZONES_MAX: usize = 10_000_000;
const OVERLAP_MAX: usize = 100;
const LINES_MAX: usize = 1_000_000_000;

/// A layer of zones: the number of its first one, and its side.
struct Layer {
    first: usize,
    side: usize,
}

impl World {
    fn new(arguments: &[String]) -> Result<Self, String> {
        let mut world = Self {
            zones: 10_000,
            vertices: 64,
            overlap: 1,
            events: 1_000_000,
            events_per_second: 100_000,
            changes_per_second: 100,
            start: 1_700_000_000_000,
        };
        for argument in arguments {
            let wrong =
                || format!("`{argument}` is none of the NAME=N that benches/README.md lists");
            let (name, value) = argument.split_once('=').ok_or_else(&wrong)?;
            let number = match name {
                "zones" => &mut world.zones,
                "vertices" => &mut world.vertices,
                "overlap" => &mut world.overlap,
                "events" => &mut world.events,
                "events_per_second" => &mut world.events_per_second,
                "changes_per_second" => &mut world.changes_per_second,
                "start" => &mut world.start,
                _ => return Err(wrong()),
            };
            *number = value
                .parse()
                .map_err(|_| format!("`{argument}`: not a whole number"))?;
        }
        // A workload that is another one than was asked for would be measured under its name.
        for (is_wrong, what) in [
            (world.zones == 0, "zones=0"),
            (world.overlap == 0, "overlap=0"),
            (world.events_per_second == 0, "events_per_second=0"),
            (
                world.vertices < 4 || !world.vertices.is_multiple_of(4),
                "vertices: a multiple of 4, as each side has as many",
            ),
            (world.start > START_MAX, "start: after the year 9999"),
            (
                world.overlap > OVERLAP_MAX || world.zones > ZONES_MAX,
                "zones: more than 10,000,000, or overlap: more than 100",
            ),
            (
                world.events > LINES_MAX || world.changes() > LINES_MAX as f64,
                "more than 1,000,000,000 events or changes",
            ),
        ] {
            if is_wrong {
                return Err(what.to_owned());
            }
        }
        Ok(world)
    }

    /// For how long there are events.
    fn seconds(&self) -> f64 {
        self.events as f64 / self.events_per_second as f64
    }

    /// How many changes there are to be in that time.
    fn changes(&self) -> f64 {
        self.seconds() * self.changes_per_second as f64
    }

    /// As many layers as zones overlap, each of one cell a side more than the one before: no two borders are the same.
    fn layers(&self) -> Vec<Layer> {
        let least = (self.zones as f64 / self.overlap as f64).sqrt().ceil() as usize;
        let mut first = 0;
        (least.max(2)..)
            .take(self.overlap)
            .map(|side| {
                let layer = Layer { first, side };
                first += layer.zones();
                layer
            })
            .collect()
    }

    fn per_edge(&self) -> usize {
        self.vertices / 4
    }
}

impl Layer {
    fn zones(&self) -> usize {
        self.side * self.side
    }

    /// Those that have a neighbour to change places with: all but the last one of an odd number.
    fn movable(&self) -> usize {
        self.zones() / 2 * 2
    }
}

/// The layer that this one of all layers' movable zones is in, and how many are in the layers before it.
fn layer_of(layers: &[Layer], number: usize) -> (&Layer, usize) {
    let mut before = 0;
    for layer in layers {
        if number < before + layer.movable() {
            return (layer, before);
        }
        before += layer.movable();
    }
    unreachable!("the layers have as many movable zones");
}

/// A zone of a layer, in this cell of it.
fn zone(layer: &Layer, place: usize, cell: usize, per_edge: usize, out: &mut String) {
    let ring = support::cell(layer.side, cell, per_edge);
    support::feature_of(layer.first + place, &ring, out);
}

fn create(folder: &Path, name: &str) -> io::Result<BufWriter<File>> {
    Ok(BufWriter::new(File::create(folder.join(name))?))
}

/// Writes `zones.ndjson`, `changes.ndjson` and `events.ndjson`: `FOLDER [NAME=N…]`.
///
/// # Errors
/// What was wrong with the arguments, or with the files.
pub(crate) fn write(arguments: &[String]) -> Result<(), String> {
    let (folder, numbers) = arguments.split_first().ok_or("a folder is missing")?;
    if folder.contains('=') {
        return Err(format!("a folder is missing before `{folder}`"));
    }
    let world = World::new(numbers)?;
    let folder = Path::new(folder);
    write_files(folder, &world).map_err(|error| format!("{}: {error}", folder.display()))
}

fn write_files(folder: &Path, world: &World) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let (layers, per_edge) = (world.layers(), world.per_edge());
    let mut line = String::new();
    let mut zones = create(folder, "zones.ndjson")?;
    for layer in &layers {
        for place in 0..layer.zones() {
            zone(layer, place, place, per_edge, &mut line);
            writeln!(zones, "{line}")?;
        }
    }
    zones.flush()?;
    let count = world.changes() as usize / 2 * 2;
    let all: usize = layers.iter().map(Layer::zones).sum();
    let movable: usize = layers.iter().map(Layer::movable).sum();
    let mut changes = create(folder, "changes.ndjson")?;
    for number in 0..count {
        let (changed, to) = support::swapped(number, movable);
        let (layer, before) = layer_of(&layers, changed);
        let (place, cell) = (changed - before, to - before);
        zone(layer, place, cell, per_edge, &mut line);
        // Both at one instant: at none are there more zones over a place, or fewer.
        let time = world.start + number / 2 * 2_000 / world.changes_per_second;
        let record = json!({
            "partition": 0,
            "offset": number,
            "timestamp": time,
            "key": support::zone_id(layer.first + place),
            "value": line,
        });
        writeln!(changes, "{record}")?;
    }
    changes.flush()?;
    let mut events = create(folder, "events.ndjson")?;
    let mut seeded = Seeded::new(3);
    for number in 0..world.events {
        let time = world.start + number * 1_000 / world.events_per_second;
        let time = EventTime::clamped(time as i64);
        writeln!(events, "{}", support::event(number, time, &mut seeded))?;
    }
    events.flush()?;
    measure::say(&format!(
        "{}: {all} zones, {count} changes and {} events in {} s",
        folder.display(),
        world.events,
        world.seconds()
    ));
    if count == 0 && world.changes_per_second > 0 {
        measure::say(
            "no zone changes: at this rate of changes and of events, more events are needed",
        );
    }
    Ok(())
}
