//! Revisions: each spec of an object that was accepted is kept as a ControllerRevision in the object's namespace, owned by the object. It holds a
//! manifest, so that a user can go back to it; no operator ever does.
//!
//! Needs the rights `list`, `create`, `patch` and `delete` on `controllerrevisions`. Without them, or where the API server refuses one for
//! another reason, the object is carried out all the same, and one Warning event says that its spec is not recorded.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Debug,
    sync::{Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::{api::apps::v1::ControllerRevision, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ListParams, Preconditions},
};
use serde_json::{Value, json};

use crate::{
    controller::error::{Class, Error},
    events::Events,
    write::apply::{self, Precondition, content_hash, with_timeout},
};

/// How many revisions of an object are kept, the present one among them.
pub const KEPT: usize = 10;
/// `-` and the digits of a hash.
const HASH_SUFFIX: usize = 17;
/// Longest name of an object, and longest value of a label.
const NAME_MAX: usize = 253;
const LABEL_VALUE_MAX: usize = 63;

/// A spec that was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// Name of the ControllerRevision.
    pub name: String,
    /// Its number. It rises when the spec is applied again after another one.
    pub number: i64,
}

/// The revisions of the objects of one operator.
pub struct Revisions {
    client: Client,
    events: Events,
    label: &'static str,
    manager: &'static str,
    /// Names of the revisions that the API server has refused, by UID of the object.
    refused: Mutex<HashMap<String, String>>,
}

impl Revisions {
    /// `label` is the key of a label whose value is the object's name; `manager` is the field manager.
    pub fn new(client: Client, events: Events, label: &'static str, manager: &'static str) -> Self {
        Self { client, events, label, manager, refused: Mutex::default() }
    }

    /// Records the present `spec` of the object, unless it is `accepted`, the revision that the object's status names; then nothing is read or
    /// written. Returns the revision of this spec; `None` if the API server refuses to have it recorded, which is told once and not tried again
    /// before the spec changes or the process is started again. The revision named `kept` is not deleted, however old it is.
    ///
    /// Errors: a later try may succeed.
    pub async fn record<K>(
        &self,
        object: &K,
        spec: &Value,
        accepted: Option<Revision>,
        kept: Option<&str>,
    ) -> Result<Option<Revision>, Error>
    where
        K: Resource<DynamicType = ()>,
    {
        let uid = object.uid().unwrap_or_default();
        let name = revision_name(&object.name_any(), &uid, spec);
        if accepted.as_ref().is_some_and(|accepted| accepted.name == name) {
            return Ok(accepted);
        }
        if self.refused().get(&uid) == Some(&name) {
            return Ok(None);
        }
        let last = accepted.map_or(0, |accepted| accepted.number);
        match self.write(object, spec, &name, last, kept).await {
            Ok(number) => {
                self.refused().remove(&uid);
                Ok(Some(Revision { name, number }))
            }
            Err(error) if is_refusal(&error) => {
                self.refused().insert(uid, name);
                let note = not_recorded(&error);
                self.events.warning(&object.object_ref(&()), "RevisionNotRecorded", "Record", &note).await;
                Ok(None)
            }
            Err(error) => Err(error.context("recording the spec as a ControllerRevision")),
        }
    }

    /// The object with this UID is gone.
    pub fn forget(&self, uid: &str) {
        self.refused().remove(uid);
    }

    async fn write<K>(&self, object: &K, spec: &Value, name: &str, last: i64, kept: Option<&str>) -> Result<i64, Error>
    where
        K: Resource<DynamicType = ()>,
    {
        let api = Api::<ControllerRevision>::namespaced(
            self.client.clone(),
            object.meta().namespace.as_deref().unwrap_or_default(),
        );
        let owner = owner_reference(object);
        let label = (self.label.to_owned(), label_value(&object.name_any()));
        let params = ListParams::default().labels(&format!("{}={}", label.0, label.1));
        let all = with_timeout("list", api.list(&params)).await?;
        let found: Vec<_> = all.items.iter().filter_map(|revision| Found::new(revision, &owner.uid)).collect();
        let Due { number, present, adopted, outdated } = due(&found, name, last, kept);
        let manifest = manifest(object, spec, name, number, &owner, &label);
        match present {
            Some(found) if found.number == number => {}
            Some(found) => {
                apply::apply(&api, &manifest, self.manager, Precondition::Uid(&found.uid)).await?;
            }
            None => {
                apply::apply(&api, &manifest, self.manager, Precondition::MustNotExist).await?;
            }
        }
        for found in adopted {
            let metadata = json!({"uid": found.uid, "ownerReferences": [owner]});
            apply::merge_metadata(&api, &found.name, &metadata, self.manager).await?;
        }
        for found in outdated {
            let preconditions = Preconditions { uid: Some(found.uid.clone()), resource_version: None };
            apply::delete(&api, &found.name, preconditions).await?;
        }
        Ok(number)
    }

