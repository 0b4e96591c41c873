//! The rules on the values of fields, each as the CEL expression that the API server evaluates and the message that a user reads.
//! [`super::fields_in_rust`] has the same rules in Rust.
//!
//! A rule on an optional field is written on the object that holds the field, so that its message can name the field.

/// One rule: a CEL expression, and the message if it does not hold.
pub struct FieldRule {
    /// CEL expression; `self` is the part of the object that has the rule. In rules for new objects `object` is the whole object, and in
    /// [`NEW_CLUSTER`] `variables` has the parameters.
    pub cel: &'static str,
    /// What a right value is, naming the field.
    pub message: &'static str,
}

macro_rules! rule {
    ($(#[$doc:meta])* $name:ident, $cel:expr, $message:expr) => {
        $(#[$doc])*
        pub const $name: FieldRule = FieldRule { cel: $cel, message: $message };
    };
}

/// Names of namespaces (RFC 1123 labels). They become parts of URLs, so nothing else is accepted.
pub const LABEL_PATTERN: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// Names of most objects (RFC 1123 subdomains).
pub const SUBDOMAIN_PATTERN: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// `clusterProvisioner` of the Bring-Your-Own-Host provider, the default.
pub const BYOH: &str = "byoh";
/// Most masters in one request. etcd gains nothing from more than seven members.
pub const MAX_MASTERS: usize = 7;
/// Most workers in one request. It limits the cost of the rules on them.
pub const MAX_WORKERS: usize = 400;

rule!(
    /// Name of the cluster, its objects and its kubeconfig Secret.
    CLUSTER_NAME,
    "!has(self.clusterName) || self.clusterName.matches('^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$')",
    "clusterName must be a DNS label: lower-case letters, digits and '-', starting with a letter, at most 63 characters"
);
rule!(
    /// Kubernetes versions as Cluster API requires them.
    K8S_VERSION,
    "!has(self.k8sVersion) || self.k8sVersion.matches('^v1[.](0|[1-9][0-9]*)[.](0|[1-9][0-9]*)(-[0-9A-Za-z.-]+)?([+][0-9A-Za-z.-]+)?$')",
    "k8sVersion must be a Kubernetes version such as v1.33.1"
);
rule!(
    /// A network, written with its network address.
    POD_CIDR,
    "!has(self.podCidr) || (isCIDR(self.podCidr) && cidr(self.podCidr).masked() == cidr(self.podCidr))",
    "podCidr must be one network in CIDR form with no host bits set, such as 10.244.0.0/16; dual stack is not supported"
);
rule!(
    /// A network, written with its network address.
    SERVICE_CIDR,
    "!has(self.serviceCidr) || (isCIDR(self.serviceCidr) && cidr(self.serviceCidr).masked() == cidr(self.serviceCidr))",
    "serviceCidr must be one network in CIDR form with no host bits set, such as 10.128.0.0/12; dual stack is not supported"
);
rule!(
    /// Pods and Services need networks of their own.
    CIDR_OVERLAP,
    "!has(self.podCidr) || !has(self.serviceCidr) || !isCIDR(self.podCidr) || !isCIDR(self.serviceCidr) || (!cidr(self.podCidr).containsCIDR(self.serviceCidr) && !cidr(self.serviceCidr).containsCIDR(self.podCidr))",
    "podCidr and serviceCidr must not overlap"
);
rule!(
    /// Both must be in the request; `k8sVersion` may come from the template.
    REQUIRED,
    "self.clusterProvisioner != 'byoh' || (has(self.clusterName) && has(self.hosts))",
    "clusterName and hosts are required"
);
/// Requests may not set labels that controllers read. This is not a CEL rule: keys of a map have no bounded length, so the
/// API server would refuse the rule as too costly.
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
    /// One host runs one node. The operator checks lists of more than 200: with long names the rule would cost more than is allowed,
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
    /// One of the two spellings, not both.
    HOST_ID_PRESENT,
    "has(self.hostId) != has(self.host_id)",
    "exactly one of hostId and host_id is required: a whole number, or a string in quotes"
);
/// It becomes the value of the label `host-id`. In the CRD this is a pattern and a minimum: for CEL, a value that may be
/// a number or a string has no bounded length.
pub const HOST_ID: &str = "hostId must be a number from 0 to 2147483647 or, in quotes, a label value: letters, digits, '-', '_' and '.', at most 63 characters";
/// The pattern of a `hostId` that is a string.
pub const HOST_ID_PATTERN: &str = "^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$";
/// The pattern of a time limit: Go's durations, without a sign, and limited so that none overflows. The operator could not
/// parse a template with another one.
pub const DURATION_PATTERN: &str = "^([0-9]{1,6}([.][0-9]{1,6})?(h|m|s|ms))+$";
/// Time of day: `22:00`.
pub const TIME_OF_DAY_PATTERN: &str = "^([01][0-9]|2[0-3]):[0-5][0-9]$";
/// An absolute path that is written into a script: no character that has a meaning for a shell or a Go template.
pub const HOST_PATH_PATTERN: &str = "^/[-A-Za-z0-9_./+]+$";
/// A URL that is written into a script, with the same restriction.
pub const HOST_URL_PATTERN: &str = "^(https?|file):[-A-Za-z0-9_./:+~%]+$";
/// A released version of Kubernetes.
pub const RELEASE_PATTERN: &str = "^v1[.](0|[1-9][0-9]{0,2})[.](0|[1-9][0-9]{0,2})$";

rule!(
    /// One of the two spellings, not both.
    HOST_NAME_PRESENT,
    "has(self.hostName) != has(self.host_name)",
    "exactly one of hostName and host_name is required"
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
    /// The name is the value of a label on the ProvisioningRequest. Only for new objects: existing ones must stay deletable.
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

/// Ranges of addresses that no pod or Service can have: unspecified, loopback, link-local, multicast, and what is reserved.
pub const RESERVED_RANGES: [&str; 7] =
    ["0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "::/96", "fe80::/10", "ff00::/8"];
/// Ranges of addresses that no endpoint can have. Of loopback addresses only the usual ones: simulated hosts have addresses in
/// 127.77.0.0/16.
pub const UNREACHABLE_RANGES: [&str; 7] =
    ["0.0.0.0/8", "127.0.0.0/16", "169.254.0.0/16", "224.0.0.0/3", "::/96", "fe80::/10", "ff00::/8"];

rule!(
    /// kubeadm takes any suffix, but packages and kubelets are compared with the version by text.
    K8S_RELEASE,
    "variables.k8sVersion.matches('^(v1[.](0|[1-9][0-9]{0,2})[.](0|[1-9][0-9]{0,2}))?$')",
    "k8sVersion must be a release such as v1.33.1, without a suffix such as -rc.1 or +build.7"
);
rule!(
    /// See [`RESERVED_RANGES`].
    POD_CIDR_RANGE,
    "variables.podCidr == '' || !variables.reserved.exists(range, cidr(range).containsCIDR(variables.podCidr) || cidr(variables.podCidr).containsCIDR(range))",
    "podCidr must not overlap with a range that is reserved: 0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16, 224.0.0.0/3, ::/96, fe80::/10, ff00::/8"
);
rule!(
    /// See [`RESERVED_RANGES`].
    SERVICE_CIDR_RANGE,
    "variables.serviceCidr == '' || !variables.reserved.exists(range, cidr(range).containsCIDR(variables.serviceCidr) || cidr(variables.serviceCidr).containsCIDR(range))",
    "serviceCidr must not overlap with a range that is reserved: 0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16, 224.0.0.0/3, ::/96, fe80::/10, ff00::/8"
);
rule!(
    /// kubeadm's limits: at least 10 addresses, at most 20 bits for them.
    SERVICE_CIDR_SIZE,
    "variables.serviceCidr == '' || (cidr(variables.serviceCidr).ip().family() == 4 ? (cidr(variables.serviceCidr).prefixLength() >= 12 && cidr(variables.serviceCidr).prefixLength() <= 28) : (cidr(variables.serviceCidr).prefixLength() >= 108 && cidr(variables.serviceCidr).prefixLength() <= 124))",
    "serviceCidr must have from 16 to 1048576 addresses: /12 to /28 for IPv4, /108 to /124 for IPv6"
);
rule!(
    /// A cluster has one address family here.
    CIDR_FAMILY,
    "variables.podCidr == '' || variables.serviceCidr == '' || cidr(variables.podCidr).ip().family() == cidr(variables.serviceCidr).ip().family()",
    "podCidr and serviceCidr must be both IPv4 or both IPv6"
);
rule!(
    /// Nodes and clients must be able to connect to the address. See [`UNREACHABLE_RANGES`].
    ENDPOINT_ADDRESS,
    "!isIP(variables.endpoint) || !variables.unreachable.exists(range, cidr(range).containsIP(variables.endpoint))",
    "controlPlaneEndpoint.host must be an address that servers can connect to: not unspecified, loopback, link-local, multicast or reserved"
);
rule!(
    /// A mistyped address looks like a name. The last label of a DNS name has a letter (RFC 3696).
    ENDPOINT_NAME,
    "variables.endpoint == '' || isIP(variables.endpoint) || (variables.endpoint != 'localhost' && variables.endpoint.matches('(^|[.])[-a-z0-9]*[a-z][-a-z0-9]*$'))",
    "controlPlaneEndpoint.host must be an IP address, or a DNS name with a letter in its last label; localhost is not accepted"
);
rule!(
    /// Inside of these networks the address is a pod's or a Service's.
    ENDPOINT_OUTSIDE,
    "!isIP(variables.endpoint) || ((variables.podCidr == '' || !cidr(variables.podCidr).containsIP(variables.endpoint)) && (variables.serviceCidr == '' || !cidr(variables.serviceCidr).containsIP(variables.endpoint)))",
    "controlPlaneEndpoint.host must not be inside podCidr or serviceCidr"
);

/// The rules on a cluster that is not created yet. They are no rules of the CRD: an existing cluster keeps the values that an earlier
/// release accepted, and its request can still be changed and deleted.
pub const NEW_CLUSTER: [&FieldRule; 8] = [
    &K8S_RELEASE,
    &POD_CIDR_RANGE,
    &SERVICE_CIDR_RANGE,
    &SERVICE_CIDR_SIZE,
    &CIDR_FAMILY,
    &ENDPOINT_ADDRESS,
    &ENDPOINT_NAME,
    &ENDPOINT_OUTSIDE,
];
