//! The zones of one tile while it is built or changed: those that cover it whole, and the others with the pieces of their
//! boundaries that meet the tile's window. What a tile is told is a function of zone and tile alone, whichever way down
//! led to it: [`Segment::meets`] is exact, and windows lie within those above.

use std::f64::consts::PI;

use super::grid::{LEVEL_MAX, Tile};
use crate::geometry::{Area, Circle, EARTH_RADIUS_M, Envelope, Segment, distance_m};

/// Metres by which circles may be off.
const CIRCLE_MARGIN_M: f64 = 0.01;

/// What of a zone's boundary is known to meet a tile.
#[derive(Copy, Clone, Debug)]
pub(super) enum Border {
    /// All of it: it lies within the window, and its pieces have not been listed yet.
    Whole(Envelope),
    /// These of [`Work::pieces`].
    Pieces { from: usize, to: usize },
    /// The rim of a circle may pass.
    Rim,
}

/// A zone with a boundary in the tile.
#[derive(Copy, Clone, Debug)]
pub(super) struct Edged<'a> {
    pub(super) slot: u32,
    pub(super) area: &'a Area,
    pub(super) border: Border,
}

/// The zones of a tile.
#[derive(Default, Debug)]
pub(super) struct Work<'a> {
    pub(super) edged: Vec<Edged<'a>>,
    pub(super) covers: Vec<u32>,
    pub(super) pieces: Vec<Segment>,
    /// Zones are followed by their rectangles while these reach beyond a tile: enough to find where they may stand.
    is_rough: bool,
}

fn hold(outer: &Envelope, inner: &Envelope) -> bool {
    outer.lon_min <= inner.lon_min
        && inner.lon_max <= outer.lon_max
        && outer.lat_min <= inner.lat_min
        && inner.lat_max <= outer.lat_max
}

fn meet(one: &Envelope, other: &Envelope) -> bool {
    one.lon_min <= other.lon_max
        && other.lon_min <= one.lon_max
        && one.lat_min <= other.lat_max
        && other.lat_min <= one.lat_max
}

/// A rectangle around an area.
pub(super) fn bounds_of(area: &Area) -> Envelope {
    let envelopes = area.envelopes();
    let mut bounds = envelopes[0];
    for other in &envelopes[1..] {
        bounds.lon_min = bounds.lon_min.min(other.lon_min);
        bounds.lon_max = bounds.lon_max.max(other.lon_max);
        bounds.lat_min = bounds.lat_min.min(other.lat_min);
        bounds.lat_max = bounds.lat_max.max(other.lat_max);
    }
    bounds
}

impl<'a> Work<'a> {
    /// For zones that go: within pages they are found by their slots, so the tiles that they may be in need not be told from
    /// those that they are in, as long as there are few.
    pub(super) fn rough() -> Self {
        Self {
            is_rough: true,
            ..Self::default()
        }
    }

    pub(super) fn clear(&mut self) {
        self.edged.clear();
        self.covers.clear();
        self.pieces.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.edged.is_empty() && self.covers.is_empty()
    }

    /// Whether all its zones lie within a tile, told from their rectangles.
    pub(super) fn is_within(&self, tile: Tile) -> bool {
        self.covers.is_empty()
            && self.edged.iter().all(|edged| match edged.border {
                Border::Whole(bounds) => tile.holds(&bounds),
                Border::Rim => tile.holds(&bounds_of(edged.area)),
                Border::Pieces { .. } => false,
            })
    }

