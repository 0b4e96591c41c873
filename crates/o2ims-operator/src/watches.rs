//! The watches: which kinds are watched, and which requests a change of each concerns.

use cluster_api::Kind;
use cluster_api::byoh::{BYOHOST_CRD, ByoHost, crd_resource};
use cluster_api::cluster::{Cluster, ClusterResourceSet, ClusterResourceSetBinding};
use cluster_api::machine::Machine;
use futures::future::BoxFuture;
use kube::core::{ApiResource, DynamicObject};
use kube::runtime::reflector::Store;
use kube::runtime::watcher;
use kube::{Api, Client, Resource, runtime::reflector::ObjectRef};
use o2ims_types::{ClusterTemplate, ProvisioningRequest, names};
use operator_kit::cache::{CachedWatch, DeserializeGuard, SyncState};
use operator_kit::controller::{Controller, Trigger, references};
use operator_kit::metrics::Metrics;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::caches::{Caches, Clusters, Hosts, Machines, MarkedObjects, ProvidedKind, Requests, Templates};
use crate::mappers::{
    cluster_of_request, hosts_of_cluster, hosts_of_request, owner_of, requests_for_binding, requests_for_cluster,
    requests_for_host, requests_for_part, requests_for_request, requests_for_resource_set, requests_for_template,
};

/// A watch that has to be run, by the name of its kind.
pub type Task = (&'static str, Box<dyn FnOnce(CancellationToken) -> BoxFuture<'static, anyhow::Result<()>> + Send>);

const CLUSTER_API: &str = "Cluster API";
const KUBEADM_PROVIDERS: &str = "Cluster API's kubeadm providers";
const BYOH: &str = "Bring-Your-Own-Host provider (BYOH)";

/// Sets up every watch. Each one triggers the requests that its objects concern, some also hosts, Clusters and templates.
pub fn set_up(client: &Client, metrics: &Metrics, trigger: &Trigger<ProvisioningRequest>) -> Prepared {
    let (host_trigger, cluster_trigger) = (Trigger::<ByoHost>::new(), Trigger::<Cluster>::new());
    let (root, requests) = watch_requests(client, metrics, trigger);
    let root = root.triggers(&cluster_trigger, cluster_of_request);
    let mut setup =
        Setup { client, metrics, trigger, requests: requests.clone(), tasks: Vec::new(), states: Vec::new() };
    let template_trigger = Trigger::<ClusterTemplate>::new();
    let (hosts, host_controller) = setup.watch_hosts(&host_trigger);
    let (clusters, cluster_controller) = setup.watch_clusters(&cluster_trigger, &host_trigger, &hosts);
    let (to_enqueue, all) = (host_trigger, hosts.clone());
    let root = root.on_delete(move |request| to_enqueue.enqueue_each(hosts_of_request(&all, request)));
    let (templates, template_controller) = setup.watch_templates(&template_trigger);
    let byohost_crd = setup.watch_crd(BYOHOST_CRD, &template_trigger, &templates);
    let caches = setup.caches(hosts, clusters, templates, byohost_crd);
    let (tasks, states) = (setup.tasks, setup.states);
    Prepared { caches, root, host_controller, cluster_controller, template_controller, tasks, states }
}

