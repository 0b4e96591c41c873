"""What is said of input files, and that the schema agrees with it."""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import tempfile
import unittest
from pathlib import Path

import jsonschema

TOP = Path(__file__).resolve().parent.parent
spec = importlib.util.spec_from_file_location("o2ims_input", TOP / "plugins/modules/o2ims_input.py")
o2ims_input = importlib.util.module_from_spec(spec)
spec.loader.exec_module(o2ims_input)

HOST = {"name": "a", "address": "192.0.2.1", "user": "root", "hostId": 1}
GOOD = {"kubeconfig": "k", "k8sVersion": "v1.33.1", "sources": {"agent": "agent"}, "hosts": [HOST]}
REMOVE = object()

# Where, what stands there, what is said, and whether a schema can see it.
TABLE = [
    (("hosts", 0, "name"), "UPPER", "hosts[0] (UPPER): name: 'UPPER' is no DNS label", True),
    (("hosts", 0, "name"), "a.b", "is no DNS label", True),
    (("hosts", 0, "name"), "a" * 64, "is no DNS label", True),
    (("hosts", 0, "name"), REMOVE, "hosts[0]: name: is missing", True),
    (("hosts", 0, "name"), 7, "hosts[0]: name: must be a string, not a number", True),
    (("hosts", 0, "address"), "1.2.3", "is neither an IP address nor a DNS name", False),
    (("hosts", 0, "address"), "fe80::zz", "is neither an IP address nor a DNS name", False),
    (("hosts", 0, "address"), "-x.example.com", "is neither an IP address nor a DNS name", False),
    (("hosts", 0, "user"), "", "hosts[0] (a): user: is empty", True),
    (("hosts", 0, "hostId"), 2**31, "is out of range", True),
    (("hosts", 0, "hostId"), "-1", "is no label value", True),
    (("hosts", 0, "hostId"), [], "must be a number or a string, not a list", True),
    (("hosts", 0, "port"), 65536, "is no port", True),
    (("hosts", 0, "port"), True, "must be a number, not true", True),
    (("hosts", 0, "labels"), ["x"], "labels: must be an object, not a list", True),
    (("hosts", 0, "labels"), {"a/b/c": "x"}, "is no label key", False),
    (("hosts", 0, "labels"), {"x": "y" * 64}, "is no label value", False),
    (("hosts", 0, "labels"), {"x": None}, "must be a string, not null", True),
    (("hosts", 0, "labels"), {"o2ims.provisioning.oran.org/role": "master"}, "belongs to the operators", False),
    (("hosts", 0, "labels"), {"byoh.infrastructure.cluster.x-k8s.io/x": "y"}, "belongs to the operators", False),
    (("hosts", 0, "ports"), 22, "unknown field; did you mean port?", True),
    (("hosts",), REMOVE, "hosts: is missing", True),
    (("hosts",), [HOST, {**HOST, "hostId": 2, "address": "192.0.2.2"}], "name: a is also another host's", False),
    (("hosts",), [HOST, {**HOST, "name": "b", "hostId": 2}], "address: 192.0.2.1 is also a's", False),
    (("hosts",), [HOST, {**HOST, "name": "b", "address": "192.0.2.2"}], "hosts[1] (b): hostId: 1 is also a's", False),
    (("k8sVersion",), "v1.33", "is no Kubernetes version", True),
    (("k8sVersion",), "v1.033.1", "is no Kubernetes version", True),
    (("apiServer",), "https://10.0.0.1", "is not https://HOST:PORT", True),
    (("apiServer",), "https://10.0.0.1:99999", "is not https://HOST:PORT", False),
    (("sources",), [], "sources: must be an object, not a list", True),
    (("sources", "kubernetes"), "package", "is none of repository, files, present", True),
    (("sources", "containerd"), "program", "is none of packages, files, programs, present", True),
    (("sources", "containerd"), "programs", "sources.files: is missing, and sources.containerd is programs", False),
    (("sources",), {"containerd": "programs", "files": "hosts"}, "hosts/runtime/bin/crictl: No such file or directory", False),
    (("sources",), {"containerd": "files", "files": "hosts"}, "sources.files: no packages (*.deb) are in ", False),
    (("sources", "agent"), REMOVE, "sources.agent: is missing", False),
    (("sources", "agent"), "text", "text is no program for Linux", False),
    (("sources", "images"), "images", "broken.tar is no docker archive", False),
    (("proxy",), "http://proxy:3128", "proxy: must be an object, not a string", True),
    (("proxy",), {"https": "http://proxy:3128"}, "proxy.http: is missing", True),
    (("proxy",), {"http": "proxy:3128"}, "proxy.http: 'proxy:3128' is not http://HOST:PORT", True),
    (("proxy",), {"http": "http://proxy:3128", "https": 'http://"'}, "proxy.https: ", True),
    (("proxy",), {"http": "http://user:p%40ss@proxy:3128"}, "proxy.http: names a user, and everybody could read the password", True),
    (("proxy",), {"http": "http://proxy:3128", "noProxy": "a,b"}, "proxy.noProxy: must be a list, not a string", True),
    (("proxy",), {"http": "http://proxy:3128", "noProxy": ["a", 7]}, "proxy.noProxy[1]: must be a string, not a number", True),
    (("proxy",), {"http": "http://proxy:3128", "noProxy": ["a,b"]}, "proxy.noProxy[0]: 'a,b' is no name, .DOMAIN, address or network", True),
    (("proxy",), {"http": "http://proxy:3128", "noproxy": []}, "proxy.noproxy: unknown field; did you mean noProxy?", True),
]
FINE = [
    ((("hosts", 0, "address"), "2001:db8::1"),),
    ((("hosts", 0, "address"), "server-1.example.com"),),
    ((("hosts", 0, "hostId"), "rack-7"),),
    ((("hosts", 0, "labels"), {"example.com/rack": "a", "empty": ""}),),
    ((("apiServer",), "https://[2001:db8::1]:6443"),),
    ((("sources",), {"containerd": "programs", "kubernetes": "files", "files": "whole"}),),
    ((("hosts",), [HOST, {**HOST, "name": "b", "hostId": 2, "port": 2222}]),),
    ((("namespace",), "hosts"),),
    ((("proxy",), {"http": "http://proxy.example.com:3128/", "https": "http://[2001:db8::9]:3128", "noProxy": []}),),
]


