//! Condition types and reasons of a ProvisioningRequest. `Ready`, `Reconciling` and `Stalled` follow kstatus, so that
//! Flux, Argo CD and `kubectl wait` understand them; the others are the stages of provisioning, in order.

/// `status.observedGeneration` of an object that the operator has not seen yet, by default of the CRD. Without it kstatus takes a new object for
/// one that is done.
pub const NOT_OBSERVED: i64 = -1;

/// The cluster exists as requested: every requested node is Ready.
pub const READY: &str = "Ready";
/// The operator works on the request, or waits (kstatus).
pub const RECONCILING: &str = "Reconciling";
/// Action is required: the message says what is wrong, or which time limit has passed (kstatus).
pub const STALLED: &str = "Stalled";

/// The cluster or a part of it is paused, not by this operator, which changes nothing until the pause is removed.
pub const PAUSED: &str = "Paused";
/// Something is wrong with a created cluster that the condition Ready does not report.
pub const DEGRADED: &str = "Degraded";
/// No certificate of the cluster, or of its hosts' agents, has ended or could not be renewed. Only clusters whose hosts report dates have it.
pub const CERTIFICATES_VALID: &str = "CertificatesValid";

/// Stage: Cluster API and BYOH are installed.
pub const PROVIDERS_AVAILABLE: &str = "ProvidersAvailable";
/// Stage: the request is valid and can be carried out.
pub const VALIDATED: &str = "Validated";
/// Stage: every host is held by this request.
pub const HOSTS_RESERVED: &str = "HostsReserved";
/// Stage of a cluster whose k8sVersion was changed: every host runs the new version. Other clusters do not have it.
pub const UPGRADED: &str = "Upgraded";
/// Stage: every master is a Ready node at the requested version.
pub const CONTROL_PLANE_READY: &str = "ControlPlaneReady";
/// Stage: every worker is a Ready node at the requested version.
pub const WORKERS_READY: &str = "WorkersReady";
/// The stages of a creation, in order.
pub const STAGES: [&str; 5] = [PROVIDERS_AVAILABLE, VALIDATED, HOSTS_RESERVED, CONTROL_PLANE_READY, WORKERS_READY];

/// Reasons, CamelCase as the Kubernetes API conventions require.
pub mod reason {
    /// A stage is done.
    pub const SUCCEEDED: &str = "Succeeded";
    /// A stage waits for the one before.
    pub const WAITING: &str = "WaitingForEarlierStage";
    /// A stage is in progress.
    pub const IN_PROGRESS: &str = "InProgress";
    /// A value of the request, or of the template, is wrong; only a change of it helps.
    pub const INVALID: &str = "Invalid";
    /// The ClusterTemplate does not exist or cannot be used.
    pub const TEMPLATE_UNAVAILABLE: &str = "TemplateUnavailable";
    /// The template can be used.
    pub const READY: &str = "Ready";
    /// This combination of providers and template is known not to work.
    pub const UNSUPPORTED: &str = "Unsupported";
    /// Another request has this cluster name or endpoint.
    pub const NAME_TAKEN: &str = "NameTaken";
    /// A host is not registered, is held by another request, is in use, has no live agent, or has another id or address than
    /// the request gives.
    pub const HOSTS_UNAVAILABLE: &str = "HostsUnavailable";
    /// A provider's CustomResourceDefinitions do not exist.
    pub const PROVIDER_NOT_INSTALLED: &str = "ProviderNotInstalled";
    /// A provider's kinds exist, but not in the version that the operator uses.
    pub const PROVIDER_VERSION_NOT_SERVED: &str = "ProviderVersionNotServed";
    /// A stage took longer than the template allows.
    pub const DEADLINE_EXCEEDED: &str = "DeadlineExceeded";
    /// The request is being deleted.
    pub const DELETING: &str = "Deleting";
    /// The Cluster is lost: it is gone although the request is not being deleted, and its nodes run, or may run.
    pub const CLUSTER_MISSING: &str = "ClusterMissing";
    /// The last master is deleted or being deleted, and a stacked etcd with it; or the KubeadmControlPlane is, which cannot be created again
    /// for a running cluster.
    pub const CONTROL_PLANE_LOST: &str = "ControlPlaneLost";
    /// An upgrade or a renewal has stopped: a job has failed on a host, and is tried again when the owner of the request says so.
    pub const HALTED: &str = "Halted";
    /// An upgrade goes on with the next host when a maintenance window of its template begins.
    pub const WAITING_FOR_WINDOW: &str = "WaitingForWindow";
    /// A certificate has ended.
    pub const EXPIRED: &str = "Expired";
    /// The cluster or a part of it is paused, not by this operator.
    pub const PAUSED: &str = "Paused";
    /// The cluster runs, but not as the request specifies it.
    pub const MISMATCH: &str = "Mismatch";
    /// Nothing to do.
    pub const IDLE: &str = "Idle";
}