fn watch_requests(
    client: &Client,
    metrics: &Metrics,
    trigger: &Trigger<ProvisioningRequest>,
) -> (CachedWatch<ProvisioningRequest>, Requests) {
    let api = Api::all(client.clone());
    let mut root = CachedWatch::new("provisioningrequests", api, watcher::Config::default(), metrics)
        .on_undecodable(
            "correct its spec to match the CustomResourceDefinition, or remove its finalizer \
             o2ims.provisioning.oran.org/hosts and delete its Cluster; its hosts are then released",
        )
        .triggers(trigger, |request| vec![ObjectRef::from_obj(request)]);
    // When a request is deleted or edited, another one may continue.
    let requests = Requests::new(root.objects());
    let all = requests.clone();
    (root.triggers(trigger, move |changed| requests_for_request(&all, changed)), requests)
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
    /// For templates; it has to be run too.
    pub template_controller: Controller<ClusterTemplate>,
    /// The other watches; each has to be run.
    pub tasks: Vec<Task>,
    /// State of each of the other watches, by its name.
    pub states: Vec<(&'static str, watch::Receiver<SyncState>)>,
}

struct Setup<'a> {
    client: &'a Client,
    metrics: &'a Metrics,
    trigger: &'a Trigger<ProvisioningRequest>,
    requests: Requests,
    tasks: Vec<Task>,
    states: Vec<(&'static str, watch::Receiver<SyncState>)>,
}

impl Setup<'_> {
    fn watch_hosts(&mut self, trigger: &Trigger<ByoHost>) -> (Hosts, Controller<ByoHost>) {
        let all = self.requests.clone();
        let mut watch = self
            .cached("byohosts", watcher::Config::default(), move |host: &ByoHost| requests_for_host(&all, host))
            // Agents report at short intervals, mostly the same.
            .ignore_unchanged()
            .triggers(trigger, |host| vec![ObjectRef::from_obj(host)]);
        let controller = Controller::new("byohost", &watch, trigger, self.metrics);
        let hosts = Hosts::new(watch.objects());
        self.add("byohosts", watch);
        (hosts, controller)
    }

    fn watch_clusters(
        &mut self,
        trigger: &Trigger<Cluster>,
        host_trigger: &Trigger<ByoHost>,
        hosts: &Hosts,
    ) -> (Clusters, Controller<Cluster>) {
        let (all, addresses) = (self.requests.clone(), hosts.clone());
        let requests = move |cluster: &Cluster| requests_for_cluster(&all, &addresses, cluster);
        let mut watch = self
            .cached("clusters", watcher::Config::default(), requests)
            .triggers(trigger, |cluster| vec![ObjectRef::from_obj(cluster)])
            .triggers(host_trigger, hosts_of_cluster(hosts.clone()))
            .on_relist(enqueue_all(host_trigger, hosts.all()));
        let controller = Controller::new("cluster", &watch, trigger, self.metrics);
        let clusters = Clusters::new(watch.objects());
        self.add("clusters", watch);
        (clusters, controller)
    }

    /// Watches everything else.
    fn caches(
        &mut self,
        hosts: Hosts,
        clusters: Clusters,
        templates: Templates,
        byohost_crd: Store<DynamicObject>,
    ) -> Caches {
        let requests = self.requests.clone();
        let every = watcher::Config::default();
        let marked = watcher::Config::default().labels(names::REQUEST_UID_LABEL);
        Caches {
            hosts,
            clusters,
            resource_sets: self.watch_resource_sets(&templates),
            resource_set_bindings: self.watch_resource_set_bindings(),
            templates,
            control_planes: self.watch_marked("kubeadmcontrolplanes", every.clone()),
            machine_deployments: self.watch_marked("machinedeployments", every.clone()),
            machines: self.watch_machines(marked.clone()),
            byo_clusters: self.watch_marked("byoclusters", every),
            machine_templates: self.watch_marked("byomachinetemplates", marked.clone()),
            config_templates: self.watch_marked("kubeadmconfigtemplates", marked.clone()),
            installer_templates: self.watch_marked("k8sinstallerconfigtemplates", marked),
            byohost_crd,
            providers: self.providers(),
            requests,
        }
    }

    /// A request depends on the spec of its template: the status, which this operator writes, does not concern it.
    fn watch_templates(&mut self, trigger: &Trigger<ClusterTemplate>) -> (Templates, Controller<ClusterTemplate>) {
        let requests = self.requests.clone();
        let mut watch = self
            .untriggered::<ClusterTemplate>("clustertemplates", watcher::Config::default())
            .triggers_on_spec(self.trigger, move |template| requests_for_template(&requests, template))
            .triggers(trigger, |template| vec![ObjectRef::from_obj(template)]);
        let controller = Controller::new("clustertemplate", &watch, trigger, self.metrics);
        let templates = Templates::new(watch.objects());
        self.add("clustertemplates", watch);
        (templates, controller)
    }

    fn watch_resource_sets(&mut self, templates: &Templates) -> Store<ClusterResourceSet> {
        let (requests, templates) = (self.requests.clone(), templates.clone());
        let watch = self.cached("clusterresourcesets", watcher::Config::default(), move |set| {
            requests_for_resource_set(&requests, &templates, set)
        });
        self.add("clusterresourcesets", watch)
    }

    fn watch_resource_set_bindings(&mut self) -> Store<ClusterResourceSetBinding> {
        let requests = self.requests.clone();
        let watch = self
            .cached("clusterresourcesetbindings", watcher::Config::default(), move |binding| {
                requests_for_binding(&requests, binding)
            })
            .ignore_unchanged();
        self.add("clusterresourcesetbindings", watch)
    }

    /// Agents of nodes report at short intervals, mostly the same. The operator writes no Machine itself, so no reconcile waits for
    /// the trigger of such a write.
    fn watch_machines(&mut self, config: watcher::Config) -> Machines {
        let requests = self.requests.clone();
        let owner = move |machine: &Machine| owner_of(&requests, machine);
        let mut watch = self.cached("machines", config, owner).ignore_unchanged();
        let machines = Machines::new(watch.objects());
        self.add("machines", watch);
        machines
    }

    fn watch_marked<K>(&mut self, name: &'static str, config: watcher::Config) -> MarkedObjects<K>
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static,
    {
        let requests = self.requests.clone();
        let mut watch = self.cached(name, config, move |object: &K| requests_for_part(&requests, object));
        let objects = MarkedObjects::new(watch.objects());
        self.add(name, watch);
        objects
    }

    /// For each provider some of its kinds, whose watches have been added before.
    fn providers(&self) -> Vec<ProvidedKind> {
        let provided = |(provider, kind): (&'static str, Kind)| {
            let (_, state) = self.states.iter().find(|(watch, _)| *watch == kind.plural())?;
            Some(ProvidedKind { provider, kind, state: state.clone() })
        };
        [
            (CLUSTER_API, Kind::Cluster),
            (CLUSTER_API, Kind::MachineDeployment),
            (KUBEADM_PROVIDERS, Kind::KubeadmControlPlane),
            (KUBEADM_PROVIDERS, Kind::KubeadmConfigTemplate),
            (BYOH, Kind::ByoHost),
            (BYOH, Kind::ByoMachineTemplate),
        ]
        .into_iter()
        .filter_map(provided)
        .collect()
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
        self.untriggered(name, config).triggers(self.trigger, concerns)
    }

    /// A watch that triggers nothing yet.
    fn untriggered<K>(&self, name: &'static str, config: watcher::Config) -> CachedWatch<K>
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static,
    {
        let api = Api::<DeserializeGuard<K>>::all(self.client.clone());
        CachedWatch::new(name, api, config, self.metrics)
    }

    /// One CustomResourceDefinition, by name. It tells the variants of BYOH apart, so it concerns every request and every template.
    fn watch_crd(
        &mut self,
        crd: &str,
        template_trigger: &Trigger<ClusterTemplate>,
        templates: &Templates,
    ) -> Store<DynamicObject> {
        let resource: ApiResource = crd_resource();
        let config = watcher::Config::default().fields(&format!("metadata.name={crd}"));
        let api = Api::all_with(self.client.clone(), &resource);
        let (requests, templates) = (self.requests.clone(), templates.clone());
        self.add(
            "customresourcedefinitions",
            CachedWatch::new_with("customresourcedefinitions", api, config, self.metrics, resource)
                .triggers(self.trigger, move |_| references(&requests.all().state()))
                .triggers(template_trigger, move |_| references(&templates.all().state())),
        )
    }

    fn add<K>(&mut self, name: &'static str, cached: CachedWatch<K>) -> Store<K>
    where
        K: Resource + Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static,
        K::DynamicType: Eq + std::hash::Hash + Clone + Send + Sync,
    {
        let cached = cached.on_relist(enqueue_all(self.trigger, self.requests.all()));
        let store = cached.store();
        self.states.push((name, cached.state()));
        self.tasks.push((name, Box::new(move |stop| Box::pin(cached.run(stop)))));
        store
    }
}

/// After a list everything may have changed, also by objects that are gone.
fn enqueue_all<K>(trigger: &Trigger<K>, store: &Store<K>) -> impl Fn() + Send + Sync + 'static
where
    K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
{
    let (trigger, store) = (trigger.clone(), store.clone());
    move || trigger.enqueue_all(&store)
}
