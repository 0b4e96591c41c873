//! What is known about a request. Reads caches only.

use std::sync::Arc;

use kube::ResourceExt;
use kube::runtime::reflector::{ObjectRef, Store};
use o2ims_types::{FocomProvisioningRequest, OCloud, TemplateInfo, names::focom};

use crate::grant::Namespace;
use crate::ocloud::connection::{Connection, Open, RemoteRequest, View};
use crate::ocloud::links::{Found, Links};
use crate::watches::Watches;

/// Where a request wants to go.
#[derive(Clone, Debug)]
pub enum Target {
    /// The very cluster, by its id; with the Namespace that is asked for, if it exists.
    Local(Option<Arc<Namespace>>),
    /// An O-Cloud, by its OCloud, if that exists.
    OCloud(Option<Arc<OCloud>>),
    /// An O-Cloud whose OCloud has gone with its namespace, and which is still connected.
    Kept,
}

/// What is known about a request.
pub struct Observed {
    /// UID of the request.
    pub uid: String,
    /// Namespace of the request.
    pub namespace: String,
    /// Where it wants to go.
    pub target: Target,
    /// Whether its namespace is being deleted.
    pub namespace_ends: bool,
    /// The TemplateInfo that speaks of its template, if there is one.
    pub template: Option<Arc<TemplateInfo>>,
}

/// Looks at everything that decides whether a request may go where it wants.
pub fn observe(watches: &Watches, links: &Links, local_id: &str, request: &FocomProvisioningRequest) -> Observed {
    let (spec, (o_cloud_namespace, o_cloud_id)) = (&request.spec, request.o_cloud());
    let namespace = request.namespace().unwrap_or_default();
    let target = if o_cloud_id == local_id {
        Target::Local(watches.namespaces.get(&ObjectRef::new(o_cloud_namespace)))
    } else {
        match watches.o_clouds.get(&ObjectRef::new(o_cloud_id).within(o_cloud_namespace)) {
            None if links.is_connected(&(o_cloud_namespace.to_owned(), o_cloud_id.to_owned())) => Target::Kept,
            o_cloud => Target::OCloud(o_cloud),
        }
    };
    let template = template(watches, &namespace, &spec.template_name, &spec.template_version);
    let namespace_ends = watches.is_ending(&namespace);
    Observed { uid: request.uid().unwrap_or_default(), namespace, target, namespace_ends, template }
}

/// Nephio's rule gives the object's name; ours finds it by what it says too, and of several takes the first by name.
fn template(watches: &Watches, namespace: &str, name: &str, version: &str) -> Option<Arc<TemplateInfo>> {
    let speaks =
        |template: &TemplateInfo| template.spec.template_name == name && template.spec.template_version == version;
    let by_rule = watches.templates.get(&ObjectRef::new(&format!("{name}-{version}")).within(namespace));
    by_rule.filter(|template| speaks(template)).or_else(|| {
        let all = watches.templates.state();
        let here = |template: &TemplateInfo| template.namespace().as_deref() == Some(namespace) && speaks(template);
        all.iter().filter(|template| here(template)).min_by_key(|template| template.name_any()).cloned()
    })
}

/// Whose a ProvisioningRequest is that has a name of the request, by its labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Relation {
    /// The request's own.
    Own,
    /// It was made for an earlier object of this name and namespace, which does not exist any more.
    Left,
    /// It was made for an object of this name and namespace; which SMO's, if it says so, is not this one. Whether that one
    /// is still there cannot be known here.
    OtherSmo(Option<String>),
    /// It does not say what it was made for.
    Unmarked,
    /// It is another request's.
    Other,
}

