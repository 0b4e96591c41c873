//! kube-vip as a static pod on the masters, for an endpoint that is a virtual IP.

use serde_json::{Value, json};

use crate::provisioner::byoh::desired::DesiredCluster;

/// `kubeadm init` asks the virtual address before the admin's rights exist, so kube-vip needs the super admin's kubeconfig on the first
/// master; only that host has a kubeadm.yaml. Later patches of 1.33 and newer ask their own API server instead, and do not need it.
const SUPER_ADMIN: &str = "if [ -f /run/kubeadm/kubeadm.yaml ]; then sed -i \
    's#path: /etc/kubernetes/admin.conf#path: /etc/kubernetes/super-admin.conf#' /etc/kubernetes/manifests/kube-vip.yaml; fi";

/// After `kubeadm init` the admin's rights are enough, and an administrator may take the super admin's kubeconfig off the master. The
/// file is replaced as a whole, because the kubelet watches its folder.
const ADMIN: &str = "if grep -q super-admin.conf /etc/kubernetes/manifests/kube-vip.yaml; then (umask 077; sed \
    's#path: /etc/kubernetes/super-admin.conf#path: /etc/kubernetes/admin.conf#' /etc/kubernetes/manifests/kube-vip.yaml \
    >/etc/kubernetes/kube-vip.yaml) && mv /etc/kubernetes/kube-vip.yaml /etc/kubernetes/manifests/kube-vip.yaml; fi";

/// The first minor version whose kubeadm makes a super admin's kubeconfig; the pod would wait for ever for a file that never comes.
const SUPER_ADMIN_SINCE: u32 = 29;

/// Adds kube-vip to the kubeadm configuration of the masters.
pub fn add_kube_vip(config: &mut Value, desired: &DesiredCluster) {
    push(
        config,
        "files",
        json!({
            "path": "/etc/kubernetes/manifests/kube-vip.yaml",
            "owner": "root:root",
            "permissions": "0600",
            "content": kube_vip(desired),
        }),
    );
    if minor(&desired.version) >= SUPER_ADMIN_SINCE {
        push(config, "preKubeadmCommands", json!(SUPER_ADMIN));
        push(config, "postKubeadmCommands", json!(ADMIN));
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
/// host route (/32): only that form is taken off the card again by the agent. It asks the API server of its own master: the address in the
/// kubeconfig is the one that it has to bring up.
fn kube_vip(desired: &DesiredCluster) -> String {
    let image = json!(desired.template.spec.virtual_ip.image);
    let address = json!(desired.endpoint.host);
    let port = desired.endpoint.port;
    let prefix = if desired.endpoint.host.contains(':') { 128 } else { 32 };
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
    - {{name: kubernetes_addr, value: "kubernetes:{port}"}}
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
