#!/usr/bin/env bash
# The commands of this repository; without arguments it explains them.
set -euo pipefail

called_from=$PWD
top=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
programs=${CARGO_TARGET_DIR:-$top/target}/debug
state=${O2IMS_SANDBOX_STATE:-$top/.sandbox}
lock=$state/lock
log=$state/log
# The logs of a sandbox that failed, or of which a part ended by itself.
failed=$state/failed

usage() {
    cat <<'END'
usage: ./mgmt.sh COMMAND

Try it on this machine:
  sandbox                     a management cluster with four hosts and both example requests, followed until their clusters
                              are there; sandbox down stops it
  test                        the tests

On your servers (docs/servers.md goes through it):
  bundle FOLDER               make everything that an installation needs, from source, for sites with and without Internet
  up                          install it on the cluster of a kubeconfig
  hosts                       the registered servers: free, or whose
  status                      what is installed, and how it is

./mgmt.sh help has all commands and their options.
END
}

help() {
    cat <<'END'
usage: ./mgmt.sh COMMAND

The product on this machine:

  sandbox                     start the product on this machine: a real control plane with Cluster API and BYOH, four
                              hosts, and both example requests, followed until their clusters are there
  sandbox --once              the same, then delete the requests, check that nothing is left of them, and stop
      --o-clouds 2            with either: an SMO on a cluster of its own and two O-Clouds, site-a with the hosts, and site-b with
                              neither hosts nor Cluster API; kubectl is the SMO's then, and kubectl --o-cloud NAME another's
      --simulated             with either: take SIMULATED hosts. Without it they are servers made of namespaces, in which
                              the real agent, containerd and kubelet run, where the machine permits that (as root)
  sandbox status              what is there; how each process and server of it is, how often a process was restarted, and why
  sandbox kubectl ARGUMENT... kubectl for the management cluster
  sandbox kubectl --cluster [NAMESPACE/]NAME ARGUMENT...
                              kubectl for a cluster that a request has made
  host NAME ssh [PROGRAM ARGUMENT...]
                              a shell, or a program, on a server of the sandbox, once that is up
  host NAME logs              what its agent, kubelet and containerd say; Ctrl-C ends it
  host NAME off | on          cut its power; switch it on again
  sandbox down                stop it, and remove what a crashed one has left; the logs of one that failed are kept
  test                        all tests but the slow ones; what failed is named at the end
  test --all                  all tests
  test --versions [MINOR...]  clusters of 1+1 and of 3+1 servers, made and deleted, and one that is upgraded, with each other
                              version of Kubernetes and Cluster API that can be used (six pairs), or with these versions of
                              Kubernetes only; some 20 minutes for each that is not built yet
  bench                       how long a cluster takes on servers of namespaces, beside kubeadm by hand and plain Cluster API
                              objects, in one run; some 20 minutes
      --rounds N --three-masters N
                              how many clusters of either size are made; 5 and 4
  bench focom                 what the way over an SMO costs: how late a state is seen there, and what an O-Cloud that never
                              answers costs the requests for others, and how soon each of 500 requests at once has its first
                              status; some 5 minutes
  bench scale                 what the operator costs with thousands of requests and hosts, on an API server without the
                              controllers of Cluster API and BYOH; some 30 minutes
      --requests N,N,...      numbers of requests, growing; 100,1000,10000
      --carried-out N         how many of them are carried out; the others wait; 1000
  bench burst                 how soon each of many requests that are created at once has its first status, on such an API
                              server; some 5 minutes
      --requests N --beside N how many are created at once, and how many are in work before; 500 and 1000
  bundle FOLDER               make the offline bundle: manifests, images of the management cluster, and hosts' files, from source
      --without-hosts         leave hosts/ out, which takes root to make
      --operators FOLDER      take the operators' programs from there, as scripts/build-release FOLDER makes them
  bundle --check FOLDER       compare its files with their sums
  bundle --holes [FOLDER]     compare its Go programs, or without FOLDER those in the cache of built programs, with the
                              newest Go vulnerability database, and what is found with deploy/known-holes.yaml

O2IMS_BYOH_CHECKOUT=FOLDER    take BYOH from this checkout, such as the Platform9 fork, instead of the release
O2IMS_CLUSTER_API=1.13|1.12   take this Cluster API instead of 1.14
O2IMS_KUBERNETES=1.37|1.35|1.34|1.33
                              take this Kubernetes instead of 1.36
O2IMS_DOWNLOAD=1              download Kubernetes' programs instead of compiling them
O2IMS_DEBIAN=13               take Debian 13 instead of 12 on servers of namespaces
UPDATE_HOLES=1                with bundle --holes: write deploy/known-holes.yaml anew, with the reasons that it has

The product on a management cluster:

  bundle FOLDER               make what an installation consists of, from source: manifests, images, and what servers need
END
    "$top/scripts/management-cluster" --help | sed 's/^usage: .\/mgmt.sh/ /; s/^       .\/mgmt.sh/ /'
}

