//! The watches: which kinds are watched, and which requests a change of each concerns.

use cluster_api::byoh::{BYOHOST_CRD, ByoHost, crd_resource};
use cluster_api::cluster::{Cluster, ClusterResourceSet};
use futures::future::BoxFuture;
use kube::core::{ApiResource, DynamicObject};
use kube::runtime::reflector::Store;
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt as _, runtime::reflector::ObjectRef};
use o2ims_types::{ClusterTemplate, ProvisioningRequest, names};
use operator_kit::cache::{CachedWatch, DeserializeGuard, SyncState};
use operator_kit::controller::{Controller, Trigger};
use operator_kit::metrics::Metrics;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::caches::Caches;
use crate::mappers::{
    cluster_of_request, hosts_of_cluster, hosts_of_request, owner, requests_for_cluster, requests_for_host,
    requests_for_request, requests_for_template, select,
};

/// A watch that has to be run, by the name of its kind.
pub type Task = (&'static str, Box<dyn FnOnce(CancellationToken) -> BoxFuture<'static, anyhow::Result<()>> + Send>);

const CLUSTER_API: &str = "Cluster API";
const KUBEADM_PROVIDERS: &str = "Cluster API's kubeadm providers";
const BYOH: &str = "Bring-Your-Own-Host provider (BYOH)";

/// Sets up every watch. Each one triggers the requests that its objects concern, some also hosts.
pub fn set_up(client: &Client, metrics: &Metrics, trigger: &Trigger<ProvisioningRequest>) -> Prepared {
    let (host_trigger, cluster_trigger) = (Trigger::<ByoHost>::new(), Trigger::<Cluster>::new());
    let root = watch_requests(client, metrics, trigger).triggers(&cluster_trigger, cluster_of_request);
    let requests = root.store();
    let mut setup =
        Setup { client, metrics, trigger, requests: requests.clone(), tasks: Vec::new(), states: Vec::new() };
    let (hosts, host_controller) = setup.watch_hosts(&host_trigger);
    let (clusters, cluster_controller) = setup.watch_clusters(&cluster_trigger, &host_trigger, &hosts);
    let (to_enqueue, all) = (host_trigger, hosts.clone());
    let root = root.on_delete(move |request| {
        for host in hosts_of_request(&all, request) {
            to_enqueue.enqueue(host);
        }
    });
    let caches = setup.caches(hosts, clusters);
    Prepared { caches, root, host_controller, cluster_controller, tasks: setup.tasks, states: setup.states }
}

fn watch_requests(
    client: &Client,
    metrics: &Metrics,
    trigger: &Trigger<ProvisioningRequest>,
) -> CachedWatch<ProvisioningRequest> {
    let api = Api::all(client.clone());
    let root = CachedWatch::new("provisioningrequests", api, watcher::Config::default(), metrics)
        .on_undecodable(
            "make its spec what the CustomResourceDefinition says, or remove its finalizer \
             o2ims.provisioning.oran.org/hosts and delete its Cluster; its hosts then come free",
        )
        .triggers(trigger, |request| vec![ObjectRef::from_obj(request)]);
    // A request that is deleted or edited may let another one go on.
    let all = root.store();
    root.triggers(trigger, move |changed| requests_for_request(&all, changed))
}

/// What [`set_up`] prepares.
pub struct Prepared {
    /// The caches.
    pub caches: Caches,
    /// The watch of the requests; it has to be run too.
    pub root: CachedWatch<ProvisioningRequest>,
    /// For hosts; it has to be run too.
    pub host_controller: Controller<ByoHost>,
    /// For Clusters; it has to be run too.
    pub cluster_controller: Controller<Cluster>,
    /// The other watches; each has to be run.
    pub tasks: Vec<Task>,
    /// State of each of the other watches, by its name.
    pub states: Vec<(&'static str, watch::Receiver<SyncState>)>,
}

struct Setup<'a> {
    client: &'a Client,
    metrics: &'a Metrics,
    trigger: &'a Trigger<ProvisioningRequest>,
    requests: Store<ProvisioningRequest>,
    tasks: Vec<Task>,
    states: Vec<(&'static str, watch::Receiver<SyncState>)>,
}

impl Setup<'_> {
    fn watch_hosts(&mut self, trigger: &Trigger<ByoHost>) -> (Store<ByoHost>, Controller<ByoHost>) {
        let all = self.requests.clone();
        let hosts = self
            .cached("byohosts", watcher::Config::default(), move |host: &ByoHost| requests_for_host(&all, host))
            // Agents report at short intervals, mostly the same.
            .ignore_unchanged()
            .triggers(trigger, |host| vec![ObjectRef::from_obj(host)]);
        let controller = Controller::new("byohost", &hosts, trigger, self.metrics);
        (self.add("byohosts", hosts), controller)
    }

    fn watch_clusters(
        &mut self,
        trigger: &Trigger<Cluster>,
        host_trigger: &Trigger<ByoHost>,
        hosts: &Store<ByoHost>,
    ) -> (Store<Cluster>, Controller<Cluster>) {
        let (all, addresses) = (self.requests.clone(), hosts.clone());
        let requests = move |cluster: &Cluster| requests_for_cluster(&all, &addresses, cluster);
        let clusters = self
            .cached("clusters", watcher::Config::default(), requests)
            .triggers(trigger, |cluster| vec![ObjectRef::from_obj(cluster)])
            .triggers(host_trigger, hosts_of_cluster(hosts.clone()))
            .on_relist(enqueue_all(host_trigger, hosts));
        let controller = Controller::new("cluster", &clusters, trigger, self.metrics);
        (self.add("clusters", clusters), controller)
    }

