//! Condition types and reasons of a ProvisioningRequest. `Ready`, `Reconciling` and `Stalled` follow kstatus, so that
//! Flux, Argo CD and `kubectl wait` understand them; the others are the stages of provisioning, in order.

/// The cluster is there as asked for.
pub const READY: &str = "Ready";
/// Work is under way (kstatus).
pub const RECONCILING: &str = "Reconciling";
/// Somebody has to act: the request is wrong, or a deadline has passed (kstatus).
pub const STALLED: &str = "Stalled";

/// Stage: Cluster API and BYOH are installed.
pub const PROVIDERS_AVAILABLE: &str = "ProvidersAvailable";
/// Stage: the request is right, and can be carried out as far as the O-Cloud knows.
pub const VALIDATED: &str = "Validated";
/// Stage: every host is held by this request.
pub const HOSTS_RESERVED: &str = "HostsReserved";
/// Stage: every master is a Ready node at the asked-for version.
pub const CONTROL_PLANE_READY: &str = "ControlPlaneReady";
/// Stage: every worker is a Ready node at the asked-for version.
pub const WORKERS_READY: &str = "WorkersReady";

/// Reasons, CamelCase as the Kubernetes API conventions want them.
pub mod reason {
    /// A stage is done.
    pub const SUCCEEDED: &str = "Succeeded";
    /// A stage waits for the one before.
    pub const WAITING: &str = "WaitingForEarlierStage";
    /// A stage is being worked on.
    pub const IN_PROGRESS: &str = "InProgress";
    /// A value of the request is wrong; only a change of the request helps.
    pub const INVALID: &str = "Invalid";
    /// The ClusterTemplate does not exist or is not usable.
    pub const TEMPLATE_UNAVAILABLE: &str = "TemplateUnavailable";
    /// This combination of providers and template is known to break.
    pub const UNSUPPORTED: &str = "Unsupported";
    /// Another request has this cluster name or endpoint.
    pub const NAME_TAKEN: &str = "NameTaken";
    /// A host is missing, busy, dead or not the one that was meant.
    pub const HOSTS_UNAVAILABLE: &str = "HostsUnavailable";
    /// A provider's CustomResourceDefinitions do not exist.
    pub const PROVIDER_NOT_INSTALLED: &str = "ProviderNotInstalled";
    /// A stage took longer than the template allows.
    pub const DEADLINE_EXCEEDED: &str = "DeadlineExceeded";
    /// The request is being deleted.
    pub const DELETING: &str = "Deleting";
    /// Nothing to do.
    pub const IDLE: &str = "Idle";
}
