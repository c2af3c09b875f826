//! What the pipeline needs of a snapshot. A seam, so that matching can be judged against plain lists of zones.

use crate::geometry::Position;
use crate::index::Query;
use crate::pipeline::at::View;
use crate::telemetry::Event;
use crate::time::EventTime;
use crate::zone::ZoneText;

/// An immutable snapshot of zones.
pub trait Zones {
    /// The answers to one batch, used again for the next.
    type Hits: Default + std::fmt::Debug;

    /// What matching needs to know of it.
    fn view(&self) -> View;

    /// Answers a batch.
    fn lookup(&self, queries: &[Query], hits: &mut Self::Hits);

    /// The answer to one query of the batch: each zone once, by code point of its id; what it says of their properties
    /// matters only where they are wanted.
    fn found<'a>(
        &'a self,
        hits: &'a Self::Hits,
        query: usize,
        with_properties: bool,
    ) -> impl Iterator<Item = ZoneText<'a>>;
}

/// Asks for the zones of an event, as they are at this instant.
pub(super) fn query(event: &Event, at: EventTime) -> Query {
    Query {
        position: Position {
            lon: event.lon,
            lat: event.lat,
        },
        at,
    }
}

/// The zones of a batch's answers, found once: what leads to them lies all over the memory.
#[derive(Debug, Default)]
pub(super) struct Found<'z> {
    zones: Vec<ZoneText<'z>>,
    ends: Vec<u32>,
    /// Whether outputs say something of the zones' properties.
    with_properties: bool,
}

impl<'z> Found<'z> {
    pub(super) fn new(with_properties: bool) -> Self {
        Self {
            with_properties,
            ..Self::default()
        }
    }

    /// One lookup for all queries; then the way to each zone, and a byte of each id that will be written. Gone for one after
    /// the other here, they are fetched side by side, where each write would wait for its own (7 % of an event's processor
    /// time at 10,000 zones, measured while ids stood with their zones).
    pub(super) fn ask<Z: Zones>(
        mut self,
        snapshot: &'z Z,
        queries: &[Query],
        hits: &'z mut Z::Hits,
    ) -> Self {
        snapshot.lookup(queries, hits);
        for query in 0..queries.len() {
            self.zones
                .extend(snapshot.found(hits, query, self.with_properties));
            self.ends.push(self.zones.len() as u32);
        }
        let ids = self.zones.iter().map(|zone| zone.id_json[0]);
        std::hint::black_box(ids.fold(0_u8, |all, byte| all ^ byte));
        self
    }

    /// The answer to the query at this place of the batch.
    pub(super) fn of(&self, query: usize) -> &[ZoneText<'z>] {
        let from = query.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.zones[from as usize..self.ends[query] as usize]
    }

    /// Nothing found, in the same memory: an empty vector is collected into that of the one before.
    pub(super) fn emptied<'n>(mut self) -> Found<'n> {
        self.zones.clear();
        self.ends.clear();
        Found {
            zones: self.zones.into_iter().map(|_| unreachable!()).collect(),
            ends: self.ends,
            with_properties: self.with_properties,
        }
    }
}
