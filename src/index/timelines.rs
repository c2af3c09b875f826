//! The timelines of all zones by id. Of nearly all zones one upsert is known, which stands with its version already: they are
//! filed as the slot of that, under the hash of their id. So a million of them take little, and a copy of what is filed near a
//! zone, as each promotion makes, counts no references.

use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::sync::Arc;

use imbl::GenericHashMap;
use imbl::shared_ptr::DefaultSharedPtr;

use super::timeline::{Ruler, Timeline, TimelineEntry};
use super::versions::{VersionSlot, VersionTable};
use crate::zone::ZoneId;

/// What is filed under a hash.
#[derive(Clone)]
enum Filed {
    /// One zone, of which this version is all that is known.
    Version(VersionSlot),
    /// All zones whose ids have the hash: one, but for chance.
    Zones(Arc<[(ZoneId, Timeline)]>),
}

/// Hashes are spread already.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

type ByHash = GenericHashMap<u64, Filed, BuildHasherDefault<Spread>, DefaultSharedPtr>;

/// Timelines by zone. Cloning shares them.
#[derive(Clone, Default)]
pub(super) struct Timelines<S = RandomState> {
    filed: ByHash,
    hash: S,
    len: usize,
}

impl<S: BuildHasher> Timelines<S> {
    /// Of how many zones something is known.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// What is known of a zone.
    pub(super) fn get(&self, id: &str, versions: &VersionTable) -> Option<Timeline> {
        let zones = match self.filed.get(&self.hash.hash_one(id))? {
            Filed::Version(slot) => {
                let (known, timeline) = of_version(*slot, versions);
                return (known.as_str() == id).then_some(timeline);
            }
            Filed::Zones(zones) => zones,
        };
        let known = zones.iter().find(|(known, _)| known.as_str() == id);
        known.map(|(_, timeline)| timeline.clone())
    }

    /// Files what is now known of a zone, which may be nothing. The versions are those that the timeline speaks of.
    pub(super) fn put(&mut self, id: &ZoneId, timeline: Timeline, versions: &VersionTable) {
        let hash = self.hash.hash_one(id.as_str());
        let mut zones = match self.filed.get(&hash) {
            None => Vec::new(),
            Some(Filed::Zones(zones)) => zones.to_vec(),
            Some(Filed::Version(slot)) => {
                let version = versions.get(*slot).map(|version| &version.zone().id);
                // The version may be gone if it was this zone's: then nothing else is filed here.
                match version {
                    Some(known) if known != id => {
                        let (known, timeline) = of_version(*slot, versions);
                        vec![(known.clone(), timeline)]
                    }
                    _ => {
                        self.len -= 1;
                        Vec::new()
                    }
                }
            }
        };
        let known = zones.len();
        zones.retain(|(known, _)| known != id);
        self.len -= known - zones.len();
        if !timeline.entries().is_empty() {
            self.len += 1;
            zones.push((id.clone(), timeline));
        }
        let filed = match &zones[..] {
            [] => {
                self.filed.remove(&hash);
                return;
            }
            [(id, timeline)] => only_version(id, timeline, versions).map(Filed::Version),
            _ => None,
        };
        let filed = filed.unwrap_or_else(|| Filed::Zones(zones.into()));
        self.filed.insert(hash, filed);
    }

    /// The ids of all zones.
    pub(super) fn ids<'a>(
        &'a self,
        versions: &'a VersionTable,
    ) -> impl Iterator<Item = &'a ZoneId> {
        self.filed.values().flat_map(|filed| {
            let (version, zones) = match filed {
                Filed::Version(slot) => (Some(of_version(*slot, versions).0), &[][..]),
                Filed::Zones(zones) => (None, &zones[..]),
            };
            version.into_iter().chain(zones.iter().map(|(id, _)| id))
        })
    }
}

/// The timeline of a zone of which this version is all that is known.
fn of_version(slot: VersionSlot, versions: &VersionTable) -> (&ZoneId, Timeline) {
    let version = versions.get(slot);
    let version = version.expect("the version of a timeline is in the table");
    let entry = TimelineEntry {
        valid_from: version.valid_from(),
        ruled_until: None,
        order: version.order(),
        ruler: Ruler::Upsert {
            slot,
            // Nothing else ends it.
            expires_at: version.end(),
        },
    };
    let zone = version.zone();
    (&zone.id, Timeline::of(entry, zone.version))
}

