"""What is said of machines, by files as they are found there."""

from __future__ import annotations

import importlib.util
import ipaddress
import tempfile
import unittest
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
spec = importlib.util.spec_from_file_location("o2ims_host_check", TOP / "plugins/modules/o2ims_host_check.py")
o2ims_host_check = importlib.util.module_from_spec(spec)
spec.loader.exec_module(o2ims_host_check)

HEAD = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
LAN = "eth0\t000A4D0A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
DEFAULT = "eth1\t00000000\t01004D0A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
HALF = "tun0\t00000000\t0100000A\t0003\t0\t0\t0\t00000080\t0\t0\t0\n"
UNREACHABLE = "*\t00000000\t00000000\t0200\t0\t0\t0\t00000000\t0\t0\t0\n"

# What nft and iptables-save print, and whether it drops what comes in.
RULES = [
    ("", False),
    ("table inet filter {\n\tchain input {\n\t\ttype filter hook input priority filter; policy accept;\n\t}\n}", False),
    ("table inet filter {\n\tchain input {\n\t\ttype filter hook input priority filter; policy drop;\n\t}\n}", True),
    ("table inet filter {\n\tchain forward {\n\t\ttype filter hook forward priority filter; policy drop;\n\t}\n}", False),
    ("table inet f {\n\tchain i {\n\t\ttype filter hook input priority filter; policy accept;\n\t\ttcp dport { 22, 80 } accept\n\t\tdrop\n\t}\n}", True),
    ("table ip f {\n\tchain i {\n\t\ttype filter hook input priority 0; policy accept;\n\t\tcounter packets 3 bytes 9 reject with icmp port-unreachable\n\t}\n}", True),
    ("table ip f {\n\tchain i {\n\t\ttype filter hook input priority 0; policy accept;\n\t\tct state invalid drop\n\t\taccept\n\t}\n}", False),
    ("table ip f {\n\tchain i {\n\t\ttype filter hook input priority 0; policy accept;\n\t\ttcp dport 25 drop\n\t}\n}", False),
    ("table ip f {\n\tchain i {\n\t\ttype filter hook input priority 0; policy accept;\n\t}\n\tchain bad {\n\t\tdrop\n\t}\n}", False),
    ("*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT", False),
    ("*filter\n:INPUT DROP [0:0]\nCOMMIT", True),
    ("*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n-A INPUT -j REJECT --reject-with icmp-host-prohibited\nCOMMIT", True),
    ("*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -j DROP-INVALID\n-A INPUT -s 192.0.2.9/32 -j DROP\nCOMMIT", False),
]
# The same, and whether it drops what is forwarded by its policy.
FORWARDED = [
    ("", False),
    ("*filter\n:INPUT DROP [0:0]\n:FORWARD ACCEPT [0:0]\nCOMMIT", False),
    ("*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\nCOMMIT", True),
    ("table ip filter {\n\tchain FORWARD {\n\t\ttype filter hook forward priority filter; policy drop;\n\t}\n}", True),
    ("table ip filter {\n\tchain INPUT {\n\t\ttype filter hook input priority filter; policy drop;\n\t}\n}", False),
]
# Files with kernel settings, and the one that switches forwarding off after the playbook's.
SETTINGS = [
    ({}, None),
    ({"/etc/sysctl.d/99-site.conf": "net.ipv4.ip_forward = 1\n"}, None),
    ({"/etc/sysctl.d/99-site.conf": "# net.ipv4.ip_forward = 0\n"}, None),
    ({"/etc/sysctl.d/10-site.conf": "net.ipv4.ip_forward = 0\n"}, None),
    ({"/etc/sysctl.d/99-site.conf": "kernel.panic=1\nnet/ipv4/ip_forward=0\n"}, "/etc/sysctl.d/99-site.conf"),
    ({"/etc/sysctl.conf": "net.ipv4.conf.all.forwarding = 0\n"}, "/etc/sysctl.conf"),
]
# Sockets as in /proc/net/tcp and tcp6: one that listens at port 10250, and one that is connected.
SOCKETS = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:280A 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 71 1 0 100 0 0 10 0
   1: 0B004D0A:1923 01004D0A:D512 01 00000000:00000000 03:00001081 00000000     0        0 72 3 0
