//! How each version stands in the tree, four bits a slot, copied on write by chunks.

use std::sync::Arc;

use crate::time::EventTime;

/// How a version stands.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Not in the tree.
    Away,
    /// In the tree; from when on it is in force is to be looked up. It has no end.
    Dated,
    /// In the tree, and has an end: when it is in force is to be looked up.
    Ended,
    /// In the tree, without an end, and in force from the begin of its cohort on.
    Settled(Cohort),
}

/// Which of the [`Cohorts`].
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cohort(u8);

/// The standings that are no cohort.
const OTHERS: u64 = 3;
/// As many cohorts as four bits can tell.
const COHORTS_MAX: usize = 16 - OTHERS as usize;
/// So many are made of what an index begins with; the rest is for what settles later.
const COHORTS_AT_FIRST: usize = 8;

/// Settled versions by when they began, so that a replay, which asks for instants long before the last change, still has most
/// zones without a look at their times: those that had all begun by then. With one begin for all of them it had none.
///
/// What settles while the index lives has the cohorts that are left, and the last of them from then on: where all zones have
/// changed since the index was built, a replay looks at the times of most again.
#[derive(Clone, Debug)]
pub(super) struct Cohorts {
    /// No version of a cohort begins after its own; ascending.
    begins: [EventTime; COHORTS_MAX],
    len: u8,
    /// So many were made of what an index began with.
    at_first: u8,
    /// Versions that came to the last one.
    in_last: usize,
}

impl Default for Cohorts {
    fn default() -> Self {
        Self {
            begins: [EventTime::MIN; COHORTS_MAX],
            len: 0,
            at_first: 0,
            in_last: 0,
        }
    }
}

impl Cohorts {
    /// For versions that begin then, which are to be added. The first half of them is a cohort, then the half of the rest, and
    /// so on: at any instant at most about as many had begun without being told so as had not begun.
    pub(super) fn of(mut begins: Vec<EventTime>) -> Self {
        begins.sort_unstable();
        let mut cohorts = Self::default();
        let mut rest = &*begins;
        while let Some(last) = rest.last() {
            let half = rest.len().div_ceil(2);
            let is_last = usize::from(cohorts.len) + 1 == COHORTS_AT_FIRST;
            let begin = if is_last { last } else { &rest[half - 1] };
            cohorts.push(*begin);
            rest = &rest[rest.partition_point(|of| of <= begin)..];
        }
        cohorts.at_first = cohorts.len;
        cohorts
    }

    /// Whether no version came to any.
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn push(&mut self, begin: EventTime) {
        self.begins[usize::from(self.len)] = begin;
        self.len += 1;
        self.in_last = 0;
    }

    fn begins(&self) -> &[EventTime] {
        &self.begins[..usize::from(self.len)]
    }

    /// The cohort of one more version that begins then, `versions` being all in the tree.
    pub(super) fn add(&mut self, begin: EventTime, versions: usize) -> Cohort {
        let len = usize::from(self.len);
        let cohort = self.begins().partition_point(|of| *of < begin);
        if cohort == len {
            // Later than all. A cohort that is large enough is left as it is, and so are the first ones, as long as there is
            // another.
            let is_whole = self.len == self.at_first
                || self.in_last >= versions / (COHORTS_MAX - COHORTS_AT_FIRST);
            if is_whole && len < COHORTS_MAX {
                self.push(begin);
            } else {
                self.begins[len - 1] = begin;
            }
        }
        let cohort = (cohort as u8).min(self.len - 1);
        self.in_last += usize::from(cohort == self.len - 1);
        Cohort(cohort)
    }

    /// Those of which all had begun then.
    pub(super) fn begun(&self, at: EventTime) -> Begun {
        Begun(self.begins().partition_point(|begin| *begin <= at) as u8)
    }
}

/// So many of the first cohorts.
#[derive(Copy, Clone, Debug)]
pub(super) struct Begun(u8);

/// A change copies a chunk or few, and counts a reference to every other one.
const WORDS: usize = 512;
const PER_WORD: usize = 16;
const BITS: usize = 4;

#[derive(Clone, Default)]
pub(super) struct Slots(Vec<Arc<[u64; WORDS]>>);

impl Slots {
    pub(super) fn get(&self, slot: u32) -> Standing {
        match self.code(slot) {
            0 => Standing::Away,
            1 => Standing::Dated,
            2 => Standing::Ended,
            code => Standing::Settled(Cohort((code - OTHERS) as u8)),
        }
    }

