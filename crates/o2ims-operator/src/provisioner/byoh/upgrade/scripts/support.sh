# redact: what is read, without private keys, tokens and passwords. A value that was quoted is removed as a whole, and any other one up to a space.
redact() {
    local names='token|pass(word|wd|phrase)?|secret[a-z0-9_-]*|credentials?|(api|access|private)[-_]?key|certificate-key|key-data' is before
    is="[\\\"']*[[:space:]]*[=:][[:space:]]*"
    # etcd and the API server have settings such as --client-cert-auth=true.
    before="(--[a-z0-9_-]*($names)([[:space:]]+|$is)|($names|(^|[^-a-z0-9])auth)$is)"
    sed -E \
        -e 's/-----BEGIN [A-Z ]*PRIVATE KEY-----.*-----END [A-Z ]*PRIVATE KEY-----/[removed]/g' \
        -e '/-----BEGIN [A-Z ]*PRIVATE KEY-----/,/-----END [A-Z ]*PRIVATE KEY-----/d' \
        -e 's/LS0tLS1CRUdJTi[A-Za-z0-9+\/=]+/[removed]/g' \
        -e 's/eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_.-]+/[removed]/g' \
        -e 's/\b[a-z0-9]{6}\.[a-z0-9]{16}\b/[removed]/g' \
        -e 's#://[^[:space:]]*@#://[removed]@#g' \
        -e 's/'"$before"'\\"([^"\\]|\\\\(\\.|[^\\]))*\\"/\1\\"[removed]\\"/Ig' \
        -e 's/'"$before"'"([^"\\]|\\.)*"/\1"[removed]"/Ig' \
        -e 's/'"$before'[^']*'/\\1'[removed]'/Ig" \
        -e 's/'"$before"'([^"'\''\\[:space:]]|\\+[^"'\''\\])[^[:space:]]*/\1[removed]/Ig' \
        -e 's/'"$before"'(\\*["'\''])(\[[^r]|[^[]).*/\1[removed]/I' \
        -e 's/((bearer|basic) )[A-Za-z0-9._~+\/=-]{8,}/\1[removed]/Ig'
}
# keep FILE COMMAND...: the end of what a command prints, for at most a minute.
keep() {
    local file=$folder/$1
    shift
    mkdir -p "${file%/*}"
    timeout 60 "$@" </dev/null 2>&1 | redact | tail -c 3M >"$file"
}
# copy FILE...: the end of text files.
copy() {
    local file
    for file in "$@"; do
        [ ! -f "$file" ] || keep "files$file" cat "$file"
    done
}
# tell_support NAME STATE MORE: reports how far the bundle is; MORE is JSON.
tell_support() {
    printf '{"name":"%s","state":"%s"%s}' "$1" "$2" "${3:-}" >"$support/status.new"
    sync && mv "$support/status.new" "$support/status"
}
# support_fail TEXT NAME: without a ";", at which the unit divides what it reads back.
support_fail() { tell_support "$2" Failed ",\"message\":\"$1\""; }

# support_bundle NAME: collects what somebody needs who looks for the cause of a failure, and reports it.
support_bundle() {
    local name=$1 folder=$support/new/$1 file=$support/$1.tar.gz unit pod free
    rm -rf "$support/new" && mkdir -p "$folder"
    free=$(df --output=avail -k "$support" | tail -n 1)
    if [ "$free" -lt 262144 ]; then
        support_fail "only $((free / 1024)) MiB are free in /var/lib, and a support bundle needs 256" "$name"
        return
    fi
    keep system bash -c 'date --utc; uptime; uname -a; cat /etc/os-release; stat -fc %T /sys/fs/cgroup; free -m; cat /proc/swaps; df -h; df -i
        ip address; ip route; ip -6 route; ss -ltn; timedatectl; systemctl --failed --no-pager; systemctl status --no-pager --lines=0 kubelet containerd o2ims-host'
    keep versions bash -c 'kubelet --version; kubeadm version --output short; kubectl version --client; containerd --version; runc --version; crictl --version'
    keep containers bash -c 'for what in containers tasks images; do ctr --namespace k8s.io "$what" list; done; crictl ps -a; crictl pods'
    keep places find /etc/kubernetes /opt/kubernetes /var/lib/o2ims-jobs /var/lib/o2ims-snapshots /var/lib/o2ims-packages /usr/local/bin /usr/local/sbin -ls
    keep kubelet-unit systemctl cat kubelet
    keep byohost.yaml kubectl --kubeconfig "$config" --namespace "$namespace" get byohost "$host" --output yaml
    control_plane >"$folder/certificates"
    for unit in kubelet containerd o2ims-host o2ims-job "$(agent_unit)"; do
        [ -z "$unit" ] || keep "journal/$unit" journalctl --no-pager --output=short-iso --lines=20000 --unit="$unit"
    done
    keep journal/kernel journalctl --no-pager --output=short-iso --lines=5000 --dmesg
    # Beside these there are copies of keys.
    copy "$jobs"/status "$jobs"/certificates "$jobs"/*/{log,kubeadm.log,step,starts,ended,snapshot,config.yaml,new.yaml,upgrade.yaml} \
        /var/lib/kubelet/{config.yaml,kubeadm-flags.env} /etc/default/kubelet /etc/sysconfig/kubelet
    for pod in etcd kube-apiserver kube-controller-manager kube-scheduler kube-vip; do
        copy "/etc/kubernetes/manifests/$pod.yaml"
        # shellcheck disable=SC2012
        ls -t /var/log/pods/kube-system_"$pod"-*/*/*.log 2>/dev/null | head -n 2 | while IFS= read -r unit; do copy "$unit"; done
    done
    if ! tar --create --gzip --file "$support/new.tar.gz" --directory "$support/new" "$name"; then
        support_fail 'the support bundle cannot be written: is the disk full?' "$name"
    else
        sync && mv "$support/new.tar.gz" "$file" && sync
        # The newest two are kept.
        # shellcheck disable=SC2012
        ls -t "$support"/*.tar.gz | tail -n +3 | xargs -r rm -f
        tell_support "$name" Done ",\"path\":\"$file\",\"bytes\":$(stat --format=%s "$file"),\"sha256\":\"$(sha256sum <"$file" | cut -d ' ' -f 1)\""
    fi
    rm -rf "$support/new" "$support/new.tar.gz"
}
