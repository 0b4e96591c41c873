//! The operator as a process: settings, and what runs.

use std::sync::Arc;

use clap::Parser;
use kube::ResourceExt as _;
use o2ims_types::ProvisioningRequest;
use o2ims_types::names::{self, OPERATOR_NAMESPACE};
use operator_kit::cache::SyncState;
use operator_kit::controller::{Conflicts, Controller, Trigger};
use operator_kit::process::{ProcessParts, ProcessSettings};
use operator_kit::write::revisions::Revisions;

use crate::cluster_template::reconcile::reconcile as reconcile_template;
use crate::context::Context;
use crate::expectations::Expectations;
use crate::metrics::Metrics;
use crate::provisioner::byoh::contention::Locks;
use crate::provisioner::byoh::orphans;
use crate::provisioner::byoh::provisioner::Byoh;
use crate::provisioner::registry::Provisioners;
use crate::provisioning_request::reconcile::reconcile;
use crate::watches;

const NAME: &str = "o2ims-operator";

/// Creates Cluster API clusters from ProvisioningRequests, on exactly the requested hosts.
#[derive(Debug, Parser)]
#[command(name = NAME, version)]
#[command(mut_arg("lease_namespace", |arg| arg.default_value(OPERATOR_NAMESPACE)))]
pub struct Settings {
    /// What every operator has.
    #[command(flatten)]
    pub process: ProcessSettings,
}

/// Runs until SIGTERM or SIGINT, or until the lease is lost.
///
/// # Errors
/// When the API server cannot be configured or a part of the process ends by itself.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let ProcessParts { metrics, client, events, lease, readiness, admin, traces, mut process } =
        settings.process.start(NAME, env!("CARGO_PKG_VERSION")).await?;
    let trigger = Trigger::new();
    let prepared = watches::set_up(&client, &metrics, &trigger);

    readiness.add_watch("provisioningrequests", prepared.root.state());
    let mut controller = Controller::new("provisioningrequest", &prepared.root, &trigger, &metrics)
        .concurrency(settings.process.concurrency)
        .first(ProvisioningRequest::is_new)
        .events(events.clone())
        .when_leading(lease.leadership());
    let mut hosts = prepared
        .host_controller
        .events(events.clone())
        .after("provisioningrequests", prepared.root.state())
        .when_leading(lease.leadership());
    let mut clusters = prepared
        .cluster_controller
        .events(events.clone())
        .after("provisioningrequests", prepared.root.state())
        .when_leading(lease.leadership());
    let mut templates = prepared.template_controller.events(events.clone()).when_leading(lease.leadership());
    for (name, state) in &prepared.states {
        // The status of the requests reports a provider that is not installed; it does not make the operator unready.
        let known = state.clone();
        readiness.add(*name, move || *known.borrow() != SyncState::Syncing);
        controller = controller.after(*name, state.clone());
        hosts = hosts.after(*name, state.clone());
        clusters = clusters.after(*name, state.clone());
        templates = templates.after(*name, state.clone());
    }
    let all = &prepared.caches;
    let metrics = Metrics::new(&metrics, all.requests.all(), all.hosts.all(), all.machines.all());
    let context = Arc::new(Context {
        metrics,
        provisioners: Provisioners::new(vec![Box::new(Byoh {
            caches: prepared.caches.clone(),
            locks: Locks::new(move |request| trigger.enqueue(request)),
        })]),
        caches: prepared.caches,
        expectations: Expectations::default(),
        conflicts: Conflicts::default(),
        revisions: Revisions::new(client.clone(), events.clone(), names::REVISION_OF_LABEL, names::FIELD_MANAGER),
        client,
        events,
        traces,
    });
    let forgetting = Arc::clone(&context);
    let root = prepared.root.on_delete(move |request| forgetting.forget(&request.uid().unwrap_or_default()));
    process.service("admin", admin.run(process.service_stop()));
    process.service("lease", lease.run(process.service_stop()));
    process.service("watch provisioningrequests", root.run(process.service_stop()));
    for (name, task) in prepared.tasks {
        process.service(format!("watch {name}"), task(process.service_stop()));
    }
    process.work("byohost", hosts.run(process.work_stop(), Arc::clone(&context), orphans::reconcile_host));
    process.work("cluster", clusters.run(process.work_stop(), Arc::clone(&context), orphans::reconcile_cluster));
    process.work("clustertemplate", templates.run(process.work_stop(), Arc::clone(&context), reconcile_template));
    process.work("provisioningrequest", controller.run(process.work_stop(), context, reconcile));
    process.run().await
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
        assert_eq!(default("lease_namespace"), [OPERATOR_NAMESPACE]);
        assert_eq!(default("concurrency"), ["16"]);
    }
}