def changed(where, value):
    """The good input with one change."""
    result = copy.deepcopy(GOOD)
    place = result
    for part in where[:-1]:
        place = place[part]
    if value is REMOVE:
        del place[where[-1]]
    else:
        place[where[-1]] = value
    return result


class Input(unittest.TestCase):
    """Files as people write them."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        root = Path(folder.name)
        (root / "k").write_text("")
        (root / "text").write_text("no program, but long enough to be one")
        (root / "agent").write_bytes(b"\x7fELF" + bytes(14) + b"\x3e\x00" + bytes(40))
        # Of programs that are there one is missing in the first folder.
        for folder, missing in (("hosts", "bin/crictl"), ("whole", "")):
            names = [f"bin/{name}" for name in (*o2ims_input.PROGRAMS, "byoh-hostagent")]
            names += [f"runtime/{name}" for name in o2ims_input.RUNTIME if name != missing]
            for name in names:
                path = root / folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes((root / "agent").read_bytes())
            (root / folder / "runtime/versions").write_text("containerd v2.0.0\n")
        (root / "images").mkdir()
        (root / "images/broken.tar").write_text("x")
        self.schema = jsonschema.Draft202012Validator(json.loads((TOP / "input.schema.json").read_text()))

    def errors(self, value):
        """What is said of it."""
        return o2ims_input.check(json.dumps(value), self.folder)[2]

    def test_wrong(self):
        """One mistake, one line."""
        for where, value, said, in_schema in TABLE:
            with self.subTest(where=where, value=value):
                wrong = changed(where, value)
                errors = self.errors(wrong)
                self.assertTrue(any(said in error for error in errors), errors)
                self.assertEqual(len(errors), 1, errors)
                self.assertNotIn("p%40ss", errors[0])
                self.assertEqual(not self.schema.is_valid(wrong), in_schema)

    def test_fine(self):
        """What must not be refused."""
        self.assertEqual(self.errors(GOOD), [])
        for ((where, value),) in FINE:
            with self.subTest(where=where, value=value):
                self.assertEqual(self.errors(changed(where, value)), [])
                self.assertTrue(self.schema.is_valid(changed(where, value)))

    def test_example(self):
        """Of the example only files are missing."""
        example = json.loads((TOP / "input.example.json").read_text())
        self.schema.validate(example)
        for error in self.errors(example):
            self.assertRegex(error, "^kubeconfig: .* is no file|^sources.files: .* is no folder|keyFile: .* is no file")

    def test_paths(self):
        """They are meant from the file's folder."""
        settings = o2ims_input.check(json.dumps(GOOD), self.folder)[0]
        self.assertEqual(settings["kubeconfig"], os.path.join(self.folder, "k"))
        self.assertEqual(settings["sources"]["machine"], "x86_64")

    def test_packages(self):
        """Whose distribution is known, and which are not there."""
        value = changed(("sources",), {"containerd": "programs", "kubernetes": "files", "files": "whole"})
        sources = o2ims_input.check(json.dumps(value), self.folder)[0]["sources"]
        self.assertEqual((sources["packages"], sources["system"]), ("", ""))
        self.assertEqual(len(sources["runtime"]), len(o2ims_input.RUNTIME) + 1)
        self.assertRegex(sources["runtime"][0], "^[0-9a-f]{64}  bin/containerd$")
        packages = Path(self.folder) / "whole/packages"
        packages.mkdir()
        (packages / "x_1_all.deb").write_text("")
        (packages / "os-release").write_text('ID=debian\nVERSION_ID="12"\n')
        sources = o2ims_input.check(json.dumps(value), self.folder)[0]["sources"]
        self.assertEqual((sources["packages"], sources["system"]), (str(packages), "debian 12"))

    def test_proxy(self):
        """One for both, and what is reached without."""
        settings = o2ims_input.check(json.dumps(GOOD), self.folder)[0]
        self.assertEqual(settings["proxy"], {})
        value = {**GOOD, "proxy": {"http": "http://proxy:3128", "noProxy": [".example.com"]}}
        proxy = o2ims_input.check(json.dumps(value), self.folder)[0]["proxy"]
        self.assertEqual(proxy["https"], "http://proxy:3128")
        self.assertEqual(proxy["noProxy"], ["localhost", "127.0.0.1", "::1", ".svc", ".cluster.local", ".example.com"])


if __name__ == "__main__":
    unittest.main()
