
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

# fail TEXT: a node that this job or an earlier one has cordoned takes pods again.
fail() {
    local text=$1
    if [ "$role" = worker ] && ! patiently uncordon; then
        text="$(cut -c 1-450 <<<"$text"), and the node may still be cordoned: kubectl uncordon $host"
    fi
    end Failed "$text"
}
# The annotation on a node that a job has cordoned, in one write with that: a node that its administrator has cordoned stays so.
cordoned=o2ims.provisioning.oran.org/cordoned
change_node() { cluster patch node "$host" --type merge --patch "{\"metadata\":{\"annotations\":{\"$cordoned\":$1}},\"spec\":{\"unschedulable\":$2}}"; }
cordon() {
    local is_cordoned
    is_cordoned=$(cluster get node "$host" --output 'jsonpath={.spec.unschedulable}') || return
    [ "$is_cordoned" = true ] || change_node "\"$id\"" true
}
uncordon() {
    local by
    by=$(cluster get node "$host" --output "jsonpath={.metadata.annotations.${cordoned//./\\.}}") || return
    [ -z "$by" ] || change_node null null
}
# evictable: namespace, name and time of deletion of the pods that leave, one a line. Those of DaemonSets and static ones belong to the node, and one
# without a controller would be lost: they run on.
evictable() {
    cluster get pods --all-namespaces --field-selector "spec.nodeName=$host" --output "jsonpath={range .items[*]}{.metadata.namespace}|{.metadata.name}|\
{.metadata.deletionTimestamp}|{.status.phase}|{.metadata.ownerReferences[?(@.controller==true)].kind}{'\\n'}{end}" >"$own/pods" &&
        awk -F '|' '$4 !~ /^(Succeeded|Failed)$/ && $5 !~ /^(|DaemonSet|Node)$/ { print $1, $2, $3 }' "$own/pods"
}
# evict NAMESPACE POD: prints why its eviction is refused, if it is. Only the body of the answer, which is in kubectl's own log, names the budget.
evict() {
    local answer budget
    answer=$(printf '{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"namespace":"%s","name":"%s"}}' "$1" "$2" |
        cluster create --v 8 --raw "/api/v1/namespaces/$1/pods/$2/eviction" --filename - 2>&1) && return
    budget=$(grep -o 'The disruption budget [^ ]*' <<<"$answer" | head -n 1)
    case $answer in
    *'(NotFound)'*) ;;
    *) if [ -n "$budget" ]; then echo "PodDisruptionBudget ${budget##* } does not allow the eviction"; else tail -n 1 <<<"$answer" | cut -c 1-150; fi ;;
    esac
}
# hold_up: evicts what is left, and prints what the drain waits for: what is refused, or else what has not ended. Nothing if the node is drained.
hold_up() {
    local pods namespace pod deleted why refused=() ending=()
    pods=$(evictable) || { echo 'the API server of the cluster, which does not answer' && return; }
    while read -r namespace pod deleted; do
        [ -n "$pod" ] || continue
        why=
        [ -n "$deleted" ] || why=$(evict "$namespace" "$pod")
        if [ -n "$why" ]; then refused+=("pod $namespace/$pod ($why)"); else ending+=("pod $namespace/$pod (being deleted, not ended yet)"); fi
    done <<<"$pods"
    if [ ${#refused[@]} -eq 0 ]; then refused=("${ending[@]}"); fi
    for why in "${refused[@]:0:3}"; do echo "$why"; done | paste -sd ',' | sed 's/),/), /g'
}
drain_node() {
    local last=$((SECONDS + drain)) waits told=
    patiently cordon || fail 'the node cannot be cordoned: see the log of the job'
    while waits=$(hold_up) && [ -n "$waits" ]; do
        if [ "$drain" -gt 0 ] && [ "$SECONDS" -ge "$last" ]; then
            fail "the node was not drained within $drain s (spec.timeouts.drain of the ClusterTemplate): it waits for $waits"
        fi
        [ "$waits" = "$told" ] || report Running "3 of $steps: draining the node: waits for $waits"
        told=$waits
        sleep 5
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
    # Also after an earlier job that ended without a word.
    if [ "$role" = worker ]; then patiently uncordon || fail 'the API server of the cluster does not answer'; fi
    rm -rf "$snapshots"/*/for "$packages"
    # kubeadm copies etcd's data at each upgrade; the last copy is kept.
    for kind in etcd manifests; do
        find /etc/kubernetes/tmp -maxdepth 1 -name "kubeadm-backup-$kind-*" 2>/dev/null | sort | head -n -1 | xargs -r rm -rf
    done
}

steps=5
if [ -n "$drain" ]; then steps=6; fi
step 1 'checking the host and its images' preflight
step 2 'taking a snapshot, and preparing the configuration of the cluster' prepare
if [ -n "$drain" ]; then step 3 'draining the node' drain_node; fi
step $((steps - 2)) 'kubeadm upgrade' node_upgrade
step $((steps - 1)) 'restarting the kubelet' install_new
step "$steps" 'waiting for the node to be Ready' finish
end Done "runs Kubernetes $to"
