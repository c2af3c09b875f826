//! The one interface of the engines: told which versions came, ended earlier and went, and asked for those near a place.

use super::rtree::{Entry, Rtree};
use super::tiles::Tiles;
use super::versions::{VersionSlot, VersionTable, ZoneVersion};
use super::{EngineKind, Hits, Query};
use crate::time::EventTime;

/// What a build did to the versions.
#[derive(Default)]
pub(super) struct Update {
    /// New ones; some may have gone again.
    pub(super) added: Vec<VersionSlot>,
    /// Those whose end was set.
    pub(super) ended: Vec<VersionSlot>,
    /// Those that went: their slots are for the engine to give free.
    pub(super) dropped: Vec<(VersionSlot, ZoneVersion)>,
}

/// An engine.
#[derive(Clone)]
pub(super) enum Engine {
    Rtree(Rtree),
    Tiles(Box<Tiles>),
}

impl Engine {
    /// Without versions.
    pub(super) fn empty(kind: EngineKind) -> Self {
        match kind {
            EngineKind::Rtree => Self::Rtree(Rtree::default()),
            EngineKind::Tiles => Self::Tiles(Box::default()),
            EngineKind::FineTiles(edges) => {
                Self::Tiles(Box::new(Tiles::splitting_above(usize::from(edges))))
            }
        }
    }

    /// All versions of the table, and the slots of none else are in use.
    pub(super) fn rebuild(&mut self, versions: &mut VersionTable, as_of: EventTime) {
        match self {
            Self::Rtree(rtree) => *rtree = Rtree::of(versions, as_of),
            Self::Tiles(tiles) => tiles.rebuild(versions, as_of),
        }
        versions.recycle();
    }

    /// Takes in what changed.
    pub(super) fn update(&mut self, update: Update, versions: &mut VersionTable, as_of: EventTime) {
        match self {
            Self::Tiles(tiles) => tiles.update(update, versions, as_of),
            Self::Rtree(rtree) => {
                let mut entries = Vec::new();
                for (slot, _) in &update.dropped {
                    versions.empty(*slot);
                }
                for slot in update.added {
                    if let Some(version) = versions.get(slot) {
                        let envelopes = version.zone().area.envelopes();
                        entries.extend(envelopes.iter().map(|around| Entry::new(around, slot)));
                    }
                }
                rtree.add(entries, versions, as_of);
            }
        }
    }

    /// Entries for versions, dead ones included.
    pub(super) fn entry_count(&self) -> usize {
        match self {
            Self::Rtree(rtree) => rtree.entry_count(),
            Self::Tiles(tiles) => tiles.entry_count(),
        }
    }

    /// Answers all queries.
    pub(super) fn lookup(&self, queries: &[Query], versions: &VersionTable, hits: &mut Hits) {
        match self {
            Self::Tiles(tiles) => tiles.lookup(queries, versions, hits),
            Self::Rtree(rtree) => {
                for query in queries {
                    rtree.candidates(query, |slot| {
                        if let Some(version) = versions.get(slot)
                            && version.is_in_force(query.at)
                            && version.zone().area.covers(query.position)
                        {
                            hits.slots.push(slot);
                        }
                    });
                    hits.close(versions);
                }
            }
        }
    }

    /// The bytes that tiles occupy; `None` where there are none.
    pub(super) fn tile_bytes(&self) -> Option<usize> {
        match self {
            Self::Rtree(_) => None,
            Self::Tiles(tiles) => Some(tiles.byte_len()),
        }
    }
}
