//! The metrics: each name, type, unit and label set is declared once, in [`METRICS`]; the README's table is rendered
//! from it. Labels come from closed sets, topic and partition only, never from an id. The crate's own macros are banned
//! elsewhere (`.clippy.toml`). Gauges that are not set again within [`GAUGE_IDLE`] vanish: so the series of a revoked
//! partition do not stand still for ever, and what lives is set again every second.

use std::fmt::Write as _;
use std::time::Duration;

use metrics::{Label, Level, Metadata, Unit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;

/// A gauge that is not set for so long is no longer shown.
pub const GAUGE_IDLE: Duration = Duration::from_secs(30);

/// What kind of series a metric is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Goes both ways.
    Gauge,
    /// Observations in these buckets (upper bounds).
    Histogram(Buckets),
}

/// The upper bounds of a histogram.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Buckets {
    /// Milliseconds, 0.05 to 10,000.
    Millis,
    /// Seconds, 1 ms to 60 s.
    Seconds,
    /// Seconds, 1 µs to 100 ms: work, not waiting.
    WorkSeconds,
}

impl Buckets {
    const fn bounds(self) -> &'static [f64] {
        match self {
            Self::Millis => &[
                0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 1_000.0,
                10_000.0,
            ],
            Self::Seconds => &[
                0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0,
            ],
            Self::WorkSeconds => &[
                1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 1e-3, 1e-2, 1e-1,
            ],
        }
    }
}

/// One metric.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Metric {
    /// The full name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it tells.
    pub help: &'static str,
}

/// Declares the metrics once: a constant each, and the table of all.
macro_rules! metrics {
    ($($constant:ident = $name:literal, $kind:expr, [$($label:literal),*], $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $constant: Metric =
                Metric { name: concat!("ringfence_", $name), kind: $kind, labels: &[$($label),*], help: $help };
        )*

        /// Every metric there is.
        pub const METRICS: &[Metric] = &[$($constant,)*];
    };
}

metrics! {
    INDEX_SWAP_LATENCY = "index_swap_latency_ms", Kind::Histogram(Buckets::Millis), [],
        "from the begin of a promotion's build to its publishing";
    STAGING_QUEUE_DEPTH = "staging_queue_depth", Kind::Gauge, [], "zone changes read and not yet built";
    ACTIVE_SNAPSHOTS = "active_snapshots", Kind::Gauge, [], "snapshot indexes in memory, the published one included";
    SNAPSHOT_RECLAIM_DURATION = "snapshot_reclaim_duration_ms", Kind::Histogram(Buckets::Millis), [],
        "from the retiring of a snapshot to its memory being freed";
    ZONE_VISIBLE_DELAY = "zone_visible_delay_seconds", Kind::Histogram(Buckets::Seconds), [],
        "from a zone change's commit time to its being published";
    WATERMARK = "watermark_timestamp_seconds", Kind::Gauge, ["partition"],
        "the watermark of each zone partition: no change with an earlier commit time is to come";
    GATE_HELD = "gate_held", Kind::Gauge, ["partition"], "1 where this zone partition holds back the gate";
    LOW_WATERMARK = "low_watermark_timestamp_seconds", Kind::Gauge, [], "the least of all watermarks";
    AS_OF = "as_of_timestamp_seconds", Kind::Gauge, [], "up to this instant everything is in the published index";
    FLOOR = "floor_timestamp_seconds", Kind::Gauge, [], "from this instant on answers are exact";
    SETTLE_MARGIN = "settle_margin_seconds", Kind::Gauge, [], "the margin in force; it grows after a violation";
    EPOCH = "epoch", Kind::Gauge, [], "the published index's number; local to a process";
    ZONES = "zones", Kind::Gauge, [], "zones in the published index";
    RECORDS_CONSUMED = "records_consumed_total", Kind::Counter, [],
        "events read; the sum of the enriched, dead-lettered, dropped, forwarded, released, held and in-flight ones";
    RECORDS_ENRICHED = "records_enriched_total", Kind::Counter, [], "events enriched and acknowledged";
    RECORDS_DEAD_LETTERED = "records_dead_lettered_total", Kind::Counter, ["reason"],
        "events refused, in the dead-letter topic and acknowledged";
    RECORDS_DROPPED = "records_dropped_total", Kind::Counter, ["reason"], "events dropped by `telemetry.on_invalid`";
    RECORDS_FORWARDED = "records_forwarded_total", Kind::Counter, [],
        "invalid events passed on as they came, by `telemetry.on_invalid`";
    RECORDS_RELEASED = "records_released_total", Kind::Counter, [],
        "events given back unfinished when their partition was revoked; its next owner reads them";
    RECORDS_HELD = "records_held", Kind::Gauge, [], "events waiting for their instant to settle";
    RECORDS_IN_FLIGHT = "records_in_flight", Kind::Gauge, [], "outputs sent and not yet acknowledged";
    RECORDS_FLAGGED = "records_flagged_total", Kind::Counter, ["flag"], "outputs by flag";
    END_TO_END_LATENCY = "end_to_end_latency_seconds", Kind::Histogram(Buckets::Seconds), [],
        "from a record's Kafka timestamp (copied to its output) to the acknowledgement; one record in 64 is observed";
    MATCH_DURATION = "match_duration_seconds", Kind::Histogram(Buckets::WorkSeconds), [],
        "time per event to decode, match and encode, averaged over a batch; one event in 64 is observed";
    CONSUMER_LAG = "consumer_lag_records", Kind::Gauge, ["topic", "partition"],
        "records up to the log end that are not finished (zones: not read); 0 once the partition is another process's";
    PARTITIONS_PAUSED = "partitions_paused", Kind::Gauge, ["cause"], "partitions paused, by cause";
    DEAD_LETTER_BREAKER_OPENED = "dead_letter_breaker_opened_total", Kind::Counter, [],
        "times that a partition was held as most of its records were invalid; `partitions_paused{cause=\"invalid\"}` says how many are";
    ZONE_CHANGES = "zone_changes_total", Kind::Counter, ["result"], "zone changes read: applied, rejected or late";
    GATE_VIOLATIONS = "gate_violations_total", Kind::Counter, [],
        "zone changes read with a commit time at or below as_of: the margin was too small";
    GATE_VIOLATION_LATENESS = "gate_violation_lateness_seconds", Kind::Histogram(Buckets::Seconds), [],
        "how far below as_of such a change lay";
    ZONES_REJECTED = "zones_rejected", Kind::Gauge, [], "zones whose newest change was rejected";
    EFFECTIVE_AT_CLIPPED = "effective_at_clipped_total", Kind::Counter, [],
        "zone changes whose effective_at lay before their commit time";
    ZONE_VERSION_REGRESSIONS = "zone_version_regressions_total", Kind::Counter, [],
        "zone changes whose version did not rise (applied all the same)";
    TRANSACTIONS = "transactions_total", Kind::Counter, ["result"],
        "transactions of `exactly_once` that were committed or aborted";
    CLOCK_DIFFERENCE = "clock_difference_seconds", Kind::Gauge, [],
        "our time less the newest broker stamp of the zones topic when that was read; below zero our clock is behind";
    CLOCK_STEPS = "clock_steps_total", Kind::Counter, [],
        "steps of this host's clock, in either direction; forward ones are not believed at once";
    BUILD_INFO = "build_info", Kind::Gauge, ["version", "librdkafka"], "1, with the versions as labels";
}