say() { printf '%s\n' "$*"; }

die() {
    printf 'mgmt.sh: %s\n' "$*" >&2
    exit 1
}

# What was typed is no command.
wrong() {
    printf "mgmt.sh: %s; './mgmt.sh help' has all commands and options\n" "$*" >&2
    exit 2
}

# ---------------------------------------------------------------------------------------------------------------------
# What is needed

# at_least A B: whether version A is B or newer.
at_least() {
    [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]
}

# value KEY FILE: the value of `KEY = "value"` in a TOML file.
value() {
    sed -n "s/^$1 *= *\"\(.*\)\".*/\1/p" "$2" | head -n 1
}

# Whether the control plane's programs are in the cache, so that a machine without Go can do without.
have_programs() {
    local cache=${O2IMS_TESTENV_CACHE:-${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}/o2ims-testenv} name
    for name in etcd kube-apiserver kube-controller-manager kubectl capi-core capi-kubeadm-bootstrap \
        capi-kubeadm-control-plane byoh-manager; do
        compgen -G "$cache/$name-*/$name" >/dev/null || return 1
    done
}

# minors NAME MODULE: the minor versions of a project that are pinned: the default one, and those that have a module of their own.
minors() {
    local modules=crates/testing/testenv/modules folder
    sed -nE "s#^[[:space:]]*$2 v([0-9]+\.[0-9]+)\..*#\1#p" "$modules/platform/go.mod" | head -n 1
    for folder in "$modules/$1"-*; do say "${folder##*/"$1"-}"; done | sort -V
}

# one_of VARIABLE VALUE...: refuses another value of a variable.
one_of() {
    local value=${!1:-}
    [ -z "$value" ] || [[ " ${*:2} " = *" $value "* ]] || wrong "$1=$value is not known; it takes one of: ${*:2}"
}

# Whether the environment asks for what there is.
check_choices() {
    # shellcheck disable=SC2046
    one_of O2IMS_KUBERNETES $(minors kubernetes k8s.io/kubernetes)
    # shellcheck disable=SC2046
    one_of O2IMS_CLUSTER_API $(minors cluster-api sigs.k8s.io/cluster-api)
    one_of O2IMS_DEBIAN 12 13
    one_of O2IMS_DOWNLOAD 1
    [ -z "${KUBEBUILDER_ASSETS:-}" ] || [ -d "$KUBEBUILDER_ASSETS" ] || wrong "KUBEBUILDER_ASSETS: there is no folder $KUBEBUILDER_ASSETS"
}

