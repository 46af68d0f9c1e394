//! Where random bytes come from, as a value that is passed in.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A source of random bytes.
///
/// Nothing in runtree asks the operating system for them but [`SystemEntropy`]; everything
/// else is handed a source, so that a test can make it fail.
pub trait Entropy: fmt::Debug + Send + Sync {
    /// Fills the bytes.
    ///
    /// # Errors
    ///
    /// [`EntropyError`] when not every byte could be filled. What the bytes then hold is not
    /// used.
    fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError>;
}

impl<E: Entropy + ?Sized> Entropy for &E {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError> {
        (**self).fill(bytes)
    }
}

impl<E: Entropy + ?Sized> Entropy for Arc<E> {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError> {
        (**self).fill(bytes)
    }
}

/// The operating system's random bytes.
///
/// It keeps none in the process, so a fork cannot hand the same bytes out twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError> {
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place that asks the operating system for random bytes"
        )]
        let filled = getrandom::fill(bytes);
        filled.map_err(EntropyError::new)
    }
}

/// Bytes that are the same each time, for tests that want the same ids each time.
///
/// Ids made from it collide with those of any other source with the same seed.
#[derive(Debug)]
pub struct PredictableEntropy {
    state: AtomicU64,
}

impl PredictableEntropy {
    /// Makes the source that a seed determines.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self {
            state: AtomicU64::new(seed),
        }
    }

    /// Returns the next number of the SplitMix64 sequence.
    fn next(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self
            .state
            .fetch_add(STEP, Ordering::Relaxed)
            .wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Entropy for PredictableEntropy {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError> {
        for chunk in bytes.chunks_mut(8) {
            let number = self.next().to_le_bytes();
            chunk.copy_from_slice(&number[..chunk.len()]);
        }
        Ok(())
    }
}

/// Tells that no random bytes could be had.
///
/// There is no way round it: an id without them would not be unique. Try again when the
/// system is well, or give up.
#[derive(Debug, thiserror::Error)]
#[error("no random bytes")]
pub struct EntropyError {
    source: Box<dyn Error + Send + Sync>,
}

impl EntropyError {
    /// Makes the error from what a source reported.
    pub fn new(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            source: source.into(),
        }
    }
}
