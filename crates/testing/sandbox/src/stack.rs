//! A management cluster with the operator and hosts.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::future::{try_join, try_join_all};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::PostParams;
use kube::core::{DynamicObject, ObjectMeta};
use kube::runtime::wait::await_condition;
use tokio::time::timeout;

use hostsim::{HostSpec, Site, SiteOptions};
use testenv::servers::{AgentSetup, GATEWAY, Login, Rack, Server, VirtualMachine};
use testenv::{ManagementCluster, Options};

use crate::focom;
use crate::installation::{self, Hosts};
use crate::operator::{Operator, OperatorOptions};

/// How long an agent may take to register its host after the start of its server.
const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(60);

/// What a stack consists of.
#[derive(Clone, Debug)]
pub struct StackOptions {
    /// The management cluster.
    pub management: Options,
    /// The simulated hosts.
    pub site: SiteOptions,
    /// The operator.
    pub operator: OperatorOptions,
    /// What the hosts are.
    pub hosts: Hosts,
    /// Servers also have the minor version of Kubernetes before.
    pub kubernetes_before: bool,
    /// Servers `<prefix>-<number>` that boot while the management cluster starts. [`Stack::power_on`] gives them their
    /// agents.
    pub booting: Option<(&'static str, RangeInclusive<u8>)>,
}

impl StackOptions {
    /// All parts, with simulated hosts. `operator` is the operator's program.
    pub fn new(operator: impl Into<PathBuf>) -> Self {
        Self {
            management: Options::default(),
            site: SiteOptions::default(),
            operator: OperatorOptions::new(operator),
            hosts: Hosts::Simulated,
            kubernetes_before: false,
            booting: None,
        }
    }

    /// The same with servers, which reach the API server over the rack's LAN.
    #[must_use]
    pub fn with_servers(mut self) -> Self {
        self.hosts = Hosts::Servers;
        self.management.address = GATEWAY;
        self.site.external_etcd = false;
        self
    }
}

/// Name of a server, and the last part of its address.
fn numbered(prefix: &str, number: u8) -> (String, u8) {
    (format!("{prefix}-{number}"), 10 + number)
}

/// A running management cluster with the operator and hosts.
pub struct Stack {
    /// The management cluster.
    pub management: ManagementCluster,
    /// The simulated hosts.
    pub site: Site,
    /// The running O2IMS operator, if one runs.
    pub operator: Option<Operator>,
    /// The running FOCOM operator, if one runs: the cluster is SMO and O-Cloud then.
    pub focom: Option<Operator>,
    /// The servers, if the hosts are not simulated.
    pub servers: Vec<Arc<Server>>,
    virtual_machines: Vec<Arc<VirtualMachine>>,
    rack: Option<Rack>,
    hosts: Hosts,
    options: OperatorOptions,
}

impl Stack {
    /// Starts the management cluster, installs the product, and starts the operator. There are no hosts yet.
    ///
    /// # Errors
    /// When something does not start; the error says what, and quotes its log.
    pub async fn start(options: StackOptions, progress: impl Fn(&str) + Send + Sync + 'static) -> anyhow::Result<Self> {
        let progress = Arc::new(progress);
        let rack = match options.hosts {
            Hosts::Simulated => None,
            Hosts::Servers => {
                let progress = progress.clone();
                Some(Rack::start(options.kubernetes_before, move |line| progress(line)).await?)
            }
        };
        let mut booting = Vec::new();
        if let (Some(rack), Some((prefix, numbers))) = (&rack, options.booting) {
            for number in numbers {
                let (name, address) = numbered(prefix, number);
                booting.push(Arc::new(rack.server(&name, address)?));
            }
        }
        let (management, _) = try_join(
            ManagementCluster::start(options.management, move |line| progress(line)),
            try_join_all(booting.iter().map(|server| server.power_on())),
        )
        .await?;
        installation::install_product(&management, options.hosts).await?;
        if options.management.cluster_api && options.management.byoh {
            installation::install_provider_parts(&management, options.hosts).await?;
        }
        let site = Site::new(&management, options.site)?;
        let mut stack = Self {
            management,
            site,
            operator: None,
            focom: None,
            servers: booting,
            virtual_machines: Vec::new(),
            rack,
            hosts: options.hosts,
            options: options.operator,
        };
        stack.start_operator().await?;
        Ok(stack)
    }

    /// Starts the operator, with the ServiceAccount and the rights from `deploy/`.
    ///
    /// # Errors
    /// When the API server issues no token, or the program cannot be started.
    pub async fn start_operator(&mut self) -> anyhow::Result<()> {
        self.operator = Some(self.another_operator(&self.options).await?);
        Ok(())
    }