    /// The slots of all its zones.
    pub(super) fn zones(&self) -> impl Iterator<Item = u32> + '_ {
        let edged = self.edged.iter().map(|edged| edged.slot);
        self.covers.iter().copied().chain(edged)
    }

    /// Whether this slot is among its zones.
    pub(super) fn has(&self, slot: u32) -> bool {
        self.covers.contains(&slot) || self.edged.iter().any(|edged| edged.slot == slot)
    }

    /// Adds a zone that may lie anywhere.
    pub(super) fn add(&mut self, slot: u32, area: &'a Area, tile: Tile) {
        if tile.is_off_the_world() {
            return;
        }
        let bounds = bounds_of(area);
        let window = tile.window();
        // Pieces over the antimeridian reach beyond the rectangle.
        let is_at_seam = bounds.lon_min <= -180.0 || bounds.lon_max >= 180.0;
        if let Some(circle) = area.circle() {
            // What rounding makes of a rim is not the same for a tile and for those above it: the uppermost that knows
            // decides, as on the way down.
            let mut knows = tile;
            let mut at = tile;
            while let Some(above) = at.above() {
                if lie(area, circle, above) != Lie::Rim {
                    knows = above;
                }
                at = above;
            }
            self.add_circle(slot, area, circle, knows);
        } else if !is_at_seam && hold(&window, &bounds) {
            self.edged.push(Edged {
                slot,
                area,
                border: Border::Whole(bounds),
            });
        } else if is_at_seam || meet(&window, &bounds) {
            let from = self.pieces.len();
            area.segments_near(&window, &mut self.pieces);
            self.settle(slot, area, tile, from);
        }
    }

    /// Files a zone by the pieces that were just added from `from` on.
    fn settle(&mut self, slot: u32, area: &'a Area, tile: Tile, from: usize) {
        let to = self.pieces.len();
        if to > from {
            self.edged.push(Edged {
                slot,
                area,
                border: Border::Pieces { from, to },
            });
        } else if area.covers(tile.middle()) {
            self.covers.push(slot);
        }
    }

    fn add_circle(&mut self, slot: u32, area: &'a Area, circle: &Circle, tile: Tile) {
        match lie(area, circle, tile) {
            Lie::Covers => self.covers.push(slot),
            Lie::Rim => self.edged.push(Edged {
                slot,
                area,
                border: Border::Rim,
            }),
            Lie::Apart => {}
        }
    }

    /// Puts into `into` what is in a part of its tile; those that cover the tile only if `with_covers`.
    pub(super) fn part(&self, part: Tile, with_covers: bool, into: &mut Self) {
        into.begin_part(self, part, with_covers);
        if part.is_off_the_world() {
            return;
        }
        let window = part.window();
        for edged in &self.edged {
            let Border::Pieces { from, to } = edged.border else {
                into.add_part(edged, part, &window, self.is_rough);
                continue;
            };
            let begin = into.pieces.len();
            let pieces = self.pieces[from..to].iter();
            into.pieces
                .extend(pieces.filter(|piece| piece.meets(&window)));
            into.settle(edged.slot, edged.area, part, begin);
        }
    }

    fn begin_part(&mut self, of: &Self, part: Tile, with_covers: bool) {
        self.clear();
        self.is_rough = of.is_rough;
        if with_covers && !part.is_off_the_world() {
            self.covers.extend_from_slice(&of.covers);
        }
    }

    /// Adds a zone of a larger tile whose pieces are not listed.
    fn add_part(&mut self, edged: &Edged<'a>, part: Tile, window: &Envelope, is_rough: bool) {
        let Edged { slot, area, border } = *edged;
        match border {
            Border::Rim => {
                let circle = area.circle().expect("only circles have rims");
                self.add_circle(slot, area, circle, part);
            }
            Border::Whole(bounds) if hold(window, &bounds) => self.edged.push(*edged),
            Border::Whole(bounds) if !meet(window, &bounds) => {}
            Border::Whole(bounds) if is_rough && !hold(&bounds, window) => self.edged.push(*edged),
            Border::Whole(_) | Border::Pieces { .. } => {
                let from = self.pieces.len();
                area.segments_near(window, &mut self.pieces);
                self.settle(slot, area, part, from);
            }
        }
    }

    /// The same as [`Self::part`] of each quarter, in one pass over the pieces.
    pub(super) fn quarters(&mut self, tile: Tile, with_covers: bool, into: &mut [Self; 4]) {
        let parts: [Tile; 4] = std::array::from_fn(|number| tile.quarter(number));
        let windows = parts.map(Tile::window);
        for (part, into) in parts.iter().zip(into.iter_mut()) {
            into.begin_part(self, *part, with_covers);
        }
        let in_the_world = parts.map(|part| !part.is_off_the_world());
        for number in 0..self.edged.len() {
            let edged = self.edged[number];
            let (from, to) = match edged.border {
                Border::Pieces { from, to } => (from, to),
                Border::Whole(bounds)
                    if !self.is_rough && !windows.iter().any(|window| hold(window, &bounds)) =>
                {
                    self.list(number, |area, pieces| area.segments(pieces))
                }
                Border::Whole(_) | Border::Rim => {
                    for quarter in (0..4).filter(|quarter| in_the_world[*quarter]) {
                        let (part, window) = (parts[quarter], &windows[quarter]);
                        into[quarter].add_part(&edged, part, window, self.is_rough);
                    }
                    continue;
                }
            };
            let begins: [usize; 4] = std::array::from_fn(|quarter| into[quarter].pieces.len());
            for piece in &self.pieces[from..to] {
                let (low, high) = piece.lats();
                let (is_west, is_east) = (
                    piece.from.lon <= windows[0].lon_max,
                    piece.to.lon >= windows[3].lon_min,
                );
                let (is_south, is_north) = (low <= windows[0].lat_max, high >= windows[3].lat_min);
                let may_meet = [
                    is_west && is_south,
                    is_east && is_south,
                    is_west && is_north,
                    is_east && is_north,
                ];
                for quarter in 0..4 {
                    if may_meet[quarter] && in_the_world[quarter] && piece.meets(&windows[quarter])
                    {
                        into[quarter].pieces.push(*piece);
                    }
                }
            }
            for quarter in (0..4).filter(|quarter| in_the_world[*quarter]) {
                into[quarter].settle(edged.slot, edged.area, parts[quarter], begins[quarter]);
            }
        }
    }

    /// Lists the pieces of a zone; gives where they stand.
    fn list(
        &mut self,
        number: usize,
        list: impl FnOnce(&'a Area, &mut Vec<Segment>),
    ) -> (usize, usize) {
        let from = self.pieces.len();
        let edged = &mut self.edged[number];
        list(edged.area, &mut self.pieces);
        let to = self.pieces.len();
        edged.border = Border::Pieces { from, to };
        (from, to)
    }

    /// Lists the pieces of all zones.
    pub(super) fn list_pieces(&mut self, tile: Tile) {
        for number in 0..self.edged.len() {
            if let Border::Whole(_) = self.edged[number].border {
                let window = tile.window();
                self.list(number, |area, pieces| area.segments_near(&window, pieces));
            }
        }
    }

    /// How many edges it has at most, in all.
    pub(super) fn edge_count(&self) -> usize {
        self.unlisted() + self.pieces.len()
    }

    /// How many vertices have not been listed as pieces.
    pub(super) fn unlisted(&self) -> usize {
        let unlisted = self.edged.iter().filter_map(|edged| match edged.border {
            Border::Whole(_) => Some(edged.area.vertex_count()),
            _ => None,
        });
        unlisted.sum()
    }

    /// Whether a circle asks for finer tiles: those that its rim passes cost a distance each time.
    pub(super) fn has_coarse_rim(&self, tile: Tile) -> bool {
        self.edged.iter().any(|edged| {
            matches!(edged.border, Border::Rim)
                && edged.area.circle().is_some_and(|circle| {
                    reach_m(tile) > circle.radius_m() / 8.0
                        && !(is_polar(circle) && is_fine(edged.area, tile))
                })
                && tile.level < LEVEL_MAX
        })
    }
}

