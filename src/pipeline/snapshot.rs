//! The gate's snapshot as the pipeline asks it.

use super::{Query, View, Zones};
use crate::gate::Snapshot;
use crate::index::{self, Hits};
use crate::zone::Zone;

impl Zones for Snapshot {
    type Hits = (Vec<index::Query>, Hits);

    fn view(&self) -> View {
        View {
            as_of: self.as_of,
            floor: self.floor,
            degraded: self.degraded,
        }
    }

    fn lookup(&self, queries: &[Query], hits: &mut Self::Hits) {
        let (asked, found) = hits;
        asked.clear();
        asked.extend(queries.iter().map(|query| {
            assert!(
                query.at <= self.as_of,
                "I15: nothing is matched above as_of"
            );
            index::Query {
                position: query.position,
                at: query.at,
            }
        }));
        self.index.lookup(asked, found);
    }

    fn found<'a>(
        &'a self,
        hits: &'a Self::Hits,
        query: usize,
    ) -> impl Iterator<Item = &'a Zone> + Clone {
        hits.1
            .of(query)
            .iter()
            .map(|slot| self.index.version(*slot).zone())
    }
}
