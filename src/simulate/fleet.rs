//! The telemetry of the simulated world: vehicles that wander over the tiled area, some of their records late, doubled
//! or broken in one of many ways.

use std::time::Duration;

use crate::time::EventTime;

use super::rng::Rng;
use super::{Micro, SOUTH, WEST, push_degrees};

/// What the fleet is like; the shares are of all events, 0 to 1.
#[derive(Clone, Copy, Debug)]
pub struct FleetRules {
    /// How many vehicles.
    pub entities: usize,
    /// The share of events that happened seconds ago.
    pub late: f64,
    /// The share of events that are sent twice.
    pub duplicate: f64,
    /// The share of records that are no event.
    pub invalid: f64,
    /// How late a late event is at most.
    pub lateness_max: Duration,
}

impl Default for FleetRules {
    fn default() -> Self {
        let lateness_max = Duration::from_secs(30);
        Self {
            entities: 1_000,
            late: 0.0,
            duplicate: 0.0,
            invalid: 0.0,
            lateness_max,
        }
    }
}

/// How often the record in the buffer is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emission {
    /// Once.
    Once,
    /// Twice: the sender was not sure.
    Twice,
}

/// A record for the telemetry topic, reused from event to event.
#[derive(Clone, Debug, Default)]
pub struct EventBuffer {
    /// The entity.
    pub key: Vec<u8>,
    /// The value; not looked at where `is_null`.
    pub value: Vec<u8>,
    /// The value is null.
    pub is_null: bool,
    /// The record is no event: it belongs in the dead letters.
    pub is_invalid: bool,
    /// The event's time; of a broken record the one it would have had.
    pub time: Option<EventTime>,
}

#[derive(Clone, Copy, Debug)]
struct Vehicle {
    lon: Micro,
    lat: Micro,
    east: Micro,
    north: Micro,
}

/// Vehicles on the odd points of the lattice.
#[derive(Clone, Debug)]
pub struct Fleet {
    rules: FleetRules,
    vehicles: Vec<Vehicle>,
    size: (Micro, Micro),
    next: usize,
    rng: Rng,
}

/// Even, in millionths of a degree: some 30 m between two events.
const SPEED_MAX: Micro = 150;

impl Fleet {
    /// A fleet over an area of this size (both even, see `Jigsaw::size`).
    #[must_use]
    pub fn new(rules: FleetRules, size: (i64, i64), seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x5EED_F1EE);
        let vehicles = (0..rules.entities.max(1))
            .map(|_| Vehicle {
                lon: rng.between(0, size.0 / 2 - 1) * 2 + 1,
                lat: rng.between(0, size.1 / 2 - 1) * 2 + 1,
                east: rng.between(-SPEED_MAX, SPEED_MAX) * 2,
                north: rng.between(-SPEED_MAX, SPEED_MAX) * 2,
            })
            .collect();
        Self {
            rules,
            vehicles,
            size,
            next: 0,
            rng,
        }
    }

    /// Writes the next record; no event happens before `earliest`.
    pub fn next(&mut self, now: EventTime, earliest: EventTime, out: &mut EventBuffer) -> Emission {
        let number = self.next;
        self.next = (self.next + 1) % self.vehicles.len();
        self.drive(number);
        let mut age = self.rng.below(50);
        if self.rng.chance(self.rules.late) {
            let most = u64::try_from(self.rules.lateness_max.as_millis()).unwrap_or(u64::MAX);
            age = 1_000 + self.rng.below(most.saturating_sub(1_000));
        }
        let time = now.minus(Duration::from_millis(age)).max(earliest);
        out.key.clear();
        out.key.extend_from_slice(b"veh-");
        out.key
            .extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
        out.time = Some(time);
        out.is_null = false;
        out.is_invalid = self.rng.chance(self.rules.invalid);
        self.write(number, time, out);
        if out.is_invalid {
            spoil(self.rng.below(SPOILS), out);
        }
        if self.rng.chance(self.rules.duplicate) {
            Emission::Twice
        } else {
            Emission::Once
        }
    }

    fn drive(&mut self, number: usize) {
        let turn = self.rng.below(32) == 0;
        let (east, north) = (
            self.rng.between(-SPEED_MAX, SPEED_MAX) * 2,
            self.rng.between(-SPEED_MAX, SPEED_MAX) * 2,
        );
        let (width, height) = self.size;
        let vehicle = &mut self.vehicles[number];
        if turn {
            (vehicle.east, vehicle.north) = (east, north);
        }
        if !(0..width).contains(&(vehicle.lon + vehicle.east)) {
            vehicle.east = -vehicle.east;
        }
        if !(0..height).contains(&(vehicle.lat + vehicle.north)) {
            vehicle.north = -vehicle.north;
        }
        vehicle.lon = (vehicle.lon + vehicle.east).clamp(1, width - 1);
        vehicle.lat = (vehicle.lat + vehicle.north).clamp(1, height - 1);
    }

    fn write(&self, number: usize, time: EventTime, out: &mut EventBuffer) {
        let vehicle = self.vehicles[number];
        let mut digits = itoa::Buffer::new();
        let value = &mut out.value;
        value.clear();
        value.extend_from_slice(b"{\"id\":\"");
        value.extend_from_slice(&out.key);
        value.extend_from_slice(b"\",\"ts\":");
        value.extend_from_slice(digits.format(time.millis()).as_bytes());
        value.extend_from_slice(b",\"lat\":");
        push_degrees(value, SOUTH + vehicle.lat);
        value.extend_from_slice(b",\"lon\":");
        push_degrees(value, WEST + vehicle.lon);
        value.extend_from_slice(b",\"speed\":");
        let speed = (vehicle.east.abs() + vehicle.north.abs()) / 2;
        value.extend_from_slice(digits.format(speed).as_bytes());
        value.extend_from_slice(b",\"state\":{\"doors\":[0,1],\"driver\":\"\\u00c4nn\"}}");
    }
}

