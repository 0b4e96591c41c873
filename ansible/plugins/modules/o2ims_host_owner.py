#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Looks whether a ByoHost is this machine's or another one's of the same name."""

from __future__ import annotations

import glob
import ipaddress
import re

DOCUMENTATION = r"""
module: o2ims_host_owner
short_description: Look whether a ByoHost is this machine's
description:
  - Compares the cards in its status, which its agent has written, with those of the machine. Changes nothing.
options:
  network:
    description: C(status.network) of the ByoHost.
    type: list
    elements: dict
    required: true
author: The authors of this repository
"""

EXAMPLES = r"""
- name: Look whether the ByoHost is this machine's
  o2ims_host_owner:
    network: [{networkInterfaceName: eth0, macAddr: "02:00:00:00:00:01", ipAddrs: [192.0.2.11/24], isDefault: true}]
"""

RETURN = r"""
mine:
  description: Whether an address of the ByoHost is the machine's, by IP or by MAC; also if the ByoHost has none.
  returned: success
  type: bool
addresses:
  description: The ByoHost's addresses.
  returned: success
  type: list
  elements: str
"""

# Cards that software makes: their addresses are the same on many machines.
MADE = re.compile(r"lo|docker|br-|cni|cali|flannel|vxlan|kube-|virbr|veth|lxc|nodelocaldns|podman|tun")


def of_host(network):
    """MAC and IP addresses by which a ByoHost's machine is known: those of the card with the default route, if there is one."""
    cards = [card for card in network if card.get("isDefault")]
    cards = cards or [card for card in network if not MADE.match(card.get("networkInterfaceName", ""))]
    addresses = [ipaddress.ip_interface(each).ip for card in cards for each in card.get("ipAddrs") or []]
    macs = {card["macAddr"].lower() for card in cards if card.get("macAddr")}
    return macs, [str(address) for address in addresses if not address.is_link_local]


def of_machine():
    """MAC and IP addresses of this machine, loopback's too."""
    macs, addresses = set(), set()
    for file in glob.glob("/sys/class/net/*/address"):
        with open(file, encoding="ascii") as content:
            macs.add(content.read().strip().lower())
    with open("/proc/net/fib_trie", encoding="ascii") as content:
        addresses.update(re.findall(r"([0-9.]+)\n\s+/32 host LOCAL", content.read()))
    try:
        with open("/proc/net/if_inet6", encoding="ascii") as content:
            addresses.update(str(ipaddress.IPv6Address(bytes.fromhex(line.split()[0]))) for line in content)
    except OSError:
        # A kernel without IPv6.
        pass
    return macs - {"", "00:00:00:00:00:00"}, addresses


def main():
    """The module's entry."""
    from ansible.module_utils.basic import AnsibleModule

    arguments = {"network": {"type": "list", "elements": "dict", "required": True}}
    module = AnsibleModule(argument_spec=arguments, supports_check_mode=True)
    macs, addresses = of_host(module.params["network"])
    own_macs, own_addresses = of_machine()
    mine = not (macs or addresses) or bool(macs & own_macs) or bool(own_addresses.intersection(addresses))
    module.exit_json(changed=False, mine=mine, addresses=addresses)


if __name__ == "__main__":
    main()
