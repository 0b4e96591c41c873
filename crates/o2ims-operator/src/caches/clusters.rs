//! Clusters, by the mark of a request and by endpoint.

use std::sync::Arc;

use cluster_api::cluster::{Cluster, canonical_host};
use operator_kit::cache::{CachedObjects, Index};

use super::marked::MarkedObjects;

/// All Clusters, by the mark of a request and by endpoint.
#[derive(Clone)]
pub struct Clusters {
    objects: MarkedObjects<Cluster>,
    by_endpoint: Index<String, Cluster>,
}

impl Clusters {
    /// A view of `objects`; adds the indexes that it needs to them.
    pub fn new(objects: &mut CachedObjects<Cluster>) -> Self {
        Self {
            objects: MarkedObjects::new(objects),
            by_endpoint: objects.index(|cluster: &Cluster| {
                let endpoint = cluster.spec.control_plane_endpoint.as_ref();
                endpoint.map(|endpoint| canonical_host(&endpoint.host)).into_iter().collect()
            }),
        }
    }

    /// The Cluster of this name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Cluster>> {
        self.objects.get(namespace, name)
    }

    /// The Clusters with the mark of the request with this UID.
    pub fn marked(&self, namespace: &str, uid: &str) -> Vec<Arc<Cluster>> {
        self.objects.marked(namespace, uid)
    }

    /// The Clusters whose API answers at this address or name, on any port, in any namespace.
    pub fn with_endpoint(&self, host: &str) -> Vec<Arc<Cluster>> {
        self.by_endpoint.get(&canonical_host(host))
    }
}
