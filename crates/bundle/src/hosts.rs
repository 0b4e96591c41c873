//! What hosts of workload clusters need: programs, packages and images.

use std::path::Path;

use testenv::recipes::Progress;

pub(crate) fn write(progress: &Progress, _bundle: &Path) {
    progress.line("hosts/ is not made yet");
}