/// Conditions and reasons of the SMO's objects, in addition to those above.
pub mod focom {
    /// Stage of a FocomProvisioningRequest: it is valid as far as the SMO can check, and may be sent to its O-Cloud.
    pub const VALIDATED: &str = super::VALIDATED;
    /// Stage of a FocomProvisioningRequest: the O-Cloud answers.
    pub const O_CLOUD_AVAILABLE: &str = "OCloudAvailable";
    /// Stage of a FocomProvisioningRequest: the O-Cloud has its present version.
    pub const SYNCED: &str = "Synced";

    /// Reasons, CamelCase as the Kubernetes API conventions require.
    pub mod reason {
        /// The O-Cloud or the template can be used.
        pub const READY: &str = super::super::reason::READY;
        /// The O-Cloud has not answered yet.
        pub const CONNECTING: &str = "Connecting";
        /// The Secret does not exist, or has no kubeconfig.
        pub const SECRET_MISSING: &str = "SecretMissing";
        /// The operator may not read the Secret, or may not read it for this OCloud.
        pub const SECRET_NOT_ALLOWED: &str = "SecretNotAllowed";
        /// The kubeconfig has a setting that is not allowed, or lacks one.
        pub const KUBECONFIG_REFUSED: &str = "KubeconfigRefused";
        /// The O-Cloud does not answer.
        pub const UNREACHABLE: &str = "Unreachable";
        /// The O-Cloud's certificate is not accepted, or the O-Cloud does not accept that of the operator.
        pub const CERTIFICATE_INVALID: &str = "CertificateInvalid";
        /// The O-Cloud does not accept the credentials (401).
        pub const UNAUTHORIZED: &str = "Unauthorized";
        /// The account lacks a right on the O-Cloud (403).
        pub const FORBIDDEN: &str = "Forbidden";
        /// The kind ProvisioningRequest is not installed on the O-Cloud.
        pub const API_MISSING: &str = "ApiMissing";
        /// The ProvisioningRequests of this SMO on the O-Cloud take more memory than the operator keeps of one O-Cloud.
        pub const TOO_LARGE: &str = "TooLarge";
        /// The OCloud does not exist, or this namespace may not use it.
        pub const O_CLOUD_UNKNOWN: &str = "OCloudUnknown";
        /// The ProvisioningRequest is gone from the O-Cloud, and its deletion was not seen.
        pub const REMOTE_GONE: &str = "ProvisioningRequestGone";
        /// The OCloud leads to another O-Cloud than the one that the request was sent to.
        pub const O_CLOUD_CHANGED: &str = "OCloudChanged";
        /// The namespace of the SMO's own cluster does not allow requests from this namespace.
        pub const NOT_ALLOWED: &str = "NotAllowed";
        /// A value of the request is wrong: it does not match the template's schema, or may not change.
        pub const INVALID: &str = super::super::reason::INVALID;
        /// The TemplateInfo has no usable schema.
        pub const TEMPLATE_INVALID: &str = "TemplateInvalid";
        /// The O-Cloud has a ProvisioningRequest of that name, which does not belong to this request.
        pub const NAME_TAKEN: &str = super::super::reason::NAME_TAKEN;
        /// A dry run of an adoption: the message says what would be adopted.
        pub const ADOPTION_DRY_RUN: &str = "AdoptionDryRun";
        /// A ProvisioningRequest of the name exists that the request may be able to adopt; the message says what is required.
        pub const ADOPTION_REQUIRED: &str = "AdoptionRequired";
        /// The ProvisioningRequest is protected from deletion.
        pub const DELETION_PROTECTED: &str = "DeletionProtected";
        /// The O-Cloud's API server refuses the ProvisioningRequest.
        pub const REFUSED: &str = "Refused";
        /// The O-Cloud reports that the request has failed.
        pub const REMOTE_FAILED: &str = "RemoteFailed";
        /// The request is in progress.
        pub const IN_PROGRESS: &str = super::super::reason::IN_PROGRESS;
        /// Done.
        pub const SUCCEEDED: &str = super::super::reason::SUCCEEDED;
        /// The request is being deleted.
        pub const DELETING: &str = super::super::reason::DELETING;
        /// Not checked, because an earlier stage is not done.
        pub const WAITING: &str = super::super::reason::WAITING;
        /// Nothing to do.
        pub const IDLE: &str = super::super::reason::IDLE;
    }
}
