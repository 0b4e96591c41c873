//! The watches: which kinds are watched, and which requests a change of each concerns.

use cluster_api::byoh::{BYOHOST_CRD, ByoHost, crd_resource};
use cluster_api::cluster::{Cluster, ClusterResourceSet};
use cluster_api::labels::CLUSTER_NAME_LABEL;
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
use crate::provisioner::byoh::contention::{contends, wants_endpoint_of};
use crate::provisioner::byoh::marks::{MarkedCluster as _, MarkedHost as _};
use crate::request::key;

/// A watch that has to be run, by the name of its kind.
pub type Task = (&'static str, Box<dyn FnOnce(CancellationToken) -> BoxFuture<'static, anyhow::Result<()>> + Send>);

const CLUSTER_API: &str = "Cluster API";
const KUBEADM_PROVIDERS: &str = "Cluster API's kubeadm providers";
const BYOH: &str = "Bring-Your-Own-Host provider (BYOH)";

/// Sets up every watch. Each one triggers the requests that its objects concern, some also hosts.
pub fn set_up(client: &Client, metrics: &Metrics, trigger: &Trigger<ProvisioningRequest>) -> Prepared {
    let (host_trigger, cluster_trigger) = (Trigger::<ByoHost>::new(), Trigger::<Cluster>::new());
    let root = CachedWatch::<ProvisioningRequest>::new(
        "provisioningrequests",
        Api::all(client.clone()),
        watcher::Config::default(),
        metrics,
    )
    .on_undecodable(
        "make its spec what the CustomResourceDefinition says, or remove its finalizer \
         o2ims.provisioning.oran.org/hosts and delete its Cluster; its hosts then come free",
    )
    .triggers(trigger, |request| vec![ObjectRef::from_obj(request)]);
    let requests = root.store();
    // A request that goes away, or changes its mind, may let another one go on.
    let all = requests.clone();
    let root = root.triggers(trigger, move |changed| requests_for_request(&all, changed));

    let mut setup =
        Setup { client, metrics, trigger, requests: requests.clone(), tasks: Vec::new(), states: Vec::new() };
    let every = watcher::Config::default();
    let made = watcher::Config::default().labels(names::REQUEST_UID_LABEL);

    let all = requests.clone();
    let templates = setup.watch("clustertemplates", every.clone(), move |template: &ClusterTemplate| {
        requests_for_template(&all, template)
    });
    let all = requests.clone();
    // Agents report at short intervals, mostly the same.
    let hosts = setup
        .reflection("byohosts", every.clone(), move |host: &ByoHost| requests_for_host(&all, host))
        .ignore_unchanged()
        .triggers(&host_trigger, |host| vec![ObjectRef::from_obj(host)]);
    let host_controller = Controller::new("byohost", &hosts, &host_trigger, metrics);
    let hosts = setup.add("byohosts", hosts);
    let (touched, all) = (host_trigger.clone(), hosts.clone());
    let root = root.on_delete(move |request| {
        for host in hosts_of_request(&all, request) {
            touched.enqueue(host);
        }
    });
    let all = requests.clone();
    let addresses = hosts.clone();
    let clusters = setup
        .reflection("clusters", every.clone(), move |cluster: &Cluster| requests_for_cluster(&all, &addresses, cluster))
        .triggers(&cluster_trigger, |cluster| vec![ObjectRef::from_obj(cluster)])
        .triggers(&host_trigger, hosts_of_cluster(hosts.clone()))
        .on_relist(touch_all(&host_trigger, &hosts));
    let cluster_controller = Controller::new("cluster", &clusters, &cluster_trigger, metrics);
    let root = root.triggers(&cluster_trigger, cluster_of_request);
    let clusters = setup.add("clusters", clusters);
    let all = requests.clone();
    let resource_sets = setup.watch("clusterresourcesets", every.clone(), move |set: &ClusterResourceSet| {
        let namespace = set.namespace();
        select(&all, |request| request.namespace() == namespace)
    });
    let control_planes = setup.watch("kubeadmcontrolplanes", every, owner(&requests));
    let machine_deployments = setup.watch("machinedeployments", made.clone(), owner(&requests));
    let machines = setup.watch_changes("machines", made.clone(), owner(&requests));
    let byo_clusters = setup.watch("byoclusters", made.clone(), owner(&requests));
    let machine_templates = setup.watch("byomachinetemplates", made.clone(), owner(&requests));
    let config_templates = setup.watch("kubeadmconfigtemplates", made.clone(), owner(&requests));
    let installer_templates = setup.watch("k8sinstallerconfigtemplates", made, owner(&requests));
    let byohost_crd = setup.watch_crd(BYOHOST_CRD);

    let state_of = |name: &str| setup.states.iter().find(|(watch, _)| *watch == name).map(|(_, state)| state.clone());
    let providers = [
        (CLUSTER_API, "clusters"),
        (CLUSTER_API, "machinedeployments"),
        (KUBEADM_PROVIDERS, "kubeadmcontrolplanes"),
        (KUBEADM_PROVIDERS, "kubeadmconfigtemplates"),
        (BYOH, "byohosts"),
        (BYOH, "byomachinetemplates"),
    ]
    .into_iter()
    .filter_map(|(provider, watch)| Some((provider, state_of(watch)?)))
    .collect();
    Prepared {
        caches: Caches {
            requests,
            templates,
            hosts,
            clusters,
            control_planes,
            machine_deployments,
            machines,
            byo_clusters,
            machine_templates,
            config_templates,
            installer_templates,
            resource_sets,
            byohost_crd,
            providers,
        },
        root,
        host_controller,
        cluster_controller,
        tasks: setup.tasks,
        states: setup.states,
    }
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
    fn watch<K>(
        &mut self,
        name: &'static str,
        config: watcher::Config,
        concerns: impl Fn(&K) -> Vec<ObjectRef<ProvisioningRequest>> + Send + Sync + 'static,
    ) -> Store<K>
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static,
    {
        let reflection = self.reflection(name, config, concerns);
        self.add(name, reflection)
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
        let reflection = self.reflection(name, config, concerns).ignore_unchanged();
        self.add(name, reflection)
    }

    fn reflection<K>(
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

    fn add<K>(&mut self, name: &'static str, reflection: CachedWatch<K>) -> Store<K>
    where
        K: Resource + Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static,
        K::DynamicType: Eq + std::hash::Hash + Clone + Send + Sync,
    {
        let reflection = reflection.on_relist(touch_all(self.trigger, &self.requests));
        let store = reflection.store();
        self.states.push((name, reflection.state()));
        self.tasks.push((name, Box::new(move |stop| Box::pin(reflection.run(stop)))));
        store
    }
}

/// After a list everything may have changed, also by what is not there any more.
fn touch_all<K>(trigger: &Trigger<K>, store: &Store<K>) -> impl Fn() + Send + Sync + 'static
where
    K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
{
    let (trigger, store) = (trigger.clone(), store.clone());
    move || trigger.enqueue_all(&store)
}

fn select(
    requests: &Store<ProvisioningRequest>,
    concerned: impl Fn(&ProvisioningRequest) -> bool,
) -> Vec<ObjectRef<ProvisioningRequest>> {
    requests
        .state()
        .iter()
        .filter(|request| concerned(request))
        .map(|request| ObjectRef::from_obj(request.as_ref()))
        .collect()
}

/// The request that an object was made for.
fn owner<K: Resource>(
    requests: &Store<ProvisioningRequest>,
) -> impl Fn(&K) -> Vec<ObjectRef<ProvisioningRequest>> + Send + Sync + 'static {
    let requests = requests.clone();
    move |object| owner_of(&requests, object)
}

/// The request whose UID is on the object. The label is what everything carries, also what Cluster API makes from the
/// operator's templates. Where somebody took it off, or the request was restored from a backup with another UID, the request is the
/// one that asks for the cluster by its name.
pub fn owner_of<K: Resource>(requests: &Store<ProvisioningRequest>, object: &K) -> Vec<ObjectRef<ProvisioningRequest>> {
    let uid = object.labels().get(names::REQUEST_UID_LABEL);
    let known = uid.and_then(|uid| requests.find(|request| request.metadata.uid.as_ref() == Some(uid)));
    if let Some(request) = known {
        return vec![ObjectRef::from_obj(request.as_ref())];
    }
    let Some(cluster) = object.labels().get(CLUSTER_NAME_LABEL) else { return Vec::new() };
    let namespace = object.namespace();
    select(requests, |request| {
        request.namespace() == namespace && request.spec.template_parameters.cluster_name.as_ref() == Some(cluster)
    })
}

/// Requests that name the template.
pub fn requests_for_template(
    requests: &Store<ProvisioningRequest>,
    template: &ClusterTemplate,
) -> Vec<ObjectRef<ProvisioningRequest>> {
    let (name, version) = (&template.spec.name, &template.spec.version);
    select(requests, |request| request.spec.template_name == *name && request.spec.template_version == *version)
}

/// Requests that want the cluster name or the endpoint that the Cluster has.
pub fn requests_for_cluster(
    requests: &Store<ProvisioningRequest>,
    hosts: &Store<ByoHost>,
    cluster: &Cluster,
) -> Vec<ObjectRef<ProvisioningRequest>> {
    let (namespace, name) = (cluster.namespace(), cluster.name_any());
    select(requests, |request| {
        wants_endpoint_of(request, cluster, hosts)
            || request.namespace() == namespace
                && request.spec.template_parameters.cluster_name.as_deref() == Some(&name)
    })
}

/// The request that holds the host, and those that ask for it or for its id.
pub fn requests_for_host(requests: &Store<ProvisioningRequest>, host: &ByoHost) -> Vec<ObjectRef<ProvisioningRequest>> {
    let (namespace, name, id) = (host.namespace(), host.name_any(), host.host_id());
    let mut concerned = select(requests, |request| {
        request.namespace() == namespace
            && request
                .spec
                .template_parameters
                .hosts
                .iter()
                .any(|hosts| hosts.all().any(|asked| asked.name() == name || Some(asked.id().as_str()) == id))
    });
    concerned.extend(owner_of(requests, host));
    concerned
}

/// The hosts that a request which goes away holds: one that was restored from a backup by its name, as its mark is another UID.
fn hosts_of_request(hosts: &Store<ByoHost>, request: &ProvisioningRequest) -> Vec<ObjectRef<ByoHost>> {
    let (uid, key) = (request.metadata.uid.as_deref(), key(request));
    let held = hosts.state().into_iter().filter(|host| {
        uid.is_some() && host.holder() == uid || host.annotations().get(names::REQUEST_ANNOTATION) == Some(&key)
    });
    held.map(|host| ObjectRef::from_obj(host.as_ref())).collect()
}

/// The Cluster that a request asks for, for when it goes away.
fn cluster_of_request(request: &ProvisioningRequest) -> Vec<ObjectRef<Cluster>> {
    let name = request.spec.template_parameters.cluster_name.as_deref();
    name.map(|name| ObjectRef::new(name).within(&request.namespace().unwrap_or_default())).into_iter().collect()
}

/// The hosts that were held for a Cluster that goes away or was never let go.
fn hosts_of_cluster(hosts: Store<ByoHost>) -> impl Fn(&Cluster) -> Vec<ObjectRef<ByoHost>> + Send + Sync + 'static {
    move |cluster| {
        let ends = cluster.metadata.deletion_timestamp.is_some() || cluster.is_creating();
        let holder = cluster.labels().get(names::REQUEST_UID_LABEL).filter(|_| ends);
        let Some(holder) = holder else { return Vec::new() };
        hosts
            .state()
            .iter()
            .filter(|host| host.holder() == Some(holder))
            .map(|host| ObjectRef::from_obj(host.as_ref()))
            .collect()
    }
}

/// Requests that want the same cluster name or endpoint.
pub fn requests_for_request(
    requests: &Store<ProvisioningRequest>,
    changed: &ProvisioningRequest,
) -> Vec<ObjectRef<ProvisioningRequest>> {
    select(requests, |other| contends(other, changed, true))
}
