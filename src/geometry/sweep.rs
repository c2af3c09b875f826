//! A sweep from west to east (Shamos and Hoey) over the edges of all rings: finds crossing, overlapping and touching
//! edges, and for every ring the innermost ring around it.
//!
//! The map is cut at a seam. An edge that crosses it is swept at both ends of the map, each time with both its ends,
//! one beyond the seam, so that no cut has to be computed: beyond the seam such edges are alone, and what they do
//! to each other there they do at the other end of the map too.

use std::cmp::Ordering;

use super::exact::{Place, side};
use super::ring::{Pole, Ring};
use super::status::Status;
use super::validate::{Touches, Visit, check_visits, conflict};
use crate::rejection::Rejection;

/// An edge on the map.
#[derive(Copy, Clone)]
struct Segment {
    west: Place,
    east: Place,
    ring: u32,
    /// The index of the vertex at which the edge begins in its ring.
    index: u32,
    /// Whether the ring goes along it from west to east.
    eastward: bool,
}

/// An end of a segment.
#[derive(Copy, Clone)]
struct End {
    at: Place,
    segment: u32,
    begins: bool,
}

/// The state of a sweep.
pub(super) struct Sweep<'a> {
    rings: &'a [Ring],
    segments: Vec<Segment>,
    status: Status,
    /// The innermost ring around each ring, once known.
    within: Vec<Option<Option<usize>>>,
    /// The western border of the map.
    seam: Place,
}

impl<'a> Sweep<'a> {
    /// Lays the edges out on the map that begins at the longitude `seam`.
    pub(super) fn new(rings: &'a [Ring], seam: f64) -> Self {
        let mut segments = Vec::with_capacity(rings.iter().map(|ring| ring.places.len()).sum());
        for (number, ring) in rings.iter().enumerate() {
            let turns_off = ring.turns_off(seam);
            for index in 0..ring.places.len() {
                let (from, to) = ring.edge(index);
                let eastward = from.sweep_order(&to).is_lt();
                let (west, east) = if eastward { (from, to) } else { (to, from) };
                let (ring, index) = (index_u32(number), index_u32(index));
                let turns = turns_off.unwrap_or(west.turn - i32::from(west.lon < seam));
                let segment = Segment {
                    west: west.turned(-turns),
                    east: east.turned(-turns),
                    ring,
                    index,
                    eastward,
                };
                segments.push(segment);
                // The eastern border of the map is the seam, a turn further.
                let border = Place {
                    lon: seam,
                    turn: 1,
                    lat: 90.0,
                };
                if turns_off.is_none() && segment.east.sweep_order(&border).is_gt() {
                    let (west, east) = (segment.west.turned(-1), segment.east.turned(-1));
                    segments.push(Segment {
                        west,
                        east,
                        ..segment
                    });
                }
            }
        }
        let status = Status::new(segments.len());
        let seam = Place {
            lon: seam,
            turn: 0,
            lat: 90.0,
        };
        Self {
            rings,
            segments,
            status,
            within: vec![None; rings.len()],
            seam,
        }
    }

    /// Sweeps; gives for each ring the innermost ring around it.
    pub(super) fn run(mut self, touches: &mut Touches) -> Result<Vec<Option<usize>>, Rejection> {
        let mut ends = Vec::with_capacity(self.segments.len() * 2);
        for (number, segment) in self.segments.iter().enumerate() {
            let number = index_u32(number);
            ends.push(End {
                at: segment.west,
                segment: number,
                begins: true,
            });
            ends.push(End {
                at: segment.east,
                segment: number,
                begins: false,
            });
        }
        ends.sort_unstable_by(|a, b| a.at.sweep_order(&b.at));
        let mut on_map = false;
        for meeting in ends.chunk_by(|a, b| a.at == b.at) {
            if !on_map && meeting[0].at.sweep_order(&self.seam).is_gt() {
                on_map = true;
                self.nest_along_seam();
            }
            self.visit(meeting, on_map, touches)?;
        }
        Ok(self.within.into_iter().map(Option::flatten).collect())
    }

