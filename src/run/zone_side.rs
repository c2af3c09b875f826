//! The thread of the zones side: it reads, asks for ends, turns the gate and carries out what the gate wants.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;

use super::decoding::Decoder;
use super::letters::Letters;
use super::markers::Markers;
use super::promoter::Promoter;
use super::waiting::Waiting;
use crate::clock::{Clock, GuardedTime};
use crate::codec::zone_change::ZoneRules;
use crate::gate::clock_guard::ClockGuard;
use crate::gate::{
    EndAnswer, Epoch, Gate, GateConfig, GateEffect, GateInput, GateStatus, LiveIndexes,
    MaxTimestamp, ProofKind, ProofRound, Snapshot, SnapshotCell, StopReason, ZonesTopic,
};
use crate::kafka::EdgeError;
use crate::kafka::client::{Logged, PlainConsumer, Settings, create};
use crate::kafka::ends::{EndAsker, EndEvent, EndRound, LargestStamp};
use crate::kafka::zones::ZoneConsumer;
use crate::metrics;
use crate::shutdown::Shutdown;
use crate::telemetry::RecordTimestamp;
use crate::time::{EventTime, MonoTime, Now};

/// How long a turn waits for records.
const TURN: Duration = Duration::from_millis(5);
/// How often the status is published.
const PUBLISH_EVERY: Duration = Duration::from_millis(100);
/// Where markers prove what was read, end offsets only tell of truncation and of what holds the gate: asked for this often.
const ENDS_BESIDE_MARKERS: Duration = Duration::from_millis(500);
/// So many changes are followed from commit time to visibility at once.
const FOLLOWED_MAX: usize = 10_000;

/// Why the zones side ended.
#[derive(Debug)]
pub(super) enum ZoneError {
    /// The gate cannot go on.
    Stopped(StopReason),
    /// The client or the cluster failed for good.
    Edge(EdgeError),
    /// The topic carries producers' stamps, and nothing says how far off they may be.
    CreateTime,
    /// `gate.match_from` or `match_until` lies above what the zones topic has settled.
    MatchAhead {
        key: &'static str,
        at: EventTime,
        as_of: EventTime,
    },
}

impl std::fmt::Display for ZoneError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stopped(reason) => reason.fmt(f),
            Self::Edge(error) => error.fmt(f),
            Self::CreateTime => f.write_str(
                "the zones topic carries CreateTime stamps: set its `message.timestamp.type` to LogAppendTime, or \
                 `gate.create_time_margin_ms` to how far off its producers' clocks may be",
            ),
            Self::MatchAhead { key, at, as_of } => {
                write!(f, "`gate.{key}` ({at}) is later than what is known of the zones ({as_of})")
            }
        }
    }
}

impl From<EdgeError> for ZoneError {
    fn from(error: EdgeError) -> Self {
        Self::Edge(error)
    }
}

