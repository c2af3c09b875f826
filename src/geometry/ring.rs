//! Understands one ring as it is written: closes it, unwraps it across ±180°, tells whether it goes round a pole.
//!
//! An edge whose longitudes differ by more than 180 goes the short way, across the antimeridian. One that differs by
//! exactly 360 has no length, unless the ring then has no area or runs along the seam there and back: such a ring is
//! closed in the plane as it is written (a band of all longitudes, Antarctica drawn down to the pole), and taken so.

use std::cmp::Ordering;

use super::Position;
use super::exact::{Place, compare_step, side};
use crate::rejection::{Rejection, RejectionReason};

/// A pole.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Pole {
    North,
    South,
}

/// A ring, unwrapped: at least three places, neighbours differ.
#[derive(Clone, Debug)]
pub(super) struct Ring {
    /// Which polygon of the shape it belongs to.
    pub(super) polygon: usize,
    /// Which ring of that polygon it is: 0 is the exterior.
    pub(super) number: usize,
    /// The places in order; the first is not repeated at the end.
    pub(super) places: Vec<Place>,
    /// How many turns east the ring makes before it is back: 0, or ±1 round a pole.
    pub(super) winding: i32,
    /// The pole within the ring.
    pub(super) pole: Option<Pole>,
    /// Whether the area within lies to the left of its edges; `None` where it turns back on itself at its western end.
    pub(super) interior_left: Option<bool>,
    /// Its westernmost place, the southern one of several.
    pub(super) western: Place,
    /// Its easternmost place, the northern one of several.
    pub(super) eastern: Place,
}

impl Ring {
    /// Understands the positions of a ring.
    pub(super) fn new(
        polygon: usize,
        number: usize,
        positions: &[Position],
    ) -> Result<Self, Rejection> {
        let reject = |reason, what: &str| Err(rejection(reason, polygon, number, what));
        let [first, _, _, .., last] = positions else {
            return reject(
                RejectionReason::RingTooShort,
                "has fewer than four positions",
            );
        };
        let (first, last) = (Place::of(*first), Place::of(*last));
        if (first.lon, first.lat) != (last.lon, last.lat) {
            return reject(
                RejectionReason::RingNotClosed,
                "does not end at the position where it begins",
            );
        }
        let mut unwrapped = Unwrapped::read(positions, WholeTurn::NoLength);
        if unwrapped.seam.is_some() && (!unwrapped.has_area() || unwrapped.is_folded_on_seam()) {
            unwrapped = Unwrapped::read(positions, WholeTurn::AsWritten);
        } else if unwrapped.seam.is_some() {
            unwrapped.straighten_on_seam();
        }
        if unwrapped.distinct() < 3 {
            return reject(
                RejectionReason::RingTooShort,
                "has fewer than three positions that differ",
            );
        }
        if !unwrapped.has_area() {
            return reject(
                RejectionReason::RingWithoutArea,
                "has all its positions on one line",
            );
        }
        if unwrapped.winding.abs() > 1 {
            return reject(
                RejectionReason::SelfIntersection,
                "goes round the earth more than once",
            );
        }
        let pole = match (unwrapped.winding, pole_within(&unwrapped.places)) {
            (0, _) => None,
            (_, Some(pole)) => Some(pole),
            (_, None) => {
                return reject(
                    RejectionReason::AmbiguousPole,
                    "goes round the earth and reaches the equator: either pole could be meant",
                );
            }
        };
        let Unwrapped {
            places, winding, ..
        } = unwrapped;
        Ok(Self::understood(polygon, number, places, winding, pole))
    }

    /// A ring that is closed in the plane between -180 and 180: nothing to unwrap. The first place is not repeated.
    pub(super) fn planar(polygon: usize, number: usize, places: Vec<Place>) -> Self {
        Self::understood(polygon, number, places, 0, None)
    }

    fn understood(
        polygon: usize,
        number: usize,
        places: Vec<Place>,
        winding: i32,
        pole: Option<Pole>,
    ) -> Self {
        let (mut west, mut east) = (0, 0);
        for (index, at) in places.iter().enumerate() {
            if at.sweep_order(&places[west]).is_lt() {
                west = index;
            }
            if at.sweep_order(&places[east]).is_gt() {
                east = index;
            }
        }
        Self {
            polygon,
            number,
            winding,
            pole,
            interior_left: interior_left(&places, west, winding, pole),
            western: places[west],
            eastern: places[east],
            places,
        }
    }

    /// The edge that begins at the place with this index, in the turn of that place.
    pub(super) fn edge(&self, index: usize) -> (Place, Place) {
        (self.places[index], self.next(index))
    }

    /// The place after the one with this index.
    pub(super) fn next(&self, index: usize) -> Place {
        match self.places.get(index + 1) {
            Some(next) => *next,
            None => self.places[0].turned(self.winding),
        }
    }

    /// The place before the one with this index.
    pub(super) fn previous(&self, index: usize) -> Place {
        match index.checked_sub(1) {
            Some(previous) => self.places[previous],
            None => self.places[self.places.len() - 1].turned(-self.winding),
        }
    }

    /// The turns to take off so that the ring lies between two longitudes a turn apart, `from` the western one;
    /// `None` where it crosses there.
    pub(super) fn turns_off(&self, from: f64) -> Option<i32> {
        if self.winding != 0 {
            return None;
        }
        let (west, east) = (self.western, self.eastern);
        // The line `from` next west of the westernmost place (or through it), and the one a turn east of it.
        let start = Place {
            lon: from,
            turn: if west.lon >= from {
                west.turn
            } else {
                west.turn - 1
            },
            lat: 90.0,
        };
        (east.sweep_order(&start.turned(1)) != Ordering::Greater).then_some(start.turn)
    }
}

