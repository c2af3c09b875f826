//! Asking for memory ahead of its use: what was last touched long ago, or by another core, is in no cache of this one, and who
//! looks at one such thing after the other waits for each. Reading ahead waits too, once the processor can keep no more of what
//! comes after in mind; a hint is done at once.
//!
//! Hints only: nothing is read, and where a processor has none they do nothing.

#![allow(unsafe_code)]

/// Bytes that come from memory together.
pub(crate) const LINE: usize = 64;

/// Asks for the line of this place, to be read soon. There need be nothing at the place.
#[inline(always)]
pub(crate) fn fetch<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, which any address may be given to, and which every such processor knows.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_place_may_be_asked_for_and_nothing_changes() {
        let bytes = [7_u8; 3 * LINE];
        for byte in &bytes {
            fetch(byte);
        }
        fetch(bytes.as_ptr_range().end);
        fetch(std::ptr::null::<u8>());
        fetch(usize::MAX as *const u8);
        assert_eq!(bytes, [7; 3 * LINE]);
    }
}
