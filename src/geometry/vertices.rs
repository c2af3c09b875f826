//! The vertices of a shape: where all of them are whole numbers of 1e-7 degrees, as their distances from its south-western
//! corner in these, which takes a quarter to a half of the memory; as they are elsewhere. Nothing is rounded: a vertex that
//! comes out is the one that went in, to the last bit. What else a shape is looked up by stands behind them, in the same
//! piece of memory: an allocation of its own costs more than most have to say.

use super::Position;
use crate::fetch::{LINE, fetch};

/// The units of a degree. A multiple of 1e-7 is read from decimals as the double nearest to it, and dividing rounds so too.
const UNITS: f64 = 1e7;

/// Vertices, in order.
#[derive(Clone, Debug)]
pub(super) struct Vertices {
    /// The vertices, longitude before latitude, then what stands behind them.
    bytes: Box<[u8]>,
    /// The south-western corner, in units; of no meaning to doubles.
    corner: [i32; 2],
    len: u32,
    form: Form,
}

/// What a vertex stands as.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Two bytes a coordinate: within 0.0065 degrees, 700 metres.
    Near,
    /// Three: within 1.6 degrees.
    Middle,
    /// Four: anywhere.
    Far,
    Double,
}

impl Form {
    fn vertex_bytes(self) -> usize {
        match self {
            Self::Near => 4,
            Self::Middle => 6,
            Self::Far => 8,
            Self::Double => 16,
        }
    }

    /// The least that has room for such a distance from the corner.
    fn of_extent(extent: u32) -> Self {
        match extent {
            0..=0xffff => Self::Near,
            0x1_0000..=0xff_ffff => Self::Middle,
            _ => Self::Far,
        }
    }
}

impl Vertices {
    /// Keeps vertices, and `behind` behind them.
    ///
    /// # Panics
    /// If there are 2^32 vertices: the cap on them is below that.
    pub(super) fn new(vertices: &[Position], behind: &[u8]) -> Self {
        let decimal: Option<Vec<[i32; 2]>> = vertices.iter().map(units).collect();
        let (form, corner) = decimal
            .as_deref()
            .map_or((Form::Double, [0; 2]), form_and_corner);
        let size = vertices.len() * form.vertex_bytes() + behind.len();
        let mut bytes = Vec::with_capacity(size);
        match decimal {
            None => {
                for at in vertices {
                    bytes.extend(at.lon.to_le_bytes());
                    bytes.extend(at.lat.to_le_bytes());
                }
            }
            Some(units) => {
                let each = form.vertex_bytes() / 2;
                for (unit, low) in units.iter().flat_map(|at| at.iter().zip(corner)) {
                    bytes.extend_from_slice(&unit.abs_diff(low).to_le_bytes()[..each]);
                }
            }
        }
        bytes.extend_from_slice(behind);
        Self {
            bytes: bytes.into_boxed_slice(),
            corner,
            len: u32::try_from(vertices.len()).expect("the cap on vertices is below 2^30"),
            form,
        }
    }

    #[inline]
    pub(super) fn get(&self, index: usize) -> Position {
        match self.form {
            Form::Near => self.of_units(near(self.bytes.as_chunks().0[index])),
            Form::Middle => self.of_units(middle(self.bytes.as_chunks().0[index])),
            Form::Far => self.of_units(far(self.bytes.as_chunks().0[index])),
            Form::Double => double(self.bytes.as_chunks().0[index]),
        }
    }

    /// The vertex with this index and the next one.
    #[inline]
    pub(super) fn edge(&self, index: usize) -> (Position, Position) {
        match self.form {
            Form::Near => self.near_edge(index),
            Form::Middle => self.middle_edge(index),
            Form::Far => self.far_edge(index),
            Form::Double => self.double_edge(index),
        }
    }

    #[inline]
    pub(super) fn form(&self) -> Form {
        self.form
    }

    /// The same where the form is [`Form::Near`].
    #[inline]
    pub(super) fn near_edge(&self, index: usize) -> (Position, Position) {
        let [one, other] = self.pair(index).map(|at| self.of_units(near(at)));
        (one, other)
    }

    /// The same where it is [`Form::Middle`].
    #[inline]
    pub(super) fn middle_edge(&self, index: usize) -> (Position, Position) {
        let [one, other] = self.pair(index).map(|at| self.of_units(middle(at)));
        (one, other)
    }

    /// The same where it is [`Form::Far`].
    #[inline]
    pub(super) fn far_edge(&self, index: usize) -> (Position, Position) {
        let [one, other] = self.pair(index).map(|at| self.of_units(far(at)));
        (one, other)
    }

    /// The same where it is [`Form::Double`].
    #[inline]
    pub(super) fn double_edge(&self, index: usize) -> (Position, Position) {
        let [one, other] = self.pair(index).map(double);
        (one, other)
    }

    /// The bytes of a vertex and of the next one.
    #[inline]
    fn pair<const BYTES: usize>(&self, index: usize) -> [[u8; BYTES]; 2] {
        let from = index * BYTES;
        let (both, _) = self.bytes[from..from + 2 * BYTES].as_chunks();
        [both[0], both[1]]
    }

    #[inline]
    fn of_units(&self, [east, north]: [u32; 2]) -> Position {
        let [west, south] = self.corner;
        // A distance goes up to 3.6e9: it wraps, and comes back to what it was measured from.
        position([
            west.wrapping_add_unsigned(east),
            south.wrapping_add_unsigned(north),
        ])
    }

    pub(super) fn len(&self) -> usize {
        self.len as usize
    }

    /// What stands behind the vertices.
    #[inline]
    pub(super) fn behind(&self) -> &[u8] {
        &self.bytes[self.len() * self.form.vertex_bytes()..]
    }

