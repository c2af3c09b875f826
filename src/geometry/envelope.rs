//! Rectangles around polygons, cut at ±180° and at the widest stretch of longitude that holds nothing.

use super::ring::{Pole, Ring};
use super::{Envelope, Position};

impl Envelope {
    /// Whether the place is within, bounds included.
    #[must_use]
    pub fn covers(&self, at: Position) -> bool {
        at.lon >= self.lon_min
            && at.lon <= self.lon_max
            && at.lat >= self.lat_min
            && at.lat <= self.lat_max
    }

    fn with(self, other: Self) -> Self {
        Self {
            lon_min: self.lon_min.min(other.lon_min),
            lat_min: self.lat_min.min(other.lat_min),
            lon_max: self.lon_max.max(other.lon_max),
            lat_max: self.lat_max.max(other.lat_max),
        }
    }
}

/// One or two rectangles that together hold every place of the rings' polygons, a place at lon 180 under both its
/// names.
pub(super) fn of_rings(rings: &[Ring]) -> Vec<Envelope> {
    let mut pieces = Vec::new();
    for ring in rings.iter().filter(|ring| ring.number == 0) {
        pieces.extend(of_exterior(ring));
    }
    for index in 0..pieces.len() {
        let piece: Envelope = pieces[index];
        if piece.lon_min == -180.0 {
            pieces.push(Envelope {
                lon_min: 180.0,
                lon_max: 180.0,
                ..piece
            });
        }
        if piece.lon_max == 180.0 {
            pieces.push(Envelope {
                lon_min: -180.0,
                lon_max: -180.0,
                ..piece
            });
        }
    }
    split_at_widest_gap(pieces)
}

/// The rectangles of one exterior ring: more than one where it crosses the antimeridian.
fn of_exterior(ring: &Ring) -> Vec<Envelope> {
    let lats = ring.places.iter().map(|at| at.lat);
    let (mut lat_min, mut lat_max) = lats.fold((90.0_f64, -90.0_f64), |(min, max), lat| {
        (min.min(lat), max.max(lat))
    });
    match ring.pole {
        Some(Pole::South) => lat_min = -90.0,
        Some(Pole::North) => lat_max = 90.0,
        None => {}
    }
    let piece = |lon_min, lon_max| Envelope {
        lon_min,
        lat_min,
        lon_max,
        lat_max,
    };
    let first = ring.places.iter().map(|at| at.turn).min().unwrap_or(0);
    let last = ring.places.iter().map(|at| at.turn).max().unwrap_or(0);
    let lons = |turn| {
        ring.places
            .iter()
            .filter(move |at| at.turn == turn)
            .map(|at| at.lon)
    };
    let west = lons(first).fold(180.0, f64::min);
    let east = lons(last).fold(-180.0, f64::max);
    if ring.winding != 0 || last - first > 1 || (last - first == 1 && east >= west) {
        vec![piece(-180.0, 180.0)]
    } else if last == first {
        vec![piece(west, east)]
    } else if east == -180.0 {
        // It reaches the antimeridian from the west and does not cross it.
        vec![piece(west, 180.0)]
    } else {
        vec![piece(west, 180.0), piece(-180.0, east)]
    }
}

/// Joins the pieces into one rectangle, or into two where that leaves out the antimeridian's far side.
fn split_at_widest_gap(mut pieces: Vec<Envelope>) -> Vec<Envelope> {
    pieces.sort_by(|a, b| a.lon_min.total_cmp(&b.lon_min));
    let Some(first) = pieces.first().copied() else {
        return Vec::new();
    };
    let (mut widest, mut split) = (0.0, 0);
    let mut reached = first.lon_max;
    for (index, piece) in pieces.iter().enumerate().skip(1) {
        if piece.lon_min - reached > widest {
            (widest, split) = (piece.lon_min - reached, index);
        }
        reached = reached.max(piece.lon_max);
    }
    let over_the_seam = first.lon_min == -180.0 && reached == 180.0;
    if split > 0 && (over_the_seam || widest > 180.0) {
        let (west, east) = pieces.split_at(split);
        [west, east]
            .iter()
            .filter_map(|group| group.iter().copied().reduce(Envelope::with))
            .collect()
    } else {
        pieces
            .into_iter()
            .reduce(Envelope::with)
            .into_iter()
            .collect()
    }
}