/// The version of such a timeline, if it is one.
fn only_version(id: &ZoneId, timeline: &Timeline, versions: &VersionTable) -> Option<VersionSlot> {
    if timeline.entries().len() > 1 {
        return None;
    }
    let slot = timeline.entries().last()?.slot()?;
    (of_version(slot, versions) == (id, timeline.clone())).then_some(slot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::{Area, Position, RawShape, ShapeRules};
    use crate::index::versions::ZoneVersion;
    use crate::partition::RecordPosition;
    use crate::time::EventTime;
    use crate::zone::{ChangeOrder, Zone};

    /// Gives all ids one hash.
    #[derive(Clone, Default)]
    struct OneForAll;

    impl BuildHasher for OneForAll {
        type Hasher = Same;

        fn build_hasher(&self) -> Same {
            Same
        }
    }

    struct Same;

    impl Hasher for Same {
        fn finish(&self) -> u64 {
            7
        }

        fn write(&mut self, _: &[u8]) {}
    }

    fn upsert(id: &str, expires_at: Option<EventTime>, versions: &mut VersionTable) -> Timeline {
        let center = Position { lon: 1.0, lat: 2.0 };
        let circle = RawShape::Circle {
            center,
            radius_m: 9.0,
        };
        let zone = Arc::new(Zone {
            id: ZoneId::new(id),
            id_json: format!("\"{id}\"").into(),
            area: Area::new(circle, &ShapeRules::default()).unwrap(),
            properties_json: None,
            version: Some(4),
        });
        let valid_from = EventTime::clamped(1_000);
        let order = ChangeOrder {
            commit_time: valid_from,
            position: RecordPosition::new(3, 17),
        };
        let slot = versions.insert(ZoneVersion::new(zone, valid_from, expires_at, order));
        let entry = TimelineEntry {
            valid_from,
            ruled_until: None,
            order,
            ruler: Ruler::Upsert { slot, expires_at },
        };
        Timeline::of(entry, Some(4))
    }

    fn assert_files_all<S: BuildHasher + Default>() {
        let mut versions = VersionTable::default();
        let mut timelines = Timelines::<S>::default();
        let mut known = std::collections::BTreeMap::new();
        let later = Some(EventTime::clamped(5_000));
        let mut put = |id: &str, timeline: Option<Timeline>, versions: &VersionTable| {
            timelines.put(
                &ZoneId::new(id),
                timeline.clone().unwrap_or_default(),
                versions,
            );
            known.remove(id);
            known.extend(timeline.map(|timeline| (id.to_owned(), timeline)));
            assert_eq!(timelines.len(), known.len());
            let mut ids: Vec<_> = timelines.ids(versions).map(|id| id.to_string()).collect();
            ids.sort();
            assert_eq!(ids, known.keys().cloned().collect::<Vec<_>>());
            for (id, timeline) in &known {
                assert_eq!(timelines.get(id, versions).as_ref(), Some(timeline), "{id}");
            }
            assert_eq!(timelines.get("another", versions), None);
        };
        for (id, expires_at) in [("a", None), ("b", later), ("c", None)] {
            let timeline = upsert(id, expires_at, &mut versions);
            put(id, Some(timeline), &versions);
        }
        // Of `a` more is known than its version says.
        let mut longer = upsert("a", None, &mut versions);
        longer.version = Some(5);
        put("a", Some(longer), &versions);
        put("b", None, &versions);
        // The version may go before what is known of it.
        let again = upsert("d", later, &mut versions);
        put("d", Some(again.clone()), &versions);
        put("a", None, &versions);
        put("c", None, &versions);
        versions.remove(again.entries().last().unwrap().slot().unwrap());
        put("d", None, &versions);
    }

    #[test]
    fn what_is_filed_is_found_and_what_is_taken_back_is_not() {
        assert_files_all::<RandomState>();
    }

    #[test]
    fn zones_whose_ids_have_one_hash_are_told_apart() {
        assert_files_all::<OneForAll>();
    }
}
