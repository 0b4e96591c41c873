#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Looks at a host before anything on it is changed."""

from __future__ import annotations

import base64
import calendar
import email.utils
import fcntl
import glob
import http.client
import ipaddress
import json
import os
import platform
import re
import socket
import ssl
import struct
import time
from urllib.parse import urlsplit

DOCUMENTATION = r"""
module: o2ims_host_check
short_description: Look whether a machine can become a host
description:
  - Changes nothing. What is in the way is told at once.
options:
  name:
    description: The name that the host has, or gets.
    type: str
    required: true
  api_server:
    description: The management cluster's API as hosts reach it, C(https://HOST:PORT).
    type: str
    required: true
  ca_data:
    description: Its CA, base64 of PEM.
    type: str
    required: true
  machine:
    description: The processor that the programs are for which will be copied; empty if none are.
    type: str
    default: ""
  system:
    description: The distribution that the packages are for which will be copied, such as C(debian 12); empty if none are.
    type: str
    default: ""
  needs_apt:
    description: Whether packages are to be installed, on a distribution that the playbook knows.
    type: bool
    default: false
  installs:
    description: Whether packages or programs are to be installed.
    type: bool
    default: false
  memory_mib:
    description: What the machine must have.
    type: int
    required: true
  free_mib:
    description: What must be free where Kubernetes and containerd keep their data.
    type: int
    required: true
  clock_seconds:
    description: By how much its clock may differ from the management cluster's.
    type: int
    required: true
  agent_config:
    description: Where BYOH's agent keeps its certificate.
    type: path
    required: true
  certificate_percent:
    description: With less than this part of its lifetime left, the agent's certificate is to be made anew.
    type: int
    required: true
  registered:
    description: Whether its ByoHost is there. What this module has refused only since then does not take it away from the management cluster.
    type: bool
    default: false
  kubelet_arguments:
    description: More arguments that the kubelet is to get; empty if it keeps those that it has.
    type: str
    default: ""
  addresses:
    description: Addresses for ssh of all hosts.
    type: list
    elements: str
    default: []
  cluster_networks:
    description: What ClusterTemplates say of networks of Pods and Services. Anybody may write these, so what is none is left out.
    type: list
    elements: str
    default: []
author: The authors of this repository
"""

EXAMPLES = r"""
- name: Look at the machine
  o2ims_host_check:
    name: target-1
    api_server: https://192.0.2.1:6443
    ca_data: LS0t...
    memory_mib: 1700
    free_mib: 4096
    clock_seconds: 30
    agent_config: /root/.byoh/config
    certificate_percent: 20
"""

RETURN = r"""
problems:
  description: Why it cannot become a host, one line each, but for what C(connection) and C(stranger) say.
  returned: success
  type: list
  elements: str
notes:
  description: What may be in the way later, one line each.
  returned: success
  type: list
  elements: str
address:
  description: The first IPv4 address of the card with the default route; empty if there is none.
  returned: success
  type: str
direct:
  description: Networks of hosts and of clusters, in CIDR form, which are reached without a proxy.
  returned: success
  type: list
  elements: str
connection:
  description: Why its agent would not get through to the management cluster, one line each. It concerns hosts in use too.
  returned: success
  type: list
  elements: str
known:
  description: Whether the management cluster accepts the agent's certificate for this name.
  returned: success
  type: bool
certificate:
  description: C(valid), or why BYOH's agent needs a new one.
  returned: success
  type: str
system:
  description: The distribution, such as C(debian 12).
  returned: success
  type: str
apt:
  description: Whether the distribution has apt.
  returned: success
  type: bool
hostname:
  description: The name that the machine has.
  returned: success
  type: str
machine_id:
  description: The content of /etc/machine-id.
  returned: success
  type: str
stranger:
  description: What is in the way of a node, unless the management cluster has given the host to a cluster.
  returned: success
  type: str
swap:
  description: Whether swap is on.
  returned: success
  type: bool
"""

