//! The operator as a process: settings, and what runs.

use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser;
use k8s_openapi::api::core::v1;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client, ResourceExt as _};
use o2ims_types::FocomProvisioningRequest;
use o2ims_types::names::focom;
use operator_kit::controller::{Conflicts, Controller};
use operator_kit::metrics::Metrics;
use operator_kit::process::{ProcessParts, ProcessSettings, TaskSpawner};
use operator_kit::write::revisions::Revisions;

use crate::context::Context;
use crate::focom_provisioning_request::expectations::Expectations;
use crate::o_cloud::connection::ConnectionSettings;
use crate::o_cloud::orphans;
use crate::o_cloud::registry::{self, ConnectionRegistry, NamespacedName};
use crate::watches::{self, Prepared, Triggers};
use crate::{focom_provisioning_request, metrics, o_cloud, template_info};

const NAME: &str = "focom-operator";
/// Most requests wait for an answer of an API server. Each O-Cloud that answers slowly holds a few of these (see
/// [`o_cloud::limiter`]).
const CONCURRENCY: &str = "256";

/// Turns FocomProvisioningRequests into ProvisioningRequests on O-Clouds and copies their state to the SMO.
#[derive(Debug, Parser)]
#[command(name = NAME, version)]
#[command(mut_arg("lease_namespace", |arg| arg.default_value(focom::OPERATOR_NAMESPACE)))]
#[command(mut_arg("concurrency", |arg| arg.default_value(CONCURRENCY)))]
pub struct Settings {
    /// Settings that every operator has.
    #[command(flatten)]
    pub process: ProcessSettings,
    /// The oCloudId that means this very cluster.
    #[arg(long, env = "LOCAL_O_CLOUD", default_value = focom::LOCAL_O_CLOUD)]
    pub local_o_cloud: String,
    /// Identifies this SMO on O-Clouds: a label value. Default: the UID of the Namespace kube-system.
    #[arg(long, env = "SMO_ID", value_parser = label_value)]
    pub smo_id: Option<String>,
}

/// By the rule of the Kubernetes API for label values.
fn label_value(text: &str) -> Result<String, &'static str> {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let outer = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    if bytes.len() <= 63 && bytes.iter().all(|byte| inner(*byte)) && outer(bytes.first()) && outer(bytes.last()) {
        Ok(text.to_owned())
    } else {
        Err("must be 1 to 63 letters, digits, '-', '_' or '.', and begin and end with a letter or digit")
    }
}

/// Runs until SIGTERM or SIGINT, or until the lease is lost.
///
/// # Errors
/// When the API server cannot be configured or a part of the process ends by itself.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let ProcessParts { metrics, client, events, lease, readiness, admin, traces, mut process } =
        settings.process.start(NAME, env!("CARGO_PKG_VERSION")).await?;
    let smo = match settings.smo_id {
        Some(id) => id,
        None => cluster_id(&client).await?,
    };
    tracing::info!(smo, "id of this SMO, a label of its ProvisioningRequests");

    let triggers = Triggers::default();
    let prepared = watches::set_up(&client, &metrics, &triggers);
    metrics::register(&metrics, prepared.caches.requests.all(), prepared.caches.o_clouds.all());
    let (tasks, runner) = TaskSpawner::new();
    let connection_settings = connection_settings(smo, &metrics, &prepared, &triggers);
    let local_id = settings.local_o_cloud;
    let connections = ConnectionRegistry::new(client.clone(), connection_settings, tasks, local_id.clone());
    let context = Arc::new(Context {
        caches: prepared.caches.clone(),
        requests_state: prepared.requests.state(),
        connections,
        expectations: Expectations::default(),
        conflicts: Conflicts::default(),
        revisions: Revisions::new(client.clone(), events.clone(), focom::REVISION_OF_LABEL, focom::FIELD_MANAGER),
        client,
        events: events.clone(),
        traces,
        local_id,
    });
    let prepared = look_for_orphans(forget_what_is_deleted(prepared, &context), &context, &triggers);
    let leadership = || lease.leadership();
    let mut requests = Controller::new("focomprovisioningrequest", &prepared.requests, &triggers.requests, &metrics)
        .concurrency(settings.process.concurrency)
        .first(FocomProvisioningRequest::is_new)
        .events(events.clone())
        .when_leading(leadership());
    let mut o_clouds = Controller::new("ocloud", &prepared.o_clouds, &triggers.o_clouds, &metrics)
        .events(events.clone())
        .when_leading(leadership());
    let templates = Controller::new("templateinfo", &prepared.templates, &triggers.templates, &metrics)
        .events(events)
        .when_leading(leadership());
    for (name, state) in prepared.states() {
        requests = requests.after(name, state.clone());
        o_clouds = o_clouds.after(name, state.clone());
        readiness.add_watch(name, state);
    }

    process.service("admin", admin.run(process.service_stop()));
    process.service("lease", lease.run(process.service_stop()));
    process.service("O-Clouds", runner.run(process.service_stop()));
    prepared.run(&mut process);
    let stop = || process.work_stop();
    let templates = templates.run(stop(), Arc::clone(&context), template_info::reconcile::reconcile);
    let o_clouds = o_clouds.run(stop(), Arc::clone(&context), o_cloud::reconcile::reconcile);
    let requests = requests.run(stop(), context, focom_provisioning_request::reconcile::reconcile);
    process.work("templateinfo", templates);
    process.work("ocloud", o_clouds);
    process.work("focomprovisioningrequest", requests);
    process.run().await
}

