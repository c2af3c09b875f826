//! Validity by OGC simple features, on the cylinder of longitudes: rings are simple, rings meet in single points and
//! do not cross, holes are within their exterior, polygons do not overlap, and the interior of each is connected.
//!
//! Three passes, each n log n whatever the shape: places where several rings meet (sorted), crossings and nesting
//! (`sweep`), and the graph of touching rings. Antimeridian and poles are no special case of a rule: `ring` has
//! unwrapped them, and the two sides of ±180° are one only for rings that pass there.

use super::exact::{Place, compare_directions};
use super::ring::{Ring, rejection};
use super::simple;
use super::sweep::{self, Sweep};
use crate::rejection::{Rejection, RejectionReason};

/// Checks the rings of a shape.
pub(super) fn check(rings: &[Ring]) -> Result<(), Rejection> {
    match rings {
        // Most zones; in a fifth of the time.
        [ring] if simple::is_simple(ring) => Ok(()),
        _ => check_in_full(rings),
    }
}

/// The same by all three passes.
pub(super) fn check_in_full(rings: &[Ring]) -> Result<(), Rejection> {
    if let Some(ring) = rings.iter().find(|ring| ring.interior_left.is_none()) {
        let reason = RejectionReason::SelfIntersection;
        return Err(rejection(
            reason,
            ring.polygon,
            ring.number,
            "turns back on itself",
        ));
    }
    let seam = seam_for(rings);
    let mut touches = Touches::default();
    check_meeting_places(rings, seam, &mut touches)?;
    let within = Sweep::new(rings, seam).run(&mut touches)?;
    check_nesting(rings, &within)?;
    touches.check_interiors(rings)
}

/// Sorts rings into polygons by how they lie: those in an even number of others are exteriors, the others are holes of
/// the ring around them.
pub(super) fn group(mut rings: Vec<Ring>) -> Result<Vec<Ring>, Rejection> {
    let within = Sweep::new(&rings, -180.0).run(&mut Touches::default())?;
    let mut is_hole = vec![None; rings.len()];
    for ring in 0..rings.len() {
        // Up to a ring already known, and down again: each is visited once.
        let mut path = Vec::new();
        let mut at = Some(ring);
        while let Some(ring) = at.filter(|ring| is_hole[*ring].is_none()) {
            path.push(ring);
            at = within[ring];
        }
        let mut around_is_hole = at.is_none_or(|ring| is_hole[ring] == Some(true));
        for ring in path.into_iter().rev() {
            around_is_hole = !around_is_hole;
            is_hole[ring] = Some(around_is_hole);
        }
    }
    for (ring, around) in within.iter().enumerate() {
        let hole_of = around.filter(|_| is_hole[ring] == Some(true));
        rings[ring].polygon = hole_of.unwrap_or(ring);
        rings[ring].number = usize::from(hole_of.is_some());
    }
    rings.sort_by_key(|ring| (ring.polygon, ring.number));
    let (mut polygons, mut number) = (0, 0);
    for ring in &mut rings {
        number = if ring.number == 0 { 0 } else { number + 1 };
        polygons += usize::from(number == 0);
        (ring.polygon, ring.number) = (polygons - 1, number);
    }
    Ok(rings)
}

/// The meridian where the map is cut for the sweep: the antimeridian, as shapes are; Greenwich where a ring that goes
/// all the way round is written from 0 to 360.
///
/// The two sides of the cut are strangers to each other. That is right for shapes cut there, and wrong for holes that
/// end at the antimeridian within an exterior that passes it: then it is a meridian without vertices.
fn seam_for(rings: &[Ring]) -> f64 {
    let passes = |ring: &Ring| ring.turns_off(-180.0).is_none();
    let goes_round_from_zero = |ring: &Ring| {
        (0..ring.places.len()).any(|index| {
            let (at, next) = ring.edge(index);
            at.lon == 0.0 && next.lon == 0.0 && at.turn != next.turn
        })
    };
    if rings
        .iter()
        .any(|ring| ring.winding == 0 && passes(ring) && goes_round_from_zero(ring))
    {
        return 0.0;
    }
    let mut exterior_passes = false;
    for ring in rings {
        if ring.number == 0 {
            exterior_passes = passes(ring);
        } else if exterior_passes && ring.places.iter().any(|at| at.lon == -180.0) {
            return meridian_without_vertices(rings);
        }
    }
    -180.0
}

