//! Bed, hosts and operator together.

use std::path::PathBuf;

use hostsim::{HostSpec, Site, SiteOptions};
use testenv::{Bed, Options};

use crate::installation;
use crate::operator::{Operator, OperatorOptions};

/// What a stack consists of.
#[derive(Clone, Debug)]
pub struct StackOptions {
    /// The management cluster.
    pub bed: Options,
    /// The simulated hosts.
    pub site: SiteOptions,
    /// The operator.
    pub operator: OperatorOptions,
}

impl StackOptions {
    /// Everything, with the operator's program.
    pub fn new(operator: impl Into<PathBuf>) -> Self {
        Self { bed: Options::default(), site: SiteOptions::default(), operator: OperatorOptions::new(operator) }
    }
}

/// Bed, hosts and operator.
pub struct Stack {
    /// The management cluster.
    pub bed: Bed,
    /// The simulated hosts.
    pub site: Site,
    /// The running operator, if one runs.
    pub operator: Option<Operator>,
    options: OperatorOptions,
}

impl Stack {
    /// Starts the management cluster, installs the product, and starts the operator. There are no hosts yet.
    ///
    /// # Errors
    /// When a part does not start; the message says which, and quotes its log.
    pub async fn start(options: StackOptions, progress: impl Fn(&str) + Send + Sync + 'static) -> anyhow::Result<Self> {
        let bed = Bed::start(options.bed, progress).await?;
        installation::install_product(&bed).await?;
        if options.bed.cluster_api && options.bed.byoh {
            installation::install_provider_parts(&bed).await?;
        }
        let site = Site::new(&bed, options.site)?;
        let mut stack = Self { bed, site, operator: None, options: options.operator };
        stack.start_operator().await?;
        Ok(stack)
    }

    /// Starts the operator, with the ServiceAccount and the rights from `deploy/`.
    ///
    /// # Errors
    /// When no token is given or the program cannot be started.
    pub async fn start_operator(&mut self) -> anyhow::Result<()> {
        self.operator = Some(self.another_operator(&self.options).await?);
        Ok(())
    }

    /// Starts one more operator, which the stack does not keep.
    ///
    /// # Errors
    /// When no token is given or the program cannot be started.
    pub async fn another_operator(&self, options: &OperatorOptions) -> anyhow::Result<Operator> {
        let kubeconfig = self.bed.dir().join("o2ims-operator.kubeconfig");
        self.bed.service_account_kubeconfig("o2ims-system", "o2ims-operator", &kubeconfig).await?;
        Operator::start(options, &kubeconfig, &self.operator_log())
    }

    /// How the operator is started.
    pub fn operator_options(&self) -> &OperatorOptions {
        &self.options
    }

    /// Where the operator logs to.
    pub fn operator_log(&self) -> PathBuf {
        self.bed.dir().join("o2ims-operator.log")
    }

    /// Kills the operator and starts it again.
    ///
    /// # Errors
    /// When it cannot be killed or started.
    pub async fn crash_operator(&mut self) -> anyhow::Result<()> {
        if let Some(operator) = self.operator.take() {
            operator.crash().await?;
        }
        self.start_operator().await
    }

    /// Registers simulated hosts `<prefix>-<number>` with `host-id` `<number>`.
    ///
    /// # Errors
    /// When a host cannot be registered.
    pub async fn register(
        &self,
        namespace: &str,
        prefix: &str,
        numbers: std::ops::RangeInclusive<u32>,
    ) -> anyhow::Result<()> {
        for number in numbers {
            let mut spec = HostSpec::new(format!("{prefix}-{number}"), number.to_string());
            spec.namespace = Some(namespace.to_owned());
            self.site.register(spec).await?;
        }
        Ok(())
    }

    /// Stops operator, hosts and management cluster, in this order.
    ///
    /// # Errors
    /// When a part does not stop as it should; the others are stopped all the same.
    pub async fn stop(self) -> anyhow::Result<()> {
        let operator = match self.operator {
            Some(operator) => operator.stop().await,
            None => Ok(()),
        };
        self.site.shut_down().await;
        let bed = self.bed.stop().await;
        operator.and(bed)
    }
}
