//! A model of what surrounds the pure steps: an SMO with its requests, O-Clouds with their ProvisioningRequests, the
//! operator's caches, which lag behind, and the moves of O2IMS operators, people and failures. Nothing here answers a
//! network call.
//!
//! Reconciles go through the real `observe`, `decide` and `assess`. The model carries the steps out with the
//! preconditions that API servers check, and checks the rules of every single write against what is true at that
//! moment.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use focom_operator::caches::{Caches, OClouds, Requests, Templates};
use focom_operator::focom_provisioning_request::adopt::{self, SourceGeneration};
use focom_operator::focom_provisioning_request::annotations::{orphans_remote, skips_remote_deletion};
use focom_operator::focom_provisioning_request::decision::decide;
use focom_operator::focom_provisioning_request::expectations::Expectations;
use focom_operator::focom_provisioning_request::manifest::{at_revision_of, contains, manifest};
use focom_operator::focom_provisioning_request::observe::{Observed, Relation, observe, relation};
use focom_operator::focom_provisioning_request::phase::ADOPTION_REASONS;
use focom_operator::focom_provisioning_request::plan::Step;
use focom_operator::focom_provisioning_request::status::{assess, ready_reason};
use focom_operator::focom_provisioning_request::validate::Rejection;
use focom_operator::focom_provisioning_request::write_error::WriteError;
use focom_operator::o_cloud::connection::{ConnectionState, ReadyOCloud};
use focom_operator::o_cloud::error::ConnectionError;
use focom_operator::o_cloud::registry::ConnectionSnapshot;
use focom_operator::o_cloud::remote_request::RemoteRequest;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::core::ApiResource;
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher::Event;
use o2ims_types::conditions::focom::reason;
use o2ims_types::names::{self, focom};
use o2ims_types::{FocomProvisioningRequest, FocomProvisioningRequestStatus, OCloud};
use operator_kit::cache::CachedObjects;
use operator_kit::controller::Class;
use operator_kit::controller::Error;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The namespace of everything.
pub const NAMESPACE: &str = "team";
/// The requests. The second one has the name that the first one's ProvisioningRequest has.
pub const NAMES: [&str; 2] = ["edge", "edge-o2ims"];
/// Names that ProvisioningRequests of these requests may have.
const REMOTE_NAMES: [&str; 3] = ["edge-o2ims", "edge", "edge-o2ims-o2ims"];
const SMO: &str = "smo";
const REMOTE_FINALIZER: &str = "test/finalizer";

/// An O-Cloud.
pub struct Site {
    fingerprint: &'static str,
    reachable: bool,
    /// The ProvisioningRequests, by name.
    pub objects: BTreeMap<String, Value>,
    /// What the operator's watch shows of them.
    cache: BTreeMap<String, Value>,
    /// What a restore of the O-Cloud may bring back.
    vanished: Vec<Value>,
}

/// What becomes of a write to an O-Cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is carried out and answered.
    Answered,
    /// It is carried out, and the answer is lost.
    AnswerLost,
    /// It is not answered; a create is carried out later.
    Late,
}

/// A create that was not answered and may be carried out later.
struct Late {
    site: usize,
    uid: String,
    manifest: Value,
}

/// Everything that there is.
pub struct World {
    second: i64,
    /// Counts writes: the same number means that nothing was written.
    pub revision: u64,
    serial: u64,
    /// The SMO's requests, by name.
    pub requests: BTreeMap<String, FocomProvisioningRequest>,
    /// What the operator's watch shows of them.
    cache: BTreeMap<String, FocomProvisioningRequest>,
    /// Two O-Clouds.
    pub sites: [Site; 2],
    /// Which of them the OCloud's kubeconfig leads to.
    leads_to: usize,
    expectations: Expectations,
    late: Vec<Late>,
    /// UID of the request that a ProvisioningRequest, by its UID, was created for or adopted by.
    owners: BTreeMap<String, String>,
    /// UIDs of the ProvisioningRequests that a request had and has given up.
    given_up: BTreeSet<String>,
    /// What was last applied, by the UID of the ProvisioningRequest.
    applied: BTreeMap<String, Value>,
    /// Name of every request that ever was, by UID.
    names: BTreeMap<String, String>,
}

/// One reconcile on its way: what it saw, and what it still has to write.
pub struct Flight {
    request: FocomProvisioningRequest,
    site: usize,
    observed: Observed,
    verdict: Result<(), Rejection>,
    steps: Vec<Step>,
    next: usize,
}

impl Flight {
    /// Name that the ProvisioningRequest has or will have.
    fn own_name(&self) -> String {
        self.observed.remote.as_ref().unwrap().name(&self.request)
    }
}

/// Notes what a status tells.
pub fn record_status(status: &FocomProvisioningRequestStatus) {
    messages::record(&status.message);
    status.conditions.iter().for_each(|condition| messages::record(&condition.message));
}

/// How a write ended.
enum Written {
    /// The next one follows.
    Next,
    /// The reconcile ends here, without a status.
    End,
}

fn from<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn kind() -> ApiResource {
    ApiResource {
        group: names::GROUP.to_owned(),
        version: "v1alpha1".to_owned(),
        api_version: "o2ims.provisioning.oran.org/v1alpha1".to_owned(),
        kind: "ProvisioningRequest".to_owned(),
        plural: "provisioningrequests".to_owned(),
    }
}

fn uid_of(object: &Value) -> String {
    object["metadata"]["uid"].as_str().unwrap_or_default().to_owned()
}

fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object["metadata"]["labels"][key].as_str()
}

fn is_deleting(object: &Value) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null()
}

fn pick<T>(items: Vec<T>, pick: usize) -> Option<T> {
    let count = items.len();
    items.into_iter().nth(pick.checked_rem(count)?)
}

fn conflict() -> WriteError {
    Error::conflict("a precondition does not hold").into()
}

fn unreachable() -> WriteError {
    let error = ConnectionError::timeout();
    WriteError::transient(error.reason, error.message)
}

