
# take_snapshot: of the host before it is changed. A second try has that of the first one: what it would find is changed already.
take_snapshot() {
    local file
    [ "$place" = first ] && has_etcd || return 0
    for file in "$snapshots"/*/for; do
        if [ "$(cat "$file" 2>/dev/null)" = "$from $to $machine" ]; then
            snapshot=$(basename "${file%/for}") && echo "$snapshot" >"$own/snapshot"
            return
        fi
    done
    save_snapshot "$from-$(date --utc +%Y%m%dT%H%M%SZ)" "$from $to $machine" 'v*'
}

prepare() {
    [ -n "$snapshot" ] || take_snapshot
    drop_gate
}
drop_gate() {
    patiently read_config || fail 'the API server of the cluster does not answer'
    [ "$place" = first ] && has_gate || return 0
    {
        printf 'data:\n  ClusterConfiguration: |\n'
        without_gate <"$own/config.yaml" | sed 's/^/    /'
    } >"$own/kubeadm-config.yaml"
    timeout 60 kubectl --kubeconfig /etc/kubernetes/admin.conf --namespace kube-system patch configmap kubeadm-config --type merge \
        --patch-file "$own/kubeadm-config.yaml" ||
        fail 'the feature gate ControlPlaneKubeletLocalMode cannot be removed from ConfigMap kube-system/kubeadm-config'
}

# control_plane_runs: whether the API server on this host answers, and the pods of the control plane are ready. Where kubeadm has put the old ones back, the
# kubelet starts them again after growing delays, and the next try of kubeadm gives them one minute.
control_plane_runs() {
    local pod address
    address=$(sed -n 's/^ *kubeadm.kubernetes.io\/kube-apiserver.advertise-address.endpoint: *//p' "$manifests/kube-apiserver.yaml")
    found='the API server does not answer'
    cluster --server "https://$address" get --raw /readyz >/dev/null || return
    for pod in etcd kube-apiserver kube-controller-manager kube-scheduler; do
        [ ! -e "$manifests/$pod.yaml" ] || is_pod_ready "$pod" || { found="$pod: $found" && return 1; }
    done
}

# node_upgrade: control plane and configuration, by kubeadm. It goes on where it was interrupted, and puts back what does not start.
node_upgrade() {
    local output=$own/kubeadm.log found=''
    if [ "$role" = control-plane ]; then
        patiently control_plane_runs ||
            fail "the control plane on this host did not become ready within 5 minutes ($found): crictl ps -a, journalctl -u kubelet"
    fi
    patiently is_ready || fail 'the node is not Ready: journalctl -u kubelet'
    cat >"$own/upgrade.yaml" <<END
apiVersion: kubeadm.k8s.io/v1beta4
kind: UpgradeConfiguration
timeouts: {upgradeManifests: 3m0s, kubernetesAPICall: 5m0s}
END
    install_fetched kubeadm
    kubeadm=$(find_new kubeadm) || fail "kubeadm $to is not in $files any more"
    # kube-proxy is Cluster API's: it sets the image when its objects have the version.
    if [ "$place" = first ]; then set -- apply "$to" --yes; else set -- node; fi
    set -- "$@" --skip-phases addon/kube-proxy --config "$own/upgrade.yaml" ${ignored:+--ignore-preflight-errors "$ignored"}
    timeout 1200 "$kubeadm" upgrade "$@" </dev/null >"$output" 2>&1 && return
    cat "$output"
    fail "kubeadm upgrade $1: $(cause "$output")"
}

# install_new: the programs, in the place where systemd and kubeadm look for them.
install_new() {
    local program new path
    install_fetched kubelet kubectl
    for program in kubelet kubeadm kubectl; do
        new=$(find_new "$program") || continue
        case $new in
        "$fetched"/*) continue ;;
        "$files"/*)
            path=/usr/local/bin/$program
            if [ -e "$path" ] && [ ! -L "$path" ]; then continue; fi
            grep -qxs "$path" "$links" || echo "$path" >>"$links"
            ln -sfn "$new" "$path.new" && mv -T "$path.new" "$path" || fail "$path cannot be linked"
            ;;
        *) path=$new ;;
        esac
        case $program in
        kubelet) sed -i "s#^ExecStart=/[^ ]*#ExecStart=$path#" "$drop_in" ;;
        kubeadm) sed -i "s#^real=.*#real=$path#" "$wrapper" ;;
        esac
    done
    sync
    systemctl daemon-reload && systemctl restart kubelet || fail 'the kubelet does not restart: journalctl -u kubelet'
}

finish() {
    local kind
    until_node_runs
    rm -rf "$snapshots"/*/for "$packages"
    # kubeadm copies etcd's data at each upgrade; the last copy is kept.
    for kind in etcd manifests; do
        find /etc/kubernetes/tmp -maxdepth 1 -name "kubeadm-backup-$kind-*" 2>/dev/null | sort | head -n -1 | xargs -r rm -rf
    done
}

steps=5
step 1 'checking the host and its images' preflight
step 2 'taking a snapshot, and preparing the configuration of the cluster' prepare
step 3 'kubeadm upgrade' node_upgrade
step 4 'restarting the kubelet' install_new
step 5 'waiting for the node to be Ready' finish
end Done "runs Kubernetes $to"
