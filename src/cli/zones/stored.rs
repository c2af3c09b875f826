//! What the zones topic holds, folded by the rules of DESIGN 4: zones(t) for any t.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::cli::verify::compaction_lag;
use crate::codec::zone_change::{self, ZoneRules};
use crate::config::Config;
use crate::kafka::EdgeError;
use crate::kafka::admin::Admin;
use crate::kafka::client::Settings;
use crate::kafka::reader::TopicReader;
use crate::partition::RecordPosition;
use crate::telemetry::RecordRef;
use crate::time::EventTime;
use crate::zone::{ChangeOrder, ZoneChange};

/// What a record says of its zone.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Said {
    /// The Feature as it stands in the topic.
    Upsert(Box<[u8]>),
    Remove,
    /// Why it is no change.
    Refused(String),
}

/// A record of a zone.
#[derive(Clone, Debug)]
pub(super) struct StoredChange {
    pub(super) position: RecordPosition,
    pub(super) commit_time: EventTime,
    /// Of a refused change: when its zone ends by it; never = the last instant there is.
    pub(super) valid_from: EventTime,
    pub(super) expires_at: Option<EventTime>,
    pub(super) said: Said,
}

impl StoredChange {
    fn is_after(&self, other: &Self) -> bool {
        let order = |of: &Self| ChangeOrder {
            commit_time: of.commit_time,
            position: of.position,
        };
        order(self).is_after(&order(other))
    }
}

/// All that the topic says, by zone.
#[derive(Debug, Default)]
pub(super) struct StoredZones {
    zones: BTreeMap<String, Vec<StoredChange>>,
}

impl StoredZones {
    /// Reads the topic.
    pub(super) fn read(
        settings: &Settings,
        admin: &Admin,
        config: &Config,
    ) -> Result<Self, EdgeError> {
        let topic = &config.zones.topic;
        let rules = config.zone_rules();
        let mut zones = Self::default();
        let reader = TopicReader::all(settings, admin, topic)?;
        let lag = compaction_lag(settings, topic)?;
        reader.read_all(super::PATIENCE, |record| {
            zones.take(record, &rules, config.gate.max_schedule, lag);
        })?;
        Ok(zones)
    }

    /// Takes a record of the topic; one without a key or a timestamp is of no zone.
    fn take(
        &mut self,
        record: &RecordRef<'_>,
        rules: &ZoneRules,
        max_schedule: Duration,
        lag: Option<Duration>,
    ) {
        if zone_change::is_marker(record.key, record.value) {
            return;
        }
        let (Some(zone), Some(commit_time)) = (
            zone_change::zone_of_key(record.key),
            record.timestamp.instant(),
        ) else {
            return;
        };
        let position = record.position();
        let refused = |why: String| StoredChange {
            position,
            commit_time,
            // Until then it left the zone as it was (DESIGN 3).
            valid_from: lag.map_or(EventTime::MAX, |lag| commit_time.plus(lag)),
            expires_at: None,
            said: Said::Refused(why),
        };
        let change = match zone_change::decode(record.key, record.value, rules) {
            Err(why) => refused(why.to_string()),
            Ok(change)
                if change
                    .effective_at
                    .is_some_and(|at| at > commit_time.plus(max_schedule)) =>
            {
                refused("schedule_range".to_owned())
            }
            Ok(change) => StoredChange {
                position,
                commit_time,
                valid_from: change
                    .effective_at
                    .map_or(commit_time, |at| at.max(commit_time)),
                expires_at: change.expires_at,
                said: match (change.change, record.value) {
                    (ZoneChange::Upsert(_), Some(value)) => Said::Upsert(value.into()),
                    _ => Said::Remove,
                },
            },
        };
        self.zones
            .entry(zone.as_str().to_owned())
            .or_default()
            .push(change);
    }

    /// The Feature of a zone that is in force.
    pub(super) fn zone(&self, id: &str, at: EventTime) -> Option<&[u8]> {
        in_force(self.zones.get(id)?, at)
    }

    /// The zones in force, ids ascending.
    pub(super) fn in_force(&self, at: EventTime) -> impl Iterator<Item = (&str, &[u8])> {
        let zones = self.zones.iter();
        zones.filter_map(move |(id, changes)| Some((id.as_str(), in_force(changes, at)?)))
    }

