//! The zones of a snapshot: which of them cover a position at an instant. Immutable and persistent: a promotion is a
//! pure function of the index before and the changes, shares all that they leave alone, and has no effect if it fails.
//!
//! - [`timeline`] decides which change of a zone rules when (DESIGN 4, *valid_from*);
//! - [`versions`] holds every [`ZoneVersion`] by slot; [`history`] says which ended ones to forget;
//! - the engines find the slots at a position: [`rtree`] (rstar, then the exact `covers`) and `tiles`.
//!
//! Owns I2 and I4 together with the gate. Knows nothing of watermarks: that nothing is asked above `as_of` (I15) is
//! its caller's rule.

mod engine;
mod entries;
pub mod history;
mod past;
pub mod promote;
pub mod rtree;
mod tiles;
pub mod timeline;
mod timelines;
pub mod versions;

use std::ops::Range;

use crate::geometry::Position;
use crate::time::EventTime;
use crate::zone::ZoneText;

pub use entries::Entries;
pub use promote::{BuildFailure, BuildReport, BuildRules, Built};
pub use timeline::{Ruler, Timeline, TimelineEntry};
pub use versions::{VersionSlot, ZoneVersion};

/// The spatial engines. All of them must give the same zones (I12).
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum EngineKind {
    /// rstar over the envelopes, then the exact `covers`: plain, the reference.
    Rtree,
    /// Tiles of lon and lat: one way down answers for all zones.
    #[default]
    Tiles,
    /// The same with tiles split above so many edges, for tests: it has no name.
    FineTiles(u8),
}

impl EngineKind {
    /// Those with a name.
    pub const NAMED: [Self; 2] = [Self::Tiles, Self::Rtree];

    /// The engine of this name, as configuration and command line write it.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMED.into_iter().find(|kind| kind.name() == name)
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rtree => "rtree",
            Self::Tiles | Self::FineTiles(_) => "tiles",
        }
    }
}

/// Places that are looked up together, so that what each reads of memory is fetched for all of them at once.
const TOGETHER: usize = 32;

/// One question: which zones cover this position at this instant?
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Query {
    /// Where.
    pub position: Position,
    /// When.
    pub at: EventTime,
}

/// The answers to a batch of queries; reused from batch to batch, so a warm one allocates nothing.
#[derive(Debug, Default)]
pub struct Hits {
    slots: Vec<VersionSlot>,
    ends: Vec<usize>,
    /// The queries that found several, ascending, as long as their answers are to be sorted.
    several: Vec<usize>,
    passed: tiles::Passed,
    bygone: past::Bygone,
}

impl Hits {
    /// Ends the answer to a query: by code point of the ids, each once.
    fn close(&mut self, versions: &versions::VersionTable) {
        let query = self.ends.len();
        self.ends.push(self.slots.len());
        if self.range(query).len() > 1 {
            self.several.push(query);
        }
        self.sort(versions);
    }

    /// Where the answer to a query stands.
    #[inline]
    fn range(&self, query: usize) -> Range<usize> {
        let from = query.checked_sub(1).map_or(0, |before| self.ends[before]);
        from..self.ends[query]
    }

    /// Sorts the answers that are to be sorted: by code point of the ids, each once.
    fn sort(&mut self, versions: &versions::VersionTable) {
        let id = |slot: &VersionSlot| {
            let version = versions.get(*slot);
            &version.expect("a hit is in the table").zone().id
        };
        // Ids stand all over the memory. Read here for all answers, they are fetched side by side, where each comparison would
        // wait for its own two.
        let slots = self.several.iter().flat_map(|query| self.of(*query));
        std::hint::black_box(slots.fold(0, |read, slot| read ^ id(slot).as_str().len()));
        let mut several = std::mem::take(&mut self.several);
        for query in several.drain(..) {
            let range = self.range(query);
            let answer = &mut self.slots[range.clone()];
            answer.sort_unstable_by(|a, b| id(a).cmp(id(b)));
            // A zone over ±180° is there on each side: a point at the seam finds it twice.
            let mut kept = 1;
            for next in 1..answer.len() {
                if answer[next] != answer[kept - 1] {
                    answer[kept] = answer[next];
                    kept += 1;
                }
            }
            let twice = answer.len() - kept;
            if twice > 0 {
                self.slots.drain(range.end - twice..range.end);
                self.ends[query..].iter_mut().for_each(|end| *end -= twice);
            }
        }
        self.several = several;
    }

    /// The versions found for the query at place `query` of the batch, by code point of their ids, each once.
    #[must_use]
    #[inline]
    pub fn of(&self, query: usize) -> &[VersionSlot] {
        &self.slots[self.range(query)]
    }

