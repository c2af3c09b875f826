//! `verify`: feeds the witness ([`crate::verify`]) from the topics, at once or while the daemon runs.
//!
//! What may be judged lost is decided by rounds: the group's commits are asked for first, then the ends of the output
//! topics; once those are read, a committed record without an output has none. Likewise for zones: once the zones topic
//! is read to an end that was asked for at T, all changes in force up to T less a margin are known.

mod against;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use super::interrupt::stop_on_signal;
use super::{Context, Failure, Outcome, connect, duration};
use crate::clock::Clock;
use crate::config::{Config, MatchMode, OnInvalidEvent, OnLate};
use crate::geometry::OnInvalid;
use crate::kafka::EdgeError;
use crate::kafka::admin::{Admin, End};
use crate::kafka::client::Settings;
use crate::kafka::reader::TopicReader;
use crate::partition::{Offset, OffsetRange, PartitionId};
use crate::shutdown::Shutdown;
use crate::time::{EventTime, MonoTime};
use crate::verify::{Audit, Matching, Pointers, Report, Rules};

/// How long the cluster may take to answer, and a topic to be read on.
const PATIENCE: Duration = Duration::from_secs(30);
/// With so many outputs ahead of their telemetry, the telemetry is read first.
const OUTPUTS_AHEAD_MAX: usize = 50_000;
/// With so many telemetry records without output, the outputs are read first.
const TELEMETRY_AHEAD_MAX: usize = 400_000;
/// With so many outputs that wait for zones, the zones are read first.
const WAITING_MAX: usize = 300_000;
/// How often the commits are asked for while following.
const ROUND_INTERVAL: Duration = Duration::from_millis(500);
/// Zone versions that ended longer ago are forgotten while following; an event later than that would be misjudged, as
/// the daemon's own history is longer.
const HISTORY: Duration = Duration::from_secs(6 * 3600);

/// Arguments of `verify`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  ringfence -c ringfence.toml verify\n  \
    ringfence -c ringfence.toml verify --follow\n  \
    ringfence -c ringfence.toml verify --against telemetry.enriched.replayed")]
pub struct Args {
    /// Audit while the daemon runs, until a signal.
    #[arg(long, conflicts_with = "against")]
    follow: bool,
    /// While following, also report what was found so far, every so often.
    #[arg(long, value_name = "D", requires = "follow", value_parser = duration)]
    every: Option<Duration>,
    /// A duplicate is a failure.
    #[arg(long)]
    exactly_once: bool,
    /// Only compare the enriched topic with this one, byte by byte, record for record.
    #[arg(long, value_name = "TOPIC")]
    against: Option<String>,
    /// With `--against`: judge only what both topics cover; one of them begins later or ends earlier on purpose.
    #[arg(long, requires = "against")]
    overlap: bool,
}

/// Judges the topics.
///
/// # Errors
/// A topic is missing, or the cluster does not answer.
pub fn run(args: &Args, context: &Context) -> Result<Outcome, Failure> {
    let config = context.kafka_config()?;
    if !config.enriched.headers {
        return Err(Failure::Usage(
            "`verify` needs the headers: `enriched.headers` is false".to_owned(),
        ));
    }
    let failed = |why: EdgeError| Failure::failed("cannot verify", why);
    let settings = Settings::from(&config.kafka);
    let admin = connect(&config, PATIENCE, context)?;
    if let Some(other) = &args.against {
        return against::run(&settings, &admin, &config, other, args.overlap, context);
    }
    let mut rules = rules(&config);
    rules.compaction_lag = compaction_lag(&settings, &config.zones.topic).map_err(failed)?;
    rules.exactly_once = args.exactly_once;
    let topics = Topics::of(&config);
    let report = if args.follow {
        let stop = stop_on_signal()?;
        let mut follower =
            Follower::start(&settings, topics, rules, margin(&config)).map_err(failed)?;
        let mut told_at = Clock::mono();
        while !stop.is_requested() {
            follower.turn().map_err(failed)?;
            let now = Clock::mono();
            if args.every.is_some_and(|every| now.since(told_at) >= every) {
                told_at = now;
                tell(&follower.report(), context);
            }
        }
        context.note("reading to the ends of the topics");
        follower.finish().map_err(failed)?
    } else {
        at_once(&settings, &admin, &topics, rules, context).map_err(failed)?
    };
    tell(&report, context);
    Ok(if report.is_clean() && report.saw_something() {
        Outcome::Done
    } else {
        Outcome::Found
    })
}