/// A label's value: a word of a closed set, a topic or a partition.
pub type LabelValue = String;

impl Metric {
    fn labels(&self, values: &[LabelValue]) -> Vec<Label> {
        assert_eq!(
            values.len(),
            self.labels.len(),
            "`{}` has the labels {:?}",
            self.name,
            self.labels
        );
        self.labels
            .iter()
            .zip(values)
            .map(|(name, value)| Label::new(*name, value.clone()))
            .collect()
    }

    fn key(&self, values: &[LabelValue]) -> metrics::Key {
        metrics::Key::from_parts(self.name, self.labels(values))
    }

    /// A handle to count with; keep it where it is used often.
    ///
    /// # Panics
    /// If the labels are not those of the metric, or it is no counter: bugs.
    pub fn counter(&self, values: &[LabelValue]) -> metrics::Counter {
        assert_eq!(self.kind, Kind::Counter, "`{}` is no counter", self.name);
        metrics::with_recorder(|recorder| recorder.register_counter(&self.key(values), &METADATA))
    }

    /// A handle to set with; take it anew each time, so that it counts as alive.
    ///
    /// # Panics
    /// If the labels are not those of the metric, or it is no gauge: bugs.
    pub fn gauge(&self, values: &[LabelValue]) -> metrics::Gauge {
        assert_eq!(self.kind, Kind::Gauge, "`{}` is no gauge", self.name);
        metrics::with_recorder(|recorder| recorder.register_gauge(&self.key(values), &METADATA))
    }

    /// A handle to observe with; keep it where it is used often. `record_many` takes a whole batch at once.
    ///
    /// # Panics
    /// If the metric has labels or is no histogram: bugs.
    pub fn histogram(&self) -> metrics::Histogram {
        assert!(
            matches!(self.kind, Kind::Histogram(_)),
            "`{}` is no histogram",
            self.name
        );
        metrics::with_recorder(|recorder| recorder.register_histogram(&self.key(&[]), &METADATA))
    }
}

/// One event in so many is observed by the histograms of events: each sample is kept until the next scrape, which costs more
/// than a look-up where it is done for every event.
pub const OBSERVED_EVERY: usize = 64;

static METADATA: Metadata<'static> = Metadata::new("ringfence", Level::INFO, None);

/// Renders what was recorded.
#[derive(Clone)]
pub struct Exporter {
    handle: PrometheusHandle,
    librdkafka: String,
}

/// How `/metrics` may be written.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text, version 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The format that an `Accept` header asks for.
    #[must_use]
    pub fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }

    /// Its `Content-Type`.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