impl World {
    /// Two O-Clouds without ProvisioningRequests, and both requests.
    pub fn new() -> Self {
        let site = |fingerprint| Site {
            fingerprint,
            reachable: true,
            objects: BTreeMap::new(),
            cache: BTreeMap::new(),
            vanished: Vec::new(),
        };
        let mut world = Self {
            second: 1_000_000,
            revision: 10,
            serial: 0,
            requests: BTreeMap::new(),
            cache: BTreeMap::new(),
            sites: [site("first"), site("second")],
            leads_to: 0,
            expectations: Expectations::default(),
            late: Vec::new(),
            owners: BTreeMap::new(),
            given_up: BTreeSet::new(),
            applied: BTreeMap::new(),
            names: BTreeMap::new(),
        };
        for name in NAMES {
            world.submit(name, 1);
        }
        world
    }

    fn time(&self) -> Value {
        json!(Time(Timestamp::from_second(self.second).unwrap()))
    }

    fn submit(&mut self, name: &str, parameter: usize) {
        self.revision += 1;
        self.serial += 1;
        let uid = format!("{name}-{}", self.serial);
        self.names.insert(uid.clone(), name.to_owned());
        let request = from(json!({
            "apiVersion": "focom.nephio.org/v1alpha1", "kind": "FocomProvisioningRequest",
            "metadata": {"name": name, "namespace": NAMESPACE, "uid": uid, "generation": 1, "resourceVersion": self.revision.to_string()},
            "spec": {"oCloudId": "site", "oCloudNamespace": NAMESPACE, "templateName": "t", "templateVersion": "v1",
                "templateParameters": {"a": parameter}},
        }));
        self.requests.insert(name.to_owned(), request);
    }

    fn edit(&mut self, name: &str, change: impl FnOnce(&mut FocomProvisioningRequest)) {
        self.revision += 1;
        if let Some(request) = self.requests.get_mut(name) {
            change(request);
            request.metadata.resource_version = Some(self.revision.to_string());
        }
        self.requests
            .retain(|_, request| request.metadata.deletion_timestamp.is_none() || !request.finalizers().is_empty());
    }

    fn annotate(&mut self, name: &str, key: &str, value: Option<String>) {
        self.edit(name, |request| {
            match value {
                Some(value) => request.annotations_mut().insert(key.to_owned(), value),
                None => request.annotations_mut().remove(key),
            };
        });
    }

    /// Somebody deletes a request.
    pub fn delete(&mut self, name: &str) {
        let time: Time = from(self.time());
        self.edit(name, |request| {
            request.metadata.deletion_timestamp.get_or_insert(time);
        });
    }

    /// A user abandons a request that waits for its O-Cloud, as its message says.
    pub fn abandon(&mut self, name: &str) {
        self.annotate(name, focom::ABANDON_ANNOTATION, Some("true".to_owned()));
    }

    /// A user has a protected ProvisioningRequest deleted with its request, as its message says.
    pub fn unprotect(&mut self, name: &str) {
        self.annotate(name, focom::DELETION_PROTECTION_ANNOTATION, Some("false".to_owned()));
    }

    /// Changes a ProvisioningRequest, which goes when it is being deleted and has no finalizer.
    fn edit_remote(&mut self, site: usize, name: &str, change: impl FnOnce(&mut Value)) {
        self.revision += 1;
        let Some(object) = self.sites[site].objects.get_mut(name) else { return };
        change(object);
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        if is_deleting(object) && object["metadata"]["finalizers"].is_null() {
            self.sites[site].objects.remove(name);
        }
    }

    fn delete_remote(&mut self, site: usize, name: &str) {
        let time = self.time();
        self.edit_remote(site, name, |object| object["metadata"]["deletionTimestamp"] = time);
    }

    // What the operator does.

    /// The watches of the SMO and of the O-Cloud catch up.
    pub fn sync_requests(&mut self) {
        self.cache.clone_from(&self.requests);
    }

    /// The watch of an O-Cloud catches up, if it answers.
    pub fn sync_site(&mut self, site: usize) {
        let site = &mut self.sites[site];
        if site.reachable {
            let ours = site.objects.iter().filter(|(_, object)| label(object, focom::SMO_LABEL) == Some(SMO));
            site.cache = ours.map(|(name, object)| (name.clone(), object.clone())).collect();
        }
    }

    /// The operator starts anew: it has forgotten everything, and lists all objects. Creates that were not answered
    /// have been carried out until then.
    pub fn restart(&mut self) {
        self.arrive_late();
        self.expectations = Expectations::default();
        self.sync_requests();
        for site in 0..2 {
            self.sync_site(site);
        }
    }

    /// A minute passes: what was not answered has been carried out or never is, and nothing is expected of the caches
    /// any more.
    pub fn pass_a_minute(&mut self) {
        self.second += 60;
        self.arrive_late();
        self.expectations = Expectations::default();
    }

    fn arrive_late(&mut self) {
        for Late { site, uid, manifest } in std::mem::take(&mut self.late) {
            let name = manifest["metadata"]["name"].as_str().unwrap().to_owned();
            if !self.sites[site].objects.contains_key(&name) {
                self.put(site, &name, &manifest, &uid);
            }
        }
    }

    fn caches(&self) -> Caches {
        let mut o_cloud = OCloud::new("site", o2ims_types::OCloudSpec::default());
        o_cloud.metadata.namespace = Some(NAMESPACE.to_owned());
        Caches {
            requests: Requests::new(&mut self.cache.values().cloned().collect()),
            o_clouds: OClouds::new(&mut std::iter::once(o_cloud).collect()),
            templates: Templates::new(&mut std::iter::empty().collect()),
            namespaces: std::iter::empty().collect::<CachedObjects<_>>().store(),
        }
    }

    fn ready(&self, site: usize) -> ReadyOCloud {
        let mut writer = Writer::<RemoteRequest>::new(kind());
        for object in self.sites[site].cache.values() {
            writer.apply_watcher_event(&Event::Apply(from(object.clone())));
        }
        let (smo, server_version) = (SMO.to_owned(), "v1".to_owned());
        ReadyOCloud { smo, kind: kind(), namespaced: true, server_version, requests: writer.as_reader() }
    }

