//! The rules of a field's value, each as the CEL expression that the API server runs and the words that a user reads.
//! [`super::fields_in_rust`] is their other half.
//!
//! A rule on an optional field is written on the object that holds the field, so that its message can name the field.

/// One rule: a CEL expression and what a user is told when it does not hold.
pub struct FieldRule {
    /// CEL expression; `self` is the object that carries the rule. In rules for new objects `object` is the whole one.
    pub cel: &'static str,
    /// What is wrong and what is right, naming the field.
    pub message: &'static str,
}

macro_rules! rule {
    ($(#[$doc:meta])* $name:ident, $cel:expr, $message:expr) => {
        $(#[$doc])*
        pub const $name: FieldRule = FieldRule { cel: $cel, message: $message };
    };
}

/// Names of namespaces (RFC 1123 labels). They become parts of URLs, so nothing else gets in.
pub const LABEL_PATTERN: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// Names of most objects (RFC 1123 subdomains).
pub const SUBDOMAIN_PATTERN: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// `clusterProvisioner` of the Bring-Your-Own-Host provider, the default.
pub const BYOH: &str = "byoh";
/// Most masters in one request. etcd gains nothing from more than seven members.
pub const MAX_MASTERS: usize = 7;
/// Most workers in one request. Bounds the cost of the rules on them.
pub const MAX_WORKERS: usize = 400;

rule!(
    /// Name of the cluster, its objects and its kubeconfig Secret.
    CLUSTER_NAME,
    "!has(self.clusterName) || self.clusterName.matches('^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$')",
    "clusterName must be a DNS label: lower-case letters, digits and '-', starting with a letter, at most 63 characters"
);
rule!(
    /// Kubernetes versions as Cluster API wants them.
    K8S_VERSION,
    "!has(self.k8sVersion) || self.k8sVersion.matches('^v1[.](0|[1-9][0-9]*)[.](0|[1-9][0-9]*)(-[0-9A-Za-z.-]+)?([+][0-9A-Za-z.-]+)?$')",
    "k8sVersion must be a Kubernetes version such as v1.33.1"
);
rule!(
    /// A network, written with its network address.
    POD_CIDR,
    "!has(self.podCidr) || (isCIDR(self.podCidr) && cidr(self.podCidr).masked() == cidr(self.podCidr))",
    "podCidr must be a network in CIDR form with no host bits set, such as 192.168.0.0/16"
);
rule!(
    /// A network, written with its network address.
    SERVICE_CIDR,
    "!has(self.serviceCidr) || (isCIDR(self.serviceCidr) && cidr(self.serviceCidr).masked() == cidr(self.serviceCidr))",
    "serviceCidr must be a network in CIDR form with no host bits set, such as 10.128.0.0/12"
);
rule!(
    /// Pods and Services need networks of their own.
    CIDR_OVERLAP,
    "!has(self.podCidr) || !has(self.serviceCidr) || !isCIDR(self.podCidr) || !isCIDR(self.serviceCidr) || (!cidr(self.podCidr).containsCIDR(self.serviceCidr) && !cidr(self.serviceCidr).containsCIDR(self.podCidr))",
    "podCidr and serviceCidr must not overlap"
);
rule!(
    /// Both are needed before anything can be done; templates may supply `k8sVersion`.
    REQUIRED,
    "self.clusterProvisioner != 'byoh' || (has(self.clusterName) && has(self.hosts))",
    "clusterName and hosts are required"
);
/// Labels that controllers read are not for requests to set. Not a CEL rule: keys of a map have no bounded length, so the
/// API server would refuse it as too costly.
pub const LABELS: &str =
    "labels must have valid label keys and values, and no key of x-k8s.io, k8s.io, kubernetes.io or oran.org";

rule!(
    /// etcd needs a majority.
    MASTERS_ODD,
    "size(self.masters) % 2 == 1",
    "hosts.masters must have an odd number of hosts: 1, 3, 5 or 7"
);
rule!(
    /// One host runs one node.
    MASTERS_UNIQUE,
    "self.masters.all(a, self.masters.exists_one(b, (has(a.hostName) ? a.hostName : (has(a.host_name) ? a.host_name : '')) == (has(b.hostName) ? b.hostName : (has(b.host_name) ? b.host_name : ''))))",
    "hosts.masters must not name a host twice"
);
rule!(
    /// One host runs one node. Lists of more than 200 are left to the operator: with long names they would cost more than a rule may,
    /// and the request could not be written any more.
    WORKERS_UNIQUE,
    "!has(self.workers) || size(self.workers) > 200 || [self.workers.map(w, has(w.hostName) ? w.hostName : (has(w.host_name) ? w.host_name : ''))].all(names, names.all(name, names.indexOf(name) == names.lastIndexOf(name)))",
    "hosts.workers must not name a host twice"
);
rule!(
    /// One host runs one node.
    ROLES_DISJOINT,
    "!has(self.workers) || !self.workers.exists(a, self.masters.exists(b, (has(a.hostName) ? a.hostName : (has(a.host_name) ? a.host_name : '')) == (has(b.hostName) ? b.hostName : (has(b.host_name) ? b.host_name : ''))))",
    "hosts.masters and hosts.workers must not name the same host"
);
rule!(
    /// Either spelling, but one.
    HOST_ID_PRESENT,
    "has(self.hostId) != has(self.host_id)",
    "hostId is required (host_id is read too; give one of them)"
);
/// It becomes the value of the label `host-id`. In the CRD this is a pattern and a minimum: CEL takes a value that may be
/// a number or a string for one of unbounded length.
pub const HOST_ID: &str =
    "hostId must be a number from 0 or a label value: letters, digits, '-', '_' and '.', at most 63 characters";
/// The pattern of a `hostId` that is a string.
pub const HOST_ID_PATTERN: &str = "^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$";
/// The pattern of a time limit: Go's durations, without a sign, and bounded so that none overflows. A template with
/// another one could not be read.
pub const DURATION_PATTERN: &str = "^([0-9]{1,6}([.][0-9]{1,6})?(h|m|s|ms))+$";
/// An absolute path that is written into a script: no character that a shell or a Go template would read.
pub const HOST_PATH_PATTERN: &str = "^/[-A-Za-z0-9_./+]+$";
/// A URL that is written into a script.
pub const HOST_URL_PATTERN: &str = "^(https?|file):[-A-Za-z0-9_./:+~%]+$";

rule!(
    /// Either spelling, but one.
    HOST_NAME_PRESENT,
    "has(self.hostName) != has(self.host_name)",
    "hostName is required (host_name is read too; give one of them)"
);
rule!(
    /// BYOH finds the Node of a host by its name.
    HOST_NAME,
    "(has(self.hostName) ? self.hostName : (has(self.host_name) ? self.host_name : 'a')).matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",
    "hostName must be a DNS name: lower-case letters, digits, '-' and '.', at most 63 characters"
);
rule!(
    /// Checked against the addresses that the host reports.
    HOST_IP,
    "!has(self.hostIp) || isIP(self.hostIp)",
    "hostIp must be an IP address"
);
rule!(
    /// The address that clients and nodes use to reach the API server.
    ENDPOINT_HOST,
    "isIP(self.host) || self.host.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",
    "controlPlaneEndpoint.host must be an IP address or a DNS name"
);
rule!(
    /// The name is the value of a label on the ProvisioningRequest. Only for new objects: what is there must stay deletable.
    FPR_NAME,
    "size(object.metadata.name) <= 63",
    "metadata.name must have at most 63 characters"
);
rule!(
    /// How a template is found by the name and version of a request. Only for new objects, as above.
    TEMPLATE_OBJECT_NAME,
    "object.metadata.name == object.spec.name + '-' + object.spec.version",
    "metadata.name must be <spec.name>-<spec.version>"
);