fn builder() -> PrometheusBuilder {
    let mut builder =
        PrometheusBuilder::new().idle_timeout(MetricKindMask::GAUGE, Some(GAUGE_IDLE));
    for metric in METRICS {
        if let Kind::Histogram(buckets) = metric.kind {
            builder = builder
                .set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets.bounds())
                .expect("every histogram has buckets");
        }
    }
    builder
}

fn describe(recorder: &dyn metrics::Recorder) {
    for metric in METRICS {
        let (name, help) = (metric.name.into(), metric.help.into());
        let unit = metric.name.ends_with("_seconds").then_some(Unit::Seconds);
        match metric.kind {
            Kind::Counter => recorder.describe_counter(name, unit, help),
            Kind::Gauge => recorder.describe_gauge(name, unit, help),
            Kind::Histogram(_) => recorder.describe_histogram(name, unit, help),
        }
    }
}

/// Starts recording for the process; `librdkafka` is the client library's version, for `build_info`.
///
/// # Errors
/// If something records already.
pub fn install(librdkafka: &str) -> Result<Exporter, String> {
    let recorder = builder().build_recorder();
    let handle = recorder.handle();
    describe(&recorder);
    metrics::set_global_recorder(recorder).map_err(|fault| fault.to_string())?;
    Ok(Exporter {
        handle,
        librdkafka: librdkafka.to_owned(),
    })
}

impl Exporter {
    /// Moves observations into their buckets; call it every few seconds, or they pile up between scrapes.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// Everything recorded.
    #[must_use]
    pub fn render(&self, format: Format) -> String {
        BUILD_INFO
            .gauge(&[
                env!("CARGO_PKG_VERSION").to_owned(),
                self.librdkafka.clone(),
            ])
            .set(1.0);
        let text = self.handle.render();
        match format {
            Format::Text => text,
            Format::OpenMetrics => open_metrics(&text),
        }
    }
}

/// OpenMetrics names a counter's family without `_total`, and ends with `# EOF`.
fn open_metrics(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for line in text.lines().filter(|line| !line.is_empty()) {
        let family = line
            .strip_prefix("# HELP ")
            .or_else(|| line.strip_prefix("# TYPE "));
        match family
            .and_then(|family| family.split_once(' '))
            .and_then(|(name, _)| name.strip_suffix("_total"))
        {
            Some(stem) => {
                let (head, rest) = line.split_at(7 + stem.len());
                out.push_str(head);
                out.push_str(rest.strip_prefix("_total").unwrap_or(rest));
            }
            None => out.push_str(line),
        }
        out.push('\n');
    }
    out.push_str("# EOF\n");
    out
}

/// The README's table of metrics.
#[must_use]
pub fn readme_table() -> String {
    let mut out = String::from("| metric | type | labels | what it tells |\n|---|---|---|---|\n");
    for metric in METRICS {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        let labels: Vec<String> = metric
            .labels
            .iter()
            .map(|label| format!("`{label}`"))
            .collect();
        let _ = writeln!(
            out,
            "| `{}` | {kind} | {} | {} |",
            metric.name,
            labels.join(", "),
            metric.help
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules() {
        for metric in METRICS {
            assert_eq!(
                metric.kind == Kind::Counter,
                metric.name.ends_with("_total"),
                "{}",
                metric.name
            );
            assert!(
                metric
                    .name
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b == b'_'),
                "{}",
                metric.name
            );
            assert!(!metric.help.is_empty());
        }
        let mut names: Vec<_> = METRICS.iter().map(|metric| metric.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), METRICS.len());
    }

    #[test]
    fn both_formats_show_what_was_recorded() {
        let recorder = builder().build_recorder();
        describe(&recorder);
        let exporter = Exporter {
            handle: recorder.handle(),
            librdkafka: "2.12.1".to_owned(),
        };
        metrics::with_local_recorder(&recorder, || {
            RECORDS_DEAD_LETTERED
                .counter(&["not_json".to_owned()])
                .increment(3);
            GATE_HELD.gauge(&["2".to_owned()]).set(1.0);
            INDEX_SWAP_LATENCY.histogram().record(0.2);
            let text = exporter.render(Format::Text);
            for line in [
                "# TYPE ringfence_records_dead_lettered_total counter",
                "ringfence_records_dead_lettered_total{reason=\"not_json\"} 3",
                "ringfence_gate_held{partition=\"2\"} 1",
                "ringfence_index_swap_latency_ms_bucket{le=\"0.1\"} 0",
                "ringfence_index_swap_latency_ms_bucket{le=\"0.25\"} 1",
                "librdkafka=\"2.12.1\"} 1",
            ] {
                assert!(text.contains(line), "{line}\n{text}");
            }
            let open = exporter.render(Format::OpenMetrics);
            assert!(
                open.contains("# TYPE ringfence_records_dead_lettered counter\n"),
                "{open}"
            );
            assert!(
                open.contains("\nringfence_records_dead_lettered_total{reason=\"not_json\"} 3\n"),
                "{open}"
            );
            assert!(open.ends_with("\n# EOF\n"));
        });
    }

    #[test]
    #[should_panic(expected = "has the labels")]
    fn labels_that_are_not_declared_are_a_bug() {
        let _ = GATE_HELD.gauge(&[]);
    }
}
