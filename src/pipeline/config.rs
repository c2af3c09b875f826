//! What the engine must be told: plain values, put together by `run` from the configuration and from what the cluster
//! says of its topics.

use crate::codec::headers::HeaderForm;
use crate::codec::telemetry::Fields;
use crate::pipeline::at::AtRules;
use crate::pipeline::breaker::BreakerRules;
use crate::pipeline::flow::Limits;
use crate::pipeline::partitioning::Partitioning;

/// `telemetry.on_invalid`: what becomes of a record that cannot be read.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum OnInvalid {
    /// It is dead-lettered.
    DeadLetter,
    /// It goes to the enriched topic unchanged, flagged `invalid`.
    Forward,
    /// It is counted and dropped.
    Drop,
}

/// What one engine is told.
#[derive(Clone, Debug)]
pub struct PipelineConfig {
    /// The telemetry fields, compiled.
    pub fields: Fields,
    /// How `at` is chosen.
    pub at: AtRules,
    /// `telemetry.on_invalid`.
    pub on_invalid: OnInvalid,
    /// `enriched.headers` and `enriched.header_form`; `None` = off.
    pub headers: Option<HeaderForm>,
    /// `telemetry.topic`, for the headers of dead letters.
    pub telemetry_topic: Box<str>,
    /// Where outputs go.
    pub partitioning: Partitioning,
    /// The largest record that the enriched topic takes (`max.message.bytes`).
    pub enriched_max_bytes: usize,
    /// The largest record that the dead-letter topic takes; `None` = there is no such topic.
    pub dead_letter_max_bytes: Option<usize>,
    /// The sink sends each output in a request of its own from the start: see [`Sending`](super::Sending).
    pub one_by_one: bool,
    /// When a partition is held rather than dead-lettered.
    pub breaker: BreakerRules,
    /// The bounds of the queues.
    pub limits: Limits,
}

impl PipelineConfig {
    /// The defaults of INTERFACE.md for these fields.
    #[must_use]
    pub fn new(fields: Fields, telemetry_topic: &str) -> Self {
        Self {
            fields,
            at: AtRules::default(),
            on_invalid: OnInvalid::DeadLetter,
            headers: Some(HeaderForm::Several),
            telemetry_topic: telemetry_topic.into(),
            partitioning: Partitioning::Same,
            enriched_max_bytes: 2 * 1_048_576,
            dead_letter_max_bytes: Some(2 * 1_048_576),
            one_by_one: false,
            breaker: BreakerRules::default(),
            limits: Limits::default(),
        }
    }

    /// The breaker's rules; what is forwarded or dropped by rule drains nothing into the dead letters.
    pub(super) fn breaker_in_force(&self) -> BreakerRules {
        match self.on_invalid {
            OnInvalid::DeadLetter => self.breaker,
            OnInvalid::Forward | OnInvalid::Drop => BreakerRules {
                percent: 0,
                ..self.breaker
            },
        }
    }
}
