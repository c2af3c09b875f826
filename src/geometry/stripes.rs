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

/// Stripes of equal width, each with the edges that meet it: where each begins in the list of edges (one more for the end),
/// and then that list, stand behind the vertices.
#[derive(Copy, Clone, Debug)]
pub(super) struct Stripes {
    lon_min: f64,
    per_degree: f64,
    count: u32,
    width: Width,
}

/// What a reference takes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Width {
    /// A byte: up to 255 edges, none over the antimeridian, and up to 255 references, as most zones have.
    Narrow,
    /// Two: the same for somewhat larger shapes.
    Medium,
    Wide,
}

impl Width {
    fn of_largest(reference: u32) -> Self {
        match reference {
            0..=0xff => Self::Narrow,
            0x100..=0xffff => Self::Medium,
            _ => Self::Wide,
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::Narrow => 1,
            Self::Medium => 2,
            Self::Wide => 4,
        }
    }

    #[inline]
    fn get(self, refs: &[u8], index: usize) -> u32 {
        match self {
            Self::Narrow => refs[index].into(),
            Self::Medium => u16::from_le_bytes(refs.as_chunks().0[index]).into(),
            Self::Wide => u32::from_le_bytes(refs.as_chunks().0[index]),
        }
    }
}

impl Stripes {
    /// Sorts the edges of closed rings; `crossings` names those over the antimeridian, ascending. Gives what is to stand behind
    /// the vertices too.
    pub(super) fn new(
        vertices: &[Position],
        starts: &[u32],
        crossings: &[EdgeRef],
    ) -> (Self, Vec<u8>) {
        let mut edges = Vec::with_capacity(vertices.len());
        let mut crossings = crossings.iter().copied().peekable();
        for ring in starts.windows(2) {
            for index in ring[0]..ring[1] - 1 {
                let crossing = crossings.next_if(|edge| edge.index() == index as usize);
                edges.push(crossing.unwrap_or(EdgeRef(index)));
            }
        }
        let (scaled, stripes) = Self::scaled(vertices, &edges);
        let count = scaled.count as usize;
        let mut ends = vec![0_u32; count + 1];
        for edge in &edges {
            for stripe in stripes_of(&stripes, count, *edge) {
                ends[stripe + 1] += 1;
            }
        }
        for stripe in 0..count {
            ends[stripe + 1] += ends[stripe];
        }
        let starts = ends.clone();
        let mut sorted = vec![EdgeRef(0); ends[count] as usize];
        for edge in &edges {
            for stripe in stripes_of(&stripes, count, *edge) {
                sorted[ends[stripe] as usize] = *edge;
                ends[stripe] += 1;
            }
        }
        let all = || starts.iter().chain(sorted.iter().map(|edge| &edge.0));
        let width = Width::of_largest(all().copied().max().unwrap_or(0));
        let behind = all()
            .flat_map(|one| one.to_le_bytes().into_iter().take(width.bytes()))
            .collect();
        (Self { width, ..scaled }, behind)
    }

    /// Longitude to stripe: never falls as the longitude rises, rounded or not, so an edge that is in the stripes of its
    /// two ends and all between is in that of each place on it.
    #[inline]
    fn stripe(&self, lon: f64) -> usize {
        // A negative or too large number saturates.
        (((lon - self.lon_min) * self.per_degree) as usize).min(self.count as usize - 1)
    }

    /// The finest stripes that keep to the bound on references, of a width that takes any, and the one that each vertex is in.
    fn scaled(vertices: &[Position], edges: &[EdgeRef]) -> (Self, Vec<u32>) {
        let any_crosses = edges.iter().any(|edge| edge.crosses().is_some());
        let lons = vertices.iter().map(|at| at.lon);
        let (mut lon_min, mut lon_max) = lons
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), lon| {
                (min.min(lon), max.max(lon))
            });
        if any_crosses {
            (lon_min, lon_max) = (-180.0, 180.0);
        }
        let mut count = (edges.len() / EDGES_PER_STRIPE).max(1) as u32;
        let mut stripes = Vec::with_capacity(vertices.len());
        loop {
            let per_degree = f64::from(count) / (lon_max - lon_min).max(f64::MIN_POSITIVE);
            let scaled = Self {
                lon_min,
                per_degree: per_degree.min(1e300),
                count,
                width: Width::Wide,
            };
            stripes.clear();
            stripes.extend(vertices.iter().map(|at| scaled.stripe(at.lon) as u32));
            let references: usize = edges
                .iter()
                .map(|edge| stripes_of(&stripes, count as usize, *edge).count())
                .sum();
            if count == 1 || references <= REFERENCES_PER_EDGE * edges.len() {
                return (scaled, stripes);
            }
            count /= 2;
        }
    }

    /// The edges that may be on the meridian, and some more.
    pub(super) fn edges_at<'a>(
        &self,
        vertices: &'a Vertices,
        lon: f64,
    ) -> impl Iterator<Item = EdgeRef> + use<'a> {
        self.edges_in(vertices.behind(), self.stripe(lon))
    }

    #[inline]
    fn edges_in<'a>(
        &self,
        refs: &'a [u8],
        stripe: usize,
    ) -> impl Iterator<Item = EdgeRef> + use<'a> {
        let (width, list) = (self.width, self.count as usize + 1);
        let range = width.get(refs, stripe) as usize..width.get(refs, stripe + 1) as usize;
        range.map(move |place| EdgeRef(width.get(refs, list + place)))
    }

    /// Calls `found` with the ends of every edge that may be between two meridians, each once, where none crosses the
    /// antimeridian.
    pub(super) fn edges_between(
        &self,
        vertices: &Vertices,
        (west, east): (f64, f64),
        mut found: impl FnMut(Position, Position),
    ) {
        let (first, last) = (self.stripe(west), self.stripe(east));
        let refs = vertices.behind();
        for stripe in first..=last {
            for edge in self.edges_in(refs, stripe) {
                let (from, to) = vertices.edge(edge.index());
                // It stands in every stripe from its western end on: the first of those that are asked for counts.
                if stripe == first || self.stripe(from.lon.min(to.lon)) == stripe {
                    found(from, to);
                }
            }
        }
    }
}

/// The stripes an edge meets, by those of the vertices: one run, or the two ends of the map.
fn stripes_of(stripes: &[u32], count: usize, edge: EdgeRef) -> impl Iterator<Item = usize> + use<> {
    let from = stripes[edge.index()] as usize;
    let to = stripes[edge.index() + 1] as usize;
    let (first, second) = match edge.crosses() {
        None => (from.min(to)..from.max(to) + 1, 0..0),
        Some(Crossing::Eastward) => (0..to + 1, (to + 1).max(from)..count),
        Some(Crossing::Westward) => (0..from + 1, (from + 1).max(to)..count),
    };
    first.chain(second)
}