/// The middle of the widest stretch of longitude without a vertex.
fn meridian_without_vertices(rings: &[Ring]) -> f64 {
    let mut lons: Vec<f64> = rings
        .iter()
        .flat_map(|ring| &ring.places)
        .map(|at| at.lon)
        .collect();
    lons.sort_unstable_by(f64::total_cmp);
    let widest = lons
        .windows(2)
        .max_by(|a, b| (a[1] - a[0]).total_cmp(&(b[1] - b[0])));
    widest.map_or(-180.0, |gap| f64::midpoint(gap[0], gap[1]))
}

/// One ring passing one place.
#[derive(Copy, Clone, Debug)]
pub(super) struct Visit {
    pub(super) ring: usize,
    /// The places before and after, seen from the place visited in turn 0.
    pub(super) ends: [Place; 2],
}

impl Visit {
    pub(super) fn of_vertex(rings: &[Ring], ring: usize, index: usize) -> Self {
        let turn = rings[ring].places[index].turn;
        let ends = [rings[ring].previous(index), rings[ring].next(index)];
        Self {
            ring,
            ends: ends.map(|end| end.turned(-turn)),
        }
    }
}

/// Checks that the rings passing one place (in turn 0) differ, share no direction and do not cross there.
pub(super) fn check_visits(rings: &[Ring], at: Place, visits: &[Visit]) -> Result<(), Rejection> {
    let mut ends: Vec<(Place, usize)> = Vec::with_capacity(visits.len() * 2);
    for (number, visit) in visits.iter().enumerate() {
        ends.extend(visit.ends.map(|end| (end, number)));
    }
    let mut seen: Vec<usize> = visits.iter().map(|visit| visit.ring).collect();
    seen.sort_unstable();
    if let Some(twice) = seen.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(conflict(rings, twice[0], twice[1], "touches itself"));
    }
    ends.sort_by(|a, b| compare_directions(at, a.0, b.0));
    for pair in ends.windows(2) {
        if compare_directions(at, pair[0].0, pair[1].0).is_eq() {
            let (one, other) = (visits[pair[0].1].ring, visits[pair[1].1].ring);
            return Err(conflict(rings, one, other, "shares a line"));
        }
    }
    // Going round the place, rings that do not cross close like brackets.
    let mut open: Vec<usize> = Vec::new();
    for (_, number) in ends {
        if open.last() == Some(&number) {
            open.pop();
        } else {
            open.push(number);
        }
    }
    match open[..] {
        [one, other, ..] => Err(conflict(
            rings,
            visits[one].ring,
            visits[other].ring,
            "crosses",
        )),
        _ => Ok(()),
    }
}

/// The rejection for two rings, or one with itself, that meet as they must not.
pub(super) fn conflict(rings: &[Ring], one: usize, other: usize, verb: &str) -> Rejection {
    let (one, other) = (&rings[one.min(other)], &rings[one.max(other)]);
    let name = |ring: &Ring| match ring.number {
        0 => format!("the exterior of polygon {}", ring.polygon + 1),
        number => format!("hole {number} of polygon {}", ring.polygon + 1),
    };
    let (reason, what) = if one.polygon != other.polygon {
        (
            RejectionReason::PartsOverlap,
            format!("{verb} with or over {}", name(other)),
        )
    } else if one.number != other.number {
        (
            RejectionReason::RingsIntersect,
            format!("{verb} with or over {}", name(other)),
        )
    } else {
        (
            RejectionReason::SelfIntersection,
            format!("{verb}: it must not cross or touch itself"),
        )
    };
    rejection(reason, one.polygon, one.number, &what)
}

