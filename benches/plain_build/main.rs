//! The plain build that `end_to_end` is held against, as a program of its own: what is linked into it, its allocator too,
//! is what its user would have. Started by `end_to_end`; alone it does nothing.

#![allow(
    clippy::disallowed_methods,
    reason = "a benchmark reads the clock and paces its load"
)]

#[path = "../support/mod.rs"]
mod support;

mod drain;
#[path = "../end_to_end/job.rs"]
#[expect(dead_code, reason = "it uses a part")]
mod job;
#[path = "../end_to_end/topics.rs"]
#[expect(dead_code, reason = "it uses a part")]
mod topics;
#[path = "../end_to_end/watch.rs"]
#[expect(dead_code, reason = "it uses a part")]
mod watch;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((way, rest)) if let Some(job) = job::Job::from_arguments(rest) => {
            job::end_by_panic();
            let with_headers = match way.as_str() {
                job::PLAIN => false,
                job::PLAIN_WITH_HEADERS => true,
                other => panic!("unknown way `{other}`"),
            };
            job::tell(drain::drain(&job, with_headers));
        }
        _ => support::measure::say("plain_build: skipped, `end_to_end` starts it"),
    }
}
