//! The inventory of providers that clusterctl keeps on a management cluster, and the labels that it sets and looks for.

use serde_json::{Value, json};

/// Label of everything that clusterctl installs. `clusterctl move` moves objects of the kinds whose CRD has it.
pub const CLUSTERCTL_LABEL: &str = "clusterctl.cluster.x-k8s.io";
/// Label of everything that belongs to a provider.
pub const PROVIDER_LABEL: &str = "cluster.x-k8s.io/provider";

/// A provider in clusterctl's inventory.
#[derive(Clone, Copy, Debug)]
pub struct Inventory {
    /// clusterctl's type of the provider: `CoreProvider`, `BootstrapProvider` and so on.
    pub kind: &'static str,
    /// Name, unique among the providers of its type.
    pub name: &'static str,
    /// Namespace of its manager.
    pub namespace: &'static str,
    /// Version, such as `v1.0.0`.
    pub version: &'static str,
}

impl Inventory {
    /// The value of [`PROVIDER_LABEL`], and the name of [`Inventory::object`].
    pub fn label(&self) -> String {
        match self.kind {
            "BootstrapProvider" => format!("bootstrap-{}", self.name),
            "ControlPlaneProvider" => format!("control-plane-{}", self.name),
            "InfrastructureProvider" => format!("infrastructure-{}", self.name),
            _ => self.name.to_owned(),
        }
    }

    /// The labels of everything that belongs to the provider.
    pub fn labels(&self) -> [(&'static str, String); 2] {
        [(CLUSTERCTL_LABEL, String::new()), (PROVIDER_LABEL, self.label())]
    }

    /// The provider's entry in the inventory, a Kubernetes object.
    pub fn object(&self) -> Value {
        let mut object = json!({
            "apiVersion": "clusterctl.cluster.x-k8s.io/v1alpha3",
            "kind": "Provider",
            "metadata": {
                "name": self.label(),
                "namespace": self.namespace,
                "labels": {"clusterctl.cluster.x-k8s.io/core": "inventory"},
            },
            "type": self.kind,
            "providerName": self.name,
            "version": self.version,
        });
        self.label_object(&mut object);
        object
    }

    /// Sets the provider's labels on an object.
    pub fn label_object(&self, object: &mut Value) {
        for (key, value) in self.labels() {
            object["metadata"]["labels"][key] = value.into();
        }
    }
}
