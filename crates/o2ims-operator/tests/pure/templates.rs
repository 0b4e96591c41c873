//! What the author of a template is told in its status, before anybody requests it.

use cluster_api::byoh::ByohVariant;
use k8s_openapi::jiff::Timestamp;
use o2ims_operator::cluster_template::status::assess;
use o2ims_types::conditions::{self, reason};
use o2ims_types::{ClusterTemplate, ClusterTemplateStatus, rules};
use operator_kit::write::status::find;
use serde_json::{Value, json};

use crate::model::{World, request, template};

const PODS_TOO_SMALL: &str = "podCidr 10.244.0.0/28 is too small: each node gets a /24 of it";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// Status, reason and message of the condition Ready.
fn ready(status: &ClusterTemplateStatus) -> [&str; 3] {
    let ready = find(&status.conditions, conditions::READY).unwrap();
    [&ready.status, &ready.reason, &ready.message]
}

fn judged(spec: Value, variant: Option<ByohVariant>) -> ClusterTemplateStatus {
    let status = assess(&template(spec), variant, at(0));
    messages::record(ready(&status)[2]);
    status
}

fn kubeadm(config: &Value) -> Value {
    json!({"kubeadm": {"controlPlane": {"clusterConfiguration": config}}})
}

#[test]
fn nothing_is_wrong_with_a_good_template() {
    let small_nodes = |arguments: Value| {
        let mut spec = kubeadm(&json!({"controllerManager": {"extraArgs": arguments}}));
        spec["defaults"] = json!({"podCidr": "10.244.0.0/28"});
        spec
    };
    for spec in [
        json!({}),
        json!({"parameterSchema": {"type": "object", "required": ["site"]}}),
        json!({"defaults": {"labels": {"site": "a"}, "rack": {"row": 7}, "hosts": null}}),
        kubeadm(&json!({"etcd": {"external": {}}, "networking": {"dnsDomain": "cluster.local"}, "clusterName": ""})),
        small_nodes(json!({"node-cidr-mask-size-ipv4": "28"})),
        small_nodes(json!([{"name": "node-cidr-mask-size-ipv4", "value": "28"}])),
        json!({"kubeadm": {"workers": {"joinConfiguration": {"discovery": {"timeout": "5m"}}}}}),
    ] {
        let status = judged(spec.clone(), Some(ByohVariant::Upstream));
        assert_eq!(ready(&status), ["True", reason::READY, "requests can use it"], "{spec}");
    }
    let mut without_defaults = template(json!({}));
    without_defaults.spec.defaults = None;
    assert_eq!(ready(&assess(&without_defaults, None, at(0)))[0], "True");
}