fn connection_settings(smo: String, metrics: &Metrics, prepared: &Prepared, triggers: &Triggers) -> ConnectionSettings {
    ConnectionSettings {
        smo,
        metrics: metrics.clone(),
        trigger: triggers.requests.clone(),
        o_clouds_trigger: triggers.o_clouds.clone(),
        requests: prepared.caches.requests.clone(),
        o_clouds: prepared.caches.o_clouds.clone(),
    }
}

/// What this process remembers of an object is forgotten when the object is deleted.
fn forget_what_is_deleted(prepared: Prepared, context: &Arc<Context>) -> Prepared {
    let of_o_cloud = Arc::clone(context);
    let o_clouds = prepared.o_clouds.on_delete(move |o_cloud| {
        let id = registry::id(o_cloud);
        if !of_o_cloud.caches.is_terminating(&id.0) {
            of_o_cloud.connections.forget(&id);
        }
    });
    let of_namespace = Arc::clone(context);
    let namespaces = prepared.namespaces.on_delete(move |namespace| {
        let o_clouds = &of_namespace.caches.o_clouds;
        let exists = |id: &NamespacedName| o_clouds.get(&id.0, &id.1).is_some();
        of_namespace.connections.forget_namespace(&namespace.name_any(), exists);
    });
    let of_request = Arc::clone(context);
    let requests = prepared.requests.on_delete(move |request| {
        let uid = request.uid().unwrap_or_default();
        of_request.expectations.forget(&uid);
        of_request.conflicts.forget(&uid);
        of_request.revisions.forget(&uid);
    });
    Prepared { requests, o_clouds, namespaces, ..prepared }
}

/// A request that comes, goes or is changed while its O-Cloud has a ProvisioningRequest of its name may make an orphan of that, or
/// take it back; the OCloud tells.
fn look_for_orphans(prepared: Prepared, context: &Arc<Context>, triggers: &Triggers) -> Prepared {
    let context = Arc::clone(context);
    let requests = prepared.requests.triggers_on_spec(&triggers.o_clouds, move |request| {
        let (namespace, name) = request.o_cloud();
        let o_cloud = context.caches.o_clouds.get(namespace, name);
        let concerned = o_cloud.filter(|o_cloud| orphans::are_told(o_cloud) || context.connections.has_remote(request));
        concerned.iter().map(|o_cloud| ObjectRef::from_obj(o_cloud.as_ref())).collect()
    });
    Prepared { requests, ..prepared }
}

/// UID of the Namespace kube-system, which is commonly used as the id of a cluster.
async fn cluster_id(client: &Client) -> anyhow::Result<String> {
    let found = Api::<v1::Namespace>::all(client.clone()).get_metadata("kube-system").await;
    let found = found.context("reading the Namespace kube-system, whose UID identifies this SMO (or set --smo-id)")?;
    found.uid().context("the Namespace kube-system has no UID")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn settings_have_the_defaults_of_this_operator() {
        let command = Settings::command();
        command.clone().debug_assert();
        let default = |id: &str| {
            let argument = command.get_arguments().find(|argument| argument.get_id() == id).expect("exists");
            argument.get_default_values().to_vec()
        };
        assert_eq!(default("lease_namespace"), [focom::OPERATOR_NAMESPACE]);
        assert_eq!(default("concurrency"), [CONCURRENCY]);
    }
}
