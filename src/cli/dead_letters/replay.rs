//! `dead-letters replay`: the refused records go back to their topics as they were: key, value, timestamp, and the
//! headers that they came with. All letters are judged before the first is written.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use super::letter::{Letter, original_headers};
use super::{Filter, Letters, Tally};
use crate::cli::{Context, Failure, Outcome, existing_topic};
use crate::clock::Clock;
use crate::enriched::output_timestamp;
use crate::kafka::EdgeError;
use crate::kafka::admin::Admin;
use crate::kafka::writer::{Outgoing, Receipt, TopicWriter};
use crate::telemetry::RecordRef;
use crate::time::EventTime;

/// How many failures are named.
const NAMED: usize = 10;

/// Arguments of `dead-letters replay`.
#[derive(Debug, clap::Args)]
pub(super) struct ReplayArgs {
    #[command(flatten)]
    filter: Filter,
    /// Write to this topic, by key, instead of the topic and partition of each record.
    #[arg(long, value_name = "TOPIC")]
    to: Option<String>,
    /// Write the records whose value was cut as they stand, cut.
    #[arg(long, conflicts_with = "skip_truncated")]
    include_truncated: bool,
    /// Leave the records out that were cut, instead of writing none.
    #[arg(long)]
    skip_truncated: bool,
    /// Say what would be done, do nothing.
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(
    args: &ReplayArgs,
    letters: &Letters<'_>,
    admin: &Admin,
    context: &Context,
) -> Result<Outcome, Failure> {
    let failed = |why: EdgeError| Failure::failed("dead-letters replay", why);
    if args.to.as_deref() == Some(letters.topic) {
        return Err(Failure::Usage(
            "`--to` is the dead-letter topic itself".to_owned(),
        ));
    }
    let mut targets: BTreeMap<String, usize> = BTreeMap::new();
    let tally = letters
        .read(&args.filter, |letter, _| {
            let target = args.to.as_deref().unwrap_or(letter.topic);
            if !targets.contains_key(target) {
                targets.insert(target.to_owned(), 0);
            }
        })
        .map_err(failed)?;
    // A record that is cut would be another record; one that is bare is none at all.
    let refused = match (args.skip_truncated, args.include_truncated) {
        (true, _) => 0,
        (false, true) => tally.bare,
        (false, false) => tally.cut + tally.bare,
    };
    if refused > 0 {
        return Err(Failure::Failed(format!(
            "{refused} records are not whole in their letters, so nothing was written; `--skip-truncated` leaves them \
             out{}",
            if tally.cut > 0 {
                ", `--include-truncated` writes those with a part of their value"
            } else {
                ""
            }
        )));
    }
    for (target, partitions) in &mut targets {
        *partitions = existing_topic(admin, target)?.ids().len();
    }
    let mut run = Replay {
        args,
        targets,
        writer: TopicWriter::new(letters.settings).map_err(failed)?,
        progress: context.progress(tally.letters, "writing"),
        done: Done::default(),
        broken: None,
    };
    letters
        .read(&args.filter, |letter, record| run.write(letter, record))
        .map_err(failed)?;
    run.finish();
    if let Some(error) = run.broken {
        return Err(failed(error));
    }
    Ok(run.done.tell(&tally, args, &run.targets, context))
}

/// What became of the records.
#[derive(Debug, Default)]
struct Done {
    written: u64,
    skipped: u64,
    failed: u64,
    /// The first few, by cause.
    named: Vec<String>,
}

struct Replay<'a> {
    args: &'a ReplayArgs,
    /// Topics with their partition counts.
    targets: BTreeMap<String, usize>,
    writer: TopicWriter,
    progress: indicatif::ProgressBar,
    done: Done,
    /// Why nothing more is written.
    broken: Option<EdgeError>,
}

impl Replay<'_> {
    fn write(&mut self, letter: &Letter<'_>, record: &RecordRef<'_>) {
        if letter.is_bare() || (letter.is_cut() && !self.args.include_truncated) {
            self.done.skipped += 1;
            return;
        }
        if self.args.dry_run {
            self.done.written += 1;
            return;
        }
        if self.broken.is_some() {
            return;
        }
        let target = self.args.to.as_deref().unwrap_or(letter.topic);
        // Its own partition, so that the events of its entity, or the changes of its zone, stay together.
        let partition = letter.position.partition;
        let is_there = self
            .targets
            .get(target)
            .is_some_and(|count| (partition.0 as usize) < *count);
        let headers = original_headers(record);
        let outgoing = Outgoing {
            topic: target,
            partition: (self.args.to.is_none() && is_there).then_some(partition),
            key: record.key,
            value: record.value,
            timestamp: output_timestamp(letter.timestamp, Clock::wall()).map(EventTime::millis),
            headers: &headers,
        };
        loop {
            match self.writer.send(&outgoing, 0) {
                Ok(true) => break,
                Ok(false) => {
                    let receipt = self.writer.receipt(Duration::from_millis(100));
                    receipt.into_iter().for_each(|receipt| self.take(receipt));
                }
                // The client knows that it is too large; or no such topic any more.
                Err(error) => {
                    self.broken = Some(error);
                    return;
                }
            }
        }
        let receipts: Vec<Receipt> = self.writer.receipts().collect();
        receipts.into_iter().for_each(|receipt| self.take(receipt));
    }

    fn take(&mut self, receipt: Receipt) {
        self.progress.inc(1);
        match receipt.outcome {
            Ok(_) => self.done.written += 1,
            Err(error) => {
                self.done.failed += 1;
                if self.done.named.len() < NAMED {
                    self.done.named.push(error.to_string());
                }
            }
        }
    }

    fn finish(&mut self) {
        while self.writer.in_flight() > 0 {
            let receipt = self.writer.receipt(Duration::from_millis(100));
            receipt.into_iter().for_each(|receipt| self.take(receipt));
        }
        let receipts: Vec<Receipt> = self.writer.receipts().collect();
        receipts.into_iter().for_each(|receipt| self.take(receipt));
        self.progress.finish_and_clear();
    }
}

impl Done {
    fn tell(
        &self,
        tally: &Tally,
        args: &ReplayArgs,
        targets: &BTreeMap<String, usize>,
        context: &Context,
    ) -> Outcome {
        if context.json {
            context.report_json(&json!({
                "dry_run": args.dry_run,
                "letters": tally.letters,
                "written": self.written,
                "skipped": self.skipped,
                "failed": self.failed,
                "duplicates": tally.duplicates,
                "by_reason": tally.by_reason,
                "topics": targets.keys().collect::<Vec<_>>(),
            }));
        } else {
            let topics: Vec<String> = targets.keys().map(|name| format!("`{name}`")).collect();
            let what = if args.dry_run {
                "would replay"
            } else {
                "replayed"
            };
            let to = if topics.is_empty() {
                String::new()
            } else {
                format!(" to {}", topics.join(", "))
            };
            context.report(format_args!("{what} {} records{to}", self.written));
        }
        context.note(tally.told());
        if self.failed > 0 {
            context.note(format_args!(
                "{} were not written: {}",
                self.failed,
                self.named.join(", ")
            ));
            return Outcome::Found;
        }
        Outcome::Done
    }
}