/// Tiles are squares of degrees, so near a pole those that are low enough for a small circle would be millions, all around it.
/// From here on its tiles are so many from west to east at most, and no tile beside its rectangle has any of it; nearer to the
/// equator a rim has fewer anyhow.
const POLAR_DEGREES: f64 = 85.0;
const RIM_TILES_MAX: f64 = 128.0;

fn is_polar(circle: &Circle) -> bool {
    circle.center().lat.abs() > POLAR_DEGREES
}

/// Whether a polar circle asks for no finer tiles.
fn is_fine(area: &Area, tile: Tile) -> bool {
    let wide = |envelope: &Envelope| envelope.lon_max - envelope.lon_min;
    tile.degrees() <= area.envelopes().iter().map(wide).sum::<f64>() / RIM_TILES_MAX
}

/// How a circle lies to a tile.
#[derive(PartialEq)]
enum Lie {
    Covers,
    Rim,
    Apart,
}

fn lie(area: &Area, circle: &Circle, tile: Tile) -> Lie {
    let is_beside = || {
        let window = tile.window();
        !area.envelopes().iter().any(|bounds| meet(bounds, &window))
    };
    let (near, far) = (
        distance_m(circle.center(), tile.middle()),
        reach_m(tile) + CIRCLE_MARGIN_M,
    );
    if near + far < circle.radius_m() {
        Lie::Covers
    } else if near - far > circle.radius_m() || (is_polar(circle) && is_beside()) {
        Lie::Apart
    } else {
        Lie::Rim
    }
}

/// No place of a tile is further from its middle, in metres: along a line in the plane of lon and lat, a degree of either
/// is at most a degree of a great circle.
fn reach_m(tile: Tile) -> f64 {
    let half = tile.degrees() / 2.0;
    half.hypot(half) * PI / 180.0 * EARTH_RADIUS_M
}