/// A rejection that names the ring.
pub(super) fn rejection(
    reason: RejectionReason,
    polygon: usize,
    number: usize,
    what: &str,
) -> Rejection {
    let ring = if number == 0 {
        "exterior".to_owned()
    } else {
        format!("hole {number}")
    };
    Rejection::new(reason, format!("polygon {}: {ring} {what}", polygon + 1))
}

/// The pole that a ring round the earth encloses: the one of the hemisphere it lies in, so the smaller of the two
/// caps. Not by winding: either is accepted everywhere (DESIGN 5), so it is no evidence here. A ring that
/// touches the equator has no such pole.
fn pole_within(places: &[Place]) -> Option<Pole> {
    if places.iter().all(|at| at.lat > 0.0) {
        Some(Pole::North)
    } else if places.iter().all(|at| at.lat < 0.0) {
        Some(Pole::South)
    } else {
        None
    }
}

/// What an edge of exactly 360 degrees means.
#[derive(Copy, Clone, PartialEq)]
enum WholeTurn {
    /// It leads to the same meridian: along it, or nowhere.
    NoLength,
    /// It goes round the earth.
    AsWritten,
}

/// The places of a ring under one reading.
struct Unwrapped {
    places: Vec<Place>,
    winding: i32,
    /// The meridian of its edges of exactly 360 degrees, if it has any.
    seam: Option<f64>,
}

impl Unwrapped {
    fn read(positions: &[Position], whole_turn: WholeTurn) -> Self {
        let mut places: Vec<Place> = Vec::with_capacity(positions.len());
        let mut turns = 0;
        let mut seam = None;
        let mut from = positions[0];
        // The step back to the first position has no length, or goes round the earth.
        for at in positions.iter().chain(&positions[..1]) {
            let (short, long) = if at.lon > from.lon {
                (1, at.lon)
            } else {
                (-1, -at.lon)
            };
            let start = if short == 1 { from.lon } else { -from.lon };
            let whole = compare_step(start, long, 360.0).is_eq();
            if whole {
                seam = Some(Place::of(*at).lon);
            }
            let written = whole && whole_turn == WholeTurn::AsWritten;
            if !written && compare_step(start, long, 180.0).is_gt() {
                turns -= short;
            }
            let place = Place::of(*at).turned(turns);
            if places.last() != Some(&place) {
                places.push(place);
            }
            from = *at;
        }
        let winding = places[places.len() - 1].turn - places[0].turn;
        if places.len() > 1 {
            places.pop();
        }
        Self {
            places,
            winding,
            seam,
        }
    }

    /// Whether not all places are on one line.
    fn has_area(&self) -> bool {
        if self.winding != 0 {
            return true;
        }
        let first = self.places[0];
        let Some(second) = self.places.iter().find(|at| **at != first) else {
            return false;
        };
        self.places
            .iter()
            .any(|at| side(first, *second, *at).is_ne())
    }

    /// How many places differ, counted up to three.
    fn distinct(&self) -> usize {
        let first = self.places[0];
        let Some(second) = self.places.iter().find(|at| **at != first) else {
            return 1;
        };
        2 + usize::from(self.places.iter().any(|at| *at != first && at != second))
    }

    /// Makes one edge of each run along the meridian where the ring is written to jump by 360 degrees. Rings cut there
    /// and stitched together again run on past the next vertex and back, which holds no area.
    fn straighten_on_seam(&mut self) {
        let seam = self.seam;
        let Some(start) = self.places.iter().position(|at| Some(at.lon) != seam) else {
            return;
        };
        let winding = self.winding;
        self.places[..start]
            .iter_mut()
            .for_each(|at| *at = at.turned(winding));
        self.places.rotate_left(start);
        let places = std::mem::take(&mut self.places);
        let is_within_run = |i: usize| {
            let next = places
                .get(i + 1)
                .copied()
                .unwrap_or(places[0].turned(winding));
            Some(places[i].lon) == seam
                && places[i].is_above_or_below(&places[i - 1])
                && places[i].is_above_or_below(&next)
        };
        self.places = (0..places.len())
            .filter(|i| *i == 0 || !is_within_run(*i))
            .map(|i| places[i])
            .collect();
        self.places.dedup();
    }

    /// Whether the ring goes round the earth and on the way runs along the meridian where it is written to jump by
    /// 360 degrees: it was closed there in the plane, along that line and back.
    fn is_folded_on_seam(&self) -> bool {
        let count = self.places.len();
        self.winding != 0
            && (0..count).any(|i| {
                let (at, next) = (self.places[i], self.places[(i + 1) % count]);
                Some(at.lon) == self.seam && at.is_above_or_below(&next)
            })
    }
}

/// Whether the area within is to the left; `None` where the ring turns back on itself at its western end, which is at `west`.
fn interior_left(places: &[Place], west: usize, winding: i32, pole: Option<Pole>) -> Option<bool> {
    if let Some(pole) = pole {
        return Some((winding > 0) == (pole == Pole::North));
    }
    let count = places.len();
    match side(
        places[(west + count - 1) % count],
        places[west],
        places[(west + 1) % count],
    ) {
        Ordering::Greater => Some(true),
        Ordering::Less => Some(false),
        Ordering::Equal => None,
    }
}
