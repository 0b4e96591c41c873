//! Servers as sites have prepared them: what the playbook has to say, or to make of them.

/// A package for dpkg, with a script that runs when it is set up.
macro_rules! package {
    ($name:literal, $fields:literal, $script:literal) => {
        concat!(
            "mkdir -p /tmp/",
            $name,
            "/DEBIAN\ncd /tmp/",
            $name,
            "/DEBIAN\nprintf '%s\\n' 'Package: ",
            $name,
            "' 'Version: 1' 'Architecture: all' 'Maintainer: site' 'Description: x' ",
            $fields,
            " >control\nprintf '#!/bin/sh\\n%s\\n' '",
            $script,
            "' >postinst\nchmod 755 postinst\ndpkg-deb --build /tmp/",
            $name,
            " /tmp/",
            $name,
            ".deb\ncd /\n",
        )
    };
}

/// One thing that a site has on a server.
pub struct Preparation {
    /// What it is. What is simulated says so.
    pub name: &'static str,
    /// The shell that prepares the server so.
    pub prepare: &'static str,
    pub outcome: Becomes,
    /// Fails where something of the site's is not there any more.
    pub kept: &'static str,
}

/// What the playbook has to do about it.
#[derive(Clone, Copy)]
pub enum Becomes {
    /// It says these words, leaves the server out, and changes nothing of it.
    Told(&'static str),
    /// It says these words, and goes on.
    Noted(&'static str),
    /// It makes the server right; this shell fails where it is not. `VERSION` stands for that of Kubernetes.
    MadeRight(&'static str),
}

/// A server with everything that can be on one together.
pub struct Site {
    /// The user for ssh.
    pub user: &'static str,
    /// Whether iptables and nftables are there before, as on a server that had Docker or has a firewall.
    pub filters: bool,
    pub preparations: &'static [Preparation],
}

/// A user who may become root as the rest of the line says.
macro_rules! admin {
    ($rule:literal) => {
        concat!(
            "useradd --create-home --shell /bin/bash admin\ninstall -d -o admin -m 700 /home/admin/.ssh\n",
            "install -o admin -m 600 /root/.ssh/authorized_keys /home/admin/.ssh/authorized_keys\n",
            "printf '%s\\n' ",
            $rule,
            " >/etc/sudoers.d/admin\nchmod 440 /etc/sudoers.d/admin"
        )
    };
}

/// Servers that are on at the same time. More would need more instances of inotify than a machine usually has.
pub const ROUNDS: [&[Site]; 4] = [
    &[
        Site {
            user: "root",
            filters: false,
            preparations: &[
                Preparation {
                    name: "k3s (simulated: its unit, with a program that only sleeps)",
                    prepare: r"mkdir -p /etc/rancher/k3s /var/lib/rancher/k3s/server
                    echo secret >/var/lib/rancher/k3s/server/token
                    printf '#!/bin/sh\nexec sleep infinity\n' >/usr/local/bin/k3s
                    chmod 755 /usr/local/bin/k3s
                    ln -s k3s /usr/local/bin/kubectl
                    printf '[Service]\nExecStart=/usr/local/bin/k3s server\n' >/etc/systemd/system/k3s.service
                    systemctl daemon-reload
                    systemctl start k3s",
                    outcome: Becomes::Told(
                        "another distribution of it is installed (/etc/systemd/system/k3s.service), which would use the \
                     same ports",
                    ),
                    kept: "systemctl is-active k3s && test -s /var/lib/rancher/k3s/server/token && test -L /usr/local/bin/kubectl",
                },
                Preparation {
                    name: "certificates and static Pods of a former kubeadm",
                    prepare: r"mkdir -p /etc/kubernetes/pki /etc/kubernetes/manifests
                    echo old | tee /etc/kubernetes/pki/ca.crt /etc/kubernetes/admin.conf >/etc/kubernetes/manifests/etcd.yaml",
                    outcome: Becomes::Told(
                        "Kubernetes: /etc/kubernetes/admin.conf, /etc/kubernetes/manifests/etcd.yaml, \
                     /etc/kubernetes/pki/ca.crt, ",
                    ),
                    kept: "cd /etc/kubernetes && grep old pki/ca.crt admin.conf manifests/etcd.yaml",
                },
                Preparation {
                    name: "data of a former etcd",
                    prepare: "mkdir -p /var/lib/etcd/member && echo old >/var/lib/etcd/member/db",
                    outcome: Becomes::Told(", /var/lib/etcd/member, "),
                    kept: "grep old /var/lib/etcd/member/db",
                },
                Preparation {
                    name: "state of a former kubelet",
                    prepare: r"mkdir -p /var/lib/kubelet && echo old >/var/lib/kubelet/cpu_manager_state",
                    outcome: Becomes::Told(
                        "/var/lib/kubelet/cpu_manager_state are left of an earlier node, which keeps a new one from starting",
                    ),
                    kept: "grep old /var/lib/kubelet/cpu_manager_state",
                },
                Preparation {
                    name: "settings of a former pod network",
                    prepare: "mkdir -p /etc/cni/net.d && echo '{}' >/etc/cni/net.d/10-calico.conflist",
                    outcome: Becomes::Told("pod network: /etc/cni/net.d/10-calico.conflist, "),
                    kept: "test -s /etc/cni/net.d/10-calico.conflist",
                },
                Preparation {
                    name: "a card of a former pod network",
                    prepare: "ip link add cni0 type bridge && ip address add 10.244.7.1/24 dev cni0",
                    outcome: Becomes::Told("/sys/class/net/cni0 are left of an earlier one"),
                    kept: "ip address show dev cni0 | grep 10.244.7.1/24",
                },
                Preparation {
                    name: "the kubelet's port in use",
                    prepare: "systemd-run --unit site-metrics nc -lk 10250",
                    outcome: Becomes::Told("ports: tcp 10250 (nc) is in use, and the kubelet needs it"),
                    kept: "systemctl is-active site-metrics",
                },
            ],
        },
        Site {
            user: "root",
            filters: false,
            preparations: &[
                Preparation {
                    name: "a clock that is two hours ahead (simulated: only for programs in Python)",
                    prepare: r"printf 'import time\nreal = time.time\ntime.time = lambda: real() + 7200\n' >/etc/python3.11/sitecustomize.py",
                    outcome: Becomes::Told(
                        "s ahead of the management cluster's; 30 s are allowed: set it, run a time service",
                    ),
                    kept: "python3 -c 'import time; assert time.time() > time.clock_gettime(time.CLOCK_REALTIME) + 7000'",
                },
                Preparation {
                    name: "read-only /opt and /usr",
                    prepare: "for part in /opt /usr; do mount --bind $part $part && mount -o remount,bind,ro $part; done",
                    outcome: Becomes::Told("file system: /usr/local/bin, /opt, /usr cannot be written"),
                    kept: "for part in /opt /usr; do if touch $part/x; then exit 1; fi; done",
                },
            ],
        },
        Site {
            user: "root",
            filters: false,
            preparations: &[Preparation {
                name: "no Python",
                prepare: "mkdir /root/python && mv /usr/bin/python3* /root/python",
                outcome: Becomes::Told(
                    "python3 is not installed: install it (on Debian and Ubuntu: apt-get install python3)",
                ),
                kept: "ls /root/python/python3",
            }],
        },
        Site {
            user: "admin",
            filters: false,
            preparations: &[Preparation {
                name: "sudo with a password",
                prepare: admin!("'admin ALL=(ALL) ALL'"),
                outcome: Becomes::Told("sudo asks admin for a password: call ansible-playbook with -K"),
                kept: "grep -x 'admin ALL=(ALL) ALL' /etc/sudoers.d/admin",
            }],
        },
    ],
    &[
        Site {
            user: "admin",
            filters: false,
            preparations: &[Preparation {
                name: "sudo with requiretty",
                prepare: admin!("'Defaults requiretty' 'admin ALL=(ALL) NOPASSWD: ALL'"),
                outcome: Becomes::Told(
                    "sudo wants a terminal, which there is not: write Defaults:admin !requiretty into a file in /etc/sudoers.d",
                ),
                kept: "grep -x 'Defaults requiretty' /etc/sudoers.d/admin",
            }],
        },
        Site {
            user: "root",
            filters: false,
            preparations: &[Preparation {
                name: "a shell that prints braces",
                prepare: "sed -i '1i echo {rack 7} welcome' /root/.bashrc",
                outcome: Becomes::Told("its shell prints something before the answer of a program"),
                kept: "grep rack /root/.bashrc",
            }],
        },
        Site {
            user: "root",
            filters: false,
            preparations: &[Preparation {
                // They conflict with the distribution's containerd.
                name: "Docker (simulated: packages that only have its names and conflicts)",
                prepare: concat!(
                    package!(
                        "containerd.io",
                        "'Conflicts: containerd, runc' 'Replaces: containerd, runc' 'Provides: containerd, runc'",
                        ""
                    ),
                    package!("docker-ce", "'Depends: containerd.io'", ""),
                    "dpkg --install /tmp/containerd.io.deb /tmp/docker-ce.deb"
                ),
                outcome: Becomes::Told("containerd.io, docker-ce would be removed by apt"),
                kept: "dpkg-query --show --showformat='${db:Status-Status}' docker-ce | grep -x installed",
            }],
        },
        Site {
            user: "root",
            filters: false,
            preparations: &[Preparation {
                name: "a half-configured package that cannot be set up",
                prepare: concat!(
                    package!("site-tool", "", "echo no licence; exit 1"),
                    "if dpkg --install /tmp/site-tool.deb; then exit 1; fi"
                ),
                outcome: Becomes::Told(
                    "dpkg cannot set up site-tool, which it has begun to install: Setting up site-tool (1) ...; no licence; dpkg: error",
                ),
                kept: "dpkg --status site-tool | grep half-configured",
            }],
        },
    ],
    &[
        Site {
            user: "root",
            filters: false,
            preparations: &[Preparation {
                name: "the site's programs in the places of Kubernetes'",
                prepare: r"printf '#!/bin/sh\necho Kubernetes v1.30.1\n' >/usr/local/bin/kubelet
                chmod 755 /usr/local/bin/kubelet
                ln -s /opt/site/kubectl /usr/local/bin/kubectl",
                outcome: Becomes::Told(
                    "/usr/local/bin/kubelet, /usr/local/bin/kubectl: the playbook has not put them there, and needs the place",
                ),
                kept: "kubelet | grep 1.30.1 && test \"$(readlink /usr/local/bin/kubectl)\" = /opt/site/kubectl",
            }],
        },
        Site {
            user: "root",
            filters: false,
            preparations: &[Preparation {
                name: "a hold on containerd",
                prepare: r"printf '%s\n' 'Package: containerd' 'Version: 1' 'Architecture: all' 'Maintainer: site' 'Description: x' >/tmp/available
                dpkg --merge-avail /tmp/available
                echo containerd hold | dpkg --set-selections",
                outcome: Becomes::Told("nothing was changed. apt-mark showhold says which packages are held"),
                kept: "dpkg --get-selections containerd | grep hold",
            }],
        },
    ],
    &[
        Site {
            user: "root",
            filters: false,
            preparations: &[
                Preparation {
                    name: "a noisy shell with an alias",
                    prepare: r#"sed -i "1i echo welcome\nalias ls=rm" /root/.bashrc"#,
                    outcome: Becomes::MadeRight("test -x /opt/kubernetes/VERSION/kubelet"),
                    kept: "grep 'alias ls=rm' /root/.bashrc && grep 'echo welcome' /root/.bashrc",
                },
                Preparation {
                    name: "umask 077",
                    prepare: "sed -i '1i umask 077' /root/.bashrc",
                    outcome: Becomes::MadeRight(
                        r"for file in /etc/containerd /opt/cni /opt/cni/bin /opt/kubernetes /etc/systemd/system/kubelet.service.d; do
                        test $(stat -c %a $file) = 755
                    done
                    test $(stat -c %a /etc/containerd/config.toml) = 644
                    runuser -u nobody -- /usr/local/bin/kubelet --version",
                    ),
                    kept: "grep -x 'umask 077' /root/.bashrc",
                },
                Preparation {
                    name: "a locale that does not exist",
                    prepare: "sed -i '1i export LANG=xx_YY.UTF-8 LC_ALL=xx_YY.UTF-8' /root/.bashrc",
                    outcome: Becomes::MadeRight("systemctl is-active containerd"),
                    kept: "grep LANG=xx_YY.UTF-8 /root/.bashrc",
                },
                Preparation {
                    name: "TMPDIR that does not exist",
                    prepare: "sed -i '1i export TMPDIR=/nowhere' /root/.bashrc",
                    outcome: Becomes::MadeRight("systemctl is-active byoh-hostagent"),
                    kept: "test ! -e /nowhere && grep TMPDIR=/nowhere /root/.bashrc",
                },
                Preparation {
                    name: "noexec /tmp",
                    prepare: "mount -o remount,noexec /tmp",
                    outcome: Becomes::MadeRight("dpkg --status containerd | grep 'install ok installed'"),
                    kept: "grep '^tmpfs /tmp .*noexec' /proc/mounts",
                },
                Preparation {
                    name: "a proxy of the site's in the environment and in apt",
                    prepare: r#"echo https_proxy=http://192.0.2.9:3128 >>/etc/environment
                    echo 'Acquire::http::Proxy "http://192.0.2.9:3128";' >/etc/apt/apt.conf.d/95site"#,
                    outcome: Becomes::MadeRight("test -s /root/.byoh/config"),
                    kept: "grep 192.0.2.9 /etc/environment && grep 192.0.2.9 /etc/apt/apt.conf.d/95site",
                },
                Preparation {
                    name: "a host name with capitals and a domain",
                    prepare: r"hostname Target-11.Site.Example
                    hostname >/etc/hostname
                    sed -i 's/ target-11$/ Target-11.Site.Example Target-11/' /etc/hosts",
                    outcome: Becomes::MadeRight(
                        "test $(hostname) = target-11 && grep -x target-11 /etc/hostname && getent hosts target-11",
                    ),
                    kept: "grep -x '10.77.0.21 Target-11.Site.Example Target-11' /etc/hosts",
                },
                Preparation {
                    name: "apt's lock, held until an apt-get has waited for it",
                    prepare: r#"cat >/root/upgrade.py <<'END'
import fcntl, glob, pathlib, time
lock = open("/var/lib/dpkg/lock-frontend", "w")
fcntl.lockf(lock, fcntl.LOCK_EX)
print("held", flush=True)
def waits(path):
    try:
        command = pathlib.Path(path).read_bytes()
    except OSError:
        return False
    return command.startswith(b"apt-get\0") and b"\0install\0" in command and b"--simulate" not in command
while not any(waits(path) for path in glob.glob("/proc/[0-9]*/cmdline")):
    time.sleep(0.1)
pathlib.Path("/run/apt-waits").touch()
time.sleep(3)
print("done", flush=True)
END
                    systemd-run --unit site-upgrade --property StandardOutput=file:/run/apt-is-locked python3 /root/upgrade.py
                    until grep -q held /run/apt-is-locked; do :; done"#,
                    outcome: Becomes::MadeRight(
                        "test -e /run/apt-waits && dpkg --status socat | grep 'install ok installed'",
                    ),
                    kept: "grep -x done /run/apt-is-locked",
                },
            ],
        },
        Site {
            user: "root",
            filters: true,
            preparations: &[
                Preparation {
                    name: "an old version of containerd pinned",
                    prepare: r"printf '%s\n' 'Package: containerd runc' 'Pin: version 1.4*' 'Pin-Priority: 1001' >/etc/apt/preferences.d/site",
                    outcome: Becomes::MadeRight("containerd --version | grep 1.6."),
                    kept: "grep -x 'Pin: version 1.4\\*' /etc/apt/preferences.d/site",
                },
                Preparation {
                    name: "a half-configured package",
                    prepare: concat!(
                        package!("site-agent", "", "test -e /run/licence"),
                        "if dpkg --install /tmp/site-agent.deb; then exit 1; fi\ntouch /run/licence"
                    ),
                    outcome: Becomes::MadeRight("test -z \"$(dpkg --audit)\""),
                    kept: "dpkg --status site-agent | grep 'install ok installed'",
                },
                Preparation {
                    name: "a kubelet of another version, with its unit (simulated: a script)",
                    prepare: r"printf '#!/bin/sh\necho Kubernetes v1.30.1\n' >/usr/bin/kubelet
                    chmod 755 /usr/bin/kubelet
                    mkdir -p /usr/lib/systemd/system/kubelet.service.d
                    printf '[Service]\nExecStart=/usr/bin/kubelet\n' >/usr/lib/systemd/system/kubelet.service
                    printf '[Service]\nExecStart=\nExecStart=/usr/bin/kubelet --old\n' >/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf
                    systemctl daemon-reload",
                    outcome: Becomes::MadeRight(
                        r"kubelet --version | grep -x 'Kubernetes VERSION'
                    systemctl show --property ExecStart kubelet | grep path=/usr/local/bin/kubelet",
                    ),
                    kept: "/usr/bin/kubelet | grep 1.30.1 && test -e /usr/lib/systemd/system/kubelet.service",
                },
                Preparation {
                    name: "containerd's settings with the CRI plugin disabled",
                    prepare: r#"mkdir -p /etc/containerd && echo 'disabled_plugins = ["cri"]' >/etc/containerd/config.toml"#,
                    outcome: Becomes::MadeRight("ctr plugins list | grep -E 'cri +.* ok'"),
                    kept: "grep disabled_plugins /etc/containerd/config.toml.*~",
                },
                Preparation {
                    name: "what a removed Docker leaves",
                    prepare: r"mkdir -p /etc/docker /var/lib/docker/volumes/site
                    echo '{}' >/etc/docker/daemon.json
                    ip link add docker0 type bridge
                    iptables -t nat -N DOCKER
                    iptables -P FORWARD DROP",
                    outcome: Becomes::Noted(
                        "for forwarded packets is drop, as Docker sets it, and those of pods are dropped too",
                    ),
                    kept: r"test -d /var/lib/docker/volumes/site && test -s /etc/docker/daemon.json && ip link show docker0
                    iptables -t nat -S DOCKER && iptables -S FORWARD | grep -x -- '-P FORWARD DROP'",
                },
                Preparation {
                    name: "two cards with a default route each (simulated: one end of a virtual cable)",
                    prepare: r"ip link add eth1 type veth peer name far1
                    ip address add 192.0.2.21/24 dev eth1
                    ip link set eth1 up
                    ip link set far1 up
                    ip route delete default
                    ip route add default via 192.0.2.1 metric 50
                    ip route add default via 10.77.0.1 metric 20
                    sed -i '/target-12/d' /etc/hosts",
                    outcome: Becomes::MadeRight("grep -x '10.77.0.22 target-12' /etc/hosts"),
                    kept: "test $(ip route show default | wc -l) = 2 && ip address show dev eth1 | grep 192.0.2.21/24",
                },
            ],
        },
        Site {
            user: "root",
            filters: true,
            preparations: &[
                Preparation {
                    name: "a firewall that lets in ssh only",
                    prepare: r"nft add table inet site
                    nft add chain inet site input '{ type filter hook input priority 0; policy drop; }'
                    nft add rule inet site input ct state established,related accept
                    nft add rule inet site input iif lo accept
                    nft add rule inet site input tcp dport 22 accept",
                    outcome: Becomes::Noted(
                        "firewall: nftables is active, and the playbook opens no port: open tcp 6443",
                    ),
                    kept: "nft list chain inet site input | grep 'policy drop' && nft list chain inet site input | grep 'dport 22 accept'",
                },
                Preparation {
                    name: "the name at 127.0.1.1",
                    prepare: r"sed -i 's/.* target-13$/127.0.1.1 target-13/' /etc/hosts",
                    outcome: Becomes::MadeRight("getent hosts target-13"),
                    kept: "grep -x '127.0.1.1 target-13' /etc/hosts",
                },
                Preparation {
                    name: "swap in /etc/fstab",
                    prepare: r"printf '%s\n' '/swapfile none swap sw 0 0' '  LABEL=swap none swap' '/dev/sdz1 /srv/site ext4 noauto 0 2' >/etc/fstab",
                    outcome: Becomes::MadeRight(
                        "if grep -E '^[^#]*\\sswap' /etc/fstab; then exit 1; fi\ngrep -c '^# .*swap' /etc/fstab | grep -x 2",
                    ),
                    kept: "grep -x '/dev/sdz1 /srv/site ext4 noauto 0 2' /etc/fstab && grep -c swap /etc/fstab.*~ | grep -x 2",
                },
                Preparation {
                    name: "a site's file that switches forwarding off",
                    prepare: "echo 'net.ipv4.ip_forward = 0' >/etc/sysctl.d/99-hardening.conf",
                    outcome: Becomes::Noted(
                        "sysctl: /etc/sysctl.d/99-hardening.conf sets net.ipv4.ip_forward to 0 at each start",
                    ),
                    kept: "grep -x 'net.ipv4.ip_forward = 0' /etc/sysctl.d/99-hardening.conf",
                },
                Preparation {
                    name: "a master's port in use",
                    prepare: "systemd-run --unit site-web nc -lk 6443",
                    outcome: Becomes::Noted(
                        "ports: tcp 6443 (nc) is in use, so the host cannot be a master, only a worker",
                    ),
                    kept: "systemctl is-active site-web",
                },
                Preparation {
                    name: "a machine-id that another server has",
                    prepare: "echo 0123456789abcdef0123456789abcdef >/etc/machine-id",
                    outcome: Becomes::Noted("machine-id: target-14 has the same, as copies of one disk do"),
                    kept: "grep -x 0123456789abcdef0123456789abcdef /etc/machine-id",
                },
            ],
        },
        Site {
            user: "admin",
            filters: true,
            preparations: &[
                Preparation {
                    name: "sudo with a PATH without /usr/local/bin",
                    prepare: admin!(
                        "'Defaults secure_path=/usr/sbin:/usr/bin:/sbin:/bin' 'admin ALL=(ALL) NOPASSWD: ALL'"
                    ),
                    outcome: Becomes::MadeRight("test -x /usr/local/bin/kubelet && systemctl is-active byoh-hostagent"),
                    kept: "grep secure_path=/usr/sbin: /etc/sudoers.d/admin",
                },
                Preparation {
                    name: "the machine-id of another server",
                    prepare: "echo 0123456789abcdef0123456789abcdef >/etc/machine-id",
                    outcome: Becomes::Noted("machine-id: target-13 has the same, as copies of one disk do"),
                    kept: "grep -x 0123456789abcdef0123456789abcdef /etc/machine-id",
                },
                Preparation {
                    name: "what a removed k3s leaves",
                    prepare: r"mkdir -p /etc/rancher/k3s /var/lib/rancher/k3s/storage
                    echo data >/var/lib/rancher/k3s/storage/volume
                    echo 'token: x' >/etc/rancher/k3s/config.yaml
                    iptables -t nat -N KUBE-SERVICES
                    iptables -t nat -N SITE
                    iptables -t nat -A SITE -d 192.0.2.7/32 -j RETURN",
                    outcome: Becomes::MadeRight("ctr version && kubelet --version | grep VERSION"),
                    kept: r"grep data /var/lib/rancher/k3s/storage/volume && grep token /etc/rancher/k3s/config.yaml
                    iptables -t nat -S KUBE-SERVICES && iptables -t nat -S SITE | grep 192.0.2.7",
                },
            ],
        },
    ],
];
