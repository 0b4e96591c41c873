//! Is the request right, and can it be carried out as far as the O-Cloud knows? Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use kube::ResourceExt as _;
use o2ims_types::cluster_template::{
    ClusterTemplateSpec, Install, InstallMethod, Kubeadm, Timeouts, VirtualIp, VirtualIpProvider,
};
use o2ims_types::conditions::reason;
use o2ims_types::provisioning_request::{API_PORT, Hosts};
use o2ims_types::{ClusterTemplate, HostRef, ProvisioningRequest, TemplateParameters, names, schema, validation};

use super::consent;
use super::observe::{Observed, ResourceSetLookup};
use super::rivals::Rival;
use crate::byoh::host::ByoHost;
use crate::byoh::installation::Dialect;
use crate::capi::read::Machine;

/// A request that can be carried out: everything is there and of the right form.
#[derive(Clone, Debug)]
pub struct Valid {
    /// Namespace of the request and of everything that is made for it.
    pub namespace: String,
    /// Name of the cluster.
    pub cluster: String,
    /// Kubernetes version.
    pub version: String,
    /// Control-plane hosts, in the order of the request.
    pub masters: Vec<AskedHost>,
    /// Worker hosts, in the order of the request.
    pub workers: Vec<AskedHost>,
    /// Where the cluster's API answers.
    pub endpoint: Endpoint,
    /// Network of the pods.
    pub pod_cidr: Option<String>,
    /// Network of the Services.
    pub service_cidr: Option<String>,
    /// Labels of the Cluster: the request's, and those that the ClusterResourceSet selects.
    pub labels: BTreeMap<String, String>,
    /// How Kubernetes gets onto the hosts.
    pub install: Install,
    /// The template.
    pub template: Arc<ClusterTemplate>,
    /// What would be refused for a new cluster, and does not change one that runs.
    pub warnings: Vec<String>,
}

/// Where the cluster's API answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Address or name.
    pub host: String,
    /// TCP port.
    pub port: i32,
    /// It is an address that the masters must carry by themselves.
    pub virtual_ip: bool,
}

/// A host as the request names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskedHost {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
}

impl AskedHost {
    fn of(host: &HostRef) -> Self {
        Self { id: host.id(), name: host.name().to_owned() }
    }
}

impl std::fmt::Display for AskedHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "host {} ({})", self.id, self.name)
    }
}

impl Valid {
    /// Every host with its role, masters first.
    pub fn hosts(&self) -> impl Iterator<Item = (&AskedHost, &'static str)> {
        let masters = self.masters.iter().map(|host| (host, names::ROLE_CONTROL_PLANE));
        masters.chain(self.workers.iter().map(|host| (host, names::ROLE_WORKER)))
    }
}

/// Why a request is not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Reason of the condition.
    pub reason: &'static str,
    /// What is wrong, with the field or the object, and what helps.
    pub message: String,
    /// Only a change of the request itself helps: `failed`. Otherwise somebody else can bring it right: `pending`.
    pub terminal: bool,
    /// It is about hosts; everything before them is right.
    pub hosts: bool,
}

impl Refusal {
    fn invalid(message: impl Into<String>) -> Self {
        Self { reason: reason::INVALID, message: message.into(), terminal: true, hosts: false }
    }

    fn waiting(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), terminal: false, hosts: false }
    }

    fn hosts(messages: &[String]) -> Self {
        Self { reason: reason::HOSTS_UNAVAILABLE, message: messages.join("; "), terminal: false, hosts: true }
    }
}