    /// Watches everything else.
    fn caches(&mut self, hosts: Store<ByoHost>, clusters: Store<Cluster>) -> Caches {
        let requests = self.requests.clone();
        let every = watcher::Config::default();
        let owned = watcher::Config::default().labels(names::REQUEST_UID_LABEL);
        let (for_templates, for_sets) = (requests.clone(), requests.clone());
        Caches {
            hosts,
            clusters,
            templates: self.watch("clustertemplates", every.clone(), move |template: &ClusterTemplate| {
                requests_for_template(&for_templates, template)
            }),
            resource_sets: self.watch("clusterresourcesets", every.clone(), move |set: &ClusterResourceSet| {
                let namespace = set.namespace();
                select(&for_sets, |request| request.namespace() == namespace)
            }),
            control_planes: self.watch("kubeadmcontrolplanes", every, owner(&requests)),
            machine_deployments: self.watch("machinedeployments", owned.clone(), owner(&requests)),
            machines: self.watch_changes("machines", owned.clone(), owner(&requests)),
            byo_clusters: self.watch("byoclusters", owned.clone(), owner(&requests)),
            machine_templates: self.watch("byomachinetemplates", owned.clone(), owner(&requests)),
            config_templates: self.watch("kubeadmconfigtemplates", owned.clone(), owner(&requests)),
            installer_templates: self.watch("k8sinstallerconfigtemplates", owned, owner(&requests)),
            byohost_crd: self.watch_crd(BYOHOST_CRD),
            providers: self.providers(),
            requests,
        }
    }

    /// For each provider the state of watches of its kinds; the watches have been added before.
    fn providers(&self) -> Vec<(&'static str, watch::Receiver<SyncState>)> {
        let state_of =
            |name: &str| self.states.iter().find(|(watch, _)| *watch == name).map(|(_, state)| state.clone());
        [
            (CLUSTER_API, "clusters"),
            (CLUSTER_API, "machinedeployments"),
            (KUBEADM_PROVIDERS, "kubeadmcontrolplanes"),
            (KUBEADM_PROVIDERS, "kubeadmconfigtemplates"),
            (BYOH, "byohosts"),
            (BYOH, "byomachinetemplates"),
        ]
        .into_iter()
        .filter_map(|(provider, watch)| Some((provider, state_of(watch)?)))
        .collect()
    }

    fn watch<K>(
        &mut self,
        name: &'static str,
        config: watcher::Config,
        concerns: impl Fn(&K) -> Vec<ObjectRef<ProvisioningRequest>> + Send + Sync + 'static,
    ) -> Store<K>
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static,
    {
        let cached = self.cached(name, config, concerns);
        self.add(name, cached)
    }

    /// As [`Setup::watch`], for what is written often without a change. Only for kinds of which every write of the
    /// operator itself shows in the record: a reconcile that waits for one must be triggered by it.
    fn watch_changes<K>(
        &mut self,
        name: &'static str,
        config: watcher::Config,
        concerns: impl Fn(&K) -> Vec<ObjectRef<ProvisioningRequest>> + Send + Sync + 'static,
    ) -> Store<K>
    where
        K: Resource<DynamicType = ()> + Clone + PartialEq + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static,
    {
        let cached = self.cached(name, config, concerns).ignore_unchanged();
        self.add(name, cached)
    }

    fn cached<K>(
        &self,
        name: &'static str,
        config: watcher::Config,
        concerns: impl Fn(&K) -> Vec<ObjectRef<ProvisioningRequest>> + Send + Sync + 'static,
    ) -> CachedWatch<K>
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static,
    {
        let api = Api::<DeserializeGuard<K>>::all(self.client.clone());
        CachedWatch::new(name, api, config, self.metrics).triggers(self.trigger, concerns)
    }

    /// One CustomResourceDefinition, by name. It tells the dialects apart, so it concerns every request.
    fn watch_crd(&mut self, crd: &str) -> Store<DynamicObject> {
        let resource: ApiResource = crd_resource();
        let config = watcher::Config::default().fields(&format!("metadata.name={crd}"));
        let api = Api::all_with(self.client.clone(), &resource);
        let all = self.requests.clone();
        self.add(
            "customresourcedefinitions",
            CachedWatch::new_with("customresourcedefinitions", api, config, self.metrics, resource)
                .triggers(self.trigger, move |_| select(&all, |_| true)),
        )
    }

    fn add<K>(&mut self, name: &'static str, cached: CachedWatch<K>) -> Store<K>
    where
        K: Resource + Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static,
        K::DynamicType: Eq + std::hash::Hash + Clone + Send + Sync,
    {
        let cached = cached.on_relist(enqueue_all(self.trigger, &self.requests));
        let store = cached.store();
        self.states.push((name, cached.state()));
        self.tasks.push((name, Box::new(move |stop| Box::pin(cached.run(stop)))));
        store
    }
}

/// After a list everything may have changed, also by what is not there any more.
fn enqueue_all<K>(trigger: &Trigger<K>, store: &Store<K>) -> impl Fn() + Send + Sync + 'static
where
    K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
{
    let (trigger, store) = (trigger.clone(), store.clone());
    move || trigger.enqueue_all(&store)
}
