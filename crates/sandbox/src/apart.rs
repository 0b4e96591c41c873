//! An SMO on a cluster of its own, and a second O-Cloud.

use sandbox::{Federation, OperatorOptions, Stack, StackOptions};
use testenv::Bed;

/// Namespace of the example requests.
pub const NAMESPACE: &str = "default";
/// The O-Cloud that has hosts, as the SMO knows it.
pub const WITH_HOSTS: &str = "site-a";
/// The O-Cloud that has none.
pub const WITHOUT_HOSTS: &str = "site-b";

/// What there is beside the O-Cloud with hosts.
pub struct Apart {
    /// The SMO's cluster.
    pub smo: Bed,
    /// The O-Cloud without providers.
    pub site_b: Stack,
}

impl Apart {
    /// Starts all three; the first of the pair is the O-Cloud with hosts, which has the SMO's operator for company.
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