/// Checks `request` against what is there.
///
/// # Errors
/// A [`Refusal`] that says what to do.
pub fn validate(request: &ProvisioningRequest, observed: &Observed) -> Result<Valid, Refusal> {
    let namespace = request.namespace().unwrap_or_default();
    if namespace.len() > names::NAMESPACE_MAX {
        return Err(Refusal::invalid(format!(
            "namespace {namespace} is too long: BYOH can make clusters in namespaces of at most {} characters",
            names::NAMESPACE_MAX
        )));
    }
    let template = template(request, observed)?;
    let mut warnings = Vec::new();
    let parameters = parameters(request, &template, observed, &mut warnings)?;
    let masters = asked(&parameters, |hosts| &hosts.masters);
    let workers = asked(&parameters, |hosts| &hosts.workers);
    let cluster = parameters.cluster_name.clone().unwrap_or_default();
    let mut labels = parameters.labels.clone().unwrap_or_default();
    if !observed.is_running() {
        installation(&template, observed)?;
        labels.extend(resource_set_labels(&namespace, &template, observed)?);
    }
    // A cluster that runs has its name and its endpoint.
    if let Some(Rival { request, what }) = observed.rival.as_ref().filter(|_| !observed.is_running()) {
        return Err(Refusal::waiting(
            reason::NAME_TAKEN,
            format!("{what} is taken by {request}; this request goes on when it is gone"),
        ));
    }
    unchanged(&parameters, &masters, observed)?;
    let endpoint = endpoint(&parameters, &template, &masters, observed)?;
    let mut valid = Valid {
        namespace,
        cluster,
        version: parameters.k8s_version.clone().unwrap_or_default(),
        masters,
        workers,
        endpoint,
        pod_cidr: parameters.pod_cidr.clone(),
        service_cidr: parameters.service_cidr.clone(),
        labels,
        install: observed.install(),
        template,
        warnings,
    };
    let warnings = available(request, &valid, &parameters, observed)?;
    valid.warnings.extend(warnings);
    valid.warnings.extend(unnamed_hosts(request, observed));
    valid.warnings.extend(consent::orphaned_workers(observed).map(orphaned_worker));
    valid.warnings.extend(lost_sight(request, observed));
    Ok(valid)
}

/// What may not change while a cluster runs. An admission policy refuses it before; where that is not installed, nothing is
/// done about it here either.
fn unchanged(parameters: &TemplateParameters, masters: &[AskedHost], observed: &Observed) -> Result<(), Refusal> {
    let (Some(cluster), Some(control_plane)) = (observed.own_cluster(), &observed.control_plane) else { return Ok(()) };
    if cluster.is_being_made() {
        return Ok(());
    }
    let mut wrong = Vec::new();
    let mut differs = |field: &str, is: &str, asked: &str| {
        wrong.push(format!(
            "{field} of a cluster that runs cannot change: it is {is}, asked for is {asked}; put {is} back, or delete this \
             request and make a new one"
        ));
    };
    let version = parameters.k8s_version.as_deref().unwrap_or_default();
    if version != control_plane.spec.version {
        differs("k8sVersion", &control_plane.spec.version, version);
    }
    let names = |all: &mut dyn Iterator<Item = String>| all.collect::<Vec<_>>().join(", ");
    let held: Vec<_> = observed.held().filter(|host| host.is_held_as_master()).map(|host| host.name_any()).collect();
    let is_new = |asked: &&AskedHost| {
        observed.node(&asked.name).is_none() && observed.host(&asked.name).is_some_and(|host| !observed.holds(host))
    };
    let gone = held.iter().any(|name| !masters.iter().any(|asked| asked.name == *name));
    let made = control_plane.spec.replicas.and_then(|replicas| usize::try_from(replicas).ok()).unwrap_or_default();
    // One more that only lost its marks is none.
    let grows = masters.len() > made && !held.is_empty() && masters.iter().any(|asked| is_new(&asked));
    if gone || grows {
        let asked = names(&mut masters.iter().map(|asked| asked.name.clone()));
        differs("hosts.masters", &names(&mut held.into_iter()), &asked);
    }
    let made = cluster.spec.control_plane_endpoint.as_ref();
    if let (Some(asked), Some(made)) = (&parameters.control_plane_endpoint, made)
        && (asked.host != made.host || asked.port != made.port)
    {
        let text = |host: &str, port: i32| format!("{host}:{port}");
        differs("controlPlaneEndpoint", &text(&made.host, made.port), &text(&asked.host, asked.port));
    }
    if wrong.is_empty() { Ok(()) } else { Err(Refusal::invalid(wrong.join("; "))) }
}

/// What a request that was restored from a backup holds and does not name: it stays, since a restore takes nothing out.
fn unnamed_hosts(request: &ProvisioningRequest, observed: &Observed) -> Option<String> {
    if consent::may_take_out(request, observed) {
        return None;
    }
    let hosts = consent::unnamed(request, observed);
    (!hosts.is_empty()).then(|| {
        format!(
            "this request was restored and does not name {}, which its cluster uses; nothing is taken out until it names them once",
            hosts.join(", ")
        )
    })
}

fn orphaned_worker(machine: &Machine) -> String {
    format!(
        "MachineDeployment {} is gone, and its Machine {} runs on {}; nothing is done to it: apply the MachineDeployment again as it was, \
         or take the host out of the request and delete the Machine",
        machine.deployment().unwrap_or_default(),
        machine.name_any(),
        machine.server().unwrap_or_default()
    )
}

