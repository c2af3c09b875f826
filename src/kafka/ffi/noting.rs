//! For tests: a producer whose reports are noted.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::ProducerContext;

use super::{Headers, Report, ReportingProducer, Reports};
use crate::clock::Clock;
use crate::kafka::client::create;
use crate::partition::PartitionId;

/// What a report said.
pub(super) struct Noted {
    pub(super) opaque: usize,
    pub(super) partition: PartitionId,
    pub(super) error: Option<RDKafkaErrorCode>,
    pub(super) topic: String,
    pub(super) headers: Option<Headers>,
}

pub(super) type AllNoted = Arc<Mutex<Vec<Noted>>>;

#[derive(Default)]
pub(super) struct Noting(AllNoted);

impl ClientContext for Noting {}

impl ProducerContext for Noting {
    type DeliveryOpaque = usize;

    fn delivery(&self, _: &DeliveryResult<'_>, opaque: usize) {
        panic!("the crate served the report of {opaque}");
    }
}

impl Reports for Noting {
    fn delivered<'e>(&self, reports: impl ExactSizeIterator<Item = Report<'e>>) {
        let noted = reports.map(|report| Noted {
            opaque: report.opaque(),
            partition: report.partition(),
            error: report.error(),
            topic: report.topic(),
            headers: report.take_headers(),
        });
        self.0.lock().unwrap().extend(noted);
    }
}

/// A producer with these settings, and what its reports said.
pub(super) fn noting(config: &ClientConfig) -> (ReportingProducer<Noting>, AllNoted) {
    let context = Noting::default();
    let noted = Arc::clone(&context.0);
    (
        ReportingProducer::new(create(config, context).unwrap()),
        noted,
    )
}

/// Serves reports until so many are noted.
pub(super) fn wait_for(producer: &mut ReportingProducer<Noting>, noted: &AllNoted, count: usize) {
    let begun = Clock::instant();
    while noted.lock().unwrap().len() < count {
        producer.serve();
        assert!(begun.elapsed() < Duration::from_secs(30), "{count} reports");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}
