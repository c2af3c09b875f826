//! The innermost loop of a lookup: on which side of a leaf's edges a place is, and which of them it is too near to.
//!
//! Written in vectors of four edges: left to itself the compiler makes poor ones of runs whose edges share their ends.

use wide::{CmpGe as _, CmpLe as _, CmpLt as _, f32x4, i32x4, u32x4};

use super::grid::MARGIN;

/// Units within which only `covers` decides.
const NEAR: f32 = 3.0;
/// What rounding of `f32` may add to a product of two lengths: 2^30 at most, 24 bits of it kept, three roundings.
const SLACK: f32 = 512.0;

/// The zones with an odd number of edges to the left of a unit, and those with an edge near it, a bit each.
///
/// Edge *i* leads from vertex *i* to the next one and belongs to the zones in byte *i* of the masks; there is one vertex more
/// than four times the masks.
#[inline]
pub(super) fn crossings(vertices: &[u32], masks: &[u32], x: u32, y: u32) -> (u32, u32) {
    let (toggled, on_line) = pass::<false>(vertices, masks, x, y);
    if on_line == 0 {
        return (toggled, 0);
    }
    pass::<true>(vertices, masks, x, y)
}

/// One pass; unless `PRECISE`, an edge counts as near wherever the line through it is: few places are near one, and telling
/// the edge from its line takes a third of the time.
#[inline]
fn pass<const PRECISE: bool>(vertices: &[u32], masks: &[u32], x: u32, y: u32) -> (u32, u32) {
    let (px, py) = (
        f32x4::splat((x + MARGIN) as f32),
        f32x4::splat((y + MARGIN) as f32),
    );
    let (mut toggled, mut near) = (i32x4::ZERO, i32x4::ZERO);
    let mut rest = vertices;
    for mask in masks {
        let Some([v0, v1, v2, v3, v4]) = rest.first_chunk::<5>() else {
            break;
        };
        rest = &rest[4..];
        let ends = |ends: [&u32; 4]| u32x4::new(ends.map(|vertex| *vertex));
        let (from, to) = (ends([v0, v1, v2, v3]), ends([v1, v2, v3, v4]));
        let float = |of: u32x4| bytemuck::cast::<u32x4, i32x4>(of).round_float();
        let lon = |of: u32x4| float(of & u32x4::splat(0xffff)) - px;
        let lat = |of: u32x4| float(of >> 16_u32) - py;
        let (ax, ay, bx, by) = (lon(from), lat(from), lon(to), lat(to));
        let cross = ax * by - bx * ay;
        let (from_below, to_below) = (ay.cmp_le(f32x4::ZERO), by.cmp_le(f32x4::ZERO));
        let passes = from_below ^ to_below;
        let right = cross.cmp_lt(f32x4::ZERO) ^ from_below;
        let reach = f32x4::splat(NEAR) * ((bx - ax).abs() + (by - ay).abs()) + f32x4::splat(SLACK);
        let mut is_near = cross.abs().cmp_le(reach);
        if PRECISE {
            let (at_most, at_least) = (f32x4::splat(NEAR), f32x4::splat(-NEAR));
            is_near &= ax.fast_min(bx).cmp_le(at_most) & ax.fast_max(bx).cmp_ge(at_least);
            is_near &= ay.fast_min(by).cmp_le(at_most) & ay.fast_max(by).cmp_ge(at_least);
        }
        let mask = i32x4::new(mask.to_le_bytes().map(i32::from));
        let (passes, right): (i32x4, i32x4) = (bytemuck::cast(passes), bytemuck::cast(right));
        toggled ^= mask & passes & !right;
        near |= mask & bytemuck::cast::<f32x4, i32x4>(is_near);
    }
    let (toggled, near) = (toggled.to_array(), near.to_array());
    (
        toggled.into_iter().fold(0, |all, lane| all ^ lane) as u32,
        near.into_iter().fold(0, |all, lane| all | lane) as u32,
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One edge after the other.
    fn plain<const PRECISE: bool>(vertices: &[u32], masks: &[u32], x: u32, y: u32) -> (u32, u32) {
        let (px, py) = ((x + MARGIN) as f32, (y + MARGIN) as f32);
        let (mut toggled, mut near) = (0, 0);
        let masks = masks.iter().flat_map(|four| four.to_le_bytes());
        for (ends, mask) in vertices.windows(2).zip(masks) {
            let place = |vertex: u32| ((vertex & 0xffff) as f32 - px, (vertex >> 16) as f32 - py);
            let ((ax, ay), (bx, by)) = (place(ends[0]), place(ends[1]));
            let cross = ax * by - bx * ay;
            let (from_below, to_below) = (ay <= 0.0, by <= 0.0);
            let passes_left = (from_below != to_below) && ((cross < 0.0) == from_below);
            let mut is_near = cross.abs() <= NEAR * ((bx - ax).abs() + (by - ay).abs()) + SLACK;
            if PRECISE {
                is_near = is_near
                    && ax.min(bx) <= NEAR
                    && ax.max(bx) >= -NEAR
                    && ay.min(by) <= NEAR
                    && ay.max(by) >= -NEAR;
            }
            toggled ^= if passes_left { u32::from(mask) } else { 0 };
            near |= if is_near { u32::from(mask) } else { 0 };
        }
        (toggled, near)
    }

    proptest! {
        #[test]
        fn vectors_answer_as_one_edge_after_the_other(
            blocks in prop::collection::vec(any::<u32>(), 0..6),
            places in prop::collection::vec((0_u32..0x8020, 0_u32..0x8020), 30),
            (x, y) in (0_u32..0x8000, 0_u32..0x8000),
            near in 0_usize..30,
        ) {
            let mut vertices: Vec<u32> = places.iter().map(|(x, y)| x | y << 16).collect();
            // One close to the place, so that edges are near too.
            vertices[near] = (x + MARGIN + 2) | (y + MARGIN) << 16;
            vertices.truncate(4 * blocks.len() + 1);
            for (of, by) in [
                (pass::<false>(&vertices, &blocks, x, y), plain::<false>(&vertices, &blocks, x, y)),
                (pass::<true>(&vertices, &blocks, x, y), plain::<true>(&vertices, &blocks, x, y)),
            ] {
                prop_assert_eq!(of, by);
            }
            let (toggled, near) = plain::<true>(&vertices, &blocks, x, y);
            let (quick, near_quick) = crossings(&vertices, &blocks, x, y);
            prop_assert_eq!((toggled, near), (quick, near_quick));
        }
    }
}
