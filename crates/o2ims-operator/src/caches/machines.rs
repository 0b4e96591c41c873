//! Machines, by the mark of a request and by server.

use std::sync::Arc;

use cluster_api::machine::Machine;
use kube::runtime::reflector::Store;
use operator_kit::cache::{CachedObjects, Index};

use super::marked::{MarkedObjects, namespace};

/// Machines with a mark, by the mark of a request and by server.
#[derive(Clone)]
pub struct Machines {
    objects: MarkedObjects<Machine>,
    by_server: Index<(String, String), Machine>,
}

impl Machines {
    /// A view of `objects`; adds the indexes that it needs to them.
    pub fn new(objects: &mut CachedObjects<Machine>) -> Self {
        Self {
            objects: MarkedObjects::new(objects),
            by_server: objects.index(|machine: &Machine| {
                machine.server().map(|name| (namespace(machine), name.to_owned())).into_iter().collect()
            }),
        }
    }

    /// All Machines with a mark.
    pub fn all(&self) -> &Store<Machine> {
        self.objects.all()
    }

    /// The Machines with the mark of the request with this UID.
    pub fn marked(&self, namespace: &str, uid: &str) -> Vec<Arc<Machine>> {
        self.objects.marked(namespace, uid)
    }

    /// The Machines whose node runs on the server of this name.
    pub fn on_server(&self, namespace: &str, name: &str) -> Vec<Arc<Machine>> {
        self.by_server.get(&(namespace.to_owned(), name.to_owned()))
    }
}