fn tell(report: &Report, context: &Context) {
    if context.json {
        let mut json = json!(report);
        json["clean"] = json!(report.is_clean() && report.saw_something());
        context.report_json(&json);
    } else {
        context.report(report);
    }
}

/// The four topics; without dead letters three.
#[derive(Clone, Debug)]
pub(super) struct Topics {
    pub(super) zones: String,
    pub(super) telemetry: String,
    pub(super) enriched: String,
    pub(super) dead_letter: Option<String>,
}

impl Topics {
    pub(super) fn of(config: &Config) -> Self {
        Self {
            zones: config.zones.topic.clone(),
            telemetry: config.telemetry.topic.clone(),
            enriched: config.enriched.topic.clone(),
            dead_letter: config.dead_letter.topic.clone(),
        }
    }
}

/// How far behind the clock the zones are taken for known: twice what the daemon waits for, so that the witness judges
/// with what came too late for the daemon.
pub(super) fn margin(config: &Config) -> Duration {
    let margin = config
        .gate
        .create_time_margin
        .unwrap_or(config.gate.settle_margin_max);
    margin * 2 + Duration::from_secs(1)
}

/// The rules of this configuration; what the cluster knows of the zones topic is added by the caller.
pub(super) fn rules(config: &Config) -> Rules {
    let telemetry = &config.telemetry;
    Rules {
        telemetry_topic: telemetry.topic.clone(),
        zones_topic: config.zones.topic.clone(),
        pointers: Pointers::new(
            &telemetry.id,
            &telemetry.time,
            &telemetry.lat,
            &telemetry.lon,
        ),
        telemetry_bytes_max: telemetry.max_bytes,
        field: config.enriched.field.clone(),
        properties: config.enriched.properties.clone(),
        zone_rules: config.zone_rules(),
        repair: config.zones.on_invalid == OnInvalid::Repair,
        max_schedule: config.gate.max_schedule,
        compaction_lag: None,
        matching: match config.gate.match_mode {
            MatchMode::Event => Matching::Event,
            MatchMode::Latest => Matching::Latest,
        },
        match_from: config.gate.match_from,
        match_until: config.gate.match_until,
        max_ahead: config.gate.max_ahead,
        late_is_dead_lettered: config.gate.on_late == OnLate::DeadLetter,
        invalid_is_dropped: telemetry.on_invalid == OnInvalidEvent::Drop,
        invalid_is_forwarded: telemetry.on_invalid == OnInvalidEvent::Forward,
        ..Rules::default()
    }
}

/// How long a cluster may take to tell a topic's configuration: some never do.
const CONFIGURATION_PATIENCE: Duration = Duration::from_secs(5);

/// The compaction lag of a compacted topic; `None` = it is not compacted, or the cluster does not tell (the mock).
pub(super) fn compaction_lag(
    settings: &Settings,
    topic: &str,
) -> Result<Option<Duration>, EdgeError> {
    let told = Admin::new(settings, CONFIGURATION_PATIENCE)?.properties(topic);
    if let Err(why) = &told {
        tracing::warn!(%why, "taken for not compacted");
    }
    let Some(properties) = told.ok().flatten() else {
        return Ok(None);
    };
    let value = |name: &str| {
        properties
            .get(name)
            .and_then(|property| property.value.as_deref())
    };
    if !value("cleanup.policy").is_some_and(|policy| policy.contains("compact")) {
        return Ok(None);
    }
    let lag = value("min.compaction.lag.ms")
        .and_then(|lag| lag.parse().ok())
        .unwrap_or(0);
    Ok(Some(Duration::from_millis(lag)))
}

