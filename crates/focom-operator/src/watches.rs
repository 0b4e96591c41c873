//! Sets up the watches of the SMO's objects, and which changes trigger which reconciles.

use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt as _};
use o2ims_types::{FocomProvisioningRequest, OCloud, TemplateInfo};
use operator_kit::cache::{CachedWatch, DeserializeGuard, SyncState};
use operator_kit::controller::{Trigger, references};
use operator_kit::metrics::Metrics;
use operator_kit::process::Process;
use serde::de::DeserializeOwned;
use tokio::sync::watch::Receiver;

use crate::authorization::Namespace;
use crate::caches::{Caches, OClouds, Requests, Templates};

/// The triggers of the controllers.
#[derive(Clone, Default)]
pub struct Triggers {
    /// Of requests.
    pub requests: Trigger<FocomProvisioningRequest>,
    /// Of OClouds.
    pub o_clouds: Trigger<OCloud>,
    /// Of TemplateInfos.
    pub templates: Trigger<TemplateInfo>,
}

/// The watches that [`set_up`] prepares; each of them has to be run.
pub struct Prepared {
    /// The caches that the watches fill.
    pub caches: Caches,
    /// The watch of requests.
    pub requests: CachedWatch<FocomProvisioningRequest>,
    /// The watch of OClouds.
    pub o_clouds: CachedWatch<OCloud>,
    /// The watch of TemplateInfos.
    pub templates: CachedWatch<TemplateInfo>,
    /// The watch of Namespaces.
    pub namespaces: CachedWatch<Namespace>,
}

impl Prepared {
    /// State of each watch, by its name.
    pub fn states(&self) -> [(&'static str, Receiver<SyncState>); 4] {
        [
            ("focomprovisioningrequests", self.requests.state()),
            ("oclouds", self.o_clouds.state()),
            ("templateinfoes", self.templates.state()),
            ("namespaces", self.namespaces.state()),
        ]
    }

    /// Adds every watch to the process.
    pub fn run(self, process: &mut Process) {
        process.service("watch focomprovisioningrequests", self.requests.run(process.service_stop()));
        process.service("watch oclouds", self.o_clouds.run(process.service_stop()));
        process.service("watch templateinfoes", self.templates.run(process.service_stop()));
        process.service("watch namespaces", self.namespaces.run(process.service_stop()));
    }
}

/// Sets up every watch. A change of an object triggers the requests that refer to it, and its own reconcile.
pub fn set_up(client: &Client, metrics: &Metrics, triggers: &Triggers) -> Prepared {
    let mut requests = watch::<FocomProvisioningRequest>("focomprovisioningrequests", client, metrics)
        .on_undecodable(
            "correct its spec by the schema in the CustomResourceDefinition; to delete it, remove its finalizer \
             focom.nephio.org/finalizer too, and delete its ProvisioningRequest on the O-Cloud",
        )
        .triggers(&triggers.requests, |request| vec![ObjectRef::from_obj(request)]);
    let all = Requests::new(requests.objects());
    let of_o_cloud = all.clone();
    let mut o_clouds = watch::<OCloud>("oclouds", client, metrics)
        .triggers(&triggers.o_clouds, |o_cloud| vec![ObjectRef::from_obj(o_cloud)])
        .triggers(&triggers.requests, move |o_cloud| {
            references(&of_o_cloud.for_o_cloud(&o_cloud.namespace().unwrap_or_default(), &o_cloud.name_any()))
        });
    let of_template = all.clone();
    let mut templates = watch::<TemplateInfo>("templateinfoes", client, metrics)
        .triggers(&triggers.templates, |template| vec![ObjectRef::from_obj(template)])
        .triggers(&triggers.requests, move |template| {
            let (namespace, spec) = (template.namespace().unwrap_or_default(), &template.spec);
            references(&of_template.for_template(&namespace, &spec.template_name, &spec.template_version))
        });
    let (all_o_clouds, all_templates) = (OClouds::new(o_clouds.objects()), Templates::new(templates.objects()));
    let (of_namespace, with_secret) = (all.clone(), all_o_clouds.clone());
    let namespaces = watch::<Namespace>("namespaces", client, metrics)
        .ignore_unchanged()
        .triggers(&triggers.requests, move |namespace| {
            references(&of_namespace.for_o_cloud_namespace(&namespace.name_any()))
        })
        .triggers(&triggers.o_clouds, move |namespace| references(&with_secret.of_namespace(&namespace.name_any())));
    let caches =
        Caches { requests: all, o_clouds: all_o_clouds, templates: all_templates, namespaces: namespaces.store() };
    Prepared { caches, requests, o_clouds, templates, namespaces }
}

fn watch<K>(name: &'static str, client: &Client, metrics: &Metrics) -> CachedWatch<K>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static,
{
    let api = Api::<DeserializeGuard<K>>::all(client.clone());
    CachedWatch::new(name, api, watcher::Config::default(), metrics)
}
