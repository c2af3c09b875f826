//! Reads a GeoJSON geometry as it was written into a [`RawShape`], under the caps on vertices and parts. What the
//! shape means, and whether it is valid, is the geometry's affair.

use crate::codec::json::{self, JsonError, Kind, Scanner};
use crate::codec::pointer::Slot;
use crate::geometry::{Position, RawShape, ShapeRules};
use crate::rejection::{Rejection, RejectionReason};

/// The members of a checked document that make a shape.
pub(crate) struct Source<'a> {
    pub(crate) document: &'a str,
    pub(crate) geometry: Option<Slot>,
    pub(crate) kind: Option<Slot>,
    pub(crate) coordinates: Option<Slot>,
    pub(crate) radius_m: Option<Slot>,
}

/// Reads the shape.
pub(crate) fn read(source: &Source<'_>, rules: &ShapeRules) -> Result<RawShape, Rejection> {
    let refuse = |detail: &str| Err(Rejection::new(RejectionReason::GeometryType, detail));
    match source.geometry.map(|slot| slot.kind) {
        Some(Kind::Object) => {}
        None => return refuse("`geometry` is absent or null"),
        Some(_) => return refuse("`geometry` is not an object"),
    }
    let Some(kind) = source.kind.and_then(|slot| slot.string(source.document)) else {
        return refuse("`geometry.type` is absent or not a string");
    };
    let of_polygons = kind.is("MultiPolygon");
    if !of_polygons && !kind.is("Polygon") && !kind.is("Point") {
        return refuse("`geometry.type` is not Polygon, MultiPolygon or Point");
    }
    let Some(coordinates) = source.coordinates else {
        return Err(Rejection::new(
            RejectionReason::MissingField,
            "`geometry.coordinates` is absent or null",
        ));
    };
    let mut reader = Reader {
        scanner: Scanner::new(coordinates.text(source.document)),
        base: coordinates.range().start,
        rules,
        vertices: 0,
        parts: 0,
    };
    if of_polygons {
        let polygons = reader.list("polygons", Reader::polygon)?;
        Ok(RawShape::MultiPolygon(polygons))
    } else if kind.is("Polygon") {
        Ok(RawShape::MultiPolygon(vec![reader.polygon()?]))
    } else {
        let center = reader.position()?;
        Ok(RawShape::Circle {
            center,
            radius_m: radius_m(source)?,
        })
    }
}

fn radius_m(source: &Source<'_>) -> Result<f64, Rejection> {
    let number = source.radius_m.filter(|slot| slot.kind.is_number());
    number
        .and_then(|slot| json::number(slot.text(source.document)))
        .ok_or_else(|| {
            Rejection::new(
                RejectionReason::InvalidRadius,
                "a Point needs the number `properties.radius_m`",
            )
        })
}

/// Reads nested arrays of a text that was checked before; its own checks are on nesting and kinds alone.
struct Reader<'a> {
    scanner: Scanner<'a>,
    base: usize,
    rules: &'a ShapeRules,
    vertices: usize,
    parts: usize,
}

impl Reader<'_> {
    /// A polygon is a part, and each of its holes one more.
    fn polygon(&mut self) -> Result<Vec<Vec<Position>>, Rejection> {
        self.part()?;
        let mut outer = true;
        self.list("rings", |reader| {
            if !std::mem::take(&mut outer) {
                reader.part()?;
            }
            reader.list("positions", Self::vertex)
        })
    }

    fn part(&mut self) -> Result<(), Rejection> {
        self.parts += 1;
        if self.parts <= self.rules.parts_max {
            return Ok(());
        }
        Err(Rejection::new(
            RejectionReason::TooManyParts,
            format!("more than {} polygons and holes", self.rules.parts_max),
        ))
    }

    fn vertex(&mut self) -> Result<Position, Rejection> {
        self.vertices += 1;
        if self.vertices > self.rules.vertices_max {
            return Err(Rejection::new(
                RejectionReason::TooManyVertices,
                format!("more than {} vertices", self.rules.vertices_max),
            ));
        }
        self.position()
    }

    /// Two numbers and, ignored, any more of them: heights, and what old writers added.
    fn position(&mut self) -> Result<Position, Rejection> {
        if !self.scanner.take(b'[') {
            return Err(self.refuse("a position is an array of numbers"));
        }
        let mut ordinates = [0.0; 2];
        let mut count = 0;
        self.scanner.skip_space();
        while !self.scanner.take(b']') {
            let number = match self.scanner.take_decimal() {
                Some(number) => number,
                None => self.number()?,
            };
            if let Some(ordinate) = ordinates.get_mut(count) {
                *ordinate = number;
            }
            count += 1;
            self.next_item();
        }
        if count < 2 {
            return Err(self.refuse("a position has fewer than two numbers"));
        }
        Ok(Position {
            lon: ordinates[0],
            lat: ordinates[1],
        })
    }

    /// A number in whatever form.
    fn number(&mut self) -> Result<f64, Rejection> {
        let start = self.scanner.clone();
        let kind = self
            .scanner
            .skip_value(0)
            .map_err(|error| self.broken(error))?;
        if kind.is_number() {
            Ok(json::number(start.until(&self.scanner)).unwrap_or(f64::NAN))
        } else {
            Err(self.refuse("a position has a member that is not a number"))
        }
    }

    /// An array of what `item` reads.
    fn list<T>(
        &mut self,
        what: &str,
        mut item: impl FnMut(&mut Self) -> Result<T, Rejection>,
    ) -> Result<Vec<T>, Rejection> {
        if !self.scanner.take(b'[') {
            return Err(self.refuse(&format!("expected an array of {what}")));
        }
        let mut items = Vec::new();
        self.scanner.skip_space();
        while !self.scanner.take(b']') {
            items.push(item(self)?);
            self.next_item();
        }
        Ok(items)
    }

    /// Passes the comma to the next item; the text was checked, so there is one or the end.
    fn next_item(&mut self) {
        self.scanner.skip_space();
        self.scanner.take(b',');
        self.scanner.skip_space();
    }

    fn refuse(&self, what: &str) -> Rejection {
        let at = self.base + self.scanner.at();
        Rejection::new(
            RejectionReason::InvalidPosition,
            format!("{what}, at byte {at}"),
        )
    }

    fn broken(&self, error: JsonError) -> Rejection {
        error.moved_by(self.base).into()
    }
}