check_prerequisites() {
    local missing=() toolchain oldest go_wanted go_found tool
    check_choices
    toolchain=$(value channel "$top/rust-toolchain.toml")
    oldest=$(value rust-version "$top/Cargo.toml")
    if ! command -v cargo >/dev/null; then
        missing+=("Rust $toolchain: install rustup from https://rustup.rs; it then fetches this version by itself")
    elif ! command -v rustup >/dev/null; then
        tool=$(rustc --version 2>/dev/null | cut -d ' ' -f 2)
        at_least "${tool:-0}" "$oldest" ||
            missing+=("Rust $oldest or newer (found ${tool:-none}): update it, or install rustup from https://rustup.rs")
    fi
    command -v cc >/dev/null ||
        missing+=("a C compiler and linker (cc): apt-get install gcc libc6-dev, or your distribution's package")
    # The container runtime, modules/runtime, is for bundles and slow tests; Go itself says where it is too old for that.
    go_wanted=$(sed -n 's/^go //p' "$top"/crates/testing/testenv/modules/*/go.mod | sort -V | tail -n 1)
    if command -v go >/dev/null; then
        go_found=$(go env GOVERSION 2>/dev/null || true)
        go_found=${go_found#go}
        at_least "${go_found%% *}" "$go_wanted" ||
            missing+=("Go $go_wanted or newer (found ${go_found:-none}): https://go.dev/doc/install")
    else
        have_programs ||
            missing+=("Go $go_wanted or newer: https://go.dev/doc/install (it builds etcd, Kubernetes, Cluster API and BYOH, once)")
    fi
    if [ ${#missing[@]} -gt 0 ]; then
        {
            say "mgmt.sh: this machine lacks:"
            printf '  - %s\n' "${missing[@]}"
        } >&2
        exit 1
    fi
    for tool in unshare setpriv setsid nsenter ip; do
        command -v "$tool" >/dev/null || missing+=("$tool")
    done
    if [ ${#missing[@]} -gt 0 ]; then
        say "note: ${missing[*]} not found (packages util-linux and iproute2): everything runs, but not isolated from this" \
            "machine's network, and what is killed may leave processes behind" >&2
    fi
}

# Runs a command that does not outlive this script, however that ends.
tied() {
    if command -v setpriv >/dev/null; then
        setpriv --pdeathsig TERM -- "$@"
    else
        "$@"
    fi
}

# compile ARGUMENT...: runs cargo, and says now and then how far it is.
compile() {
    local crates color=never
    [ ! -t 2 ] || color=always
    crates=$(cargo tree --locked --workspace --prefix none --edges normal,build,dev 2>/dev/null | sed 's/ (\*)$//' | sort -u | wc -l)
    tied cargo "$@" --locked --color "$color" 2> >(awk -v most="$crates" '
        / *Compiling .* v[0-9]/ {if (++done % 40 == 0) {print "  " done " crates are compiled, of " most " at most"; fflush()} next}
        /(Downloading|Downloaded|Updating|Locking|Finished|Executable|Blocking|Adding) / {next}
        {print; fflush()}' >&2)
}

byoh() {
    if [ -n "${O2IMS_BYOH_CHECKOUT:-}" ]; then
        say "BYOH of $O2IMS_BYOH_CHECKOUT"
    else
        say "the released BYOH"
    fi
}

# Builds the control plane's programs while there is a network: inside of the sandbox there is none.
build_control_plane() {
    tied "$programs/testenv" build >/dev/null
}

# Makes what servers consist of, and sets `hosts` to servers or simulated and `why_simulated` to the reason, which is said.
hosts=servers why_simulated='' o_clouds=''
prepare_servers() {
    local code=0
    if [ "$hosts" = servers ] && ! why_simulated=$("$programs/testenv" check-servers 2>&1); then
        hosts=simulated
        why_simulated=${why_simulated#error: }
    fi
    if [ "$hosts" = servers ]; then
        tied "$programs/testenv" build --servers >/dev/null || code=$?
        case $code in
        0) ;;
        75)
            hosts=simulated
            why_simulated="the servers' distribution cannot be fetched; the reason is above"
            ;;
        *) die "what servers are made of could not be built; the reason is above (--simulated does without)" ;;
        esac
    fi
    [ -z "$why_simulated" ] || say "hosts are SIMULATED on this machine: $why_simulated"
}

# ---------------------------------------------------------------------------------------------------------------------
# sandbox

build_sandbox() {
    check_prerequisites
    say "building the operators and the sandbox (some minutes the first time) ..."
    # The next step's sources are downloaded meanwhile.
    tied crates/testing/testenv/modules/fetch &
    local fetching=$!
    compile build -p o2ims-operator -p focom-operator -p sandbox -p testenv --bins
    wait "$fetching"
    prepare_servers
    [ "$hosts" = servers ] || build_control_plane
    run=("$programs/sandbox" run)
    [ "$hosts" = simulated ] || run+=(--servers)
    [ -z "$o_clouds" ] || run+=(--o-clouds "$o_clouds")
}

sandbox_once() {
    say "sandbox: the example requests to fulfilled and back, $(byoh)"
    build_sandbox
    # Not a child but this very process: whoever ends it, by whatever signal, ends everything inside.
    exec scripts/in-own-namespace "${run[@]}" --once
}

# Every process of the sandbox has the lock file open. Prints their ids.
members() {
    local fd
    for fd in /proc/[0-9]*/fd/*; do
        if [ "$fd" -ef "$lock" ]; then
            fd=${fd#/proc/}
            say "${fd%%/*}"
        fi
    done 2>/dev/null | sort -nu
}

is_up() { [ -e "$lock" ] && ! flock --nonblock "$lock" true; }

# The id of the process that the others end with.
starter() { cat "$state/pid" 2>/dev/null || true; }

need_flock() { command -v flock >/dev/null || die "flock is needed (package util-linux)"; }

sandbox_up() {
    need_flock
    ! is_up || die "a sandbox is up already: see './mgmt.sh sandbox status', stop it with './mgmt.sh sandbox down'"
    say "sandbox: $(byoh)"
    build_sandbox
    mkdir -p "$state"
    exec 9>"$lock"
    flock --nonblock 9 || die "a sandbox is just being started by somebody else"
    rm -rf "$failed"
    : >"$log"

    # The lock is let go of first: while this script has it too, the sandbox would never look stopped.
    trap 'exec 9>&-; trap - INT TERM HUP; say; say "stopping ..."; interrupted=yes; sandbox_down; exit 130' INT TERM HUP
    local detach=()
    if command -v setsid >/dev/null; then detach=(setsid); fi
    O2IMS_TESTENV_LOGS=$failed "${detach[@]}" scripts/in-own-namespace "${run[@]}" --state-dir "$state" >>"$log" 2>&1 </dev/null &
    local id=$! line up=
    say "$id" >"$state/pid"
    # From here on the lock is the sandbox's alone.
    exec 9>&-
    while IFS= read -r line; do
        if [ "$line" = "The sandbox is up." ]; then
            up=yes
            break
        fi
        say "$line"
    done < <(exec tail --lines=+1 --follow --pid="$id" "$log" 2>/dev/null)
    kill $! 2>/dev/null || true
    if [ -z "$up" ]; then
        wait "$id" || true
        sandbox_down >/dev/null
        die "the sandbox did not start; its output is above$(kept_logs ', its logs are in ')"
    fi
    trap - INT TERM HUP
    explain
    say
    say "$ ./mgmt.sh sandbox kubectl --cluster core get nodes --output wide"
    (sandbox_kubectl --cluster core get nodes --output wide)
}

explain() {
    local at=""
    say
    say "The sandbox is up, until ./mgmt.sh sandbox down. Now try:"
    say
    if [ -n "$o_clouds" ]; then
        at="--o-cloud site-a "
        cat <<'END'
  ./mgmt.sh sandbox kubectl get fpr,oclouds                        # at the SMO; -o wide shows messages, -w follows
  ./mgmt.sh sandbox kubectl describe fpr far-cluster-request       # sent to site-b, which has no providers
  ./mgmt.sh sandbox kubectl --o-cloud site-a get pr                # the O-Cloud's requests: one by hand, one by the SMO
  ./mgmt.sh sandbox kubectl --o-cloud site-b get pr
  ./mgmt.sh sandbox kubectl delete fpr edge-cluster-request        # hosts 3 and 4 are free then
END
    else
        cat <<'END'
  ./mgmt.sh sandbox kubectl get fpr                                # the SMO's requests; -o wide shows messages, -w follows
  ./mgmt.sh sandbox kubectl get pr                                 # the O-Cloud's requests: one by hand, one by the SMO
  ./mgmt.sh sandbox kubectl describe fpr edge-cluster-request
  ./mgmt.sh sandbox kubectl delete -f examples/focom-provisioning-request.yaml    # hosts 3 and 4 are free then
END
    fi
    cat <<END
  ./mgmt.sh sandbox kubectl ${at}get byohosts --show-labels        # hosts, and who holds them
  ./mgmt.sh sandbox kubectl --cluster core get nodes               # the new cluster itself
  ./mgmt.sh sandbox kubectl ${at}describe pr core-cluster-request  # conditions and events
  ./mgmt.sh sandbox kubectl apply -f FILE                          # another request

END
    if [ "$hosts" = simulated ]; then
        cat <<END
Break a host, here host 3, and heal it again (what can fail: crates/testing/hostsim/README.md):

  ./mgmt.sh sandbox kubectl ${at}create configmap hostsim-failures --from-literal=target-3=bootstrap
  ./mgmt.sh sandbox kubectl ${at}delete configmap hostsim-failures
END
    else
        cat <<'END'
Look at a server, and break it:

  ./mgmt.sh host target-1 ssh                                      # a shell; ctr -n k8s.io shows containers
  ./mgmt.sh host target-2 logs
  ./mgmt.sh host target-2 off                                      # as if somebody had pulled the plug; on: put it back
END
    fi
}

# kept_logs WORDS: the words and where the logs of a failed run are, if there are such.
kept_logs() { [ ! -d "$failed" ] || printf '%s%s' "$1" "$failed"; }

# A sandbox that was killed could not keep its logs.
keep_abandoned_logs() {
    local link folder
    for link in "$state/operator.log" "$state/focom-operator.log"; do
        folder=$(readlink "$link") || continue
        folder=${folder%/*}
        [ -d "$folder" ] || continue
        mkdir -p "$failed/${folder##*/}"
        (cd "$folder" && find . -type f \( -name log -o -name '*.log' \) ! -name audit.log -exec cp --parents -t "$failed/${folder##*/}" {} +) || true
    done
    [ ! -d "$failed" ] || cp "$log" "$failed/log" 2>/dev/null || true
}

