//! Time limits of the stages, and their defaults.

use kube::core::Duration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rules;

/// Time limits of the stages. A stage that takes longer makes the request `failed`; it goes on all the same.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    /// From reserved hosts to Ready masters.
    #[serde(default = "twenty_minutes")]
    #[schemars(extend("pattern" = rules::DURATION_PATTERN, "maxLength" = 32))]
    pub control_plane: Duration,
    /// From Ready masters to Ready workers.
    #[serde(default = "twenty_minutes")]
    #[schemars(extend("pattern" = rules::DURATION_PATTERN, "maxLength" = 32))]
    pub workers: Duration,
    /// From deletion to free hosts. A stuck deletion stays `deleting` and is marked `Stalled`.
    #[serde(default = "twenty_minutes")]
    #[schemars(extend("pattern" = rules::DURATION_PATTERN, "maxLength" = 32))]
    pub deletion: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { control_plane: twenty_minutes(), workers: twenty_minutes(), deletion: twenty_minutes() }
    }
}

fn twenty_minutes() -> Duration {
    std::time::Duration::from_secs(20 * 60).into()
}
