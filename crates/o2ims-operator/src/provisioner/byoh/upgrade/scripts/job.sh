#!/bin/bash
# A job of the O2IMS operator for host @HOST@. Each step can be run again: after a reboot the job goes on with the step that was interrupted.
set -u
id='@ID@' namespace='@NAMESPACE@' host='@HOST@' machine='@MACHINE@'
from='@FROM@' to='@TO@' role='@ROLE@' place='@PLACE@' masters='@MASTERS@' files='@FILES@' ignored='@IGNORED@' asked='@SNAPSHOT@' drain='@DRAIN@'
jobs=/var/lib/o2ims-jobs node=/var/lib/o2ims-node links=/var/lib/o2ims-links packages=/var/lib/o2ims-packages
wrapper=/usr/local/sbin/kubeadm drop_in=/etc/systemd/system/kubelet.service.d/90-o2ims.conf
own=$jobs/$id
exec >>"$own/log" 2>&1
echo "$(date --utc +%FT%TZ) $id: $from to $to"

# The snapshot that this job has taken.
snapshots=/var/lib/o2ims-snapshots
snapshot=$(cat "$own/snapshot" 2>/dev/null)

# report STATE TEXT: writes down how far the job is, and tells the operator; if that does not work, the host's unit does it later.
report() {
    local text
    text=$(printf %s "$2" | tr '\n\t' '  ' | tr -d '\000-\037' | cut -c1-600 | sed 's/\\/\\\\/g; s/"/\\"/g')
    printf '{"id":"%s","state":"%s","snapshot":"%s","message":"%s"}' "$id" "$1" "$snapshot" "$text" >"$jobs/status.new"
    sync && mv "$jobs/status.new" "$jobs/status" && sync
    echo "$(date --utc +%FT%TZ) $1 $2"
    timeout 10 kubectl --kubeconfig "${HOME:-/root}/.byoh/config" --namespace "$namespace" annotate --overwrite byohost "$host" \
        "o2ims.provisioning.oran.org/job-status=$(cat "$jobs/status")" >/dev/null || true
}
# The report is there before the mark: a job that was cut off in between runs its last step again.
end() {
    report "$1" "$2"
    : >"$own/ended"
    exit
}
# fail TEXT: not for subshells.
fail() { end Failed "$1"; }

# step NUMBER NAME FUNCTION: runs a step unless it is done.
step() {
    [ "$(cat "$own/step" 2>/dev/null || echo 0)" -lt "$1" ] || return 0
    report Running "$1 of $steps: $2"
    "$3"
    echo "$1" >"$own/step.new" && sync && mv "$own/step.new" "$own/step"
}
# patiently COMMAND...: runs it until it ends well, for at most five minutes. After a boot the kubelet has to start the API server first.
patiently() {
    local last=$((SECONDS + 300))
    until "$@"; do
        [ "$SECONDS" -lt "$last" ] || return
        sleep 5
    done
}

# cause FILE: why kubeadm has failed that has written this.
cause() {
    local why
    why=$(grep -o '\[ERROR .*' "$1" | head -n 3 | tr '\n' ' ')
    [ -n "$why" ] || why=$(grep -i '^error' "$1" | tail -n 1)
    [ -n "$why" ] || why=$(grep . "$1" | tail -n 1)
    echo "$why"
}

minor() { echo "$1" | cut -d . -f 2; }
# version_of PROGRAM PATH
version_of() {
    local found=
    case $1 in
    kubelet) found=$("$2" --version 2>/dev/null) && found=${found#Kubernetes } ;;
    kubeadm) found=$("$2" version --output short 2>/dev/null) ;;
    kubectl) found=$("$2" version --client 2>/dev/null | sed -n 's/^Client Version: //p') ;;
    esac
    echo "${found%%[+-]*}"
}
is_ours() { head -c 400 "$1" 2>/dev/null | tr -d '\0' | grep -q 'Put here by the O2IMS operator'; }

