//! `KubeadmControlPlane`, and kube-vip for a virtual address.

use o2ims_types::{names, schema};
use serde_json::{Value, json};

use super::contract::{CLUSTER_NAME_LABEL, Kind};
use crate::provisioning_request::validate::Valid;

/// containerd's socket, as kubeadm wants it.
pub const CRI_SOCKET: &str = "unix:///var/run/containerd/containerd.sock";

/// The control plane, on Machines from the ByoMachineTemplate `machine_template`.
pub fn control_plane(valid: &Valid, uid: &str, machine_template: &str) -> Value {
    let namespace = &valid.namespace;
    let kubeadm = &valid.template.spec.kubeadm;
    let node = json!({"nodeRegistration": {"criSocket": CRI_SOCKET}});
    let mut config = json!({
        "format": "cloud-config",
        "clusterConfiguration": {},
        "initConfiguration": node,
        "joinConfiguration": node,
    });
    if let Some(over) = &kubeadm.control_plane {
        schema::overlay(&mut config, over.clone());
    }
    if valid.endpoint.virtual_ip {
        add_kube_vip(&mut config, valid);
    }
    let mut metadata = json!({"labels": {CLUSTER_NAME_LABEL: valid.cluster, names::REQUEST_UID_LABEL: uid}});
    metadata["annotations"] = json!(kubeadm.control_plane_machine_annotations);
    json!({
        "apiVersion": Kind::KubeadmControlPlane.api_version(),
        "kind": Kind::KubeadmControlPlane.name(),
        "metadata": {"name": names::control_plane(namespace, &valid.cluster), "namespace": namespace},
        "spec": {
            "replicas": valid.masters.len(),
            "version": valid.version,
            // With three hosts and no spare the old machine has to go first; with one that is refused by Cluster API.
            "rolloutStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": i32::from(valid.masters.len() < 3)}},
            "machineTemplate": {
                "metadata": metadata,
                "infrastructureRef": Kind::ByoMachineTemplate.reference(namespace, machine_template),
            },
            "kubeadmConfigSpec": config,
        }
    })
}

/// Before 1.33 `kubeadm init` asks the virtual address before the admin's rights exist, so kube-vip needs the super
/// admin's kubeconfig on the first master; only that host has a kubeadm.yaml.
const SUPER_ADMIN: &str = "if [ -f /run/kubeadm/kubeadm.yaml ]; then sed -i \
    's#path: /etc/kubernetes/admin.conf#path: /etc/kubernetes/super-admin.conf#' /etc/kubernetes/manifests/kube-vip.yaml; fi";

/// kubeadm has made a super admin's kubeconfig since 1.29; the pod would wait for ever for a file that never comes.
const SUPER_ADMIN_MINORS: std::ops::Range<u32> = 29..33;

fn add_kube_vip(config: &mut Value, valid: &Valid) {
    push(
        config,
        "files",
        json!({
            "path": "/etc/kubernetes/manifests/kube-vip.yaml",
            "owner": "root:root",
            "permissions": "0600",
            "content": kube_vip(valid),
        }),
    );
    if SUPER_ADMIN_MINORS.contains(&minor(&valid.version)) {
        push(config, "preKubeadmCommands", json!(SUPER_ADMIN));
    }
}

fn push(config: &mut Value, list: &str, item: Value) {
    match config[list].as_array_mut() {
        Some(items) => items.push(item),
        None => config[list] = json!([item]),
    }
}

fn minor(version: &str) -> u32 {
    version.split('.').nth(1).and_then(|minor| minor.parse().ok()).unwrap_or_default()
}

/// kube-vip as a static pod: ARP, control plane only. BYOH's agent fills in the one pair of braces. The address is a
/// host route (/32): only that form is taken off the card again by the agent.
fn kube_vip(valid: &Valid) -> String {
    let image = json!(valid.template.spec.virtual_ip.image);
    let address = json!(valid.endpoint.host);
    let port = valid.endpoint.port;
    let prefix = if valid.endpoint.host.contains(':') { 128 } else { 32 };
    format!(
        r#"apiVersion: v1
kind: Pod
metadata:
  name: kube-vip
  namespace: kube-system
spec:
  hostNetwork: true
  priorityClassName: system-node-critical
  hostAliases:
  - ip: 127.0.0.1
    hostnames: [kubernetes]
  containers:
  - name: kube-vip
    image: {image}
    imagePullPolicy: IfNotPresent
    args: [manager]
    env:
    - {{name: address, value: {address}}}
    - {{name: port, value: "{port}"}}
    - {{name: vip_arp, value: "true"}}
    - name: vip_interface
      value: "{{{{ .DefaultNetworkInterfaceName }}}}"
    - {{name: vip_subnet, value: "{prefix}"}}
    - {{name: cp_enable, value: "true"}}
    - {{name: cp_namespace, value: kube-system}}
    - {{name: vip_leaderelection, value: "true"}}
    - {{name: vip_leasename, value: plndr-cp-lock}}
    - {{name: vip_leaseduration, value: "5"}}
    - {{name: vip_renewdeadline, value: "3"}}
    - {{name: vip_retryperiod, value: "1"}}
    - {{name: prometheus_server, value: "127.0.0.1:2112"}}
    - name: vip_nodename
      valueFrom:
        fieldRef:
          fieldPath: spec.nodeName
    securityContext:
      capabilities:
        drop: [ALL]
        add: [NET_ADMIN, NET_RAW]
    volumeMounts:
    - name: kubeconfig
      mountPath: /etc/kubernetes/admin.conf
      readOnly: true
  volumes:
  - name: kubeconfig
    hostPath:
      path: /etc/kubernetes/admin.conf
      type: File
"#
    )
}
