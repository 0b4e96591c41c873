//! ProvisioningRequests whose FocomProvisioningRequest does not exist any more.

use focom_operator::caches::Requests;
use focom_operator::o_cloud::orphans::{find, is_orphan};
use focom_operator::o_cloud::remote_request::RemoteRequest;
use kube::core::ApiResource;
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher::Event;
use o2ims_types::{FocomProvisioningRequest, OCloud};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const SITE: &str = "fingerprint of the site";

fn from<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn o_cloud(namespace: &str, name: &str) -> OCloud {
    from(json!({
        "apiVersion": "focom.nephio.org/v1alpha1", "kind": "OCloud", "metadata": {"name": name, "namespace": namespace},
        "spec": {"o2imsSecret": {"secretRef": {"name": name}}, "allowedNamespaces": ["guest"]},
    }))
}

/// What the request `edge` with the UID `uid` was sent as.
fn sent(more: Value) -> RemoteRequest {
    let mut object = json!({
        "metadata": {
            "name": "edge-o2ims", "namespace": "team",
            "labels": {
                "focom.nephio.org/smo": "smo", "focom.nephio.org/source": "edge", "focom.nephio.org/source-namespace": "team",
                "focom.nephio.org/source-uid": "uid",
            },
        },
    });
    template_schema::overlay(&mut object, more);
    from(object)
}

fn request(name: &str, uid: &str, o_cloud: &str, sent_to: Option<&str>) -> FocomProvisioningRequest {
    from(json!({
        "apiVersion": "focom.nephio.org/v1alpha1", "kind": "FocomProvisioningRequest",
        "metadata": {"name": name, "namespace": "team", "uid": uid}, "status": {"sentTo": sent_to},
        "spec": {"oCloudId": o_cloud, "oCloudNamespace": "team", "templateName": "t", "templateVersion": "v1", "templateParameters": {}},
    }))
}

fn requests(all: impl IntoIterator<Item = FocomProvisioningRequest>) -> Requests {
    Requests::new(&mut all.into_iter().collect())
}

#[test]
fn what_no_request_has_any_more_is_an_orphan() {
    let site = o_cloud("team", "site");
    let is_orphan =
        |remote: &RemoteRequest, all: Vec<FocomProvisioningRequest>| is_orphan(remote, &site, &requests(all));
    let remote = sent(json!({}));
    assert!(is_orphan(&remote, vec![]));
    assert!(is_orphan(&remote, vec![request("other", "other", "site", Some(SITE))]));
    assert!(!is_orphan(&remote, vec![request("edge", "uid", "site", Some(SITE))]), "it has its request");
    assert!(
        !is_orphan(&remote, vec![request("edge", "uid", "site", None)]),
        "which has not said yet where it was sent to"
    );
    assert!(
        !is_orphan(&remote, vec![request("edge", "new", "site", None)]),
        "a new request of the name adopts it, or says why not"
    );
    assert!(is_orphan(&remote, vec![request("edge", "new", "elsewhere", None)]), "one for another O-Cloud does not");
    assert!(
        !is_orphan(&remote, vec![request("edge", "uid", "twin", Some(SITE))]),
        "another OCloud leads to the same O-Cloud"
    );
    assert!(
        !is_orphan(&remote, vec![request("edge", "uid", "twin", Some("elsewhere"))]),
        "the same O-Cloud by another address, or left here by its owner's word"
    );
    let leaving = sent(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
    assert!(!is_orphan(&leaving, vec![]), "somebody has deleted it");
    let mut unmarked = sent(json!({}));
    unmarked.metadata.labels.as_mut().unwrap().remove("focom.nephio.org/source-uid");
    assert!(is_orphan(&unmarked, vec![]) && !is_orphan(&unmarked, vec![request("edge", "new", "site", None)]));
}

#[test]
fn an_o_cloud_tells_only_of_what_its_own_requests_can_have_left() {
    let nobody = requests([]);
    let remote = sent(json!({}));
    assert!(!is_orphan(&remote, &o_cloud("other", "site"), &nobody), "it is in another namespace");
    let of_guest = json!({"metadata": {"labels": {"focom.nephio.org/source-namespace": "guest"}}});
    assert!(is_orphan(&sent(of_guest.clone()), &o_cloud("team", "site"), &nobody));

    // Where ProvisioningRequests have no namespace, it is that of the request.
    let cluster_scoped = |mut remote: RemoteRequest| {
        remote.metadata.namespace = None;
        remote
    };
    assert!(is_orphan(&cluster_scoped(remote.clone()), &o_cloud("team", "site"), &nobody));
    assert!(!is_orphan(&cluster_scoped(remote), &o_cloud("other", "site"), &nobody));
    assert!(is_orphan(&cluster_scoped(sent(of_guest)), &o_cloud("other", "site"), &nobody), "a guest that it allows");
}

#[test]
fn the_first_orphans_are_named_and_all_are_counted() {
    let kind = ApiResource::erase::<o2ims_types::ProvisioningRequest>(&());
    let mut writer = Writer::<RemoteRequest>::new(kind);
    let (site, living) = (o_cloud("team", "site"), requests([request("edge", "uid", "site", Some(SITE))]));
    writer.apply_watcher_event(&Event::Apply(sent(json!({}))));
    let remotes = writer.as_reader();
    assert_eq!(find(&site, &remotes, &living), None);
    for number in (0..25).rev() {
        let left = json!({"metadata": {
            "name": format!("left-{number:02}-o2ims"),
            "labels": {"focom.nephio.org/source": format!("left-{number:02}"), "focom.nephio.org/source-uid": "gone"},
        }});
        writer.apply_watcher_event(&Event::Apply(sent(left)));
    }
    let told = find(&site, &remotes, &living).unwrap();
    messages::record(&told.message);
    let names: Vec<_> = (0..10).map(|number| format!("team/left-{number:02}-o2ims")).collect();
    assert_eq!((told.count, &told.names), (25, &names));
    assert!(
        told.message.contains("apply the FocomProvisioningRequest again") && told.message.contains("kubectl delete pr")
    );
    assert_eq!(find(&site, &remotes, &living), Some(told), "the same each time");
}
