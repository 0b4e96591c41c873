
# renew: by kubeadm, which writes each file in place. What it has written by halves when it was interrupted is put back first.
renew() {
    local copy=$own/kubernetes output=$own/kubeadm.log file
    patiently containerd_answers || fail 'containerd does not answer: journalctl -u containerd'
    if [ ! -d "$copy" ]; then
        rm -rf "$copy.new"
        mkdir -p "$copy.new"
        for file in /etc/kubernetes/pki /etc/kubernetes/{admin,super-admin,controller-manager,scheduler}.conf; do
            [ ! -e "$file" ] || cp -a "$file" "$copy.new" || fail "there is no room for a copy of $file"
        done
        sync && mv "$copy.new" "$copy" && sync
    else
        put_back "$copy"
    fi
    if control_plane | has_ended_one; then : >"$own/late"; fi
    if ! timeout 300 kubeadm certs renew all </dev/null >"$output" 2>&1; then
        cat "$output"
        put_back "$copy"
        drop "$copy"
        fail "kubeadm certs renew: $(cause "$output")"
    fi
    drop "$copy"
}
put_back() { cp -a "$1/." /etc/kubernetes && sync; }
# drop FOLDER: at once; half of a copy must not be put back.
drop() { sync && mv "$1" "$1.old" && sync && rm -rf "$1.old"; }
has_ended_one() {
    local end
    while read -r _ _ end; do [ "$end" -gt "$(date +%s)" ] || return 0; done
    return 1
}

# restart POD: ends its container; the kubelet starts another one, which reads the new files. No manifest is changed, so none can be lost, and a
# reboot does the same.
restart() {
    local pod=$1 old found='' i
    [ -e "/etc/kubernetes/manifests/$pod.yaml" ] || return 0
    old=$(running "$pod")
    if [ -n "$old" ]; then
        ctr --namespace k8s.io tasks kill --signal SIGTERM "$old"
        for ((i = 0; i < 45; i++)); do
            [ "$(running "$pod")" = "$old" ] || break
            sleep 1
        done
        [ "$(running "$pod")" != "$old" ] || ctr --namespace k8s.io tasks kill --signal SIGKILL "$old"
    fi
    patiently is_new || fail "$pod did not become ready within 5 minutes after its restart (${found:-it does not run}): crictl ps -a, journalctl -u kubelet"
}
# is_new: whether another container runs, and its pod is ready. Where certificates have ended on every master, the API cannot tell before the last one.
is_new() {
    found=$(running "$pod") && [ "$found" != "$old" ] || return
    [ -e "$own/late" ] || is_pod_ready "$pod"
}
restart_etcd() { restart etcd; }
restart_api() { restart kube-apiserver; }
restart_others() {
    local file start end left=''
    restart kube-controller-manager
    restart kube-scheduler
    restart kube-vip
    while read -r file start end; do
        if is_due "$start" "$end"; then left+=" $file"; fi
    done < <(control_plane)
    [ -z "$left" ] || fail "kubeadm does not renew these, which end soon or have ended:$left"
}

steps=4
step 1 'kubeadm certs renew' renew
step 2 'restarting etcd' restart_etcd
step 3 'restarting the API server' restart_api
step 4 'restarting the other pods of the control plane' restart_others
end Done 'the certificates are renewed'