sandbox_down() {
    local told=""
    need_flock
    if is_up; then
        local id all
        id=$(starter)
        all=$(members)
        if [ -n "$id" ] && grep -qx "$id" <<<"$all"; then
            kill -TERM "$id" 2>/dev/null || true
        else
            say "the sandbox's first process is gone; stopping the others"
            # shellcheck disable=SC2086
            kill -TERM $all 2>/dev/null || true
        fi
        if ! flock --timeout 60 "$lock" true; then
            say "some processes do not stop; killing them"
            # shellcheck disable=SC2046
            kill -KILL $(members) 2>/dev/null || true
            flock --timeout 10 "$lock" true || die "some processes do not end: $(members | tr '\n' ' ')"
        fi
        # What was interrupted while it started has not failed.
        [ -z "${interrupted:-}" ] || rm -rf "$failed"
        if [ -d "$failed" ]; then
            say "the sandbox is stopped: its clusters and hosts are gone"
        else
            say "the sandbox is stopped: its clusters, hosts and logs are gone"
        fi
    elif [ -e "$lock" ]; then
        keep_abandoned_logs
        say "the sandbox has ended by itself; removing what it has left"
    else
        say "no sandbox is up$(kept_logs '; the logs of the last one are in ')"
        told=yes
    fi
    if [ -d "$failed" ]; then
        [ -n "$told" ] || say "not all of it went well: its logs are kept in $failed until the next one starts"
        find "$state" -mindepth 1 -maxdepth 1 ! -path "$failed" -exec rm -rf {} +
    else
        rm -rf "$state"
    fi
    remove_abandoned_folders
    scripts/sweep-servers
}

