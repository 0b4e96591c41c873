//! The versions of other projects stand in one list, `testenv::versions`. Everything else that names one is compared with
//! it here; `UPDATE_VERSIONS=1` writes the list's versions there. `go.mod` files are compared, and changed by `go get`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in a test they are the message")]

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::process::Command;

use acceptance::top;
use testenv::versions::{self, minor};

/// Files that name a version of the list, and the words around it. The name in braces is one of [`named`].
const PLACES: &[(&str, &[&str])] = &[
    (
        "README.md",
        &[
            "k8sVersion: v{kubernetes}\n",
            "another Kubernetes than {kubernetes}:",
            "an older Cluster API than {cluster-api}.",
            "any Kubernetes from {oldest kubernetes, minor} on",
            "Go {go} or newer",
        ],
    ),
    ("ansible/input.example.json", &["\"k8sVersion\": \"v{kubernetes}\""]),
    (
        "crates/bundle/README.md",
        &[
            "| cert-manager v{cert-manager} |",
            "| Cluster API v{cluster-api}, or",
            "; BYOH v{byoh} |",
            "`hosts/runtime` Go {go with runtime}.",
        ],
    ),
    ("crates/cluster-api/src/kinds.rs", &["\"{oldest cluster-api, minor} to ", " to {cluster-api, minor}\""]),
    ("crates/o2ims-types/src/o2ims/v1alpha1/cluster_template.rs", &["kube-vip/kube-vip:v{kube-vip}\""]),
    ("crates/testing/acceptance/tests/management/main.rs", &["Cluster API from v{oldest cluster-api, minor}.0 "]),
    ("crates/testing/sandbox/manifests/server-hosts.yaml", &["k8sVersion: v{kubernetes}\n"]),
    ("crates/testing/sandbox/manifests/simulated-hosts.yaml", &["k8sVersion: v{kubernetes}\n"]),
    (
        "crates/testing/testenv/README.md",
        &[
            "needs Go {go} or newer",
            "--other-hosts`), takes Go {go with runtime}; runc",
            ": etcd {etcd}, kube-apiserver",
            "kube-controller-manager {kubernetes}, Cluster API",
            "Cluster API {cluster-api} (core",
            "BYOH v{byoh}, with",
            "`1.37` ({kubernetes 1.37})",
            "`1.35` ({kubernetes 1.35})",
            "`1.34` ({kubernetes 1.34})",
            "`1.33` ({kubernetes 1.33})",
            "`1.13` ({cluster-api 1.13})",
            "`1.12` ({cluster-api 1.12})",
        ],
    ),
    ("crates/testing/testenv/modules/collector/main.go", &["Version: \"{collector}\""]),
    ("docs/backup.md", &["({cluster-api, minor}, if `./mgmt.sh up`"]),
    (
        "docs/dependencies.md",
        &[
            "| k8s.io/kubernetes | v{kubernetes} |",
            "`1.37` (v{kubernetes 1.37})",
            "`1.35` (v{kubernetes 1.35})",
            "`1.34` (v{kubernetes 1.34})",
            "`1.33` (v{kubernetes 1.33})",
            "| go.etcd.io/etcd/server/v3 | v{etcd} |",
            "v{etcd 3.7} for Kubernetes ",
            "and v{etcd 3.5} for ",
            "| sigs.k8s.io/cluster-api, and its api module | v{cluster-api} |",
            "`O2IMS_CLUSTER_API` v{cluster-api 1.13} or",
            " or v{cluster-api 1.12} |",
            "| github.com/vmware-tanzu/cluster-api-provider-bringyourownhost | v{byoh} |",
            "| github.com/coredns/coredns | v{coredns} |",
            "| github.com/kube-vip/kube-vip | v{kube-vip} |",
            "| github.com/containerd/containerd/v2 | v{containerd} |",
            "| github.com/opencontainers/runc | v{runc} |",
            "| sigs.k8s.io/cri-tools | v{crictl} |",
            "| github.com/containernetworking/plugins | v{cni-plugins} |",
            "| github.com/cert-manager/cert-manager | v{cert-manager} |",
            "| helm.sh/helm/v4 | v{helm} |",
            "({prometheus}) | promtool",
            "debugexporter | v{collector} |",
            "| github.com/yannh/kubeconform | v{kubeconform} |",
            "| github.com/yuin/gopher-lua | v{lua} |",
            "source-controller | v{flux} |",
            "| github.com/argoproj/argo-cd/v3 | v{argo-cd} |",
            "| github.com/fluxcd/cli-utils | v{kstatus} |",
            "| golang.org/x/vuln | v{govulncheck} |",
        ],
    ),
    (
        "docs/deployment.md",
        &["Kubernetes {oldest kubernetes, minor} or newer, Cluster API", "take {cluster-api} or newer"],
    ),
    ("docs/gitops.md", &["\n{flux} take the examples", "Argo CD ({argo-cd})"]),
    ("docs/o2ims-operator.md", &["kube-vip/kube-vip:v{kube-vip}`"]),
    (
        "docs/servers.md",
        &[
            "Rust, Go {go with runtime}, gcc",
            "any Kubernetes from {oldest kubernetes, minor} on",
            "cert-manager: not installed, the bundle has v{cert-manager}\n",
            "cert-manager by mgmt.sh v{cert-manager} ",
            "cluster-api by mgmt.sh v{cluster-api} ",
            "byoh by mgmt.sh v{byoh} ",
            "\"k8sVersion\": \"v{kubernetes}\"",
            " core v{kubernetes} fulfilled",
            " ... v{kubernetes}\n",
        ],
    ),
    ("docs/tutorial.md", &[" ... v{kubernetes}\n", "Go {go} or newer"]),
    ("examples/cluster-template.yaml", &["k8sVersion: v{kubernetes}\n"]),
    ("examples/focom-provisioning-request.yaml", &["k8sVersion: v{kubernetes}\n"]),
    ("examples/o2ims-provisioning-request.yaml", &["k8sVersion: v{kubernetes}\n"]),
    ("examples/three-masters.yaml", &["k8sVersion: v{kubernetes}\n"]),
    (
        "mgmt.sh",
        &[
            "take this Cluster API instead of {cluster-api, minor}\n",
            "take this Kubernetes instead of {kubernetes, minor}\n",
            "O2IMS_CLUSTER_API={cluster-api 1.13, minor}|",
            "O2IMS_KUBERNETES={kubernetes 1.37, minor}|",
            "O2IMS_CLUSTER_API={cluster-api 1.13, minor} tied",
        ],
    ),
    (
        "scripts/management-cluster",
        &["OLDEST_KUBERNETES=v{oldest kubernetes}\n", "CLUSTER_API_FROM=v{oldest cluster-api, minor}.0 "],
    ),
];