/// Whose a ProvisioningRequest is. `exists` tells whether this SMO has a request with a UID.
pub fn relation(
    found: &RemoteRequest,
    request: &FocomProvisioningRequest,
    smo: &str,
    exists: impl Fn(&str) -> bool,
) -> Relation {
    let label = |key: &str| found.labels().get(key).cloned();
    let (uid, of_smo) = (label(focom::SOURCE_UID_LABEL), label(focom::SMO_LABEL));
    let source = (label(focom::SOURCE_LABEL), label(focom::SOURCE_NAMESPACE_LABEL));
    if is_of(found, &request.uid().unwrap_or_default()) {
        Relation::Own
    } else if uid.as_deref().is_some_and(exists) {
        Relation::Other
    } else if source == (Some(request.name_any()), request.namespace()) {
        if of_smo.as_deref() == Some(smo) { Relation::Left } else { Relation::OtherSmo(of_smo) }
    } else if source == (None, None) && uid.is_none() && of_smo.is_none() {
        Relation::Unmarked
    } else {
        Relation::Other
    }
}

/// Whether this SMO has a request with this UID.
pub fn exists(requests: &Store<FocomProvisioningRequest>, uid: &str) -> bool {
    requests.state().iter().any(|request| request.metadata.uid.as_deref() == Some(uid))
}

/// The O-Cloud, as far as the request may know it.
pub struct Remote {
    /// What was found.
    pub found: Found,
    /// The ProvisioningRequest that has a name of the request, if it came from this SMO.
    pub request: Option<Arc<RemoteRequest>>,
    /// Whose it is, if there is one.
    pub relation: Option<Relation>,
}

impl Remote {
    /// Looks the request up on its O-Cloud. Only for requests that may go there.
    pub fn observe(links: &Links, watches: &Watches, request: &FocomProvisioningRequest, target: &Target) -> Self {
        let (namespace, id) = request.o_cloud();
        let found = match target {
            Target::Local(_) => links.local(),
            Target::OCloud(_) | Target::Kept => links.find(&(namespace.to_owned(), id.to_owned())),
        };
        let mut best = None;
        if let View::Open(open) = &found.view {
            // Under the other name there may be somebody else's: only what is the request's counts there.
            let [ours, nephios] = focom::remote_requests(&request.name_any());
            let look = |name: &str| {
                let remote = open.find(namespace, name)?;
                let relation = relation(&remote, request, &open.smo, |uid| exists(&watches.requests, uid));
                Some((remote, relation))
            };
            let (first, second) = (look(&ours), look(&nephios));
            let all = [first.clone(), second].into_iter().flatten();
            let of = |wanted: &Relation| all.clone().find(|(_, relation)| relation == wanted);
            best = of(&Relation::Own).or_else(|| of(&Relation::Left)).or(first);
        }
        let (request, relation) = best.unzip();
        Self { found, request, relation }
    }

    /// The O-Cloud, if it answers.
    pub fn open(&self) -> Option<&Open> {
        match &self.found.view {
            View::Open(open) => Some(open),
            _ => None,
        }
    }

    /// Whether the OCloud leads elsewhere now than when the request was sent, and the ProvisioningRequest is not there: it would
    /// be made a second time, or be forgotten where it is.
    pub fn has_moved(&self, request: &FocomProvisioningRequest) -> bool {
        let sent_to = request.status.as_ref().and_then(|status| status.sent_to.as_deref());
        let now = self.found.connection.as_deref().map(Connection::mark);
        self.open().is_some() && self.request.is_none() && sent_to.is_some() && sent_to != now
    }

    /// The ProvisioningRequest, if it is the request's own.
    pub fn own(&self) -> Option<&RemoteRequest> {
        self.of(&Relation::Own)
    }

    /// The ProvisioningRequest, if it was made for an earlier object of the request's name, which does not exist any more.
    pub fn left(&self) -> Option<&RemoteRequest> {
        self.of(&Relation::Left)
    }

    fn of(&self, relation: &Relation) -> Option<&RemoteRequest> {
        self.request.as_deref().filter(|_| self.relation.as_ref() == Some(relation))
    }

    /// The name that the ProvisioningRequest has, or is to have.
    pub fn name(&self, request: &FocomProvisioningRequest) -> String {
        let found = self.own().or_else(|| self.left()).map(ResourceExt::name_any);
        found.unwrap_or_else(|| focom::remote_request(&request.name_any()))
    }
}

/// Whether a ProvisioningRequest was made for the request with this UID.
pub fn is_of(remote: &RemoteRequest, uid: &str) -> bool {
    remote.labels().get(focom::SOURCE_UID_LABEL).is_some_and(|source| source == uid)
}