"""
# The file that kubelets get, whether somebody has named it, and what is said.
RESOLVERS = [
    ("nameserver 192.0.2.53\n", False, None),
    ("nameserver 127.0.0.1\nnameserver 192.0.2.53\n", False, None),
    ("# nameserver 127.0.0.1\nsearch example.com\n", False, None),
    ("search example.com\nnameserver 127.0.0.1\n", False, "names only 127.0.0.1"),
    ("nameserver ::1\nnameserver 127.0.0.53\n", True, "names only ::1, 127.0.0.53"),
    (None, False, None),
    (None, True, "there is no such file"),
]
# Arguments of the kubelet, or files with them, and the file of DNS servers that they name.
KUBELETS = [
    ("", ""),
    ("--eviction-hard=memory.available<100Mi", ""),
    ("KUBELET_EXTRA_ARGS=\n", ""),
    ("KUBELET_EXTRA_ARGS=--resolv-conf=/etc/a --node-ip=192.0.2.1\n", "/etc/a"),
    ('# KUBELET_EXTRA_ARGS=--resolv-conf=/etc/a\nKUBELET_EXTRA_ARGS="--v=2 --resolv-conf /etc/b"\n', "/etc/b"),
    ("--resolv-conf=/etc/a --resolv-conf=/etc/b", "/etc/b"),
]
# The address of the machine, those of the hosts, what ClusterTemplates say of networks, and what is reached without a proxy.
DIRECT = [
    ("192.0.2.7/24", ["192.0.2.7", "192.0.2.8"], [], ["192.0.2.0/24"]),
    ("192.0.2.7/24", ["198.51.100.9", "2001:db8::9", "server.example.com"], [], ["192.0.2.0/24", "198.51.100.0/24", "2001:db8::/64"]),
    ("192.0.2.7/32", ["192.0.2.7", "192.0.2.8"], [], ["192.0.2.7/32", "192.0.2.8/32"]),
    (None, ["192.0.2.7"], [], ["192.0.2.7/32"]),
    ("192.0.2.7/24", [], ["10.244.0.0/16", "10.128.0.0/12", "10.244.0.0/16", "fd00:10::/64"], ["10.128.0.0/12", "10.244.0.0/16", "192.0.2.0/24", "fd00:10::/64"]),
    ("192.0.2.7/24", [], ["", "*", "0.0.0.0/0", "128.0.0.0/1", "::/0", "10.0.0.1/8", 'x" "LD_PRELOAD=/tmp/evil', "10.0.0.0/8,*", "{}"], ["192.0.2.0/24"]),
]
# User data, and whether cloud-init writes /etc/hosts by it.
CLOUDS = [
    ("", False),
    ("#cloud-config\nmanage_etc_hosts: true\n", True),
    ('#cloud-config\nmanage_etc_hosts: "template"\n', True),
    ("#cloud-config\nmanage_etc_hosts: localhost\n", False),
    ("#cloud-config\nmanage_etc_hosts: False\n", False),
]


class HostCheck(unittest.TestCase):
    """Files as machines have them."""

    def test_default_route(self):
        """The card that BYOH's agent takes."""
        for text, card in [("", None), (HEAD, None), (HEAD + LAN, None), (HEAD + LAN + DEFAULT, "eth1"), (HEAD + UNREACHABLE + LAN, None), (HEAD + HALF + DEFAULT, "tun0")]:
            with self.subTest(text=text):
                self.assertEqual(o2ims_host_check.default_card(text), card)

    def test_address(self):
        """A card without one is told, and one that is a host route."""
        lan, alone = ipaddress.ip_interface("192.0.2.7/24"), ipaddress.ip_interface("192.0.2.7/32")
        self.assertIn("no IPv4 default route", o2ims_host_check.address_problem(None, None))
        self.assertIn("eth0, the card of the default route, has no IPv4 address", o2ims_host_check.address_problem("eth0", None))
        self.assertIsNone(o2ims_host_check.address_problem("eth0", alone))
        self.assertIsNone(o2ims_host_check.address_note("eth0", lan))
        self.assertIn("192.0.2.7/32 of eth0 is a host route", o2ims_host_check.address_note("eth0", alone))

    def test_firewalls(self):
        """Only one that drops what nobody lets in."""
        for text, drops in RULES:
            with self.subTest(text=text):
                self.assertEqual(o2ims_host_check.DROPS.search(text) is not None, drops)

    def test_forwarded(self):
        """Docker's policy for packets that are not the machine's own."""
        for text, drops in FORWARDED:
            with self.subTest(text=text):
                self.assertEqual(o2ims_host_check.DROPS_FORWARDED.search(text) is not None, drops)

    def test_forwarding(self):
        """A file counts only where it is read after the playbook's."""
        for files, named in SETTINGS:
            with self.subTest(files=files):
                note = o2ims_host_check.forwarding_note(files)
                if named is None:
                    self.assertIsNone(note)
                else:
                    self.assertIn(f"{named} sets net.ipv4.ip_forward to 0", note)

    def test_ports(self):
        """The kubelet's port is a problem, and a master's only a note."""
        self.assertEqual(o2ims_host_check.listeners(SOCKETS), {10250: "71"})
        self.assertEqual(o2ims_host_check.port_findings({22: "1"}), (None, None))
        problem, note = o2ims_host_check.port_findings({10250: "none", 6443: "none", 2379: "none"})
        self.assertIn("tcp 10250 (an unknown program) is in use", problem)
        self.assertIn("tcp 6443 (an unknown program), 2379 (an unknown program) are in use", note)

    def test_resolvers(self):
        """Servers that pods cannot ask."""
        for text, given, said in RESOLVERS:
            with self.subTest(text=text, given=given):
                problem = o2ims_host_check.resolver_problem("/etc/x", text, given)
                if said is None:
                    self.assertIsNone(problem)
                else:
                    self.assertIn(said, problem)

    def test_kubelet_arguments(self):
        """The last file counts, and none in a comment."""
        for text, file in KUBELETS:
            with self.subTest(text=text):
                self.assertEqual(o2ims_host_check.given_resolv_conf(text), file)

    def test_direct(self):
        """Networks of hosts, not each host; and of clusters only what is a network."""
        for own, addresses, networks, wanted in DIRECT:
            with self.subTest(own=own, addresses=addresses, networks=networks):
                own = own and ipaddress.ip_interface(own)
                self.assertEqual(o2ims_host_check.direct(own, addresses, networks), wanted)

    def test_read(self):
        """A comment in another encoding is in nobody's way."""
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"# d\xe9j\xe0 vu\nENABLED=yes\n")
            file.flush()
            self.assertIn("ENABLED=yes", o2ims_host_check.read(file.name))

    def test_cloud_init(self):
        """Only user data that has /etc/hosts written anew."""
        for text, told in CLOUDS:
            with self.subTest(text=text):
                self.assertEqual(o2ims_host_check.cloud_note(text) is not None, told)


if __name__ == "__main__":
    unittest.main()
