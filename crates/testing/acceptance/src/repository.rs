//! The checkout of this repository.

use std::path::{Path, PathBuf};

/// The folder of the checkout.
pub fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..").canonicalize().unwrap_or_default()
}
