//! What is known about a request. Reads caches only.

use std::sync::Arc;

use kube::ResourceExt as _;
use kube::runtime::reflector::ObjectRef;
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
}

/// What is known about a request.
pub struct Observed {
    /// UID of the request.
    pub uid: String,
    /// Namespace of the request.
    pub namespace: String,
    /// Where it wants to go.
    pub target: Target,
    /// The TemplateInfo that speaks of its template, if there is one.
    pub template: Option<Arc<TemplateInfo>>,
}

/// Looks at everything that decides whether a request may go where it wants.
pub fn observe(watches: &Watches, local_id: &str, request: &FocomProvisioningRequest) -> Observed {
    let spec = &request.spec;
    let namespace = request.namespace().unwrap_or_default();
    let target = if spec.o_cloud_id == local_id {
        Target::Local(watches.namespaces.get(&ObjectRef::new(&spec.o_cloud_namespace)))
    } else {
        Target::OCloud(watches.o_clouds.get(&ObjectRef::new(&spec.o_cloud_id).within(&spec.o_cloud_namespace)))
    };
    let template = template(watches, &namespace, &spec.template_name, &spec.template_version);
    Observed { uid: request.uid().unwrap_or_default(), namespace, target, template }
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

/// The O-Cloud, as far as the request may know it.
pub struct Remote {
    /// What was found.
    pub found: Found,
    /// The ProvisioningRequest that has the request's name, if it came from this SMO.
    pub request: Option<Arc<RemoteRequest>>,
}

impl Remote {
    /// Looks the request up on its O-Cloud. Only for requests that may go there.
    pub fn observe(links: &Links, request: &FocomProvisioningRequest, target: &Target) -> Self {
        let spec = &request.spec;
        let found = match target {
            Target::Local(_) => links.local(),
            Target::OCloud(_) => links.find(&(spec.o_cloud_namespace.clone(), spec.o_cloud_id.clone())),
        };
        let name = focom::remote_request(&request.name_any());
        let request = match &found.view {
            View::Open(open) => open.find(&spec.o_cloud_namespace, &name),
            _ => None,
        };
        Self { found, request }
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
    pub fn own(&self, uid: &str) -> Option<&RemoteRequest> {
        self.request.as_deref().filter(|remote| is_of(remote, uid))
    }
}

/// Whether a ProvisioningRequest was made for the request with this UID.
pub fn is_of(remote: &RemoteRequest, uid: &str) -> bool {
    remote.labels().get(focom::SOURCE_UID_LABEL).is_some_and(|source| source == uid)
}
