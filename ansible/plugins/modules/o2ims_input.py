#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Reads and checks input.json. Everything that is wrong is told at once, by host and field."""

from __future__ import annotations

import difflib
import hashlib
import ipaddress
import json
import os
import re
import struct
import tarfile

DOCUMENTATION = r"""
module: o2ims_input
short_description: Read and check the file that describes the hosts
description:
  - Refuses a file with anything wrong in it, and names every mistake by host and field.
options:
  path:
    description: The file.
    type: path
    required: true
  only:
    description: Names of hosts, separated by commas; others are left out. Empty for all.
    type: str
    default: ""
  sources:
    description: Whether anything is to be installed, so that the sources have to be there.
    type: bool
    default: true
author: The authors of this repository
"""

EXAMPLES = r"""
- name: Read the input
  o2ims_input:
    path: input.json
"""

RETURN = r"""
settings:
  description:
    - Everything but the hosts, with defaults filled in and paths made absolute. C(addresses) are those of all hosts, also if
      C(only) names some, since what is made of them must not differ from run to run.
  returned: success
  type: dict
hosts:
  description: The hosts.
  returned: success
  type: list
  elements: dict
"""

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
VERSION = re.compile(r"v1\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)(-[0-9A-Za-z.-]+)?")
USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.@-]*\$?")
# Nothing that systemd or apt would read otherwise.
PROXY = re.compile(r"https?://(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?/?")
NO_PROXY = re.compile(r"[A-Za-z0-9.:/_-]+")
# What is never asked by a proxy, beside the management cluster and the networks of hosts and clusters.
LOCAL = ("localhost", "127.0.0.1", "::1", ".svc", ".cluster.local")
API_SERVER = re.compile(r"https://(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})/?")
# Who these belong to: this playbook, Cluster API, BYOH, the operator.
RESERVED = ("host-id", "cluster.x-k8s.io", "o2ims.provisioning.oran.org", "kaapi.pf9.io")
TOP = {
    "$schema": (str, False), "kubeconfig": (str, True), "apiServer": (str, False), "namespace": (str, False),
    "k8sVersion": (str, True), "sources": (dict, False), "proxy": (dict, False), "hosts": (list, True),
}  # fmt: skip
SOURCES = {
    "containerd": (str, False), "kubernetes": (str, False), "files": (str, False), "images": (str, False), "agent": (str, False),
}  # fmt: skip
PROXIES = {"http": (str, True), "https": (str, False), "noProxy": (list, False)}
HOST = {
    "name": (str, True), "address": (str, True), "user": (str, True), "hostId": ((int, str), True), "labels": (dict, False),
    "port": (int, False), "keyFile": (str, False),
}  # fmt: skip
KINDS = {str: "a string", dict: "an object", list: "a list", int: "a number", (int, str): "a number or a string"}
CHOICES = {"containerd": ("packages", "files", "programs", "present"), "kubernetes": ("repository", "files", "present")}
PROGRAMS = ("kubelet", "kubeadm", "kubectl")
# Below `runtime`.
RUNTIME = ("bin/containerd", "bin/containerd-shim-runc-v2", "bin/ctr", "bin/runc", "bin/crictl", "cni/loopback", "cni/portmap")
MACHINES = {62: "x86_64", 183: "aarch64"}


class Twice(ValueError):
    """A field that is given twice: JSON takes the last one without a word."""


def no_duplicates(pairs):
    """An object whose fields are all different."""
    found = {}
    for key, value in pairs:
        if key in found:
            raise Twice(f"the field {json.dumps(key)} is given twice in one object")
        found[key] = value
    return found


def kind_of(value):
    """What a value is, for people."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, float):
        return "a number with a fraction"
    return next(text for kind, text in KINDS.items() if isinstance(value, kind))


def fields(value, known, where, errors):
    """The fields of the right type; `where` ends in what stands before a field's name."""
    good = {}
    for name, given in value.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, 1, 0.6)
            hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(k for k in known if k[0] != '$')}"
            errors.append(f"{where}{name}: unknown field{hint}")
            continue
        wanted = known[name][0]
        if not isinstance(given, wanted) or isinstance(given, bool):
            errors.append(f"{where}{name}: must be {KINDS[wanted]}, not {kind_of(given)}")
        elif given == "":
            errors.append(f"{where}{name}: is empty")
        else:
            good[name] = given
    for name, (_kind, required) in known.items():
        if required and name not in value:
            errors.append(f"{where}{name}: is missing")
    return good


def is_dns_name(text):
    """Whether this is a DNS name, and no address that went wrong."""
    parts = text.lower().rstrip(".").split(".")
    return len(text) <= 253 and all(LABEL.fullmatch(part) for part in parts) and not parts[-1].isdigit()