    /// Makes the cluster an SMO too: installs and starts the FOCOM operator.
    ///
    /// # Errors
    /// When the API server refuses a file or the program cannot be started.
    pub async fn start_focom(&mut self, options: &OperatorOptions) -> anyhow::Result<()> {
        focom::install(&self.management).await?;
        self.focom = Some(focom::start_operator(&self.management, options).await?);
        Ok(())
    }

    /// Starts one more operator, which belongs to the caller.
    ///
    /// # Errors
    /// When the API server issues no token, or the program cannot be started.
    pub async fn another_operator(&self, options: &OperatorOptions) -> anyhow::Result<Operator> {
        Operator::start(options, &self.operator_kubeconfig().await?, &self.operator_log())
    }

    /// Writes a kubeconfig with a new token of the operator's ServiceAccount, and returns its path, which is always the
    /// same.
    ///
    /// # Errors
    /// When the API server issues no token.
    pub async fn operator_kubeconfig(&self) -> anyhow::Result<PathBuf> {
        let kubeconfig = self.management.dir().join("o2ims-operator.kubeconfig");
        self.management.service_account_kubeconfig("o2ims-system", "o2ims-operator", &kubeconfig).await?;
        Ok(kubeconfig)
    }

    /// What the hosts are.
    pub fn hosts(&self) -> Hosts {
        self.hosts
    }

    /// How the operator is started.
    pub fn operator_options(&self) -> &OperatorOptions {
        &self.options
    }

    /// Path of the operator's log.
    pub fn operator_log(&self) -> PathBuf {
        self.management.dir().join("o2ims-operator.log")
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

    /// Makes a namespace for requests and hosts.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn make_namespace(&self, name: &str) -> anyhow::Result<()> {
        let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
        let object = Namespace { metadata, ..Namespace::default() };
        Api::all(self.management.admin())
            .create(&PostParams::default(), &object)
            .await
            .context("making the namespace")?;
        Ok(())
    }

    /// Applies the hosts' CNI in a namespace. Needs Cluster API.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn apply_cni(&self, namespace: &str) -> anyhow::Result<()> {
        let cni = self.hosts.cni().replace("namespace: default", &format!("namespace: {namespace}"));
        self.management.apply_yaml(&cni).await
    }

    /// Registers simulated hosts `<prefix>-<number>` with `host-id` `<number>`.
    ///
    /// # Errors
    /// When a host cannot be registered.
    pub async fn register(&self, namespace: &str, prefix: &str, numbers: RangeInclusive<u32>) -> anyhow::Result<()> {
        for number in numbers {
            let mut spec = HostSpec::new(format!("{prefix}-{number}"), number.to_string());
            spec.namespace = Some(namespace.to_owned());
            self.site.register(spec).await?;
        }
        Ok(())
    }

    /// A new server without an agent, switched off. `address` is the last part of its address.
    ///
    /// # Errors
    /// When the hosts are simulated, or the server cannot be made.
    pub fn bare_server(&mut self, name: &str, address: u8) -> anyhow::Result<Arc<Server>> {
        let server = Arc::new(self.rack()?.server(name, address)?);
        self.servers.push(server.clone());
        Ok(server)
    }

    /// Servers `<prefix>-<number>`, new ones that are switched off or those of [`StackOptions::booting`], whose agents
    /// will register them with `host-id` `<number>`.
    ///
    /// # Errors
    /// When BYOH issues no kubeconfig for agents, or a server cannot be made.
    pub async fn rack_up(
        &mut self,
        namespace: &str,
        prefix: &str,
        numbers: RangeInclusive<u8>,
        skip_installation: bool,
    ) -> anyhow::Result<Vec<Arc<Server>>> {
        // A new one for each call, because its token is valid for half an hour.
        let name = format!("{prefix}-{}", numbers.start());
        let bootstrap_kubeconfig = self.management.bootstrap_kubeconfig(namespace, &name).await?;
        let mut servers = Vec::new();
        for number in numbers {
            let (name, address) = numbered(prefix, number);
            let booting = self.servers.iter().find(|server| server.name() == name).cloned();
            let server = match booting {
                Some(server) => server,
                None => self.bare_server(&name, address)?,
            };
            let setup = AgentSetup {
                bootstrap_kubeconfig: bootstrap_kubeconfig.clone(),
                namespace: namespace.to_owned(),
                labels: vec![format!("host-id={number}")],
                skip_installation,
            };
            server.set_up_agent(&setup).await?;
            servers.push(server);
        }
        Ok(servers)
    }

