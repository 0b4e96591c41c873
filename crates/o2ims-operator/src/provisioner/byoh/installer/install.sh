
if is_ours "$wrapper"; then
    # The agent was interrupted before it could write down that it is done.
    if [ "$(cat "$node" 2>/dev/null)" = "$machine" ]; then exit 0; fi
    # Who has not asked for its reset may only have lost sight of it: a ByoHost or a management cluster that was restored.
    [ ! -e "$node" ] || fail "the host is the node of ByoMachine $(cat "$node") already, and nothing was done to it; if that may go, run kubeadm reset on the host"
    # Or a bootstrap was never cleaned: upstream's agent forgets it then.
    "$wrapper" reset --force || fail 'what a former bootstrap left could not be reset'
    clean_host
elif [ -e /etc/kubernetes/kubelet.conf ]; then
    fail 'the host is a Kubernetes node already (/etc/kubernetes/kubelet.conf exists); run kubeadm reset on it'
elif [ -e "$wrapper" ]; then
    fail "$wrapper is in the way: it is where this installer puts a file of its own; move kubeadm elsewhere"
fi
# Each of these may be a file system of its own.
for folder in /var/lib /var/lib/containerd /var/lib/etcd /var/lib/kubelet; do
    [ -d "$folder" ] || continue
    free=$(df --output=avail -k "$folder" | tail -n 1)
    [ "$free" -ge 1048576 ] || fail "only $((free / 1024)) MiB are free in $folder; Kubernetes needs at least 1024"
done

# What kubeadm and the kubelet ask for, now and after a reboot. What is in force already is written too: it may be so by a former
# installation, whose files are gone.
if [ "$(wc -l </proc/swaps)" -gt 1 ]; then swapoff -a || fail 'swap cannot be switched off'; fi
mkdir -p /etc/modules-load.d /etc/sysctl.d
for module in overlay br_netfilter; do
    if [ -d "/sys/module/$module" ] || modprobe "$module" 2>/dev/null; then echo "$module"; fi
done >/etc/modules-load.d/o2ims.conf
if [ "$(cat /proc/sys/net/ipv4/ip_forward)" != 1 ]; then
    sysctl -qw net.ipv4.ip_forward=1 || fail 'net.ipv4.ip_forward cannot be set to 1'
