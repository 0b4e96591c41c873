//! What clusterctl leaves on a management cluster, and looks for there: labels, and an inventory of providers.

use serde_json::{Value, json};

/// On everything that clusterctl has installed. `clusterctl move` takes objects of kinds whose definition has it.
pub const CLUSTERCTL_LABEL: &str = "clusterctl.cluster.x-k8s.io";
/// On everything of a provider.
pub const PROVIDER_LABEL: &str = "cluster.x-k8s.io/provider";

/// A provider as clusterctl knows it.
#[derive(Clone, Copy, Debug)]
pub struct Inventory {
    /// `CoreProvider`, `BootstrapProvider` and so on.
    pub kind: &'static str,
    /// Its name among those of this kind.
    pub name: &'static str,
    /// Where its manager runs.
    pub namespace: &'static str,
    /// Its version.
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

    /// The labels of all that belongs to the provider.
    pub fn labels(&self) -> [(&'static str, String); 2] {
        [(CLUSTERCTL_LABEL, String::new()), (PROVIDER_LABEL, self.label())]
    }

    /// The provider's entry in the inventory.
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
        self.mark(&mut object);
        object
    }

    /// Gives an object the provider's labels.
    pub fn mark(&self, object: &mut Value) {
        for (key, value) in self.labels() {
            object["metadata"]["labels"][key] = value.into();
        }
    }
}