/// What is to be said of hosts that BYOH has lost sight of, and of what the owner has said about them.
pub fn lost_sight(request: &ProvisioningRequest, observed: &Observed) -> Vec<String> {
    let detached = observed.held().filter_map(|host| detached(request, host, observed));
    detached.chain(consent::misdirected(request, observed)).collect()
}

/// What is to be said of a host from whose status somebody has taken the machine that runs on it.
fn detached(request: &ProvisioningRequest, host: &ByoHost, observed: &Observed) -> Option<String> {
    let machine = observed.is_detached(host)?;
    Some(format!(
        "{}: somebody has taken status.machineRef off its ByoHost, though its Machine {} runs; nothing keeps that ByoHost from being \
         deleted now. To put it back: {}",
        host.display(),
        machine.name_any(),
        consent::command(request, observed, names::RESTORE_ANNOTATION, &host.uid().unwrap_or_default())
    ))
}

fn template(request: &ProvisioningRequest, observed: &Observed) -> Result<Arc<ClusterTemplate>, Refusal> {
    let (name, version) = (&request.spec.template_name, &request.spec.template_version);
    if let Some(template) = &observed.template {
        return match misplaced_default(template) {
            Some(field) if !observed.is_running() => Err(Refusal::waiting(
                reason::TEMPLATE_UNAVAILABLE,
                format!(
                    "ClusterTemplate {}: defaults must not have {field}; every request gives its own",
                    template.name_any()
                ),
            )),
            _ => Ok(Arc::clone(template)),
        };
    }
    if observed.is_running() && !adds_workers(request, observed) {
        // What the cluster was made with stands in its objects.
        return Ok(Arc::new(bare_template(name, version)));
    }
    Err(Refusal::waiting(
        reason::TEMPLATE_UNAVAILABLE,
        format!(
            "ClusterTemplate {name}-{version} (spec.name {name}, spec.version {version}) exists neither in namespace {} nor in {}",
            request.namespace().unwrap_or_default(),
            names::OPERATOR_NAMESPACE
        ),
    ))
}

/// What tells requests apart, and is read before there is a template.
fn misplaced_default(template: &ClusterTemplate) -> Option<&'static str> {
    let defaults = template.spec.defaults.as_ref()?;
    ["clusterName", "clusterProvisioner", "controlPlaneEndpoint", "hosts"]
        .into_iter()
        .find(|field| !defaults[field].is_null())
}

/// Whether the request names a worker that has no MachineDeployment yet.
fn adds_workers(request: &ProvisioningRequest, observed: &Observed) -> bool {
    let namespace = request.namespace().unwrap_or_default();
    request
        .spec
        .template_parameters
        .hosts
        .iter()
        .flat_map(|hosts| &hosts.workers)
        .any(|host| !observed.deployments.contains_key(&names::worker(&namespace, &observed.cluster_name, host.name())))
}

/// A template that says nothing: its time limits are the defaults.
fn bare_template(name: &str, version: &str) -> ClusterTemplate {
    let spec = ClusterTemplateSpec {
        name: name.to_owned(),
        version: version.to_owned(),
        description: String::new(),
        parameter_schema: None,
        defaults: None,
        install: Install::default(),
        cni: None,
        virtual_ip: VirtualIp::default(),
        deletion_protection: false,
        timeouts: Timeouts::default(),
        kubeadm: Kubeadm::default(),
    };
    ClusterTemplate::new(&format!("{name}-{version}"), spec)
}

/// The request's parameters with the template's defaults, checked against the template's schema and the fixed rules.
fn parameters(
    request: &ProvisioningRequest,
    template: &ClusterTemplate,
    observed: &Observed,
    warnings: &mut Vec<String>,
) -> Result<TemplateParameters, Refusal> {
    let mut given = request.spec.template_parameters.clone();
    if given.k8s_version.is_none() {
        // The template's default may have moved on; a cluster that is there has not.
        given.k8s_version = observed.control_plane.as_ref().map(|object| object.spec.version.clone());
    }
    let given = serde_json::to_value(&given)
        .map_err(|error| Refusal::invalid(format!("templateParameters cannot be read: {error}")))?;
    let merged = schema::with_defaults(given, template.spec.defaults.as_ref());
    let mut wrong = Vec::new();
    if let Some(wanted) = &template.spec.parameter_schema {
        let mut checked = merged.clone();
        if let Some(fields) = checked.as_object_mut()
            && wanted["properties"]["clusterProvisioner"].is_null()
        {
            // The API server has filled it in: a template that does not know it means nothing against it.
            fields.remove("clusterProvisioner");
        }
        match schema::check(&checked, wanted) {
            // A template is for new clusters; what a running one does not fulfil has no effect on it.
            Ok(found) if observed.is_running() => warnings.extend(found),
            Ok(found) => wrong.extend(found),
            Err(_) if observed.is_running() => {}
            Err(error) => {
                let name = template.name_any();
                let message = format!("ClusterTemplate {name}: parameterSchema {error}");
                return Err(Refusal::waiting(reason::TEMPLATE_UNAVAILABLE, message));
            }
        }
    }
    let mut parameters: TemplateParameters = serde_json::from_value(merged)
        .map_err(|error| Refusal::invalid(format!("templateParameters with the template's defaults: {error}")))?;
    if observed.is_running() {
        // The networks are those of the Cluster; today's defaults may be others.
        (parameters.pod_cidr, parameters.service_cidr) = (None, None);
    }
    wrong.extend(validation::violations(&parameters));
    if wrong.is_empty() { Ok(parameters) } else { Err(Refusal::invalid(wrong.join("; "))) }
}

