//! Partial records: of an object only the fields that are read, so that a cache of thousands of them stays small.

use serde::Deserialize;

/// A namespaced kind of which only some fields are kept. It is read, never written back.
macro_rules! partial_resource {
    ($(#[$doc:meta])* $kind:ident, $spec:ty, $status:ty) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, serde::Deserialize)]
        pub struct $kind {
            /// Metadata.
            pub metadata: kube::core::ObjectMeta,
            /// What is kept of the spec.
            #[serde(default)]
            pub spec: $spec,
            /// What is kept of the status.
            #[serde(default)]
            pub status: $status,
        }

        impl kube::Resource for $kind {
            type DynamicType = ();
            type Scope = k8s_openapi::NamespaceResourceScope;

            fn kind((): &()) -> std::borrow::Cow<'_, str> {
                $crate::kinds::Kind::$kind.name().into()
            }
            fn group((): &()) -> std::borrow::Cow<'_, str> {
                $crate::kinds::Kind::$kind.group().into()
            }
            fn version((): &()) -> std::borrow::Cow<'_, str> {
                $crate::kinds::Kind::$kind.version().into()
            }
            fn plural((): &()) -> std::borrow::Cow<'_, str> {
                $crate::kinds::Kind::$kind.plural().into()
            }
            fn meta(&self) -> &kube::core::ObjectMeta {
                &self.metadata
            }
            fn meta_mut(&mut self) -> &mut kube::core::ObjectMeta {
                &mut self.metadata
            }
        }
    };
}
pub(crate) use partial_resource;

/// No field is kept.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Empty {}

/// The name in an object reference.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct NameRef {
    /// Name.
    #[serde(default)]
    pub name: String,
}
