//! The gate's snapshot as the pipeline asks it.

use super::{View, Zones};
use crate::gate::Snapshot;
use crate::index::{Hits, Query};
use crate::zone::Zone;

impl Zones for Snapshot {
    type Hits = Hits;

    fn view(&self) -> View {
        View {
            as_of: self.as_of,
            floor: self.floor,
            degraded: self.degraded,
        }
    }

    fn lookup(&self, queries: &[Query], hits: &mut Hits) {
        for query in queries {
            assert!(
                query.at <= self.as_of,
                "I15: nothing is matched above as_of"
            );
        }
        self.index.lookup(queries, hits);
    }

    fn found<'a>(&'a self, hits: &'a Hits, query: usize) -> impl Iterator<Item = &'a Zone> + Clone {
        hits.of(query)
            .iter()
            .map(|slot| self.index.version(*slot).zone())
    }
}