fn asked(parameters: &TemplateParameters, role: impl Fn(&Hosts) -> &Vec<HostRef>) -> Vec<AskedHost> {
    parameters.hosts.as_ref().map(|hosts| role(hosts).iter().map(AskedHost::of).collect()).unwrap_or_default()
}

/// Combinations that are known to break are refused, not tried.
fn installation(template: &ClusterTemplate, observed: &Observed) -> Result<(), Refusal> {
    if template.spec.install.method == InstallMethod::Bundle && observed.dialect == Some(Dialect::Upstream) {
        return Err(Refusal::waiting(
            reason::UNSUPPORTED,
            format!(
                "ClusterTemplate {} uses install.method bundle, which destroys its own bootstrap Secret with upstream BYOH v0.5.0 \
                 and Cluster API 1.7 or later; use install.method none, or platform9's BYOH",
                template.name_any()
            ),
        ));
    }
    Ok(())
}

fn resource_set_labels(
    namespace: &str,
    template: &ClusterTemplate,
    observed: &Observed,
) -> Result<BTreeMap<String, String>, Refusal> {
    let Some(cni) = &template.spec.cni else { return Ok(BTreeMap::new()) };
    let name = &cni.cluster_resource_set;
    match &observed.resource_set {
        ResourceSetLookup::Labels(labels) if !labels.is_empty() => Ok(labels.clone()),
        ResourceSetLookup::Labels(_) => Err(Refusal::waiting(
            reason::TEMPLATE_UNAVAILABLE,
            format!(
                "ClusterResourceSet {namespace}/{name} (the CNI of ClusterTemplate {}) selects clusters by no label; give it spec.clusterSelector.matchLabels",
                template.name_any()
            ),
        )),
        ResourceSetLookup::Missing => Err(Refusal::waiting(
            reason::TEMPLATE_UNAVAILABLE,
            format!(
                "ClusterResourceSet {namespace}/{name} (the CNI of ClusterTemplate {}) does not exist; examples/cni.yaml shows one",
                template.name_any()
            ),
        )),
    }
}

fn endpoint(
    parameters: &TemplateParameters,
    template: &ClusterTemplate,
    masters: &[AskedHost],
    observed: &Observed,
) -> Result<Endpoint, Refusal> {
    // The address stands in every node's kubeconfig: a host that reports its addresses in another order, or others, does
    // not move a cluster that is there. Nor is it checked again: the master that carries a virtual address reports it as its own.
    let made = observed.own_cluster().and_then(|cluster| cluster.spec.control_plane_endpoint.as_ref());
    if let Some(made) = made.filter(|_| observed.is_running() || parameters.control_plane_endpoint.is_none()) {
        return Ok(Endpoint { host: made.host.clone(), port: made.port, virtual_ip: false });
    }
    let of_masters: Vec<IpAddr> =
        masters.iter().filter_map(|host| observed.host(&host.name)).flat_map(ByoHost::addresses).collect();
    if let Some(asked) = &parameters.control_plane_endpoint {
        let address = asked.host.parse::<IpAddr>().ok();
        let own = address.is_some_and(|address| of_masters.contains(&address));
        if own && masters.len() > 1 {
            return Err(Refusal::invalid(format!(
                "controlPlaneEndpoint.host {} is the address of one of {} masters; it must be a virtual address or a load balancer",
                asked.host,
                masters.len()
            )));
        }
        let carried = template.spec.virtual_ip.provider == VirtualIpProvider::KubeVip;
        return Ok(Endpoint {
            host: asked.host.clone(),
            port: asked.port,
            virtual_ip: carried && address.is_some() && !own,
        });
    }
    // Without a host the availability check speaks; the address is not needed for that.
    let host = masters
        .first()
        .and_then(|master| observed.host(&master.name))
        .and_then(|host| host.addresses().first().copied());
    Ok(Endpoint {
        host: host.map(|address| address.to_string()).unwrap_or_default(),
        port: API_PORT,
        virtual_ip: false,
    })
}