    /// Whether a zone is in force or announced.
    pub(super) fn is_there(&self, id: &str, now: EventTime) -> bool {
        self.zones
            .get(id)
            .is_some_and(|changes| is_there(changes, now))
    }

    /// The zones in force or announced.
    pub(super) fn there(&self, now: EventTime) -> impl Iterator<Item = &str> {
        let zones = self.zones.iter();
        zones
            .filter(move |(_, changes)| is_there(changes, now))
            .map(|(id, _)| id.as_str())
    }

    /// All that the topic says of a zone, in log order.
    pub(super) fn history(&self, id: &str) -> Vec<&StoredChange> {
        let mut changes: Vec<&StoredChange> = self.zones.get(id).into_iter().flatten().collect();
        changes.sort_by(|a, b| {
            if a.is_after(b) {
                std::cmp::Ordering::Greater
            } else {
                std::cmp::Ordering::Less
            }
        });
        changes
    }
}

/// Of a zone's changes with valid_from ≤ t the last in the log rules (DESIGN 4).
fn in_force(changes: &[StoredChange], at: EventTime) -> Option<&[u8]> {
    let rules = changes
        .iter()
        .filter(|change| change.valid_from <= at)
        .reduce(|last, change| if change.is_after(last) { change } else { last })?;
    match &rules.said {
        Said::Upsert(feature) if rules.expires_at.is_none_or(|end| at < end) => Some(feature),
        _ => None,
    }
}

fn is_there(changes: &[StoredChange], now: EventTime) -> bool {
    let announced = changes
        .iter()
        .map(|change| change.valid_from)
        .filter(|from| *from > now);
    std::iter::once(now)
        .chain(announced)
        .any(|at| in_force(changes, at).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::ShapeRules;
    use crate::partition::{Offset, PartitionId};
    use crate::telemetry::RecordTimestamp;

    fn take(zones: &mut StoredZones, offset: i64, commit: i64, value: Option<&str>) {
        let record = RecordRef {
            partition: PartitionId(0),
            offset: Offset(offset),
            timestamp: RecordTimestamp::LogAppend(EventTime::clamped(commit)),
            key: Some(b"z"),
            value: value.map(str::as_bytes),
            headers: &[],
        };
        let rules = ZoneRules::new(ShapeRules::default(), 1 << 20, &[]);
        zones.take(
            &record,
            &rules,
            Duration::from_secs(10),
            Some(Duration::from_millis(50)),
        );
    }

    fn feature(properties: &str) -> String {
        format!(
            "{{\"type\":\"Feature\",\"id\":\"z\",\"properties\":{properties},\"geometry\":\
             {{\"type\":\"Polygon\",\"coordinates\":[[[0,0],[1,0],[0,1],[0,0]]]}}}}"
        )
    }

    #[test]
    fn scheduled_expiring_and_deleted_zones_are_folded_by_instant() {
        let mut zones = StoredZones::default();
        let scheduled = feature(r#"{"effective_at":500,"expires_at":900}"#);
        take(&mut zones, 0, 100, Some(&scheduled));
        let there = |zones: &StoredZones, at| zones.zone("z", EventTime::clamped(at)).is_some();
        assert_eq!(
            [499, 500, 899, 900].map(|at| there(&zones, at)),
            [false, true, true, false]
        );
        assert!(zones.is_there("z", EventTime::clamped(200)), "announced");
        assert!(!zones.is_there("z", EventTime::clamped(900)));
        take(&mut zones, 1, 600, None);
        assert_eq!([599, 600].map(|at| there(&zones, at)), [true, false]);
        assert_eq!(zones.history("z").len(), 2);
    }

    #[test]
    fn a_refused_change_ends_its_zone_after_the_compaction_lag() {
        let mut zones = StoredZones::default();
        take(&mut zones, 0, 100, Some(&feature("{}")));
        take(&mut zones, 1, 200, Some("{}"));
        let there = |at| zones.zone("z", EventTime::clamped(at)).is_some();
        assert_eq!([200, 249, 250].map(there), [true, true, false]);
        assert!(matches!(zones.history("z")[1].said, Said::Refused(_)));
    }
}
