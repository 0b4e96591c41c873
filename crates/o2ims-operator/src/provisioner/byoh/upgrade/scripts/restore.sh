# Brings an only master back to a snapshot: etcd, configuration and programs. What has changed in the cluster since is lost.
saved=$snapshots/$asked
# Where the manifest of etcd is meanwhile. A kubelet that starts after a power cut must not start etcd: it would begin a new cluster without its data, or
# open the data of a newer version.
aside=/etc/kubernetes/tmp/o2ims-etcd.yaml

check_snapshot() {
    [ "$(cat "$node" 2>/dev/null)" = "$machine" ] || fail "this host is not the node of ByoMachine $machine any more"
    (cd "$saved" && sha256sum --quiet --check sums) || fail "snapshot $asked is not complete in $snapshots"
    [ -e "$aside" ] || has_etcd || fail 'etcd is not on this host: it has no manifest there'
}

nothing_runs() {
    local pod id
    for pod in etcd kube-apiserver kube-controller-manager kube-scheduler kube-vip; do
        id=$(running "$pod") || continue
        ctr --namespace k8s.io tasks kill --signal SIGKILL "$id"
        return 1
    done
}
# The kubelet is stopped first: it would start the others again.
stop_all() {
    if [ -e "$manifests/etcd.yaml" ]; then
        mkdir -p "${aside%/*}" && mv "$manifests/etcd.yaml" "$aside" && sync || fail "$manifests cannot be written"
    fi
    systemctl stop kubelet
    patiently nothing_runs || fail 'the containers of the control plane do not end: ctr --namespace k8s.io tasks list'
}

# put_back: the configuration comes before the data: an etcd of the new version must never see the old data.
put_back() {
    local etcd=etc/kubernetes/manifests/etcd.yaml
    tar --extract --file "$saved/host.tar" --directory / --exclude "$etcd" &&
        tar --extract --file "$saved/host.tar" --to-stdout "$etcd" >"$aside.new" && mv "$aside.new" "$aside" && sync ||
        fail 'the configuration of the host cannot be put back'
}

# restore_etcd: makes the new data beside the old ones, and exchanges them. Each move is looked for after a power cut.
restore_etcd() {
    local data image new old
    # After a power cut the kubelet has been started.
    stop_all
    etcd_manifest=$aside
    data=$(etcd_setting data-dir) new=$data/o2ims-restored old=$data/o2ims-replaced
    image=$(sed -n 's/^ *image: //p' "$aside" | head -n 1)
    if [ "$(cat "$new/done" 2>/dev/null)" != "$id" ]; then
        rm -rf "$new"
        ctr --namespace k8s.io containers delete o2ims-restore 2>/dev/null
        # Clients must not see revisions again that they have seen already.
        timeout 600 ctr --namespace k8s.io run --rm --mount "type=bind,src=$saved,dst=/saved,options=rbind:ro" \
            --mount "type=bind,src=$data,dst=$data,options=rbind:rw" "$image" o2ims-restore etcdutl snapshot restore /saved/etcd.db --data-dir "$new" \
            --name "$(etcd_setting name)" --initial-cluster "$(etcd_setting name)=$(etcd_setting initial-advertise-peer-urls)" \
            --initial-advertise-peer-urls "$(etcd_setting initial-advertise-peer-urls)" --bump-revision 1000000000 --mark-compacted ||
            fail 'the snapshot of etcd cannot be restored (etcdutl snapshot restore): see the log of the job'
        sync && echo "$id" >"$new/done.new" && sync && mv "$new/done.new" "$new/done" && sync
    fi
    if [ -e "$new/member" ]; then
        [ ! -e "$data/member" ] || { rm -rf "$old" && mv "$data/member" "$old"; } || fail "$data cannot be written"
        mv "$new/member" "$data/member" && sync || fail "$data cannot be written"
    fi
    etcd_manifest=$manifests/etcd.yaml
    mv "$aside" "$etcd_manifest" && sync || fail "$manifests cannot be written"
}

start() {
    systemctl daemon-reload && systemctl restart kubelet || fail 'the kubelet does not restart: journalctl -u kubelet'
    until_node_runs
    rm -rf "$(etcd_setting data-dir)/o2ims-restored" "$(etcd_setting data-dir)/o2ims-replaced"
    # What is done from now on is not in it.
    rm -f "$snapshots"/*/for
}

steps=5
step 1 'checking the snapshot' check_snapshot
step 2 'stopping the control plane' stop_all
step 3 'putting the configuration back' put_back
step 4 'restoring etcd' restore_etcd
step 5 'waiting for the node to be Ready' start
end Done "runs Kubernetes $to, as it was in snapshot $asked"