# Folders of management clusters that were killed; a living one holds its folder's lock.
remove_abandoned_folders() {
    local folder
    for folder in /dev/shm/o2ims-management-* "${TMPDIR:-/tmp}"/o2ims-management-*; do
        if [ -O "$folder/lock" ] && flock --nonblock "$folder/lock" true; then
            rm -rf "$folder"
        fi
    done
}

need_up() {
    need_flock
    is_up || die "no sandbox is up; './mgmt.sh sandbox' starts one"
    [ -e "$state/admin.kubeconfig" ] || die "the sandbox is still starting"
}

# Prints the id of the sandbox's first process that is in its namespaces; nothing without isolation.
first_inside() {
    local status process
    for status in $(grep -lsx "PPid:[[:space:]]$(starter)" /proc/[0-9]*/status || true); do
        process=${status%/status}
        # The starter has another child, which is outside as it is itself.
        if [ -e "$process/ns/net" ] && ! [ "$process/ns/net" -ef /proc/self/ns/net ]; then
            say "${process#/proc/}"
            return
        fi
    done
}

# Runs a command where the sandbox's network is.
inside() {
    local first
    first=$(first_inside)
    if [ -z "$first" ]; then
        exec "$@"
    fi
    if [ "/proc/$first/ns/user" -ef /proc/self/ns/user ]; then
        exec nsenter --target "$first" --net -- "$@"
    fi
    exec nsenter --target "$first" --user --preserve-credentials --net -- "$@"
}

host() {
    local name=${1:-} action=${2:-} first sandbox
    [ $# -ge 2 ] || wrong "host needs the name of a server and what to do: ssh, logs, off or on"
    case $action in
    on | off | ssh | logs) ;;
    *) wrong "host takes no '$action', but ssh, logs, off and on" ;;
    esac
    shift 2
    need_up
    ask() { "$programs/sandbox" host --state-dir "$state" "$name" "$1"; }
    enter() {
        first=$(ask first) || exit 1
        sandbox=$(first_inside)
        [ -n "$sandbox" ] || die "the sandbox is not in namespaces of its own"
        # The server's numbers are those of the sandbox's process namespace.
        exec nsenter --target "$sandbox" --mount --pid --net -- nsenter --target "$first" --mount --pid --uts --ipc \
            --net --cgroup --root --wd=/ -- env -i HOME=/root TERM="${TERM:-dumb}" \
            PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
    }
    case $action in
    on | off) ask "$action" ;;
    ssh)
        if [ $# -eq 0 ]; then set -- bash -l; fi
        enter "$@"
        ;;
    logs) enter journalctl --follow --lines 50 --unit byoh-hostagent --unit kubelet --unit containerd ;;
    esac
}

