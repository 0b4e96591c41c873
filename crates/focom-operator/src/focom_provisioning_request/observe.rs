//! Collects from the caches what decides about a request. Nothing is called or changed.

use std::sync::Arc;

use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use o2ims_types::{FocomProvisioningRequest, OCloud, TemplateInfo, names::focom};

use crate::authorization::{self, Namespace};
use crate::caches::Caches;
use crate::o_cloud::connection::{ConnectionState, ReadyOCloud};
use crate::o_cloud::registry::ConnectionSnapshot;
use crate::o_cloud::remote_request::RemoteRequest;

/// What is known about a request.
pub struct Observed {
    /// UID of the request.
    pub uid: String,
    /// Namespace of the request.
    pub namespace: String,
    /// Whether that namespace is being deleted.
    pub namespace_terminating: bool,
    /// The O-Cloud that the request is for.
    pub target: Target,
    /// The TemplateInfo of its template, if there is one.
    pub template: Option<Arc<TemplateInfo>>,
    /// The state on the O-Cloud; `None` if the request may not use that O-Cloud, so that nothing of it may be shown.
    pub remote: Option<RemoteState>,
}

/// The O-Cloud that a request is for.
#[derive(Clone, Debug)]
pub enum Target {
    /// The SMO's own cluster; with the Namespace there that the request names, if it exists.
    Local(Option<Arc<Namespace>>),
    /// The O-Cloud of an OCloud, if that exists.
    OCloud(Option<Arc<OCloud>>),
    /// An O-Cloud that is still connected although its OCloud was deleted with its namespace.
    ConnectionOnly,
}

impl Target {
    /// Whether the request may use the O-Cloud, also for its deletion there.
    pub fn is_allowed(&self, request: &FocomProvisioningRequest) -> bool {
        let (from, (to, _)) = (request.namespace().unwrap_or_default(), request.o_cloud());
        match self {
            Self::Local(namespace) => authorization::can_request(to, namespace.as_deref(), &from),
            Self::OCloud(o_cloud) => o_cloud.as_ref().is_some_and(|o_cloud| authorization::can_use(o_cloud, &from)),
            // The namespace is deleted as a whole, and its requests have to be deleted on the O-Cloud.
            Self::ConnectionOnly => to == from && request.metadata.deletion_timestamp.is_some(),
        }
    }
}

/// Collects what decides about the request. `connection` is the one to [`FocomProvisioningRequest::o_cloud`];
/// `local_id` is the oCloudId that means the SMO's own cluster; for `was_refused` see [`RemoteState`].
pub fn observe(
    request: &FocomProvisioningRequest,
    caches: &Caches,
    connection: ConnectionSnapshot,
    local_id: &str,
    was_refused: bool,
) -> Observed {
    let namespace = request.namespace().unwrap_or_default();
    let (o_cloud_namespace, o_cloud_id) = request.o_cloud();
    let target = if o_cloud_id == local_id {
        Target::Local(caches.namespaces.get(&ObjectRef::new(o_cloud_namespace)))
    } else {
        match caches.o_clouds.get(o_cloud_namespace, o_cloud_id) {
            None if connection.fingerprint.is_some() => Target::ConnectionOnly,
            o_cloud => Target::OCloud(o_cloud),
        }
    };
    let remote = target.is_allowed(request).then(|| RemoteState::observe(request, caches, connection, was_refused));
    Observed {
        uid: request.uid().unwrap_or_default(),
        namespace_terminating: caches.is_terminating(&namespace),
        template: template(request, caches, &namespace),
        namespace,
        target,
        remote,
    }
}

/// The TemplateInfo `<name>-<version>`, as Nephio names it; otherwise the first by name whose spec has this name and
/// version.
fn template(request: &FocomProvisioningRequest, caches: &Caches, namespace: &str) -> Option<Arc<TemplateInfo>> {
    let (name, version) = (&request.spec.template_name, &request.spec.template_version);
    let matches =
        |template: &TemplateInfo| template.spec.template_name == *name && template.spec.template_version == *version;
    let by_name = caches.templates.get(namespace, &format!("{name}-{version}"));
    by_name
        .filter(|template| matches(template))
        .or_else(|| caches.templates.of_version(namespace, name, version).into_iter().next())
}

/// The request that a ProvisioningRequest was created for, by its labels, as seen from a request that uses its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Relation {
    /// This request.
    Own,
    /// A former request of this name and namespace, which does not exist any more.
    Predecessor,
    /// A request of this name and namespace at another SMO; with the label of that SMO, if there is one. Whether it
    /// still exists cannot be known here.
    OtherSmo(Option<String>),
    /// Unknown, because it has no labels of an SMO.
    Unmarked,
    /// Another request.
    Other,
}

