#!/bin/bash
# Put here by the O2IMS operator; removed when the host is let go.
# Runs the jobs that annotations of this host's ByoHost name, with the rights of BYOH's agent, reports when certificates end, renews the agent's, and makes
# support bundles. A job is a script in a Secret. Once it is here it is a systemd unit of its own, which needs neither this program nor the management
# cluster; after a reboot this program starts it again.
set -u
namespace='@NAMESPACE@' host='@HOST@' unit=2
config=${HOME:-/root}/.byoh/config prefix=o2ims.provisioning.oran.org
jobs=/var/lib/o2ims-jobs node=/var/lib/o2ims-node support=/var/lib/o2ims-support

api() { timeout 30 kubectl --kubeconfig "$config" --namespace "$namespace" "$@"; }
annotate() { api annotate --overwrite byohost "$host" "$prefix/$1" >/dev/null; }

is_active() { case $(systemctl is-active "$1") in active | activating | deactivating | reloading) return 0 ;; *) return 1 ;; esac }
# is_running: whether a job runs, or a support bundle is made.
is_running() { is_active o2ims-job || is_active o2ims-support; }
# has_ended: whether neither does. One that has just reported that it is done ends in a moment.
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
# run ID: starts the job, or goes on with it, unless something runs. One that ends again and again without a word, as without memory, is given up.
run() {
    local starts
    ! is_running || return 0
    starts=$(($(cat "$jobs/$1/starts" 2>/dev/null || echo 0) + 1))
    echo "$starts" >"$jobs/$1/starts"
    if [ "$starts" -gt 20 ]; then
        : >"$jobs/$1/ended"
        fail "the job was started 20 times and ended without a result each time: journalctl -u o2ims-job. If it has cordoned the node: kubectl uncordon $host" "$1"
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

# own_machine: the machine that this host is the node of. The install script writes it down; without that script BYOH's record counts.
own_machine() {
    if [ -e "$node" ]; then
        cat "$node"
    elif [ -e /etc/kubernetes/kubelet.conf ]; then
        api get byohost "$host" --output 'jsonpath={.status.machineRef.namespace}.{.status.machineRef.name}'
    fi
}

# take ID SHA256: fetches the script of a job and runs it, once. Secret and annotation are written one after the other, so one that does not
# have this hash is not the job's.
take() {
    local new=$jobs/$1.new machine own
    case $1 in *[!a-z0-9.-]* | . | ..) return 0 ;; esac
    rm -rf "$new" && mkdir -p "$new" || return
    api get secret "o2ims-job.$host" --output 'jsonpath={.data.script}' | base64 --decode >"$new/script" || return
    machine=$(api get secret "o2ims-job.$host" --output 'jsonpath={.data.machine}' | base64 --decode) || return
    [ "$(sha256sum <"$new/script" | cut -d ' ' -f 1)" = "$2" ] || return
    own=$(own_machine) || return
    if [ "$machine" != "$own" ]; then
        fail "this host is not the node of ByoMachine $machine" "$1"
        return
    fi
    find "$jobs" -mindepth 1 -maxdepth 1 -type d ! -name "$1.new" -exec rm -rf {} +
    rm -f "$jobs/status"
    sync && mv "$new" "$jobs/$1" && sync && run "$1"
}