    fn connection(&self) -> ConnectionSnapshot {
        let site = &self.sites[self.leads_to];
        let state = if site.reachable {
            ConnectionState::Ready(self.ready(self.leads_to))
        } else {
            ConnectionState::Failed(ConnectionError::timeout())
        };
        ConnectionSnapshot { connection: None, fingerprint: Some(site.fingerprint.to_owned()), state }
    }

    /// The reading half of a reconcile; `None` if the request is not in the cache, or nothing can be decided yet.
    pub fn begin(&self, name: &str) -> Option<Flight> {
        let request = self.cache.get(name)?.clone();
        let was_refused = self.expectations.was_refused(&request.uid().unwrap());
        let observed = observe(&request, &self.caches(), self.connection(), "management-cluster", was_refused);
        let decision = decide(&request, &observed, &self.expectations).ok()?;
        let (verdict, steps) = (decision.verdict, decision.steps);
        Some(Flight { request, site: self.leads_to, observed, verdict, steps, next: 0 })
    }

    /// The next write of a reconcile, the last one being the status. `false`: the reconcile has ended.
    pub fn step(&mut self, flight: &mut Flight, fate: Fate) -> bool {
        let Some(step) = flight.steps.get(flight.next).cloned() else {
            self.write_status(flight, None);
            return false;
        };
        flight.next += 1;
        match self.write(flight, &step, fate) {
            Ok(Written::Next) => true,
            Ok(Written::End) => false,
            Err(error) if error.error.class() == Class::Conflict => false,
            Err(error) => {
                self.write_status(flight, Some(&error));
                false
            }
        }
    }

    /// A whole reconcile.
    pub fn reconcile(&mut self, name: &str) {
        if let Some(mut flight) = self.begin(name) {
            while self.step(&mut flight, Fate::Answered) {}
        }
    }

    fn write_status(&mut self, flight: &Flight, error: Option<&WriteError>) {
        let now = Timestamp::from_second(self.second).unwrap();
        let (status, _) = assess(&flight.request, &flight.observed, &flight.verdict, error, now);
        record_status(&status);
        let name = flight.request.name_any();
        let is_same = self.requests.get(&name).is_some_and(|request| request.uid() == flight.request.uid());
        if is_same && flight.request.status.as_ref() != Some(&status) {
            self.check_target(flight, status.sent_to.as_deref());
            self.edit(&name, |request| request.status = Some(status));
            self.expectations.wrote_request(&flight.observed.uid, &self.requests[&name]);
        }
    }

    fn write(&mut self, flight: &Flight, step: &Step, fate: Fate) -> Result<Written, WriteError> {
        // These O-Clouds refuse no creation.
        if matches!(step, Step::Create(_) | Step::Adopt(..) | Step::FindAndAdopt) {
            self.expectations.sending(&flight.observed.uid);
        }
        self.carry_out(flight, step, fate)
    }

    fn carry_out(&mut self, flight: &Flight, step: &Step, fate: Fate) -> Result<Written, WriteError> {
        let (name, uid) = (flight.request.name_any(), flight.observed.uid.as_str());
        match step {
            Step::AddFinalizer => {
                self.same_revision(flight)?;
                if !self.requests.contains_key(&name) {
                    return Err(conflict());
                }
                self.edit(&name, |request| request.finalizers_mut().push(focom::FINALIZER.to_owned()));
            }
            Step::RemoveSendAgain => {
                self.same_revision(flight)?;
                self.annotate(&name, focom::SEND_AGAIN_ANNOTATION, None);
            }
            Step::RemoveLostHosts => {
                self.same_revision(flight)?;
                self.annotate(&name, focom::LOST_HOSTS_ANNOTATION, None);
            }
            Step::RemoveFinalizer => {
                self.remove_finalizer(flight)?;
                return Ok(Written::End);
            }
            Step::Create(manifest) => self.create(flight, manifest, fate)?,
            Step::Update(manifest, of) => {
                let written = self.apply(flight, manifest, of, fate)?;
                self.expectations.wrote_remote(uid, &written);
            }
            Step::Adopt(manifest, of) => {
                let written = self.apply(flight, manifest, of, fate)?;
                self.expectations.wrote_remote(uid, &written);
                return Ok(Written::End);
            }
            Step::FindAndAdopt => match self.find_and_adopt(flight, fate) {
                Err(error) if !skips_remote_deletion(&flight.request) => return Err(error),
                Ok(Some(written)) => {
                    self.expectations.wrote_remote(uid, &written);
                    return Ok(Written::End);
                }
                _ => {}
            },
            Step::PassOnLostHosts(of, revision, hosts) => {
                self.annotate_own(flight, (of, revision), (names::LOST_HOSTS_ANNOTATION, hosts), fate)?;
            }
            Step::Unprotect(of, revision) => match self.take_protection_off(flight, of, revision, fate) {
                Err(error) if !skips_remote_deletion(&flight.request) => return Err(error),
                _ => {}
            },
            Step::Delete(of) => match self.delete_own(flight, of, fate) {
                Err(error) if !skips_remote_deletion(&flight.request) => return Err(error),
                _ => self.expectations.deleted_remote(uid),
            },
        }
        Ok(Written::Next)
    }

    /// The precondition of a write to the request. A request that is gone takes no write and fails none.
    fn same_revision(&self, flight: &Flight) -> Result<(), WriteError> {
        match self.requests.get(&flight.request.name_any()) {
            Some(request) if request.metadata.resource_version != flight.request.metadata.resource_version => {
                Err(conflict())
            }
            _ => Ok(()),
        }
    }