# find_new PROGRAM: the path of the program in the version that is asked for.
find_new() {
    local candidate
    for candidate in "$files/$1" $(type -aP "$1") "$packages/$to/root/usr/bin/$1"; do
        [ -x "$candidate" ] && ! is_ours "$candidate" || continue
        if [ "$(version_of "$1" "$candidate")" = "$to" ]; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

# The cluster as the node's own rights show it.
cluster() { timeout 60 kubectl --kubeconfig /etc/kubernetes/kubelet.conf "$@"; }
read_config() {
    cluster --namespace kube-system get configmap kubeadm-config --output 'jsonpath={.data.ClusterConfiguration}' >"$own/config.yaml" &&
        [ -s "$own/config.yaml" ]
}
is_ready() { [ "$(cluster get node "$host" --output 'jsonpath={.status.conditions[?(@.type=="Ready")].status}')" = True ]; }
runs_it() {
    found=$(cluster get node "$host" --output 'jsonpath={.status.nodeInfo.kubeletVersion} {.status.conditions[?(@.type=="Ready")].status}' 2>/dev/null)
    case $found in "$to True" | "$to"[+-]*" True") return 0 ;; *) return 1 ;; esac
}
# until_node_runs: waits until the node is Ready at the version that is asked for.
until_node_runs() {
    local found=''
    patiently runs_it || fail "the node did not become Ready at $to within 5 minutes (version and Ready are: ${found:-not known}): journalctl -u kubelet"
}
containerd_answers() { ctr --namespace k8s.io version >/dev/null 2>&1; }

# without_gate: kubeadm 1.36 refuses a configuration with a feature gate that Cluster API set up to 1.35, and that Kubernetes has no more.
without_gate() {
    awk '/^  ControlPlaneKubeletLocalMode:/ { next }
         /^featureGates:/ { held = $0; next }
         { if (held != "") { if ($0 ~ /^ /) print held; held = "" } print }'
}
has_gate() { grep -q '^  ControlPlaneKubeletLocalMode:' "$own/config.yaml" && [ "$(minor "$to")" -ge 36 ]; }
# new_config: the cluster's configuration for the new version.
new_config() {
    if has_gate; then without_gate <"$own/config.yaml"; else cat "$own/config.yaml"; fi | sed "s/^kubernetesVersion: .*/kubernetesVersion: $to/"
}

