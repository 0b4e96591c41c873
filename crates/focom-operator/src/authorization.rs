//! Access across namespaces. It requires an explicit grant, on the object or on its Namespace. Every reconcile checks
//! the grants again.

use k8s_openapi::api::core::v1;
use kube::Resource;
use kube::ResourceExt as _;
use kube::core::ObjectMeta;
use o2ims_types::{OCloud, names::focom};
use serde::Deserialize;

/// Stands for every namespace.
const ANY_NAMESPACE: &str = "*";

/// A Namespace: its metadata, which holds the grants.
#[derive(Resource, Clone, Debug, Default, Deserialize, PartialEq)]
#[resource(inherit = v1::Namespace)]
pub struct Namespace {
    /// Metadata.
    pub metadata: ObjectMeta,
}

/// Whether requests of the namespace `from` may use the OCloud.
pub fn can_use(o_cloud: &OCloud, from: &str) -> bool {
    o_cloud.namespace().as_deref() == Some(from)
        || o_cloud.spec.allowed_namespaces.iter().any(|allowed| allowed == from || allowed == ANY_NAMESPACE)
}

/// Whether requests of the namespace `from` to the SMO's own cluster may be for its namespace `to`.
pub fn can_request(to: &str, namespace: Option<&Namespace>, from: &str) -> bool {
    to == from || granted(namespace, focom::REQUESTS_FROM_ANNOTATION, from)
}

/// Whether OClouds of the namespace `from` may use Secrets of the namespace `to`.
pub fn can_read_secrets(to: &str, namespace: Option<&Namespace>, from: &str) -> bool {
    to == from || granted(namespace, focom::SECRETS_FOR_ANNOTATION, from)
}

fn granted(namespace: Option<&Namespace>, annotation: &str, to: &str) -> bool {
    namespace
        .and_then(|namespace| namespace.annotations().get(annotation))
        .is_some_and(|list| list.split(',').map(str::trim).any(|entry| entry == to || entry == ANY_NAMESPACE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use o2ims_types::OCloudSpec;

    fn namespace(annotation: &str, value: &str) -> Namespace {
        let annotations = [(annotation.to_owned(), value.to_owned())].into();
        Namespace { metadata: ObjectMeta { annotations: Some(annotations), ..ObjectMeta::default() } }
    }

    #[test]
    fn a_grant_names_namespaces_whole() {
        let grants = |value: &str, from: &str| {
            can_request("site", Some(&namespace(focom::REQUESTS_FROM_ANNOTATION, value)), from)
        };
        assert!(grants("a,b", "b") && grants(" a , b ", "b") && grants("*", "b"));
        for value in ["", ",", "bb", "ab", "b-b", "B", "a b", "*b", "b*", "a;b"] {
            assert!(!grants(value, "b"), "{value:?}");
        }
        assert!(!can_request("site", None, "b"), "an unknown namespace grants nothing");
        assert!(can_request("b", None, "b"), "one's own needs no grant");
    }

    #[test]
    fn each_grant_is_for_one_thing() {
        let requests = namespace(focom::REQUESTS_FROM_ANNOTATION, "b");
        let secrets = namespace(focom::SECRETS_FOR_ANNOTATION, "b");
        assert!(!can_read_secrets("site", Some(&requests), "b") && can_read_secrets("site", Some(&secrets), "b"));
        assert!(!can_request("site", Some(&secrets), "b"));
    }

    #[test]
    fn an_o_cloud_is_for_its_own_namespace_and_those_that_it_names() {
        let mut o_cloud = OCloud::new("site", OCloudSpec::default());
        o_cloud.metadata.namespace = Some("a".to_owned());
        assert!(can_use(&o_cloud, "a") && !can_use(&o_cloud, "b") && !can_use(&o_cloud, ""));
        o_cloud.spec.allowed_namespaces = vec!["b".to_owned()];
        assert!(can_use(&o_cloud, "b") && !can_use(&o_cloud, "c"));
        o_cloud.spec.allowed_namespaces = vec![ANY_NAMESPACE.to_owned()];
        assert!(can_use(&o_cloud, "c"));
    }
}
