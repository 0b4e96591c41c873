//! The checkout of this repository.

use std::path::{Path, PathBuf};

/// The folder of the checkout, from which manifests and scripts are taken.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
