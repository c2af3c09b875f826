//! `config show`, `config schema`, `config file`: what holds and where it came from, and what there is to set.

use clap::Subcommand;
use serde_json::json;

use super::{Context, Failure, Outcome};
use crate::config::render;

/// Arguments of `config`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  ringfence -c ringfence.toml config show")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The effective configuration, secrets redacted, with where each value came from.
    #[command(after_help = "Example:\n  ringfence -c ringfence.toml config show")]
    Show,
    /// JSON Schema of the file.
    #[command(after_help = "Example:\n  ringfence config schema > ringfence.schema.json")]
    Schema,
    /// A file with every key, its default and what it does.
    #[command(after_help = "Example:\n  ringfence config file > ringfence.toml")]
    File,
}

/// Prints it.
///
/// # Errors
/// A wrong configuration, for `show`.
pub fn run(args: &Args, context: &Context) -> Result<Outcome, Failure> {
    match args.what {
        What::Show => {
            let loaded = context.load()?;
            if context.json {
                let settings = loaded.settings.iter().map(|setting| {
                    json!({ "key": setting.name, "value": setting.value, "origin": setting.origin.to_string() })
                });
                context.report_json(&settings.collect());
            } else {
                context.report(render::effective(&loaded.settings).trim_end());
            }
        }
        What::Schema => context.report(format_args!("{:#}", render::schema())),
        What::File => context.report(render::file().trim_end()),
    }
    Ok(Outcome::Done)
}