type Ranges = Vec<(PartitionId, OffsetRange)>;

fn ranges(admin: &Admin, topic: &str) -> Result<Ranges, EdgeError> {
    admin.offsets(topic, &admin.existing(topic)?.ids(), End::Stable)
}

/// What an output topic holds, open transactions included: offsets of a transaction may be readable before its outputs
/// are, as each partition gets its mark by itself (KAFKA 0.6). To be read up to here is to know how those ended.
fn output_ranges(admin: &Admin, topic: &str) -> Result<Ranges, EdgeError> {
    admin.offsets(topic, &admin.existing(topic)?.ids(), End::Log)
}

/// What was committed, as the audit takes it.
fn committed(admin: &Admin, topic: &str) -> Result<Vec<(PartitionId, Offset)>, EdgeError> {
    let committed = admin.committed(topic, &admin.existing(topic)?.ids())?;
    Ok(committed
        .into_iter()
        .filter_map(|(id, offset)| Some((id, offset?)))
        .collect())
}

/// Reads all there is and judges it.
fn at_once(
    settings: &Settings,
    admin: &Admin,
    topics: &Topics,
    rules: Rules,
    context: &Context,
) -> Result<Report, EdgeError> {
    let committed = committed(admin, &topics.telemetry)?;
    let enriched = output_ranges(admin, &topics.enriched)?;
    let letters = topics
        .dead_letter
        .as_ref()
        .map(|topic| output_ranges(admin, topic))
        .transpose()?;
    // After the outputs: every output's source is below this end.
    let telemetry = ranges(admin, &topics.telemetry)?;
    let mut audit = Audit::new(rules);
    let zones = TopicReader::all(settings, admin, &topics.zones)?;
    zones.read_all(PATIENCE, |record| audit.zone(record))?;
    audit.zones_settled(EventTime::MAX);
    for (partition, offset) in &committed {
        audit.committed(*partition, *offset);
    }
    let total: i64 = telemetry
        .iter()
        .chain(&enriched)
        .map(|(_, range)| range.to.0 - range.from.0)
        .sum();
    let progress = context.progress(u64::try_from(total).unwrap_or(0), "reading");
    let mut telemetry = Part::new(settings, &topics.telemetry, &telemetry)?;
    let mut enriched = Part::new(settings, &topics.enriched, &enriched)?;
    let mut letters = match (&topics.dead_letter, letters) {
        (Some(topic), Some(ranges)) => Part::new(settings, topic, &ranges)?,
        _ => Part::none(),
    };
    let mut settled = false;
    let mut quiet_since = Clock::mono();
    while !(telemetry.is_done() && enriched.is_done() && letters.is_done()) {
        let backlog = audit.backlog();
        let mut read = 0;
        if telemetry.is_done() || backlog.outputs_ahead < OUTPUTS_AHEAD_MAX {
            read += enriched.poll(|record| audit.enriched(record))?;
            read += letters.poll(|record| audit.dead_letter(record))?;
        }
        let outputs_done = enriched.is_done() && letters.is_done();
        if outputs_done
            || backlog.telemetry_ahead < TELEMETRY_AHEAD_MAX
            || backlog.outputs_ahead >= OUTPUTS_AHEAD_MAX
        {
            read += telemetry.poll(|record| audit.telemetry(record))?;
        }
        if outputs_done && !settled {
            settled = true;
            committed
                .iter()
                .for_each(|(id, offset)| audit.settled(*id, *offset));
        }
        progress.inc(read as u64);
        let now = Clock::mono();
        if read > 0 {
            quiet_since = now;
        } else if now.since(quiet_since) > PATIENCE {
            return Err(EdgeError::TimedOut("read the topics".to_owned()));
        }
    }
    committed
        .iter()
        .for_each(|(id, offset)| audit.settled(*id, *offset));
    progress.finish_and_clear();
    Ok(audit.finish())
}

