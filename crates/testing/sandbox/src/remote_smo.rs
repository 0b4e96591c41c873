//! An SMO on a cluster of its own, and a second O-Cloud.

use sandbox::{Federation, OperatorOptions, Stack, StackOptions};
use testenv::ManagementCluster;

/// Namespace of the example requests, at the SMO and at the O-Clouds.
pub const NAMESPACE: &str = "default";
/// Name of the O-Cloud with hosts, at the SMO.
pub const WITH_HOSTS: &str = "site-a";
/// Name of the O-Cloud without hosts, at the SMO.
pub const WITHOUT_HOSTS: &str = "site-b";

/// The SMO's cluster and the second O-Cloud, beside the O-Cloud with hosts.
pub struct RemoteSmo {
    /// The SMO's cluster.
    pub smo: ManagementCluster,
    /// The O-Cloud without providers.
    pub site_b: Stack,
}

impl RemoteSmo {
    /// Starts all three. Returns the O-Cloud with hosts, which also holds the FOCOM operator, and the other two.
    pub async fn start(
        options: StackOptions,
        focom: OperatorOptions,
        progress: impl Fn(&str) + Clone + Send + Sync + 'static,
    ) -> anyhow::Result<(Stack, Self)> {
        let all = Federation::start(options, focom, progress).await?;
        all.introduce(NAMESPACE).await?;
        let Federation { smo, focom, mut site_a, site_b, .. } = all;
        site_a.focom = focom.into_inner();
        Ok((site_a, Self { smo, site_b }))
    }

    /// Stops both.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.site_b.stop().await.and(self.smo.stop().await)
    }
}
