//! Recipes of etcd's and Kubernetes' programs.

use anyhow::{Context as _, Result};

use crate::build::{Built, Cache, Module, Recipe, module};
use crate::platform::PLATFORM;
use crate::versions;

/// The variable that names another version of Kubernetes than the default by its minor version, such as `1.35`.
const VARIABLE: &str = "O2IMS_KUBERNETES";
const STAMPS: &str = "-X k8s.io/component-base/version.gitVersion=VERSION \
     -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=MINOR \
     -X k8s.io/client-go/pkg/version.gitVersion=VERSION";

/// The version that is used if the environment names no other.
static DEFAULT: Release = Release::new(versions::KUBERNETES, &PLATFORM);
static MODULE_1_37: Module = module!("kubernetes-1.37");
static MODULE_1_33: Module = module!("kubernetes-1.33");

/// Every version that can be used. Each has a module that pins it: `modules/platform`, and for the others
/// `modules/kubernetes-<minor version>`, where `modules/fetch` looks for it. `CoreDNS` is the same for all.
static RELEASES: [&Release; 5] = [
    &DEFAULT,
    &Release::new(versions::KUBERNETES_OTHERS[0], &MODULE_1_37).with_etcd(versions::ETCD_OTHERS[0], &MODULE_1_37),
    &Release::new(versions::KUBERNETES_OTHERS[1], &module!("kubernetes-1.35")),
    &Release::new(versions::KUBERNETES_OTHERS[2], &module!("kubernetes-1.34")),
    &Release::new(versions::KUBERNETES_OTHERS[3], &MODULE_1_33).with_etcd(versions::ETCD_OTHERS[1], &MODULE_1_33),
];

/// A version of Kubernetes, and the etcd of the minor version that its kubeadm asks for.
struct Release {
    version: &'static str,
    module: &'static Module,
    etcd: Recipe,
}

impl Release {
    /// With the default etcd.
    const fn new(version: &'static str, module: &'static Module) -> Self {
        Self { version, module, etcd: etcd_recipe(versions::ETCD, &PLATFORM) }
    }

    const fn with_etcd(self, version: &'static str, module: &'static Module) -> Self {
        Self { etcd: etcd_recipe(version, module), ..self }
    }

    /// The version that the environment names, or else the default.
    fn from_environment() -> Result<&'static Self> {
        versions::from_environment(VARIABLE, "Kubernetes", &RELEASES, |release| release.version)
    }

    /// The version of the minor version before the one that the environment names.
    fn before() -> Result<&'static Self> {
        let used = Self::from_environment()?;
        let minor = |release: &Self| versions::minor(release.version).rsplit('.').next()?.parse::<u32>().ok();
        let before = RELEASES.iter().find(|release| minor(release).map(|minor| minor + 1) == minor(used));
        before.copied().with_context(|| format!("there is no Kubernetes of the minor version before {}", used.version))
    }
}

/// Version of Kubernetes, on management clusters and on hosts: the one that the environment names by its minor version
/// (`O2IMS_KUBERNETES`), or else [`versions::KUBERNETES`]. A version that cannot be built counts as not named; an error
/// says so where something is built.
pub fn kubernetes_version() -> &'static str {
    Release::from_environment().map_or(versions::KUBERNETES, |release| release.version)
}

/// The version of Kubernetes of the minor version before [`kubernetes_version`], which clusters are upgraded from.
///
/// # Errors
/// When there is none.
pub fn kubernetes_version_before() -> Result<&'static str> {
    Ok(Release::before()?.version)
}

/// How etcd's server is built, for the version of Kubernetes that is used.
///
/// # Errors
/// When the environment names a version that cannot be used.
pub(crate) fn etcd() -> Result<Recipe> {
    Ok(Release::from_environment()?.etcd)
}

/// As [`etcd`], for the minor version before.
///
/// # Errors
/// When there is none.
pub(crate) fn etcd_before() -> Result<Recipe> {
    Ok(Release::before()?.etcd)
}

const fn etcd_recipe(version: &'static str, module: &'static Module) -> Recipe {
    Recipe { in_assets_folder: true, ..Recipe::new("etcd", version, module, "go.etcd.io/etcd/server/v3", 20) }
}

/// A program of Kubernetes.
#[derive(Clone, Copy)]
pub(crate) enum Program {
    ApiServer,
    ControllerManager,
    Kubeadm,
    Kubectl,
    Kubelet,
    Proxy,
    Scheduler,
}

impl Program {
    /// All of them.
    pub(crate) const ALL: [Self; 7] = [
        Self::ApiServer,
        Self::ControllerManager,
        Self::Kubeadm,
        Self::Kubectl,
        Self::Kubelet,
        Self::Proxy,
        Self::Scheduler,
    ];
    /// Those of a management cluster, in the order in which they are built.
    pub(crate) const MANAGEMENT: [Self; 3] = [Self::ApiServer, Self::ControllerManager, Self::Kubectl];

    /// Builds the program if it is not in the cache yet.
    ///
    /// # Errors
    /// When it cannot be built, or the environment names a version that cannot be used.
    pub(crate) async fn get(self, cache: &Cache) -> Result<Built> {
        cache.program(&self.recipe()?).await
    }

    /// How the program is built, of the version that is used.
    ///
    /// # Errors
    /// When the environment names a version that cannot be used.
    pub(crate) fn recipe(self) -> Result<Recipe> {
        Ok(self.recipe_of(Release::from_environment()?))
    }

    /// How the program is built, of the minor version before.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn recipe_before(self) -> Result<Recipe> {
        Ok(self.recipe_of(Release::before()?))
    }

    fn recipe_of(self, release: &'static Release) -> Recipe {
        // With roughly how many seconds the first build takes.
        let (name, package, seconds, in_assets_folder) = match self {
            Self::ApiServer => ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver", 200, true),
            Self::ControllerManager => {
                ("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager", 25, false)
            }
            Self::Kubeadm => ("kubeadm", "k8s.io/kubernetes/cmd/kubeadm", 10, false),
            Self::Kubectl => ("kubectl", "k8s.io/kubernetes/cmd/kubectl", 10, true),
            Self::Kubelet => ("kubelet", "k8s.io/kubernetes/cmd/kubelet", 25, false),
            Self::Proxy => ("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy", 5, false),
            Self::Scheduler => ("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler", 5, false),
        };
        let recipe = Recipe::new(name, release.version, release.module, package, seconds);
        Recipe { stamps: STAMPS, in_assets_folder, published: true, ..recipe }
    }
}
