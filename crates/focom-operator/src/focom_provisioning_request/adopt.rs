//! Adoption: a request becomes the owner of a ProvisioningRequest that was not created for it. One that was created for
//! a former request of its name is adopted automatically; one of another SMO, or without labels of an SMO, by
//! annotation. An adoption writes only labels and annotations, so the spec must already be that of the request.

use kube::ResourceExt as _;
use o2ims_types::FocomProvisioningRequest;
use o2ims_types::conditions::focom::reason;
use o2ims_types::names::focom;
use serde_json::Value;

use super::annotations;
use super::manifest::{applied_spec_hash, spec_hash};
use super::observe::Relation;
use super::validate::Rejection;
use crate::o_cloud::remote_request::RemoteRequest;

/// Most fields that a message names.
const FIELDS_MAX: usize = 8;

/// The name under which another operator, such as Nephio's, has sent the request. Its status lacks the fingerprint that
/// this operator writes.
pub fn sent_by_other_operator(request: &FocomProvisioningRequest) -> Option<&str> {
    let status = request.status.as_ref()?;
    let name = status.remote_name.as_deref()?;
    (status.sent_to.is_none() && name != focom::remote_request(&request.name_any())).then_some(name)
}

/// Checks whether the request may adopt `found`, whose spec has to be that of `manifest`.
///
/// # Errors
/// Why it may not, or not yet, and what to do.
pub fn check_adoption(
    request: &FocomProvisioningRequest,
    manifest: &Value,
    found: &RemoteRequest,
    relation: &Relation,
) -> Result<(), Rejection> {
    let is_dry_run = annotations::adopt(request) == Some(focom::ADOPT_DRY_RUN);
    if found.metadata.deletion_timestamp.is_some() {
        let message = format!(
            "{} is not this request's and is being deleted; this request is sent when that deletion is finished, {RENAME}",
            place(request, &found.name_any())
        );
        return Err(Rejection::new(reason::NAME_TAKEN, message));
    }
    if *relation == Relation::Own && !is_dry_run {
        return Ok(());
    }
    check_name(request, found, relation)?;
    check_annotation(request, found, relation)?;
    check_spec(request, manifest, found, is_dry_run)
}

/// What an owner can do who does not want an adoption.
const RENAME: &str = "or choose another metadata.name";

/// Whether `found` is such that it can be adopted at all, or by an annotation.
fn check_name(request: &FocomProvisioningRequest, found: &RemoteRequest, relation: &Relation) -> Result<(), Rejection> {
    let namespace = request.namespace().unwrap_or_default();
    let (o_cloud_namespace, o_cloud) = request.o_cloud();
    let exists = format!(
        "ProvisioningRequest {} exists on O-Cloud {o_cloud_namespace}/{o_cloud} and is not this request's",
        found.name_any()
    );
    let is_guest = o_cloud_namespace != namespace;
    let message = match (relation, annotations::adopt(request)) {
        (Relation::Other, _) => format!("{exists}: choose another metadata.name"),
        (Relation::Unmarked, _) if is_guest => format!(
            "{exists}. For a request of namespace {namespace} it can be adopted when it \
             has the labels {}={} and {}={namespace} on the O-Cloud; {RENAME}",
            focom::SOURCE_LABEL,
            request.name_any(),
            focom::SOURCE_NAMESPACE_LABEL
        ),
        (Relation::Unmarked, None) => format!(
            "{exists}: annotate this request with {}={} to see whether it can be adopted, {RENAME}",
            focom::ADOPT_ANNOTATION,
            focom::ADOPT_DRY_RUN
        ),
        _ => return Ok(()),
    };
    Err(Rejection::new(reason::NAME_TAKEN, message))
}

/// Whether the annotation names `found`, if it has to.
fn check_annotation(
    request: &FocomProvisioningRequest,
    found: &RemoteRequest,
    relation: &Relation,
) -> Result<(), Rejection> {
    let (place, uid) = (place(request, &found.name_any()), found.uid().unwrap_or_default());
    let adopt = focom::ADOPT_ANNOTATION;
    let message = match (relation, annotations::adopt(request)) {
        (Relation::OtherSmo(Some(smo)), None) => format!(
            "{place} was created for a request of this name and namespace by another SMO ({smo}): if this is that SMO, restored, start the \
             operator with --smo-id={smo}, or annotate this request with {adopt}={uid}; {RENAME}"
        ),
        (Relation::OtherSmo(None), None) => format!(
            "{place} was created for a request of this name and namespace, and has no label {} that names the SMO: annotate this request \
             with {adopt}={uid} to adopt it; {RENAME}",
            focom::SMO_LABEL
        ),
        (_, Some(value)) if value != focom::ADOPT_DRY_RUN && value != uid => format!(
            "{place} has the UID {uid}, and the annotation {adopt} of this request names {value}: nothing is written; set the \
             annotation to {uid} to adopt it, or remove the annotation"
        ),
        _ => return Ok(()),
    };
    Err(Rejection::new(reason::ADOPTION_REQUIRED, message))
}

