//! The vertices of a shape: in whole numbers of 1e-7 degrees where all of them are such, which takes half of the memory,
//! and as they are elsewhere. Nothing is rounded: a vertex that comes out is the one that went in, to the last bit.

use super::Position;

/// The units of a degree. A multiple of 1e-7 is read from decimals as the double nearest to it, and dividing rounds so too.
const UNITS: f64 = 1e7;

/// Vertices, in order.
#[derive(Clone, Debug)]
pub(super) enum Vertices {
    Decimal(Box<[[i32; 2]]>),
    Double(Box<[Position]>),
}

impl Vertices {
    pub(super) fn new(vertices: Vec<Position>) -> Self {
        let decimal: Option<Box<[[i32; 2]]>> = vertices.iter().map(units).collect();
        decimal.map_or_else(|| Self::Double(vertices.into_boxed_slice()), Self::Decimal)
    }

    #[inline]
    pub(super) fn get(&self, index: usize) -> Position {
        match self {
            Self::Decimal(units) => position(units[index]),
            Self::Double(vertices) => vertices[index],
        }
    }

    /// The vertex with this index and the next one.
    #[inline]
    pub(super) fn edge(&self, index: usize) -> (Position, Position) {
        match self {
            Self::Decimal(units) => (position(units[index]), position(units[index + 1])),
            Self::Double(vertices) => (vertices[index], vertices[index + 1]),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Decimal(units) => units.len(),
            Self::Double(vertices) => vertices.len(),
        }
    }

    pub(super) fn byte_len(&self) -> usize {
        match self {
            Self::Decimal(units) => size_of_val(&**units),
            Self::Double(vertices) => size_of_val(&**vertices),
        }
    }
}

fn position([lon, lat]: [i32; 2]) -> Position {
    Position {
        lon: f64::from(lon) / UNITS,
        lat: f64::from(lat) / UNITS,
    }
}

/// A vertex in units, if that is all of it.
fn units(at: &Position) -> Option<[i32; 2]> {
    // The nearest whole number but for ties, which are no multiple of a unit anyway: `round` is a call of the C library's.
    let units = [at.lon, at.lat].map(|degrees| {
        let many = degrees * UNITS;
        (many + 0.5_f64.copysign(many)) as i32
    });
    let is_same = |one: f64, other: f64| one.to_bits() == other.to_bits();
    let back = position(units);
    (is_same(back.lon, at.lon) && is_same(back.lat, at.lat)).then_some(units)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn seven_decimals_are_kept_in_half_of_the_memory_and_come_back_to_the_last_bit(
            units in prop::collection::vec((-1_800_000_000_i64..=1_800_000_000, -900_000_000_i64..=900_000_000), 1..20),
        ) {
            // As they are written in JSON, digit by digit.
            let read = |units: i64| -> f64 {
                let sign = if units < 0 { "-" } else { "" };
                let size = units.abs();
                format!("{sign}{}.{:07}", size / 10_000_000, size % 10_000_000).parse().unwrap()
            };
            let written: Vec<Position> = units
                .iter()
                // Adding zero makes -0.0 a 0.0, as rings do.
                .map(|(lon, lat)| Position { lon: read(*lon) + 0.0, lat: read(*lat) + 0.0 })
                .collect();
            let vertices = Vertices::new(written.clone());
            prop_assert_eq!(vertices.byte_len(), 8 * written.len());
            for (index, at) in written.iter().enumerate() {
                let kept = vertices.get(index);
                prop_assert_eq!((kept.lon.to_bits(), kept.lat.to_bits()), (at.lon.to_bits(), at.lat.to_bits()));
            }
        }

        #[test]
        fn whatever_numbers_come_back_to_the_last_bit(
            places in prop::collection::vec((-180.0_f64..=180.0, -90.0_f64..=90.0), 1..20),
        ) {
            let written: Vec<Position> = places
                .iter()
                .map(|(lon, lat)| Position { lon: *lon, lat: *lat })
                .collect();
            let vertices = Vertices::new(written.clone());
            for (index, at) in written.iter().enumerate() {
                let kept = vertices.get(index);
                prop_assert_eq!((kept.lon.to_bits(), kept.lat.to_bits()), (at.lon.to_bits(), at.lat.to_bits()));
            }
        }
    }

    #[test]
    fn one_ulp_off_a_decimal_is_kept_as_it_is() {
        let at = Position {
            lon: (-97.743_060_9_f64).next_up(),
            lat: 30.267_153_1,
        };
        let vertices = Vertices::new(vec![at]);
        assert!(matches!(vertices, Vertices::Double(_)));
        assert_eq!(vertices.get(0).lon.to_bits(), at.lon.to_bits());
    }
}
