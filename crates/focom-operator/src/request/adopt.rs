//! Taking a ProvisioningRequest that was not made for this object: one that an earlier object of its name has left, by itself;
//! one of another SMO, or of no one, by the word of an annotation. Only marks are written by it, so the spec has to be the
//! request's before.

use kube::ResourceExt as _;
use o2ims_types::FocomProvisioningRequest;
use o2ims_types::conditions::focom::reason;
use o2ims_types::names::focom;
use serde_json::Value;

use super::observe::Relation;
use super::plan::{sent_hash, sent_mark};
use super::validate::Refusal;
use crate::ocloud::connection::RemoteRequest;

/// Most fields that a message names.
const FIELDS_MAX: usize = 8;

/// What the annotation says.
pub fn word(request: &FocomProvisioningRequest) -> Option<&str> {
    request.annotations().get(focom::ADOPT_ANNOTATION).map(String::as_str)
}

/// The name under which another operator, such as Nephio's, has sent the request. Ours says where it was sent to, too.
pub fn sent_by_another(request: &FocomProvisioningRequest) -> Option<&str> {
    let status = request.status.as_ref()?;
    let name = status.remote_name.as_deref()?;
    (status.sent_to.is_none() && name != focom::remote_request(&request.name_any())).then_some(name)
}

/// Whether the request may take `found`, whose spec should be that of `wanted`.
///
/// # Errors
/// Why not, or not yet, and what to do.
pub fn judge(
    request: &FocomProvisioningRequest,
    wanted: &Value,
    found: &RemoteRequest,
    relation: &Relation,
) -> Result<(), Refusal> {
    let (namespace, uid) = (request.namespace().unwrap_or_default(), found.uid().unwrap_or_default());
    let place = place(request, &found.name_any());
    let refuse = |reason, message: String| Err(Refusal { reason, message });
    let (word, adopt) = (word(request), focom::ADOPT_ANNOTATION);
    let rename = "or choose another metadata.name";
    if found.metadata.deletion_timestamp.is_some() {
        let message = format!(
            "{place} is not this request's and is being deleted there; this request is sent when it is gone, {rename}"
        );
        return refuse(reason::NAME_TAKEN, message);
    }
    let (o_cloud_namespace, o_cloud) = request.o_cloud();
    let exists = format!(
        "ProvisioningRequest {} exists on O-Cloud {o_cloud_namespace}/{o_cloud} and is not this request's",
        found.name_any()
    );
    let is_guest = o_cloud_namespace != namespace;
    match (relation, word) {
        (Relation::Own, word) if word != Some(focom::ADOPT_DRY_RUN) => return Ok(()),
        (Relation::Other, _) => {
            let message = format!("{exists}: choose another metadata.name");
            return refuse(reason::NAME_TAKEN, message);
        }
        (Relation::Unmarked, _) if is_guest => {
            let message = format!(
                "{exists}. For a request of namespace {namespace} it can be adopted when it \
                 has there the labels {}={} and {}={namespace}; {rename}",
                focom::SOURCE_LABEL,
                request.name_any(),
                focom::SOURCE_NAMESPACE_LABEL
            );
            return refuse(reason::NAME_TAKEN, message);
        }
        (Relation::Unmarked, None) => {
            let message = format!(
                "{exists}: annotate this request with {adopt}={} to see whether it can be adopted, {rename}",
                focom::ADOPT_DRY_RUN
            );
            return refuse(reason::NAME_TAKEN, message);
        }
        (Relation::OtherSmo(smo), None) => {
            let whose = match smo {
                Some(smo) => format!(
                    "was made for a request of this name and namespace by another SMO ({smo}): if this is that SMO, restored, start the \
                     operator with --smo-id={smo}, or annotate this request with {adopt}={uid}"
                ),
                None => format!(
                    "was made for a request of this name and namespace, and does not say by which SMO: annotate this request with \
                     {adopt}={uid} to adopt it"
                ),
            };
            return refuse(reason::ADOPTION_REQUIRED, format!("{place} {whose}; {rename}"));
        }
        (_, Some(word)) if word != focom::ADOPT_DRY_RUN && word != uid => {
            let message = format!(
                "{place} has the UID {uid}, and the annotation {adopt} of this request names {word}: nothing is written there; put its UID \
                 there, or take the annotation off"
            );
            return refuse(reason::ADOPTION_REQUIRED, message);
        }
        (Relation::Own | Relation::Left | Relation::Unmarked | Relation::OtherSmo(_), _) => {}
    }
    let differences = differences(wanted, found);
    let dry_run = word == Some(focom::ADOPT_DRY_RUN);
    match (differences.is_empty(), dry_run) {
        (true, false) => Ok(()),
        (true, true) => refuse(
            reason::ADOPTION_DRY_RUN,
            format!(
                "dry run: {place} (UID {uid}) would be adopted; its spec is this request's, so only labels and annotations would be \
                 written. Nothing was written. To adopt it, annotate this request with {adopt}={uid}"
            ),
        ),
        (false, _) => refuse(
            if dry_run { reason::ADOPTION_DRY_RUN } else { reason::ADOPTION_REQUIRED },
            format!(
                "{}{place} (UID {uid}) cannot be adopted, because it differs from this request in {}. Nothing was written. Make these \
                 fields of this request what they are there, and change them after the adoption; {rename}",
                if dry_run { "dry run: " } else { "" },
                differences.join(", ")
            ),
        ),
    }
}