/// Every host exists, is the one that was meant, is alive, and is free or already held by this request. What is not so of a host
/// that is a node of the running cluster is returned: it is no reason to do anything.
fn available(
    request: &ProvisioningRequest,
    valid: &Valid,
    parameters: &TemplateParameters,
    observed: &Observed,
) -> Result<Vec<String>, Refusal> {
    let refs = parameters.hosts.iter().flat_map(Hosts::all);
    let (mut wrong, mut warnings) = (Vec::new(), Vec::new());
    for ((asked, _), reference) in valid.hosts().zip(refs) {
        let host = observed.host(&asked.name);
        let problem = match host {
            None => Some(format!("is not registered in namespace {}", valid.namespace)),
            Some(host) => unavailable(request, asked, reference, host, observed),
        };
        let Some(problem) = problem.map(|problem| format!("{asked} {problem}")) else { continue };
        let is_node = observed.is_running() && observed.node(&asked.name).is_some();
        if is_node { warnings.push(problem) } else { wrong.push(problem) }
    }
    if wrong.is_empty() && valid.endpoint.host.is_empty() {
        wrong.push(format!("{} reports no address that could be the control plane's endpoint", valid.masters[0]));
    }
    if wrong.is_empty() { Ok(warnings) } else { Err(Refusal::hosts(&wrong)) }
}

fn unavailable(
    request: &ProvisioningRequest,
    asked: &AskedHost,
    reference: &HostRef,
    host: &ByoHost,
    observed: &Observed,
) -> Option<String> {
    let namespace = &request.namespace().unwrap_or_default();
    if let Some(id) = host.host_id().filter(|id| *id != asked.id) {
        return Some(format!("is not that host: ByoHost {namespace}/{} has the label host-id={id}", asked.name));
    }
    if host.host_id().is_none()
        && let Some(other) = observed.bearer_of_id(&asked.id)
    {
        return Some(format!("is not that host: host-id={} is the label of ByoHost {other}", asked.id));
    }
    if let Some(ip) = &reference.host_ip
        && !ip.parse::<IpAddr>().is_ok_and(|ip| host.addresses().contains(&ip))
    {
        return Some(format!("does not have the address {ip} (hostIp)"));
    }
    if let Some(machine) = observed.is_registered_anew(host).filter(|_| !observed.holds(host)) {
        return Some(format!(
            "runs the node of Machine {}, but its ByoHost was registered anew, so BYOH takes it for free; nothing is done to it. To \
             give it back to its Machine: {}",
            machine.name_any(),
            consent::command(request, observed, names::RESTORE_ANNOTATION, &host.uid().unwrap_or_default())
        ));
    }
    if observed.holds(host) {
        return None;
    }
    if let Some(machine) = observed.foreign_nodes.get(&asked.name) {
        return Some(format!(
            "runs the node of Machine {}, but its ByoHost was registered anew, so BYOH takes it for free; the request of that cluster \
             says how to give it back, or to clean it",
            machine.name_any()
        ));
    }
    if observed.orphans.contains(&asked.name) {
        return Some(orphaned(host, namespace));
    }
    if host.holder().is_some() {
        return Some(format!("is held by ProvisioningRequest {}", host.holder_name()));
    }
    host.busy().or_else(|| host.dead())
}

/// Why a host whose holder is gone cannot be had, and what makes it free.
fn orphaned(host: &ByoHost, namespace: &str) -> String {
    let Some(holder) = host.annotations().get(names::REQUEST_ANNOTATION) else {
        return format!(
            "is held by nobody that is known; take the label {} off ByoHost {namespace}/{}",
            names::REQUEST_UID_LABEL,
            host.name_any()
        );
    };
    let held = format!("is held by an earlier ProvisioningRequest {holder} that does not exist any more");
    match host.busy() {
        Some(busy) if host.is_unregistering() => format!("{held}, and {busy}"),
        Some(busy) => format!(
            "{held}, and {busy}; apply that request again, as it was, to have its cluster looked after, and delete it if the cluster is to go"
        ),
        None => format!("{held}; it comes free when its Cluster is deleted"),
    }
}
