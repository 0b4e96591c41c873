
# save_snapshot KIND-TIME FOR PATTERN: etcd and the configuration of the host, as they are. Of others with names like PATTERN the newest is kept.
save_snapshot() {
    local container data file new=$snapshots/new pki=/etc/kubernetes/pki/etcd files=()
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
    echo "$2" >"$new/for" && (cd "$new" && sha256sum etcd.db host.tar >sums && sync) || fail 'the snapshot cannot be written'
    snapshot=$1
    # The time is behind the first "-".
    find "$snapshots" -mindepth 1 -maxdepth 1 -name "$3" -printf '%f\n' | sort -t - -k 2 | head -n -1 | (cd "$snapshots" && xargs -r rm -rf)
    mv -T "$new" "$snapshots/$1" && echo "$1" >"$own/snapshot" && sync
}
has_running_etcd() { running etcd >/dev/null; }
