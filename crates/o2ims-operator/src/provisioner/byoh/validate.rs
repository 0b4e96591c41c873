//! Validation: whether the request is correct, and can be carried out as far as the caches show. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use cluster_api::Kind;
use cluster_api::byoh::ByoHost;
use cluster_api::machine::Machine;
use kube::ResourceExt as _;
use o2ims_types::conditions::reason;
use o2ims_types::o2ims::v1alpha1::cluster_template::{ClusterTemplateSpec, Install, Kubeadm, Upgrade, VirtualIp};
use o2ims_types::o2ims::v1alpha1::provisioning_request::Hosts;
use o2ims_types::o2ims::v1alpha1::timeouts::Timeouts;
use o2ims_types::rules::PARAMETERS;
use o2ims_types::{ClusterTemplate, HostRef, ProvisioningRequest, TemplateParameters, names, rules};
use operator_kit::text;

use super::availability::available;
use super::consent::unmanaged_workers;
use super::desired::{DesiredCluster, RequestedHost};
use super::endpoint::{select_endpoint, ties_masters, unreachable_from};
use super::marks::MarkedCluster as _;
use super::masters;
use super::networks;
use super::observed::{Observed, Phase, ResourceSetLookup};
use super::template::{misplaced_defaults, schema_problem, unsupported_method, wrong_settings};
use super::upgrade::hop::{self, half_upgraded};
use super::upgrade::strategy;
use super::warnings::{lost_sight, unmanaged_worker, unnamed_hosts};
use crate::provisioner::report::Rejection;

