//! The stored form of polygons: vertices, the edges that cross the antimeridian, and edges sorted into stripes of
//! longitude. `covers` counts the edges straight below a place: a meridian crosses no seam, so shapes over ±180° and
//! round a pole need no cut, and every answer rests on the vertices as they were written (DESIGN 5: exact).

use super::circle;
use super::envelope;
use super::exact::{Place, side};
use super::ring::{Pole, Ring};
use super::stripes::{Crossing, EdgeRef, Stripes};
use super::vertices::{Form, Vertices};
use super::{Edge, Envelope, Position, Segment};

/// The polygons of one area, validated: in as few places of memory as can be, and as small ones.
#[derive(Clone, Debug)]
pub(super) struct Polygons {
    /// The rings one after the other, each closed: its first vertex stands again at its end. Longitudes are within
    /// -180 to 180.
    vertices: Vertices,
    stripes: Stripes,
    /// The only envelope, or the first one.
    envelope: Envelope,
    /// Whether the south pole is within: what a place has below it that no edge tells.
    south: bool,
    beyond: Option<Box<Beyond>>,
}

/// What a single ring that keeps clear of the antimeridian has no need of.
#[derive(Clone, Debug)]
struct Beyond {
    /// Where each ring begins in the vertices; one more for the end.
    starts: Box<[u32]>,
    /// The edges that cross the antimeridian, ascending.
    crossings: Box<[EdgeRef]>,
    /// All envelopes but the first one.
    envelopes: Box<[Envelope]>,
}

/// Where a place lies.
#[derive(Copy, Clone, PartialEq, Eq)]
enum Standing {
    Inside,
    Outside,
    OnBoundary,
}

impl Polygons {
    /// Stores validated rings.
    pub(super) fn new(rings: &[Ring]) -> Self {
        let count = rings.iter().map(|ring| ring.places.len() + 1).sum();
        let mut vertices = Vec::with_capacity(count);
        let mut starts = Vec::with_capacity(rings.len() + 1);
        let mut crossings = Vec::new();
        for ring in rings {
            starts.push(index_u32(vertices.len()));
            let turns_off = ring.turns_off(-180.0);
            for index in 0..ring.places.len() {
                let (at, next) = ring.edge(index);
                let crossing = match (turns_off.is_some(), next.turn - at.turn) {
                    (true, _) | (_, 0) => None,
                    (_, 1) => Some(Crossing::Eastward),
                    (_, _) => Some(Crossing::Westward),
                };
                if let Some(crossing) = crossing {
                    crossings.push(EdgeRef::crossing(index_u32(vertices.len()), crossing));
                }
                vertices.push(position(at, turns_off));
            }
            vertices.push(position(ring.places[0], turns_off));
        }
        starts.push(index_u32(vertices.len()));
        let (stripes, refs) = Stripes::new(&vertices, &starts, &crossings);
        let south = rings
            .iter()
            .filter(|ring| ring.pole == Some(Pole::South))
            .count()
            % 2
            == 1;
        let envelopes = envelope::of_rings(rings);
        let (envelope, others) = envelopes
            .split_first()
            .expect("an area has rings, and rings are somewhere");
        let is_plain = starts.len() == 2 && crossings.is_empty() && others.is_empty();
        Self {
            vertices: Vertices::new(&vertices, &refs),
            stripes,
            envelope: *envelope,
            south,
            beyond: (!is_plain).then(|| {
                Box::new(Beyond {
                    starts: starts.into(),
                    crossings: crossings.into(),
                    envelopes: others.into(),
                })
            }),
        }
    }

    #[inline]
    pub(super) fn fetch(&self) {
        self.vertices.fetch();
    }

    /// Whether the place is within or on the boundary, exactly.
    pub(super) fn covers(&self, at: Position) -> bool {
        if !self.envelopes().any(|envelope| envelope.covers(at)) {
            return false;
        }
        if at.lon.abs() < 180.0 {
            return self.standing(at) != Standing::Outside;
        }
        // One meridian with two names; rings drawn up to it from the west have their border at 180.
        self.standing(Position { lon: -180.0, ..at }) != Standing::Outside
            || self.standing(Position { lon: 180.0, ..at }) == Standing::OnBoundary
    }