    fn remove_finalizer(&mut self, flight: &Flight) -> Result<(), WriteError> {
        let (name, uid) = (flight.request.name_any(), flight.observed.uid.as_str());
        let lets_go = skips_remote_deletion(&flight.request) || orphans_remote(&flight.request);
        let has_o_cloud = flight.observed.remote.as_ref().is_some_and(|remote| remote.ready().is_some());
        if has_o_cloud && !lets_go {
            if self.expectations.may_come_late(uid) {
                return Err(Error::transient("a write may be carried out late").into());
            }
            self.answers(flight)?;
            let site = &self.sites[flight.site];
            let left = site.objects.iter().find(|(_, object)| label(object, focom::SOURCE_UID_LABEL) == Some(uid));
            if let Some((left, object)) = left {
                let (left, of, is_deleting) = (left.clone(), uid_of(object), is_deleting(object));
                let own_name = flight.observed.remote.as_ref().map(|remote| remote.name(&flight.request));
                if own_name.as_ref() == Some(&left) && !is_deleting {
                    self.delete_own(flight, &of, Fate::Answered)?;
                }
                return Err(Error::transient("something is left").into());
            }
        }
        self.same_revision(flight)?;
        if !lets_go {
            self.check_nothing_is_left(uid);
        }
        self.edit(&name, |request| request.finalizers_mut().retain(|finalizer| finalizer != focom::FINALIZER));
        Ok(())
    }

    fn answers(&self, flight: &Flight) -> Result<(), WriteError> {
        if self.sites[flight.site].reachable { Ok(()) } else { Err(unreachable()) }
    }

    fn create(&mut self, flight: &Flight, manifest: &Value, fate: Fate) -> Result<(), WriteError> {
        let uid = flight.observed.uid.as_str();
        let written = self.try_create(flight, manifest, fate);
        if written.as_ref().is_err_and(|error| error.reason == reason::UNREACHABLE) {
            self.expectations.unanswered(uid);
        }
        self.expectations.wrote_remote(uid, &written?);
        Ok(())
    }

    fn try_create(&mut self, flight: &Flight, manifest: &Value, fate: Fate) -> Result<RemoteRequest, WriteError> {
        self.answers(flight)?;
        let (name, uid) = (manifest["metadata"]["name"].as_str().unwrap(), flight.observed.uid.as_str());
        if let Some(found) = self.sites[flight.site].objects.get(name).cloned() {
            return self.update_or_reject(flight, manifest, &from(found), fate);
        }
        self.check_create(flight);
        if fate == Fate::Late {
            self.late.push(Late { site: flight.site, uid: uid.to_owned(), manifest: manifest.clone() });
            return Err(unreachable());
        }
        let written = self.put(flight.site, name, manifest, uid);
        if fate == Fate::AnswerLost { Err(unreachable()) } else { Ok(written) }
    }

    fn put(&mut self, site: usize, name: &str, manifest: &Value, uid: &str) -> RemoteRequest {
        self.revision += 1;
        self.serial += 1;
        let remote_uid = format!("remote-{}", self.serial);
        let mut object = manifest.clone();
        object["metadata"]["uid"] = json!(remote_uid);
        object["metadata"]["generation"] = json!(1);
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        self.owners.insert(remote_uid.clone(), uid.to_owned());
        self.applied.insert(remote_uid, manifest.clone());
        // A create that is carried out later finds the name taken, also if this one goes soon: API servers answer in
        // about the order in which they are asked.
        self.late.retain(|late| late.uid != uid);
        self.sites[site].objects.insert(name.to_owned(), object.clone());
        from(object)
    }

    fn relation(&self, flight: &Flight, found: &RemoteRequest) -> Relation {
        relation(found, &flight.request, SMO, |uid| {
            self.cache.values().any(|request| request.uid().as_deref() == Some(uid))
        })
    }

    /// As `RemoteApi::update_or_reject`.
    fn update_or_reject(
        &mut self,
        flight: &Flight,
        manifest: &Value,
        found: &RemoteRequest,
        fate: Fate,
    ) -> Result<RemoteRequest, WriteError> {
        match self.relation(flight, found) {
            Relation::Own => {
                ensure_not_newer(flight, manifest, found)?;
                self.apply(flight, manifest, &found.uid().unwrap(), fate)
            }
            Relation::Predecessor => Err(conflict()),
            other => match adopt::check_adoption(&flight.request, manifest, found, &other) {
                Ok(()) => Err(conflict()),
                Err(rejection) => Err(rejection.into()),
            },
        }
    }

    /// As `RemoteApi::find_and_adopt`.
    fn find_and_adopt(&mut self, flight: &Flight, fate: Fate) -> Result<Option<RemoteRequest>, WriteError> {
        self.answers(flight)?;
        let mut found = Vec::new();
        for name in focom::remote_requests(&flight.request.name_any()) {
            if let Some(object) = self.sites[flight.site].objects.get(&name) {
                let remote: RemoteRequest = from(object.clone());
                let relation = self.relation(flight, &remote);
                found.push((remote, relation));
            }
        }
        let Some((remote, relation)) = adopt::choose(&flight.request, &found) else {
            let is_deleted = flight.request.metadata.deletion_timestamp.is_some();
            return if is_deleted { Ok(None) } else { Err(adopt::nothing_to_adopt(&flight.request).into()) };
        };
        let wanted = manifest(&flight.request, &self.ready(flight.site), &remote.name_any());
        adopt::check_adoption(&flight.request, &wanted, remote, relation)?;
        ensure_not_newer(flight, &wanted, remote)?;
        self.apply(flight, &at_revision_of(wanted, remote), &remote.uid().unwrap(), fate).map(Some)
    }

    /// Server-side apply to the ProvisioningRequest of a UID: what is not sent any more goes, what others have set
    /// stays.
    fn apply(&mut self, flight: &Flight, manifest: &Value, uid: &str, fate: Fate) -> Result<RemoteRequest, WriteError> {
        self.answers(flight)?;
        let name = manifest["metadata"]["name"].as_str().unwrap();
        let revision = &manifest["metadata"]["resourceVersion"];
        let found = self.sites[flight.site].objects.get(name).filter(|found| {
            uid_of(found) == uid && (revision.is_null() || found["metadata"]["resourceVersion"] == *revision)
        });
        self.check_own(flight, found.ok_or_else(conflict)?);
        if fate == Fate::Late {
            return Err(unreachable());
        }
        let before = self.applied.insert(uid.to_owned(), manifest.clone()).unwrap_or_default();
        self.owners.insert(uid.to_owned(), flight.observed.uid.clone());
        self.edit_remote(flight.site, name, |object| {
            let spec = object["spec"].clone();
            for part in ["/metadata/labels", "/metadata/annotations", "/spec"] {
                apply_part(object, &before, manifest, part);
            }
            if object["spec"] != spec {
                object["metadata"]["generation"] = json!(object["metadata"]["generation"].as_i64().unwrap() + 1);
            }
        });
        let written = from(self.sites[flight.site].objects[name].clone());
        if fate == Fate::AnswerLost { Err(unreachable()) } else { Ok(written) }
    }

