//! What the pipeline needs of a snapshot. A seam, so that matching can be judged against plain lists of zones.

use crate::index::Query;
use crate::pipeline::at::View;
use crate::zone::Zone;

/// An immutable snapshot of zones.
pub trait Zones {
    /// The answers to one batch, used again for the next.
    type Hits: Default + std::fmt::Debug;

    /// What matching needs to know of it.
    fn view(&self) -> View;

    /// Answers a batch.
    fn lookup(&self, queries: &[Query], hits: &mut Self::Hits);

    /// The answer to one query of the batch: each zone once, by code point of its id.
    fn found<'a>(
        &'a self,
        hits: &'a Self::Hits,
        query: usize,
    ) -> impl Iterator<Item = &'a Zone> + Clone;
}