/// Whether an adoption would leave the spec of `found` as it is. A dry run ends here in any case, with the result as
/// its message.
fn check_spec(
    request: &FocomProvisioningRequest,
    manifest: &Value,
    found: &RemoteRequest,
    is_dry_run: bool,
) -> Result<(), Rejection> {
    let (place, uid) = (place(request, &found.name_any()), found.uid().unwrap_or_default());
    let differences = differences(manifest, found);
    match (differences.is_empty(), is_dry_run) {
        (true, false) => Ok(()),
        (true, true) => Err(Rejection::new(
            reason::ADOPTION_DRY_RUN,
            format!(
                "dry run: {place} (UID {uid}) would be adopted; its spec is this request's, so only labels and annotations would be \
                 written. Nothing was written. To adopt it, annotate this request with {}={uid}",
                focom::ADOPT_ANNOTATION
            ),
        )),
        (false, _) => Err(Rejection::new(
            if is_dry_run { reason::ADOPTION_DRY_RUN } else { reason::ADOPTION_REQUIRED },
            format!(
                "{}{place} (UID {uid}) cannot be adopted, because it differs from this request in {}. Nothing was written. Give these \
                 fields of this request the values that they have on the O-Cloud, and change them after the adoption; {RENAME}",
                if is_dry_run { "dry run: " } else { "" },
                differences.join(", ")
            ),
        )),
    }
}

/// The generation of the request that its ProvisioningRequest was sent from, compared with the present one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceGeneration {
    /// It was sent from this generation or an earlier one, or its generation is not known.
    NotNewer,
    /// It was sent from a later generation, as when the SMO was restored from an older backup, and has the same
    /// content: an update brings its generation back to the request's.
    NewerButEqual,
    /// It was sent from a later generation and differs, so it must not be changed.
    NewerAndDifferent(Rejection),
}

/// Compares the generation that `own` was sent from with that of the request.
pub fn source_generation(
    request: &FocomProvisioningRequest,
    manifest: &Value,
    own: &RemoteRequest,
) -> SourceGeneration {
    let sent = own.annotations().get(focom::SOURCE_GENERATION_ANNOTATION).and_then(|sent| sent.parse::<i64>().ok());
    let (Some(sent), Some(now)) = (sent, request.metadata.generation) else { return SourceGeneration::NotNewer };
    if now >= sent {
        return SourceGeneration::NotNewer;
    }
    let differences = differences(manifest, own);
    if differences.is_empty() {
        return SourceGeneration::NewerButEqual;
    }
    let message = format!(
        "{} was sent from a newer state of this request (generation {sent}, this is {now}), as after a restore of the SMO from an older \
         backup, and differs from it in {}: nothing is changed on the O-Cloud; give these fields of this request the values that they have \
         there, and change them afterwards",
        place(request, &own.name_any()),
        differences.join(", ")
    );
    SourceGeneration::NewerAndDifferent(Rejection::new(reason::ADOPTION_REQUIRED, message))
}

/// The ProvisioningRequest that the request is to adopt, of those that have one of its names.
pub fn choose<'a>(
    request: &FocomProvisioningRequest,
    found: &'a [(RemoteRequest, Relation)],
) -> Option<&'a (RemoteRequest, Relation)> {
    let uid = annotations::adopt_uid(request);
    let named = found.iter().find(|(remote, _)| uid.is_some() && remote.metadata.uid.as_deref() == uid);
    // Its own may have lost the label by which it is watched.
    let chosen = named.or_else(|| found.iter().find(|(_, relation)| *relation == Relation::Own));
    chosen.or_else(|| {
        // A request that is being deleted adopts only the one that its annotation names, or that another operator has
        // sent for it.
        let is_sent = uid.is_none() && sent_by_other_operator(request).is_some();
        let may_be_any = request.metadata.deletion_timestamp.is_none() || is_sent;
        let usable = found.iter().find(|(_, relation)| *relation != Relation::Other);
        usable.or(found.first()).filter(|_| may_be_any)
    })
}

/// The rejection of a request that must not be sent, while the O-Cloud has no ProvisioningRequest that it could adopt.
pub fn nothing_to_adopt(request: &FocomProvisioningRequest) -> Rejection {
    let [ours, nephios] = focom::remote_requests(&request.name_any());
    let (namespace, id) = request.o_cloud();
    let adopt = focom::ADOPT_ANNOTATION;
    let why = if annotations::adopt(request).is_some() {
        format!(
            "nothing is sent while this request has the annotation {adopt}; correct its UID, or remove it to have the request sent"
        )
    } else {
        "the status of this request says that another operator has sent it: it is not sent again; create a new request to have it sent".to_owned()
    };
    let message =
        format!("there is neither ProvisioningRequest {ours} nor {nephios} on O-Cloud {namespace}/{id}, and {why}");
    Rejection::new(reason::ADOPTION_REQUIRED, message)
}

/// The note on an adoption.
pub fn adopted(name: &str) -> String {
    format!(
        "this request has adopted ProvisioningRequest {name} on the O-Cloud; only its labels and annotations were written"
    )
}

fn place(request: &FocomProvisioningRequest, name: &str) -> String {
    let (namespace, id) = request.o_cloud();
    format!("ProvisioningRequest {name} on O-Cloud {namespace}/{id}")
}

/// Paths of the fields of `found` that would change if `manifest` were applied.
fn differences(manifest: &Value, found: &RemoteRequest) -> Vec<String> {
    let mut paths = Vec::new();
    // Server-side apply removes fields that this operator applied before and does not apply again; fields of other
    // managers stay.
    let is_same = applied_spec_hash(found).is_none_or(|hash| Some(hash) == spec_hash(manifest));
    compare(&manifest["spec"], &found.spec, false, "spec", &mut paths);
    if paths.is_empty() && !is_same {
        // Some of these fields may be defaults of the O-Cloud, but that cannot be told.
        compare(&manifest["spec"], &found.spec, true, "spec", &mut paths);
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