/// A topic that is read to where it ended, or not at all where it has nothing.
struct Part(Option<TopicReader>);

impl Part {
    fn new(settings: &Settings, topic: &str, ranges: &Ranges) -> Result<Self, EdgeError> {
        let filled: Ranges = ranges
            .iter()
            .filter(|(_, range)| range.from < range.to)
            .copied()
            .collect();
        if filled.is_empty() {
            return Ok(Self::none());
        }
        TopicReader::ranges(settings, topic, &filled).map(|reader| Self(Some(reader)))
    }

    const fn none() -> Self {
        Self(None)
    }

    fn is_done(&self) -> bool {
        self.0.as_ref().is_none_or(TopicReader::is_complete)
    }

    fn poll(
        &mut self,
        each: impl FnMut(&crate::telemetry::RecordRef<'_>),
    ) -> Result<usize, EdgeError> {
        match &mut self.0 {
            Some(reader) if !reader.is_complete() => reader.poll(Duration::from_millis(5), each),
            _ => Ok(0),
        }
    }
}

/// Follows the topics.
pub(super) struct Follower {
    audit: Audit,
    admin: Admin,
    topics: Topics,
    margin: Duration,
    zones: TopicReader,
    telemetry: TopicReader,
    enriched: TopicReader,
    letters: Option<TopicReader>,
    round: Option<Round>,
    last_round: MonoTime,
}

/// Commits, and how far to read until they can be judged.
struct Round {
    asked_at: EventTime,
    committed: Vec<(PartitionId, Offset)>,
    zones: Ranges,
    enriched: Ranges,
    letters: Ranges,
}

impl Round {
    fn ask(admin: &Admin, topics: &Topics) -> Result<Self, EdgeError> {
        let committed = committed(admin, &topics.telemetry)?;
        let asked_at = Clock::wall();
        Ok(Self {
            asked_at,
            committed,
            zones: ranges(admin, &topics.zones)?,
            enriched: output_ranges(admin, &topics.enriched)?,
            letters: match &topics.dead_letter {
                Some(topic) => output_ranges(admin, topic)?,
                None => Vec::new(),
            },
        })
    }
}

fn has_read(reader: &TopicReader, ends: &Ranges) -> bool {
    let positions: &BTreeMap<PartitionId, Offset> = reader.positions();
    ends.iter().all(|(id, range)| {
        range.from == range.to || positions.get(id).is_some_and(|at| *at >= range.to)
    })
}

impl Follower {
    /// Starts at the beginning of all topics.
    ///
    /// # Errors
    /// A topic is missing, or the cluster does not answer.
    pub(super) fn start(
        settings: &Settings,
        topics: Topics,
        rules: Rules,
        margin: Duration,
    ) -> Result<Self, EdgeError> {
        let admin = Admin::new(settings, PATIENCE)?;
        let follow = |topic: &str| {
            let starts: Vec<_> = ranges(&admin, topic)?
                .into_iter()
                .map(|(id, range)| (id, range.from))
                .collect();
            TopicReader::following(settings, topic, &starts)
        };
        Ok(Self {
            audit: Audit::new(rules),
            margin,
            zones: follow(&topics.zones)?,
            telemetry: follow(&topics.telemetry)?,
            enriched: follow(&topics.enriched)?,
            letters: topics.dead_letter.as_deref().map(follow).transpose()?,
            round: None,
            last_round: Clock::mono(),
            topics,
            admin,
        })
    }

    /// Reads what there is, and judges what can be.
    ///
    /// # Errors
    /// A topic cannot be read.
    pub(super) fn turn(&mut self) -> Result<(), EdgeError> {
        let now = Clock::mono();
        if self.round.is_none() && now.since(self.last_round) >= ROUND_INTERVAL {
            // An answer that does not come is asked for again: the audit only waits.
            self.round = Round::ask(&self.admin, &self.topics).ok();
            self.last_round = Clock::mono();
        }
        let read = self.read(Duration::ZERO)?;
        self.settle();
        if read == 0 {
            let audit = &mut self.audit;
            self.zones
                .poll(Duration::from_millis(10), |record| audit.zone(record))?;
        }
        Ok(())
    }

