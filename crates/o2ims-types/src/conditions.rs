//! Condition types and reasons of a ProvisioningRequest. `Ready`, `Reconciling` and `Stalled` follow kstatus, so that
//! Flux, Argo CD and `kubectl wait` understand them; the others are the stages of provisioning, in order.

/// The cluster is there as asked for.
pub const READY: &str = "Ready";
/// Work is under way (kstatus).
pub const RECONCILING: &str = "Reconciling";
/// Somebody has to act: the request is wrong, or a deadline has passed (kstatus).
pub const STALLED: &str = "Stalled";

/// Somebody has paused the cluster or a part of it, so it is left alone.
pub const PAUSED: &str = "Paused";
/// Something is wrong that does not keep the cluster from being Ready, or that it would hide.
pub const DEGRADED: &str = "Degraded";

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
    /// The Cluster object went although nobody asked for that, and its nodes run.
    pub const CLUSTER_MISSING: &str = "ClusterMissing";
    /// The last master is gone, and etcd with it.
    pub const CONTROL_PLANE_LOST: &str = "ControlPlaneLost";
    /// Somebody has paused the cluster or a part of it.
    pub const PAUSED: &str = "Paused";
    /// The cluster runs; something about it is not as the request says.
    pub const MISMATCH: &str = "Mismatch";
    /// Nothing to do.
    pub const IDLE: &str = "Idle";
}

/// Conditions and reasons of the SMO's objects, beside those above.
pub mod focom {
    /// Stage of a FocomProvisioningRequest: it is right as far as the SMO can know, and may go where it wants.
    pub const VALIDATED: &str = super::VALIDATED;
    /// Stage of a FocomProvisioningRequest: the O-Cloud answers.
    pub const O_CLOUD_AVAILABLE: &str = "OCloudAvailable";
    /// Stage of a FocomProvisioningRequest: the O-Cloud has it as it stands at the SMO.
    pub const SYNCED: &str = "Synced";

    /// Reasons, CamelCase as the Kubernetes API conventions want them.
    pub mod reason {
        /// The O-Cloud can be used.
        pub const READY: &str = "Ready";
        /// The first answer has not come yet.
        pub const CONNECTING: &str = "Connecting";
        /// There is no such Secret, or it has no kubeconfig.
        pub const SECRET_MISSING: &str = "SecretMissing";
        /// The operator may not read the Secret, or may not read it for this OCloud.
        pub const SECRET_NOT_ALLOWED: &str = "SecretNotAllowed";
        /// The kubeconfig has something that is not allowed, or lacks something.
        pub const KUBECONFIG_REFUSED: &str = "KubeconfigRefused";
        /// The O-Cloud does not answer.
        pub const UNREACHABLE: &str = "Unreachable";
        /// The O-Cloud's certificate, or ours, is not believed.
        pub const CERTIFICATE_INVALID: &str = "CertificateInvalid";
        /// The O-Cloud does not know us.
        pub const UNAUTHORIZED: &str = "Unauthorized";
        /// The O-Cloud knows us, and does not let us do this.
        pub const FORBIDDEN: &str = "Forbidden";
        /// The O-Cloud has no ProvisioningRequests.
        pub const API_MISSING: &str = "ApiMissing";
        /// There is no such OCloud, or this namespace may not use it.
        pub const O_CLOUD_UNKNOWN: &str = "OCloudUnknown";
        /// The ProvisioningRequest went from the O-Cloud, and nobody was seen to delete it.
        pub const REMOTE_GONE: &str = "ProvisioningRequestGone";
        /// The OCloud leads to another O-Cloud than the one that the request was sent to.
        pub const O_CLOUD_CHANGED: &str = "OCloudChanged";
        /// The namespace takes no requests from this one.
        pub const NOT_ALLOWED: &str = "NotAllowed";
        /// The parameters are not what the template's schema says.
        pub const INVALID: &str = super::super::reason::INVALID;
        /// The TemplateInfo has no usable schema.
        pub const TEMPLATE_INVALID: &str = "TemplateInvalid";
        /// The O-Cloud has a ProvisioningRequest of that name, which is not this request's.
        pub const NAME_TAKEN: &str = super::super::reason::NAME_TAKEN;
        /// A dry run of an adoption: the message says what would be adopted.
        pub const ADOPTION_DRY_RUN: &str = "AdoptionDryRun";
        /// A ProvisioningRequest of the name may be the request's; the message says what it takes to adopt it.
        pub const ADOPTION_REQUIRED: &str = "AdoptionRequired";
        /// The ProvisioningRequest is protected from deletion.
        pub const DELETION_PROTECTED: &str = "DeletionProtected";
        /// The O-Cloud refuses the ProvisioningRequest.
        pub const REFUSED: &str = "Refused";
        /// The O-Cloud says that the request has failed.
        pub const REMOTE_FAILED: &str = "RemoteFailed";
        /// On the way.
        pub const IN_PROGRESS: &str = super::super::reason::IN_PROGRESS;
        /// Done.
        pub const SUCCEEDED: &str = super::super::reason::SUCCEEDED;
        /// The request is being deleted.
        pub const DELETING: &str = super::super::reason::DELETING;
        /// Not looked at, because an earlier stage is not done.
        pub const WAITING: &str = super::super::reason::WAITING;
        /// Nothing to do.
        pub const IDLE: &str = super::super::reason::IDLE;
    }
}
