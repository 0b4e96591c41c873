//! Randomness for jitter and for names; not for secrets.

use std::hash::{BuildHasher, RandomState};

/// A number from 0 to 1.
pub(crate) fn random_unit() -> f64 {
    f64::from(random_u32()) / f64::from(u32::MAX)
}

/// Random bits from the seed that std draws for its hash maps.
#[allow(clippy::cast_possible_truncation)]
pub(crate) fn random_u32() -> u32 {
    RandomState::new().hash_one(0_u8) as u32
}
