//! `completions SHELL`: a completion script on stdout.

use super::{Context, Failure, Outcome};

/// Arguments of `completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  ringfence completions bash > /etc/bash_completion.d/ringfence")]
pub struct Args {
    /// The shell.
    shell: clap_complete::Shell,
}

/// Prints the script.
///
/// # Errors
/// If the script is not text.
pub fn run(args: &Args, context: &Context) -> Result<Outcome, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::command(), "ringfence", &mut script);
    let script = String::from_utf8(script)
        .map_err(|fault| Failure::failed("the script is no text", fault))?;
    context.report(script.trim_end());
    Ok(Outcome::Done)
}