    fn refused(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The note on a spec that is not recorded.
pub fn not_recorded(error: &Error) -> String {
    format!(
        "the spec of this request is carried out, but not recorded as a ControllerRevision, so there is no revision to go back to it: {}",
        error.message()
    )
}

/// Whether the API server has refused a call, and refuses it until somebody changes something.
fn is_refusal(error: &Error) -> bool {
    let refuses = |code: u16| (400..500).contains(&code) && ![401, 408, 410, 429].contains(&code);
    error.class() != Class::Conflict && error.code().is_some_and(refuses)
}

/// Name of the revision of this spec. The UID is part of the hash, so that no revision of a former object of the same name is in the way.
fn revision_name(object: &str, uid: &str, spec: &Value) -> String {
    let room = NAME_MAX - HASH_SUFFIX;
    let stem = object[..object.len().min(room)].trim_end_matches(['-', '.']);
    format!("{stem}-{}", content_hash(&json!([uid, spec])))
}

/// The object's name as the value of a label; a longer one ends with a hash.
fn label_value(object: &str) -> String {
    if object.len() <= LABEL_VALUE_MAX {
        return object.to_owned();
    }
    let stem = object[..LABEL_VALUE_MAX - HASH_SUFFIX].trim_end_matches(['-', '.']);
    format!("{stem}-{}", content_hash(&json!(object)))
}

fn owner_reference<K: Resource<DynamicType = ()>>(object: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
        // No controller of DaemonSets or StatefulSets takes it for its own then.
        controller: Some(true),
        block_owner_deletion: None,
    }
}

fn manifest<K: Resource<DynamicType = ()>>(
    object: &K,
    spec: &Value,
    name: &str,
    number: i64,
    owner: &OwnerReference,
    (label, value): &(String, String),
) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": name,
            "labels": BTreeMap::from([(label, value)]),
            "ownerReferences": [owner],
        },
        "revision": number,
        "data": {
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            "metadata": {"name": object.name_any(), "namespace": object.namespace()},
            "spec": spec,
        },
    })
}

/// A revision of the object, as the API server has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    name: String,
    uid: String,
    number: i64,
    /// It belongs to the object; otherwise to none, as after a deletion with `--cascade=orphan`.
    is_owned: bool,
}

impl Found {
    /// `None` if it belongs to another object, such as a former one of the same name: it is deleted with that.
    fn new(revision: &ControllerRevision, owner_uid: &str) -> Option<Self> {
        let owners = revision.owner_references();
        let is_owned = owners.iter().any(|owner| owner.uid == owner_uid);
        (is_owned || owners.is_empty()).then(|| Self {
            name: revision.name_any(),
            uid: revision.uid().unwrap_or_default(),
            number: revision.revision,
            is_owned,
        })
    }
}

/// What is due to have a spec recorded.
#[derive(Debug, PartialEq, Eq)]
struct Due<'a> {
    /// The number of its revision.
    number: i64,
    /// The revision, if it exists, perhaps with an older number.
    present: Option<&'a Found>,
    /// Others that become the object's.
    adopted: Vec<&'a Found>,
    /// Others that are deleted.
    outdated: Vec<&'a Found>,
}

