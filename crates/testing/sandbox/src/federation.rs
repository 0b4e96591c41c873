//! An SMO with two O-Clouds: three management clusters, each with an API server of its own.
//!
//! `site-a` has everything: the O2IMS operator, Cluster API, BYOH and hosts. `site-b` has the O2IMS operator only,
//! because a network has room for one BYOH manager; its requests stay pending.

use anyhow::Context as _;
use testenv::{ManagementCluster, Options};
use tokio::sync::Mutex;

use crate::focom;
use crate::operator::{Operator, OperatorOptions};
use crate::stack::{Stack, StackOptions};

/// The SMO and its O-Clouds, all running.
pub struct Federation {
    /// The SMO's management cluster.
    pub smo: ManagementCluster,
    /// The FOCOM operator, if it runs.
    pub focom: Mutex<Option<Operator>>,
    /// The O-Cloud with providers and hosts.
    pub site_a: Stack,
    /// The O-Cloud without providers.
    pub site_b: Stack,
    /// A kubeconfig of the SMO's account on `site-a`.
    pub kubeconfig_a: String,
    /// A kubeconfig of the SMO's account on `site-b`.
    pub kubeconfig_b: String,
    focom_options: OperatorOptions,
}

impl Federation {
    /// Starts everything. `site-b` gets the same O2IMS operator as `site-a`.
    ///
    /// # Errors
    /// When something does not start; the error says what, and quotes its log.
    pub async fn start(
        site_a: StackOptions,
        focom_options: OperatorOptions,
        progress: impl Fn(&str) + Clone + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let bare = Options { cluster_api: false, byoh: false, ..Options::default() };
        let progress_of = |name: &'static str| {
            let progress = progress.clone();
            move |line: &str| progress(&format!("{name}: {line}"))
        };
        let site_b = StackOptions { management: bare, operator: site_a.operator.clone(), ..StackOptions::new("") };
        let smo = ManagementCluster::start(bare, progress_of("smo")).await.context("starting the SMO")?;
        let site_a = Stack::start(site_a, progress_of("site-a")).await.context("starting site-a")?;
        let site_b = Stack::start(site_b, progress_of("site-b")).await.context("starting site-b")?;
        focom::install(&smo).await?;
        let kubeconfig_a = focom::kubeconfig_for(&site_a.management).await?;
        let kubeconfig_b = focom::kubeconfig_for(&site_b.management).await?;
        let all = Self { smo, focom: Mutex::default(), site_a, site_b, kubeconfig_a, kubeconfig_b, focom_options };
        all.start_focom().await?;
        Ok(all)
    }

    /// How the FOCOM operator is started.
    pub fn focom_options(&self) -> &OperatorOptions {
        &self.focom_options
    }

    /// Starts the FOCOM operator. One that ran before must have been stopped.
    ///
    /// # Errors
    /// When the API server issues no token, or the program cannot be started.
    pub async fn start_focom(&self) -> anyhow::Result<()> {
        *self.focom.lock().await = Some(focom::start_operator(&self.smo, &self.focom_options).await?);
        Ok(())
    }

    /// Registers the O-Clouds in a namespace of the SMO, as `site-a` and `site-b`.
    ///
    /// # Errors
    /// When the SMO's API server refuses an object.
    pub async fn introduce(&self, namespace: &str) -> anyhow::Result<()> {
        focom::introduce(&self.smo, namespace, "site-a", &self.kubeconfig_a).await?;
        focom::introduce(&self.smo, namespace, "site-b", &self.kubeconfig_b).await
    }

    /// Makes a namespace on all three clusters.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn make_namespace(&self, name: &str) -> anyhow::Result<()> {
        for management in [&self.smo, &self.site_a.management, &self.site_b.management] {
            management.apply_yaml(&format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}")).await?;
        }
        Ok(())
    }

    /// Stops everything.
    ///
    /// # Errors
    /// When something does not stop in order; everything else is stopped nevertheless.
    pub async fn stop(self) -> anyhow::Result<()> {
        let focom = match self.focom.into_inner() {
            Some(focom) => focom.stop().await,
            None => Ok(()),
        };
        let (site_a, site_b) = (self.site_a.stop().await, self.site_b.stop().await);
        focom.and(site_a).and(site_b).and(self.smo.stop().await)
    }
}