    /// How many queries were answered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether no query was answered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

/// All zone versions that the history still has, findable by position and instant.
#[derive(Clone)]
pub struct Index {
    kind: EngineKind,
    timelines: timelines::Timelines,
    versions: versions::VersionTable,
    engine: engine::Engine,
    history: history::History,
    in_force_count: usize,
    area_bytes: usize,
    /// Whether the engine has what the versions have.
    is_searchable: bool,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index")
            .field("engine", &self.kind.name())
            .field("zones", &self.timelines.len())
            .field("versions", &self.versions.len())
            .finish_non_exhaustive()
    }
}

impl Index {
    /// An index without zones.
    #[must_use]
    pub fn empty(kind: EngineKind) -> Self {
        Self {
            kind,
            timelines: timelines::Timelines::default(),
            versions: versions::VersionTable::default(),
            engine: engine::Engine::empty(kind),
            history: history::History::default(),
            in_force_count: 0,
            area_bytes: 0,
            is_searchable: true,
        }
    }

    /// Which engine answers.
    #[must_use]
    pub fn engine(&self) -> EngineKind {
        self.kind
    }

    /// Whether it can be asked for positions: not so after a build that only filed its changes ([`BuildRules::filing`]).
    #[must_use]
    pub fn is_searchable(&self) -> bool {
        self.is_searchable
    }

    /// Answers a batch.
    pub fn lookup(&self, queries: &[Query], hits: &mut Hits) {
        debug_assert!(self.is_searchable, "nobody asks an index in the making");
        hits.slots.clear();
        hits.ends.clear();
        hits.several.clear();
        self.engine.lookup(queries, &self.versions, hits);
    }

    /// The zone versions that cover `position` at `at`, by code point of their ids.
    #[must_use]
    pub fn zones_at(&self, position: Position, at: EventTime) -> Vec<&ZoneVersion> {
        let mut hits = Hits::default();
        self.lookup(&[Query { position, at }], &mut hits);
        hits.of(0).iter().map(|slot| self.version(*slot)).collect()
    }

    /// The version in a slot that a lookup on this very index gave.
    ///
    /// # Panics
    /// On a slot of another index.
    #[must_use]
    pub fn version(&self, slot: VersionSlot) -> &ZoneVersion {
        self.versions
            .get(slot)
            .expect("a slot comes from a lookup on the same index")
    }

    /// Asks for the memory of what outputs say of the zones that a lookup on this very index found: for who looks at them in
    /// a moment.
    pub fn fetch_texts(&self, hits: &Hits) {
        for slot in &hits.slots {
            self.versions.fetch_id(*slot);
        }
    }

    /// What an output says of the zone of such a version. Its properties are looked up where they are wanted only: they stand
    /// farther away.
    ///
    /// # Panics
    /// On a slot of another index.
    #[must_use]
    #[inline]
    pub fn zone_text(&self, slot: VersionSlot, with_properties: bool) -> ZoneText<'_> {
        let properties_json = if with_properties {
            self.version(slot).zone().properties_json.as_deref()
        } else {
            None
        };
        ZoneText {
            id_json: self
                .versions
                .id_json(slot)
                .expect("a slot comes from a lookup on the same index"),
            properties_json,
        }
    }

    /// What is known of a zone over time; `None` for a zone never heard of (or forgotten with the history).
    #[must_use]
    pub fn timeline(&self, id: &str) -> Option<Timeline> {
        self.timelines.get(id, &self.versions)
    }

    /// The versions of a zone by `valid_from`.
    pub fn versions_of<'a>(&'a self, id: &str) -> impl Iterator<Item = &'a ZoneVersion> + use<'a> {
        let timeline = self.timeline(id).unwrap_or_default();
        let slots: Vec<_> = timeline
            .entries()
            .iter()
            .filter_map(TimelineEntry::slot)
            .collect();
        slots.into_iter().map(|slot| self.version(slot))
    }

    /// Every zone version in force at an instant, in no order.
    pub fn zones_in_force(&self, at: EventTime) -> impl Iterator<Item = &ZoneVersion> {
        self.versions
            .iter()
            .map(|(_, version)| version)
            .filter(move |version| version.is_in_force(at))
    }

    /// How many zones are in force at the `as_of` of the last promotion, or will be.
    #[must_use]
    pub fn zone_count(&self) -> usize {
        self.in_force_count
    }

    /// How many zone versions it holds, ended ones included.
    #[must_use]
    pub fn version_count(&self) -> usize {
        self.versions.len()
    }

    /// The bytes of the tiles alone; `None` where the engine has none.
    #[must_use]
    pub fn tile_bytes(&self) -> Option<usize> {
        self.engine.tile_bytes()
    }

    /// About how many bytes its zones occupy, shapes included.
    #[must_use]
    pub fn approximate_bytes(&self) -> usize {
        self.area_bytes
    }
}