/// Files in which a version of the list may stand, by the beginning or the end of their path, and why.
const EXEMPT: &[(&str, &str)] = &[
    ("crates/testing/testenv/src/versions.rs", "the list"),
    ("go.mod", "go changes it; another test compares it with the list"),
    ("go.sum", "go writes it"),
    ("Cargo.lock", "cargo writes it"),
    ("deploy/known-holes.yaml", "what closes holes, and reasons of the day on which it was written"),
    ("crds/", "made from the types, which are compared"),
    ("docs/reference.md", "made from the types, which are compared"),
    ("crates/o2ims-operator/tests/pure/golden/", "made by a test from the types, which are compared"),
    ("crates/o2ims-operator/tests/e2e/requests/", "versions that users may write, whatever is built"),
];

/// The version of whatever is an example, in tests and comments: where it stands, nothing of the list is meant.
const EXAMPLE: &str = "1.2.3";

/// The list: name and version, without `v`, of each project.
fn listed() -> Vec<(String, &'static str)> {
    let mut list = [
        ("kubernetes", versions::KUBERNETES),
        ("oldest kubernetes", versions::OLDEST_KUBERNETES),
        ("etcd", versions::ETCD),
        ("coredns", versions::COREDNS),
        ("kube-vip", versions::KUBE_VIP),
        ("containerd", versions::CONTAINERD),
        ("runc", versions::RUNC),
        ("crictl", versions::CRICTL),
        ("cni-plugins", versions::CNI_PLUGINS),
        ("cluster-api", versions::CLUSTER_API),
        ("byoh", versions::BYOH),
        ("cert-manager", versions::CERT_MANAGER),
        ("helm", versions::HELM),
        ("flux", versions::FLUX),
        ("kstatus", versions::KSTATUS),
        ("argo-cd", versions::ARGO_CD),
        ("prometheus", versions::PROMETHEUS),
        ("collector", versions::COLLECTOR),
        ("kubeconform", versions::KUBECONFORM),
        ("lua", versions::LUA),
        ("go", versions::GO),
        ("go with runtime", versions::GO_WITH_RUNTIME),
        ("govulncheck", versions::GOVULNCHECK),
    ]
    .map(|(name, version)| (name.to_owned(), version))
    .to_vec();
    list.extend(versions::CLUSTER_API_BEFORE.map(|version| (format!("cluster-api {}", minor(version)), version)));
    list.extend(versions::ETCD_OTHERS.map(|version| (format!("etcd {}", minor(version)), version)));
    list.extend(versions::KUBERNETES_OTHERS.map(|version| (format!("kubernetes {}", minor(version)), version)));
    list.into_iter().map(|(name, version)| (name, version.trim_start_matches('v'))).collect()
}

