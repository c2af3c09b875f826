//! What befalls the core: zone changes and events, replication, transactions, clocks, slow leaders, new partitions.

use super::*;

/// Each of these is what a margin of 250 ms must cover together with the others: a stamp is at most [`APART`] off, as is
/// T, and a record is below the end offset after [`DELAY`], or else holds the largest stamp.
const APART: i64 = 75;
const DELAY: i64 = 80;
/// How long a broker may be unknown to the metadata: partitions are asked for every 5 s.
const UNDISCOVERED: i64 = 5_000;

impl Simulation {
    /// A position on an odd millionth: never on the border.
    pub(super) fn place(&mut self) -> Position {
        let odd = |rng: &mut Rng| (rng.between(-400_000, 399_999) * 2 + 1) as f64 / 1e6;
        Position {
            lon: odd(&mut self.rng),
            lat: odd(&mut self.rng).abs(),
        }
    }

    /// How long a record stays invisible: mostly replication, now and then a dead replica.
    fn delay(&mut self, partition: usize) -> i64 {
        // The first record of a partition: an empty log has no largest stamp that could tell of an invisible record. And
        // after a broker's clock stepped back, an older record has the largest stamp: only the margin helps.
        let by_marker = self.is_by_marker();
        let has_largest_stamp = by_marker
            || self.world.zones[partition].next_offset() > 0
                && self.world.now >= self.stamps_back_until[partition];
        if self.world.now == START {
            0
        } else if has_largest_stamp && self.rng.chance(0.004) {
            self.rng.between(2_000, 9_000)
        } else {
            self.rng.between(0, DELAY)
        }
    }