/// What the zones side is told.
pub(super) struct ZoneSideSettings {
    pub(super) topic: String,
    /// With the longest record that it takes.
    pub(super) dead_letter: Option<(String, usize)>,
    pub(super) rules: ZoneRules,
    pub(super) gate: GateConfig,
    pub(super) zones_topic: ZonesTopic,
    pub(super) proof_interval: Duration,
    /// Whether CreateTime stamps are provided for (`gate.create_time_margin_ms`).
    pub(super) create_time_allowed: bool,
    pub(super) match_bounds: [(&'static str, Option<EventTime>); 2],
}

/// What others see of the zones side.
#[derive(Debug, Default)]
pub(super) struct ZoneWindow {
    pub(super) cell: SnapshotCell,
    pub(super) status: ArcSwapOption<GateStatus>,
    pub(super) live_snapshots: AtomicU64,
    pub(super) clock_steps: AtomicU64,
    beat_micros: AtomicU64,
}

impl ZoneWindow {
    pub(super) fn beat(&self) -> MonoTime {
        MonoTime::from_micros(self.beat_micros.load(Ordering::Relaxed))
    }
}

/// The zones side.
pub(super) struct ZoneSide {
    settings: ZoneSideSettings,
    consumer: ZoneConsumer,
    decoder: Decoder,
    asker: EndAsker<Logged>,
    gate: Gate,
    guard: ClockGuard,
    time: Arc<GuardedTime>,
    window: Arc<ZoneWindow>,
    promoter: Promoter,
    live: LiveIndexes,
    letters: Option<Letters>,
    markers: Option<Markers>,
    paused: bool,
    topic_id: Option<(i64, i64)>,
    epoch: Epoch,
    /// When the builds since the last new index began, and the commit times of their changes.
    build_begun: Option<MonoTime>,
    followed: Vec<EventTime>,
    effects: Vec<GateEffect>,
    end_events: Vec<EndEvent>,
    published_at: MonoTime,
    bootstrapped: bool,
    live_told: usize,
    waiting: Waiting,
    /// What was told last: they differ by more than any margin covers.
    clocks_differ: bool,
}

impl ZoneSide {
    pub(super) fn new(
        kafka: &Settings,
        settings: ZoneSideSettings,
        time: Arc<GuardedTime>,
        window: Arc<ZoneWindow>,
    ) -> Result<Self, EdgeError> {
        let consumer = ZoneConsumer::new(kafka, &settings.topic)?;
        let client: PlainConsumer = create(&kafka.asker(), Logged::default())?;
        let (ask_every, markers) = match settings.gate.proof {
            ProofKind::End => (settings.proof_interval, None),
            ProofKind::Marker => {
                let markers = Markers::new(kafka, &settings.topic, settings.proof_interval)?;
                let ask_every = settings.proof_interval.max(ENDS_BESIDE_MARKERS);
                (ask_every, Some(markers))
            }
        };
        let asker = EndAsker::new(Arc::new(client), &settings.topic, ask_every);
        let letters = match &settings.dead_letter {
            Some((topic, max_bytes)) => {
                Some(Letters::new(kafka, topic, *max_bytes, &settings.topic)?)
            }
            None => None,
        };
        let (mono, wall) = (Clock::mono(), Clock::wall());
        consumer.read_from_start(&settings.zones_topic.partitions)?;
        Ok(Self {
            gate: Gate::new(
                settings.gate.clone(),
                settings.zones_topic.clone(),
                Now { mono, wall },
            ),
            guard: ClockGuard::new(wall, mono),
            decoder: Decoder::new(settings.rules.clone()),
            settings,
            consumer,
            asker,
            time,
            window,
            promoter: Promoter::start(),
            live: LiveIndexes::default(),
            letters,
            markers,
            paused: false,
            topic_id: None,
            epoch: Epoch::default(),
            build_begun: None,
            followed: Vec::new(),
            effects: Vec::new(),
            end_events: Vec::new(),
            published_at: MonoTime::default(),
            bootstrapped: false,
            live_told: 0,
            waiting: Waiting::new(mono),
            clocks_differ: false,
        })
    }

    /// Turns until `shutdown`; calls `bootstrapped` once the first snapshot is published (I14).
    pub(super) fn run(
        mut self,
        shutdown: &Shutdown,
        bootstrapped: impl Fn(),
    ) -> Result<(), ZoneError> {
        while !shutdown.is_requested() {
            let was_bootstrapped = self.bootstrapped;
            self.turn()?;
            if self.bootstrapped && !was_bootstrapped {
                bootstrapped();
            }
        }
        Ok(())
    }

    fn turn(&mut self) -> Result<(), ZoneError> {
        let now = self.read_clocks();
        self.window
            .beat_micros
            .store(now.mono.micros(), Ordering::Relaxed);
        self.consumer.serve()?;
        self.ask(now)?;
        self.tell_live(now)?;
        while let Ok(built) = self.promoter.results.try_recv() {
            self.build_begun.get_or_insert(built.begun);
            self.input(GateInput::Built(built.number, built.result), now)?;
        }
        if let Some(markers) = &mut self.markers {
            markers.turn(self.gate.partitions(), now.mono);
        }
        if self.paused {
            std::thread::park_timeout(TURN);
        } else {
            self.read()?;
        }
        let now = self.read_clocks();
        self.input(GateInput::Tick, now)?;
        if now.mono.since(self.published_at) >= PUBLISH_EVERY {
            self.published_at = now.mono;
            self.tell_status();
            if let Some(letters) = &mut self.letters {
                letters.take_receipts();
            }
        }
        Ok(())
    }

    fn tell_status(&mut self) {
        let steps = self.guard.steps();
        if self.window.clock_steps.swap(steps, Ordering::Relaxed) != steps {
            tracing::warn!(steps, t = %self.time.now().wall, wall = %Clock::wall(), "this host's clock stepped");
        }
        let status = self.gate.status();
        self.waiting.tell(&status, self.published_at);
        // More than the margin can ever cover: this clock or a broker's is wrong, or the topic is slow. Told when it begins and
        // when it ends, however it wavers meanwhile.
        let most = self.settings.gate.settle_margin_max.as_millis() as u64;
        if let Some(difference_ms) = status.clock_difference_ms
            && (difference_ms.unsigned_abs() > most) != self.clocks_differ
        {
            self.clocks_differ = !self.clocks_differ;
            if self.clocks_differ {
                tracing::warn!(
                    difference_ms,
                    "our clock and the newest stamp of the zones topic differ"
                );
            } else {
                tracing::info!(difference_ms, "our clock and the zones topic's agree again");
            }
        }
        self.window.status.store(Some(Arc::new(status)));
    }

    /// Tells the gate how many indexes hold memory, where it is not what the gate knows.
    fn tell_live(&mut self, now: Now) -> Result<(), ZoneError> {
        let live = self.live.count();
        self.window
            .live_snapshots
            .store(live as u64, Ordering::Relaxed);
        if live != self.live_told {
            self.live_told = live;
            self.input(GateInput::LiveSnapshots(live), now)?;
        }
        Ok(())
    }

    fn read_clocks(&mut self) -> Now {
        let mono = Clock::mono();
        let now = Now {
            mono,
            wall: self
                .guard
                .read(Clock::wall(), mono, self.gate.newest_stamp()),
        };
        self.time.set(now);
        now
    }

    fn ask(&mut self, now: Now) -> Result<(), ZoneError> {
        let mut events = std::mem::take(&mut self.end_events);
        self.asker.turn(now.mono, now.wall, &mut events);
        for event in events.drain(..) {
            match event {
                EndEvent::Round(round) => self.input(GateInput::Round(proof(&round)), now)?,
                EndEvent::Partitions(partitions) => {
                    let partitions = partitions.into_iter().map(|(id, _)| id).collect();
                    self.input(GateInput::Partitions(partitions), now)?;
                }
                EndEvent::TopicId(most, least) => {
                    let known = *self.topic_id.get_or_insert((most, least));
                    if known != (most, least) {
                        self.input(GateInput::TopicRecreated, now)?;
                    }
                }
                // Deleted, or a broker that does not know it yet: what comes back is judged by its id and ends.
                EndEvent::Gone => {
                    tracing::warn!(topic = self.settings.topic, "the zones topic is not there")
                }
            }
        }
        self.end_events = events;
        Ok(())
    }

    fn read(&mut self) -> Result<(), ZoneError> {
        let now = self.time.now();
        let decoder = &self.decoder;
        let inputs = self.consumer.take(TURN, |events| decoder.inputs(events))?;
        for input in inputs {
            match &input {
                GateInput::Marker { position, .. } => {
                    if let Some(markers) = &mut self.markers {
                        markers.read(position.partition, now.mono);
                    }
                }
                GateInput::Record(record) => {
                    let is_create = matches!(record.timestamp, RecordTimestamp::Create(_));
                    if is_create && !self.settings.create_time_allowed {
                        return Err(ZoneError::CreateTime);
                    }
                }
                _ => {}
            }
            self.gate.handle(input, now, &mut self.effects);
        }
        self.carry_out_all(now)
    }

    fn input(&mut self, input: GateInput, now: Now) -> Result<(), ZoneError> {
        self.gate.handle(input, now, &mut self.effects);
        self.carry_out_all(now)
    }

    fn carry_out_all(&mut self, now: Now) -> Result<(), ZoneError> {
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            self.carry_out(effect, now)?;
        }
        self.effects = effects;
        Ok(())
    }

    fn carry_out(&mut self, effect: GateEffect, now: Now) -> Result<(), ZoneError> {
        match effect {
            GateEffect::Build(request) => {
                let room = FOLLOWED_MAX.saturating_sub(self.followed.len());
                self.followed.extend(
                    request
                        .changes()
                        .iter()
                        .take(room)
                        .map(|change| change.commit_time),
                );
                self.promoter.build(request);
            }
            GateEffect::Publish(snapshot) => self.publish(snapshot, now)?,
            GateEffect::PauseZones => self.paused = true,
            GateEffect::ResumeZones => self.paused = false,
            GateEffect::DeadLetter {
                position,
                rejection,
                record,
            } => {
                tracing::warn!(%position, reason = rejection.reason.as_str(), detail = %rejection.detail,
                    "zone change rejected");
                if let Some(letters) = &mut self.letters {
                    letters.write(position, record.as_deref(), &rejection, now);
                }
            }
            GateEffect::Bootstrapped => {
                self.bootstrapped = true;
                let status = self.gate.status();
                tracing::info!(
                    zones = status.zones,
                    rejected = status.rejected_zone_count,
                    as_of = status.as_of.map(tracing::field::display),
                    "zones are read, the gate is open"
                );
            }
            GateEffect::StartOver(partitions) => {
                tracing::warn!(
                    "the zones topic is read again from its start; answers are flagged `degraded` meanwhile"
                );
                self.followed.clear();
                self.build_begun = None;
                self.consumer.read_from_start(&partitions)?;
            }
            GateEffect::Stop(reason) => return Err(ZoneError::Stopped(reason)),
            GateEffect::LateChange { position, lateness } => {
                metrics::GATE_VIOLATION_LATENESS
                    .histogram()
                    .record(lateness.as_secs_f64());
                tracing::warn!(%position, lateness_ms = lateness.as_millis() as u64,
                    "a zone change came later than the settle margin allows for");
            }
        }
        Ok(())
    }

    fn publish(&mut self, snapshot: Arc<Snapshot>, now: Now) -> Result<(), ZoneError> {
        if !self.bootstrapped {
            for (key, at) in self.settings.match_bounds {
                if let Some(at) = at
                    && at > snapshot.as_of
                {
                    return Err(ZoneError::MatchAhead {
                        key,
                        at,
                        as_of: snapshot.as_of,
                    });
                }
            }
        }
        self.live.published(&snapshot);
        if snapshot.epoch != self.epoch {
            self.epoch = snapshot.epoch;
            // The gate counts what it publishes.
            self.live_told += 1;
            if let Some(begun) = self.build_begun.take() {
                let took = Clock::mono().since(begun);
                metrics::INDEX_SWAP_LATENCY
                    .histogram()
                    .record(took.as_secs_f64() * 1e3);
            }
            let delay = metrics::ZONE_VISIBLE_DELAY.histogram();
            for commit_time in self.followed.drain(..) {
                // What the bootstrap reads was committed long before: no delay of ours.
                if self.bootstrapped {
                    delay.record(now.wall.since(commit_time).as_secs_f64());
                }
            }
            tracing::debug!(epoch = snapshot.epoch.0, as_of = %snapshot.as_of, "promoted");
        }
        if let Some(replaced) = self.window.cell.publish(snapshot) {
            self.promoter.retire(replaced);
        }
        Ok(())
    }
}

fn proof(round: &EndRound) -> ProofRound {
    let answers = round.ends.iter().map(|ends| {
        let max_timestamp = match ends.largest {
            LargestStamp::Unsupported => MaxTimestamp::Unsupported,
            LargestStamp::Unanswered => MaxTimestamp::Unanswered,
            LargestStamp::At(offset) => MaxTimestamp::At(offset),
        };
        let answer = EndAnswer {
            log_start: ends.log_start,
            log_end: ends.log_end,
            max_timestamp,
        };
        (ends.partition, answer)
    });
    ProofRound {
        asked_at: round.asked_at,
        answers: answers.collect(),
    }
}
