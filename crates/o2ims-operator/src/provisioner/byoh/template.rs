//! What is wrong with a ClusterTemplate, whatever requests it. Its author is told in its status; a request for which it matters is told the
//! same, found by the same functions. Pure.

use cluster_api::byoh::ByohVariant;
use ipnet::IpNet;
use o2ims_types::o2ims::v1alpha1::cluster_template::InstallMethod;
use o2ims_types::{ClusterTemplateSpec, TemplateParameters, rules};
use serde_json::json;
use template_schema::SchemaError;

use super::kubeadm;
use super::manifests::cluster::SERVICE_DOMAIN;
use super::networks::pod_cidr_size;

/// What `defaults` must not contain: it differs between requests, or is read before the template is looked up.
const NO_DEFAULTS: [&str; 4] = ["clusterName", "clusterProvisioner", "controlPlaneEndpoint", "hosts"];

/// Everything that only a change of the template puts right, each with its field and what to do.
pub fn problems(spec: &ClusterTemplateSpec) -> Vec<String> {
    let mut found = misplaced_defaults(spec);
    found.extend(unusable_schema(spec));
    found.extend(wrong_defaults(spec));
    found.extend(wrong_settings(spec));
    found
}

/// Why the install method does not work with the installed BYOH.
pub fn unsupported_method(spec: &ClusterTemplateSpec, variant: Option<ByohVariant>) -> Option<String> {
    let is_unsupported = spec.install.method == InstallMethod::Bundle && variant == Some(ByohVariant::Upstream);
    is_unsupported.then(|| {
        "install.method bundle does not work with upstream BYOH: its installation Secret overwrites the bootstrap Secret of the same name. \
         Use install.method installer or none, or Platform9's BYOH"
            .to_owned()
    })
}

/// Fields that `defaults` contain and must not.
pub fn misplaced_defaults(spec: &ClusterTemplateSpec) -> Vec<String> {
    let Some(defaults) = &spec.defaults else { return Vec::new() };
    NO_DEFAULTS
        .into_iter()
        .filter(|field| !defaults[field].is_null())
        .map(|field| format!("spec.defaults must not contain {field}; remove it there, and set it in the requests"))
        .collect()
}

/// Whether `parameterSchema` can be used, whatever it says of parameters.
fn unusable_schema(spec: &ClusterTemplateSpec) -> Option<String> {
    let checked = template_schema::check(&json!({}), spec.parameter_schema.as_ref()?);
    checked.err().map(|error| schema_problem(&error))
}

/// What is wrong with a `parameterSchema` that cannot be used.
pub fn schema_problem(error: &SchemaError) -> String {
    format!("parameterSchema {error}; correct it, or remove it")
}

/// Rules that the defaults break, whatever a request adds to them.
fn wrong_defaults(spec: &ClusterTemplateSpec) -> Vec<String> {
    let mut defaults = spec.defaults.clone().unwrap_or_else(|| json!({}));
    if let Some(fields) = defaults.as_object_mut() {
        fields.retain(|field, _| !NO_DEFAULTS.contains(&field.as_str()));
    }
    let parameters: TemplateParameters = match serde_json::from_value(defaults) {
        Ok(parameters) => parameters,
        Err(error) => return vec![format!("spec.defaults cannot be decoded: {error}; correct them")],
    };
    let mut found = rules::fields_in_rust::value_violations(&parameters);
    found.extend(rules::fields_in_rust::new_cluster_violations(&parameters));
    let pods = parameters.pod_cidr.as_deref().and_then(|text| text.parse::<IpNet>().ok());
    // No cluster has less than one node.
    found.extend(pods.and_then(|pods| pod_cidr_size(pods, &spec.kubeadm, 1)));
    found.into_iter().map(|violation| format!("spec.defaults: {violation}")).collect()
}

/// Settings of kubeadm that clusters cannot have.
pub fn wrong_settings(spec: &ClusterTemplateSpec) -> Vec<String> {
    let mut found = contradicting_settings(spec);
    let settings = [("controlPlane", &spec.kubeadm.control_plane), ("workers", &spec.kubeadm.workers)];
    for (part, settings) in settings.into_iter().filter_map(|(part, settings)| Some((part, settings.as_ref()?))) {
        let gone = kubeadm::without_current_form(settings).into_iter();
        found.extend(gone.map(|(path, remedy)| {
            format!("spec.kubeadm.{part}.{path} has no equivalent in v1beta2 of Cluster API; {remedy}")
        }));
    }
    found
}

/// Settings that contradict the Cluster, which has their values. A network that is the template's default too is none.
fn contradicting_settings(spec: &ClusterTemplateSpec) -> Vec<String> {
    const SETTINGS: [(&str, &str); 6] = [
        ("networking.podSubnet", "set podCidr in defaults or in the request"),
        ("networking.serviceSubnet", "set serviceCidr in defaults or in the request"),
        ("networking.dnsDomain", "clusters have the domain cluster.local"),
        ("controlPlaneEndpoint", "set controlPlaneEndpoint in the request"),
        ("kubernetesVersion", "set k8sVersion in defaults or in the request"),
        ("clusterName", "set clusterName in the request"),
    ];
    let Some(control_plane) = &spec.kubeadm.control_plane else { return Vec::new() };
    let config = &control_plane["clusterConfiguration"];
    let defaults: Vec<_> = spec.defaults.iter().flat_map(|all| [&all["podCidr"], &all["serviceCidr"]]).collect();
    let contradicts = |path: &str| {
        let value = path.split('.').fold(config, |value, field| &value[field]);
        let is_same = defaults.contains(&value) || path == "networking.dnsDomain" && value == SERVICE_DOMAIN;
        !value.is_null() && value != "" && !is_same
    };
    SETTINGS
        .into_iter()
        .filter(|(path, _)| contradicts(path))
        .map(|(path, remedy)| {
            format!(
                "spec.kubeadm.controlPlane.clusterConfiguration.{path} contradicts the Cluster; remove it there: {remedy}"
            )
        })
        .collect()
}
