//! Validation: whether the request is correct, and can be carried out as far as the caches show. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use cluster_api::byoh::{ByoHost, ByohVariant};
use kube::ResourceExt as _;
use o2ims_types::conditions::reason;
use o2ims_types::o2ims::v1alpha1::cluster_template::{
    ClusterTemplateSpec, Install, InstallMethod, Kubeadm, VirtualIp, VirtualIpProvider,
};
use o2ims_types::o2ims::v1alpha1::provisioning_request::{API_PORT, Hosts};
use o2ims_types::o2ims::v1alpha1::timeouts::Timeouts;
use o2ims_types::{ClusterTemplate, HostRef, ProvisioningRequest, TemplateParameters, names, rules};

use super::availability::available;
use super::consent::unmanaged_workers;
use super::desired::{DesiredCluster, Endpoint, RequestedHost};
use super::marks::{MarkedCluster as _, MarkedHost as _};
use super::observed::{Observed, ResourceSetLookup};
use super::warnings::{lost_sight, unmanaged_worker, unnamed_hosts};
use crate::provisioner::report::Rejection;

/// Checks `request` against what is there.
///
/// # Errors
/// A [`Rejection`] that says what to do.
pub fn validate(request: &ProvisioningRequest, observed: &Observed) -> Result<DesiredCluster, Rejection> {
    let namespace = request.namespace().unwrap_or_default();
    if namespace.len() > names::NAMESPACE_MAX {
        return Err(Rejection::invalid(format!(
            "namespace {namespace} is too long: BYOH can create clusters in namespaces of at most {} characters",
            names::NAMESPACE_MAX
        )));
    }
    let provisioner = &request.spec.template_parameters.cluster_provisioner;
    if provisioner != rules::BYOH {
        return Err(Rejection::unknown_provisioner(provisioner, [rules::BYOH]));
    }
    let template = find_template(request, observed)?;
    let mut warnings = Vec::new();
    let parameters = merged_parameters(request, &template, observed, &mut warnings)?;
    let masters = requested_hosts(&parameters, |hosts| &hosts.masters);
    let workers = requested_hosts(&parameters, |hosts| &hosts.workers);
    let cluster = parameters.cluster_name.clone().unwrap_or_default();
    let mut labels = parameters.labels.clone().unwrap_or_default();
    if !observed.is_created {
        check_install_method(&template, observed)?;
        labels.extend(resource_set_labels(&namespace, &template, observed)?);
    }
    // Once the Cluster is created, nobody can take its name or endpoint, so contention does not count any more.
    if let Some(message) = observed.contention.as_ref().filter(|_| !observed.is_created) {
        return Err(Rejection::waiting(reason::NAME_TAKEN, message));
    }
    reject_immutable_changes(&parameters, &masters, observed)?;
    let endpoint = select_endpoint(&parameters, &template, &masters, observed)?;
    let mut valid = DesiredCluster {
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
    valid.warnings.extend(unmanaged_workers(observed).map(unmanaged_worker));
    valid.warnings.extend(lost_sight(request, observed));
    Ok(valid)
}

/// Rejects a request whose immutable fields differ from its running cluster. The ValidatingAdmissionPolicy refuses such an edit first, where
/// it is installed.
fn reject_immutable_changes(
    parameters: &TemplateParameters,
    masters: &[RequestedHost],
    observed: &Observed,
) -> Result<(), Rejection> {
    let (Some(cluster), Some(control_plane)) = (observed.own_cluster(), &observed.control_plane) else { return Ok(()) };
    if cluster.is_creating() {
        return Ok(());
    }
    let mut wrong = Vec::new();
    let mut differs = |field: &str, is: &str, requested: &str| {
        wrong.push(format!(
            "{field} cannot change while the cluster exists: the cluster has {is}, the request has {requested}. Set it back to {is}; or \
             delete this request, which deletes the cluster, and create a new request"
        ));
    };
    let version = parameters.k8s_version.as_deref().unwrap_or_default();
    if version != control_plane.spec.version {
        differs("k8sVersion", &control_plane.spec.version, version);
    }
    let names = |all: &mut dyn Iterator<Item = String>| all.collect::<Vec<_>>().join(", ");
    let held: Vec<_> = observed.held().filter(|host| host.is_held_as_master()).map(|host| host.name_any()).collect();
    let is_new = |requested: &&RequestedHost| {
        observed.node(&requested.name).is_none()
            && observed.host(&requested.name).is_some_and(|host| !observed.holds(host))
    };
    let removed = held.iter().any(|name| !masters.iter().any(|requested| requested.name == *name));
    let existing_replicas =
        control_plane.spec.replicas.and_then(|replicas| usize::try_from(replicas).ok()).unwrap_or_default();
    // A host that only lost its mark is not an additional one.
    let grows =
        masters.len() > existing_replicas && !held.is_empty() && masters.iter().any(|requested| is_new(&requested));
    if removed || grows {
        let requested = names(&mut masters.iter().map(|requested| requested.name.clone()));
        differs("hosts.masters", &names(&mut held.into_iter()), &requested);
    }
    let existing_endpoint = cluster.spec.control_plane_endpoint.as_ref();
    if let (Some(requested), Some(existing)) = (&parameters.control_plane_endpoint, existing_endpoint)
        && (requested.host != existing.host || requested.port != existing.port)
    {
        let text = |host: &str, port: i32| format!("{host}:{port}");
        differs("controlPlaneEndpoint", &text(&existing.host, existing.port), &text(&requested.host, requested.port));
    }
    if wrong.is_empty() { Ok(()) } else { Err(Rejection::invalid(wrong.join("; "))) }
}

fn find_template(request: &ProvisioningRequest, observed: &Observed) -> Result<Arc<ClusterTemplate>, Rejection> {
    let (name, version) = (&request.spec.template_name, &request.spec.template_version);
    if let Some(template) = &observed.template {
        return match misplaced_default(template) {
            Some(field) if !observed.is_created => Err(Rejection::waiting(
                reason::TEMPLATE_UNAVAILABLE,
                format!(
                    "ClusterTemplate {}: spec.defaults must not contain {field}; remove it there, and set it in the requests",
                    template.name_any()
                ),
            )),
            _ => Ok(Arc::clone(template)),
        };
    }
    if observed.is_created && !adds_workers(request, observed) {
        // The parameters that the cluster was created with are in its objects.
        return Ok(Arc::new(bare_template(name, version)));
    }
    Err(Rejection::waiting(
        reason::TEMPLATE_UNAVAILABLE,
        format!(
            "ClusterTemplate {name}-{version} (spec.name {name}, spec.version {version}) exists neither in namespace {} nor in {}",
            request.namespace().unwrap_or_default(),
            names::OPERATOR_NAMESPACE
        ),
    ))
}

/// A field that `defaults` must not contain: it differs between requests, or is read before the template is looked up.
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

/// A template without settings: its time limits are the defaults.
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
fn merged_parameters(
    request: &ProvisioningRequest,
    template: &ClusterTemplate,
    observed: &Observed,
    warnings: &mut Vec<String>,
) -> Result<TemplateParameters, Rejection> {
    let mut given = request.spec.template_parameters.clone();
    if given.k8s_version.is_none() {
        // The template's default may have changed; an existing cluster keeps its version.
        given.k8s_version = observed.control_plane.as_ref().map(|object| object.spec.version.clone());
    }
    let given = serde_json::to_value(&given)
        .map_err(|error| Rejection::invalid(format!("templateParameters cannot be read: {error}")))?;
    let merged = template_schema::with_defaults(given, template.spec.defaults.as_ref());
    let mut wrong = Vec::new();
    if let Some(wanted) = &template.spec.parameter_schema {
        let mut checked = merged.clone();
        if let Some(fields) = checked.as_object_mut()
            && wanted["properties"]["clusterProvisioner"].is_null()
        {
            // The API server sets the default of clusterProvisioner, so it is always present. A schema with additionalProperties: false that
            // does not list it would reject every request, so it is left out of the check.
            fields.remove("clusterProvisioner");
        }
        match template_schema::check(&checked, wanted) {
            // A template is for new clusters; for a running one its violations are warnings.
            Ok(found) if observed.is_created => warnings.extend(found),
            Ok(found) => wrong.extend(found),
            Err(_) if observed.is_created => {}
            Err(error) => {
                let name = template.name_any();
                let message = format!("ClusterTemplate {name}: parameterSchema {error}");
                return Err(Rejection::waiting(reason::TEMPLATE_UNAVAILABLE, message));
            }
        }
    }
    let mut parameters: TemplateParameters = serde_json::from_value(merged)
        .map_err(|error| {
            Rejection::invalid(format!(
                "templateParameters with the defaults of ClusterTemplate {} filled in cannot be decoded: {error}; correct the request or \
                 spec.defaults",
                template.name_any()
            ))
        })?;
    if observed.is_created {
        // The networks are those of the Cluster; today's defaults may differ.
        (parameters.pod_cidr, parameters.service_cidr) = (None, None);
    }
    wrong.extend(rules::fields_in_rust::violations(&parameters));
    if wrong.is_empty() { Ok(parameters) } else { Err(Rejection::invalid(wrong.join("; "))) }
}

fn requested_hosts(parameters: &TemplateParameters, role: impl Fn(&Hosts) -> &Vec<HostRef>) -> Vec<RequestedHost> {
    parameters.hosts.as_ref().map(|hosts| role(hosts).iter().map(RequestedHost::of).collect()).unwrap_or_default()
}

/// Rejects an install method that does not work with the installed BYOH.
fn check_install_method(template: &ClusterTemplate, observed: &Observed) -> Result<(), Rejection> {
    if template.spec.install.method == InstallMethod::Bundle && observed.variant == Some(ByohVariant::Upstream) {
        return Err(Rejection::waiting(
            reason::UNSUPPORTED,
            format!(
                "ClusterTemplate {}: install.method bundle does not work with upstream BYOH: its installation Secret overwrites the \
                 bootstrap Secret of the same name. Use install.method installer or none, or Platform9's BYOH",
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
) -> Result<BTreeMap<String, String>, Rejection> {
    let Some(cni) = &template.spec.cni else { return Ok(BTreeMap::new()) };
    let name = &cni.cluster_resource_set;
    match &observed.resource_set {
        ResourceSetLookup::Labels(labels) if !labels.is_empty() => Ok(labels.clone()),
        ResourceSetLookup::Labels(_) => Err(Rejection::waiting(
            reason::TEMPLATE_UNAVAILABLE,
            format!(
                "ClusterResourceSet {namespace}/{name} (spec.cni of ClusterTemplate {}) has no spec.clusterSelector.matchLabels: add at least one label",
                template.name_any()
            ),
        )),
        ResourceSetLookup::Missing => Err(Rejection::waiting(
            reason::TEMPLATE_UNAVAILABLE,
            format!(
                "ClusterResourceSet {namespace}/{name} (spec.cni of ClusterTemplate {}) does not exist: create it",
                template.name_any()
            ),
        )),
    }
}

/// Where the cluster's API is to answer: where the existing Cluster says, at the requested endpoint, or at the first master.
fn select_endpoint(
    parameters: &TemplateParameters,
    template: &ClusterTemplate,
    masters: &[RequestedHost],
    observed: &Observed,
) -> Result<Endpoint, Rejection> {
    // The address is in every node's kubeconfig: a host that reports its addresses in another order, or others, does not change the endpoint
    // of an existing cluster. Nor is it checked again: the master that has the virtual IP reports it as its own address.
    let existing = observed.own_cluster().and_then(|cluster| cluster.spec.control_plane_endpoint.as_ref());
    if let Some(existing) = existing.filter(|_| observed.is_created || parameters.control_plane_endpoint.is_none()) {
        return Ok(Endpoint { host: existing.host.clone(), port: existing.port, virtual_ip: false });
    }
    let of_masters: Vec<IpAddr> =
        masters.iter().filter_map(|host| observed.host(&host.name)).flat_map(ByoHost::addresses).collect();
    if let Some(requested) = &parameters.control_plane_endpoint {
        let address = requested.host.parse::<IpAddr>().ok();
        let own = address.is_some_and(|address| of_masters.contains(&address));
        if own && masters.len() > 1 {
            return Err(Rejection::invalid(format!(
                "controlPlaneEndpoint.host {} is the address of one of {} masters; it must be a virtual IP or a load balancer",
                requested.host,
                masters.len()
            )));
        }
        let by_kube_vip = template.spec.virtual_ip.provider == VirtualIpProvider::KubeVip;
        return Ok(Endpoint {
            host: requested.host.clone(),
            port: requested.port,
            virtual_ip: by_kube_vip && address.is_some() && !own,
        });
    }
    // If the first master has no ByoHost or no address, the endpoint is empty, and `available` rejects the request.
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
