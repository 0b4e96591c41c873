//! Time limits of the stages, and their defaults.

use kube::core::Duration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rules;

/// Time limits of the stages and of the deletion. When a stage exceeds its limit, provisioningState is `failed`; the operator
/// continues with the stage.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    /// From `HostsReserved` to `ControlPlaneReady`.
    #[serde(default = "twenty_minutes")]
    #[schemars(extend("pattern" = rules::DURATION_PATTERN, "maxLength" = 32))]
    pub control_plane: Duration,
    /// From `ControlPlaneReady` to `WorkersReady`.
    #[serde(default = "twenty_minutes")]
    #[schemars(extend("pattern" = rules::DURATION_PATTERN, "maxLength" = 32))]
    pub workers: Duration,
    /// From the deletion of the request until its hosts are released. When it is exceeded, provisioningState stays `deleting`, and the
    /// condition `Stalled` is True.
    #[serde(default = "twenty_minutes")]
    #[schemars(extend("pattern" = rules::DURATION_PATTERN, "maxLength" = 32))]
    pub deletion: Duration,
    /// How long a node of a cluster that was `fulfilled` may be not Ready before provisioningState is `progressing`. Until then it stays
    /// `fulfilled`, and the condition `Degraded` names the host.
    #[serde(default = "five_minutes")]
    #[schemars(extend("pattern" = rules::DURATION_PATTERN, "maxLength" = 32))]
    pub unreachable: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            control_plane: twenty_minutes(),
            workers: twenty_minutes(),
            deletion: twenty_minutes(),
            unreachable: five_minutes(),
        }
    }
}

fn twenty_minutes() -> Duration {
    std::time::Duration::from_secs(20 * 60).into()
}

fn five_minutes() -> Duration {
    std::time::Duration::from_secs(5 * 60).into()
}
