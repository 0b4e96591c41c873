//! Simulated hosts that BYOH's installer prepares.
//!
//! The released BYOH loses the bootstrap script, because its installation Secret replaces the bootstrap Secret, which
//! has the same name. Simulated hosts must show that as real ones do. The Platform9 fork uses different names.

// Helper functions of tests may panic as tests do.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use cluster_api::kinds::version_of;
use hostsim::{Failure, HostSpec, Site, SiteOptions};
use k8s_openapi::api::core::v1::{Node, Secret};
use kube::{
    Api,
    api::{DeleteParams, DynamicObject, ListParams},
    core::{ApiResource, GroupVersionKind},
    runtime::wait::{Condition, await_condition},
};
use serde_json::Value;
use testenv::{ByohDialect, ManagementCluster, Options};

const INFRASTRUCTURE: &str = "infrastructure.cluster.x-k8s.io";
const BOOTSTRAPPED: &str = "K8sNodeBootstrapSucceeded";
const INSTALLED: &str = "K8sComponentsInstallationSucceeded";

async fn until(
    api: &Api<DynamicObject>,
    name: &str,
    condition: impl Condition<DynamicObject>,
) -> Option<DynamicObject> {
    let reached = tokio::time::timeout(Duration::from_secs(90), await_condition(api.clone(), name, condition)).await;
    match reached {
        Ok(object) => object.unwrap(),
        Err(late) => panic!("{name}: {late}; last seen: {:#?}", api.get_opt(name).await.unwrap()),
    }
}

/// Status and reason of a condition.
fn shows(kind: &'static str, status: &'static str, reason: &'static str) -> impl Fn(Option<&DynamicObject>) -> bool {
    move |host| {
        let conditions = host.and_then(|host| host.data["status"]["conditions"].as_array());
        conditions.is_some_and(|list| {
            list.iter().any(|c| {
                c["type"] == kind && c["status"] == status && c["reason"].as_str().unwrap_or_default() == reason
            })
        })
    }
}

const MANIFESTS: &str = r#"
apiVersion: infrastructure.cluster.x-k8s.io/v1beta1
kind: K8sInstallerConfigTemplate
metadata: {name: c1, namespace: default}
spec: {template: {spec: {bundleRepo: example.org/bundles, bundleType: k8s}}}
---
apiVersion: infrastructure.cluster.x-k8s.io/v1beta1
kind: ByoMachineTemplate
metadata: {name: c1, namespace: default}
spec:
  template:
    spec:
      selector: {matchLabels: {host-id: cp-1}}
      installerRef:
        apiVersion: infrastructure.cluster.x-k8s.io/v1beta1
        kind: K8sInstallerConfigTemplate
        name: c1
        namespace: default
---
apiVersion: infrastructure.cluster.x-k8s.io/v1beta1
kind: ByoCluster
metadata: {name: c1, namespace: default}
spec: {controlPlaneEndpoint: {host: ADDRESS, port: 6443}}
---
apiVersion: controlplane.cluster.x-k8s.io/v1beta2
kind: KubeadmControlPlane
metadata: {name: c1, namespace: default}
spec:
  replicas: 1
  version: v1.33.1
  machineTemplate:
    metadata: {annotations: {machine.cluster.x-k8s.io/certificates-expiry: "2099-01-01T00:00:00Z"}}
    spec:
      infrastructureRef:
        apiGroup: infrastructure.cluster.x-k8s.io
        kind: ByoMachineTemplate
        name: c1
  kubeadmConfigSpec:
    format: cloud-config
    clusterConfiguration:
      etcd:
        external:
          endpoints: ["https://127.0.0.1:2379"]
          caFile: /etc/kubernetes/pki/etcd/ca.crt
          certFile: /etc/kubernetes/pki/apiserver-etcd-client.crt
          keyFile: /etc/kubernetes/pki/apiserver-etcd-client.key
