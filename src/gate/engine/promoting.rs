//! Driving builds: which changes go into the next index and when, and what a finished build leads to.

use std::sync::Arc;
use std::time::Duration;

use super::super::promotion::{Promotion, Step};
use super::super::rejected::RejectedZone;
use super::super::{BuildRequest, admission};
use super::{Gate, GateEffect, InFlight};
use crate::index::{BuildFailure, BuildRules, Built, Index};
use crate::rejection::{Rejection, RejectionReason};
use crate::time::EventTime;
use crate::zone::{StagedChange, ZoneChange};

impl Gate {
    pub(super) fn built(
        &mut self,
        number: u64,
        result: Result<Built, BuildFailure>,
        effects: &mut Vec<GateEffect>,
    ) {
        // A build from before a start over is nobody's any more.
        let Some(in_flight) = self.in_flight.take_if(|build| build.number == number) else {
            return;
        };
        let promotion = self
            .promotion
            .as_mut()
            .expect("a build in flight belongs to a promotion");
        match result {
            Ok(built) => {
                self.counters.version_regressions += built.report.version_regressions;
                self.counters.foreign_partition += built.report.foreign_partition_changes;
                if let Some(end) = built.report.dropped_history_end {
                    self.floor.raise(end);
                }
                promotion.built(built);
            }
            Err(failure) => {
                self.counters.build_failures += 1;
                if in_flight.is_first_search && promotion.has_failed_for_good() {
                    // What is at fault may have been filed long ago. In parts it is found.
                    self.builds_in_parts = true;
                    return self.start_over(&[], effects);
                }
                if let Some(change) = promotion.failed(self.now.mono) {
                    self.refuse_built(&change, &failure, effects);
                }
            }
        }
    }

    /// Refuses the change at fault; its zone ends as after any rejected change.
    fn refuse_built(
        &mut self,
        change: &StagedChange,
        failure: &BuildFailure,
        effects: &mut Vec<GateEffect>,
    ) {
        if self.rejected_zones.names(&change.zone_id, change.position) {
            // The removal that stood in for it cannot be built either: nothing more can be done for this zone.
            return;
        }
        if self.is_new(change.position) {
            self.counters.accepted = self.counters.accepted.saturating_sub(1);
        }
        let removal = admission::removal(
            &change.zone_id,
            change.position,
            change.commit_time,
            self.topic.compaction_lag,
        );
        let is_mended = self.has_later(change);
        let rejected = RejectedZone {
            position: change.position,
            rejection: Rejection::new(RejectionReason::BuildFailed, failure.to_string()),
            ends_at: removal.as_ref().map(|removal| removal.valid_from),
        };
        let record = change.record.clone();
        self.rejected(Some(change.zone_id.clone()), rejected, record, effects);
        if is_mended {
            self.rejected_zones.mended(&change.zone_id);
        }
        if let Some(removal) = removal
            && !matches!(change.change, ZoneChange::Remove)
            && let Some(promotion) = &mut self.promotion
        {
            promotion.replace(removal);
        }
    }

    /// Whether a later change of the same zone waits to be built.
    fn has_later(&self, change: &StagedChange) -> bool {
        let is_later = |other: &StagedChange| {
            other.zone_id == change.zone_id && other.order().is_after(&change.order())
        };
        let promoting = self.promotion.iter().flat_map(Promotion::changes);
        promoting.chain(self.staging.changes()).any(is_later)
    }

    /// A promotion that is whole becomes the index at hand.
    pub(super) fn take_promoted(&mut self) {
        if let Some(promotion) = &self.promotion
            && let Step::Done(index) = promotion.next(self.now.mono)
        {
            self.index = index;
            self.promotion = None;
            self.no_zones_at = None;
        }
    }

    /// Drives the promotion at hand, or begins the next one.
    pub(super) fn advance_builds(&mut self, effects: &mut Vec<GateEffect>) {
        if self.in_flight.is_some() {
            return;
        }
        self.begin_promotion();
        let Some(promotion) = &self.promotion else {
            return;
        };
        match promotion.next(self.now.mono) {
            Step::Build(index, changes) => self.request(index, changes, effects),
            Step::Pause | Step::Done(_) => {}
        }
    }

    fn begin_promotion(&mut self) {
        if self.promotion.is_some() || !self.has_room() {
            return;
        }
        let changes = if self.staging.should_build_ahead() {
            self.staging.take_all()
        } else {
            match (self.low_watermark, self.staging.earliest()) {
                (Some(low), Some(earliest)) if earliest <= low => self.staging.take_until(low),
                _ => Vec::new(),
            }
        };
        let is_to_be_searched = !self.index.is_searchable() && !self.is_filing();
        if !changes.is_empty() || is_to_be_searched {
            self.promotion = Some(Promotion::new(self.index.clone(), changes));
        }
    }

    /// Whether what is read is only filed: from the start of the log, until every partition has met its proof.
    fn is_filing(&self) -> bool {
        self.is_reading_from_start() && self.low_watermark.is_none() && !self.builds_in_parts
    }

    /// Whether one more index may be in memory (DESIGN 6, *Reclamation*).
    pub(super) fn has_room(&self) -> bool {
        self.live_snapshots < self.config.live_snapshots_max
    }

    fn request(
        &mut self,
        index: Arc<Index>,
        changes: Arc<[StagedChange]>,
        effects: &mut Vec<GateEffect>,
    ) {
        self.builds += 1;
        let filing = self.is_filing();
        self.in_flight = Some(InFlight {
            number: self.builds,
            is_first_search: !filing && !index.is_searchable(),
        });
        effects.push(GateEffect::Build(BuildRequest {
            number: self.builds,
            index,
            changes,
            as_of: self.history_from(),
            rules: BuildRules {
                history_bytes_max: self.config.history_bytes_max,
                filing,
            },
        }));
    }

    /// What ended before this counts as history. In the bootstrap nothing is published yet, but its as_of will lie above
    /// what the first proof can say at the least; without a bound a long log would have to fit into memory whole.
    fn history_from(&self) -> EventTime {
        self.published.as_ref().map_or_else(
            || {
                self.began_at
                    .minus(self.config.settle_margin_max.max(self.margin.current()))
                    .minus(Duration::from_millis(1))
            },
            |published| published.as_of,
        )
    }
}
