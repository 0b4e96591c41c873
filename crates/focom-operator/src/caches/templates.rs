//! TemplateInfos, by the name and version in their spec.

use std::sync::Arc;

use kube::ResourceExt as _;
use kube::runtime::reflector::{ObjectRef, Store};
use o2ims_types::TemplateInfo;
use operator_kit::cache::{CachedObjects, Index};

/// TemplateInfos, by the name and version in their spec.
#[derive(Clone)]
pub struct Templates {
    store: Store<TemplateInfo>,
    by_version: Index<(String, String, String), TemplateInfo>,
}

impl Templates {
    /// A view of `objects`; adds the index that it needs to them.
    pub fn new(objects: &mut CachedObjects<TemplateInfo>) -> Self {
        Self {
            by_version: objects.index(|template: &TemplateInfo| {
                let spec = &template.spec;
                let namespace = template.namespace().unwrap_or_default();
                vec![(namespace, spec.template_name.clone(), spec.template_version.clone())]
            }),
            store: objects.store(),
        }
    }

    /// The TemplateInfo of this name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<TemplateInfo>> {
        self.store.get(&ObjectRef::new(name).within(namespace))
    }

    /// The TemplateInfos whose spec has this name and version, in the order of their own names.
    pub fn of_version(&self, namespace: &str, name: &str, version: &str) -> Vec<Arc<TemplateInfo>> {
        self.by_version.get(&(namespace.to_owned(), name.to_owned(), version.to_owned()))
    }
}