@DATES@
# certificates: writes down when those of this host end. The agent's is renewed first, if that is due.
certificates() {
    local agent control_plane='' due='' failure='' start end text=''
    agent=$(agent_dates)
    # shellcheck disable=SC2086
    if [ -n "$agent" ] && is_due $agent; then
        failure=$(renew_agent $((${agent#* } - ${agent% *})))
        agent=$(agent_dates)
    fi
    if [ -e "$jobs/restart-agent" ]; then failure=$(restart_agent); fi
    while read -r _ start end; do
        if [ -z "$control_plane" ] || [ "$end" -lt "$control_plane" ]; then control_plane=$end; fi
        if is_due "$start" "$end"; then due=Soon; fi
    done < <(control_plane)
    if [ -n "$due" ] && [ "$control_plane" -le "$(date +%s)" ]; then due=Ended; fi
    [ -z "$agent" ] || text+=",\"agent\":\"$(iso "${agent#* }")\""
    [ -z "$control_plane" ] || text+=",\"controlPlane\":\"$(iso "$control_plane")\""
    [ -z "$due" ] || text+=",\"renew\":\"$due\""
    [ -z "$failure" ] || text+=",\"failure\":\"$(tr -d '";\\\000-\037' <<<"$failure" | cut -c 1-400)\""
    # Without openssl nothing is known.
    [ -n "$text" ] || return 0
    echo "{${text#,}}" >"$jobs/certificates.new" && mv "$jobs/certificates.new" "$jobs/certificates"
}
iso() { date --utc --date="@$1" +%FT%TZ; }
agent_dates() { kubectl config view --kubeconfig "$config" --raw --flatten --minify | embedded | dates | tr '\n' ' ' | sed 's/ $//'; }

# is_settled: whether the agent neither makes the host a node nor cleans it: nothing that is to be interrupted.
is_settled() {
    case $(api get byohost "$host" --output \
        'jsonpath={.metadata.annotations} {.status.conditions[?(@.type=="K8sNodeBootstrapSucceeded")].status}') in
    *'/unregistering"'*) return 1 ;;
    *' True') return 0 ;;
    *) return 1 ;;
    esac
}
# renew_agent SECONDS: asks for another certificate for so long, with the one that is still valid, and puts it into the agent's kubeconfig. Prints why
# it does not; then everything is as it was. BYOH's manager approves requests that are named like this. The key is kept until it is used, so that
# each try goes on with the same request.
renew_agent() {
    local key=$jobs/agent.key certificate=$jobs/agent.crt name output user i
    is_settled || return
    if [ ! -s "$key" ]; then
        openssl genrsa -out "$key.new" 2048 2>/dev/null && sync && mv "$key.new" "$key" || { echo 'openssl makes no key' && return; }
    fi
    name=byoh-csr-$host-$(openssl rsa -in "$key" -pubout 2>/dev/null | sha256sum | cut -c 1-8)
    if ! api get certificatesigningrequest "$name" >/dev/null 2>&1; then
        output=$(ask "$name" "$1" 2>&1) || { echo "CertificateSigningRequest $name cannot be created: $(tail -n 1 <<<"$output")" && return; }
    fi
    for ((i = 0; i < 30; i++)); do
        api get certificatesigningrequest "$name" --output 'jsonpath={.status.certificate}' | base64 --decode >"$certificate"
        [ ! -s "$certificate" ] || break
        sleep 2
    done
    if [ ! -s "$certificate" ]; then
        case $(api get certificatesigningrequest "$name" --output 'jsonpath={.status.conditions[*].type}') in
        *Denied* | *Failed*) rm -f "$key" && echo "CertificateSigningRequest $name was denied" ;;
        *Approved*) echo "CertificateSigningRequest $name is approved, and no controller signs it" ;;
        *) echo "CertificateSigningRequest $name is not approved" ;;
        esac
        return
    fi
    user=$(kubectl config view --kubeconfig "$config" --minify --output 'jsonpath={.contexts[0].context.user}')
    cp -p "$config" "$config.new" &&
        kubectl config --kubeconfig "$config.new" set-credentials "$user" --client-certificate="$certificate" --client-key="$key" \
            --embed-certs=true >/dev/null || { echo 'the kubeconfig of the agent cannot be written' && return; }
    if ! timeout 30 kubectl --kubeconfig "$config.new" --namespace "$namespace" get byohost "$host" >/dev/null; then
        rm -f "$key" "$certificate" "$config.new"
        echo 'the new certificate is not accepted'
        return
    fi
    : >"$jobs/restart-agent" && sync && mv "$config.new" "$config" && sync && rm -f "$key" "$certificate"
}
# ask NAME SECONDS: creates the request for the certificate.
ask() {
    local request
    request=$(openssl req -new -key "$jobs/agent.key" -subj "/O=byoh:hosts/CN=byoh:host:$host" | base64 --wrap=0) && [ -n "$request" ] || return
    api create --validate=false --filename - <<END
{"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": "$1"},
 "spec": {"request": "$request", "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"], "expirationSeconds": $2}}
