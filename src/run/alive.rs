//! When a loop counts as standing still (`/livez`): pure.

use std::time::Duration;

use crate::time::MonoTime;

/// A loop that has not turned for so long stands still (FS-06). Above the drain of a revoke and what a call of the
/// client may take.
pub(super) const STANDS_STILL_AFTER: Duration = Duration::from_secs(60);
/// The clients of a worker that has ended close within this time, however its brokers behave: several of their requests'
/// time-outs (`socket.timeout.ms`, a minute). One that never does holds partitions that nobody reads.
const CLOSED_AFTER: Duration = Duration::from_secs(300);

/// Whether a loop that has turned has not for so long.
pub(super) fn is_silent(beat: MonoTime, now: MonoTime, limit: Duration) -> bool {
    beat.micros() > 0 && now.since(beat) > limit
}

/// How a worker stands still, if it does.
pub(super) fn stalled(beat: MonoTime, is_ending: bool, now: MonoTime) -> Result<(), &'static str> {
    let (limit, how) = if is_ending {
        (CLOSED_AFTER, "has ended and its clients do not close")
    } else {
        (STANDS_STILL_AFTER, "stands still")
    };
    if is_silent(beat, now, limit) {
        Err(how)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fs_06_fs_80_a_worker_stands_still_after_a_minute_and_one_that_ends_may_wait_for_its_brokers()
    {
        let begun = MonoTime::from_micros(1);
        let judged = |is_ending, seconds| {
            stalled(begun, is_ending, begun.plus(Duration::from_secs(seconds))).err()
        };
        assert_eq!(judged(false, 60), None);
        assert_eq!(judged(false, 61), Some("stands still"));
        assert_eq!(judged(true, 61), None);
        assert_eq!(judged(true, 300), None);
        assert_eq!(
            judged(true, 301),
            Some("has ended and its clients do not close")
        );
        let never = stalled(
            MonoTime::default(),
            false,
            begun.plus(Duration::from_secs(9_999)),
        );
        assert_eq!(never, Ok(()), "it has not begun, or is made anew");
    }
}
