//! The seeds of simulations.

/// The one to run alone (`RINGFENCE_SEED`), if one is named.
pub(crate) fn named() -> Option<u64> {
    let seed = std::env::var("RINGFENCE_SEED").ok()?;
    Some(seed.parse().expect("a number"))
}

/// Three that no run before had.
pub(crate) fn random() -> impl Iterator<Item = u64> {
    let random = std::collections::hash_map::RandomState::new();
    let random = std::hash::BuildHasher::hash_one(&random, 0);
    (0..3).map(move |more| random.wrapping_add(more))
}