sandbox_kubectl() {
    need_up
    local config=$state/admin.kubeconfig cluster namespace=default
    # Clusters are made on the O-Cloud that has hosts.
    if [ "${1:-}" = --cluster ] && [ -e "$state/site-a.kubeconfig" ]; then config=$state/site-a.kubeconfig; fi
    if [ "${1:-}" = --o-cloud ]; then
        config=$state/${2:-}.kubeconfig
        if [ $# -lt 2 ] || ! [ -e "$config" ]; then
            die "no such O-Cloud: site-a and site-b are there with ./mgmt.sh sandbox --o-clouds 2"
        fi
        shift 2
    fi
    if [ "${1:-}" = --cluster ]; then
        [ $# -ge 2 ] || die "--cluster needs a name"
        cluster=$2
        shift 2
        case $cluster in
        */*)
            namespace=${cluster%%/*}
            cluster=${cluster#*/}
            ;;
        esac
        umask 077
        local secret
        secret=$(inside "$state/kubectl" --kubeconfig "$config" --namespace "$namespace" get secret \
            "$cluster-kubeconfig" --output 'jsonpath={.data.value}') ||
            die "cluster $namespace/$cluster has no kubeconfig (yet)"
        config=$state/$namespace-$cluster.kubeconfig
        base64 -d <<<"$secret" >"$config"
    fi
    cd "$called_from"
    inside "$state/kubectl" --kubeconfig "$config" "$@"
}

# What kubectl says; a management cluster that does not answer is told as that.
show() {
    (sandbox_kubectl "$@" 2>&1) || say "the management cluster does not answer kubectl"
}

sandbox_status() {
    need_flock
    if ! is_up; then
        if [ -e "$lock" ]; then
            say "the sandbox has ended by itself; its output is in $log$(kept_logs ', its logs are in ')"
            grep '^FAILED: ' "$log" || true
            say "./mgmt.sh sandbox down removes what is left of it"
        else
            say "no sandbox is up$(kept_logs '; the logs of the last one are in ')"
        fi
        return
    fi
    if [ ! -e "$state/admin.kubeconfig" ]; then
        say "the sandbox is starting; its output is in $log"
        return
    fi
    if grep -q '  down[:,]' "$state/parts" 2>/dev/null; then
        say "the sandbox is up (process $(starter)), but not all of its parts; logs: $log, $state/operator.log, $state/focom-operator.log"
    else
        say "the sandbox is up (process $(starter)); logs: $log, $state/operator.log, $state/focom-operator.log"
    fi
    if [ -e "$state/parts" ]; then
        say
        sed 's/^/  /' "$state/parts"
    fi
    say
    show get focomprovisioningrequests --all-namespaces --output wide
    say
    local at=()
    if [ -e "$state/site-a.kubeconfig" ]; then
        show get oclouds --all-namespaces --output wide
        say
        say "O-Cloud site-b:"
        show --o-cloud site-b get provisioningrequests --all-namespaces --output wide
        say
        say "O-Cloud site-a:"
        at=(--o-cloud site-a)
    fi
    show "${at[@]}" get provisioningrequests --all-namespaces --output wide
    say
    show "${at[@]}" get byohosts --all-namespaces --label-columns=host-id,o2ims.provisioning.oran.org/role,cluster.x-k8s.io/cluster-name
}

sandbox() {
    local rest=()
    if [ "${1:-}" != kubectl ]; then
        while [ $# -gt 0 ]; do
            case $1 in
            --simulated) hosts=simulated ;;
            --o-clouds)
                [ "${2:-}" = 2 ] || die "--o-clouds takes 2: one with hosts and one without, and an SMO of its own"
                o_clouds=2
                shift
                ;;
            *) rest+=("$1") ;;
            esac
            shift
        done
        set -- "${rest[@]}"
    fi
    [ "${1:-}" = kubectl ] || [ $# -le 1 ] || wrong "sandbox takes no '$2' after '$1'"
    case ${1:-} in
    "") sandbox_up ;;
    --once) sandbox_once ;;
    status) sandbox_status ;;
    kubectl)
        shift
        sandbox_kubectl "$@"
        ;;
    down) sandbox_down ;;
    *) wrong "sandbox takes no '$1'" ;;
    esac
}

# ---------------------------------------------------------------------------------------------------------------------
# test

