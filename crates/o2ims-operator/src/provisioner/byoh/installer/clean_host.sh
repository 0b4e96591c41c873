
# clean_host: what `kubeadm reset` leaves of a node. It can run again after a failure.
clean_host() {
    systemctl disable --quiet --now o2ims-host 2>/dev/null
    systemctl stop --quiet o2ims-job o2ims-support 2>/dev/null
    rm -rf "$jobs" "$snapshots" "$packages" "$support"
    systemctl disable --quiet --now kubelet 2>/dev/null
    if systemctl is-active --quiet kubelet; then fail 'the kubelet does not stop'; fi
    run_containerd
    containers() { ctr --namespace k8s.io containers list --quiet; }
    for container in $(containers); do
        ctr --namespace k8s.io tasks delete --force "$container" >/dev/null 2>&1
        ctr --namespace k8s.io containers delete "$container" >/dev/null 2>&1
    done
    left=$(containers) || fail 'containerd does not list its containers'
    [ -z "$left" ] || fail "$(echo "$left" | wc -l) containers cannot be removed"
    # The kubelet's control groups, which end with the host's next boot otherwise.
    systemctl stop kubepods.slice 2>/dev/null
    for namespace in /run/netns/cni-*; do
        [ -e "$namespace" ] || continue
        umount "$namespace" 2>/dev/null
        rm -f "$namespace"
    done
    # What is still mounted here are volumes, whose content is not the node's.
    mounts() { sed -n 's|^[^ ]* \(/var/lib/kubelet/[^ ]*\) .*|\1|p' /proc/mounts; }
    mounts | sort -r | while IFS= read -r folder; do umount "$(printf %b "$folder")" 2>/dev/null; done
    [ -z "$(mounts)" ] || fail "$(mounts | head -n 1) cannot be unmounted"

    # Network of the pods: cards, routes, and the chains of kube-proxy and of common plugins; what is the site's stays.
    for card in cni0 flannel.1 flannel-v6.1 vxlan.calico cilium_host cilium_net cilium_vxlan kube-ipvs0; do
        ip link delete "$card" 2>/dev/null
    done
    pod_routes | while IFS= read -r route; do
        grep -qxF -- "$route" "$routes" 2>/dev/null && continue
        # shellcheck disable=SC2086
        ip ${route%% *} route delete ${route#* } 2>/dev/null
    done
    for family in iptables ip6tables; do
        command -v "$family-save" >/dev/null || continue
        rules=$("$family-save" 2>/dev/null)
        if printf %s "$rules" | grep -qE 'KUBE-|CNI-|cali-|FLANNEL|CILIUM_'; then
            printf '%s\n' "$rules" | grep -vE 'KUBE-|CNI-|cali-|FLANNEL|CILIUM_' | "$family-restore" 2>/dev/null
        fi
    done
    if command -v nft >/dev/null; then
        for table in ip ip6; do nft delete table "$table" kube-proxy 2>/dev/null; done
    fi

    # What kubeadm and the kubelet have written, and the etcd member of a host that was a master of this kind.
    if [ -s "$etcd" ]; then rm -rf "$(cat "$etcd")"/member "$(cat "$etcd")"/o2ims-*; fi
    rm -rf /etc/kubernetes/manifests /etc/kubernetes/pki /etc/kubernetes/tmp /etc/kubernetes/*.conf /var/lib/kubelet/* /var/lib/cni \
        /etc/cni/net.d/* /run/kubeadm /run/cluster-api /var/log/pods/* /var/log/containers/* "$etcd" "$routes"
    rmdir /etc/kubernetes 2>/dev/null
    return 0
}
# pod_routes: routes in the pods' ranges, as arguments for `ip`; without those of the kernel and of the site's network settings.
pod_routes() {
    for pods in @PODS@; do
        case $pods in
        *:*) family=-6 ;;
        *) family=-4 ;;
        esac
        ip "$family" -o route show root "$pods" 2>/dev/null | grep -vE ' proto (kernel|dhcp|static|ra) ' |
            sed "s/[\\\\].*//; s/^/$family /"
    done
}
# remove_own_files: what the install script has put on the host, but kubeadm, without which the agent could not reset again.
remove_own_files() {
    for program in kubelet kubectl; do
        if grep -qx "/usr/local/bin/$program" "$links" 2>/dev/null; then rm -f "/usr/local/bin/$program"; fi
    done
    for file in "$wrapper" "$drop_in" /etc/systemd/system/kubelet.service "$host_unit" "$unit_program"; do
        if is_ours "$file"; then rm -f "$file"; fi
    done
    systemctl daemon-reload
    rm -f /etc/apt/sources.list.d/o2ims-kubernetes.list /etc/yum.repos.d/o2ims-kubernetes.repo \
        /etc/modules-load.d/o2ims.conf "$forwarding" "$limits"
}
