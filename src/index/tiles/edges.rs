//! The innermost loop of a lookup: on which side of a leaf's edges a place is, and which of them it is too near to.
//!
//! Written in vectors of four edges, in whole numbers of 16 bits: products of two are exact in 32.

use wide::{i16x8, i32x4, u32x4};

use super::grid::MARGIN;

/// Units within which only `covers` decides.
const NEAR: i16 = 3;

/// A byte for each bit.
const BYTES: [u32; 16] = {
    let mut bytes = [0; 16];
    let mut bits = 0;
    while bits < bytes.len() {
        let mut bit = 0;
        while bit < 4 {
            if bits >> bit & 1 != 0 {
                bytes[bits] |= 0xff << (8 * bit);
            }
            bit += 1;
        }
        bits += 1;
    }
    bytes
};

/// The zones with an odd number of edges to the left of a unit, a bit each, and whether an edge may be near it: where the
/// line through one is. Few places are near one, and telling the edge from its line would take half of the time.
///
/// Edge *i* leads from vertex *i* to the next one and belongs to the zones in byte *i* of the masks; there is one vertex more
/// than four times the masks. Edges without length are near nothing here.
#[inline]
pub(super) fn crossings(vertices: &[u32], masks: &[u32], x: u32, y: u32) -> (u32, bool) {
    let parts = |of: u32x4| bytemuck::cast::<u32x4, i16x8>(of);
    let wholes = |of: i16x8| bytemuck::cast::<i16x8, i32x4>(of);
    let north = u32x4::splat(0xffff_0000);
    let at = u32x4::splat((x + MARGIN) | (y + MARGIN) << 16);
    let mirrored_at = parts(at ^ north);
    let at = parts(at);
    let (froms, _) = vertices.as_chunks::<4>();
    let (tos, _) = vertices.get(1..).unwrap_or_default().as_chunks::<4>();
    let (mut toggled, mut on_line) = (0, i32x4::ZERO);
    for ((from, to), mask) in froms.iter().zip(tos).zip(masks) {
        let (from, to) = (u32x4::new(*from), u32x4::new(*to));
        let (a, b) = (parts(from) - at, parts(to) - at);
        let mirrored_a = parts(from ^ north) - mirrored_at;
        // Written so, it becomes two shuffles.
        let [x0, y0, x1, y1, x2, y2, x3, y3] = b.to_array();
        let turned_b = i16x8::new([y0, x0, y1, x1, y2, x2, y3, x3]);
        let cross = mirrored_a.dot(turned_b);
        let passes = wholes(a) ^ wholes(b);
        let is_right = cross ^ wholes(a);
        toggled ^= mask & BYTES[((passes & !is_right).move_mask() & 15) as usize];
        let length = (b - a).max(a - b);
        let reach = length.dot(i16x8::splat(NEAR));
        on_line |= (cross + reach) ^ (cross - reach);
    }
    toggled ^= toggled >> 16;
    toggled ^= toggled >> 8;
    (toggled & 0xff, on_line.move_mask() != 0)
}

/// The zones with an edge near a unit, a bit each.
#[inline(never)]
pub(super) fn near(vertices: &[u32], masks: &[u32], x: u32, y: u32) -> u32 {
    let near = i32::from(NEAR);
    let (px, py) = ((x + MARGIN) as i32, (y + MARGIN) as i32);
    let place = |vertex: u32| ((vertex & 0xffff) as i32 - px, (vertex >> 16) as i32 - py);
    let is_near = |from: u32, to: u32| {
        let ((ax, ay), (bx, by)) = (place(from), place(to));
        let is_around = |a: i32, b: i32| a.min(b) <= near && a.max(b) >= -near;
        let reach = near * ((bx - ax).abs() + (by - ay).abs());
        // Below the reach, as in `crossings`: what rounding can do is smaller. Of an edge without length both are zero.
        is_around(ax, bx) && is_around(ay, by) && (ax * by - bx * ay).abs() < reach.max(1)
    };
    let masks = masks.iter().flat_map(|four| four.to_le_bytes());
    let edges = vertices.windows(2).zip(masks);
    edges
        .filter(|(ends, _)| is_near(ends[0], ends[1]))
        .fold(0, |near, (_, mask)| near | u32::from(mask))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::index::tiles::grid::SIDE;

    /// One edge after the other.
    fn plain(vertices: &[u32], masks: &[u32], x: u32, y: u32) -> u32 {
        let (px, py) = (i64::from(x + MARGIN), i64::from(y + MARGIN));
        let masks = masks.iter().flat_map(|four| four.to_le_bytes());
        let mut toggled = 0;
        for (ends, mask) in vertices.windows(2).zip(masks) {
            let place = |at: u32| (i64::from(at & 0xffff) - px, i64::from(at >> 16) - py);
            let ((ax, ay), (bx, by)) = (place(ends[0]), place(ends[1]));
            let cross = ax * by - bx * ay;
            let (from_below, to_below) = (ay < 0, by < 0);
            if from_below != to_below && (cross < 0) == from_below {
                toggled ^= u32::from(mask);
            }
        }
        toggled
    }

    proptest! {
        #[test]
        fn vectors_answer_as_one_edge_after_the_other(
            masks in prop::collection::vec(any::<u32>(), 0..6),
            places in prop::collection::vec((0..=SIDE + 2 * MARGIN, 0..=SIDE + 2 * MARGIN), 30),
            (x, y) in (0..SIDE, 0..SIDE),
            close in 0_usize..30,
            (east, north) in (0_u32..=8, 0_u32..=8),
        ) {
            let mut vertices: Vec<u32> = places.iter().map(|(x, y)| x | y << 16).collect();
            // One close to the place, so that edges are near too; one that is as the one before it.
            vertices[close] = (x + MARGIN + east - 4) | (y + MARGIN + north - 4) << 16;
            vertices[(close + 2) % 30] = vertices[(close + 1) % 30];
            vertices.truncate(4 * masks.len() + 1);
            let (toggled, is_on_line) = crossings(&vertices, &masks, x, y);
            prop_assert_eq!(toggled, plain(&vertices, &masks, x, y));
            let with_length = |(ends, mask): (&[u32], u8)| if ends[0] == ends[1] { 0 } else { mask };
            let bytes = masks.iter().flat_map(|four| four.to_le_bytes());
            let masks: Vec<u8> = vertices.windows(2).zip(bytes).map(with_length).collect();
            let masks: Vec<u32> = masks
                .as_chunks::<4>()
                .0
                .iter()
                .map(|four| u32::from_le_bytes(*four))
                .collect();
            prop_assert!(is_on_line || near(&vertices, &masks, x, y) == 0);
        }
    }
}