    /// Asks for about each line of memory, of the first ones if there are many.
    #[inline]
    pub(super) fn fetch(&self) {
        const LINES: usize = 16;
        for line in self.bytes.chunks(LINE).take(LINES) {
            fetch(line.as_ptr());
        }
    }

    pub(super) fn byte_len(&self) -> usize {
        self.bytes.len()
    }
}

#[inline]
fn near([a, b, c, d]: [u8; 4]) -> [u32; 2] {
    [u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d])].map(u32::from)
}

#[inline]
fn middle([a, b, c, d, e, f]: [u8; 6]) -> [u32; 2] {
    [[a, b, c, 0], [d, e, f, 0]].map(u32::from_le_bytes)
}

#[inline]
fn far([a, b, c, d, e, f, g, h]: [u8; 8]) -> [u32; 2] {
    [[a, b, c, d], [e, f, g, h]].map(u32::from_le_bytes)
}

#[inline]
fn double(bytes: [u8; 16]) -> Position {
    let [lon, lat] =
        [0, 8].map(|from| f64::from_le_bytes(std::array::from_fn(|place| bytes[from + place])));
    Position { lon, lat }
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

/// How to keep vertices that are all in units, and what they are measured from.
fn form_and_corner(units: &[[i32; 2]]) -> (Form, [i32; 2]) {
    let (mut low, mut high) = ([i32::MAX; 2], [i32::MIN; 2]);
    for at in units {
        for axis in 0..2 {
            low[axis] = low[axis].min(at[axis]);
            high[axis] = high[axis].max(at[axis]);
        }
    }
    let extent = high[0].abs_diff(low[0]).max(high[1].abs_diff(low[1]));
    (Form::of_extent(extent), low)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As they are written in JSON, digit by digit.
    fn read(units: i64) -> f64 {
        let sign = if units < 0 { "-" } else { "" };
        let size = units.abs();
        let text = format!("{sign}{}.{:07}", size / 10_000_000, size % 10_000_000);
        // Adding zero makes -0.0 a 0.0, as rings do.
        text.parse::<f64>().unwrap() + 0.0
    }

    fn assert_kept(vertices: &Vertices, written: &[Position], behind: &[u8]) {
        assert_eq!(vertices.len(), written.len());
        for (index, at) in written.iter().enumerate() {
            let kept = vertices.get(index);
            if index > 0 {
                assert_eq!(vertices.edge(index - 1), (vertices.get(index - 1), kept));
            }
            let bits = |at: &Position| (at.lon.to_bits(), at.lat.to_bits());
            assert_eq!(bits(&kept), bits(at), "{index}");
        }
        assert_eq!(vertices.behind(), behind);
    }

    proptest! {
        #[test]
        fn seven_decimals_come_back_to_the_last_bit_and_take_a_half_or_less_of_the_memory(
            extent in prop_oneof![Just(0_i64), Just(0xffff), Just(0x1_0000), Just(0xff_ffff), Just(0x100_0000), Just(3_600_000_000), 0..3_600_000_000_i64],
            corner in (-1_800_000_000_i64..=1_800_000_000, -900_000_000_i64..=900_000_000),
            parts in prop::collection::vec((0.0..=1.0, 0.0..=1.0), 0..20),
            behind in prop::collection::vec(any::<u8>(), 0..9),
        ) {
            let within = |low: i64, part: f64, bound: i64| {
                read((low + (extent as f64 * part) as i64).min(bound))
            };
            let mut written = vec![
                Position { lon: read(corner.0), lat: read(corner.1) },
                Position { lon: within(corner.0, 1.0, 1_800_000_000), lat: read(corner.1) },
            ];
            written.extend(parts.iter().map(|(east, north)| Position {
                lon: within(corner.0, *east, 1_800_000_000),
                lat: within(corner.1, *north, 900_000_000),
            }));
            let vertices = Vertices::new(&written, &behind);
            prop_assert!(vertices.form != Form::Double);
            if extent <= 0xffff {
                prop_assert_eq!(vertices.form, Form::Near);
            }
            assert_kept(&vertices, &written, &behind);
        }

        #[test]
        fn whatever_numbers_come_back_to_the_last_bit(
            places in prop::collection::vec((-180.0_f64..=180.0, -90.0_f64..=90.0), 1..20),
            behind in prop::collection::vec(any::<u8>(), 0..9),
        ) {
            let written: Vec<Position> = places
                .iter()
                .map(|(lon, lat)| Position { lon: *lon, lat: *lat })
                .collect();
            assert_kept(&Vertices::new(&written, &behind), &written, &behind);
        }
    }

    #[test]
    fn one_unit_more_than_a_form_has_room_for_takes_the_next_one() {
        for (extent, form) in [
            (0xffff, Form::Near),
            (0x1_0000, Form::Middle),
            (0xff_ffff, Form::Middle),
            (0x100_0000, Form::Far),
            (3_600_000_000, Form::Far),
        ] {
            let written = [-1_800_000_000, extent - 1_800_000_000].map(|lon| Position {
                lon: read(lon),
                lat: 30.267_153_1,
            });
            let vertices = Vertices::new(&written, &[]);
            assert_eq!(vertices.form, form, "{extent}");
            assert_kept(&vertices, &written, &[]);
        }
    }

    #[test]
    fn one_ulp_off_a_decimal_is_kept_as_it_is() {
        let at = Position {
            lon: (-97.743_060_9_f64).next_up(),
            lat: 30.267_153_1,
        };
        let vertices = Vertices::new(&[at], &[]);
        assert_eq!(vertices.form, Form::Double);
        assert_kept(&vertices, &[at], &[]);
    }
}
