//! The plain ways that ours are held against: what a user would write with the usual crates.

use geo::{BoundingRect, Intersects, LineString, Point, Polygon};
use ringfence::geometry::Position;
use rstar::primitives::{GeomWithData, Rectangle};
use rstar::{AABB, RTree};

type Tree = RTree<GeomWithData<Rectangle<[f64; 2]>, usize>>;

fn tree(boxes: impl Iterator<Item = [[f64; 2]; 2]>) -> Tree {
    let entry = |(number, [min, max]): (usize, [[f64; 2]; 2])| {
        GeomWithData::new(Rectangle::from_corners(min, max), number)
    };
    RTree::bulk_load(boxes.enumerate().map(entry).collect())
}

/// A polygon: its outer ring, then its holes, each closed.
pub type Rings = Vec<Vec<Position>>;

/// A polygon of `geo` from closed rings, the outer one first.
pub fn polygon(rings: &[Vec<Position>]) -> Polygon<f64> {
    let mut rings = rings.iter().map(|ring| {
        let ring: Vec<(f64, f64)> = ring.iter().map(|at| (at.lon, at.lat)).collect();
        LineString::from(ring)
    });
    let exterior = rings.next().expect("a polygon has an outer ring");
    Polygon::new(exterior, rings.collect())
}

fn bounds(polygon: &Polygon<f64>) -> [[f64; 2]; 2] {
    let bounds = polygon.bounding_rect().expect("a ring has bounds");
    [bounds.min().into(), bounds.max().into()]
}

/// rstar over bounding boxes, `Intersects` of geo over what it finds: the boundary counts.
pub struct Geo {
    tree: Tree,
    polygons: Vec<Polygon<f64>>,
}

impl Geo {
    /// Of these polygons, named by their place.
    pub fn new(polygons: impl Iterator<Item = Rings>) -> Self {
        let polygons: Vec<Polygon<f64>> = polygons.map(|rings| polygon(&rings)).collect();
        let boxes = polygons.iter().map(bounds);
        Self {
            tree: tree(boxes),
            polygons,
        }
    }

    /// The tree with the box of one polygon where another's is: a copy, since readers go on with the old one.
    pub fn with_moved(&self, number: usize, place: usize) -> impl Sized {
        let entry = |place: usize| {
            let [min, max] = bounds(&self.polygons[place]);
            GeomWithData::new(Rectangle::from_corners(min, max), number)
        };
        let mut tree = self.tree.clone();
        tree.remove(&entry(number)).expect("it is in the tree");
        tree.insert(entry(place));
        tree
    }

    /// The numbers of the polygons that cover a place, in no order.
    pub fn at(&self, lon: f64, lat: f64) -> impl Iterator<Item = usize> + '_ {
        let point = Point::new(lon, lat);
        self.tree
            .locate_in_envelope_intersecting(AABB::from_point([lon, lat]))
            .map(|entry| entry.data)
            .filter(move |number| self.polygons[*number].intersects(&point))
    }
}

/// An outline cut into stripes of latitude, each with the edges that cross it: the quick test of good libraries (`tg`).
struct Striped {
    lat_min: f64,
    per_degree: f64,
    stripes: Vec<Vec<[Position; 2]>>,
}

impl Striped {
    fn new(rings: &[Vec<Position>]) -> Self {
        let count = (rings.iter().map(Vec::len).sum::<usize>() / 4).max(1);
        let lats = || rings.iter().flatten().map(|at| at.lat);
        let (lat_min, lat_max) = (
            lats().fold(f64::INFINITY, f64::min),
            lats().fold(f64::NEG_INFINITY, f64::max),
        );
        let mut striped = Self {
            lat_min,
            per_degree: count as f64 / (lat_max - lat_min),
            stripes: vec![Vec::new(); count],
        };
        for edge in rings.iter().flat_map(|ring| ring.windows(2)) {
            let (from, to) = (striped.stripe(edge[0].lat), striped.stripe(edge[1].lat));
            for stripe in from.min(to)..=from.max(to) {
                striped.stripes[stripe].push([edge[0], edge[1]]);
            }
        }
        striped
    }

    fn stripe(&self, lat: f64) -> usize {
        (((lat - self.lat_min) * self.per_degree) as usize).min(self.stripes.len() - 1)
    }

    /// Even-odd, in plain floating point: places on the boundary may fall either way.
    fn contains(&self, lon: f64, lat: f64) -> bool {
        self.stripes[self.stripe(lat)]
            .iter()
            .fold(false, |inside, [a, b]| {
                let crosses = (a.lat > lat) != (b.lat > lat)
                    && lon < (b.lon - a.lon) * (lat - a.lat) / (b.lat - a.lat) + a.lon;
                inside != crosses
            })
    }
}

/// rstar over bounding boxes, y-stripes over what it finds.
pub struct YStripes {
    tree: Tree,
    outlines: Vec<Striped>,
}

impl YStripes {
    /// Of these polygons, named by their place.
    pub fn new(polygons: impl Iterator<Item = Rings>) -> Self {
        let mut outlines = Vec::new();
        let boxes: Vec<[[f64; 2]; 2]> = polygons
            .map(|rings| {
                outlines.push(Striped::new(&rings));
                let lons = || rings[0].iter().map(|at| at.lon);
                let lats = || rings[0].iter().map(|at| at.lat);
                [
                    [
                        lons().fold(f64::INFINITY, f64::min),
                        lats().fold(f64::INFINITY, f64::min),
                    ],
                    [
                        lons().fold(f64::NEG_INFINITY, f64::max),
                        lats().fold(f64::NEG_INFINITY, f64::max),
                    ],
                ]
            })
            .collect();
        Self {
            tree: tree(boxes.into_iter()),
            outlines,
        }
    }

    /// How many cover a place.
    pub fn count_at(&self, lon: f64, lat: f64) -> usize {
        self.tree
            .locate_in_envelope_intersecting(AABB::from_point([lon, lat]))
            .filter(|entry| self.outlines[entry.data].contains(lon, lat))
            .count()
    }
}