/// Checks `request` against what is there.
///
/// # Errors
/// A [`Rejection`] that says what to do.
pub fn validate(request: &ProvisioningRequest, observed: &Observed) -> Result<DesiredCluster, Rejection> {
    let namespace = request.namespace().unwrap_or_default();
    reject_long_namespace(&namespace)?;
    let provisioner = &request.spec.template_parameters.cluster_provisioner;
    if provisioner != rules::BYOH {
        return Err(Rejection::unknown_provisioner(provisioner, [rules::BYOH]));
    }
    let is_new = is_new_cluster(request, observed);
    let template = find_template(request, observed)?;
    let mut warnings = Vec::new();
    let parameters = merged_parameters(request, &template, observed, is_new, &mut warnings)?;
    let masters = requested_hosts(&parameters, |hosts| &hosts.masters);
    let workers = requested_hosts(&parameters, |hosts| &hosts.workers);
    let cluster = parameters.cluster_name.clone().unwrap_or_default();
    let mut labels = parameters.labels.clone().unwrap_or_default();
    if !observed.is_created {
        let unsupported = unsupported_method(&template.spec, observed.variant);
        reject_template(&template, reason::UNSUPPORTED, unsupported.as_slice())?;
        let selected = resource_set_labels(&namespace, &template, observed)?;
        if is_new {
            reject_other_value(&labels, &selected, &template)?;
        }
        labels.extend(selected);
    }
    // Once the Cluster is created, nobody can take its name or endpoint, so contention does not count any more.
    if let Some(message) = observed.contention.as_ref().filter(|_| !observed.is_created) {
        return Err(Rejection::waiting(reason::NAME_TAKEN, message));
    }
    reject_immutable_changes(request, &parameters, &template, observed)?;
    let endpoint = select_endpoint(&parameters, &template, observed, is_new)?;
    let target = hop::target(request, &template, observed);
    let mut valid = DesiredCluster {
        namespace,
        cluster,
        version: existing_version(observed).or_else(|| parameters.k8s_version.clone()).unwrap_or_default(),
        is_rolling: strategy::is_rolling(request, target.as_deref(), &template, observed),
        target,
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
    if is_new {
        let wrong = wrong_settings(&valid.template.spec);
        reject_template(&valid.template, reason::TEMPLATE_UNAVAILABLE, &wrong)?;
        reject_impossible_networks(&valid, &parameters, observed)?;
    }
    let warnings = available(request, &valid, &parameters, observed)?;
    valid.warnings.extend(warnings);
    valid.warnings.extend(unnamed_hosts(request, observed));
    valid.warnings.extend(unmanaged_workers(observed).map(unmanaged_worker));
    valid.warnings.extend(lost_sight(request, observed));
    Ok(valid)
}

fn reject_long_namespace(namespace: &str) -> Result<(), Rejection> {
    if namespace.len() <= names::NAMESPACE_MAX {
        return Ok(());
    }
    Err(Rejection::invalid(format!(
        "namespace {namespace} is too long: BYOH can create clusters in namespaces of at most {} characters. Create the request in one with a \
         shorter name",
        names::NAMESPACE_MAX
    )))
}

/// Whether nothing of the cluster exists, as far as is known, and the request holds no host. Only then do the rules for new clusters apply: what an
/// earlier release began is continued, and a Cluster that somebody else deleted is created again.
fn is_new_cluster(request: &ProvisioningRequest, observed: &Observed) -> bool {
    let is_recorded = request.status.as_ref().is_some_and(|status| status.provisioned_resource_set.is_some());
    observed.own_cluster().is_none()
        && observed.phase != Phase::Lost
        && observed.held().next().is_none()
        && !is_recorded
}

/// The version of the control plane of a cluster that is created.
fn existing_version(observed: &Observed) -> Option<String> {
    let control_plane = observed.control_plane.as_ref().filter(|_| observed.is_created)?;
    Some(control_plane.spec.version.clone())
}

/// Why the masters of a running cluster cannot change as the request says, and what to do; `None` if they can, or do not change.
fn refused_masters(
    request: &ProvisioningRequest,
    parameters: &TemplateParameters,
    template: &ClusterTemplate,
    observed: &Observed,
) -> Option<String> {
    let requested: Vec<_> = parameters.hosts.iter().flat_map(|hosts| &hosts.masters).collect();
    let existing = masters::existing(observed);
    let is_new = |host: &&&HostRef| {
        let lost_its_mark = observed.node(host.name()).is_some_and(Machine::is_master);
        // A master that comes back, after its machine was replaced.
        let has_no_role = |host: &ByoHost| observed.holds(host) && !host.labels().contains_key(names::ROLE_LABEL);
        let comes_back = observed.host(host.name()).is_some_and(has_no_role);
        !lost_its_mark && !comes_back && !existing.iter().any(|name| name == host.name())
    };
    let new: Vec<_> = requested.iter().filter(is_new).collect();
    let is_removed = existing.iter().any(|name| !requested.iter().any(|host| host.name() == name));
    if existing.is_empty() || new.is_empty() && !is_removed {
        return None;
    }
    let why = ties_masters(&existing, observed).or_else(|| {
        let host = half_upgraded(request, observed)?;
        Some(format!(
            "{host} is being upgraded, or runs another version of Kubernetes than the control plane. Set hosts.masters back to {}, and change \
             them when every master runs the same version",
            existing.join(", ")
        ))
    });
    let why = why.or_else(|| new.iter().find_map(|host| unreachable_from(host, template, observed)));
    why.map(|why| format!("hosts.masters cannot change: {why}"))
}

/// Rejects a request whose immutable fields differ from its running cluster. The ValidatingAdmissionPolicy refuses such an edit first, where
/// it is installed.
fn reject_immutable_changes(
    request: &ProvisioningRequest,
    parameters: &TemplateParameters,
    template: &ClusterTemplate,
    observed: &Observed,
) -> Result<(), Rejection> {
    let (Some(cluster), Some(control_plane)) = (observed.own_cluster(), &observed.control_plane) else { return Ok(()) };
    if cluster.is_creating() {
        return Ok(());
    }
    let differs = |field: &str, object: &str, is: &str, requested: &str| {
        format!(
            "{field} cannot change while the cluster exists: {object} has {is}, the request has {requested}. If the request was changed, set \
             {field} back to {is}. If {object} was changed, set it back there to {requested}"
        )
    };
    let mut wrong = Vec::new();
    let version = parameters.k8s_version.as_deref().unwrap_or_default();
    wrong.extend(hop::refusal(request, &control_plane.spec.version, version, template, observed));
    wrong.extend(refused_masters(request, parameters, template, observed));
    let existing_endpoint = cluster.spec.control_plane_endpoint.as_ref();
    if let (Some(requested), Some(existing)) = (&parameters.control_plane_endpoint, existing_endpoint)
        && (requested.host != existing.host || requested.port != existing.port)
    {
        let text = |host: &str, port: i32| format!("{host}:{port}");
        let object = format!("{} {}", Kind::Cluster.name(), cluster.name_any());
        let (is, requested) = (text(&existing.host, existing.port), text(&requested.host, requested.port));
        wrong.push(differs("controlPlaneEndpoint", &object, &is, &requested));
    }
    if wrong.is_empty() { Ok(()) } else { Err(Rejection::invalid(wrong.join("; "))) }
}

fn find_template(request: &ProvisioningRequest, observed: &Observed) -> Result<Arc<ClusterTemplate>, Rejection> {
    let (name, version) = (&request.spec.template_name, &request.spec.template_version);
    if let Some(template) = &observed.template {
        if !observed.is_created {
            reject_template(template, reason::TEMPLATE_UNAVAILABLE, &misplaced_defaults(&template.spec))?;
        }
        return Ok(Arc::clone(template));
    }
    if observed.is_created && !adds_workers(request, observed) && !is_upgrading(request, observed) {
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

/// Rejects a request whose template has problems, which its author is told too.
fn reject_template(template: &ClusterTemplate, reason: &'static str, problems: &[String]) -> Result<(), Rejection> {
    if problems.is_empty() {
        return Ok(());
    }
    Err(Rejection::waiting(reason, format!("ClusterTemplate {}: {}", template.name_any(), problems.join("; "))))
}

/// Whether the request asks for another version than the control plane or a node has: how it is upgraded is in the template.
fn is_upgrading(request: &ProvisioningRequest, observed: &Observed) -> bool {
    let Some(asked) = &request.spec.template_parameters.k8s_version else { return false };
    let control_plane = observed.control_plane.iter().map(|object| Some(object.spec.version.as_str()));
    let nodes = request.spec.template_parameters.hosts.iter().flat_map(Hosts::all);
    let nodes = nodes.filter_map(|host| observed.node(host.name())).map(|machine| machine.spec.version.as_deref());
    control_plane.chain(nodes).flatten().any(|version| version != asked)
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
        upgrade: Upgrade::default(),
        kubeadm: Kubeadm::default(),
    };
    ClusterTemplate::new(&format!("{name}-{version}"), spec)
}

/// The request's parameters with the template's defaults, checked against the template's schema and the fixed rules.
fn merged_parameters(
    request: &ProvisioningRequest,
    template: &ClusterTemplate,
    observed: &Observed,
    is_new: bool,
    warnings: &mut Vec<String>,
) -> Result<TemplateParameters, Rejection> {
    let mut given = request.spec.template_parameters.clone();
    if given.k8s_version.is_none() {
        // The template's default may have changed; an existing cluster keeps its version.
        given.k8s_version = observed.control_plane.as_ref().map(|object| object.spec.version.clone());
    }
    let undecodable = |error: serde_json::Error| {
        Rejection::invalid(format!(
            "templateParameters with the defaults of ClusterTemplate {} filled in cannot be decoded: {error}; correct the request or \
             spec.defaults",
            template.name_any()
        ))
    };
    let given = serde_json::to_value(&given).map_err(undecodable)?;
    let defaults = template.spec.defaults.as_ref();
    let merged = template_schema::with_defaults(given.clone(), defaults);
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
            Ok(found) if observed.is_created => warnings.extend(by_schema(&found, template)),
            Ok(found) => wrong.extend(by_schema(&found, template)),
            Err(_) if observed.is_created => {}
            Err(error) => reject_template(template, reason::TEMPLATE_UNAVAILABLE, &[schema_problem(&error)])?,
        }
    }
    let mut parameters: TemplateParameters = serde_json::from_value(merged).map_err(undecodable)?;
    if observed.is_created {
        // The networks are those of the Cluster; today's defaults may differ.
        (parameters.pod_cidr, parameters.service_cidr) = (None, None);
    }
    wrong.extend(rules::fields_in_rust::violations(&parameters));
    if is_new {
        wrong.extend(rules::fields_in_rust::new_cluster_violations(&parameters));
    }
    if wrong.is_empty() {
        return Ok(parameters);
    }
    // The user of the request has not written these.
    let by_default = |field: &&str| {
        let is_default = given[field].is_null() && defaults.is_some_and(|defaults| !defaults[field].is_null());
        is_default && wrong.iter().any(|violation| violation.contains(*field))
    };
    let by_default: Vec<_> = PARAMETERS.into_iter().filter(by_default).collect();
    if !by_default.is_empty() {
        let (fields, name) = (by_default.join(" and "), template.name_any());
        wrong.push(format!("the value of {fields} is from spec.defaults of ClusterTemplate {name}: set it in the request, or correct it there"));
    }
    Err(Rejection::invalid(wrong.join("; ")))
}