    /// A place inside, or a vertex where none is found: on a few meridians, the middle of the longest stretch within.
    pub(super) fn interior_point(&self) -> Position {
        const MERIDIANS: [f64; 7] = [0.5, 0.381_966, 0.618_034, 0.25, 0.75, 0.071_43, 0.928_57];
        let envelopes = self.envelopes().flat_map(|envelope| {
            let width = envelope.lon_max - envelope.lon_min;
            MERIDIANS.map(|part| envelope.lon_min + part * width)
        });
        envelopes
            .filter_map(|lon| self.interior_point_at(lon))
            .next()
            .unwrap_or_else(|| self.vertices.get(0))
    }

    fn interior_point_at(&self, lon: f64) -> Option<Position> {
        let mut lats = vec![-90.0, 90.0];
        for edge in self.stripes.edges_at(&self.vertices, lon) {
            let (one, other) = self.vertices.edge(edge.index());
            let (step, along) = match edge.crosses() {
                None => (other.lon - one.lon, lon - one.lon),
                Some(_) => (
                    circle::lon_between(one.lon, other.lon),
                    circle::lon_between(one.lon, lon),
                ),
            };
            let part = along / step;
            if (0.0..=1.0).contains(&part) {
                lats.push(one.lat + part * (other.lat - one.lat));
            }
        }
        lats.sort_by(f64::total_cmp);
        // Every other stretch is within; one look tells whether the rounded crossings can be trusted.
        let inside = lats
            .windows(2)
            .enumerate()
            .filter(|(below, _)| (below % 2 == 1) != self.south);
        let (_, longest) =
            inside.max_by(|(_, a), (_, b)| (a[1] - a[0]).total_cmp(&(b[1] - b[0])))?;
        let at = Position {
            lon,
            lat: f64::midpoint(longest[0], longest[1]),
        };
        (at.lon.abs() < 180.0 && self.standing(at) == Standing::Inside).then_some(at)
    }

    /// Where the place lies, by the edges on its meridian. At 180 only `OnBoundary` tells anything.
    fn standing(&self, at: Position) -> Standing {
        let all = &self.vertices;
        // Asked once, not at each of the edges.
        match all.form() {
            Form::Near => self.standing_by(at, |edge| all.near_edge(edge)),
            Form::Middle => self.standing_by(at, |edge| all.middle_edge(edge)),
            Form::Far => self.standing_by(at, |edge| all.far_edge(edge)),
            Form::Double => self.standing_by(at, |edge| all.double_edge(edge)),
        }
    }

    #[inline]
    fn standing_by(&self, at: Position, ends: impl Fn(usize) -> (Position, Position)) -> Standing {
        let mut inside = self.south;
        for edge in self.stripes.edges_at(&self.vertices, at.lon) {
            let (one, other) = ends(edge.index());
            let below = match edge.crosses() {
                None => stands_on_plain(one, other, at),
                Some(Crossing::Eastward) => stands_on_crossing(one, other, at),
                Some(Crossing::Westward) => stands_on_crossing(other, one, at),
            };
            match below {
                Below::Yes => inside = !inside,
                Below::On => return Standing::OnBoundary,
                Below::No => {}
            }
        }
        if inside {
            Standing::Inside
        } else {
            Standing::Outside
        }
    }

    pub(super) fn envelopes(&self) -> impl Iterator<Item = &Envelope> {
        let others = self.beyond.iter().flat_map(|beyond| &beyond.envelopes);
        std::iter::once(&self.envelope).chain(others)
    }

    pub(super) fn covers_south_pole(&self) -> bool {
        self.south
    }

    fn crossings(&self) -> &[EdgeRef] {
        self.beyond.as_ref().map_or(&[], |beyond| &beyond.crossings)
    }

    fn ring_count(&self) -> usize {
        self.beyond
            .as_ref()
            .map_or(1, |beyond| beyond.starts.len() - 1)
    }

    /// The vertices of a ring, the closing one included.
    fn ring(&self, number: usize) -> std::ops::Range<usize> {
        self.beyond.as_ref().map_or(0..self.vertices.len(), |all| {
            all.starts[number] as usize..all.starts[number + 1] as usize
        })
    }

    pub(super) fn vertex_count(&self) -> usize {
        self.vertices.len() - self.ring_count()
    }