# test_versions [MINOR...]: tells how each version has done, and fails if one did not do well.
test_versions() {
    local kubernetes cluster_api why what begun took default others oldest ways code=0 results=()
    read -r default others < <(minors kubernetes k8s.io/kubernetes | paste -sd ' ')
    # shellcheck disable=SC2086
    oldest=$(printf '%s\n' $default $others | sort -V | head -n 1)
    for kubernetes in "$@"; do
        [ "$kubernetes" != "$default" ] || wrong "Kubernetes $default is the default: ./mgmt.sh test and ./mgmt.sh sandbox take it"
        [[ " $others " = *" $kubernetes "* ]] || wrong "Kubernetes $kubernetes is none of those that are tested: $others"
    done
    check_prerequisites
    say "building (some minutes the first time) ..."
    compile build -p o2ims-operator -p focom-operator -p sandbox -p testenv --bins
    compile test -p o2ims-operator --test e2e --no-run
    why=$("$programs/testenv" check-servers 2>&1) || die "versions are tested on servers: ${why#error: }"
    while read -r kubernetes cluster_api; do
        [ $# -eq 0 ] || [[ " $* " = *" $kubernetes "* ]] || continue
        export O2IMS_KUBERNETES=$kubernetes O2IMS_CLUSTER_API=$cluster_api
        took=""
        ways=(1+1 3+1)
        # Nothing is upgraded to the oldest one.
        [ "$kubernetes" = "$oldest" ] || ways+=(upgrade)
        for what in "${ways[@]}"; do
            begun=$SECONDS
            say
            say "Kubernetes $kubernetes, Cluster API $cluster_api: $(told_way "$what")"
            if one_version "$what" </dev/null; then
                took="$took, $what in $((SECONDS - begun)) s"
            else
                took="$took, $what FAILED after $((SECONDS - begun)) s"
                code=1
            fi
        done
        results+=("Kubernetes $kubernetes with Cluster API $cluster_api${took/,/:}")
    done < <("$programs/testenv" versions)
    [ ${#results[@]} -gt 0 ] || die "no version was tested; the reason is above"
    say
    printf '%s\n' "${results[@]}"
    exit "$code"
}

told_way() {
    case $1 in
    upgrade) echo "a cluster of 1+1 servers is upgraded from the minor version before" ;;
    *) echo "clusters of $1 servers" ;;
    esac
}

# In a process of its own, which ends with what it runs.
one_version() {
    case $1 in
    upgrade)
        tied "$programs/testenv" build --servers --upgrades >/dev/null &&
            tied cargo test --locked -p o2ims-operator --test e2e -- --exact a_cluster_is_upgraded_on_its_own_servers
        ;;
    1+1) "$top/mgmt.sh" sandbox --once ;;
    3+1) tied cargo test --locked -p o2ims-operator --test e2e -- --exact three_masters_and_a_worker_come_and_go --include-ignored ;;
    esac
}

