//! The invariants, each by its number, against what the simulation knows to be true.

use super::*;

/// A change is excused from the published index where it is known why it is not there.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Excuse {
    /// It stands in a partition that the published index was not read from: found since, or not yet.
    NewPartition,
    /// The gate met it too late, has counted it, and is building it.
    MetLate,
    /// Its broker's clock leapt back further than any margin: it will be met too late.
    LeaptBack,
    /// Compaction took it: at the floor and above it makes no difference.
    Compacted,
}

impl Simulation {
    pub(super) fn check(&mut self) -> Verdict {
        expect(self.world.stopped.is_none(), || {
            format!("stopped: {:?}", self.world.stopped)
        })?;
        self.check_bounds()?;
        self.check_late()?;
        self.check_held_by()?;
        self.check_snapshot()?;
        self.check_kept()
    }

    /// I7: every queue is bounded; so is what holds memory.
    fn check_bounds(&mut self) -> Verdict {
        let status = self.world.gate.status();
        // What one read gives comes on top of a full staging.
        expect(status.staged <= self.staging_max + self.read_max, || {
            format!("I7: {} staged, of {}", status.staged, self.staging_max)
        })?;
        let live = self.world.live_indexes();
        expect(live <= LIVE_MAX, || format!("I7: {live} indexes live"))?;
        if let Some(worker) = &self.world.worker {
            let counters = worker.counters();
            expect(counters.held <= HOLD_MAX as u64, || {
                format!("I7: {} held", counters.held)
            })?;
            expect(counters.in_flight <= IN_FLIGHT_MAX as u64, || {
                format!("I7: {} in flight", counters.in_flight)
            })?;
        }
        Ok(())
    }

    /// I16: every late change is counted, once, and none is that should not be.
    fn check_late(&mut self) -> Verdict {
        let counted = self.world.gate.status().counters.violations;
        expect(counted == self.world.met_late, || {
            format!(
                "I16: {counted} late changes counted, {} met",
                self.world.met_late
            )
        })?;
        let is_excused = |late: &&RecordPosition| {
            !self.world.late_in_new.contains(late) && !self.leapt.contains(late)
        };
        let unexpected = self.world.late_changes.iter().find(is_excused);
        expect(unexpected.is_none(), || {
            format!("I2: {unexpected:?} came too late, with all clocks within the margin")
        })
    }

    /// A leader that is slow for long holds the gate and is named (FS-18).
    fn check_held_by(&self) -> Verdict {
        let status = self.world.gate.status();
        let is_t_right = (status.t.millis() - self.world.now).abs() < 500;
        for partition in 0..self.world.zones.len() {
            let since = self.slow_since[partition];
            let is_slow = self.world.is_slow(partition) && self.world.now - since > 4_000;
            let is_known = partition < status.partitions.len();
            if is_slow && is_known && is_t_right && status.settle_margin < Duration::from_secs(1) {
                let named = status
                    .held_by
                    .iter()
                    .any(|held| held.partition.0 as usize == partition);
                expect(named, || {
                    format!("FS-18: slow partition {partition} is not named")
                })?;
            }
        }
        Ok(())
    }

    /// Changes up to as_of that are not in the published index, all of them with an excuse.
    fn not_in_index(&self, as_of: EventTime) -> Result<Vec<RecordPosition>, String> {
        let mut without = Vec::new();
        for change in &self.world.truth.changes {
            let position = change.position;
            if change.commit_time > as_of || self.world.in_index.contains(&position) {
                continue;
            }
            let excuse = self.excuse(position);
            expect(excuse.is_some(), || {
                format!(
                    "I2: as_of {} has passed {position} stamped {}, which is not in the index",
                    as_of.millis() - START,
                    change.commit_time.millis() - START
                )
            })?;
            if excuse != Some(Excuse::Compacted) {
                without.push(position);
            }
        }
        Ok(without)
    }

    fn excuse(&self, position: RecordPosition) -> Option<Excuse> {
        let partition = position.partition.0 as usize;
        if partition >= self.world.served_partitions {
            Some(Excuse::NewPartition)
        } else if self.world.late_changes.contains(&position) {
            Some(Excuse::MetLate)
        } else if !self.world.zones[partition].has(position.offset.0) {
            Some(Excuse::Compacted)
        } else if self.leapt.contains(&position) {
            Some(Excuse::LeaptBack)
        } else {
            None
        }
    }

    fn check_snapshot(&mut self) -> Verdict {
        let Some(snapshot) = self.world.snapshot() else {
            return expect(self.world.worker.is_none(), || {
                "I14: telemetry too early".to_owned()
            });
        };
        expect(self.as_of <= Some(snapshot.as_of), || {
            "I1: as_of went back".to_owned()
        })?;
        let low_watermark = self.world.gate.status().low_watermark;
        expect(self.low_watermark <= low_watermark, || {
            "I1: the low watermark went back".to_owned()
        })?;
        self.low_watermark = low_watermark;
        // That each index is one epoch more (I3) is asserted where the world publishes.
        (self.as_of, self.tally.epochs) = (
            Some(snapshot.as_of),
            self.tally.epochs.max(snapshot.epoch.0),
        );
        self.promised = self.promised.max(self.as_of);
        let without = self.not_in_index(snapshot.as_of)?;
        if snapshot.floor > snapshot.as_of {
            return Ok(());
        }
        let (floor, as_of) = (snapshot.floor.millis(), snapshot.as_of.millis());
        for _ in 0..3 {
            let recent = self.rng.between(floor.max(as_of - 200), as_of);
            let any = self.rng.between(floor, as_of);
            for at in [recent, any, as_of] {
                let place = self.place();
                let found = zones_in(&snapshot, place, t(at));
                let truth = self.world.truth.at_without(&without, place, t(at));
                let truth: Vec<_> = truth.iter().map(|zone| zone.id.to_string()).collect();
                // I12 too: the oracle is a plain list, and the index must say what it says.
                expect(found == truth, || {
                    format!(
                        "I2 at {} (floor {}, as_of {}): {found:?}, not {truth:?}",
                        at - START,
                        floor - START,
                        as_of - START
                    )
                })?;
            }
        }
        Ok(())
    }