    pub(super) fn byte_len(&self) -> usize {
        let beyond = self.beyond.as_ref().map_or(0, |beyond| {
            size_of::<Beyond>()
                + size_of_val(&*beyond.starts)
                + size_of_val(&*beyond.crossings)
                + size_of_val(&*beyond.envelopes)
        });
        self.vertices.byte_len() + beyond
    }

    /// Every edge, ring after ring.
    pub(super) fn edges(&self) -> impl Iterator<Item = Edge> + '_ {
        let mut crossings = self.crossings().iter().copied().peekable();
        (0..self.ring_count())
            .map(|number| self.ring(number))
            .flat_map(|ring| ring.start..ring.end - 1)
            .map(move |index| {
                let crossing = crossings.next_if(|edge| edge.index() == index);
                let (from, to) = self.vertices.edge(index);
                Edge {
                    from,
                    to,
                    crosses: crossing.and_then(EdgeRef::crosses),
                }
            })
    }

    /// Adds the pieces of its boundary that meet the window to `found`.
    pub(super) fn segments_near(&self, window: &Envelope, found: &mut Vec<Segment>) {
        let mut add = |edge: &Edge| {
            found.extend(Segment::of(edge).filter(|segment| segment.meets(window)));
        };
        if !self.crossings().is_empty() {
            // A piece beyond ±180° is in the stripes of neither side.
            self.edges().for_each(|edge| add(&edge));
            return;
        }
        self.stripes.edges_between(
            &self.vertices,
            (window.lon_min, window.lon_max),
            |from, to| {
                add(&Edge {
                    from,
                    to,
                    crosses: None,
                });
            },
        );
    }
}

/// Whether an edge passes below a place (the western end of an edge counts, the eastern does not).
#[derive(Copy, Clone, PartialEq, Eq)]
enum Below {
    Yes,
    No,
    On,
}

fn stands_on_plain(one: Position, other: Position, at: Position) -> Below {
    let (west, east) = if one.lon <= other.lon {
        (one, other)
    } else {
        (other, one)
    };
    if at.lon < west.lon || at.lon > east.lon {
        return Below::No;
    }
    if west.lon == east.lon {
        let between = at.lat >= west.lat.min(east.lat) && at.lat <= west.lat.max(east.lat);
        return if between { Below::On } else { Below::No };
    }
    if at.lon == east.lon {
        return if at.lat == east.lat {
            Below::On
        } else {
            Below::No
        };
    }
    let place = |at: Position| Place {
        lon: at.lon,
        turn: 0,
        lat: at.lat,
    };
    compare_lat(place(west), place(east), place(at))
}

/// The same for an edge that leads from `west` eastward over ±180° to `east`.
fn stands_on_crossing(west: Position, east: Position, at: Position) -> Below {
    let place = |at: Position, turn| Place {
        lon: at.lon,
        turn,
        lat: at.lat,
    };
    if at == east {
        Below::On
    } else if at.lon >= west.lon {
        compare_lat(place(west, 0), place(east, 1), place(at, 0))
    } else if at.lon < east.lon {
        compare_lat(place(west, 0), place(east, 1), place(at, 1))
    } else {
        Below::No
    }
}

fn compare_lat(west: Place, east: Place, at: Place) -> Below {
    // Most edges of a stripe lie wholly above or below: two comparisons decide.
    if at.lat > west.lat && at.lat > east.lat {
        return Below::Yes;
    }
    if at.lat < west.lat && at.lat < east.lat {
        return Below::No;
    }
    match side(west, east, at) {
        std::cmp::Ordering::Greater => Below::Yes,
        std::cmp::Ordering::Less => Below::No,
        std::cmp::Ordering::Equal => Below::On,
    }
}

/// A place as stored: `turns_off` makes the ring lie between -180 and 180, both included, where it can.
fn position(at: Place, turns_off: Option<i32>) -> Position {
    let on_eastern_end = turns_off.is_some_and(|turns| at.turn > turns);
    Position {
        lon: if on_eastern_end { 180.0 } else { at.lon },
        lat: at.lat,
    }
}

fn index_u32(index: usize) -> u32 {
    u32::try_from(index).expect("the cap on vertices is below 2^30")
}
