
# clean_host: what `kubeadm reset` leaves of a node. It can run again after a failure.
clean_host() {
    systemctl disable --quiet --now kubelet 2>/dev/null
    run_containerd
    containers() { ctr --namespace k8s.io containers list --quiet; }
    for container in $(containers); do
        ctr --namespace k8s.io tasks delete --force "$container" >/dev/null 2>&1
        ctr --namespace k8s.io containers delete "$container" >/dev/null 2>&1
    done
    for namespace in /run/netns/cni-*; do
        [ -e "$namespace" ] || continue
        umount "$namespace" 2>/dev/null
        rm -f "$namespace"
    done

    # Network of the pods: cards, routes, and the chains of kube-proxy and of common plugins; what is the site's stays.
    for card in cni0 flannel.1 flannel-v6.1 vxlan.calico cilium_host cilium_net cilium_vxlan kube-ipvs0; do
        ip link delete "$card" 2>/dev/null
    done
    for pods in @PODS@; do
        # The pods' range may hold the host's own network, whose routes the kernel and the site made.
        ip -o route show root "$pods" 2>/dev/null | grep ' proto ' | grep -vE ' proto (kernel|dhcp|static|ra) ' |
            while IFS= read -r route; do
                # shellcheck disable=SC2086
                ip route delete ${route%%\\*} 2>/dev/null
            done
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

    # What kubeadm and the kubelet have written, and etcd on a host that was a master.
    if [ '@ROLE@' = control-plane ]; then rm -rf /var/lib/etcd/member; fi
    rm -rf /etc/kubernetes/manifests /etc/kubernetes/pki /etc/kubernetes/tmp /etc/kubernetes/*.conf /var/lib/kubelet/* /var/lib/cni \
        /etc/cni/net.d/* /run/kubeadm /run/cluster-api /var/log/pods/* /var/log/containers/*
    rmdir /etc/kubernetes 2>/dev/null

    if systemctl is-active --quiet kubelet; then fail 'the kubelet does not stop'; fi
    left=$(containers) || fail 'containerd does not list its containers'
    [ -z "$left" ] || fail "$(echo "$left" | wc -l) containers cannot be removed"
}
# remove_own_files: all that the install script has put on the host, but kubeadm, without which the agent could not reset again.
remove_own_files() {
    for program in kubelet kubectl; do
        case $(readlink "/usr/local/bin/$program") in @FILES@/*) rm -f "/usr/local/bin/$program" ;; esac
    done
    for file in "$wrapper" "$drop_in" /etc/systemd/system/kubelet.service; do
        if is_ours "$file"; then rm -f "$file"; fi
    done
    systemctl daemon-reload
    rm -f /etc/apt/sources.list.d/o2ims-kubernetes.list /etc/yum.repos.d/o2ims-kubernetes.repo
}
