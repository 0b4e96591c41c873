# Written by the O2IMS operator for Kubernetes @VERSION@ on host @HOST@; run by BYOH's agent as root.
set -u
wrapper=/usr/local/sbin/kubeadm
drop_in=/etc/systemd/system/kubelet.service.d/90-o2ims.conf

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
