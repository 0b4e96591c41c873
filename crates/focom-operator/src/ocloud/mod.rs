//! An OCloud: `grant → Secret → kubeconfig → connection → status`.

pub mod connection;
pub mod credentials;
pub mod fault;
pub mod gate;
pub mod kubeconfig;
pub mod links;

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource as _, ResourceExt as _};
use o2ims_types::conditions::{self, focom::reason};
use o2ims_types::names::focom;
use o2ims_types::{OCloud, OCloudStatus};
use operator_kit::controller::{Error, Outcome};
use operator_kit::write::status::{self, ConditionStatus, ConditionUpdate, patch_status_if_changed};

use crate::grant;
use crate::operator::Context;
use connection::View;
use credentials::Seen;
use fault::Fault;
use links::Id;

/// Brings the link to one O-Cloud to what its OCloud says.
///
/// # Errors
/// What the SMO's API server refused or did not answer. An O-Cloud that cannot be used is no error but a condition.
pub async fn reconcile(o_cloud: Arc<OCloud>, context: Arc<Context>) -> Result<Outcome, Error> {
    let id = id(&o_cloud);
    let links = &context.links;
    if context.watches.is_ending(&id.0) && links.is_connected(&id) {
        // Secret, rights and OCloud go first, in any order: the connection is kept for the requests that go with them.
        return Ok(Outcome::Done);
    }
    let secret = o_cloud.secret();
    let owner = context.watches.namespaces.get(&ObjectRef::new(&secret.0));
    if grant::may_read_secrets(&secret.0, owner.as_deref(), &id.0) {
        match links.credentials(&id, &secret) {
            Seen::NotYet => {}
            Seen::Kubeconfig(file) => match kubeconfig::read(&file) {
                Ok(access) => links.connect(&id, access).await,
                Err(refused) => links.close(&id, Fault::new(reason::KUBECONFIG_REFUSED, unusable(&o_cloud, &refused))),
            },
            Seen::Missing => links.close(&id, missing(&o_cloud, "does not exist")),
            Seen::Empty => links.close(&id, missing(&o_cloud, "has neither the key kubeconfig nor the key value")),
            Seen::Forbidden => links.close(&id, forbidden(&o_cloud)),
        }
    } else {
        links.forbid(&id, not_granted(&o_cloud));
    }
    if context.watches.o_clouds.get(&ObjectRef::from_obj(o_cloud.as_ref())).is_none() {
        // It has gone meanwhile, and whoever was told of that was too early.
        links.forget(&id);
        return Ok(Outcome::Done);
    }
    let view = links.find(&id).view;
    if matches!(view, View::Connecting) {
        return Ok(Outcome::progressing());
    }
    write_status(&o_cloud, &context, &view).await?;
    Ok(match view {
        View::Broken(fault) => Outcome::blocked(fault.message),
        _ => Outcome::Done,
    })
}

/// What names the Secret in its message.
const OF_THE_SECRET: [&str; 3] = [reason::SECRET_MISSING, reason::SECRET_NOT_ALLOWED, reason::KUBECONFIG_REFUSED];

/// Namespace and name.
pub fn id(o_cloud: &OCloud) -> Id {
    (o_cloud.namespace().unwrap_or_default(), o_cloud.name_any())
}

fn secret_name(o_cloud: &OCloud) -> String {
    let (namespace, name) = o_cloud.secret();
    format!("Secret {namespace}/{name}")
}

fn missing(o_cloud: &OCloud, what: &str) -> Fault {
    Fault::new(
        reason::SECRET_MISSING,
        format!("{} {what}: put a kubeconfig of the O-Cloud there", secret_name(o_cloud)),
    )
}

fn unusable(o_cloud: &OCloud, refused: &kubeconfig::Refused) -> String {
    format!("{}: the kubeconfig is not used: {refused}", secret_name(o_cloud))
}

fn forbidden(o_cloud: &OCloud) -> Fault {
    let (namespace, _) = o_cloud.secret();
    Fault::new(
        reason::SECRET_NOT_ALLOWED,
        format!(
            "the operator may not read {}: kubectl create rolebinding focom-operator-secrets --namespace {namespace} \
             --clusterrole focom-operator-secrets --serviceaccount {}:focom-operator",
            secret_name(o_cloud),
            focom::OPERATOR_NAMESPACE
        ),
    )
}

/// The same words whether the Secret, or its Namespace, exists or not.
fn not_granted(o_cloud: &OCloud) -> Fault {
    let ((owner, _), asker) = (o_cloud.secret(), o_cloud.namespace().unwrap_or_default());
    Fault::new(
        reason::SECRET_NOT_ALLOWED,
        format!(
            "Secrets of namespace {owner} are not for OClouds of namespace {asker}: move the Secret, or annotate Namespace \
             {owner} with {}={asker}",
            focom::SECRETS_FOR_ANNOTATION
        ),
    )
}

async fn write_status(o_cloud: &OCloud, context: &Context, view: &View) -> Result<(), Error> {
    let new = assess(o_cloud, view, Timestamp::now());
    let api = Api::<OCloud>::namespaced(context.client.clone(), &o_cloud.namespace().unwrap_or_default());
    let old = o_cloud.status.as_ref();
    patch_status_if_changed(&api, o_cloud, old, &new, focom::FIELD_MANAGER).await?;
    let reason_of =
        |status: &OCloudStatus| status::find(&status.conditions, conditions::READY).map(|ready| ready.reason.clone());
    let (was, is) = (old.and_then(reason_of), reason_of(&new));
    if was != is {
        let regarding = o_cloud.object_ref(&());
        match view {
            View::Broken(fault) => context.events.warning(&regarding, fault.reason, "Connect", &fault.message).await,
            _ => context.events.normal(&regarding, reason::READY, "Connect", "the O-Cloud answers").await,
        }
    }
    Ok(())
}

fn assess(o_cloud: &OCloud, view: &View, now: Timestamp) -> OCloudStatus {
    let mut new = o_cloud.status.clone().unwrap_or_default();
    let (status, reason, message) = match view {
        View::Open(open) => {
            new.server_version = Some(open.server_version.clone());
            let scope = if open.namespaced { "namespaced" } else { "cluster-scoped" };
            (ConditionStatus::True, reason::READY, format!("the O-Cloud answers; its ProvisioningRequests are {scope}"))
        }
        View::Broken(fault) if OF_THE_SECRET.contains(&fault.reason) => {
            (ConditionStatus::False, fault.reason, fault.message.clone())
        }
        View::Broken(fault) => {
            let message = format!("{} (the kubeconfig is in {})", fault.message, secret_name(o_cloud));
            (ConditionStatus::False, fault.reason, message)
        }
        View::Connecting => {
            (ConditionStatus::Unknown, reason::CONNECTING, "the O-Cloud has not answered yet".to_owned())
        }
    };
    let observed_generation = o_cloud.metadata.generation;
    let ready = ConditionUpdate { type_: conditions::READY, status, reason, message, observed_generation };
    status::set(&mut new.conditions, ready, now);
    new.observed_generation = observed_generation;
    new
}