    /// Handles all ends at one place.
    fn visit(
        &mut self,
        meeting: &[End],
        on_map: bool,
        touches: &mut Touches,
    ) -> Result<(), Rejection> {
        let at = meeting[0].at;
        let (below, through) = self.locate(meeting)?;
        if let Some(through) = through {
            self.check_touch(at, meeting, through)?;
            touches.add(at, self.segments[through as usize].ring as usize);
            for end in meeting {
                touches.add(at, self.segments[end.segment as usize].ring as usize);
            }
        }
        for end in meeting.iter().filter(|end| !end.begins) {
            self.status.remove(end.segment);
        }
        let mut begun: Vec<u32> = meeting
            .iter()
            .filter(|end| end.begins)
            .map(|end| end.segment)
            .collect();
        begun.sort_by(|a, b| {
            side(
                at,
                self.segments[*a as usize].east,
                self.segments[*b as usize].east,
            )
            .reverse()
        });
        self.check_no_overlap(at, through, &begun)?;
        let mut lower = below;
        let mut passed = through.is_none();
        for segment in &begun {
            let is_above = |through: u32| {
                side(
                    at,
                    self.segments[through as usize].east,
                    self.segments[*segment as usize].east,
                )
                .is_gt()
            };
            if !passed && through.is_some_and(is_above) {
                lower = through;
                passed = true;
            }
            self.status.insert_above(lower, *segment);
            lower = Some(*segment);
        }
        if on_map {
            self.nest(&begun);
        }
        self.check_neighbours(below, through, &begun)
    }

    /// The edge next below a place, and the edge that passes through it without an end, if one does.
    fn locate(&self, meeting: &[End]) -> Result<(Option<u32>, Option<u32>), Rejection> {
        let at = meeting[0].at;
        let ended = meeting
            .iter()
            .find(|end| !end.begins)
            .map(|end| end.segment);
        let found = match ended {
            Some(segment) => Ok(segment),
            None => self.status.find(|segment| self.side(segment, at)),
        };
        let start = match found {
            Ok(segment) => segment,
            Err(below) => return Ok((below, None)),
        };
        let mut through: Option<u32> = None;
        let mut meet = |segment: u32| {
            if self.segments[segment as usize].east == at {
                return Ok(());
            }
            match through.replace(segment) {
                Some(other) => Err(self.conflict(segment, other, "crosses")),
                None => Ok(()),
            }
        };
        meet(start)?;
        let mut above = self.status.above(start);
        while let Some(segment) = above.filter(|segment| self.is_on(*segment, at)) {
            meet(segment)?;
            above = self.status.above(segment);
        }
        let mut below = self.status.below(start);
        while let Some(segment) = below.filter(|segment| self.is_on(*segment, at)) {
            meet(segment)?;
            below = self.status.below(segment);
        }
        Ok((below, through))
    }

    fn is_on(&self, segment: u32, at: Place) -> bool {
        self.segments[segment as usize].east == at || self.side(segment, at).is_eq()
    }

    fn side(&self, segment: u32, at: Place) -> Ordering {
        let Segment { west, east, .. } = self.segments[segment as usize];
        side(west, east, at)
    }

    fn conflict(&self, one: u32, other: u32, verb: &str) -> Rejection {
        let ring = |segment: u32| self.segments[segment as usize].ring as usize;
        conflict(self.rings, ring(one), ring(other), verb)
    }

    /// Checks the rings with a vertex at a place that lies inside another edge.
    fn check_touch(&self, at: Place, meeting: &[End], through: u32) -> Result<(), Rejection> {
        let segment = self.segments[through as usize];
        let ends = [segment.west.turned(-at.turn), segment.east.turned(-at.turn)];
        let mut visits = vec![Visit {
            ring: segment.ring as usize,
            ends,
        }];
        let mut vertices: Vec<(usize, usize)> = meeting
            .iter()
            .map(|end| {
                let segment = self.segments[end.segment as usize];
                let ring = segment.ring as usize;
                let is_first = end.begins == segment.eastward;
                let index = segment.index as usize + usize::from(!is_first);
                (ring, index % self.rings[ring].places.len())
            })
            .collect();
        vertices.sort_unstable();
        vertices.dedup();
        visits.extend(
            vertices
                .iter()
                .map(|(ring, index)| Visit::of_vertex(self.rings, *ring, *index)),
        );
        check_visits(self.rings, Place { turn: 0, ..at }, &visits)
    }