    fn read(&mut self, wait: Duration) -> Result<usize, EdgeError> {
        let backlog = self.audit.backlog();
        let audit = &mut self.audit;
        let mut read = self.zones.poll(wait, |record| audit.zone(record))?;
        if backlog.outputs_ahead < OUTPUTS_AHEAD_MAX && backlog.waiting < WAITING_MAX {
            read += self
                .enriched
                .poll(Duration::ZERO, |record| audit.enriched(record))?;
            if let Some(letters) = &mut self.letters {
                read += letters.poll(Duration::ZERO, |record| audit.dead_letter(record))?;
            }
        }
        if backlog.telemetry_ahead < TELEMETRY_AHEAD_MAX || backlog.outputs_ahead > 0 {
            read += self
                .telemetry
                .poll(Duration::ZERO, |record| audit.telemetry(record))?;
        }
        Ok(read)
    }

    fn settle(&mut self) {
        let Some(round) = &self.round else { return };
        if has_read(&self.zones, &round.zones) {
            self.audit.zones_settled(round.asked_at.minus(self.margin));
        }
        let outputs_read = has_read(&self.enriched, &round.enriched)
            && self
                .letters
                .as_ref()
                .is_none_or(|letters| has_read(letters, &round.letters));
        if outputs_read && has_read(&self.zones, &round.zones) {
            for (partition, offset) in &round.committed {
                self.audit.settled(*partition, *offset);
            }
            self.audit.forget(HISTORY);
            self.round = None;
        }
    }

    /// What was found so far.
    pub(super) fn report(&self) -> Report {
        self.audit.report()
    }

    /// Reads to the ends that the topics have now, and judges all.
    ///
    /// # Errors
    /// A topic cannot be read, or not to its end.
    pub(super) fn finish(mut self) -> Result<Report, EdgeError> {
        let round = Round::ask(&self.admin, &self.topics)?;
        let telemetry = ranges(&self.admin, &self.topics.telemetry)?;
        let mut quiet_since = Clock::mono();
        // The zones are read first: what waits for them is then judged as it comes.
        while !has_read(&self.zones, &round.zones) {
            let audit = &mut self.audit;
            let wait = Duration::from_millis(10);
            if self.zones.poll(wait, |record| audit.zone(record))? > 0 {
                quiet_since = Clock::mono();
            }
            patience(quiet_since)?;
        }
        self.audit.zones_settled(EventTime::MAX);
        let committed = round.committed.clone();
        let done = |follower: &Self| {
            has_read(&follower.telemetry, &telemetry)
                && has_read(&follower.enriched, &round.enriched)
                && follower
                    .letters
                    .as_ref()
                    .is_none_or(|letters| has_read(letters, &round.letters))
        };
        while !done(&self) {
            if self.read(Duration::from_millis(5))? > 0 {
                quiet_since = Clock::mono();
            }
            patience(quiet_since)?;
        }
        for (partition, offset) in committed {
            self.audit.settled(partition, offset);
        }
        Ok(self.audit.finish())
    }
}

fn patience(quiet_since: MonoTime) -> Result<(), EdgeError> {
    if Clock::mono().since(quiet_since) > PATIENCE {
        return Err(EdgeError::TimedOut(
            "read the topics to their ends".to_owned(),
        ));
    }
    Ok(())
}

/// Ends a follower when asked to: for whoever runs one in a thread of its own.
///
/// # Errors
/// As for [`Follower::turn`] and [`Follower::finish`].
pub(super) fn follow_until(
    mut follower: Follower,
    stop: &Shutdown,
    mut watch: impl FnMut(&Follower),
) -> Result<Report, EdgeError> {
    while !stop.is_requested() {
        follower.turn()?;
        watch(&follower);
    }
    follower.finish()
}