/// What is due to have the spec recorded whose revision has this name. `last` is the number that was given last, as far as is known: a number is
/// not given twice, even if all revisions were deleted.
fn due<'a>(found: &'a [Found], name: &str, last: i64, kept: Option<&str>) -> Due<'a> {
    let highest = found.iter().map(|found| found.number).max().unwrap_or_default().max(last);
    let present = found.iter().find(|found| found.name == name);
    let number = match present {
        Some(present) if present.number == highest => highest,
        _ => highest + 1,
    };
    let mut others: Vec<_> = found.iter().filter(|found| found.name != name).collect();
    others.sort_by_key(|found| std::cmp::Reverse(found.number));
    let outdated = others.split_off(others.len().min(KEPT - 1));
    let (spared, outdated): (Vec<_>, Vec<_>) =
        outdated.into_iter().partition(|found| Some(found.name.as_str()) == kept);
    let adopted = others.into_iter().chain(spared).filter(|found| !found.is_owned).collect();
    Due { number, present, adopted, outdated }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::core::ObjectMeta;

    fn found(number: i64) -> Found {
        Found { name: format!("r-{number}"), uid: format!("uid-{number}"), number, is_owned: true }
    }

    fn numbers(found: &[&Found]) -> Vec<i64> {
        found.iter().map(|found| found.number).collect()
    }

    #[test]
    fn a_new_spec_has_the_next_number_and_an_earlier_one_is_raised() {
        let number = |found: &[Found], name: &str, last| {
            let due = due(found, name, last, None);
            (due.number, due.present.map(|found| found.number))
        };
        assert_eq!(number(&[], "r-1", 0), (1, None));
        let two = [found(1), found(2)];
        assert_eq!(number(&two, "r-3", 2), (3, None));
        assert_eq!(number(&two, "r-1", 2), (3, Some(1)), "back to the first");
        assert_eq!(number(&two, "r-2", 2), (2, Some(2)), "the status was lost, or is not written yet");
        assert_eq!(number(&two, "r-2", 0), (2, Some(2)));
        assert_eq!(number(&[], "r-9", 7), (8, None), "somebody has deleted all of them");
        assert_eq!(number(&two, "r-2", 3), (4, Some(2)), "somebody has deleted the newest");
    }

    #[test]
    fn the_newest_are_kept_and_the_last_good_one() {
        let eleven: Vec<_> = (1..=11).map(found).collect();
        let Due { outdated, .. } = due(&eleven[..9], "r-10", 9, None);
        assert!(outdated.is_empty(), "ten with the present one");
        assert_eq!(numbers(&due(&eleven, "r-12", 11, None).outdated), [2, 1]);
        assert_eq!(numbers(&due(&eleven, "r-12", 11, Some("r-1")).outdated), [2]);
        assert_eq!(numbers(&due(&eleven, "r-1", 11, None).outdated), [2], "the present one is not deleted");
    }

    #[test]
    fn what_was_left_without_an_owner_is_adopted_and_what_has_another_is_left_alone() {
        let revision = |owners: &[&str]| ControllerRevision {
            metadata: ObjectMeta {
                name: Some("r-1".to_owned()),
                uid: Some("uid-1".to_owned()),
                owner_references: Some(
                    owners.iter().map(|uid| OwnerReference { uid: (*uid).to_owned(), ..Default::default() }).collect(),
                ),
                ..ObjectMeta::default()
            },
            revision: 1,
            ..ControllerRevision::default()
        };
        assert_eq!(Found::new(&revision(&["mine"]), "mine"), Some(found(1)));
        assert_eq!(Found::new(&revision(&["former"]), "mine"), None);
        let unowned = Found::new(&revision(&[]), "mine").expect("counts");
        let all = [unowned, found(2)];
        assert_eq!(numbers(&due(&all, "r-3", 0, None).adopted), [1]);
        // The present one is applied with its owner.
        assert!(due(&all, "r-1", 0, None).adopted.is_empty());
    }

    #[test]
    fn names_are_valid_however_long_the_objects_is() {
        let spec = json!({"a": 1});
        let short = revision_name("edge", "uid", &spec);
        assert!(short.starts_with("edge-") && short.len() == 5 + 16, "{short}");
        assert_ne!(short, revision_name("edge", "uid", &json!({"a": 2})));
        assert_ne!(short, revision_name("edge", "other", &spec));
        assert_eq!(label_value("edge"), "edge");
        let long = format!("{}.{}", "a".repeat(45), "b".repeat(253 - 46));
        assert_eq!(revision_name(&long, "uid", &spec).len(), NAME_MAX);
        let value = label_value(&long);
        assert!(value.len() <= LABEL_VALUE_MAX && value.starts_with(&format!("{}-", "a".repeat(45))), "{value}");
        assert_ne!(value, label_value(&long.replace('b', "c")));
    }

    #[test]
    fn the_data_is_a_manifest_of_the_object() {
        let object = ConfigMap {
            metadata: ObjectMeta {
                name: Some("edge".to_owned()),
                namespace: Some("site-a".to_owned()),
                uid: Some("uid".to_owned()),
                ..ObjectMeta::default()
            },
            ..ConfigMap::default()
        };
        let owner = owner_reference(&object);
        let manifest = manifest(&object, &json!({"a": 1}), "edge-1", 3, &owner, &("of".to_owned(), "edge".to_owned()));
        let data = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "edge", "namespace": "site-a"}, "spec": {"a": 1},
        });
        assert_eq!(manifest["data"], data);
        assert_eq!((&manifest["revision"], &manifest["metadata"]["labels"]), (&json!(3), &json!({"of": "edge"})));
        let owner =
            json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "edge", "uid": "uid", "controller": true}]);
        assert_eq!(manifest["metadata"]["ownerReferences"], owner);
    }

    #[test]
    fn a_refusal_is_not_tried_again_and_everything_else_is() {
        let answered = |code: u16, message: &str| {
            let status = kube::core::Status::failure(message, "").with_code(code);
            Error::from(kube::Error::Api(status.boxed())).context("list")
        };
        let rights = "controllerrevisions.apps is forbidden: User \"o\" cannot list resource";
        for refusal in [answered(403, rights), answered(403, "exceeded quota"), answered(413, ""), answered(422, "")] {
            assert!(is_refusal(&refusal), "{refusal}");
        }
        for passing in [answered(409, ""), answered(401, ""), answered(429, ""), answered(500, "")] {
            assert!(!is_refusal(&passing), "{passing}");
        }
        assert!(!is_refusal(&Error::transient("no answer within 20 s")));
    }
}
