//! The edges under the sweep line, south to north: a treap whose nodes are edges and know their neighbours.
//!
//! Places are given by a neighbour, so nothing is ever compared on insertion or removal: a shape whose edges cross
//! cannot bring it out of order before the sweep has found out, nor make it loop.

use std::cmp::Ordering;

/// No node.
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Node {
    up: u32,
    /// Children: south, north.
    down: [u32; 2],
    /// Neighbours in order: south, north.
    beside: [u32; 2],
}

const EMPTY: Node = Node {
    up: NONE,
    down: [NONE; 2],
    beside: [NONE; 2],
};

/// An ordered set of edges, each its index.
pub(super) struct Status {
    root: u32,
    southmost: u32,
    nodes: Vec<Node>,
}

impl Status {
    /// An empty status for edges 0 to `count` (exclusive).
    pub(super) fn new(count: usize) -> Self {
        Self {
            root: NONE,
            southmost: NONE,
            nodes: vec![EMPTY; count],
        }
    }

    /// The edge next to the south.
    pub(super) fn below(&self, edge: u32) -> Option<u32> {
        some(self.nodes[edge as usize].beside[0])
    }

    /// The edge next to the north.
    pub(super) fn above(&self, edge: u32) -> Option<u32> {
        some(self.nodes[edge as usize].beside[1])
    }

    /// All edges, south to north.
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        std::iter::successors(some(self.southmost), |edge| self.above(*edge))
    }

    /// Finds an edge by a function that says on which side of an edge the sought place is (`Greater` = north); where
    /// none is `Equal`, gives the neighbour to the south (`Err`).
    pub(super) fn find(&self, mut place: impl FnMut(u32) -> Ordering) -> Result<u32, Option<u32>> {
        let (mut at, mut below) = (self.root, None);
        while let Some(edge) = some(at) {
            let down = self.nodes[edge as usize].down;
            match place(edge) {
                Ordering::Equal => return Ok(edge),
                Ordering::Greater => {
                    below = Some(edge);
                    at = down[1];
                }
                Ordering::Less => at = down[0],
            }
        }
        Err(below)
    }

    /// Inserts an edge just north of `below`, or as the southmost.
    pub(super) fn insert_above(&mut self, below: Option<u32>, edge: u32) {
        let above = match below {
            Some(below) => self.nodes[below as usize].beside[1],
            None => self.southmost,
        };
        self.nodes[edge as usize] = Node {
            beside: [below.unwrap_or(NONE), above],
            ..EMPTY
        };
        match below {
            Some(below) => self.nodes[below as usize].beside[1] = edge,
            None => self.southmost = edge,
        }
        if above != NONE {
            self.nodes[above as usize].beside[0] = edge;
        }
        // Of two neighbours, one has no child on the other's side.
        match below {
            Some(below) if self.nodes[below as usize].down[1] == NONE => self.hang(below, 1, edge),
            _ if above != NONE => self.hang(above, 0, edge),
            _ => self.root = edge,
        }
        while let Some(up) = some(self.nodes[edge as usize].up) {
            if priority(up) >= priority(edge) {
                break;
            }
            self.rotate_up(edge);
        }
    }

    /// Removes an edge.
    pub(super) fn remove(&mut self, edge: u32) {
        loop {
            match self.nodes[edge as usize].down.map(some) {
                [Some(south), Some(north)] => {
                    self.rotate_up(if priority(south) > priority(north) {
                        south
                    } else {
                        north
                    });
                }
                [child, other] => {
                    self.replace(edge, child.or(other).unwrap_or(NONE));
                    break;
                }
            }
        }
        let [below, above] = self.nodes[edge as usize].beside;
        match some(below) {
            Some(below) => self.nodes[below as usize].beside[1] = above,
            None => self.southmost = above,
        }
        if let Some(above) = some(above) {
            self.nodes[above as usize].beside[0] = below;
        }
    }

    fn hang(&mut self, up: u32, side: usize, edge: u32) {
        self.nodes[up as usize].down[side] = edge;
        self.nodes[edge as usize].up = up;
    }

    /// Puts `child` where `edge` hangs.
    fn replace(&mut self, edge: u32, child: u32) {
        let up = self.nodes[edge as usize].up;
        if child != NONE {
            self.nodes[child as usize].up = up;
        }
        match some(up) {
            None => self.root = child,
            Some(up) => {
                let side = usize::from(self.nodes[up as usize].down[1] == edge);
                self.nodes[up as usize].down[side] = child;
            }
        }
    }

    /// Makes `edge` the parent of its parent.
    fn rotate_up(&mut self, edge: u32) {
        let up = self.nodes[edge as usize].up;
        let side = usize::from(self.nodes[up as usize].down[1] == edge);
        let inner = self.nodes[edge as usize].down[1 - side];
        self.replace(up, edge);
        self.nodes[up as usize].down[side] = inner;
        if inner != NONE {
            self.nodes[inner as usize].up = up;
        }
        self.hang(edge, 1 - side, up);
    }
}

fn some(edge: u32) -> Option<u32> {
    (edge != NONE).then_some(edge)
}

/// A fixed shuffle of the indices: no input can foresee a deep tree without being made for it, and none that is a
/// valid shape has a say in more than the numbering of its edges.
fn priority(edge: u32) -> u32 {
    let mixed = (edge ^ (edge >> 16)).wrapping_mul(0x7feb_352d);
    let mixed = (mixed ^ (mixed >> 15)).wrapping_mul(0x846c_a68b);
    mixed ^ (mixed >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_holds_through_inserts_and_removals() {
        let mut seed = 11_u64;
        let mut next = move |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as usize % below
        };
        let mut status = Status::new(2_000);
        let mut naive: Vec<u32> = Vec::new();
        let mut free: Vec<u32> = (0..2_000).collect();
        for _ in 0..20_000 {
            if !free.is_empty() && (naive.is_empty() || next(5) < 3) {
                let edge = free.swap_remove(next(free.len()));
                let at = next(naive.len() + 1);
                status.insert_above(at.checked_sub(1).map(|below| naive[below]), edge);
                naive.insert(at, edge);
            } else {
                let edge = naive.remove(next(naive.len()));
                status.remove(edge);
                free.push(edge);
            }
            if let Some(at) = naive.len().checked_sub(1).map(|last| next(last + 1)) {
                let rank = |edge| naive.iter().position(|other| *other == edge).unwrap();
                assert_eq!(status.find(|edge| at.cmp(&rank(edge))), Ok(naive[at]));
                assert_eq!(
                    status.below(naive[at]),
                    at.checked_sub(1).map(|below| naive[below])
                );
            }
        }
        assert!(status.iter().eq(naive.iter().copied()));
    }
}