/// The violations of the template's schema, with the template that has it.
fn by_schema(violations: &[String], template: &ClusterTemplate) -> Option<String> {
    let name = template.name_any();
    (!violations.is_empty()).then(|| format!("{} (parameterSchema of ClusterTemplate {name})", violations.join("; ")))
}

fn requested_hosts(parameters: &TemplateParameters, role: impl Fn(&Hosts) -> &Vec<HostRef>) -> Vec<RequestedHost> {
    parameters.hosts.as_ref().map(|hosts| role(hosts).iter().map(RequestedHost::of).collect()).unwrap_or_default()
}

/// Rejects labels by which the ClusterResourceSet would not select the cluster.
fn reject_other_value(
    labels: &BTreeMap<String, String>,
    selected: &BTreeMap<String, String>,
    template: &ClusterTemplate,
) -> Result<(), Rejection> {
    let differs = |(key, value): &(&String, &String)| labels.get(*key).is_some_and(|own| own != *value);
    let Some((key, value)) = selected.iter().find(differs) else { return Ok(()) };
    Err(Rejection::invalid(format!(
        "labels: {key} must be {value:?} or left out: the ClusterResourceSet of ClusterTemplate {} (spec.cni) selects clusters by it",
        template.name_any()
    )))
}

fn reject_impossible_networks(
    desired: &DesiredCluster,
    parameters: &TemplateParameters,
    observed: &Observed,
) -> Result<(), Rejection> {
    let hosts = parameters.hosts.iter().flat_map(Hosts::all);
    let wrong = networks::violations(desired, hosts, observed);
    if wrong.is_empty() { Ok(()) } else { Err(Rejection::invalid(text::list(&wrong, "; "))) }
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
