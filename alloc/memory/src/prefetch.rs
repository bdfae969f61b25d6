//! A hint to the processor, for who knows what will be read soon. Stateless.

/// Asks the processor to fetch the cache line at the start of `place`, without waiting for it. Does nothing on processors
/// that offer no such instruction here.
#[inline]
pub fn prefetch<T>(place: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: rule 5.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(place).cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}