/// What [`PLACES`] names: the versions of the list, and their minor versions.
fn named() -> Vec<(String, &'static str)> {
    let [_, oldest] = versions::CLUSTER_API_BEFORE;
    let mut named = listed();
    named.extend(listed().into_iter().map(|(name, version)| (format!("{name}, minor"), minor(version))));
    named.push(("oldest cluster-api, minor".to_owned(), minor(oldest)));
    named
}

/// Where a text has the words of a place: all of them, and the version in them.
struct Found {
    words: Range<usize>,
    version: Range<usize>,
}

/// Finds the words of a place, with any version of the same form as `version`.
fn find(text: &str, before: &str, version: &str, after: &str) -> Vec<Found> {
    let mut found = Vec::new();
    for (start, _) in text.match_indices(before) {
        let begin = start + before.len();
        let end = begin + length_like(&text[begin..], version);
        if end > begin && text[end..].starts_with(after) {
            found.push(Found { words: start..end + after.len(), version: begin..end });
        }
    }
    found
}

/// The length of the version that a text begins with, if it has as many numbers as `version`; else 0. A suffix counts
/// if `version` has one.
fn length_like(text: &str, version: &str) -> usize {
    let (numbers, suffix) = version.split_once('-').map_or((version, false), |(numbers, _)| (numbers, true));
    let mut length = 0;
    for position in 0..numbers.split('.').count() {
        if position > 0 {
            if !text[length..].starts_with('.') {
                return 0;
            }
            length += 1;
        }
        let digits = text[length..].bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return 0;
        }
        length += digits;
    }
    if suffix && text[length..].starts_with('-') {
        length +=
            text[length..].bytes().take_while(|byte| byte.is_ascii_alphanumeric() || b".-".contains(byte)).count();
    }
    length
}

/// Where a text has exactly this version.
fn mentions(text: &str, version: &str) -> Vec<Range<usize>> {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    text.match_indices(version)
        .map(|(start, _)| start..start + version.len())
        .filter(|at| at.start == 0 || !(digit(at.start - 1) || bytes[at.start - 1] == b'.'))
        .filter(|at| !(digit(at.end) || bytes.get(at.end) == Some(&b'.') && digit(at.end + 1)))
        .collect()
}

