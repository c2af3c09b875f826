//! Whether a lone ring of the plain kind is simple, which most zones are: the same sweep as `sweep`, without what several rings,
//! touching edges and turns ask for. It says yes or nothing: what it does not accept, `sweep` judges and gives the reason.
//!
//! At each vertex, west to east, one edge ends and one begins, or two end, or two begin. Edges that become neighbours must be
//! strictly apart where the first of them ends. The westmost place where two edges meet would be passed by two neighbours, or
//! lie on an edge where others begin: none of it is accepted.

use std::cmp::Ordering;

use super::exact::{Place, side};
use super::ring::Ring;

/// More edges under the sweep line than this are the business of a tree.
const ACTIVE_MAX: usize = 64;

/// Whether the ring is known to be simple.
pub(super) fn is_simple(ring: &Ring) -> bool {
    ring.winding == 0
        && ring.interior_left.is_some()
        && ring.western.turn == ring.eastern.turn
        && sweep(&ring.places).is_some()
}

/// An edge under the sweep line.
#[derive(Copy, Clone)]
struct Active {
    west: Place,
    east: Place,
    /// The index of the vertex at which it begins in the ring.
    index: usize,
}

impl Active {
    fn new(one: Place, other: Place, index: usize) -> Self {
        let (west, east) = if is_before(&one, &other) {
            (one, other)
        } else {
            (other, one)
        };
        Self { west, east, index }
    }

    fn side(&self, at: Place) -> Ordering {
        side(self.west, self.east, at)
    }
}

/// Whether the sweep meets `one` first, both of one turn.
fn is_before(one: &Place, other: &Place) -> bool {
    one.lon < other.lon || (one.lon == other.lon && one.lat < other.lat)
}

/// `None` where it is not known to be simple.
fn sweep(places: &[Place]) -> Option<()> {
    let mut order: Vec<(f64, f64, u32)> = places
        .iter()
        .zip(0..)
        .map(|(at, index)| (at.lon, at.lat, index))
        .collect();
    order.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let mut active: Vec<Active> = Vec::with_capacity(16);
    let mut last = None;
    for (_, _, index) in order {
        let index = index as usize;
        let before = index.checked_sub(1).unwrap_or(places.len() - 1);
        let after = if index + 1 == places.len() {
            0
        } else {
            index + 1
        };
        let at = places[index];
        if last.replace(at) == Some(at) {
            return None;
        }
        match (
            is_before(&places[before], &at),
            is_before(&places[after], &at),
        ) {
            (true, true) => {
                let one = position(&active, before)?;
                // The other one next to it: else something is between them.
                let low = [one.wrapping_sub(1), one]
                    .into_iter()
                    .find(|low| is_pair(&active, *low, before, index))?;
                active.drain(low..low + 2);
                check_at(&active, low)?;
            }
            (false, false) => {
                let to_before = Active::new(at, places[before], before);
                let to_after = Active::new(at, places[after], index);
                let (low, high) = match side(at, to_before.east, to_after.east) {
                    Ordering::Greater => (to_before, to_after),
                    Ordering::Less => (to_after, to_before),
                    Ordering::Equal => return None,
                };
                let place = find(&active, at)?;
                if active.len() + 2 > ACTIVE_MAX {
                    return None;
                }
                active.splice(place..place, [low, high]);
                check_at(&active, place)?;
                check_at(&active, place + 2)?;
            }
            (goes_on, _) => {
                let (ends, begins, to) = if goes_on {
                    (before, index, after)
                } else {
                    (index, before, before)
                };
                let place = position(&active, ends)?;
                active[place] = Active::new(at, places[to], begins);
                check_at(&active, place)?;
                check_at(&active, place + 1)?;
            }
        }
    }
    Some(())
}

fn position(active: &[Active], index: usize) -> Option<usize> {
    active.iter().position(|edge| edge.index == index)
}

/// Whether the two edges from `low` on are these.
fn is_pair(active: &[Active], low: usize, one: usize, other: usize) -> bool {
    let Some([below, above]) = active.get(low..low.saturating_add(2)) else {
        return false;
    };
    let found = (below.index, above.index);
    found == (one, other) || found == (other, one)
}

/// How many edges are below the place; `None` where one passes through it.
fn find(active: &[Active], at: Place) -> Option<usize> {
    let (mut low, mut high) = (0, active.len());
    while low < high {
        let middle = usize::midpoint(low, high);
        match active[middle].side(at) {
            Ordering::Greater => low = middle + 1,
            Ordering::Less => high = middle,
            Ordering::Equal => return None,
        }
    }
    Some(low)
}