# missing_images: those that this host needs and does not have.
missing_images() {
    local there needed
    there=$(ctr --namespace k8s.io images list --quiet) || return
    needed=$("$kubeadm" config images list --config "$own/new.yaml" 2>/dev/null) || return
    if [ "$role" = worker ]; then needed=$(grep -E '/(kube-proxy|pause):' <<<"$needed"); fi
    grep -vxF -f <(echo "$there") <<<"$needed" || true
}
# bring_images: from archives beside the programs, or else from where containerd pulls them.
bring_images() {
    local archive missing
    new_config >"$own/new.yaml"
    missing=$(missing_images) || fail 'the images that the new version needs cannot be listed: see the log of the job'
    [ -n "$missing" ] || return 0
    for archive in "$files"/images/*.tar; do
        if [ -e "$archive" ]; then ctr --namespace k8s.io images import "$archive"; fi
    done
    missing=$(missing_images)
    [ -n "$missing" ] || return 0
    timeout 900 "$kubeadm" config images pull --config "$own/new.yaml"
    missing=$(missing_images | paste -sd ' ')
    [ -z "$missing" ] || fail "these images are neither in containerd nor in $files/images, and cannot be pulled: $missing"
}

manifests=/etc/kubernetes/manifests
etcd_manifest=$manifests/etcd.yaml
has_etcd() { [ "$role" = control-plane ] && [ -e "$etcd_manifest" ]; }
# etcd_setting FLAG: its value in the manifest.
etcd_setting() { sed -n "s/^ *- --$1=//p" "$etcd_manifest" | head -n 1; }
# running POD: the container of a static pod of this host.
running() {
    local id
    for id in $(ctr --namespace k8s.io containers list --quiet \
        "labels.\"io.kubernetes.pod.name\"==\"$1-$host\",labels.\"io.kubernetes.container.name\"==\"$1\""); do
        if ctr --namespace k8s.io tasks list | grep -q "^$id .*RUNNING"; then
            echo "$id"
            return
        fi
    done
    return 1
}

# is_pod_ready POD: whether its container runs, and the API shows this one as ready.
is_pod_ready() {
    local container
    container=$(running "$1") || { found="$1 does not run" && return 1; }
    found=$(cluster --namespace kube-system get pod "$1-$host" \
        --output 'jsonpath={.status.containerStatuses[0].containerID} {.status.containerStatuses[0].ready}')
    [ "$found" = "containerd://$container true" ]
}

# etcd_version: what the member on this host runs.
etcd_version() {
    exec 4<>/dev/tcp/127.0.0.1/2381 || return
    printf 'GET /metrics HTTP/1.0\r\n\r\n' >&4
    timeout 20 sed -n 's/^etcd_server_version{server_version="\([0-9.]*\).*/\1/p' <&4 | head -n 1
    exec 4>&-
}
# check_etcd: etcd's own rules for an upgrade of several members: what is older loses members, or refuses to start.
check_etcd() {
    local least='' has
    has_etcd && [ "$masters" -gt 1 ] || return 0
    case $(minor "$from")-$(minor "$to") in
    33-34) least=3.5.26 ;;
    36-37) least=3.6.11 ;;
    *) return 0 ;;
    esac
    has=$(etcd_version 2>/dev/null)
    [ "$(printf '%s\n' "$least" "${has:-0}" | sort -V | head -n 1)" = "$least" ] ||
        fail "etcd on this host is ${has:-of an unknown version}; with several masters it must be $least or newer before Kubernetes $to"
}

# preflight: what must be so before anything is changed.
preflight() {
    local program space free
    [ "$(cat "$node" 2>/dev/null)" = "$machine" ] || fail "this host is not the node of ByoMachine $machine any more"
    if [ '@SOURCE@' = packages ] && ! { find_new kubelet && find_new kubeadm; } >/dev/null; then fetch_packages; fi
    for program in kubelet kubeadm; do
        find_new "$program" >/dev/null || fail "$program $to is neither in $files nor installed: put it into $files"
        if [ -x "$files/$program" ] && [ -e "/usr/local/bin/$program" ] && [ ! -L "/usr/local/bin/$program" ]; then
            fail "/usr/local/bin/$program is in the way: it is no link"
        fi
    done
    kubeadm=$(find_new kubeadm)
    systemctl is-enabled --quiet kubelet || fail 'the kubelet is not enabled, so it would not start after a reboot: systemctl enable kubelet'
    for space in /var/lib /var/lib/containerd /var/lib/etcd /var/lib/kubelet /etc/kubernetes; do
        [ -d "$space" ] || continue
        free=$(df --output=avail -k "$space" | tail -n 1)
        [ "$free" -ge 2097152 ] || fail "only $((free / 1024)) MiB are free in $space; an upgrade needs 2048"
    done
    if [ "$(minor "$to")" -ge 35 ] && [ "$(stat -fc %T /sys/fs/cgroup)" != cgroup2fs ] &&
        ! grep -qs '^failCgroupV1: false' /var/lib/kubelet/config.yaml && ! grep -qs 'fail-cgroupv1=false' /var/lib/kubelet/kubeadm-flags.env; then
        fail 'this host has control groups of version 1, which the kubelet refuses from Kubernetes 1.35 on'
    fi
    patiently containerd_answers || fail 'containerd does not answer: journalctl -u containerd'
    patiently read_config || fail 'the API server of the cluster does not answer'
    check_etcd
    bring_images
}