/// Checks every place that is a vertex of several rings, or several times of one.
fn check_meeting_places(rings: &[Ring], seam: f64, touches: &mut Touches) -> Result<(), Rejection> {
    let mut vertices: Vec<(Place, u32, u32)> = Vec::new();
    for (ring, places) in rings.iter().map(|ring| &ring.places).enumerate() {
        for (index, at) in places.iter().enumerate() {
            let at = Place { turn: 0, ..*at };
            vertices.push((at, sweep::index_u32(ring), sweep::index_u32(index)));
        }
    }
    vertices.sort_unstable_by(|a, b| a.0.sweep_order(&b.0));
    let sides: Vec<Option<i32>> = rings.iter().map(|ring| ring.turns_off(seam)).collect();
    for meeting in vertices
        .chunk_by(|a, b| a.0 == b.0)
        .filter(|meeting| meeting.len() > 1)
    {
        let at = meeting[0].0;
        let visits = meeting
            .iter()
            .map(|(_, ring, index)| Visit::of_vertex(rings, *ring as usize, *index as usize));
        if at.lon == seam {
            // Rings that end at the seam are seen from their own side only.
            for side in [EAST_OF_SEAM, WEST_OF_SEAM] {
                let on_side = visits
                    .clone()
                    .zip(meeting)
                    .filter(|(visit, (_, ring, index))| {
                        let turn = rings[*ring as usize].places[*index as usize].turn;
                        sides[visit.ring].is_none_or(|turns_off| turn - turns_off == side)
                    });
                let visits: Vec<Visit> = on_side.map(|(visit, _)| visit).collect();
                check_visits(rings, at, &visits)?;
            }
        } else {
            let visits: Vec<Visit> = visits.collect();
            check_visits(rings, at, &visits)?;
        }
        for (_, ring, _) in meeting {
            touches.add(at, *ring as usize);
        }
    }
    Ok(())
}

/// A ring that lies east of the seam begins there in its own turn 0, one west of it ends there in turn 1.
const EAST_OF_SEAM: i32 = 0;
const WEST_OF_SEAM: i32 = 1;

/// Checks that every ring lies where its role allows: `within` is, for each, the innermost ring around it.
fn check_nesting(rings: &[Ring], within: &[Option<usize>]) -> Result<(), Rejection> {
    for (ring, around) in rings.iter().zip(within) {
        let around = around.map(|around| &rings[around]);
        let (reason, what) = match (ring.number, around) {
            (0, None) => continue,
            (0, Some(around)) if around.number == 0 => (
                RejectionReason::PartsOverlap,
                format!("lies within polygon {}", around.polygon + 1),
            ),
            (0, Some(around)) if around.polygon == ring.polygon => (
                RejectionReason::HoleOutside,
                format!("lies within its hole {}", around.number),
            ),
            (0, Some(_)) => continue,
            (_, Some(around)) if around.polygon == ring.polygon && around.number == 0 => continue,
            (_, Some(around)) if around.polygon == ring.polygon => (
                RejectionReason::RingsIntersect,
                format!("lies within hole {}", around.number),
            ),
            _ => (
                RejectionReason::HoleOutside,
                "does not lie within its exterior".to_owned(),
            ),
        };
        return Err(rejection(reason, ring.polygon, ring.number, &what));
    }
    Ok(())
}

/// Which rings pass which places, where several do.
#[derive(Default)]
pub(super) struct Touches {
    passes: Vec<(Place, usize)>,
}

impl Touches {
    /// Notes that a ring passes a place.
    pub(super) fn add(&mut self, at: Place, ring: usize) {
        self.passes.push((Place { turn: 0, ..at }, ring));
    }

    /// Checks that the interior of each polygon is connected: the graph of its rings and the places where they touch
    /// has no cycle, as one would cut a piece off.
    fn check_interiors(mut self, rings: &[Ring]) -> Result<(), Rejection> {
        self.passes
            .sort_unstable_by(|a, b| a.0.sweep_order(&b.0).then(a.1.cmp(&b.1)));
        self.passes.dedup();
        let mut groups = Groups::new(rings.len());
        for meeting in self.passes.chunk_by(|a, b| a.0 == b.0) {
            // Rings are in the order of their polygons.
            for mates in meeting.chunk_by(|a, b| rings[a.1].polygon == rings[b.1].polygon) {
                for pair in mates.windows(2) {
                    if !groups.join(pair[0].1, pair[1].1) {
                        let ring = &rings[pair[1].1];
                        return Err(rejection(
                            RejectionReason::InteriorDisconnected,
                            ring.polygon,
                            ring.number,
                            "touches other rings so that they cut the interior in two",
                        ));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Sets of rings that touch (union-find).
struct Groups {
    up: Vec<usize>,
}

impl Groups {
    fn new(count: usize) -> Self {
        Self {
            up: (0..count).collect(),
        }
    }

    fn root(&mut self, mut ring: usize) -> usize {
        while self.up[ring] != ring {
            self.up[ring] = self.up[self.up[ring]];
            ring = self.up[ring];
        }
        ring
    }

    /// Joins two sets; false where they were one.
    fn join(&mut self, one: usize, other: usize) -> bool {
        let (one, other) = (self.root(one), self.root(other));
        self.up[one] = other;
        one != other
    }
}