fn line(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// The paths of the files that belong to the repository.
fn tracked() -> Vec<String> {
    let output = Command::new("git").args(["ls-files", "-z"]).current_dir(top()).output().expect("git is needed");
    assert!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().split_terminator('\0').map(ToOwned::to_owned).collect()
}

#[test]
fn every_version_is_the_lists() {
    let (named, update) = (named(), std::env::var_os("UPDATE_VERSIONS").is_some());
    let (mut wrong, mut exempt) = (Vec::new(), BTreeSet::new());
    for path in tracked() {
        // A link to a folder, a removed file and a file that is no text have no versions.
        let Ok(mut text) = fs::read_to_string(top().join(&path)) else { continue };
        let places = PLACES.iter().filter(|(file, _)| *file == path).flat_map(|(_, places)| *places);
        let places: Vec<_> = places.map(|place| parts(place, &named)).collect();
        for (before, version, after) in &places {
            let found = find(&text, before, version, after);
            if found.is_empty() {
                wrong.push(format!("{path}: nothing is like \"{before}{version}{after}\""));
            }
            // The last one first, so that the others stay where they are.
            for at in found.into_iter().rev().map(|found| found.version) {
                let has = &text[at.clone()];
                if has != *version && update {
                    text.replace_range(at, version);
                    fs::write(top().join(&path), &text).unwrap();
                } else if has != *version {
                    wrong.push(format!("{path}:{}: {has} has to be {version}", line(&text, at.start)));
                }
            }
        }
        let found = places.iter().flat_map(|(before, version, after)| find(&text, before, version, after));
        let known: Vec<_> = found.map(|found| found.words).collect();
        for (name, version) in listed().into_iter().filter(|(_, version)| *version != EXAMPLE) {
            for at in mentions(&text, version.trim_start_matches('v')) {
                if known.iter().any(|words| words.start < at.end && at.start < words.end) {
                    continue;
                }
                match EXEMPT.iter().find(|(part, _)| path.starts_with(part) || path.ends_with(part)) {
                    Some((part, _)) => drop(exempt.insert(*part)),
                    None => wrong.push(format!("{path}:{}: {name} {version}", line(&text, at.start))),
                }
            }
        }
    }
    for (path, _) in PLACES.iter().filter(|(path, _)| !top().join(path).is_file()) {
        wrong.push(format!("{path} is not there any more"));
    }
    for (part, _) in EXEMPT.iter().filter(|(part, _)| !exempt.contains(part)) {
        wrong.push(format!("{part} names no version: it need not be exempt"));
    }
    assert!(
        wrong.is_empty(),
        "crates/testing/testenv/src/versions.rs has the versions. Elsewhere take them from there, leave them out, or add the \
         place to PLACES of this test. UPDATE_VERSIONS=1 corrects the places that are there. Wrong are:\n{}",
        wrong.join("\n")
    );
}

/// The words of a place before the version, the version, and the words after it.
fn parts<'a>(place: &'a str, named: &[(String, &'static str)]) -> (&'a str, &'static str, &'a str) {
    let (before, rest) = place.split_once('{').expect("a place has a name in braces");
    let (name, after) = rest.split_once('}').expect("a place has a name in braces");
    let found = named.iter().find(|(known, _)| known == name);
    (before, found.unwrap_or_else(|| panic!("{place} has no name of the list")).1, after)
}

/// A folder of `modules`, and a Go module that its `go.mod` pins at this version.
fn pins() -> Vec<(&'static str, &'static str, String)> {
    const CLUSTER_API: &str = "sigs.k8s.io/cluster-api";
    const CLUSTER_API_TYPES: &str = "sigs.k8s.io/cluster-api/api";
    let [before, oldest] = versions::CLUSTER_API_BEFORE;
    let mut pins = vec![
        ("byoh", "github.com/vmware-tanzu/cluster-api-provider-bringyourownhost", versions::BYOH),
        ("cert-manager", "github.com/cert-manager/cert-manager", versions::CERT_MANAGER),
        ("platform", CLUSTER_API, versions::CLUSTER_API),
        ("platform", CLUSTER_API_TYPES, versions::CLUSTER_API),
        ("cluster-api-1.13", CLUSTER_API, before),
        ("cluster-api-1.12", CLUSTER_API, oldest),
        ("runtime/cni-plugins", "github.com/containernetworking/plugins", versions::CNI_PLUGINS),
        ("runtime/containerd", "github.com/containerd/containerd/v2", versions::CONTAINERD),
        ("runtime/runc", "github.com/opencontainers/runc", versions::RUNC),
        ("runtime/crictl", "sigs.k8s.io/cri-tools", versions::CRICTL),
        ("collector", "go.opentelemetry.io/collector/otelcol", versions::COLLECTOR),
        ("platform", "github.com/coredns/coredns", versions::COREDNS),
        ("platform", "go.etcd.io/etcd/server/v3", versions::ETCD),
        ("etcd-tools", "go.etcd.io/etcd/etcdctl/v3", versions::ETCD),
        ("etcd-tools", "go.etcd.io/etcd/etcdutl/v3", versions::ETCD),
        ("flux", "github.com/fluxcd/kustomize-controller", versions::FLUX),
        ("flux", "github.com/fluxcd/source-controller", versions::FLUX),
        ("govulncheck", "golang.org/x/vuln", versions::GOVULNCHECK),
        ("helm", "helm.sh/helm/v4", versions::HELM),
        ("kstatus", "github.com/fluxcd/cli-utils", versions::KSTATUS),
        ("kube-vip", "github.com/kube-vip/kube-vip", versions::KUBE_VIP),
        ("kubeconform", "github.com/yannh/kubeconform", versions::KUBECONFORM),
        ("platform", "k8s.io/kubernetes", versions::KUBERNETES),
        ("kubernetes-1.33", "k8s.io/kubernetes", versions::KUBERNETES_OTHERS[3]),
        ("kubernetes-1.34", "k8s.io/kubernetes", versions::KUBERNETES_OTHERS[2]),
        ("kubernetes-1.35", "k8s.io/kubernetes", versions::KUBERNETES_OTHERS[1]),
        ("kubernetes-1.37", "k8s.io/kubernetes", versions::KUBERNETES_OTHERS[0]),
        ("kubernetes-1.37", "go.etcd.io/etcd/server/v3", versions::ETCD_OTHERS[0]),
        ("kubernetes-1.33", "go.etcd.io/etcd/server/v3", versions::ETCD_OTHERS[1]),
        ("lua", "github.com/yuin/gopher-lua", versions::LUA),
    ]
    .into_iter()
    .map(|(folder, module, version)| (folder, module, version.to_owned()))
    .collect::<Vec<_>>();
    // The module of Prometheus 3.5.1 is v0.305.1.
    let numbers: Vec<u32> = versions::PROMETHEUS.trim_start_matches('v').split('.').flat_map(str::parse).collect();
    let [major, minor, patch] = numbers[..] else { panic!("{}", versions::PROMETHEUS) };
    pins.push(("prometheus", "github.com/prometheus/prometheus", format!("v0.{}.{patch}", 100 * major + minor)));
    pins
}

#[test]
fn go_builds_what_the_list_says() {
    let (pins, mut wrong) = (pins(), Vec::new());
    let (testenv, runtime) = ("crates/testing/testenv/modules", "crates/testing/testenv/modules/runtime");
    for (modules, prefix) in [(testenv, ""), (runtime, "runtime/"), ("crates/bundle/modules", "")] {
        for entry in fs::read_dir(top().join(modules)).unwrap() {
            let (folder, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
            let name = format!("{prefix}{}", name.to_str().unwrap());
            let Ok(text) = fs::read_to_string(folder.join("go.mod")) else { continue };
            let mut pinned = pins.iter().filter(|(pinning, ..)| *pinning == name).peekable();
            if pinned.peek().is_none() {
                wrong.push(format!("{}: no version of the list is compared with this module", folder.display()));
            }
            for (_, module, version) in pinned {
                if *module == "k8s.io/kubernetes" {
                    wrong.extend(staging(&text, version));
                }
                if !requires(&text, module, version) {
                    wrong.push(format!("{}/go.mod does not require {module} {version}", folder.display()));
                }
            }
        }
    }
    for (folder, ..) in &pins {
        let is_there = |modules: &str| Path::new(&top()).join(modules).join(folder).is_dir();
        assert!(is_there("crates/testing/testenv/modules") || is_there("crates/bundle/modules"), "no module {folder}");
    }
    assert!(wrong.is_empty(), "crates/testing/testenv/src/versions.rs has the versions:\n{}", wrong.join("\n"));
}

#[test]
fn the_go_is_the_newest_that_a_module_asks_for() {
    let newest = |folders: &[&str]| {
        let modules = folders.iter().flat_map(|folder| fs::read_dir(top().join(folder)).unwrap());
        let texts = modules.filter_map(|entry| fs::read_to_string(entry.unwrap().path().join("go.mod")).ok());
        let asked = texts.filter_map(|text| Some(text.lines().find_map(|line| line.strip_prefix("go "))?.to_owned()));
        let numbers = |version: &String| version.split('.').map(|part| part.parse().unwrap()).collect::<Vec<u32>>();
        asked.max_by_key(numbers).map(|version| format!("v{version}"))
    };
    let modules = ["crates/testing/testenv/modules", "crates/bundle/modules"];
    assert_eq!(newest(&modules).as_deref(), Some(versions::GO));
    assert_eq!(newest(&["crates/testing/testenv/modules/runtime"]).as_deref(), Some(versions::GO_WITH_RUNTIME));
}

fn requires(go_mod: &str, module: &str, version: &str) -> bool {
    go_mod.lines().any(|line| {
        let line = line.trim().trim_start_matches("require ").split("//").next().unwrap_or_default();
        line.split_whitespace().eq([module, version])
    })
}

/// The libraries of Kubernetes that are not of this version of it.
fn staging(go_mod: &str, version: &str) -> Vec<String> {
    let wanted = version.replacen("v1", "v0", 1);
    let replaced = go_mod.lines().filter(|line| line.contains("=> k8s.io/"));
    let wrong = replaced.filter(|line| line.split_whitespace().last() != Some(&wanted));
    wrong.map(|line| format!("the library of Kubernetes has to be {wanted}: {}", line.trim())).collect()
}

#[test]
fn versions_are_found_in_a_text() {
    let at = |version: &str| mentions("v1.2.3, 1.2.30 11.2.3 1.2.3.4 0.1.2.3 1.2.3-rc.1 1.2.3.", version).len();
    assert_eq!((at("1.2.3"), at("1.2.30"), at("9.9.9")), (3, 1, 0));
    let like = |text: &str, version: &str| length_like(text, version);
    assert_eq!([like("1.20.3 x", "1.2.3"), like("1.20", "1.2.3"), like("1.20.3", "1.2")], [6, 0, 4]);
    assert_eq!([like("0.1.20-flux.15 |", "0.1.2-flux.1"), like("x", "1.2"), like("1.2.3-a", "1.2.3")], [14, 0, 5]);
    let found = find("a: v1.2.3\na: v9.9\na: v4.5.6\n", "a: v", "1.2.3", "\n");
    assert_eq!(found.iter().map(|found| found.version.clone()).collect::<Vec<_>>(), [4..9, 22..27]);
}
