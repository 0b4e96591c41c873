#!/bin/bash
# Put here by the O2IMS operator; removed when the host is let go.
# Runs the jobs that annotations of this host's ByoHost name, with the rights of BYOH's agent. A job is a script in a Secret. Once it is here it
# is a systemd unit of its own, which needs neither this program nor the management cluster; after a reboot this program starts it again.
set -u
namespace='@NAMESPACE@' host='@HOST@' unit=1
config=${HOME:-/root}/.byoh/config prefix=o2ims.provisioning.oran.org
jobs=/var/lib/o2ims-host node=/var/lib/o2ims-node

api() { timeout 30 kubectl --kubeconfig "$config" --namespace "$namespace" "$@"; }
annotate() { api annotate --overwrite byohost "$host" "$prefix/$1" >/dev/null; }

is_running() { case $(systemctl is-active o2ims-job) in active | activating | deactivating | reloading) return 0 ;; *) return 1 ;; esac }
# has_ended: whether no job runs. One that has just reported that it is done ends in a moment.
has_ended() {
    local i
    for ((i = 0; i < 20; i++)); do
        is_running || return 0
        sleep 0.5
    done
    return 1
}
# fail TEXT ID: reports a job that is not run.
fail() {
    printf '{"id":"%s","state":"Failed","message":"%s"}' "$2" "$1" >"$jobs/status.new"
    sync && mv "$jobs/status.new" "$jobs/status"
}
# run ID: starts the job, or goes on with it, unless one runs. One that ends again and again without a word, as without memory, is given up.
run() {
    local starts
    ! is_running || return 0
    starts=$(($(cat "$jobs/$1/starts" 2>/dev/null || echo 0) + 1))
    echo "$starts" >"$jobs/$1/starts"
    if [ "$starts" -gt 20 ]; then
        : >"$jobs/$1/ended"
        fail 'the job was started 20 times and ended without a result each time: journalctl -u o2ims-job' "$1"
        return
    fi
    systemd-run --quiet --collect --unit=o2ims-job --property=TimeoutStopSec=5 --setenv=HOME="${HOME:-/root}" bash "$jobs/$1/script"
}
# resume: goes on with a job that was interrupted.
resume() {
    local script
    for script in "$jobs"/*/script; do
        [ -e "$script" ] || continue
        case $script in *.new/script) ;; *) [ -e "${script%/*}/ended" ] || run "$(basename "${script%/*}")" ;; esac
    done
}

# take ID SHA256: fetches the script of a job and runs it, once. Secret and annotation are written one after the other, so one that does not
# have this hash is not the job's.
take() {
    local new=$jobs/$1.new machine
    case $1 in *[!a-z0-9.-]* | . | ..) return 0 ;; esac
    rm -rf "$new" && mkdir -p "$new" || return
    api get secret "o2ims-job.$host" --output 'jsonpath={.data.script}' | base64 --decode >"$new/script" || return
    machine=$(api get secret "o2ims-job.$host" --output 'jsonpath={.data.machine}' | base64 --decode) || return
    [ "$(sha256sum <"$new/script" | cut -d ' ' -f 1)" = "$2" ] || return
    if [ "$machine" != "$(cat "$node" 2>/dev/null)" ]; then
        fail "this host is not the node of ByoMachine $machine" "$1"
        return
    fi
    find "$jobs" -mindepth 1 -maxdepth 1 -type d ! -name "$1.new" -exec rm -rf {} +
    rm -f "$jobs/status"
    sync && mv "$new" "$jobs/$1" && sync && run "$1"
}

# look JOB UNIT STATUS: what the annotations ask for.
look() {
    local id=${1%% *}
    [ "$2" = "$unit" ] || annotate "host-unit=$unit" || return
    if [ -n "$id" ] && [ ! -e "$jobs/$id/script" ] && ! grep -qs "^{\"id\":\"$id\"" "$jobs/status"; then
        has_ended || return 0
        take "$id" "${1#* }" || return
    fi
    [ ! -s "$jobs/status" ] || [ "$3" = "$(cat "$jobs/status")" ] || annotate "job-status=$(cat "$jobs/status")"
}

mkdir -p "$jobs" && chmod 700 "$jobs"
watch=
# Its watch ends first: systemd waits for what is left of a unit.
trap 'if [ -n "$watch" ]; then kill "$watch" && wait "$watch"; fi 2>/dev/null; exit 0' TERM
path='{.metadata.annotations.o2ims\.provisioning\.oran\.org/'
while :; do
    resume
    # The watch ends now and then, so that what was missed is seen.
    exec 3< <(exec timeout 600 kubectl --kubeconfig "$config" --namespace "$namespace" get byohost "$host" --watch \
        --output "jsonpath=${path}job};${path}host-unit};${path}job-status}"'{"\n"}')
    watch=$!
    while :; do
        IFS=';' read -r -t 30 job known told <&3
        case $? in
        0) look "$job" "$known" "$told" || break ;;
        1) break ;;
        # Nothing has changed. A job that was killed goes on.
        *) resume ;;
        esac
    done
    kill "$watch" 2>/dev/null
    exec 3<&-
    wait "$watch" 2>/dev/null
    sleep 5
done
