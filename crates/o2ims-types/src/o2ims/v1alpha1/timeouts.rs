//! Time limits of the stages, and their defaults.

use kube::KubeSchema;
use kube::core::Duration;
use serde::{Deserialize, Serialize};

use crate::rules;

/// Time limits of the stages and of the deletion. When a stage exceeds its limit, provisioningState is `failed`; the operator
/// continues with the stage.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.drain) || duration(self.drain) >= duration('1s')").message("timeouts.drain must be at least 1s; without it a drain has no limit"))]
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
    /// How long the drain of a node may take: of a host that is removed from a cluster, and of a worker before its upgrade. Without it a drain has no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = rules::DURATION_PATTERN, "maxLength" = 32))]
    pub drain: Option<Duration>,
}

impl Timeouts {
    /// [`Timeouts::drain`] in seconds, as Cluster API takes it.
    pub fn drain_seconds(&self) -> Option<i32> {
        let limit = std::time::Duration::from(self.drain?);
        Some(i32::try_from(limit.as_secs()).unwrap_or(i32::MAX))
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            control_plane: twenty_minutes(),
            workers: twenty_minutes(),
            deletion: twenty_minutes(),
            unreachable: five_minutes(),
            drain: None,
        }
    }
}

fn twenty_minutes() -> Duration {
    std::time::Duration::from_secs(20 * 60).into()
}

fn five_minutes() -> Duration {
    std::time::Duration::from_secs(5 * 60).into()
}