    fn take_protection_off(
        &mut self,
        flight: &Flight,
        uid: &str,
        revision: &str,
        fate: Fate,
    ) -> Result<(), WriteError> {
        self.annotate_own(flight, (uid, revision), (names::DELETION_PROTECTION_ANNOTATION, "false"), fate)
    }

    fn annotate_own(
        &mut self,
        flight: &Flight,
        (uid, revision): (&str, &str),
        (annotation, value): (&str, &str),
        fate: Fate,
    ) -> Result<(), WriteError> {
        self.answers(flight)?;
        let name = flight.own_name();
        let found = self.sites[flight.site].objects.get(&name);
        let found =
            found.filter(|found| found["metadata"]["resourceVersion"] == json!(revision)).ok_or_else(conflict)?;
        assert_eq!(uid_of(found), uid);
        self.check_own(flight, found);
        if fate == Fate::Late {
            return Err(unreachable());
        }
        self.edit_remote(flight.site, &name, |object| {
            object["metadata"]["annotations"][annotation] = json!(value);
        });
        if fate == Fate::AnswerLost { Err(unreachable()) } else { Ok(()) }
    }

    fn delete_own(&mut self, flight: &Flight, uid: &str, fate: Fate) -> Result<(), WriteError> {
        self.answers(flight)?;
        let name = flight.own_name();
        let Some(found) = self.sites[flight.site].objects.get(&name) else { return Ok(()) };
        if uid_of(found) != uid {
            return Err(conflict());
        }
        self.check_own(flight, found);
        // The request may be gone by now; that its deletion was asked for stays true.
        let is_asked = flight.request.metadata.deletion_timestamp.is_some();
        assert!(is_asked, "deletes what nobody has asked to delete");
        if fate == Fate::Late {
            return Err(unreachable());
        }
        self.delete_remote(flight.site, &name);
        if fate == Fate::AnswerLost { Err(unreachable()) } else { Ok(()) }
    }

    // What must hold at every single write.

    /// A ProvisioningRequest is only written for the request that it was made for, for the next one of that name, or
    /// for one whose owner names it.
    fn check_own(&self, flight: &Flight, found: &Value) {
        let (uid, remote) = (flight.observed.uid.as_str(), uid_of(found));
        let owner = self.owners.get(&remote).map(String::as_str);
        let is_named = flight.request.annotations().get(focom::ADOPT_ANNOTATION) == Some(&remote);
        let is_inherited = owner.is_some_and(|owner| {
            self.names[owner] == flight.request.name_any()
                && self.requests.values().all(|request| request.uid().as_deref() != Some(owner))
        });
        let is_free = owner.is_none() || label(found, focom::SOURCE_UID_LABEL).is_none();
        assert!(
            owner == Some(uid) || is_inherited || is_named && is_free,
            "{uid} writes {found}, which is {owner:?}'s"
        );
    }

    /// A ProvisioningRequest is created for a request that can take it back, once, on the right O-Cloud, and not again
    /// without its owner's word if it held hosts.
    fn check_create(&mut self, flight: &Flight) {
        let (uid, site) = (flight.observed.uid.as_str(), flight.site);
        let request = &self.requests[&flight.request.name_any()];
        assert_eq!(request.uid().as_deref(), Some(uid), "creates for a request that is gone");
        assert!(request.has_finalizer(), "an effect before the finalizer");
        let said = |key: &str| flight.request.annotations().get(key).map(String::as_str);
        assert_eq!(said(focom::ADOPT_ANNOTATION), None, "creates what is to be adopted");
        let status = request.status.clone().unwrap_or_default();
        let is_left = status.sent_to.is_some() && said(focom::ABANDON_ANNOTATION) == status.sent_to.as_deref();
        let is_there = status.sent_to.as_deref() == Some(self.sites[site].fingerprint);
        assert!(is_there, "{uid} is created on another O-Cloud than its status names: {:?}", status.sent_to);
        let id = status.provisioned_resource_set.as_ref().and_then(|set| set.o_cloud_node_cluster_id.clone());
        if let Some(id) = id {
            let was_deleting = status.provisioning_status.is_some_and(|said| said.provisioning_state == "deleting");
            assert!(
                was_deleting || is_left || said(focom::SEND_AGAIN_ANNOTATION) == Some(&id),
                "{uid} had the cluster {id} and is sent again unasked"
            );
        }
        // What vanished is given up: it is nobody's if it comes back.
        let vanished = self.sites.iter().flat_map(|site| &site.vanished).map(uid_of).collect();
        self.give_up(uid, vanished);
        assert_eq!(self.owned(uid), Vec::<String>::new(), "{uid} has a ProvisioningRequest already");
    }

    /// The status names another O-Cloud only for a request that has nothing on the former one, or leaves it there by its
    /// owner's word.
    fn check_target(&mut self, flight: &Flight, target: Option<&str>) {
        let (request, uid) = (&self.requests[&flight.request.name_any()], flight.observed.uid.as_str());
        let former = request.status.as_ref().and_then(|status| status.sent_to.clone());
        let Some(former) = former.filter(|former| target != Some(former)) else { return };
        let is_left = flight.request.annotations().get(focom::ABANDON_ANNOTATION) == Some(&former);
        if is_left {
            self.arrive_late();
        }
        assert!(self.late.iter().all(|late| late.uid != uid), "{uid} goes elsewhere while its create is under way");
        let site = self.sites.iter().find(|site| site.fingerprint == former).unwrap();
        let is_own = |remote: &String| self.owners.get(remote).is_some_and(|owner| owner == uid);
        let left: Vec<_> = site.objects.values().chain(&site.vanished).map(uid_of).filter(is_own).collect();
        assert!(is_left || left.is_empty(), "{uid} goes to {target:?}, and has {left:?} on {former}");
        self.give_up(uid, left);
    }

