//! Straight pieces of boundaries in the plane of longitude and latitude: what an index cuts into tiles.
//!
//! An edge over the antimeridian becomes two pieces, one on each side of the map; the far end of each stands beyond ±180°,
//! rounded: pieces say where a boundary is to within an ulp of it, and only `covers` says on which side a place lies.

use std::cmp::Ordering;

use super::exact::{Place, side};
use super::stripes::Crossing;
use super::{Edge, Envelope, Position};

/// A piece of a boundary. It has no direction: of its two ends the western comes first, then the southern, so that the
/// same border drawn by two neighbours is the same piece.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Segment {
    /// The western end.
    pub from: Position,
    /// The eastern end.
    pub to: Position,
}

impl Segment {
    /// The piece between two places.
    #[must_use]
    pub fn new(one: Position, other: Position) -> Self {
        let order = one.lon.total_cmp(&other.lon);
        if order.then(one.lat.total_cmp(&other.lat)) == Ordering::Greater {
            Self {
                from: other,
                to: one,
            }
        } else {
            Self {
                from: one,
                to: other,
            }
        }
    }

    /// The one or two pieces of an edge.
    pub(super) fn of(edge: &Edge) -> impl Iterator<Item = Self> + use<> {
        let turned = |at: Position, degrees: f64| Position {
            lon: at.lon + degrees,
            ..at
        };
        let (from, to) = (edge.from, edge.to);
        let (first, second) = match edge.crosses {
            None => (Self::new(from, to), None),
            Some(Crossing::Eastward) => (
                Self::new(from, turned(to, 360.0)),
                Some(Self::new(turned(from, -360.0), to)),
            ),
            Some(Crossing::Westward) => (
                Self::new(from, turned(to, -360.0)),
                Some(Self::new(turned(from, 360.0), to)),
            ),
        };
        std::iter::once(first).chain(second)
    }

    /// The latitudes of its ends, the lower first.
    #[must_use]
    pub fn lats(&self) -> (f64, f64) {
        if self.from.lat <= self.to.lat {
            (self.from.lat, self.to.lat)
        } else {
            (self.to.lat, self.from.lat)
        }
    }

    /// Whether it has a place in common with the rectangle, bounds included. Exact, so what a rectangle does not meet, no
    /// part of the rectangle meets.
    #[must_use]
    pub fn meets(&self, window: &Envelope) -> bool {
        let (from, to) = (self.from, self.to);
        let (low, high) = self.lats();
        if from.lon > window.lon_max
            || to.lon < window.lon_min
            || low > window.lat_max
            || high < window.lat_min
        {
            return false;
        }
        if window.covers(from) || window.covers(to) || from.lon == to.lon || low == high {
            return true;
        }
        let place = |lon, lat| Place { lon, turn: 0, lat };
        // The two corners that a line of this slope passes last.
        let (above, below) = if from.lat < to.lat {
            (
                place(window.lon_max, window.lat_min),
                place(window.lon_min, window.lat_max),
            )
        } else {
            (
                place(window.lon_min, window.lat_min),
                place(window.lon_max, window.lat_max),
            )
        };
        let (from, to) = (place(from.lon, from.lat), place(to.lon, to.lat));
        side(from, to, above) != Ordering::Greater && side(from, to, below) != Ordering::Less
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(lon: f64, lat: f64) -> Position {
        Position { lon, lat }
    }

    const WINDOW: Envelope = Envelope {
        lon_min: 0.0,
        lat_min: 0.0,
        lon_max: 1.0,
        lat_max: 1.0,
    };

    #[test]
    fn piece_that_touches_a_corner_meets_and_one_an_ulp_off_does_not() {
        // Through (1, 0) and (0, 1), and just beyond them.
        assert!(Segment::new(at(0.5, -0.5), at(1.5, 0.5)).meets(&WINDOW));
        assert!(!Segment::new(at(0.5_f64.next_up(), -0.5), at(1.5, 0.5)).meets(&WINDOW));
        assert!(Segment::new(at(-0.5, 0.5), at(0.5, 1.5)).meets(&WINDOW));
        assert!(!Segment::new(at(-0.5, 0.5_f64.next_up()), at(0.5, 1.5)).meets(&WINDOW));
        assert!(Segment::new(at(-0.5, 0.5), at(0.5, -0.5)).meets(&WINDOW));
        assert!(!Segment::new(at(-0.5, 0.5_f64.next_down()), at(0.5, -0.5)).meets(&WINDOW));
        assert!(Segment::new(at(0.5, 1.5), at(1.5, 0.5)).meets(&WINDOW));
        assert!(!Segment::new(at(0.5, 1.5_f64.next_up()), at(1.5, 0.5)).meets(&WINDOW));
        assert!(Segment::new(at(-9.0, -8.0), at(9.0, 8.0)).meets(&WINDOW));
    }

    #[test]
    fn edge_over_the_antimeridian_is_a_piece_on_each_side() {
        let edge = Edge {
            from: at(-170.0, 1.0),
            to: at(175.0, 3.0),
            crosses: Some(Crossing::Westward),
        };
        let pieces: Vec<Segment> = Segment::of(&edge).collect();
        assert_eq!(
            pieces,
            [
                Segment::new(at(-185.0, 3.0), at(-170.0, 1.0)),
                Segment::new(at(175.0, 3.0), at(190.0, 1.0)),
            ]
        );
    }
}