    /// The same as to get [`Standing::Settled`] of a cohort that had begun.
    #[inline(always)]
    pub(super) fn is_settled(&self, slot: u32, begun: Begun) -> bool {
        self.code(slot).wrapping_sub(OTHERS) < u64::from(begun.0)
    }

    #[inline(always)]
    fn code(&self, slot: u32) -> u64 {
        let slot = slot as usize;
        let chunk = self.0.get(slot / (WORDS * PER_WORD));
        chunk.map_or(0, |chunk| {
            chunk[slot / PER_WORD % WORDS] >> (BITS * (slot % PER_WORD)) & 0xf
        })
    }

    pub(super) fn set(&mut self, slot: u32, standing: Standing) {
        let code = match standing {
            Standing::Away => 0,
            Standing::Dated => 1,
            Standing::Ended => 2,
            Standing::Settled(cohort) => OTHERS + u64::from(cohort.0),
        };
        let slot = slot as usize;
        let chunk = slot / (WORDS * PER_WORD);
        while self.0.len() <= chunk {
            self.0.push(Arc::new([0; WORDS]));
        }
        let word = &mut Arc::make_mut(&mut self.0[chunk])[slot / PER_WORD % WORDS];
        let shift = BITS * (slot % PER_WORD);
        *word = *word & !(0xf << shift) | code << shift;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn millis(millis: i64) -> EventTime {
        EventTime::from_millis(millis).unwrap()
    }

    #[test]
    fn a_slot_stands_as_it_was_set_and_the_ones_beside_it_as_before() {
        let standings = [Standing::Away, Standing::Dated, Standing::Ended];
        let cohorts = (0..COHORTS_MAX as u8).map(|cohort| Standing::Settled(Cohort(cohort)));
        let all: Vec<_> = standings.into_iter().chain(cohorts).collect();
        assert_eq!(all.len(), 16);
        let mut slots = Slots::default();
        let of = |slot: u32| all[slot as usize * 7 % 16];
        let last = 3 * (WORDS * PER_WORD) as u32;
        for slot in 0..last {
            slots.set(slot, Standing::Settled(Cohort(12)));
            slots.set(slot, of(slot));
        }
        for slot in 0..last {
            assert_eq!(slots.get(slot), of(slot));
            for begun in 0..=COHORTS_MAX as u8 {
                let is_settled = matches!(of(slot), Standing::Settled(of) if of.0 < begun);
                assert_eq!(slots.is_settled(slot, Begun(begun)), is_settled);
            }
        }
        assert_eq!(slots.get(last + 9_999), Standing::Away);
    }

    #[test]
    fn what_settles_after_an_instant_leaves_most_of_what_began_before_it_settled_then() {
        let mut cohorts = Cohorts::of((0..8_000).map(millis).collect());
        let at_first: Vec<_> = (0..8_000)
            .map(|begin| cohorts.add(millis(begin), 8_000))
            .collect();
        for later in 0..4_000 {
            cohorts.add(millis(10_000 + later), 8_000);
        }
        let settled_at = |at| {
            let begun = cohorts.begun(millis(at));
            at_first.iter().filter(|cohort| cohort.0 < begun.0).count()
        };
        assert_eq!(settled_at(9_000), 8_000);
        for (at, settled) in [(7_900, 7_875), (7_000, 7_000), (4_000, 4_000), (3_998, 0)] {
            assert_eq!(settled_at(at), settled, "{at}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn none_of_a_cohort_that_had_begun_begins_later(
            first in prop::collection::vec(-50_i64..50, 0..60),
            then in prop::collection::vec((-60_i64..200, 0..100_usize), 0..80),
            at in -70_i64..210,
        ) {
            let mut cohorts = Cohorts::of(first.iter().copied().map(millis).collect());
            let mut members = Vec::new();
            for begin in first {
                members.push((begin, cohorts.add(millis(begin), 60)));
            }
            for (begin, versions) in then {
                members.push((begin, cohorts.add(millis(begin), versions)));
            }
            prop_assert!(cohorts.begins().is_sorted());
            let begun = cohorts.begun(millis(at));
            for (begin, cohort) in members {
                prop_assert!(cohort.0 < cohorts.len);
                prop_assert!(cohort.0 >= begun.0 || begin <= at);
            }
            prop_assert_eq!(usize::from(cohorts.begun(EventTime::MAX).0), cohorts.begins().len());
        }
    }
}