/// Whether what was sent is newer than the request, as it is when the SMO was restored from an older backup: then it is changed only
/// when it says the same, from which on the two go together again. `None` if it is not newer.
pub fn outdated(
    request: &FocomProvisioningRequest,
    wanted: &Value,
    own: &RemoteRequest,
) -> Option<Result<(), Refusal>> {
    let sent = own.annotations().get(focom::SOURCE_GENERATION_ANNOTATION)?.parse::<i64>().ok()?;
    let now = request.metadata.generation.filter(|now| *now < sent)?;
    let differences = differences(wanted, own);
    if differences.is_empty() {
        return Some(Ok(()));
    }
    let message = format!(
        "{} was sent from a newer state of this request (generation {sent}, this is {now}), as after a restore of the SMO from an older \
         backup, and differs from it in {}: nothing is changed there; make these fields of this request what they are there, and change \
         them afterwards",
        place(request, &own.name_any()),
        differences.join(", ")
    );
    Some(Err(Refusal { reason: reason::ADOPTION_REQUIRED, message }))
}

/// What is told where nothing of the request's names is on the O-Cloud, and nothing may be sent.
pub fn nothing_to_adopt(request: &FocomProvisioningRequest) -> Refusal {
    let [ours, nephios] = focom::remote_requests(&request.name_any());
    let (namespace, id) = request.o_cloud();
    let adopt = focom::ADOPT_ANNOTATION;
    let why = if word(request).is_some() {
        format!(
            "nothing is sent while this request has the annotation {adopt}; correct its UID, or take it off to have the request sent"
        )
    } else {
        "its status says that another operator has sent it: nothing is sent a second time; make a new request to have it sent".to_owned()
    };
    Refusal {
        reason: reason::ADOPTION_REQUIRED,
        message: format!(
            "there is neither ProvisioningRequest {ours} nor {nephios} on O-Cloud {namespace}/{id}, and {why}"
        ),
    }
}

fn place(request: &FocomProvisioningRequest, name: &str) -> String {
    let (namespace, id) = request.o_cloud();
    format!("ProvisioningRequest {name} on O-Cloud {namespace}/{id}")
}

/// Paths of the fields that would not stay as they are if `wanted` were applied.
fn differences(wanted: &Value, found: &RemoteRequest) -> Vec<String> {
    let mut paths = Vec::new();
    // What we have applied is taken off when it is not applied again; what others wrote stays.
    let was_applied = sent_hash(found);
    let is_same = was_applied.is_none_or(|hash| Some(hash) == sent_mark(wanted));
    compare(&wanted["spec"], &found.spec, false, "spec", &mut paths);
    if paths.is_empty() && !is_same {
        // Some of these may be defaults of the O-Cloud; which, cannot be told.
        compare(&wanted["spec"], &found.spec, true, "spec", &mut paths);
    }
    if paths.len() > FIELDS_MAX {
        let more = paths.len() - FIELDS_MAX;
        paths.truncate(FIELDS_MAX);
        paths.push(format!("{more} more"));
    }
    paths
}

fn compare(wanted: &Value, found: &Value, both_ways: bool, path: &str, paths: &mut Vec<String>) {
    match (wanted, found) {
        (Value::Object(ours), Value::Object(theirs)) => {
            for (key, value) in ours {
                let path = format!("{path}.{key}");
                match theirs.get(key) {
                    Some(theirs) => compare(value, theirs, both_ways, &path, paths),
                    None => paths.push(path),
                }
            }
            let more = theirs.keys().filter(|key| both_ways && !ours.contains_key(*key));
            paths.extend(more.map(|key| format!("{path}.{key}")));
        }
        (Value::Array(ours), Value::Array(theirs)) if ours.len() == theirs.len() => {
            for (number, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
                compare(ours, theirs, both_ways, &format!("{path}[{number}]"), paths);
            }
        }
        (ours, theirs) if ours == theirs => {}
        _ => paths.push(path.to_owned()),
    }
}