    /// I4: a snapshot that somebody holds answers as it did, whatever is built on it.
    fn check_kept(&self) -> Verdict {
        let Some((snapshot, first)) = &self.reader else {
            return Ok(());
        };
        let again = zones_in(snapshot, first.place, first.at);
        expect(again == first.zones, || {
            format!("I4: {again:?}, and {:?} before", first.zones)
        })
    }

    pub(super) fn check_committed(&self, committed: &BTreeMap<i32, i64>) -> Verdict {
        for (partition, end) in committed {
            for offset in 0..*end {
                let position = RecordPosition::new(*partition, offset);
                expect(self.acknowledged.contains(&position), || {
                    format!("I6: {partition} is committed to {end}, {offset} is not acknowledged")
                })?;
            }
        }
        Ok(())
    }

    /// What the worker has written with the snapshot that is current.
    pub(super) fn check_outputs(&mut self) -> Verdict {
        let outputs = self.new_outputs();
        let Some(worker) = self.world.worker.as_ref().filter(|_| !outputs.is_empty()) else {
            return Ok(());
        };
        let (as_of, floor) = (worker.zones.as_of, worker.zones.floor);
        let without = self.not_in_index(as_of)?;
        for out in outputs {
            let RecordPosition { partition, offset } = out.source;
            let next = self.next.entry(partition.0).or_default();
            expect(offset == Offset(*next), || {
                format!(
                    "I5, I8: output of {} after that of {next} was due",
                    out.source
                )
            })?;
            *next = offset.next().0;
            self.tally.outputs += 1;
            let of_batch = out.header(headers::AS_OF).expect("enriched");
            expect(of_batch.parse() == Ok(as_of.millis()), || {
                format!(
                    "I13: {} was matched as of {of_batch}, not {as_of:?}",
                    out.source
                )
            })?;
            self.check_value(&out, as_of, floor, &without)?;
        }
        Ok(())
    }

    fn check_value(
        &mut self,
        out: &Written,
        as_of: EventTime,
        floor: EventTime,
        without: &[RecordPosition],
    ) -> Verdict {
        let flags = out.flags();
        let at: i64 = out.header(headers::AT).expect("enriched").parse().unwrap();
        expect(t(at) <= as_of, || format!("I15: {} at {at}", out.source))?;
        // The floor of a compacted topic may lie above as_of: no answer is promised there.
        if t(at) < floor {
            let is_said =
                flags.has(Flag::Late) || flags.has(Flag::Unsettled) || flags.has(Flag::Degraded);
            return expect(is_said, || format!("I10: {} below the floor", out.source));
        }
        let value: serde_json::Value = serde_json::from_str(out.text()).unwrap();
        let place = Position {
            lon: value["lon"].as_f64().unwrap(),
            lat: value["lat"].as_f64().unwrap(),
        };
        let zones = zones_of(out);
        let truth = self.world.expected_zones_without(without, place, out);
        expect(zones == truth, || {
            format!(
                "I10: {} at {:?}: {zones:?}, not {truth:?}",
                out.source, out.headers
            )
        })?;
        let halves = zones.iter().filter(|id| *id == "l" || *id == "r").count();
        // The first two are in force by then; a change that is met too late parts a pair for a moment.
        expect(
            halves == 1 || at < START + 2_500 || !without.is_empty(),
            || format!("the jigsaw: {} in {zones:?}", out.source),
        )?;
        self.tally.degraded += usize::from(flags.has(Flag::Degraded));
        self.tally.unsettled += usize::from(flags.has(Flag::Unsettled));
        self.tally.late += usize::from(flags.has(Flag::Late));
        if flags.is_empty() {
            self.tally.unflagged += 1;
            // With a change missing it is what a gate violation, counted, excuses.
            if without.is_empty() {
                let value = out.value.clone().unwrap_or_default();
                let first = self
                    .values
                    .entry(out.source)
                    .or_insert_with(|| value.clone());
                expect(*first == value, || {
                    format!("I10: {} has two values", out.source)
                })?;
            }
        }
        Ok(())
    }

    /// The worker's new outputs, with the planted defect done to them.
    fn new_outputs(&mut self) -> Vec<Written> {
        let Some(worker) = &self.world.worker else {
            return Vec::new();
        };
        let mut outputs = worker.written[self.seen..].to_vec();
        self.seen = worker.written.len();
        if self.seen < 20 || outputs.is_empty() {
            return outputs;
        }
        match self.defect {
            Some(Defect::Lost) => drop(outputs.remove(0)),
            Some(Defect::Doubled) => outputs.insert(0, outputs[0].clone()),
            Some(Defect::Swapped) => {
                for at in 1..outputs.len() {
                    if outputs[at].source.partition == outputs[at - 1].source.partition {
                        outputs.swap(at - 1, at);
                        break;
                    }
                }
            }
            Some(Defect::WrongZone) => {
                let text = outputs[0]
                    .text()
                    .replace(r#""l""#, r#""m""#)
                    .replace(r#""r""#, r#""l""#);
                outputs[0].value = Some(text.into_bytes());
            }
            _ => {}
        }
        outputs
    }
}
