# take_snapshot: etcd and the configuration of the host, before they are changed. A second try has those of the first one: what it would find is changed
# already. Of others the newest is kept.
take_snapshot() {
    local container data file new=$snapshots/new pki=/etc/kubernetes/pki/etcd files=()
    [ "$place" = first ] && has_etcd || return 0
    for file in "$snapshots"/*/for; do
        if [ "$(cat "$file" 2>/dev/null)" = "$from $to $machine" ]; then
            snapshot=$(basename "${file%/for}") && echo "$snapshot" >"$own/snapshot"
            return
        fi
    done
    patiently has_running_etcd || fail 'etcd does not run on this host: crictl ps'
    container=$(running etcd) data=$(etcd_setting data-dir)
    rm -rf "$new" && mkdir -p "$new" && chmod 700 "$snapshots" || fail "$snapshots cannot be written"
    timeout 300 ctr --namespace k8s.io tasks exec --exec-id "o2ims-$RANDOM$RANDOM" "$container" etcdctl --endpoints https://127.0.0.1:2379 \
        --cacert $pki/ca.crt --cert $pki/server.crt --key $pki/server.key snapshot save "$data/o2ims-snapshot.db" ||
        fail 'etcd gives no snapshot (etcdctl snapshot save, in its container): see the log of the job'
    mv "$data/o2ims-snapshot.db" "$new/etcd.db" || fail 'the snapshot of etcd is not there'
    # Packages are replaced in place.
    if [ '@SOURCE@' = packages ]; then
        for file in $(type -aP kubelet kubeadm kubectl); do files+=("${file#/}"); done
    fi
    # Of what is named, not everything is on every host.
    for file in etc/kubernetes var/lib/kubelet/config.yaml var/lib/kubelet/kubeadm-flags.env var/lib/kubelet/instance-config.yaml \
        "${drop_in#/}" "${wrapper#/}" "${links#/}" usr/local/bin/kubelet usr/local/bin/kubeadm usr/local/bin/kubectl; do
        if [ -e "/$file" ] || [ -L "/$file" ]; then files+=("$file"); fi
    done
    tar --create --file "$new/host.tar" --directory / --exclude etc/kubernetes/tmp "${files[@]}" || fail 'the configuration of the host cannot be copied'
    echo "$from $to $machine" >"$new/for" && (cd "$new" && sha256sum etcd.db host.tar >sums && sync) || fail 'the snapshot cannot be written'
    snapshot=$from-$(date --utc +%Y%m%dT%H%M%SZ)
    find "$snapshots" -mindepth 1 -maxdepth 1 -name 'v*' | sort -t - -k 2 | head -n -1 | xargs -r rm -rf
    mv -T "$new" "$snapshots/$snapshot" && echo "$snapshot" >"$own/snapshot" && sync
}
has_running_etcd() { running etcd >/dev/null; }

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
