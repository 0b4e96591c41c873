//! The module that most programs are built from.

use crate::build::{Module, module};

/// The module of etcd, Kubernetes, Cluster API, `CoreDNS` and the programs in images, of the default versions. They are in one module, so that
/// what they have in common has one version and is compiled once.
pub(crate) static PLATFORM: Module =
    module!("platform", "coredns/main.go", "pause/main.go", "pod-network/main.go", "probe/main.go");
