//! Edges sorted into stripes of longitude, so that a lookup reads the edges near its meridian only.

use super::Position;
use super::vertices::Vertices;

/// How many edges a stripe is meant to have.
const EDGES_PER_STRIPE: usize = 4;

/// How many references all stripes may have for each edge: long edges are in many stripes, and the memory must not
/// grow beyond the shape's own.
const REFERENCES_PER_EDGE: usize = 3;

/// Which way an edge crosses the antimeridian.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Crossing {
    /// From the eastern hemisphere into the western.
    Eastward,
    /// From the western hemisphere into the eastern.
    Westward,
}

/// An edge, by the index of its first vertex, and whether it crosses the antimeridian.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct EdgeRef(u32);

const EASTWARD: u32 = 1 << 31;
const WESTWARD: u32 = 1 << 30;

/// Most vertices, closing ones included, that references can name.
pub(super) const VERTICES_MAX: usize = WESTWARD as usize;

impl EdgeRef {
    pub(super) fn crossing(index: u32, crossing: Crossing) -> Self {
        Self(
            index
                | if crossing == Crossing::Eastward {
                    EASTWARD
                } else {
                    WESTWARD
                },
        )
    }

    pub(super) fn index(self) -> usize {
        (self.0 & !(EASTWARD | WESTWARD)) as usize
    }

    pub(super) fn crosses(self) -> Option<Crossing> {
        if self.0 & EASTWARD != 0 {
            Some(Crossing::Eastward)
        } else if self.0 & WESTWARD != 0 {
            Some(Crossing::Westward)
        } else {
            None
        }
    }
}

/// Stripes of equal width, each with the edges that meet it.
#[derive(Clone, Debug)]
pub(super) struct Stripes {
    scale: Scale,
    refs: Refs,
}

/// Where each stripe begins in its list of edges (one more for the end), and then that list.
#[derive(Clone, Debug)]
enum Refs {
    /// Up to 255 edges, none over the antimeridian, and up to 255 references, as most zones have: a quarter of the memory.
    Narrow(Box<[u8]>),
    /// The same for somewhat larger shapes.
    Medium(Box<[u16]>),
    Wide(Box<[u32]>),
}

impl Refs {
    fn new(starts: &[u32], edges: &[EdgeRef]) -> Self {
        let all = || {
            starts
                .iter()
                .copied()
                .chain(edges.iter().map(|edge| edge.0))
        };
        match all().max() {
            Some(0..=0xff) => Self::Narrow(all().map(|one| one as u8).collect()),
            Some(0..=0xffff) => Self::Medium(all().map(|one| one as u16).collect()),
            _ => Self::Wide(all().collect()),
        }
    }

    #[inline]
    fn get(&self, index: usize) -> u32 {
        match self {
            Self::Narrow(refs) => refs[index].into(),
            Self::Medium(refs) => refs[index].into(),
            Self::Wide(refs) => refs[index],
        }
    }

    fn byte_len(&self) -> usize {
        match self {
            Self::Narrow(refs) => size_of_val(&**refs),
            Self::Medium(refs) => size_of_val(&**refs),
            Self::Wide(refs) => size_of_val(&**refs),
        }
    }
}

/// Longitude to stripe: never falls as the longitude rises, rounded or not, so an edge that is in the stripes of its
/// two ends and all between is in that of each place on it.
#[derive(Copy, Clone, Debug)]
struct Scale {
    lon_min: f64,
    per_degree: f64,
    count: usize,
}

impl Scale {
    fn stripe(&self, lon: f64) -> usize {
        // A negative or too large number saturates.
        (((lon - self.lon_min) * self.per_degree) as usize).min(self.count - 1)
    }
}

