if [ -e /etc/kubernetes/kubelet.conf ]; then
    fail 'the host is a Kubernetes node already (/etc/kubernetes/kubelet.conf exists); run kubeadm reset on it'
fi
free=$(df --output=avail -k /var/lib | tail -n 1)
[ "$free" -ge 1048576 ] || fail "only $((free / 1024)) MiB are free in /var/lib; Kubernetes needs at least 1024"

# What kubeadm's preflight asks for; a host that has it already is not touched.
if [ "$(wc -l </proc/swaps)" -gt 1 ]; then swapoff -a || fail 'swap cannot be switched off'; fi
for module in overlay br_netfilter; do
    [ -d "/sys/module/$module" ] || modprobe "$module" 2>/dev/null || true
done
if [ "$(cat /proc/sys/net/ipv4/ip_forward)" != 1 ]; then
    sysctl -qw net.ipv4.ip_forward=1 || fail 'net.ipv4.ip_forward cannot be set to 1'
fi
systemctl is-active --quiet containerd || systemctl start containerd || fail 'containerd does not run'

# A path without our own kubeadm, to find the one that is installed.
search=$(printf %s "$PATH" | tr : '\n' | grep -vx "${wrapper%/*}" | paste -sd :)
find_program() { PATH=$search command -v "$1"; }

from_files() {
    [ -x '@FILES@/kubelet' ] && [ -x '@FILES@/kubeadm' ] || fail 'kubelet and kubeadm are not in @FILES@'
    for program in kubelet kubeadm kubectl; do
        [ -x "@FILES@/$program" ] || continue
        ln -sfn "@FILES@/$program" "/usr/local/bin/$program" || fail "/usr/local/bin/$program cannot be linked"
    done
    # A unit that is there may start another kubelet.
    write_unit
}

write_unit() {
    mkdir -p /etc/systemd/system/kubelet.service.d
    if ! systemctl cat kubelet.service >/dev/null 2>&1; then
        printf '[Unit]\nDescription=kubelet\nWants=network-online.target\nAfter=network-online.target\n\n[Service]\n%s\n\n%s\n' \
            "$(printf 'Restart=always\nStartLimitInterval=0\nRestartSec=10')" \
            "$(printf '[Install]\nWantedBy=multi-user.target')" >/etc/systemd/system/kubelet.service
    fi
    cat >"$drop_in" <<END
[Service]
Environment="KUBELET_KUBECONFIG_ARGS=--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf"
Environment="KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml"
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
EnvironmentFile=-/etc/default/kubelet
ExecStart=
ExecStart=$(find_program kubelet) \$KUBELET_KUBECONFIG_ARGS \$KUBELET_CONFIG_ARGS \$KUBELET_KUBEADM_ARGS \$KUBELET_EXTRA_ARGS
END
    systemctl daemon-reload
}

from_packages() {
    version='@VERSION@'
    version=${version#v}
    if command -v apt-get >/dev/null; then
        [ -n '@DEB@' ] || fail 'the ClusterTemplate has no install.installer.packages.deb'
        signed=
        if [ -n '@KEY@' ]; then signed='[signed-by=@KEY@] '; fi
        echo "deb ${signed}@DEB@ /" >/etc/apt/sources.list.d/o2ims-kubernetes.list
        export DEBIAN_FRONTEND=noninteractive
        output=$(apt-get update -q -o Dir::Etc::sourcelist=sources.list.d/o2ims-kubernetes.list \
            -o Dir::Etc::sourceparts=- -o APT::Get::List-Cleanup=0 2>&1) || fail "apt-get update: $(echo "$output" | tail -n 2)"
        output=$(apt-get install -q -y --allow-downgrades --allow-change-held-packages --no-install-recommends \
            "kubelet=$version-*" "kubeadm=$version-*" 2>&1) || fail "apt-get install: $(echo "$output" | tail -n 2)"
        apt-mark hold kubelet kubeadm >/dev/null
        return
    fi
    dnf=$(command -v dnf || command -v yum) || fail 'neither apt-get, dnf nor yum is on the host'
    [ -n '@RPM@' ] || fail 'the ClusterTemplate has no install.installer.packages.rpm'
    {
        printf '[o2ims-kubernetes]\nname=Kubernetes\nbaseurl=%s\nenabled=0\n' '@RPM@'
        if [ -n '@KEY@' ]; then printf 'gpgcheck=1\ngpgkey=file://%s\n' '@KEY@'; fi
    } >/etc/yum.repos.d/o2ims-kubernetes.repo
    output=$("$dnf" install -q -y --enablerepo=o2ims-kubernetes --setopt=o2ims-kubernetes.excludepkgs= \
        "kubelet-$version" "kubeadm-$version" 2>&1) || fail "${dnf##*/} install: $(echo "$output" | tail -n 2)"
}

case '@SOURCE@' in
files) from_files ;;
packages) from_packages ;;
esac

for program in kubelet kubeadm; do
    path=$(find_program "$program") || fail "$program is not installed"
    case $program in
    kubelet) found=$("$path" --version 2>/dev/null) && found=${found#Kubernetes } ;;
    kubeadm) found=$("$path" version --output short 2>/dev/null) ;;
    esac
    [ "${found%%[+-]*}" = '@VERSION@' ] || fail "$program ${found:-of no version} is installed, @VERSION@ was asked for"
done

systemctl cat kubelet.service >/dev/null 2>&1 || write_unit
systemctl enable --quiet kubelet || fail 'the kubelet cannot be enabled'

# kubeadm as the agent finds it first. It says why it failed, and does not wait on reset for an etcd that goes as a whole:
# of masters that are reset together the last waits two minutes for a quorum that never comes back. A master that leaves
# a cluster which stays was taken out of its etcd by Cluster API before.
mkdir -p "${wrapper%/*}"
cat >"$wrapper.new" <<END
#!/bin/bash
# Put here by the O2IMS operator; removed when the host is let go.
real=$(find_program kubeadm)
$(declare -f report)
case \${1:-} in
reset)
    shift
    exec "\$real" reset --skip-phases=remove-etcd-member "\$@"
    ;;
init | join)
    output=\$(mktemp)
    "\$real" "\$@" 2>&1 | tee "\$output"
    code=\${PIPESTATUS[0]}
    if [ "\$code" -eq 0 ]; then
        report ''
    else
        why=\$(grep -o '\[ERROR .*' "\$output" | head -n 3)
        [ -n "\$why" ] || why=\$(grep -i '^error' "\$output" | tail -n 1)
        [ -n "\$why" ] || why=\$(grep . "\$output" | tail -n 1)
        report "kubeadm \$1: \$why"
    fi
    rm -f "\$output"
    exit "\$code"
    ;;
esac
exec "\$real" "\$@"
END
chmod 755 "$wrapper.new" && mv "$wrapper.new" "$wrapper" || fail "$wrapper cannot be written"
report ''