fi
echo 'net.ipv4.ip_forward = 1' >"$forwarding"
# Many log followers use the usual limits up. Raised where they are lower; where the kernel's own is higher, that is kept, since the file would
# lower it after a reboot. Its name comes before those of the site, whose values count more.
for limit in max_user_instances=8192 max_user_watches=524288; do
    name=${limit%=*} least=${limit#*=}
    value=$(cat "/proc/sys/fs/inotify/$name")
    if [ "$value" -lt "$least" ] && sysctl -qw "fs.inotify.$name=$least"; then value=$least; fi
    echo "fs.inotify.$name = $value"
done >"$limits"
run_containerd
systemctl enable --quiet containerd

# Links of a former installation; kubeadm's was kept for the agent.
if [ -f "$links" ]; then
    while IFS= read -r link; do
        if [ -L "$link" ]; then rm -f "$link"; fi
    done <"$links"
    rm -f "$links"
fi

from_files() {
    [ -x '@FILES@/kubelet' ] && [ -x '@FILES@/kubeadm' ] || fail 'kubelet and kubeadm are not in @FILES@'
    for program in kubelet kubeadm kubectl; do
        [ -x "@FILES@/$program" ] || continue
        if [ -e "/usr/local/bin/$program" ] && [ ! -L "/usr/local/bin/$program" ]; then
            fail "/usr/local/bin/$program is in the way: it is no link; move it, or use install.installer.source preinstalled"
        fi
        echo "/usr/local/bin/$program" >>"$links"
        ln -sfn "@FILES@/$program" "/usr/local/bin/$program" || fail "/usr/local/bin/$program cannot be linked"
    done
}

from_packages() {
    name_repository
    if command -v apt-get >/dev/null; then
        output=$(apt_install "kubelet=$release-*" "kubeadm=$release-*") || fail "apt-get install: $(echo "$output" | tail -n 2)"
        apt-mark hold kubelet kubeadm >/dev/null
        return
    fi
    output=$("$dnf" install -q -y --enablerepo=o2ims-kubernetes --setopt=o2ims-kubernetes.excludepkgs= \
        "kubelet-$release" "kubeadm-$release" 2>&1) || fail "${dnf##*/} install: $(echo "$output" | tail -n 2)"
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
    [ "${found%%[+-]*}" = '@VERSION@' ] || fail "$program ${found:-of no version} is installed, @VERSION@ was asked for: install that one on the host, or delete the request and ask for what is installed"
done

# The kubelet that was found, as kubeadm wants it started; swap that the host's fstab brings back after a reboot goes again.
unit=/etc/systemd/system/kubelet.service
if ! systemctl cat kubelet.service >/dev/null 2>&1; then
    cat >"$unit" <<END
# $mark
[Unit]
Description=kubelet
Wants=network-online.target
After=network-online.target

[Service]
Restart=always
StartLimitInterval=0
RestartSec=10

[Install]
WantedBy=multi-user.target
END
fi
mkdir -p "${drop_in%/*}"
cat >"$drop_in" <<END
# $mark
[Service]
ExecStartPre=-/bin/sh -c '[ "\$(wc -l </proc/swaps)" -le 1 ] || swapoff -a'
Environment="KUBELET_KUBECONFIG_ARGS=--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf"
Environment="KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml"
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
EnvironmentFile=-/etc/default/kubelet
EnvironmentFile=-/etc/sysconfig/kubelet
ExecStart=
ExecStart=$(find_program kubelet) \$KUBELET_KUBECONFIG_ARGS \$KUBELET_CONFIG_ARGS \$KUBELET_KUBEADM_ARGS \$KUBELET_EXTRA_ARGS
END
systemctl daemon-reload
systemctl enable --quiet kubelet || fail 'the kubelet cannot be enabled'

# kubeadm as the agent finds it first. It says why it failed. And on a node, its reset leaves the etcd member alone: of masters
# that are reset together the last would wait two minutes for a quorum that never comes back, and one that leaves a cluster
# which stays was taken out of etcd by Cluster API before. After a bootstrap that failed, the reset is whole.
mkdir -p "${wrapper%/*}"
pod_routes >"$routes"
cat >"$wrapper.new" <<END
#!/bin/bash
# $mark; removed when the host is let go.
real=$(find_program kubeadm)
$(declare -f report)
case \${1:-} in
reset)
    shift
    systemctl stop --quiet o2ims-job 2>/dev/null
    data=\$(sed -n 's/^ *- --data-dir=//p' /etc/kubernetes/manifests/etcd.yaml 2>/dev/null)
    case \$data in /?*) echo "\$data" >$etcd ;; esac
    if [ -e $node ]; then set -- --skip-phases=remove-etcd-member "\$@"; fi
    "\$real" reset "\$@" && rm -f $node
    exit
    ;;
init | join)
    if [ "\$(cat $node 2>/dev/null)" = '$machine' ]; then exit 0; fi
    output=\$(mktemp)
    "\$real" "\$@" 2>&1 | tee "\$output"
    code=\${PIPESTATUS[0]}
    if [ "\$code" -eq 0 ]; then
        echo '$machine' >$node
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

# The unit that runs the operator's jobs on this host later, such as an upgrade. It needs kubectl.
if command -v kubectl >/dev/null; then
    cat >"$unit_program.new" <<'UNIT'
@UNIT@
UNIT
    chmod 755 "$unit_program.new" && mv "$unit_program.new" "$unit_program" || fail "$unit_program cannot be written"
    cat >"$host_unit" <<END
@SERVICE@
END
    systemctl daemon-reload
    systemctl enable --quiet o2ims-host && systemctl restart o2ims-host || fail 'the unit o2ims-host cannot be started'
fi
report ''