# The first release of a distribution whose packages are new enough.
OLDEST = {"debian": 12, "ubuntu": 22.04}
# The validity of a certificate (RFC 5280, 4.1.2.5): the only two UTCTimes in a row, in DER.
VALIDITY = re.compile(rb"\x17\x0d([0-9]{12})Z\x17\x0d([0-9]{12})Z")
# A chain of nftables, or of iptables-save, that drops what nobody lets in: by its policy, or by its last rule.
DROPS = re.compile(
    r"hook input [^;\n]*; policy drop;|hook input [^\n]*\n(?:\t\t[^\n]*\n)*\t\t(?:(?:counter|log) (?:[^\n]* )?)?(?:drop|reject)\b[^\n]*\n\t\}"
    r"|^:INPUT DROP |^-A INPUT -j (?:DROP|REJECT)(?: |$)",
    re.MULTILINE,
)
# A chain for what is forwarded that drops it by its policy, as Docker sets it; of nftables, or of iptables-save.
DROPS_FORWARDED = re.compile(r"hook forward [^;\n]*; policy drop;|^:FORWARD DROP ", re.MULTILINE)
PORTS = "tcp 6443 and 2379-2380 to masters, tcp 10250 to all, 30000-32767, and those of the pod network (docs/servers.md, \"Ports\")"
# Requests of ioctl(2): the first address of a card, and its mask.
SIOCGIFADDR = 0x8915
SIOCGIFNETMASK = 0x891B
# The largest networks of Pods that kubeadm accepts, by the version of IP, as the operator's rules.
LARGEST = {4: 8, 6: 48}
# What kubeadm refuses to find on a new node, or the kubelet does not start with.
NODE_FILES = (
    "/etc/kubernetes/*.conf",
    "/etc/kubernetes/manifests/*",
    "/etc/kubernetes/pki/ca.crt",
    "/var/lib/etcd/*",
    "/var/lib/kubelet/config.yaml",
    "/var/lib/kubelet/*_manager_state",
)
# What a pod network leaves: settings, of which containerd takes the first, and cards with the addresses of former pods.
POD_NETWORKS = ("/etc/cni/net.d/*.conf", "/etc/cni/net.d/*.conflist", "/etc/cni/net.d/*.json") + tuple(
    f"/sys/class/net/{card}" for card in ("cni0", "flannel.1", "vxlan.calico", "cilium_host", "kube-ipvs0")
)
# Services of other Kubernetes distributions.
DISTRIBUTIONS = ("k3s", "k3s-agent", "rke2-server", "rke2-agent", "k0scontroller", "k0sworker", "snap.microk8s.daemon-kubelite")
UNITS = ("/etc/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
# Ports that a node has to have to itself, and those of a master.
KUBELET_PORT = 10250
MASTER_PORTS = (6443, 2379, 2380, 10257, 10259)
# Where the playbook writes: always, and where it installs packages or programs.
WRITTEN = ("/etc", "/root", "/usr/local/bin", "/var/lib")
INSTALLED = ("/opt", "/usr", "/var/cache")
# Settings that a site's file may take back at the next start; the playbook's is /etc/sysctl.d/90-o2ims-host.conf.
FORWARDING = re.compile(r"^\s*-?net[./]ipv4[./](?:ip_forward|conf[./]all[./]forwarding)\s*=\s*0\s*$", re.MULTILINE)
DATA = ("/var/lib", "/var/lib/containerd", "/var/lib/kubelet", "/var/lib/etcd", "/opt")


def read(path):
    """A file's content, or nothing."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def os_release():
    """What the machine says of its distribution."""
    return dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', read("/etc/os-release"), re.MULTILINE))


def system():
    """The distribution, as the file beside packages names it."""
    release = os_release()
    return " ".join(release.get(key, "") for key in ("ID", "VERSION_ID"))


def system_problems(params):
    """Distribution, processor and memory."""
    problems = []
    release = os_release()
    pretty = release.get("PRETTY_NAME", "an unknown system")
    if not os.path.isdir("/run/systemd/system"):
        problems.append(f"operating system: {pretty} was not started by systemd, which has to run containerd, kubelet and agent")
    if params["needs_apt"]:
        version = re.match(r"[0-9]+(\.[0-9]+)?", release.get("VERSION_ID", ""))
        oldest = OLDEST.get(release.get("ID"))
        if oldest is None or (version and float(version[0]) < oldest):
            problems.append(
                f"operating system: {pretty}; packages are installed on Debian 12, Ubuntu 22.04 and newer."
                " Take the programs of a bundle (sources.containerd: programs, sources.kubernetes: files), or install containerd and Kubernetes"
                " yourself and set both to present"
            )
    if params["system"] and system() != params["system"]:
        problems.append(
            f"operating system: {pretty}; the packages in sources.files are for {params['system']}."
            " Set sources.containerd to programs, which fit any distribution"
        )
    machine = platform.machine()
    if params["machine"] and machine != params["machine"]:
        problems.append(f"architecture: the machine is {machine}, and the programs in sources.files are for {params['machine']}")
    memory = re.search(r"^MemTotal: +([0-9]+) kB", read("/proc/meminfo"), re.MULTILINE)
    if memory and int(memory[1]) // 1024 < params["memory_mib"]:
        problems.append(f"memory: {int(memory[1]) // 1024} MiB; at least {params['memory_mib']} MiB are wanted")
    return problems


def default_card(routes):
    """The card of the first default route in /proc/net/route, None if there is none; as BYOH's agent finds it, which looks at no mask."""
    for line in routes.splitlines()[1:]:
        parts = line.split()
        if len(parts) > 1 and parts[1] == "00000000":
            # A route of the type unreachable has no card.
            return None if parts[0] == "*" else parts[0]
    return None


def address_of(card):
    """A card's first IPv4 address with its prefix; None if it has none."""
    request = struct.pack("256s", card.encode()[:15])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            address, mask = (socket.inet_ntoa(fcntl.ioctl(probe, what, request)[20:24]) for what in (SIOCGIFADDR, SIOCGIFNETMASK))
        except OSError:
            return None
    return ipaddress.ip_interface(f"{address}/{mask}")


def address_problem(card, address):
    """Why BYOH's agent would not find the machine's addresses, or None."""
    if card is None:
        return (
            "network: there is no IPv4 default route, by which BYOH's agent finds the machine's addresses: add one for every start."
            " In a closed network one to an unused address of the LAN is enough"
        )
    if address is None:
        return f"network: {card}, the card of the default route, has no IPv4 address, and BYOH's agent looks for it there: give it one"
    return None


def address_note(card, address):
    """What happens to an address that is a host route, or None."""
    if address is None or address.network.prefixlen < 32:
        return None
    return (
        f"network: the address {address} of {card} is a host route. BYOH's agent would remove it with the only master of a cluster whose endpoint"
        " it is: give a request for one master a controlPlaneEndpoint that is a DNS name, or an address that no card has"
    )


def direct(own, addresses, networks):
    """The networks of this host, of hosts with these addresses, and of clusters, in CIDR form.

    How large another host's network is, only that host knows: it counts as being of this one's size. Networks, not each host, so that a host
    which is added to a LAN changes nothing on the others.
    """
    found = {own.network} if own else set()
    for text in addresses:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            # A name.
            continue
        length = 64 if address.version == 6 else own.network.prefixlen if own else 32
        found.add(ipaddress.ip_network(f"{address}/{length}", strict=False))
    for text in networks:
        try:
            network = ipaddress.ip_network(text)
        except ValueError:
            continue
        if network.prefixlen >= LARGEST[network.version]:
            found.add(network)
    return sorted(str(network) for network in found)


def given_resolv_conf(arguments):
    """The file that the last --resolv-conf in arguments of the kubelet names, or the empty text."""
    return (re.findall(r"^[^#\n]*--resolv-conf[= ]([^\s\"']+)", arguments, re.MULTILINE) or [""])[-1]


def resolver_problem(path, text, given):
    """Why pods would find no DNS server in this file, or None. None for its text means that it is not there."""
    if text is None:
        return f"resolver: the kubelet is given --resolv-conf={path}, and there is no such file" if given else None
    servers = re.findall(r"^\s*nameserver\s+([0-9A-Fa-f:.]+)", text, re.MULTILINE)
    if not servers or not all(server == "::1" or server.startswith("127.") for server in servers):
        return None
    return (
        f"resolver: {path} names only {', '.join(servers)}, which in a pod is the pod itself, so the cluster's DNS would ask itself."
        " Write a file with the site's DNS servers on the host, and set kubernetes_resolv_conf to its path"
    )


def cloud_note(text):
    """What cloud-init does to /etc/hosts by the machine's user data, which counts more than any file of the playbook's; or None."""
    if not re.search(r"^manage_etc_hosts: *['\"]?(true|yes|on|template)\b", text, re.MULTILINE | re.IGNORECASE):
        return None
    return (
        "cloud-init: the machine's user data has manage_etc_hosts, so /etc/hosts is written anew at each start:"
        " set it to false there, or add the host's name to /etc/cloud/templates/hosts.*.tmpl"
    )


def disk_problems(wanted):
    """Folders below which too little is free; one for each file system."""
    problems = {}
    for folder in DATA:
        if not os.path.isdir(folder):
            continue
        state, device = os.statvfs(folder), os.stat(folder).st_dev
        free = state.f_bavail * state.f_frsize // 2**20
        if free < wanted:
            problems.setdefault(device, f"disk: {free} MiB are free in {folder}; at least {wanted} MiB are wanted")
    return list(problems.values())


def found(patterns):
    """Files of these patterns that are there."""
    return sorted(path for pattern in patterns for path in glob.glob(pattern))


def be(things):
    """The verb for so many."""
    return "is" if len(things) == 1 else "are"


def leftovers():
    """What earlier clusters have left on a machine that is no node, or what other distributions of Kubernetes have on it."""
    problems = []
    units = found(f"{folder}/{name}.service" for folder in UNITS for name in DISTRIBUTIONS)
    if units:
        problems.append(
            f"Kubernetes: another distribution of it is installed ({units[0]}), which would use the same ports and networks:"
            " uninstall it by its own script, or take another server"
        )
    files = found(NODE_FILES)
    if files:
        problems.append(
            f"Kubernetes: {', '.join(files)} {be(files)} left of an earlier node, which keeps a new one from starting:"
            " if that cluster is not needed any more, run kubeadm reset, and remove what it leaves of these"
        )
    networks = found(POD_NETWORKS)
    if networks:
        problems.append(
            f"pod network: {', '.join(networks)} {be(networks)} left of an earlier one, which gets in the way of the next:"
            " remove the files, and the cards with ip link delete"
        )
    return problems


def listeners(text):
    """The TCP ports that are listened at, with the inodes of their sockets, from /proc/net/tcp or tcp6."""
    lines = [line.split() for line in text.splitlines()[1:]]
    return {int(parts[1].rsplit(":", 1)[1], 16): parts[9] for parts in lines if len(parts) > 9 and parts[3] == "0A"}


def program_of(inode):
    """The name of the program that has this socket."""
    for link in glob.iglob("/proc/[0-9]*/fd/*"):
        try:
            if os.readlink(link) == f"socket:[{inode}]":
                return read(f"/proc/{link.split('/')[2]}/comm").strip()
        except OSError:
            # It has ended.
            continue
    return "an unknown program"


def port_findings(sockets):
    """Why the ports of a node, or else those of a master, are not free: a problem and a note, each perhaps None."""
    taken = {port: f"{port} ({program_of(sockets[port])})" for port in (KUBELET_PORT, *MASTER_PORTS) if port in sockets}
    kubelet = taken.pop(KUBELET_PORT, None)
    problem = f"ports: tcp {kubelet} is in use, and the kubelet needs it: stop that program, or give it another port" if kubelet else None
    if not taken:
        return problem, None
    return problem, (
        f"ports: tcp {', '.join(taken.values())} {be(taken)} in use, so the host cannot be a master, only a worker:"
        " stop that program, or give it another port"
    )


def readonly_problem(folders):
    """Which of the folders are on file systems that cannot be written, or None."""
    closed = [folder for folder in folders if os.path.isdir(folder) and os.statvfs(folder).f_flag & os.ST_RDONLY]
    if not closed:
        return None
    return f"file system: {', '.join(closed)} cannot be written, and the playbook writes there: mount it read-write (findmnt --target {closed[0]})"


def forwarding_note(files):
    """Which file of the site's switches forwarding off at the next start, or None. It is given the files with their content."""
    late = [path for path, text in sorted(files.items(), key=lambda file: os.path.basename(file[0])) if FORWARDING.search(text)]
    late = [path for path in late if path == "/etc/sysctl.conf" or os.path.basename(path) > "90-o2ims-host.conf"]
    if not late:
        return None
    return (
        f"sysctl: {late[-1]} sets net.ipv4.ip_forward to 0 at each start, after the playbook's 90-o2ims-host.conf, and pods would not be reached:"
        " remove that line"
    )


class Api:
    """The management cluster, as the host reaches it."""

    def __init__(self, params):
        self.url = params["api_server"]
        self.address = urlsplit(self.url)
        self.ca = base64.b64decode(params["ca_data"]).decode()

    def ask(self, method, path, body=None, certificate=None):
        """The answer's status, its time in seconds, and its content."""
        context = ssl.create_default_context(cadata=self.ca)
        if certificate:
            context.load_cert_chain(certificate)
        connection = http.client.HTTPSConnection(self.address.hostname, self.address.port, timeout=10, context=context)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            answer = connection.getresponse()
            date = email.utils.parsedate_to_datetime(answer.headers["Date"]).timestamp() if answer.headers["Date"] else None
            return answer.status, date, answer.read()
        finally:
            connection.close()


def api_problem(api, allowed):
    """Whether the management cluster answers, and whether both have the same time."""
    try:
        _status, date, _content = api.ask("GET", "/version")
    except socket.gaierror:
        return f"management API: this machine cannot resolve the name in {api.url}"
    except ssl.SSLCertVerificationError as error:
        now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        return f"management API: {api.url} has no certificate that this machine accepts: {error.verify_message} (its clock says {now})"
    except OSError as error:
        return f"management API: this machine does not reach {api.url}: {error.strerror or error}; look at routes and firewalls"
    except http.client.HTTPException as error:
        return f"management API: what answers at {api.url} is no Kubernetes API: {error!r}"
    difference = round(time.time() - date) if date else 0
    if abs(difference) > allowed:
        way = "ahead of" if difference > 0 else "behind"
        return f"time: the clock is {abs(difference)} s {way} the management cluster's; {allowed} s are allowed: set it, run a time service"
    return None


def part_left(pem):
    """How many percent of a certificate's lifetime are left; 100 where its dates cannot be read."""
    dates = VALIDITY.search(ssl.PEM_cert_to_DER_cert(pem.decode().strip()))
    if not dates:
        return 100
    begin, end = (calendar.timegm(time.strptime(date.decode(), "%y%m%d%H%M%S")) for date in dates.groups())
    return 100 * (end - time.time()) / (end - begin)


def certificate_state(module, api, path, name):
    """Whether the management cluster takes the agent's certificate; and `valid`, or why the agent needs a new one."""
    text = read(path)
    if not text:
        return False, f"there is no {path}"
    parts = [re.search(rf"client-{what}-data: *(\S+)", text) for what in ("certificate", "key")]
    files = [re.search(rf"client-{what}: *(\S+)", text) for what in ("certificate", "key")]
    try:
        if all(parts):
            pems = [base64.b64decode(part[1]) for part in parts]
        elif all(files):
            pems = [read(file[1]).encode() for file in files]
        else:
            return False, f"{path} has no certificate"
        pair = os.path.join(module.tmpdir, "agent.pem")
        with open(os.open(pair, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(b"\n".join(pems))
        body = json.dumps({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"})
        left = part_left(pems[0])
        status, _date, content = api.ask("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", body, pair)
    except (OSError, ValueError, http.client.HTTPException) as error:
        return False, f"the certificate in {path} is not accepted: {error}"
    if status != 201:
        return False, f"the management cluster does not accept the certificate in {path} (HTTP status {status})"
    user = json.loads(content)["status"]["userInfo"].get("username")
    if user != f"byoh:host:{name}":
        return False, f"the certificate in {path} is for {user}"
    if left < module.params["certificate_percent"]:
        return True, f"{left:.0f} percent of the lifetime of the certificate in {path} are left"
    return True, "valid"


def is_active(module, service):
    """Whether systemd runs a service."""
    systemctl = module.get_bin_path("systemctl")
    return systemctl is not None and module.run_command([systemctl, "is-active", "--quiet", service])[0] == 0


def resolver(module):
    """What is wrong with the DNS servers for pods, or None."""
    kept = read("/etc/default/kubelet") + read("/etc/sysconfig/kubelet")
    given = given_resolv_conf(module.params["kubelet_arguments"].strip() or kept)
    # As kubeadm chooses it.
    chosen = "/run/systemd/resolve/resolv.conf" if is_active(module, "systemd-resolved") else "/etc/resolv.conf"
    path = given or chosen
    return resolver_problem(path, read(path) if os.path.isfile(path) else None, bool(given))


def firewall_notes(module):
    """Which firewall lets in only what it was told to, and which one lets nothing through."""
    active = ["firewalld"] if is_active(module, "firewalld") else []
    if module.get_bin_path("ufw") and re.search(r"^ENABLED=yes", read("/etc/ufw/ufw.conf"), re.MULTILINE):
        active.append("ufw")
    rules = {"nftables": ["nft", "list", "ruleset"], "iptables": ["iptables-save"], "ip6tables": ["ip6tables-save"]}
    through = []
    for name, command in rules.items():
        text = module.run_command(command)[1] if module.get_bin_path(command[0]) else ""
        if not active and DROPS.search(text):
            active.append(name)
        if not through and DROPS_FORWARDED.search(text):
            through.append(name)
    notes = [f"firewall: {' and '.join(active)} is active, and the playbook opens no port: open {PORTS}"] if active else []
    notes += [
        f"firewall: the policy of {name} for forwarded packets is drop, as Docker sets it, and those of pods are dropped too:"
        " let the networks of pods and services through, or accept by policy (iptables -P FORWARD ACCEPT)"
        for name in through
    ]
    return notes


def main():
    """The module's entry."""
    from ansible.module_utils.basic import AnsibleModule

    arguments = {name: {"type": "str", "required": True} for name in ("name", "api_server", "ca_data")}
    arguments |= {name: {"type": "int", "required": True} for name in ("memory_mib", "free_mib", "clock_seconds", "certificate_percent")}
    arguments |= {name: {"type": "str", "default": ""} for name in ("machine", "system", "kubelet_arguments")}
    arguments |= {name: {"type": "list", "elements": "str", "default": []} for name in ("addresses", "cluster_networks")}
    arguments |= {name: {"type": "bool", "default": False} for name in ("needs_apt", "installs", "registered")}
    arguments["agent_config"] = {"type": "path", "required": True}
    module = AnsibleModule(argument_spec=arguments, supports_check_mode=True)
    params, api = module.params, Api(module.params)
    card = default_card(read("/proc/net/route"))
    address = address_of(card) if card else None
    node = os.path.exists("/etc/kubernetes/kubelet.conf")
    sockets = {} if node else listeners(read("/proc/net/tcp")) | listeners(read("/proc/net/tcp6"))
    port_problem, port_note = port_findings(sockets)
    closed = readonly_problem(WRITTEN + (INSTALLED if params["installs"] else ()))
    problems = system_problems(params) + disk_problems(params["free_mib"]) + ([closed] if closed else [])
    cloud = read("/var/lib/cloud/instance/cloud-config.txt")
    sysctl = {path: read(path) for path in found(["/etc/sysctl.conf", "/etc/sysctl.d/*.conf"])}
    notes = [address_note(card, address), *firewall_notes(module), cloud_note(cloud), port_note, forwarding_note(sysctl)]
    notes = [note for note in notes if note]
    newer = [problem for problem in (address_problem(card, address), resolver(module), port_problem) if problem]
    newer += [] if node else leftovers()
    (notes if params["registered"] else problems).extend(newer)
    connection = [problem for problem in [api_problem(api, params["clock_seconds"])] if problem]
    hostname = socket.gethostname()
    known, certificate = False, "the management API was not reached"
    if not connection:
        known, certificate = certificate_state(module, api, params["agent_config"], params["name"])
    if node and hostname != params["name"]:
        connection.append(f"host name: it is a Kubernetes node with the name {hostname}, and input.json calls it {params['name']}")
    stranger = ""
    if node:
        whose = "and its ByoHost is free or not there" if known else f"but of none that this management cluster has made ({certificate})"
        stranger = (
            f"Kubernetes: the machine is a node of a cluster (/etc/kubernetes/kubelet.conf), {whose}."
            " If that cluster is not needed any more, run kubeadm reset on it"
        )
    swap = len(read("/proc/swaps").splitlines()) > 1
    module.exit_json(
        changed=False,
        problems=problems,
        notes=notes,
        address=str(address.ip) if address else "",
        direct=direct(address, params["addresses"], params["cluster_networks"]),
        connection=connection,
        known=known,
        certificate=certificate,
        system=system(),
        apt=module.get_bin_path("apt-get") is not None,
        hostname=hostname,
        machine_id=read("/etc/machine-id").strip(),
        stranger=stranger,
        swap=swap,
    )


if __name__ == "__main__":
    main()