/// Checks that the edges just below and above `place` of the list are apart as far as the first of them reaches.
fn check_at(active: &[Active], place: usize) -> Option<()> {
    let Some([lower, upper]) = place
        .checked_sub(1)
        .and_then(|low| active.get(low..low + 2))
    else {
        return Some(());
    };
    let is_high = |lat: f64| lat > lower.west.lat && lat > lower.east.lat;
    if is_high(upper.west.lat) && is_high(upper.east.lat) {
        return Some(());
    }
    let is_apart = if lower.east == upper.east {
        // They end together, as neighbours in the ring.
        true
    } else if is_before(&lower.east, &upper.east) {
        upper.side(lower.east).is_lt()
    } else {
        lower.side(upper.east).is_gt()
    };
    is_apart.then_some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::validate;
    use super::super::{Position, RawShape, ShapeRules};
    use super::*;

    fn ring(corners: &[(f64, f64)]) -> Option<Ring> {
        let mut positions: Vec<Position> = corners
            .iter()
            .map(|(lon, lat)| Position {
                lon: *lon,
                lat: *lat,
            })
            .collect();
        positions.push(positions[0]);
        Ring::new(0, 0, &positions).ok()
    }

    fn is_accepted(corners: &[(f64, f64)]) -> bool {
        is_simple(&ring(corners).unwrap())
    }

    #[test]
    fn plain_rings_are_accepted_in_every_position_and_direction() {
        let shapes: [&[(f64, f64)]; 5] = [
            &[(0., 0.), (4., 0.), (4., 4.), (0., 4.)],
            &[(0., 0.), (4., 1.), (1., 4.)],
            &[(0., 0.), (4., 0.), (4., 4.), (2., 1.), (0., 4.)],
            &[(0., 0.), (1., 3.), (0., 6.), (5., 6.), (4., 3.), (5., 0.)],
            &[(0., 0.), (0., 1.), (0., 2.), (0., 3.), (2., 3.), (2., 0.)],
        ];
        for shape in shapes {
            for turns in 0..shape.len() {
                let mut turned = shape.to_vec();
                turned.rotate_left(turns);
                assert!(is_accepted(&turned), "{turned:?}");
                turned.reverse();
                assert!(is_accepted(&turned), "{turned:?}");
            }
        }
    }

    #[test]
    fn what_meets_itself_is_not_accepted() {
        let shapes: [&[(f64, f64)]; 5] = [
            // A bow tie, a vertex on an edge, a vertex on a vertex, a spike, an edge along another.
            &[(0., 0.), (4., 4.), (4., 0.), (0., 4.), (-1., 2.)],
            &[(0., 0.), (4., 0.), (4., 4.), (2., 0.), (0., 4.)],
            &[(0., 0.), (2., 1.), (4., 0.), (4., 4.), (2., 1.), (0., 4.)],
            &[(0., 0.), (4., 0.), (4., 4.), (4., 6.), (4., 4.), (0., 4.)],
            &[(0., 0.), (4., 0.), (4., 4.), (3., 0.), (1., 0.), (0., 4.)],
        ];
        for shape in shapes {
            assert!(!is_accepted(shape), "{shape:?}");
        }
    }

    #[test]
    fn a_ring_over_the_antimeridian_is_left_to_the_full_check() {
        assert!(!is_accepted(&[(179., 0.), (-179., 0.), (-179., 1.)]));
        assert!(is_accepted(&[(-180., 0.), (-179., 0.), (-179., 1.)]));
    }

    /// The full check, and whether the short one accepts.
    fn judged(corners: &[(f64, f64)]) -> Option<(bool, bool)> {
        let ring = ring(corners)?;
        let full = validate::check_in_full(std::slice::from_ref(&ring)).is_ok();
        Some((full, is_simple(&ring)))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

        /// On a coarse grid collinear, touching and coinciding places are common.
        #[test]
        fn it_accepts_exactly_what_the_full_check_does(
            corners in prop::collection::vec((0_i8..6, 0_i8..6), 3..9),
        ) {
            let corners: Vec<(f64, f64)> = corners
                .iter()
                .map(|(x, y)| (f64::from(*x), f64::from(*y)))
                .collect();
            if let Some((full, short)) = judged(&corners) {
                prop_assert_eq!(full, short, "{:?}", corners);
            }
        }

        /// Star-shaped rings with some of their vertices moved: most are valid or nearly so.
        #[test]
        fn rings_with_many_vertices_are_judged_as_by_the_full_check(
            radii in prop::collection::vec(0.2_f64..1.0, 8..120),
            moved in prop::collection::vec((any::<prop::sample::Index>(), 0.0_f64..1.5), 0..3),
        ) {
            let mut radii = radii;
            for (index, radius) in moved {
                let at = index.index(radii.len());
                radii[at] = -radius;
            }
            let count = radii.len() as f64;
            let corners: Vec<(f64, f64)> = radii
                .iter()
                .zip(0_u32..)
                .map(|(radius, number)| {
                    let angle = f64::from(number) / count * std::f64::consts::TAU;
                    (radius * angle.cos(), radius * angle.sin())
                })
                .collect();
            if let Some((full, short)) = judged(&corners) {
                prop_assert_eq!(full, short, "{:?}", corners);
            }
        }
    }

    #[test]
    fn more_edges_side_by_side_than_it_keeps_are_left_to_the_full_check() {
        let mut comb = vec![(-1.0, 0.0)];
        for tooth in 0..80 {
            let lat = f64::from(tooth);
            comb.extend([(10.0, lat + 0.2), (0.0, lat + 0.5)]);
        }
        comb.push((-1.0, 80.0));
        assert_eq!(judged(&comb), Some((true, false)));
        let area = super::super::Area::new(
            RawShape::MultiPolygon(vec![vec![
                comb.iter()
                    .chain(&comb[..1])
                    .map(|(lon, lat)| Position {
                        lon: *lon,
                        lat: *lat,
                    })
                    .collect(),
            ]]),
            &ShapeRules::default(),
        );
        assert!(area.is_ok());
    }
}