    /// Of these ProvisioningRequests, the ones that the request has are its own no more.
    fn give_up(&mut self, uid: &str, remotes: Vec<String>) {
        for remote in remotes {
            if self.owners.get(&remote).is_some_and(|owner| owner == uid) {
                self.owners.remove(&remote);
                self.given_up.insert(remote);
            }
        }
    }

    /// The ProvisioningRequests that a request has, on all O-Clouds.
    fn owned(&self, uid: &str) -> Vec<String> {
        let all = self.sites.iter().flat_map(|site| &site.objects);
        all.filter(|(_, object)| self.owners.get(&uid_of(object)).is_some_and(|owner| owner == uid))
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// A request that goes leaves no ProvisioningRequest that is known by its label.
    fn check_nothing_is_left(&self, uid: &str) {
        let all = self.sites.iter().flat_map(|site| site.objects.values());
        let left: Vec<_> = all
            .filter(|object| {
                label(object, focom::SOURCE_UID_LABEL) == Some(uid) && self.owners.contains_key(&uid_of(object))
            })
            .collect();
        assert!(left.is_empty(), "{uid} goes and leaves {left:?}");
        assert!(self.late.iter().all(|late| late.uid != uid), "{uid} goes while its create is under way");
    }

    /// Whether a request has given the object up that it was made for.
    fn is_given_up(&self, object: &Value) -> bool {
        self.given_up.contains(&uid_of(object))
    }

    /// What must hold at any time: a request has one ProvisioningRequest at most.
    pub fn check(&self) {
        for uid in self.owners.values().collect::<BTreeSet<_>>() {
            let owned = self.owned(uid);
            assert!(owned.len() <= 1, "{uid} has {owned:?}");
        }
    }

    // The end.

    /// Failures end: O-Clouds answer, and what was under way arrives.
    pub fn heal(&mut self) {
        for site in &mut self.sites {
            site.reachable = true;
        }
        self.pass_a_minute();
    }

    /// Everything goes on until nothing is written any more.
    pub fn settle(&mut self) {
        for _ in 0..60 {
            let before = self.revision;
            for name in NAMES {
                self.sync_all();
                self.reconcile(name);
                self.check();
            }
            for progress in PROGRESS {
                for pick in 0..4 {
                    progress(self, pick);
                }
            }
            self.pass_a_minute();
            if self.revision == before {
                return;
            }
        }
        let told: Vec<_> = self.requests.values().map(|request| (request.name_any(), &request.status)).collect();
        panic!("does not come to rest: {told:?}");
    }

    fn sync_all(&mut self) {
        self.sync_requests();
        self.sync_site(0);
        self.sync_site(1);
    }

    /// At rest, a request is carried out, or its status names what its owner can do.
    pub fn check_at_rest(&self, name: &str) {
        const WAITS: [&str; 4] =
            [reason::NAME_TAKEN, reason::ADOPTION_REQUIRED, reason::REMOTE_GONE, reason::O_CLOUD_CHANGED];
        let Some(request) = self.requests.get(name) else { return };
        let status = request.status.as_ref().unwrap();
        let (ready, message) = (ready_reason(status), status.message.as_str());
        let told = format!("{name}: {} {ready}: {message}", status.phase);
        let names_remedy = ["annotate", "choose another", "put ", "set ", "give these", "correct its UID"]
            .iter()
            .any(|remedy| message.contains(remedy));
        match status.phase.as_str() {
            "Synced" => {
                let uid = request.uid().unwrap();
                let objects = &self.sites[self.leads_to].objects;
                let own: Vec<_> =
                    objects.values().filter(|object| self.owners.get(&uid_of(object)) == Some(&uid)).collect();
                let parameters = json!(request.spec.template_parameters);
                assert_eq!(own.len(), 1, "{told}");
                assert!(contains(&own[0]["spec"]["templateParameters"], &parameters), "{told}: {}", own[0]);
            }
            "Failed" => assert!(WAITS.contains(&ready) && names_remedy, "{told}"),
            "Pending" => assert!(ready == reason::ADOPTION_DRY_RUN && names_remedy, "{told}"),
            "Deleting" => assert!(
                (WAITS.contains(&ready) || ready == reason::DELETION_PROTECTED || ADOPTION_REASONS.contains(&ready))
                    && names_remedy,
                "{told}"
            ),
            _ => panic!("{told}"),
        }
    }
}

fn ensure_not_newer(flight: &Flight, manifest: &Value, found: &RemoteRequest) -> Result<(), WriteError> {
    match adopt::source_generation(&flight.request, manifest, found) {
        SourceGeneration::NotNewer | SourceGeneration::NewerButEqual => Ok(()),
        SourceGeneration::NewerAndDifferent(rejection) => Err(rejection.into()),
    }
}

/// Applies the fields of one map: those that were applied before and are not any more go, those of others stay.
fn apply_part(object: &mut Value, before: &Value, manifest: &Value, part: &str) {
    let empty = serde_json::Map::new();
    let fields = |value: &Value| value.pointer(part).and_then(Value::as_object).cloned().unwrap_or_default();
    let (old, new) = (fields(before), fields(manifest));
    let mut now = object.pointer(part).and_then(Value::as_object).unwrap_or(&empty).clone();
    now.retain(|key, _| new.contains_key(key) || !old.contains_key(key));
    now.extend(new);
    let (parent, key) = part.rsplit_once('/').unwrap();
    object.pointer_mut(parent).unwrap()[key] = Value::Object(now);
}

/// Something that happens outside of the operator; the number chooses among the objects that it can happen to. `false`:
/// it cannot happen now.
pub type Move = fn(&mut World, usize) -> bool;

/// What O2IMS operators and Kubernetes do by themselves.
pub const PROGRESS: [Move; 4] =
    [World::o_cloud_begins, World::o_cloud_fulfils, World::o_cloud_takes_down, World::orphan_finalizer_goes];

/// What people and failures do.
pub const TROUBLE: [Move; 17] = [
    World::parameters_are_changed,
    World::request_is_deleted,
    World::request_is_deleted_alone,
    World::request_is_made_anew,
    World::adoption_is_said,
    World::abandoning_is_said,
    World::sending_again_is_said,
    World::protection_is_said,
    World::stranger_makes_one,
    World::stranger_edits_one,
    World::stranger_deletes_one,
    World::stranger_protects_one,
    World::one_vanishes,
    World::one_comes_back,
    World::labels_are_taken_off,
    World::o_cloud_is_cut_off,
    World::o_cloud_answers_again,
];

impl World {
    /// ProvisioningRequests of all O-Clouds.
    fn remotes(&self, wanted: impl Fn(&Value) -> bool) -> Vec<(usize, String)> {
        let mut all = Vec::new();
        for (number, site) in self.sites.iter().enumerate() {
            let found = site.objects.iter().filter(|(_, object)| wanted(object));
            all.extend(found.map(|(name, _)| (number, name.clone())));
        }
        all
    }