impl Stripes {
    /// Sorts the edges of closed rings; `crossings` names those over the antimeridian, ascending.
    pub(super) fn new(vertices: &[Position], starts: &[u32], crossings: &[EdgeRef]) -> Self {
        let mut edges = Vec::with_capacity(vertices.len());
        let mut crossings = crossings.iter().copied().peekable();
        for ring in starts.windows(2) {
            for index in ring[0]..ring[1] - 1 {
                let crossing = crossings.next_if(|edge| edge.index() == index as usize);
                edges.push(crossing.unwrap_or(EdgeRef(index)));
            }
        }
        let (scale, stripes) = Self::scale(vertices, &edges);
        let mut ends = vec![0_u32; scale.count + 1];
        for edge in &edges {
            for stripe in stripes_of(&stripes, &scale, *edge) {
                ends[stripe + 1] += 1;
            }
        }
        for stripe in 0..scale.count {
            ends[stripe + 1] += ends[stripe];
        }
        let starts = ends.clone();
        let mut sorted = vec![EdgeRef(0); ends[scale.count] as usize];
        for edge in &edges {
            for stripe in stripes_of(&stripes, &scale, *edge) {
                sorted[ends[stripe] as usize] = *edge;
                ends[stripe] += 1;
            }
        }
        Self {
            scale,
            refs: Refs::new(&starts, &sorted),
        }
    }

    /// The finest stripes that keep to the bound on references, and the one that each vertex is in.
    fn scale(vertices: &[Position], edges: &[EdgeRef]) -> (Scale, Vec<u32>) {
        let any_crosses = edges.iter().any(|edge| edge.crosses().is_some());
        let lons = vertices.iter().map(|at| at.lon);
        let (mut lon_min, mut lon_max) = lons
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), lon| {
                (min.min(lon), max.max(lon))
            });
        if any_crosses {
            (lon_min, lon_max) = (-180.0, 180.0);
        }
        let mut count = (edges.len() / EDGES_PER_STRIPE).max(1);
        let mut stripes = Vec::with_capacity(vertices.len());
        loop {
            let per_degree = count as f64 / (lon_max - lon_min).max(f64::MIN_POSITIVE);
            let scale = Scale {
                lon_min,
                per_degree: per_degree.min(1e300),
                count,
            };
            stripes.clear();
            stripes.extend(vertices.iter().map(|at| scale.stripe(at.lon) as u32));
            let references: usize = edges
                .iter()
                .map(|edge| stripes_of(&stripes, &scale, *edge).count())
                .sum();
            if count == 1 || references <= REFERENCES_PER_EDGE * edges.len() {
                return (scale, stripes);
            }
            count /= 2;
        }
    }

    /// The edges that may be on the meridian, and some more.
    pub(super) fn edges_at(&self, lon: f64) -> impl Iterator<Item = EdgeRef> + '_ {
        self.edges_in(self.scale.stripe(lon))
    }

    #[inline]
    fn edges_in(&self, stripe: usize) -> impl Iterator<Item = EdgeRef> + '_ {
        let list = self.scale.count + 1;
        let range = self.refs.get(stripe) as usize..self.refs.get(stripe + 1) as usize;
        range.map(move |place| EdgeRef(self.refs.get(list + place)))
    }

    /// Calls `found` with the ends of every edge that may be between two meridians, each once, where none crosses the
    /// antimeridian.
    pub(super) fn edges_between(
        &self,
        vertices: &Vertices,
        (west, east): (f64, f64),
        mut found: impl FnMut(Position, Position),
    ) {
        let (first, last) = (self.scale.stripe(west), self.scale.stripe(east));
        for stripe in first..=last {
            for edge in self.edges_in(stripe) {
                let (from, to) = vertices.edge(edge.index());
                // It stands in every stripe from its western end on: the first of those that are asked for counts.
                if stripe == first || self.scale.stripe(from.lon.min(to.lon)) == stripe {
                    found(from, to);
                }
            }
        }
    }

    pub(super) fn byte_len(&self) -> usize {
        self.refs.byte_len()
    }
}

/// The stripes an edge meets, by those of the vertices: one run, or the two ends of the map.
fn stripes_of<'a>(
    stripes: &[u32],
    scale: &'a Scale,
    edge: EdgeRef,
) -> impl Iterator<Item = usize> + use<'a> {
    let from = stripes[edge.index()] as usize;
    let to = stripes[edge.index() + 1] as usize;
    let (first, second) = match edge.crosses() {
        None => (from.min(to)..from.max(to) + 1, 0..0),
        Some(Crossing::Eastward) => (0..to + 1, (to + 1).max(from)..scale.count),
        Some(Crossing::Westward) => (0..from + 1, (from + 1).max(to)..scale.count),
    };
    first.chain(second)
}