def is_address(text):
    """Whether ssh can take this for a machine."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return is_dns_name(text)
    return True


def label_error(key, value):
    """What is wrong with a label, or None."""
    prefix, slash, name = key.rpartition("/")
    group = prefix if slash else name
    if group in RESERVED or any(group.endswith("." + reserved) for reserved in RESERVED[1:]):
        why = "the playbook sets it from hostId" if key == "host-id" else f"{group} belongs to the operators"
        return f"this label cannot be given: {why}"
    if (slash and not is_dns_name(prefix)) or not NAME.fullmatch(name):
        return "is no label key: [prefix/]name, the name of letters, digits, '-', '_' and '.', at most 63 characters"
    if not isinstance(value, str):
        return f"must be a string, not {kind_of(value)}"
    if value and not NAME.fullmatch(value):
        return "is no label value: letters, digits, '-', '_' and '.', at most 63 characters, a letter or digit at both ends"
    return None


def check_host(index, value, errors):
    """One host, with defaults; None if it is no object at all."""
    where = f"hosts[{index}]"
    if not isinstance(value, dict):
        errors.append(f"{where}: must be an object, not {kind_of(value)}")
        return None
    if isinstance(value.get("name"), str) and value["name"]:
        where += f" ({value['name']})"
    where += ": "
    host = fields(value, HOST, where, errors)

    def refuse(name, why):
        errors.append(f"{where}{name}: {why}")
        host.pop(name, None)

    name = host.get("name", "x")
    if not LABEL.fullmatch(name):
        refuse("name", f"{name!r} is no DNS label: small letters, digits and '-', at most 63 characters; it becomes the host's name")
    elif name == "localhost":
        refuse("name", "localhost is every machine's name")
    if not is_address(host.get("address", "x")):
        refuse("address", f"{host['address']!r} is neither an IP address nor a DNS name")
    if not USER.fullmatch(host.get("user", "x")):
        refuse("user", f"{host['user']!r} is no user name")
    if not 1 <= host.get("port", 22) <= 65535:
        refuse("port", f"{host['port']} is no port: 1 to 65535")
    identity = host.get("hostId", 0)
    if isinstance(identity, int) and not 0 <= identity < 2**31:
        refuse("hostId", f"{identity} is out of range: 0 to 2147483647")
    if isinstance(identity, str) and not NAME.fullmatch(identity):
        refuse("hostId", f"{identity!r} is no label value: letters, digits, '-', '_' and '.', at most 63 characters")
    for key, text in host.get("labels", {}).items():
        why = label_error(key, text)
        if why:
            errors.append(f"{where}labels[{key}]: {why}")
    host.setdefault("labels", {})
    host.setdefault("port", 22)
    host["where"] = where
    return host


def check_duplicates(hosts, errors):
    """Names, addresses and ids are given once each."""
    seen = {}
    for host in hosts:
        if host is None:
            continue
        who = host.get("name", host["where"].split(":")[0])
        for field in ("name", "address", "hostId"):
            if field not in host:
                continue
            key = str(host[field]).lower()
            if field == "address":
                key = (key, host["port"])
            if (field, key) not in seen:
                seen[field, key] = who
            elif field == "name":
                errors.append(f"{host['where']}name: {host['name']} is also another host's")
            else:
                errors.append(f"{host['where']}{field}: {host[field]} is also {seen[field, key]}'s; each host needs its own")


def machine_of(path):
    """The processor that a program is for; None if it is no program for Linux."""
    with open(path, "rb") as file:
        head = file.read(20)
    if len(head) < 20 or head[:4] != b"\x7fELF":
        return None
    return MACHINES.get(struct.unpack("<H", head[18:20])[0], "another processor")


def system_of(packages):
    """The distribution that packages are for, as a file beside them says; empty if there is none."""
    try:
        with open(os.path.join(packages, "os-release"), encoding="utf-8") as file:
            release = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', file.read(), re.MULTILINE))
    except FileNotFoundError:
        return ""
    return " ".join(release.get(key, "") for key in ("ID", "VERSION_ID"))


def image_names(path):
    """The names of the images of an archive, as containerd will have them."""
    with tarfile.open(path) as archive:
        manifest = json.load(archive.extractfile("manifest.json"))
    names = [name for image in manifest for name in image.get("RepoTags") or []]
    full = []
    for name in names:
        first = name.split("/")[0]
        if "/" not in name:
            name = "docker.io/library/" + name
        elif first != "localhost" and "." not in first and ":" not in first:
            name = "docker.io/" + name
        full.append(name)
    return full


def sums(folder):
    """The files in a folder with their sums, as sha256sum prints them."""
    lines = []
    for name in ("bin", "cni", "versions"):
        path = os.path.join(folder, name)
        names = [os.path.join(name, part) for part in sorted(os.listdir(path))] if os.path.isdir(path) else [name]
        for part in names:
            with open(os.path.join(folder, part), "rb") as file:
                lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {part}")
    return lines


def absolute(path, folder):
    """A path of the input file, which is meant from where that file is."""
    return os.path.normpath(os.path.join(folder, os.path.expanduser(path)))


def check_program(path, field, machines, errors):
    """A program that is to be copied to hosts."""
    try:
        machine = machine_of(path)
    except OSError as error:
        errors.append(f"{field}: {path}: {error.strerror}")
        return
    if machine is None:
        errors.append(f"{field}: {path} is no program for Linux")
    else:
        machines[path] = machine


def check_sources(sources, folder, errors):
    """The sources with defaults, and what is in their folders."""
    for name, choices in CHOICES.items():
        given = sources.setdefault(name, choices[0])
        if given not in choices:
            errors.append(f"sources.{name}: {given!r} is none of {', '.join(choices)}")
    machines = {}
    sources["system"] = sources["packages"] = ""
    sources["runtime"] = []
    by_files = [name for name in CHOICES if sources[name] in ("files", "programs")]
    files = sources.get("files")
    if files is None and by_files:
        errors.append(f"sources.files: is missing, and sources.{by_files[0]} is {sources[by_files[0]]}: the folder `hosts` of a bundle")
    if files is None and "agent" not in sources:
        errors.append("sources.agent: is missing: the file of BYOH's agent; or give sources.files, whose bin/byoh-hostagent it then is")
    if files is not None:
        files = sources["files"] = absolute(files, folder)
        if not os.path.isdir(files):
            errors.append(f"sources.files: {files} is no folder")
            return
        if sources["kubernetes"] == "files":
            for program in PROGRAMS:
                check_program(os.path.join(files, "bin", program), "sources.files", machines, errors)
        if sources["containerd"] == "programs":
            before = len(errors)
            for program in RUNTIME:
                check_program(os.path.join(files, "runtime", program), "sources.files", machines, errors)
            if not os.path.isfile(os.path.join(files, "runtime/versions")):
                errors.append(f"sources.files: {os.path.join(files, 'runtime/versions')} is missing")
            if len(errors) == before:
                sources["runtime"] = sums(os.path.join(files, "runtime"))
        packages = os.path.join(files, "packages")
        has_packages = os.path.isdir(packages) and any(name.endswith(".deb") for name in os.listdir(packages))
        if "files" in (sources[name] for name in CHOICES) and sources["containerd"] != "programs" and not has_packages:
            errors.append(f"sources.files: no packages (*.deb) are in {packages}")
        if by_files and has_packages:
            sources["packages"], sources["system"] = packages, system_of(packages)
        if "images" not in sources and os.path.isdir(os.path.join(files, "images")):
            sources["images"] = os.path.join(files, "images")
    if files is not None or "agent" in sources:
        field = "sources.agent" if "agent" in sources else "sources.files"
        sources["agent"] = absolute(sources.get("agent") or os.path.join(files, "bin/byoh-hostagent"), folder)
        check_program(sources["agent"], field, machines, errors)
    if len(set(machines.values())) > 1:
        errors.append("sources: programs for different processors: " + ", ".join(f"{p} ({m})" for p, m in machines.items()))
    sources["machine"] = next(iter(machines.values()), "")
    sources["archives"] = []
    if "images" in sources:
        sources["images"] = absolute(sources["images"], folder)
        try:
            archives = sorted(name for name in os.listdir(sources["images"]) if name.endswith(".tar"))
        except OSError as error:
            errors.append(f"sources.images: {sources['images']}: {error.strerror}")
            return
        for name in archives:
            path = os.path.join(sources["images"], name)
            try:
                sources["archives"].append({"file": path, "names": image_names(path)})
            except (OSError, KeyError, ValueError, AttributeError, tarfile.TarError):
                errors.append(f"sources.images: {path} is no docker archive")


def check_proxy(value, errors):
    """The proxies, with defaults, and what is reached without them; nothing if there are none."""
    if value is None:
        return {}
    proxy = fields(value, PROXIES, "proxy.", errors)
    for name in ("http", "https"):
        if "@" in proxy.get(name, ""):
            errors.append(
                f"proxy.{name}: names a user, and everybody could read the password: on the hosts in process lists and in systemd's"
                " settings, on clusters in the control plane's Pods. Have the proxy let the hosts in by their addresses"
            )
        elif name in proxy and not PROXY.fullmatch(proxy[name]):
            errors.append(f"proxy.{name}: {proxy[name]!r} is not http://HOST:PORT")
    direct = proxy.get("noProxy", [])
    for index, given in enumerate(direct):
        if not isinstance(given, str):
            errors.append(f"proxy.noProxy[{index}]: must be a string, not {kind_of(given)}")
        elif not NO_PROXY.fullmatch(given):
            errors.append(f"proxy.noProxy[{index}]: {given!r} is no name, .DOMAIN, address or network")
    if "http" in proxy:
        proxy.setdefault("https", proxy["http"])
    proxy["noProxy"] = [*LOCAL, *direct]
    return proxy


def check(text, folder, look_at_sources=True):
    """Settings, hosts and errors of an input file with this content, in this folder."""
    errors = []
    try:
        value = json.loads(text, object_pairs_hook=no_duplicates)
    except json.JSONDecodeError as error:
        return {}, [], [f"line {error.lineno}, column {error.colno}: no valid JSON: {error.msg}"]
    except Twice as error:
        return {}, [], [str(error)]
    if not isinstance(value, dict):
        return {}, [], [f"must be an object, not {kind_of(value)}"]
    settings = fields(value, TOP, "", errors)
    given_hosts = settings.pop("hosts", None)
    settings.pop("$schema", None)
    settings.setdefault("namespace", "default")
    if not LABEL.fullmatch(settings["namespace"]):
        errors.append(f"namespace: {settings['namespace']!r} is no DNS label")
    if "k8sVersion" in settings and not VERSION.fullmatch(settings["k8sVersion"]):
        errors.append(f"k8sVersion: {settings['k8sVersion']!r} is no Kubernetes version such as v1.33.1")
    if "kubeconfig" in settings:
        settings["kubeconfig"] = absolute(settings["kubeconfig"], folder)
        if not os.path.isfile(settings["kubeconfig"]):
            errors.append(f"kubeconfig: {settings['kubeconfig']} is no file: the kubeconfig of the management cluster is wanted")
    if "apiServer" in settings:
        match = API_SERVER.fullmatch(settings["apiServer"])
        if not match or not 1 <= int(match[2]) <= 65535:
            errors.append(f"apiServer: {settings['apiServer']!r} is not https://HOST:PORT, as the hosts reach the management cluster")
        settings["apiServer"] = settings["apiServer"].rstrip("/")
    sources = settings.get("sources", {} if "sources" not in value else None)
    if sources is not None:
        settings["sources"] = fields(sources, SOURCES, "sources.", errors)
    if sources is not None and look_at_sources:
        check_sources(settings["sources"], folder, errors)
    if given_hosts == []:
        errors.append("hosts: is empty; at least one host is wanted")
    hosts = [check_host(index, host, errors) for index, host in enumerate(given_hosts or [])]
    check_duplicates(hosts, errors)
    for host in hosts:
        if host and "keyFile" in host:
            host["keyFile"] = absolute(host["keyFile"], folder)
            if not os.path.isfile(host["keyFile"]):
                errors.append(f"{host['where']}keyFile: {host['keyFile']} is no file")
    settings["addresses"] = [host["address"] for host in hosts if host and "address" in host]
    settings["proxy"] = check_proxy(settings.get("proxy"), errors)
    return settings, hosts, errors


def main():
    """The module's entry."""
    from ansible.module_utils.basic import AnsibleModule

    arguments = {"path": {"type": "path", "required": True}, "only": {"type": "str", "default": ""}}
    arguments["sources"] = {"type": "bool", "default": True}
    module = AnsibleModule(argument_spec=arguments, supports_check_mode=True)
    path = module.params["path"]
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "is no UTF-8 text"
        module.fail_json(msg=f"{path}: {why}; the input file is input.json in this folder, or the one that -e input=FILE names")
    settings, hosts, errors = check(text, os.path.dirname(os.path.abspath(path)), module.params["sources"])
    only = [name.strip() for name in module.params["only"].split(",") if name.strip()]
    if module.params["only"] and not only:
        errors.append("-e hosts: names no host")
    if not errors:
        names = [host["name"] for host in hosts]
        errors = [f"-e hosts: {name} is no host of this file, which has to have it also to take it away; there are {', '.join(names)}" for name in only if name not in names]
    if errors:
        count = "1 mistake" if len(errors) == 1 else f"{len(errors)} mistakes"
        module.fail_json(msg="\n".join([f"{path}: {count}; nothing was touched", *(f"  {line}" for line in errors)]))
    module.exit_json(changed=False, settings=settings, hosts=[h for h in hosts if not only or h["name"] in only])


if __name__ == "__main__":
    main()