    fn remote(&self, which: usize, wanted: impl Fn(&Value) -> bool) -> Option<(usize, String)> {
        pick(self.remotes(wanted), which)
    }

    fn o_cloud_begins(&mut self, which: usize) -> bool {
        let is_new = |object: &Value| object["metadata"]["finalizers"].is_null() && !is_deleting(object);
        let Some((site, name)) = self.remote(which, is_new) else { return false };
        self.edit_remote(site, &name, |object| {
            object["metadata"]["finalizers"] = json!([REMOTE_FINALIZER]);
            object["status"] = json!({"provisioningStatus": {"provisioningState": "progressing"}});
        });
        true
    }

    fn o_cloud_fulfils(&mut self, which: usize) -> bool {
        let is_under_way = |object: &Value| {
            object["status"]["provisioningStatus"]["provisioningState"] == json!("progressing") && !is_deleting(object)
        };
        let Some((site, name)) = self.remote(which, is_under_way) else { return false };
        self.edit_remote(site, &name, |object| {
            object["status"] = json!({
                "provisioningStatus": {"provisioningState": "fulfilled"},
                "provisionedResourceSet": {"oCloudNodeClusterId": format!("cluster-{}", uid_of(object))},
            });
        });
        true
    }

    fn o_cloud_takes_down(&mut self, which: usize) -> bool {
        let Some((site, name)) = self.remote(which, is_deleting) else { return false };
        self.edit_remote(site, &name, |object| {
            let state = &mut object["status"]["provisioningStatus"]["provisioningState"];
            if *state == json!("deleting") {
                object["metadata"]["finalizers"] = Value::Null;
            } else {
                *state = json!("deleting");
            }
        });
        true
    }

    fn orphan_finalizer_goes(&mut self, which: usize) -> bool {
        let is_ours_gone = |request: &FocomProvisioningRequest| {
            request.finalizers().iter().any(|finalizer| finalizer == names::ORPHAN_FINALIZER)
                && !request.has_finalizer()
        };
        let orphaned = self.requests.values().filter(|request| is_ours_gone(request)).map(kube::ResourceExt::name_any);
        let Some(name) = pick(orphaned.collect(), which) else { return false };
        self.edit(&name, |request| request.finalizers_mut().clear());
        true
    }

    fn request(&self, which: usize) -> Option<String> {
        pick(self.requests.keys().cloned().collect(), which)
    }

    fn parameters_are_changed(&mut self, which: usize) -> bool {
        let Some(name) = self.request(which) else { return false };
        self.edit(&name, |request| {
            request.spec.template_parameters.insert("a".to_owned(), json!(which % 3));
            request.metadata.generation = request.metadata.generation.map(|generation| generation + 1);
        });
        true
    }

    fn request_is_deleted(&mut self, which: usize) -> bool {
        let Some(name) = self.request(which) else { return false };
        self.delete(&name);
        true
    }

    fn request_is_deleted_alone(&mut self, which: usize) -> bool {
        let Some(name) = self.request(which) else { return false };
        if self.requests[&name].metadata.deletion_timestamp.is_some() {
            return false;
        }
        self.edit(&name, |request| request.finalizers_mut().push(names::ORPHAN_FINALIZER.to_owned()));
        self.delete(&name);
        true
    }

    fn request_is_made_anew(&mut self, which: usize) -> bool {
        let missing = NAMES.into_iter().filter(|name| !self.requests.contains_key(*name)).collect();
        let Some(name) = pick(missing, which) else { return false };
        self.submit(name, which % 3);
        true
    }

    fn adoption_is_said(&mut self, which: usize) -> bool {
        let Some(name) = self.request(which) else { return false };
        let objects = &self.sites[self.leads_to].objects;
        // Nobody names what another request has, or names anything for a request that has its own.
        let has_own = !self.owned(&self.requests[&name].uid().unwrap()).is_empty();
        let is_free = |object: &&Value| {
            let owner = self.owners.get(&uid_of(object));
            !has_own && self.requests.values().all(|request| request.uid().as_ref() != owner)
        };
        let own_names = focom::remote_requests(&name);
        let uids = own_names.iter().filter_map(|name| objects.get(name)).filter(is_free).map(uid_of).collect();
        let value = match which % 4 {
            0 => Some(focom::ADOPT_DRY_RUN.to_owned()),
            1 => Some("none".to_owned()),
            2 => pick(uids, which / 4),
            _ => None,
        };
        self.annotate(&name, focom::ADOPT_ANNOTATION, value);
        true
    }

    fn abandoning_is_said(&mut self, which: usize) -> bool {
        let Some(name) = self.request(which) else { return false };
        let sent_to = self.requests[&name].status.as_ref().and_then(|status| status.sent_to.clone());
        let value = match which % 4 {
            0 => Some("true".to_owned()),
            1 => sent_to,
            _ => None,
        };
        self.annotate(&name, focom::ABANDON_ANNOTATION, value);
        true
    }