/// How many ways there are to spoil a record.
const SPOILS: u64 = 14;

/// Makes a good record one that must be refused.
fn spoil(way: u64, out: &mut EventBuffer) {
    let value = &mut out.value;
    match way {
        0 => out.is_null = true,
        1 => value.clear(),
        2 => value.truncate(value.len() / 2),
        3 => value.extend_from_slice(b"}"),
        4 => *value = b"[1,2,3]".to_vec(),
        5 => replace(value, b"\"ts\":", b"\"xx\":"),
        6 => replace(value, b"\"ts\":", b"\"ts\":999"),
        7 => replace(value, b"\"lat\":", b"\"lat\":9"),
        8 => replace(value, b"\"lon\":-", b"\"lon\":-4"),
        9 => replace(value, b"\"speed\":", b"\"lat\":"),
        10 => replace(value, b"\"state\":{", b"\"state\":{\xFF"),
        11 => replace(value, b"\"lat\":", b"\"lat\":null,\"x\":"),
        12 => {
            let deep = [
                b"{\"deep\":".as_slice(),
                &b"[".repeat(300),
                &b"]".repeat(300),
                b"}",
            ];
            *value = deep.concat();
        }
        _ => replace(value, b"\"id\":", b"'id':"),
    }
}

fn replace(value: &mut Vec<u8>, what: &[u8], with: &[u8]) {
    let at = memchr::memmem::find(value, what).expect("the generator wrote it");
    value.splice(at..at + what.len(), with.iter().copied());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::telemetry::{FieldRules, Fields};
    use crate::telemetry::RecordTimestamp;

    fn fleet(rules: FleetRules) -> Fleet {
        Fleet::new(rules, (100_000, 60_000), 3)
    }

    #[test]
    fn good_records_decode_and_spoiled_ones_do_not() {
        let fields = Fields::new(&FieldRules::default()).unwrap();
        let mut fleet = fleet(FleetRules {
            entities: 50,
            invalid: 0.3,
            ..FleetRules::default()
        });
        let mut out = EventBuffer::default();
        let mut invalid = 0;
        let mut reasons = std::collections::BTreeSet::new();
        for i in 0..5_000 {
            let now = EventTime::clamped(1_700_000_000_000 + i);
            fleet.next(now, EventTime::MIN, &mut out);
            let value = (!out.is_null).then_some(out.value.as_slice());
            let decoded = fields.decode(value, RecordTimestamp::Missing);
            assert_eq!(
                decoded.is_err(),
                out.is_invalid,
                "{:?}",
                String::from_utf8_lossy(&out.value)
            );
            match decoded {
                Ok(decoded) => assert_eq!(Some(decoded.event.time), out.time),
                Err(why) => _ = reasons.insert(why.reason),
            }
            invalid += usize::from(out.is_invalid);
        }
        assert!((1_300..1_700).contains(&invalid), "{invalid}");
        assert!(reasons.len() >= 9, "{reasons:?}");
    }

    #[test]
    fn positions_are_odd_and_inside() {
        let mut fleet = fleet(FleetRules {
            entities: 7,
            ..FleetRules::default()
        });
        let mut out = EventBuffer::default();
        for _ in 0..20_000 {
            fleet.next(EventTime::clamped(0), EventTime::MIN, &mut out);
        }
        for vehicle in &fleet.vehicles {
            assert!(vehicle.lon % 2 == 1 && (0..100_000).contains(&vehicle.lon));
            assert!(vehicle.lat % 2 == 1 && (0..60_000).contains(&vehicle.lat));
        }
    }

    #[test]
    fn no_event_is_before_the_earliest() {
        let mut fleet = fleet(FleetRules {
            late: 0.5,
            duplicate: 0.5,
            ..FleetRules::default()
        });
        let (now, earliest) = (EventTime::clamped(100_000), EventTime::clamped(95_000));
        let mut out = EventBuffer::default();
        let mut twice = 0;
        for _ in 0..1_000 {
            twice += usize::from(fleet.next(now, earliest, &mut out) == Emission::Twice);
            assert!(out.time.is_some_and(|time| earliest <= time && time <= now));
        }
        assert!((400..600).contains(&twice));
    }
}
