//! `ringfence run`: the daemon.

use super::{Context, Failure, Outcome};
use crate::run;

/// Runs the daemon: reads zones and telemetry, writes the enriched topic, until SIGTERM or SIGINT.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  ringfence -c ringfence.toml run")]
pub struct Args {}

/// Runs it.
///
/// # Errors
/// The configuration, or why it could not start or go on.
pub fn run(_: &Args, context: &Context) -> Result<Outcome, Failure> {
    let config = context.kafka_config()?;
    run::run(&config, &run::Handle::new()).map_err(|error| Failure::Failed(error.to_string()))?;
    Ok(Outcome::Done)
}