    fn sending_again_is_said(&mut self, which: usize) -> bool {
        let Some(name) = self.request(which) else { return false };
        let status = self.requests[&name].status.clone().unwrap_or_default();
        let id = status.provisioned_resource_set.and_then(|set| set.o_cloud_node_cluster_id);
        let value = if which.is_multiple_of(4) { Some("other".to_owned()) } else { id };
        self.annotate(&name, focom::SEND_AGAIN_ANNOTATION, value);
        true
    }

    fn protection_is_said(&mut self, which: usize) -> bool {
        let Some(name) = self.request(which) else { return false };
        let value = [Some("true"), Some("false"), None][which % 3].map(ToOwned::to_owned);
        self.annotate(&name, focom::DELETION_PROTECTION_ANNOTATION, value);
        true
    }

    fn stranger_makes_one(&mut self, which: usize) -> bool {
        let (site, name) = (which % 2, REMOTE_NAMES[which % 3]);
        if self.sites[site].objects.contains_key(name) {
            return false;
        }
        let labels = match which % 4 {
            0 => json!({focom::SMO_LABEL: "other", focom::SOURCE_LABEL: NAMES[which % 2],
                focom::SOURCE_NAMESPACE_LABEL: NAMESPACE, focom::SOURCE_UID_LABEL: "far-away"}),
            1 => {
                json!({focom::SMO_LABEL: SMO, focom::SOURCE_LABEL: "another", focom::SOURCE_NAMESPACE_LABEL: NAMESPACE})
            }
            _ => json!({}),
        };
        let manifest = json!({
            "apiVersion": "o2ims.provisioning.oran.org/v1alpha1", "kind": "ProvisioningRequest",
            "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels, "annotations": {}},
            "spec": {"templateName": "t", "templateVersion": "v1", "templateParameters": {"a": which % 3}},
        });
        let remote = self.put(site, name, &manifest, "");
        let uid = remote.uid().unwrap();
        self.owners.remove(&uid);
        self.applied.remove(&uid);
        true
    }

    fn stranger_edits_one(&mut self, which: usize) -> bool {
        let Some((site, name)) = self.remote(which, |_| true) else { return false };
        self.edit_remote(site, &name, |object| {
            object["spec"]["templateParameters"]["a"] = json!(which % 3);
            object["metadata"]["generation"] = json!(object["metadata"]["generation"].as_i64().unwrap() + 1);
        });
        true
    }

    fn stranger_deletes_one(&mut self, which: usize) -> bool {
        let Some((site, name)) = self.remote(which, |object| !is_deleting(object)) else { return false };
        self.delete_remote(site, &name);
        true
    }

    fn stranger_protects_one(&mut self, which: usize) -> bool {
        let Some((site, name)) = self.remote(which, |_| true) else { return false };
        self.edit_remote(site, &name, |object| {
            object["metadata"]["annotations"][names::DELETION_PROTECTION_ANNOTATION] = json!("true");
        });
        true
    }

    fn one_vanishes(&mut self, which: usize) -> bool {
        let Some((site, name)) = self.remote(which, |_| true) else { return false };
        self.revision += 1;
        let object = self.sites[site].objects.remove(&name).unwrap();
        self.sites[site].vanished.push(object);
        true
    }

    /// A restore brings an object back, as far as its name is free.
    fn one_comes_back(&mut self, which: usize) -> bool {
        let site = which % 2;
        let vanished = &self.sites[site].vanished;
        let Some(place) = pick((0..vanished.len()).collect(), which / 2) else { return false };
        let name = vanished[place]["metadata"]["name"].as_str().unwrap().to_owned();
        if self.sites[site].objects.contains_key(&name) || self.is_given_up(&vanished[place]) {
            return false;
        }
        self.revision += 1;
        let mut object = self.sites[site].vanished.remove(place);
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        self.sites[site].objects.insert(name, object);
        true
    }

    /// Not off what was adopted under another name: it could not be told from one that was never sent.
    fn labels_are_taken_off(&mut self, which: usize) -> bool {
        let is_adopted = |object: &Value| {
            let owner = self.owners.get(&uid_of(object)).map(|owner| self.names[owner].as_str());
            let is_annotated =
                |request: &FocomProvisioningRequest| request.annotations().contains_key(focom::ADOPT_ANNOTATION);
            owner.is_some_and(|owner| {
                object["metadata"]["name"] != json!(focom::remote_request(owner))
                    || self.requests.get(owner).is_some_and(is_annotated)
            })
        };
        let is_marked = |object: &Value| label(object, focom::SMO_LABEL).is_some() && !is_adopted(object);
        let Some((site, name)) = self.remote(which, is_marked) else { return false };
        self.edit_remote(site, &name, |object| {
            let labels = object["metadata"]["labels"].as_object_mut().unwrap();
            if which.is_multiple_of(3) {
                labels.clear();
            } else {
                labels.remove(if which % 3 == 1 { focom::SMO_LABEL } else { focom::SOURCE_UID_LABEL });
            }
        });
        true
    }

    fn o_cloud_is_cut_off(&mut self, which: usize) -> bool {
        std::mem::replace(&mut self.sites[which % 2].reachable, false)
    }

    fn o_cloud_answers_again(&mut self, which: usize) -> bool {
        let was_reachable = std::mem::replace(&mut self.sites[which % 2].reachable, true);
        self.sync_site(which % 2);
        !was_reachable
    }

    /// Somebody writes another kubeconfig, at any moment.
    pub fn kubeconfig_is_changed(&mut self) -> bool {
        // What was left behind by its owner's word is left for good: an OCloud that leads back would find it again.
        let leads_back = self.sites[1 - self.leads_to].objects.values().any(|object| self.is_given_up(object));
        if leads_back {
            return false;
        }
        self.leads_to = 1 - self.leads_to;
        self.sync_all();
        true
    }
}
