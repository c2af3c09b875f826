//! The gate's snapshot as the pipeline asks it.

use super::{View, Zones};
use crate::gate::Snapshot;
use crate::index::{Hits, Query};
use crate::zone::ZoneText;

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
        self.index.fetch_texts(hits);
    }

    fn found<'a>(
        &'a self,
        hits: &'a Hits,
        query: usize,
        with_properties: bool,
    ) -> impl Iterator<Item = ZoneText<'a>> {
        let slots = hits.of(query).iter();
        slots.map(move |slot| self.index.zone_text(*slot, with_properties))
    }
}
