//! The container runtime as static programs, for hosts of any distribution: containerd, runc, crictl, and the CNI
//! project's programs.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::layer_files::link_or_copy;
use crate::build::{Cache, Module, Recipe, module};
use crate::progress::Progress;
use crate::versions;

static CONTAINERD: Module = module!("runtime/containerd");
static RUNC: Module = module!("runtime/runc");
static CRICTL: Module = module!("runtime/crictl");
static CNI_PLUGINS: Module = module!("runtime/cni-plugins");

macro_rules! containerd {
    ($name:literal, $seconds:literal) => {
        Recipe {
            stamps: "-X github.com/containerd/containerd/v2/version.Version=VERSION",
            ..Recipe::new(
                $name,
                versions::CONTAINERD,
                &CONTAINERD,
                concat!("github.com/containerd/containerd/v2/cmd/", $name),
                $seconds,
            )
        }
    };
}

/// Programs that are installed in PATH.
const PROGRAMS: [Recipe; 5] = [
    containerd!("containerd", 90),
    containerd!("containerd-shim-runc-v2", 10),
    containerd!("ctr", 10),
    Recipe {
        tags: "seccomp,netgo,osusergo",
        has_c: true,
        ..Recipe::new("runc", versions::RUNC, &RUNC, "github.com/opencontainers/runc", 60)
    },
    Recipe {
        stamps: "-X sigs.k8s.io/cri-tools/pkg/version.Version=VERSION",
        ..Recipe::new("crictl", versions::CRICTL, &CRICTL, "sigs.k8s.io/cri-tools/cmd/crictl", 60)
    },
];

macro_rules! plugin {
    ($kind:literal, $name:literal) => {
        Recipe {
            stamps: "-X github.com/containernetworking/plugins/pkg/utils/buildversion.BuildVersion=VERSION",
            ..Recipe::new(
                $name,
                versions::CNI_PLUGINS,
                &CNI_PLUGINS,
                concat!("github.com/containernetworking/plugins/plugins/", $kind, "/", $name),
                4,
            )
        }
    };
}

/// The programs that containerd and pod networks call: all that the project releases for Linux.
const PLUGINS: [Recipe; 18] = [
    plugin!("ipam", "dhcp"),
    plugin!("ipam", "host-local"),
    plugin!("ipam", "static"),
    plugin!("main", "bridge"),
    plugin!("main", "dummy"),
    plugin!("main", "host-device"),
    plugin!("main", "ipvlan"),
    plugin!("main", "loopback"),
    plugin!("main", "macvlan"),
    plugin!("main", "ptp"),
    plugin!("main", "tap"),
    plugin!("main", "vlan"),
    plugin!("meta", "bandwidth"),
    plugin!("meta", "firewall"),
    plugin!("meta", "portmap"),
    plugin!("meta", "sbr"),
    plugin!("meta", "tuning"),
    plugin!("meta", "vrf"),
];

/// All of them.
pub(crate) fn recipes() -> impl Iterator<Item = Recipe> {
    PROGRAMS.into_iter().chain(PLUGINS)
}

/// The name of the file with the versions of the programs.
const VERSIONS: &str = "versions";

/// Returns a folder with the programs, for `runtime` beside the other files of hosts: `bin`, `cni`, and a file with their
/// `versions`. What is not in the cache yet is built, which needs a network, and for runc gcc.
///
/// # Errors
/// When one cannot be built.
pub async fn runtime(progress: impl Fn(&str) + Send + Sync + 'static) -> Result<PathBuf> {
    let cache = Cache::new(Progress::new(progress))?;
    cache.programs(&recipes().collect::<Vec<_>>()).await?;
    let mut programs = Vec::new();
    for (folder, recipes) in [("bin", &PROGRAMS[..]), ("cni", &PLUGINS)] {
        for recipe in recipes {
            programs.push((folder, recipe.name, cache.program(recipe).await?));
        }
    }
    let [containerd, _, _, runc, crictl] = PROGRAMS.map(|recipe| format!("{} {}\n", recipe.name, recipe.version));
    let versions = [containerd, runc, crictl, format!("cni {}\n", versions::CNI_PLUGINS)].concat();
    let key: Vec<_> = programs.iter().map(|(.., built)| built.folder().display().to_string()).collect();
    let parts: Vec<_> = key.iter().map(String::as_str).chain([versions.as_str()]).collect();
    cache
        .folder("host-runtime", &parts, 5, async |folder| {
            for (kind, name, built) in &programs {
                let to = folder.join(kind);
                fs::create_dir_all(&to).with_context(|| format!("cannot make {}", to.display()))?;
                link_or_copy(&built.program, &to.join(name))?;
            }
            fs::write(folder.join(VERSIONS), &versions).context("cannot write the versions of the programs")
        })
        .await
}