#[test]
fn each_problem_is_told_with_its_field_and_what_to_do() {
    let defaults = |defaults: Value| json!({ "defaults": defaults });
    let of_defaults = |rule: &str| format!("spec.defaults: {rule}");
    let misplaced =
        |field: &str| format!("spec.defaults must not contain {field}; remove it there, and set it in the requests");
    let of_schema = |why: &str| format!("parameterSchema is not a JSON Schema: {why}; correct it, or remove it");
    let deep = (0..200).fold(json!({}), |inner, _| json!({"properties": {"a": inner}}));
    let level = |number: u32| json!({"allOf": vec![json!({"$ref": format!("#/$defs/a{number}")}); 10]});
    let large = json!({
        "allOf": [{"$ref": "#/$defs/a4"}],
        "$defs": {"a4": level(3), "a3": level(2), "a2": level(1), "a1": level(0), "a0": {"allOf": vec![json!({}); 10]}},
    });
    let cases = [
        (json!({"parameterSchema": {"type": 5}}), "parameterSchema is not a JSON Schema: ".to_owned()),
        (
            json!({"parameterSchema": {"properties": {"a": {"$ref": "#"}}}}),
            "parameterSchema is not a JSON Schema: a $ref leads back to itself; correct it, or remove it".to_owned(),
        ),
        (json!({"parameterSchema": {"$dynamicRef": "#a"}}), of_schema("it has a dynamic reference")),
        (json!({"parameterSchema": deep}), of_schema("it is too deep")),
        (
            json!({"parameterSchema": large}),
            of_schema("it is too large, references counted as often as they are used"),
        ),
        (defaults(json!({"clusterName": "core"})), misplaced("clusterName")),
        (defaults(json!({"clusterProvisioner": "byoh"})), misplaced("clusterProvisioner")),
        (defaults(json!({"controlPlaneEndpoint": {"host": "10.0.0.1"}})), misplaced("controlPlaneEndpoint")),
        // Only that they are there counts.
        (defaults(json!({"hosts": 7})), misplaced("hosts")),
        (defaults(json!({"podCidr": "192.168.0.1/16"})), of_defaults(&format!("{}: 192.168.0.1/16 is an address in 192.168.0.0/16", rules::POD_CIDR.message))),
        (defaults(json!({"serviceCidr": "10.97.0.0/12"})), of_defaults(&format!("{}: 10.97.0.0/12 is an address in 10.96.0.0/12", rules::SERVICE_CIDR.message))),
        (defaults(json!({"serviceCidr": "192.168.128.0/20"})), of_defaults(&format!("{}; podCidr is 192.168.0.0/16, serviceCidr is 192.168.128.0/20", rules::CIDR_OVERLAP.message))),
        (defaults(json!({"serviceCidr": "fd00::/112"})), of_defaults(&format!("{}; podCidr is 192.168.0.0/16, serviceCidr is fd00::/112", rules::CIDR_FAMILY.message))),
        (defaults(json!({"serviceCidr": "10.128.0.0/30"})), of_defaults(rules::SERVICE_CIDR_SIZE.message)),
        (defaults(json!({"podCidr": "127.16.0.0/16"})), of_defaults(rules::POD_CIDR_RANGE.message)),
        (defaults(json!({"podCidr": "10.244.0.0/28"})), of_defaults(PODS_TOO_SMALL)),
        (defaults(json!({"k8sVersion": "1.33"})), of_defaults(rules::K8S_VERSION.message)),
        (defaults(json!({"k8sVersion": "v1.33.1+rke2r1"})), of_defaults(rules::K8S_RELEASE.message)),
        (defaults(json!({"labels": {"cluster.x-k8s.io/a": "b"}})), of_defaults(&format!("{}: cluster.x-k8s.io/a=b", rules::LABELS))),
        (defaults(json!({"labels": {"a": 5}})), "spec.defaults cannot be decoded: ".to_owned()),
        (
            kubeadm(&json!({"networking": {"podSubnet": "10.200.0.0/16"}})),
            "spec.kubeadm.controlPlane.clusterConfiguration.networking.podSubnet contradicts the Cluster; remove it there: set podCidr in \
             defaults or in the request"
                .to_owned(),
        ),
        (
            kubeadm(&json!({"controlPlaneEndpoint": "10.0.0.1:6443"})),
            "spec.kubeadm.controlPlane.clusterConfiguration.controlPlaneEndpoint contradicts the Cluster; remove it there: set \
             controlPlaneEndpoint in the request"
                .to_owned(),
        ),
        (
            kubeadm(&json!({"networking": {"dnsDomain": "example.org"}})),
            "spec.kubeadm.controlPlane.clusterConfiguration.networking.dnsDomain contradicts the Cluster; remove it there: clusters have the \
             domain cluster.local"
                .to_owned(),
        ),
        (
            kubeadm(&json!({"apiServer": {"timeoutForControlPlane": "soon"}})),
            "spec.kubeadm.controlPlane.clusterConfiguration.apiServer.timeoutForControlPlane has no equivalent in v1beta2 of Cluster API; set \
             it to a time such as 4m0s"
                .to_owned(),
        ),
        (
            json!({"kubeadm": {"workers": {"useExperimentalRetryJoin": true}}}),
            "spec.kubeadm.workers.useExperimentalRetryJoin has no equivalent in v1beta2 of Cluster API; remove it: kubeadm itself tries again \
             to join"
                .to_owned(),
        ),
    ];
    for (spec, words) in cases {
        let status = judged(spec.clone(), None);
        let [status, reason, message] = ready(&status);
        assert_eq!([status, reason], ["False", reason::INVALID], "{spec}");
        let is_told = if words.ends_with(": ") { message.starts_with(&words) } else { message == words };
        assert!(is_told, "{spec}: {message}");
    }
}

