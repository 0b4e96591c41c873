# Written by the O2IMS operator for Kubernetes @VERSION@ on host @HOST@; run by BYOH's agent as root.
set -u
wrapper=/usr/local/sbin/kubeadm
mark='Put here by the O2IMS operator'
drop_in=/etc/systemd/system/kubelet.service.d/90-o2ims.conf
# Kernel settings, and limits that the site's files may set otherwise.
forwarding=/etc/sysctl.d/90-o2ims.conf limits=/etc/sysctl.d/05-o2ims.conf
# Made when kubeadm has ended well, with the machine's name in it; removed by the reset.
node=/var/lib/o2ims-node
# Links that were made to programs in a folder; where the etcd member keeps its data; routes that were there before.
links=/var/lib/o2ims-links etcd=/var/lib/o2ims-etcd routes=/var/lib/o2ims-routes
# The unit that runs the operator's jobs, its program, and the jobs.
host_unit=/etc/systemd/system/o2ims-host.service unit_program=/usr/local/sbin/o2ims-host jobs=/var/lib/o2ims-jobs snapshots=/var/lib/o2ims-snapshots packages=/var/lib/o2ims-packages
support=/var/lib/o2ims-support
machine='@MACHINE@'

# report TEXT: lets the ProvisioningRequest say why, with the agent's own rights on its ByoHost. An empty text takes it back.
report() {
    kubectl=$(command -v kubectl) || return 0
    text=$(printf %s "$1" | tr '\n\t' '  ' | cut -c1-400)
    if [ -n "$text" ]; then text="=$text"; else text=-; fi
    timeout 20 "$kubectl" --kubeconfig "${HOME:-/root}/.byoh/config" --namespace '@NAMESPACE@' annotate --overwrite \
        byohost '@HOST@' "o2ims.provisioning.oran.org/failure$text" >/dev/null 2>&1 || true
}
fail() {
    echo "$1" >&2
    report "$1"
    exit 1
}
# is_ours FILE: whether it is there and was written by these scripts.
is_ours() { [ -f "$1" ] && head -c 400 "$1" | tr -d '\0' | grep -q "$mark"; }
# run_containerd: the scripts cannot tell what runs on a host without it.
run_containerd() { systemctl is-active --quiet containerd || systemctl start containerd || fail 'containerd does not run'; }