    /// Checks that edges which begin at one place lead in different directions, and not along `through`.
    fn check_no_overlap(
        &self,
        at: Place,
        through: Option<u32>,
        begun: &[u32],
    ) -> Result<(), Rejection> {
        let east = |segment: u32| self.segments[segment as usize].east;
        for pair in begun.windows(2) {
            if side(at, east(pair[0]), east(pair[1])).is_eq() {
                return Err(self.conflict(pair[0], pair[1], "shares a line"));
            }
        }
        let along = |through: u32| {
            begun
                .iter()
                .find(|segment| side(at, east(through), east(**segment)).is_eq())
        };
        match through.and_then(|through| along(through).map(|segment| (through, *segment))) {
            Some((through, segment)) => Err(self.conflict(through, segment, "shares a line")),
            None => Ok(()),
        }
    }

    /// Checks the edges that have become neighbours.
    fn check_neighbours(
        &self,
        below: Option<u32>,
        through: Option<u32>,
        begun: &[u32],
    ) -> Result<(), Rejection> {
        let mut lower = below;
        for _ in 0..=begun.len() + usize::from(through.is_some()) {
            let upper = match lower {
                Some(lower) => self.status.above(lower),
                None => self.status.iter().next(),
            };
            let Some(upper) = upper else { return Ok(()) };
            if let Some(lower) = lower {
                self.check_order(lower, upper)?;
            }
            lower = Some(upper);
        }
        Ok(())
    }

    /// Checks that two neighbours are still in order where the first of them ends: else they cross before.
    fn check_order(&self, lower: u32, upper: u32) -> Result<(), Rejection> {
        let ends = [lower, upper].map(|segment| self.segments[segment as usize].east);
        let crossed = if ends[0].sweep_order(&ends[1]).is_le() {
            self.side(upper, ends[0]).is_gt()
        } else {
            self.side(lower, ends[1]).is_lt()
        };
        if crossed {
            Err(self.conflict(lower, upper, "crosses"))
        } else {
            Ok(())
        }
    }

    /// Finds the ring around each ring that is met here for the first time.
    fn nest(&mut self, begun: &[u32]) {
        for segment in begun {
            let ring = self.segments[*segment as usize].ring as usize;
            if self.within[ring].is_none() {
                let below = self.status.below(*segment);
                self.within[ring] = Some(below.and_then(|below| self.region_above(below)));
            }
        }
    }

    /// The innermost ring around what lies just above an edge.
    fn region_above(&self, segment: u32) -> Option<usize> {
        let Segment { ring, eastward, .. } = self.segments[segment as usize];
        let ring = ring as usize;
        if Some(eastward) == self.rings[ring].interior_left {
            Some(ring)
        } else {
            self.within[ring].flatten()
        }
    }

    /// Finds the ring around each ring that is there at the western border of the map, from the south pole up.
    fn nest_along_seam(&mut self) {
        let along: Vec<u32> = self.status.iter().collect();
        // Rings round the south pole lie one within the other, the southmost innermost.
        let mut around: Vec<usize> = Vec::new();
        for segment in &along {
            let ring = self.segments[*segment as usize].ring as usize;
            if self.rings[ring].pole == Some(Pole::South) && self.within[ring].is_none() {
                self.within[ring] = Some(None);
                around.push(ring);
            }
        }
        for (number, ring) in around.iter().enumerate() {
            self.within[*ring] = Some(around.get(number + 1).copied());
        }
        let mut region = around.first().copied();
        for segment in along {
            let ring = self.segments[segment as usize].ring as usize;
            self.within[ring].get_or_insert(region);
            region = self.region_above(segment);
        }
    }
}

/// Indices are below the cap on vertices.
pub(super) fn index_u32(index: usize) -> u32 {
    u32::try_from(index).expect("the cap on vertices is below 2^30")
}
