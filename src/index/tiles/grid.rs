//! The grid: a square of 512 degrees that holds the world, halved 24 times an axis into tiles of 3.4 metres, and 14 bits of
//! place inside a tile of any level. All borders are powers of two of a degree: exact in `f64`.

use wide::{CmpGt as _, f64x2, u64x2};

use super::page::{BRANCH_LEVELS, BRANCH_SLOTS};
use crate::geometry::{Envelope, Position};

/// The finest level of tiles; branches are at every third, from 0 on.
pub(super) const LEVEL_MAX: u32 = 24;
/// Bits of place within a tile: with the margin, the difference of two places has 16.
const LOCAL_BITS: u32 = 14;
/// Units of place along a tile.
pub(super) const SIDE: u32 = 1 << LOCAL_BITS;
/// Units around a tile in which boundaries are kept too.
pub(super) const MARGIN: u32 = 16;
/// Bits of a key.
const KEY_BITS: u32 = LEVEL_MAX + LOCAL_BITS;
/// Units of a key in a degree: 2^38 for 2^9 degrees.
const UNITS: f64 = (1_u64 << 29) as f64;

/// Where a place stands on the finest grid, an axis each.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Key {
    x: u64,
    y: u64,
}

impl Key {
    /// Of a place within the world. The eastern and the northern end of the world belong to the tiles before them.
    #[inline]
    pub(super) fn of(at: Position) -> Self {
        let last = f64x2::new([180_f64.next_down(), 90_f64.next_down()]);
        // Exact: a power of two changes no digit.
        let scaled = f64x2::new([at.lon, at.lat]).fast_min(last) * f64x2::splat(UNITS);
        let shifted = scaled + f64x2::splat(NO_FRACTION);
        // A double is as its bits in order: the nearest whole number is the difference of two. All ones count as -1.
        let is_above = (shifted - f64x2::splat(NO_FRACTION)).cmp_gt(scaled);
        let offset = (1_u64 << (KEY_BITS - 1)).wrapping_sub(NO_FRACTION.to_bits());
        let bits = |of: f64x2| bytemuck::cast::<f64x2, u64x2>(of);
        let [x, y] = (bits(shifted) + u64x2::splat(offset) + bits(is_above)).to_array();
        Self { x, y }
    }

    /// The place within the tile of this level, in units from its south-western corner.
    #[inline]
    pub(super) fn local(self, level: u32) -> (u32, u32) {
        let shift = LEVEL_MAX - level;
        let part = |key: u64| (key >> shift) as u32 & (SIDE - 1);
        (part(self.x), part(self.y))
    }

    /// Both axes' levels bit by bit, the first level on top: two bits a level.
    #[inline]
    pub(super) fn path(self) -> u64 {
        interleaved(self.x >> LOCAL_BITS, self.y >> LOCAL_BITS)
    }
}

/// How far places are from the middle of the map, an axis each.
#[derive(Copy, Clone)]
pub(super) struct Reach(f64x2);

impl Default for Reach {
    fn default() -> Self {
        Self(f64x2::ZERO)
    }
}

impl Reach {
    #[inline]
    pub(super) fn take_in(&mut self, at: Position) {
        self.0 = f64x2::new([at.lon, at.lat]).abs().fast_max(self.0);
    }

    /// Whether one of them stands on a border of the map.
    #[inline]
    pub(super) fn is_at_the_end_of_the_world(self) -> bool {
        let [lon, lat] = self.0.to_array();
        lon == 180.0 || lat == 90.0
    }
}

/// Added to a number below 2^51, it leaves no room for a fraction: what comes out is rounded to a whole number.
const NO_FRACTION: f64 = 1.5 * (1_u64 << 52) as f64;

/// Puts a zero between all bits, of two numbers.
#[inline]
fn spread(bits: u64x2) -> u64x2 {
    let kept = u64x2::splat;
    let mut spread = bits & kept(0xff_ffff);
    spread = (spread | spread << 16_u32) & kept(0x0000_ffff_0000_ffff);
    spread = (spread | spread << 8_u32) & kept(0x00ff_00ff_00ff_00ff);
    spread = (spread | spread << 4_u32) & kept(0x0f0f_0f0f_0f0f_0f0f);
    spread = (spread | spread << 2_u32) & kept(0x3333_3333_3333_3333);
    (spread | spread << 1_u32) & kept(0x5555_5555_5555_5555)
}

/// The bits of two numbers in turns, those of the first lower.
#[inline]
fn interleaved(x: u64, y: u64) -> u64 {
    let [x, y] = spread(u64x2::new([x, y])).to_array();
    x | y << 1
}

/// A square of the grid: a place belongs to it if it is not on its northern or eastern border.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Tile {
    pub(super) level: u32,
    x: u32,
    y: u32,
}

impl Tile {
    /// The world and more.
    pub(super) const WHOLE: Self = Self {
        level: 0,
        x: 0,
        y: 0,
    };

    /// Whether every place of the rectangle belongs to it.
    pub(super) fn holds(self, bounds: &Envelope) -> bool {
        let is_within = |lon: f64, lat: f64| {
            let key = Key::of(Position {
                lon: lon.clamp(-180.0, 180.0),
                lat: lat.clamp(-90.0, 90.0),
            });
            let shift = KEY_BITS - self.level;
            key.x >> shift == u64::from(self.x) && key.y >> shift == u64::from(self.y)
        };
        is_within(bounds.lon_min, bounds.lat_min) && is_within(bounds.lon_max, bounds.lat_max)
    }

    /// The tile one level up.
    pub(super) fn above(self) -> Option<Self> {
        Some(Self {
            level: self.level.checked_sub(1)?,
            x: self.x >> 1,
            y: self.y >> 1,
        })
    }