#[test]
fn all_problems_are_told_at_once() {
    let mut spec = kubeadm(&json!({"networking": {"serviceSubnet": "10.0.0.0/16"}, "clusterName": "core"}));
    spec["install"] = json!({"method": "bundle", "bundle": {"repo": "r"}});
    spec["parameterSchema"] = json!({"$ref": "#/nowhere"});
    spec["defaults"] = json!({"clusterName": "core", "hosts": {}, "podCidr": "10.244.0.0/28", "k8sVersion": "1"});
    let status = judged(spec, Some(ByohVariant::Upstream));
    let [_, reason, message] = ready(&status);
    assert_eq!(reason, reason::INVALID);
    let expected = [
        "spec.defaults must not contain clusterName",
        "spec.defaults must not contain hosts",
        "parameterSchema is not a JSON Schema: a $ref leads to nothing",
        "spec.defaults: k8sVersion must be",
        "spec.defaults: podCidr 10.244.0.0/28 is too small",
        "spec.kubeadm.controlPlane.clusterConfiguration.networking.serviceSubnet contradicts the Cluster",
        "spec.kubeadm.controlPlane.clusterConfiguration.clusterName contradicts the Cluster",
        "install.method bundle does not work with upstream BYOH",
    ];
    let mut rest = message;
    for words in expected {
        let position = rest.find(words).unwrap_or_else(|| panic!("{words:?} is not in its place: {message}"));
        rest = &rest[position..];
    }
}

#[test]
fn a_bundle_depends_on_the_byoh_that_is_installed() {
    let spec = json!({"install": {"method": "bundle", "bundle": {"repo": "r"}}});
    for variant in [None, Some(ByohVariant::Platform9)] {
        assert_eq!(ready(&judged(spec.clone(), variant))[0], "True", "{variant:?}");
    }
    let status = judged(spec, Some(ByohVariant::Upstream));
    let [status, reason, message] = ready(&status);
    assert_eq!([status, reason], ["False", reason::UNSUPPORTED]);
    assert!(message.contains("Use install.method installer or none, or Platform9's BYOH"), "{message}");
}

#[test]
fn the_condition_follows_the_generation() {
    let edited = |template: &ClusterTemplate, schema: Value, status: ClusterTemplateStatus| {
        let mut edited = template.clone();
        edited.spec.parameter_schema = Some(schema);
        edited.metadata.generation = template.metadata.generation.map(|generation| generation + 1);
        edited.status = Some(status);
        edited
    };
    let since = |status: &ClusterTemplateStatus| status.conditions[0].last_transition_time.0;
    let mut good = template(json!({}));
    good.metadata.generation = Some(1);
    let first = assess(&good, None, at(10));
    good.status = Some(first.clone());
    assert_eq!(assess(&good, None, at(20)), first, "there is nothing to write");

    let wrong = edited(&good, json!({"type": 5}), first);
    let second = assess(&wrong, None, at(30));
    let still_wrong = edited(&wrong, json!({"$ref": "#"}), second.clone());
    let third = assess(&still_wrong, None, at(40));
    let mended = edited(&still_wrong, json!({}), third.clone());
    let fourth = assess(&mended, None, at(50));
    for (status, generation, is, second) in
        [(&second, 2, "False", 30), (&third, 3, "False", 30), (&fourth, 4, "True", 50)]
    {
        assert_eq!(status.conditions.len(), 1);
        assert_eq!((ready(status)[0], since(status)), (is, at(second)), "{generation}");
        let generations = [status.observed_generation, status.conditions[0].observed_generation];
        assert_eq!(generations, [Some(generation); 2]);
    }
}

/// What keeps requests from being carried out is found by the same functions.
#[test]
fn requests_are_told_what_the_author_is_told() {
    for spec in [
        json!({"defaults": {"clusterName": "core", "clusterProvisioner": "byoh"}}),
        json!({"parameterSchema": {"$ref": "#"}}),
        kubeadm(&json!({"networking": {"podSubnet": "10.200.0.0/16"}, "kubernetesVersion": "v1.32.0"})),
        json!({"install": {"method": "bundle", "bundle": {"repo": "r"}}}),
    ] {
        let mut world = World::new(ByohVariant::Upstream, spec.clone(), 2);
        world.submit(request("one", "core", &[1], &[2]));
        world.reconcile("one");
        let status = judged(spec, world.watches().byoh_variant());
        assert_eq!(world.message("one"), format!("ClusterTemplate base-v1: {}", ready(&status)[2]));
    }
}