    pub(super) fn move_border(&mut self) {
        let border = (self.rng.between(-400_000, 400_000) * 2) as f64 / 1e6;
        let effective_at = self.world.now + self.rng.between(100, 2_500);
        let more = format!(r#""effective_at":{effective_at}"#);
        let left = rectangle("l", -1.0, 0.0, border, 1.0, &more);
        let right = rectangle("r", border, 0.0, 1.0, 1.0, &more);
        for (partition, id, zone) in [(0, "l", left), (1, "r", right)] {
            let delay = self.delay(partition);
            self.note_stamp(partition);
            self.world.write_zone(partition, id, Some(&zone), delay);
        }
    }

    /// Any change of one of a few other zones, which overlap the jigsaw. The silent partition has none.
    pub(super) fn write_other(&mut self) {
        let added = self.world.zones.len() - ZONE_PARTITIONS;
        let number = self.rng.below((4 + 2 * added) as u64) as usize;
        let partition = match number.checked_sub(4) {
            Some(number) => ZONE_PARTITIONS + number / 2,
            None => number % SILENT,
        };
        let id = format!("x{number}");
        let delay = self.delay(partition);
        self.note_stamp(partition);
        if self.rng.chance(0.2) {
            return self.world.write_zone(partition, &id, None, delay);
        }
        let now = self.world.now;
        let mut more = Vec::new();
        if self.rng.chance(0.5) {
            let at = now + self.rng.between(-1_000, 2_500);
            more.push(format!(r#""effective_at":{at}"#));
        }
        if self.rng.chance(0.3) {
            let at = now + self.rng.between(-500, 4_000);
            more.push(format!(r#""expires_at":{at}"#));
        }
        let west = self.rng.between(-9, 0) as f64 / 10.0;
        let zone = rectangle(&id, west, 0.0, west + 0.7, 1.0, &more.join(","));
        if self.rng.chance(0.15) && partition < ZONE_PARTITIONS {
            self.write_in_transaction(partition, &id, &zone, delay);
        } else {
            self.world.write_zone(partition, &id, Some(&zone), delay);
        }
    }

    fn write_in_transaction(&mut self, partition: usize, id: &str, zone: &str, delay: i64) {
        self.transactions += 1;
        let number = self.transactions;
        let now = self.world.now;
        let stamp = now + self.world.broker_ahead[partition];
        let log = &mut self.world.zones[partition];
        let (key, value) = (Some(id.as_bytes()), Some(zone.as_bytes()));
        let offset = log.append_in(number, stamp, now + delay, key, value);
        let change = change(partition as i32, offset, stamp, id, Some(zone));
        self.open.push((number, partition, vec![change]));
    }

    /// Takes note of what is written next to the partition. A record that is stamped at or below an as_of that any process
    /// published makes answers wrong that were given already: what two runs say may differ from here on (I10 promises
    /// nothing then).
    fn note_stamp(&mut self, partition: usize) {
        let stamp = self.world.now + self.world.broker_ahead[partition];
        if self.promised.is_some_and(|as_of| t(stamp) <= as_of) {
            self.values.clear();
        }
        if self.world.broker_ahead[partition] < -APART {
            let offset = self.world.zones[partition].next_offset();
            self.leapt
                .insert(RecordPosition::new(partition as i32, offset));
        }
    }

    pub(super) fn end_transaction(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let pick = self.rng.below(self.open.len() as u64) as usize;
        let (number, partition, changes) = self.open.swap_remove(pick);
        let is_committed = self.rng.chance(0.7);
        let readable_at = self.world.now + self.rng.between(0, 50);
        self.world.zones[partition].end_transaction(number, is_committed, readable_at);
        if is_committed {
            if changes
                .iter()
                .any(|change| Some(change.commit_time) <= self.promised)
            {
                self.values.clear();
            }
            self.world.truth.changes.extend(changes);
        }
    }

    pub(super) fn write_events(&mut self) {
        for _ in 0..self.rng.below(4) {
            let place = self.place();
            let partition = self.rng.below(TELEMETRY_PARTITIONS as u64) as usize;
            let age = if self.rng.chance(0.1) {
                self.rng.between(-400, 4_000)
            } else {
                self.rng.between(0, 300)
            };
            let time = self.world.now - age;
            self.world
                .write_event(partition, time, place.lon, place.lat);
        }
    }

    /// Our own host's clock.
    pub(super) fn step_clock(&mut self) {
        // Not for longer than a minute: then a step forward is believed, as it must be.
        if self.world.now < self.wall_wrong_until {
            return;
        }
        self.world.wall_ahead = self.rng.between(-60, 60);
        if self.rng.chance(0.02) {
            let hours = [-7_200_000, 7_200_000, 3_600_000, -500][self.rng.below(4) as usize];
            self.world.wall_ahead = hours;
            self.wall_wrong_until = self.world.now + self.rng.between(200, 8_000);
        }
    }

    /// A zones broker's clock: steps within what the margin covers, and in the rough half of the seeds far back now and
    /// then, which no margin covers and which must be counted.
    pub(super) fn step_broker_clock(&mut self) {
        let partition = self.rng.below(self.world.zones.len() as u64) as usize;
        let before = self.world.broker_ahead[partition];
        let mut ahead = self.rng.between(-APART, APART);
        if self.is_by_marker() {
            ahead = ahead.max(before);
        }
        if self.is_rough && self.rng.chance(0.3) {
            ahead = self.rng.between(-1_500, -300);
            self.tally.leaps += 1;
        }
        self.world.broker_ahead[partition] = ahead;
        if ahead < before {
            let until = self.world.now + (before - ahead);
            self.stamps_back_until[partition] = self.stamps_back_until[partition].max(until);
        }
        self.tally.broker_steps += 1;
    }

    /// A leader that takes seconds for everything.
    pub(super) fn slow_leader(&mut self) {
        let partition = self.rng.below(self.world.zones.len() as u64) as usize;
        if !self.world.is_slow(partition) {
            self.slow_since[partition] = self.world.now;
            self.world.slow_until[partition] = self.world.now + self.rng.between(500, 6_000);
            self.tally.slow += 1;
        }
    }

    /// A partition that nobody knows of for a while, and is written to at once.
    pub(super) fn new_partition(&mut self) {
        if self.world.zones.len() < ZONE_PARTITIONS + ADDED_MAX {
            self.world.create_zone_partition();
            let last = self.world.broker_ahead.len() - 1;
            self.world.broker_ahead[last] = self.rng.between(-APART, APART);
            self.slow_since.push(i64::MIN);
            self.stamps_back_until.push(i64::MIN);
            let discovered_at = self.world.now + self.rng.between(0, UNDISCOVERED);
            self.discover_at = Some(discovered_at);
            self.tally.added += 1;
        }
    }

    pub(super) fn discover(&mut self) {
        if self.discover_at.is_some_and(|at| self.world.now >= at) {
            self.discover_at = None;
            self.world.discover_partitions();
        }
    }

    fn is_by_marker(&self) -> bool {
        self.world.config.gate.proof == ProofKind::Marker
    }

    pub(super) fn ask(&mut self) {
        if self.is_by_marker() {
            let ahead = match self.defect {
                Some(Defect::MarkerAhead) => 400,
                _ => 0,
            };
            for partition in 0..self.world.zones.len() {
                // Now and then none comes, or another process wrote one just before.
                if self.rng.chance(0.7) {
                    let delay = self.delay(partition);
                    self.world.write_marker_ahead(partition, delay, ahead);
                }
            }
        }
        // As the edge: a broker has one round open at a time, and each partition's leader is a broker of its own here.
        if !self.rounds.is_empty() {
            return;
        }
        let mut round = self.world.ask();
        if self.defect == Some(Defect::PromotedTooEarly) {
            for (_, answer) in &mut round.answers {
                answer.max_timestamp = MaxTimestamp::Unsupported;
            }
        }
        // A broker that does not answer this time.
        if self.rng.chance(0.1) {
            let silent = self.rng.below(round.answers.len() as u64) as usize;
            round.answers.remove(silent);
        }
        let (slow, answers): (Vec<_>, Vec<_>) = round
            .answers
            .into_iter()
            .partition(|(partition, _)| self.world.is_slow(partition.0 as usize));
        for (partition, answer) in slow {
            let is_open = |(open, _): &(usize, ProofRound)| *open == partition.0 as usize;
            if !self.slow_rounds.iter().any(is_open) {
                let late = ProofRound {
                    asked_at: round.asked_at,
                    answers: vec![(partition, answer)],
                };
                self.slow_rounds.push((partition.0 as usize, late));
            }
        }
        self.rounds.push(ProofRound {
            asked_at: round.asked_at,
            answers,
        });
    }

    /// What slow leaders were asked is answered when they are slow no longer.
    pub(super) fn answer_slow(&mut self) {
        let world = &mut self.world;
        let (slow, due): (Vec<_>, Vec<_>) = std::mem::take(&mut self.slow_rounds)
            .into_iter()
            .partition(|(partition, _)| world.is_slow(*partition));
        self.slow_rounds = slow;
        for (_, round) in due {
            world.answer(round);
        }
    }

    pub(super) fn build(&mut self) {
        let Some(build) = self.world.builds.front() else {
            return;
        };
        // Not three times in a row: the third would refuse a change that the truth has.
        if !self.has_failed_build && self.rng.chance(0.1) {
            let number = build.number;
            self.has_failed_build = true;
            self.world.builds.pop_front();
            let failure = BuildFailure {
                zone: None,
                detail: "as the simulation wants it".into(),
            };
            self.world.tell(GateInput::Built(number, Err(failure)));
        } else {
            self.has_failed_build = false;
            self.world.build_one();
        }
    }

    /// A reader that holds a snapshot for long, as none should.
    pub(super) fn hold_snapshot(&mut self) -> Verdict {
        if let Some((reader, _)) = self.reader.take() {
            // I11: its own reference is not the last, so dropping it frees nothing.
            return expect(std::sync::Arc::strong_count(&reader) > 1, || {
                "I11: a reader would free a snapshot".to_owned()
            });
        }
        let (place, place_at) = (self.place(), self.rng.between(0, 5_000));
        self.reader = self.world.reader().map(|snapshot| {
            let at = snapshot
                .as_of
                .minus(Duration::from_millis(place_at.unsigned_abs()));
            let zones = zones_in(&snapshot, place, at);
            (snapshot, Answer { place, at, zones })
        });
        Ok(())
    }
}