    /// The tile in a slot of its branch.
    pub(super) fn branch_part(self, slot: usize) -> Self {
        (0..BRANCH_LEVELS)
            .rev()
            .fold(self, |tile, level| tile.quarter(slot >> (2 * level) & 3))
    }

    /// The slot of its branch that leads to a tile further down, and the tile in it.
    pub(super) fn branch_slot_of(self, below: Self) -> (usize, Self) {
        let up = below.level - self.level - BRANCH_LEVELS;
        let part = Self {
            level: below.level - up,
            x: below.x >> up,
            y: below.y >> up,
        };
        let slot = interleaved(u64::from(part.x), u64::from(part.y));
        (slot as usize & (BRANCH_SLOTS - 1), part)
    }

    /// The quarter with this number: south-west, south-east, north-west, north-east.
    pub(super) fn quarter(self, number: usize) -> Self {
        Self {
            level: self.level + 1,
            x: self.x * 2 + (number & 1) as u32,
            y: self.y * 2 + (number >> 1) as u32,
        }
    }

    /// How many bits a [`Key::path`] has below this tile's own, and its own.
    pub(super) fn path(self) -> (u32, u64) {
        let below = 2 * (LEVEL_MAX - self.level);
        (below, interleaved(u64::from(self.x), u64::from(self.y)))
    }

    /// Degrees along a side.
    pub(super) fn degrees(self) -> f64 {
        512.0 / f64::from(1_u32 << self.level)
    }

    pub(super) fn west(self) -> f64 {
        f64::from(self.x) * self.degrees() - 256.0
    }

    pub(super) fn south(self) -> f64 {
        f64::from(self.y) * self.degrees() - 256.0
    }

    /// Units in a degree.
    pub(super) fn units(self) -> f64 {
        f64::from(SIDE) / self.degrees()
    }

    /// The place of a unit's south-western corner.
    pub(super) fn position(self, x: u32, y: u32) -> Position {
        Position {
            lon: self.west() + f64::from(x) / self.units(),
            lat: self.south() + f64::from(y) / self.units(),
        }
    }

    /// The tile with its margin: what of a boundary meets it is kept with the tile. Windows of tiles lie within those of the
    /// tiles that these are parts of.
    pub(super) fn window(self) -> Envelope {
        let margin = f64::from(MARGIN) / self.units();
        Envelope {
            lon_min: self.west() - margin,
            lat_min: self.south() - margin,
            lon_max: self.west() + self.degrees() + margin,
            lat_max: self.south() + self.degrees() + margin,
        }
    }

    /// Whether nothing of it is in the world.
    pub(super) fn is_off_the_world(self) -> bool {
        let (west, south) = (self.west(), self.south());
        west >= 180.0
            || south >= 90.0
            || west + self.degrees() <= -180.0
            || south + self.degrees() <= -90.0
    }

    /// The middle of it, or of the part of it that is in the world.
    pub(super) fn middle(self) -> Position {
        let middle = |low: f64, bound: f64| {
            f64::midpoint(low.max(-bound), (low + self.degrees()).min(bound))
        };
        Position {
            lon: middle(self.west(), 180.0),
            lat: middle(self.south(), 90.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(lon: f64, lat: f64) -> Position {
        Position { lon, lat }
    }

    #[test]
    fn place_one_ulp_left_of_a_border_is_in_the_tile_before_it() {
        for border in [
            0.0,
            0.5,
            -0.5,
            1.0,
            -97.75,
            2f64.powi(-15),
            -(2f64.powi(-15)),
        ] {
            let (below, on) = (
                Key::of(at(border.next_down(), 0.0)),
                Key::of(at(border, 0.0)),
            );
            assert_eq!(below.x + 1, on.x, "{border}");
        }
        assert_eq!(Key::of(at(-0.0, -0.0)), Key::of(at(0.0, 0.0)));
        assert_eq!(
            Key::of(at(-f64::from_bits(1), 0.0)).x + 1,
            Key::of(at(0.0, 0.0)).x
        );
    }

    #[test]
    fn path_leads_to_the_tile_of_a_place() {
        let place = at(-97.743_060_987, 30.267_153_123);
        let key = Key::of(place);
        let mut tile = Tile::WHOLE;
        while tile.level < LEVEL_MAX {
            let number = (key.path() >> (2 * (LEVEL_MAX - tile.level - 1)) & 3) as usize;
            tile = tile.quarter(number);
            assert!(tile.west() <= place.lon && place.lon < tile.west() + tile.degrees());
            assert!(tile.south() <= place.lat && place.lat < tile.south() + tile.degrees());
            let (below, path) = tile.path();
            assert_eq!(key.path() >> below, path);
            let (x, y) = key.local(tile.level);
            let corner = tile.position(x, y);
            assert!(corner.lon <= place.lon && place.lon < corner.lon + 1.0 / tile.units());
            assert!(corner.lat <= place.lat && place.lat < corner.lat + 1.0 / tile.units());
        }
        let bounds = Envelope {
            lon_min: -97.8,
            lat_min: 30.2,
            lon_max: -97.7,
            lat_max: 30.3,
        };
        let mut around = Tile::WHOLE;
        while let Some(part) = (0..4)
            .map(|n| around.quarter(n))
            .find(|part| part.holds(&bounds))
        {
            around = part;
        }
        assert!(around.level > 6 && around.degrees() > 0.1);
        let (below, path) = around.path();
        assert_eq!(key.path() >> below, path);
        let branch = Tile {
            level: 3,
            x: tile.x >> 21,
            y: tile.y >> 21,
        };
        let (slot, part) = branch.branch_slot_of(tile);
        assert_eq!(branch.branch_part(slot), part);
        assert_eq!(key.path() >> part.path().0, part.path().1);
    }
}