/// The request that `found` was created for. `exists` tells whether this SMO has a request of a UID.
pub fn relation(
    found: &RemoteRequest,
    request: &FocomProvisioningRequest,
    smo: &str,
    exists: impl Fn(&str) -> bool,
) -> Relation {
    let label = |key: &str| found.labels().get(key).cloned();
    let (uid, of_smo) = (label(focom::SOURCE_UID_LABEL), label(focom::SMO_LABEL));
    let source = (label(focom::SOURCE_LABEL), label(focom::SOURCE_NAMESPACE_LABEL));
    if uid == Some(request.uid().unwrap_or_default()) {
        Relation::Own
    } else if uid.as_deref().is_some_and(exists) {
        Relation::Other
    } else if source == (Some(request.name_any()), request.namespace()) {
        if of_smo.as_deref() == Some(smo) { Relation::Predecessor } else { Relation::OtherSmo(of_smo) }
    } else if source == (None, None) && uid.is_none() && of_smo.is_none() {
        Relation::Unmarked
    } else {
        Relation::Other
    }
}

/// The state on the O-Cloud, as far as the request may know it.
#[derive(Clone)]
pub struct RemoteState {
    /// The connection to the O-Cloud.
    pub connection: ConnectionSnapshot,
    /// The ProvisioningRequest that has a name of the request, if it came from this SMO.
    pub request: Option<Arc<RemoteRequest>>,
    /// What `request` was created for.
    pub relation: Option<Relation>,
    /// Whether it is certain that the O-Cloud to which the request was sent last has refused it, so that it has nothing there.
    pub was_refused: bool,
}

impl RemoteState {
    fn observe(
        request: &FocomProvisioningRequest,
        caches: &Caches,
        connection: ConnectionSnapshot,
        was_refused: bool,
    ) -> Self {
        let mut best = None;
        if let ConnectionState::Ready(o_cloud) = &connection.state {
            let namespace = request.o_cloud().0;
            let look = |name: &str| {
                let remote = o_cloud.get(namespace, name)?;
                let relation = relation(&remote, request, &o_cloud.smo, |uid| caches.requests.exists(uid));
                Some((remote, relation))
            };
            // An object under Nephio's name counts only if it is the request's: otherwise that name is not used.
            let [ours, nephios] = focom::remote_requests(&request.name_any());
            let (first, second) = (look(&ours), look(&nephios));
            let all = [first.clone(), second].into_iter().flatten();
            let of = |wanted: &Relation| all.clone().find(|(_, relation)| relation == wanted);
            best = of(&Relation::Own).or_else(|| of(&Relation::Predecessor)).or(first);
        }
        let (request, relation) = best.unzip();
        Self { connection, request, relation, was_refused }
    }

    /// The O-Cloud, if it answers.
    pub fn ready(&self) -> Option<&ReadyOCloud> {
        match &self.connection.state {
            ConnectionState::Ready(o_cloud) => Some(o_cloud),
            _ => None,
        }
    }

    /// Whether the OCloud leads to another O-Cloud than the one that the request was or may have been sent to, and the
    /// ProvisioningRequest is not on the present one: it would be created twice, or left on the former O-Cloud.
    pub fn target_changed(&self, request: &FocomProvisioningRequest) -> bool {
        let sent_to = request.status.as_ref().and_then(|status| status.sent_to.as_deref());
        let now = self.connection.fingerprint.as_deref();
        // Another request's object of that name is not it, nor is one that a former request of this name has left there.
        let may_be_there = request.was_sent() || request.may_have_been_sent() && !self.was_refused;
        self.ready().is_some() && self.own().is_none() && sent_to.is_some() && sent_to != now && may_be_there
    }

    /// The ProvisioningRequest, if it was created for this request.
    pub fn own(&self) -> Option<&RemoteRequest> {
        self.of(&Relation::Own)
    }

    /// The ProvisioningRequest, if it was created for a former request of this name.
    pub fn predecessor(&self) -> Option<&RemoteRequest> {
        self.of(&Relation::Predecessor)
    }

    fn of(&self, relation: &Relation) -> Option<&RemoteRequest> {
        self.request.as_deref().filter(|_| self.relation.as_ref() == Some(relation))
    }

    /// The name that the ProvisioningRequest has or will have.
    pub fn name(&self, request: &FocomProvisioningRequest) -> String {
        let found = self.own().or_else(|| self.predecessor()).map(ResourceExt::name_any);
        found.unwrap_or_else(|| focom::remote_request(&request.name_any()))
    }
}