    /// A new server with Debian, sshd and python3 only, switched off. `address` is the last part of its address.
    ///
    /// # Errors
    /// As [`Stack::bare_server`].
    pub fn debian_server(&mut self, name: &str, address: u8) -> anyhow::Result<Arc<Server>> {
        let server = Arc::new(self.rack()?.debian_server(name, address)?);
        self.servers.push(server.clone());
        Ok(server)
    }

    /// As [`Stack::debian_server`], but with Debian 13, which the packages of the hosts' files are not for.
    ///
    /// # Errors
    /// As [`Stack::bare_server`], and when Debian 13 is not in the cache.
    pub async fn debian_13_server(&mut self, name: &str, address: u8) -> anyhow::Result<Arc<Server>> {
        let server = Arc::new(self.rack()?.debian_13_server(name, address).await?);
        self.servers.push(server.clone());
        Ok(server)
    }

    /// A new virtual machine with Debian, sshd and python3 only, switched off. `address` is the last part of its address.
    ///
    /// # Errors
    /// As [`Stack::bare_server`].
    pub async fn virtual_machine(&mut self, name: &str, address: u8) -> anyhow::Result<Arc<VirtualMachine>> {
        let machine = Arc::new(self.rack()?.virtual_machine(name, address).await?);
        self.virtual_machines.push(machine.clone());
        Ok(machine)
    }

    /// Makes a server that is off accept the key of [`Stack::login`].
    ///
    /// # Errors
    /// As [`Stack::login`].
    pub fn authorize(&self, server: &Server) -> anyhow::Result<()> {
        self.rack()?.authorize(server)
    }

    /// How to log in to servers of [`Stack::debian_server`], and to those that [`Stack::authorize`] was called for.
    ///
    /// # Errors
    /// When the hosts are simulated, or the key cannot be made.
    pub fn login(&self) -> anyhow::Result<Login> {
        self.rack()?.login()
    }

    fn rack(&self) -> anyhow::Result<&Rack> {
        self.rack.as_ref().context("the hosts of this stack are simulated")
    }

    /// As [`Stack::rack_up`]; then switches those servers on that are off, and waits until their hosts are registered.
    ///
    /// # Errors
    /// When a server does not start, or its agent does not register it.
    pub async fn power_on(
        &mut self,
        namespace: &str,
        prefix: &str,
        numbers: RangeInclusive<u8>,
        skip_installation: bool,
    ) -> anyhow::Result<()> {
        let servers = self.rack_up(namespace, prefix, numbers, skip_installation).await?;
        try_join_all(servers.iter().map(
            async |server| {
                if server.is_on().await { Ok(()) } else { server.power_on().await }
            },
        ))
        .await?;
        let hosts = crate::inventory::hosts(self.management.admin(), namespace);
        for server in &servers {
            let is_there =
                |host: Option<&DynamicObject>| host.is_some_and(|host| host.data["status"]["hostinfo"].is_object());
            timeout(REGISTRATION_TIMEOUT, await_condition(hosts.clone(), server.name(), is_there))
                .await
                .with_context(|| format!("the agent of {} does not register it", server.name()))??;
        }
        Ok(())
    }

    /// Removes a server and its disk.
    ///
    /// # Errors
    /// When there is none of this name, or something cannot be removed.
    pub async fn remove_server(&mut self, name: &str) -> anyhow::Result<()> {
        let found = self.servers.iter().position(|server| server.name() == name);
        self.servers.swap_remove(found.with_context(|| format!("there is no server {name}"))?).remove().await
    }

    /// The server of this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn server(&self, name: &str) -> anyhow::Result<&Server> {
        let found = self.servers.iter().find(|server| server.name() == name);
        found.map(AsRef::as_ref).with_context(|| format!("there is no server {name}"))
    }

    /// Stops operator, hosts and management cluster, in this order.
    ///
    /// # Errors
    /// When something does not stop in order; everything else is stopped nevertheless.
    pub async fn stop(self) -> anyhow::Result<()> {
        let mut operator = Ok(());
        for running in [self.focom, self.operator].into_iter().flatten() {
            operator = operator.and(running.stop().await);
        }
        self.site.shut_down().await;
        let mut servers = Ok(());
        for server in self.servers {
            servers = servers.and(server.remove().await);
        }
        for machine in self.virtual_machines {
            servers = servers.and(machine.remove().await);
        }
        if let Some(rack) = self.rack {
            servers = servers.and(rack.stop().await);
        }
        let management = self.management.stop().await;
        operator.and(servers).and(management)
    }
}
