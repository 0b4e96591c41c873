# After `kubeadm reset`, which the agent runs first. It can run again after a failure.
systemctl disable --quiet --now kubelet 2>/dev/null
if command -v ctr >/dev/null; then
    for container in $(ctr --namespace k8s.io containers list --quiet 2>/dev/null); do
        ctr --namespace k8s.io tasks delete --force "$container" >/dev/null 2>&1
        ctr --namespace k8s.io containers delete "$container" >/dev/null 2>&1
    done
fi
for namespace in /run/netns/cni-*; do
    [ -e "$namespace" ] || continue
    umount "$namespace" 2>/dev/null
    rm -f "$namespace"
done

# Network of the pods: cards, routes, and the chains of kube-proxy and of common plugins; rules of the site stay.
for card in cni0 flannel.1 flannel-v6.1 vxlan.calico cilium_host cilium_net cilium_vxlan kube-ipvs0; do
    ip link delete "$card" 2>/dev/null
done
if [ -n '@PODS@' ]; then
    ip route show root '@PODS@' 2>/dev/null | while read -r route _; do ip route delete "$route" 2>/dev/null; done
fi
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

rm -rf /etc/kubernetes /var/lib/etcd/* /var/lib/kubelet/* /var/lib/cni /etc/cni/net.d/* /run/kubeadm /run/cluster-api \
    /var/log/pods/* /var/log/containers/*

if systemctl is-active --quiet kubelet; then fail 'the kubelet does not stop'; fi
left=$(ctr --namespace k8s.io containers list --quiet 2>/dev/null | wc -l)
[ "$left" -eq 0 ] || fail "$left containers cannot be removed"

for program in kubelet kubeadm kubectl; do
    case $(readlink "/usr/local/bin/$program") in @FILES@/*) rm -f "/usr/local/bin/$program" ;; esac
done
if [ -e "$drop_in" ]; then rm -f "$drop_in" && systemctl daemon-reload; fi
rm -f /etc/apt/sources.list.d/o2ims-kubernetes.list /etc/yum.repos.d/o2ims-kubernetes.repo
report ''
rm -f "$wrapper"