run_tests() {
    local slow=()
    case ${1:-} in
    "") say "test: all tests but the slow ones ('./mgmt.sh test --all' runs them too), $(byoh)" ;;
    --all)
        say "test: all tests, $(byoh)"
        slow=(-- --include-ignored)
        ;;
    --versions) test_versions "${@:2}" ;;
    *) wrong "test takes no '$1'" ;;
    esac
    check_prerequisites
    say "building (some minutes the first time) ..."
    compile test --workspace --no-run
    build_control_plane
    tied "$programs/testenv" build --tools >/dev/null
    if [ ${#slow[@]} -gt 0 ]; then
        tied "$programs/testenv" build --slow >/dev/null
        # Images are made of them; those of a debug build would be ten times the size.
        tied scripts/build-release "${CARGO_TARGET_DIR:-$top/target}/release-programs"
    fi
    compile build -p bundle
    tied "$programs/bundle" --prepare
    # An installation with the Cluster API before is upgraded.
    [ ${#slow[@]} -eq 0 ] || O2IMS_CLUSTER_API=1.13 tied "$programs/bundle" --prepare
    prepare_servers
    # Clusters are upgraded from the minor version of Kubernetes before.
    [ "$hosts" = simulated ] || tied "$programs/testenv" build --upgrades >/dev/null
    if [ ${#slow[@]} -gt 0 ] && [ "$hosts" = servers ]; then
        tied "$programs/testenv" build --other-hosts >/dev/null
    fi
    export O2IMS_NO_SERVERS=$why_simulated
    [ ${#slow[@]} -eq 0 ] || [ "$hosts" = simulated ] || tied "$programs/testenv" build --virtual-machines >/dev/null
    local no_ansible
    no_ansible=$(tied scripts/ansible-venv 2>&1 >/dev/null) && no_ansible=
    export O2IMS_NO_ANSIBLE=${no_ansible##*$'\n'}
    # One binary that fails does not keep the others from running. What failed is said again at the end.
    local output told reader code=0 failed
    output=$(mktemp)
    # shellcheck disable=SC2064
    trap "rm -f '$output'" EXIT
    exec {told}> >(exec tee "$output")
    reader=$!
    tied cargo test --locked --workspace --no-fail-fast "${slow[@]}" >&"$told" 2>&1 || code=$?
    exec {told}>&-
    wait "$reader" || true
    printf '\nthe longest of them:\n'
    scripts/test-times "$output"
    failed=$(scripts/failed-tests "$output")
    [ -z "$failed" ] || printf '\n%s\n' "$failed"
    exit "$code"
}

bench() {
    local argument
    for argument in "$@"; do
        case $argument in
        focom | scale | burst | --requests | --requests=* | --beside | --beside=* | --carried-out | --carried-out=* | --rounds | --three-masters | --rounds=* | --three-masters=* | [0-9]*) ;;
        *) wrong "bench takes no '$argument'" ;;
        esac
    done
    say "bench: $(byoh)"
    check_prerequisites
    say "building (some minutes the first time) ..."
    if [ "${1:-}" = scale ] || [ "${1:-}" = burst ]; then
        compile build -p testenv --bins
        build_control_plane
        compile build --release -p bench
        exec scripts/in-own-namespace "$(dirname "$programs")/release/bench" "$@"
    fi
    compile build -p o2ims-operator -p focom-operator -p bench -p testenv --bins
    if [ "${1:-}" = focom ]; then
        build_control_plane
        exec scripts/in-own-namespace "$programs/bench" "$@"
    fi
    why_simulated=$("$programs/testenv" check-servers 2>&1) || die "real servers are measured: ${why_simulated#error: }"
    build_control_plane
    prepare_servers
    [ "$hosts" = servers ] || exit 1
    exec scripts/in-own-namespace "$programs/bench" "$@"
}

check_bundle() {
    local folder=$1 sums damaged=
    [ -d "$folder" ] || die "there is no folder $folder"
    [ -r "$folder/bundle.json" ] || die "$folder is no bundle: it has no bundle.json"
    cd "$folder"
    sums=$(awk -F '"' '$2 == "file" {file = $4} $2 == "sha256" {print $4 "  " file}' bundle.json | sort -u)
    [ -n "$sums" ] || die "$folder/bundle.json has no sums: make the bundle again"
    if comm -13 <(cut -c 67- <<<"$sums" | sort) <(find . -type f ! -path ./bundle.json -printf '%P\n' | sort) |
        sed 's/$/: is not part of the bundle/' | grep .; then
        damaged=yes
    fi
    sha256sum --check --quiet <<<"$sums" || damaged=yes
    [ -z "$damaged" ] || die "$folder is not as it was made; the files are named above. Copy it again, or make it anew"
    say "$folder: all $(wc -l <<<"$sums") files are as they were made"
}

bundle() {
    local folder='' check='' holes='' options=()
    while [ $# -gt 0 ]; do
        case $1 in
        --check) check=yes ;;
        --holes)
            holes=yes
            options+=("$1")
            ;;
        --without-hosts) options+=("$1") ;;
        --operators)
            [ -n "${2:-}" ] || wrong "--operators needs a FOLDER"
            options+=("$1" "$(cd "$called_from" && realpath "$2")")
            shift
            ;;
        -*) wrong "bundle takes no '$1'" ;;
        *)
            [ -z "$folder" ] || wrong "bundle takes one FOLDER, not '$folder' and '$1'"
            folder=$1
            ;;
        esac
        shift
    done
    [ -z "$check" ] || [ -z "$holes" ] || wrong "bundle takes --check or --holes, not both"
    [ -n "$folder" ] || [ -n "$holes" ] || wrong "bundle needs a FOLDER"
    # Given relative to where the user is.
    case $folder in '' | /*) ;; *) folder=$called_from/$folder ;; esac
    # Where a bundle arrives there need be nothing to build with.
    if [ -n "$check" ]; then
        check_bundle "$folder"
        return
    fi
    [ -z "$holes" ] || [ -z "$folder" ] || [ -r "$folder/bundle.json" ] || die "$folder is no bundle: it has no bundle.json"
    check_prerequisites
    say "building what makes the bundle (some minutes the first time) ..."
    compile build -p bundle
    exec "$programs/bundle" ${folder:+"$folder"} "${options[@]}"
}

if [ -n "${O2IMS_BYOH_CHECKOUT:-}" ]; then
    O2IMS_BYOH_CHECKOUT=$(realpath "$O2IMS_BYOH_CHECKOUT")
    export O2IMS_BYOH_CHECKOUT
fi
cd "$top"
case ${2:-} in
# Of kubectl, of programs on a server, and of what has a help of its own it is not ours.
-h | --help) case $1 in sandbox | test | bench | bundle | host) help; exit ;; esac ;;
esac
case ${1:-} in
"") usage ;;
help | -h | --help) help ;;
up | status | hosts | down)
    cd "$called_from"
    exec "$top/scripts/management-cluster" "$@"
    ;;
sandbox)
    shift
    sandbox "$@"
    ;;
host)
    shift
    host "$@"
    ;;
test)
    shift
    run_tests "$@"
    ;;
bench)
    shift
    bench "$@"
    ;;
bundle)
    shift
    bundle "$@"
    ;;
*) wrong "unknown command '$1'" ;;
esac