---
apiVersion: cluster.x-k8s.io/v1beta2
kind: Cluster
metadata: {name: c1, namespace: default}
spec:
  clusterNetwork: {pods: {cidrBlocks: [192.168.0.0/16]}, services: {cidrBlocks: [10.128.0.0/12]}}
  controlPlaneEndpoint: {host: ADDRESS, port: 6443}
  controlPlaneRef:
    apiGroup: controlplane.cluster.x-k8s.io
    kind: KubeadmControlPlane
    name: c1
  infrastructureRef:
    apiGroup: infrastructure.cluster.x-k8s.io
    kind: ByoCluster
    name: c1
"#;

#[tokio::test(flavor = "multi_thread")]
async fn installation_is_part_of_the_cluster() {
    let management = ManagementCluster::start(Options::default(), |step| println!("{step}")).await.unwrap();
    let site = Site::new(&management, SiteOptions::default()).unwrap();
    let spec = HostSpec { skip_installation: false, ..HostSpec::new("bare-1", "cp-1") };
    let host = site.register(spec).await.unwrap();
    host.fail(Failure::Install);
    let api = |group: &str, kind: &str| -> Api<DynamicObject> {
        Api::default_namespaced_with(
            management.admin(),
            &ApiResource::from_gvk(&GroupVersionKind::gvk(group, version_of(group), kind)),
        )
    };
    let hosts = api(INFRASTRUCTURE, "ByoHost");
    management.apply_yaml(&MANIFESTS.replace("ADDRESS", &host.address().to_string())).await.unwrap();

    until(&hosts, "bare-1", shows(INSTALLED, "False", "K8sComponentsInstallationFailed")).await;
    host.heal();
    until(&hosts, "bare-1", shows(INSTALLED, "True", "")).await;
    let bare = until(&hosts, "bare-1", shows(BOOTSTRAPPED, "True", "")).await.unwrap();
    let bootstrap = bare.data["spec"]["bootstrapSecret"]["name"].as_str().unwrap();
    let secrets = Api::<Secret>::default_namespaced(management.admin());
    let has_script = secrets.get(bootstrap).await.unwrap().data.unwrap_or_default().contains_key("value");
    match management.byoh_dialect().unwrap() {
        ByohDialect::Upstream => {
            assert!(!has_script);
            assert!(bare.data["spec"]["uninstallationScript"].is_string());
            // The host reports that it is bootstrapped, but there is no cluster.
            assert!(site.workload_client("c1").await.is_none());
        }
        ByohDialect::Platform9 => {
            assert!(has_script);
            let nodes = Api::<Node>::all(site.workload_client("c1").await.unwrap());
            assert_eq!(nodes.list(&ListParams::default()).await.unwrap().items.len(), 1);
            assert!(bare.data["spec"].get("uninstallationScript").is_none());
        }
    }

    host.fail(Failure::SlowCleanup(Duration::from_secs(3600)));
    let clusters = api("cluster.x-k8s.io", "Cluster");
    clusters.delete("c1", &DeleteParams::default()).await.unwrap();
    until(&clusters, "c1", |cluster: Option<&DynamicObject>| cluster.is_none()).await;
    let bare = hosts.get("bare-1").await.unwrap();
    assert!(!bare.data["status"]["machineRef"].is_null());
    host.heal();
    let bare = until(&hosts, "bare-1", |host: Option<&DynamicObject>| {
        let free = |host: &DynamicObject| {
            let spec = host.data["spec"].as_object().is_none_or(serde_json::Map::is_empty);
            spec && host.data["status"].get("machineRef").is_none_or(Value::is_null)
        };
        host.is_some_and(free) && shows(BOOTSTRAPPED, "False", "WaitingForMachineRefToBeAssigned")(host)
    })
    .await;
    assert!(shows(INSTALLED, "False", "K8sNodeAbsent")(bare.as_ref()));
    assert!(site.workload_client("c1").await.is_none());
    site.shut_down().await;
    management.stop().await.unwrap();
}
