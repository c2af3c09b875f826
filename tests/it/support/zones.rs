//! Zones as a plain list of changes, answered by the words of DESIGN 4: no index, no gate. The oracle of the pipeline's
//! tests, and their snapshot.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringfence::codec::zone_change::{self, ZoneRules};
use ringfence::gate::Degraded;
use ringfence::geometry::{Position, ShapeRules};
use ringfence::index::Query;
use ringfence::partition::RecordPosition;
use ringfence::pipeline::{View, Zones};
use ringfence::time::EventTime;
use ringfence::zone::{StagedChange, Zone, ZoneChange, ZoneId, ZoneText};

pub(crate) fn t(millis: i64) -> EventTime {
    EventTime::from_millis(millis).unwrap()
}

/// A change as it stands in the log; `value` = GeoJSON, or `None` for a tombstone.
pub(crate) fn change(
    partition: i32,
    offset: i64,
    commit_time: i64,
    key: &str,
    value: Option<&str>,
) -> StagedChange {
    change_carrying(&[], partition, offset, commit_time, key, value)
}

/// The same where these properties of zones are configured.
pub(crate) fn change_carrying(
    properties: &[String],
    partition: i32,
    offset: i64,
    commit_time: i64,
    key: &str,
    value: Option<&str>,
) -> StagedChange {
    let rules = ZoneRules::new(ShapeRules::default(), 1 << 20, properties);
    let decoded =
        zone_change::decode(Some(key.as_bytes()), value.map(str::as_bytes), &rules).unwrap();
    let commit_time = t(commit_time);
    StagedChange {
        zone_id: decoded.zone_id,
        change: decoded.change,
        position: RecordPosition::new(partition, offset),
        commit_time,
        valid_from: decoded
            .effective_at
            .map_or(commit_time, |at| at.max(commit_time)),
        expires_at: decoded.expires_at,
        bytes: value.map_or(0, str::len),
        record: None,
    }
}

/// The GeoJSON of a box, with more properties (`"effective_at":…`) or none.
pub(crate) fn rectangle(
    id: &str,
    west: f64,
    south: f64,
    east: f64,
    north: f64,
    more: &str,
) -> String {
    format!(
        r#"{{"type":"Feature","id":"{id}","properties":{{{more}}},"geometry":{{"type":"Polygon","coordinates":[[[{west},{south}],[{east},{south}],[{east},{north}],[{west},{north}],[{west},{south}]]]}}}}"#
    )
}

/// All changes of a zones log, seen at an `as_of`.
#[derive(Clone, Debug)]
pub(crate) struct PlainZones {
    pub(crate) changes: Vec<StagedChange>,
    pub(crate) view: View,
}

impl PlainZones {
    pub(crate) fn new(as_of: i64) -> Self {
        let view = View {
            as_of: t(as_of),
            floor: EventTime::MIN,
            degraded: Degraded::No,
        };
        Self {
            changes: Vec::new(),
            view,
        }
    }

    /// zones(t) that cover the position, by id.
    pub(crate) fn at(&self, position: Position, at: EventTime) -> Vec<Arc<Zone>> {
        self.at_without(&[], position, at)
    }

    /// The same, had these records not been written.
    pub(crate) fn at_without(
        &self,
        without: &[RecordPosition],
        position: Position,
        at: EventTime,
    ) -> Vec<Arc<Zone>> {
        let mut ruling: BTreeMap<&ZoneId, &StagedChange> = BTreeMap::new();
        for change in &self.changes {
            if change.valid_from > at || without.contains(&change.position) {
                continue;
            }
            let known = ruling.entry(&change.zone_id).or_insert(change);
            if change.order().is_after(&known.order()) {
                *known = change;
            }
        }
        ruling
            .into_values()
            .filter(|change| change.expires_at.is_none_or(|end| at < end))
            .filter_map(|change| match &change.change {
                ZoneChange::Upsert(zone) if zone.area.covers(position) => Some(zone.clone()),
                ZoneChange::Upsert(_) | ZoneChange::Remove => None,
            })
            .collect()
    }
}

impl Zones for PlainZones {
    type Hits = Vec<Vec<Arc<Zone>>>;

    fn view(&self) -> View {
        self.view
    }

    fn lookup(&self, queries: &[Query], hits: &mut Self::Hits) {
        hits.clear();
        hits.extend(
            queries
                .iter()
                .map(|query| self.at(query.position, query.at)),
        );
    }

    fn found<'a>(
        &'a self,
        hits: &'a Self::Hits,
        query: usize,
        with_properties: bool,
    ) -> impl Iterator<Item = ZoneText<'a>> {
        hits[query].iter().map(move |zone| ZoneText {
            properties_json: zone.properties_json.as_deref().filter(|_| with_properties),
            ..zone.text()
        })
    }
}