END
}
# agent_unit: the agent's. It is known by the program; some start it by a shell.
agent_unit() {
    systemctl show --property=Id,ExecStart '*.service' | awk 'BEGIN { RS = ""; FS = "\n" }
        /ExecStart=[^\n]*\/[^ ;"\/]*byoh[^ ;"\/.]*agent[^ ;"\/.]*[ ;"]/ { for (i = 1; i <= NF; i++) if (sub(/^Id=/, "", $i)) { print $i; exit } }'
}
# restart_agent: it reads its kubeconfig at its start only.
restart_agent() {
    local agent
    is_settled || return
    agent=$(agent_unit)
    if [ -n "$agent" ] && timeout 120 systemctl restart "$agent"; then
        rm -f "$jobs/restart-agent"
    else
        echo 'the agent has a new certificate and its systemd unit cannot be restarted: restart the agent'
    fi
}

@SUPPORT@
# collect NAME: makes a support bundle, once. A job comes first, and waits for one that is made.
collect() {
    case $1 in *[!A-Za-z0-9._-]* | [._-]*) return 0 ;; esac
    has_ended || return 0
    mkdir -p "$support" && tell_support "$1" Running || return
    systemd-run --quiet --collect --unit=o2ims-support --property=Nice=19 --property=IOSchedulingClass=idle --property=RuntimeMaxSec=900 \
        --setenv=HOME="${HOME:-/root}" bash "$0" support "$1"
}
# support_status ORDERED REPORTED
support_status() {
    if [ -n "$1" ] && ! grep -qsF "{\"name\":\"$1\"," "$support/status"; then collect "$1" || return; fi
    if ! is_active o2ims-support && grep -qs '"state":"Running"' "$support/status"; then
        support_fail 'it was interrupted: give another word to make one' "$(sed 's/^{"name":"\([^"]*\).*/\1/' "$support/status")"
    fi
    [ ! -s "$support/status" ] || [ "$2" = "$(cat "$support/status")" ] || annotate "support-bundle-status=$(cat "$support/status")"
}

# look JOB UNIT CERTIFICATES STATUS: what the annotations ask for.
look() {
    local id=${1%% *}
    [ "$2" = "$unit" ] || annotate "host-unit=$unit" || return
    if [ -n "$id" ] && [ ! -e "$jobs/$id/script" ] && ! grep -qs "^{\"id\":\"$id\"" "$jobs/status"; then
        has_ended || return 0
        take "$id" "${1#* }" || return
    fi
    [ ! -s "$jobs/certificates" ] || [ "$3" = "$(cat "$jobs/certificates")" ] || annotate "certificates=$(cat "$jobs/certificates")" || return
    [ ! -s "$jobs/status" ] || [ "$4" = "$(cat "$jobs/status")" ] || annotate "job-status=$(cat "$jobs/status")"
}

umask 077
if [ "${1:-}" = support ]; then
    support_bundle "$2"
    annotate "support-bundle-status=$(cat "$support/status")"
    exit
fi
mkdir -p "$jobs" && chmod 700 "$jobs"
watch=
# Its watch ends first: systemd waits for what is left of a unit.
trap 'if [ -n "$watch" ]; then kill "$watch" && wait "$watch"; fi 2>/dev/null; exit 0' TERM
path='{.metadata.annotations.o2ims\.provisioning\.oran\.org/'
while :; do
    resume
    # The watch ends now and then, so that what was missed is seen.
    exec 3< <(exec timeout 600 kubectl --kubeconfig "$config" --namespace "$namespace" get byohost "$host" --watch \
        --output "jsonpath={.status.machineRef.name};${path}job};${path}host-unit};${path}support-bundle};${path}support-bundle-status};${path}certificates};${path}job-status}"'{"\n"}')
    watch=$! seen=-
    while :; do
        IFS=';' read -r -t 30 own job known bundle bundled dates told <&3
        case $? in
        0) ;;
        1) break ;;
        # Nothing has changed. A job that was killed goes on.
        *) resume; continue ;;
        esac
        # At the first look, and after a job, which may have renewed some.
        case $told in
        "$seen" | *'"state":"Running"'*) ;;
        *) certificates ;;
        esac
        seen=$told
        # A host that belongs to no machine reports nothing, and the next one it belongs to has words of its own.
        [ -n "$own" ] || { rm -f "$support/status" && continue; }
        look "$job" "$known" "$dates" "$told" && support_status "$bundle" "$bundled" || break
    done
    kill "$watch" 2>/dev/null
    exec 3<&-
    wait "$watch" 2>/dev/null
    sleep 5
done
