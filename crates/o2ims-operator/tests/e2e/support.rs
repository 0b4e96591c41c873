//! Support bundles and snapshots on real servers.

use anyhow::ensure;
use kube::api::{Patch, PatchParams};
use o2ims_types::o2ims::v1alpha1::provisioning_request::HostFile;
use o2ims_types::{ProvisioningRequest, names};
use serde_json::json;
use testenv::servers::Server;

use crate::harness::{CLUSTER, Outcome, Tenant, wait};

/// Words that must not get into a bundle, where they would be taken from.
const PLANT: &str =
    "echo 'planted words, password: hunter2, --token abcdef.0123456789abcdef' | tee --append /var/lib/o2ims-jobs/*/log";

/// Fails where the bundle with this name lacks something, or has a secret of this server. Prints its SHA-256.
const JUDGE: &str = r#"
set -euo pipefail
shopt -s nullglob
file=/var/lib/o2ims-support/$1.tar.gz
[ "$(stat --format=%a "$file")" = 600 ]
[ "$(stat --format=%s "$file")" -lt 52428800 ]
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
tar --extract --gzip --file "$file" --directory "$work"
cd "$work/$1"
parts=(system versions containers places kubelet-unit byohost.yaml certificates journal/{kubelet,containerd,o2ims-host,o2ims-job,byoh-hostagent.service}
    files/var/lib/kubelet/config.yaml files/var/lib/o2ims-jobs/status)
if [ -e /etc/kubernetes/manifests/etcd.yaml ]; then
    parts+=(files/etc/kubernetes/manifests/etcd.yaml)
    logs=(files/var/log/pods/kube-system_kube-apiserver-*)
    [ ${#logs[@]} -gt 0 ]
fi
for part in "${parts[@]}"; do
    [ -e "$part" ] || { echo "$part is missing: $(find . | sort | tr '\n' ' ')" >&2 && exit 1; }
done
grep --quiet --recursive 'planted words' files
secrets=("$(sed --quiet 's/^ *client-key-data: //p' /root/.byoh/config)" hunter2 0123456789abcdef 'PRIVATE KEY')
for key in /etc/kubernetes/pki/*.key /etc/kubernetes/pki/etcd/*.key /var/lib/kubelet/pki/kubelet-client-current.pem; do
    secrets+=("$(sed --quiet '/PRIVATE KEY/{n;p;q}' "$key")")
done
for secret in "${secrets[@]}"; do
    [ -n "$secret" ]
    if grep --recursive --fixed-strings -- "$secret" . >&2; then exit 1; fi
done
sha256sum <"$file" | cut --delimiter=' ' --fields=1
"#;

/// Orders one.
pub async fn order(tenant: &Tenant, word: &str) -> Outcome {
    let patch = json!({"metadata": {"annotations": {names::SUPPORT_BUNDLE_ANNOTATION: word}}});
    tenant.requests().patch("request", &PatchParams::default(), &Patch::Merge(patch)).await?;
    Ok(())
}

/// Waits until every one of these hosts has made the bundle with this name.
pub async fn until_made(tenant: &Tenant, hosts: &[&str], name: &str) -> anyhow::Result<Vec<HostFile>> {
    let bundles = |request: &ProvisioningRequest| -> Option<Vec<HostFile>> {
        let all = &request.status.as_ref()?.extensions.hosts;
        let of = |name: &&str| all.iter().find(|host| host.host_name == *name)?.support_bundle.clone();
        hosts.iter().map(of).collect()
    };
    let is_made = |request: Option<&ProvisioningRequest>| {
        let all = request.and_then(bundles).unwrap_or_default();
        !all.is_empty() && all.iter().all(|bundle| bundle.name == name && bundle.state == "Done")
    };
    let request = wait(tenant.requests(), "request", &format!("support bundles {name}"), CLUSTER, is_made).await?;
    Ok(request.as_ref().and_then(bundles).unwrap_or_default())
}

/// Each server makes a bundle without secrets, and keeps the newest two.
pub async fn are_made(tenant: &Tenant, servers: &[&Server]) -> Outcome {
    for server in servers {
        server.run(&["bash", "-c", PLANT]).await?;
    }
    let hosts: Vec<_> = servers.iter().map(|server| server.name()).collect();
    order(tenant, "2026-12-01").await?;
    for (server, bundle) in servers.iter().zip(until_made(tenant, &hosts, "2026-12-01").await?) {
        let sum = server.run(&["bash", "-c", JUDGE, "judge", "2026-12-01"]).await?;
        ensure!(bundle.sha256.as_deref() == Some(sum.trim()), "{}: {bundle:?}, {sum}", server.name());
    }
    for word in ["second", "third"] {
        order(tenant, &format!("{word}/{}", servers[0].name())).await?;
        until_made(tenant, &hosts[..1], word).await?;
    }
    let kept = servers[0].run(&["ls", "/var/lib/o2ims-support"]).await?;
    ensure!(
        kept.split_whitespace().eq(["second.tar.gz", "status", "third.tar.gz"]),
        "{} has {kept}",
        servers[0].name()
    );
    Ok(())
}

/// Fails where the snapshot in this folder is not whole. Prints the SHA-256 of etcd's.
const WHOLE: &str = "cd \"$1\" && sha256sum --quiet --check sums && tar --list --file host.tar etc/kubernetes/admin.conf >/dev/null && sha256sum <etcd.db";

/// The first master takes a snapshot for a word. Only the etcd of the version before has the tool for that in its image here.
pub async fn a_snapshot_is_taken(tenant: &Tenant, master: &Server) -> Outcome {
    let patch = json!({"metadata": {"annotations": {names::SNAPSHOT_ANNOTATION: "before"}}});
    tenant.requests().patch("request", &PatchParams::default(), &Patch::Merge(patch)).await?;
    let snapshot = |request: Option<&ProvisioningRequest>| {
        let hosts = &request?.status.as_ref()?.extensions.hosts;
        hosts.iter().find(|host| host.host_name == master.name())?.snapshot.clone()
    };
    let is_taken = |request: Option<&ProvisioningRequest>| snapshot(request).is_some_and(|made| made.state == "Done");
    let request = wait(tenant.requests(), "request", "a snapshot", CLUSTER, is_taken).await?;
    let made = snapshot(request.as_ref()).unwrap_or_default();
    let sum = master.run(&["bash", "-c", WHOLE, "whole", made.path.as_deref().unwrap_or_default()]).await?;
    ensure!(made.sha256.as_deref() == sum.split_whitespace().next(), "{made:?}, {sum}");
    Ok(())
}
