//! Names that more than one crate uses; and the names of the objects that are created for a request, which are functions of the
//! request.

use std::fmt::Write as _;

/// API group of the O-Cloud side.
pub const GROUP: &str = "o2ims.provisioning.oran.org";
/// Namespace of the O2IMS operator, and of the ClusterTemplates for all namespaces.
pub const OPERATOR_NAMESPACE: &str = "o2ims-system";
/// Field manager of everything that the O2IMS operator applies.
pub const FIELD_MANAGER: &str = "o2ims-operator";
/// Finalizer of a ProvisioningRequest: it stays until every host is released.
pub const FINALIZER: &str = "o2ims.provisioning.oran.org/hosts";

/// Label on a ByoHost: id of the host; set by the field engineer, or by the operator if it is missing.
pub const HOST_ID_LABEL: &str = "host-id";
/// Label on a ByoHost: owner UID of the request that holds it. Also on every object that the operator creates.
pub const REQUEST_UID_LABEL: &str = "o2ims.provisioning.oran.org/request-uid";
/// Label on a ByoHost: what the host is for, [`ROLE_CONTROL_PLANE`] or [`ROLE_WORKER`].
pub const ROLE_LABEL: &str = "o2ims.provisioning.oran.org/role";
/// Annotation on the hosts that a request holds, and on the objects that were created for it: the request, as `namespace/name`. For
/// messages, and to recognise a request that was restored.
pub const REQUEST_ANNOTATION: &str = "o2ims.provisioning.oran.org/request";
/// Annotation on a ByoHost whose label `host-id` was set by the operator, so that it is removed on release.
pub const HOST_ID_SET_ANNOTATION: &str = "o2ims.provisioning.oran.org/host-id-set";
/// Annotation on every object that the operator creates: hash of what was applied.
pub const APPLIED_HASH_ANNOTATION: &str = "o2ims.provisioning.oran.org/applied-hash";
/// Annotation on a Cluster that is still being created: it is paused by the operator, not by a user.
pub const CREATING_ANNOTATION: &str = "o2ims.provisioning.oran.org/creating";
/// Annotation on a Cluster: how Kubernetes is installed on its hosts (JSON of `spec.install` of its ClusterTemplate).
pub const INSTALL_ANNOTATION: &str = "o2ims.provisioning.oran.org/install";
/// Annotation on a ByoHost: name of the Secret with its install scripts, which is deleted when the host is released.
pub const INSTALL_SECRET_ANNOTATION: &str = "o2ims.provisioning.oran.org/install-secret";
/// Prefix of the names of Secrets with install scripts; `deploy/` lets the operator write no others.
pub const INSTALL_SECRET_PREFIX: &str = "o2ims-install.";
/// Annotation on a ByoHost: the error of the install scripts or of kubeadm, written by the host itself.
pub const FAILURE_ANNOTATION: &str = "o2ims.provisioning.oran.org/failure";
/// Annotation on a ByoHost: the job that the host is to run, as `<id> <SHA-256 of its script>`.
pub const JOB_ANNOTATION: &str = "o2ims.provisioning.oran.org/job";
/// Annotation on a ByoHost: how far its job is (JSON), written by the host itself.
pub const JOB_STATUS_ANNOTATION: &str = "o2ims.provisioning.oran.org/job-status";
/// Annotation on a ByoHost: the version of the unit that runs jobs, written by the unit itself.
pub const HOST_UNIT_ANNOTATION: &str = "o2ims.provisioning.oran.org/host-unit";
/// Annotation on a ByoHost: when its certificates end (JSON), written by the unit itself.
pub const CERTIFICATES_ANNOTATION: &str = "o2ims.provisioning.oran.org/certificates";
/// Annotation on a ProvisioningRequest: `<word>`, and each of its hosts makes a support bundle of this name; or `<word>/<host>`, and this one does. On a
/// ByoHost: the name of the bundle that the host is to make. On a Cluster: the annotation of its request, when each host has got its word.
pub const SUPPORT_BUNDLE_ANNOTATION: &str = "o2ims.provisioning.oran.org/support-bundle";
/// Annotation on a ProvisioningRequest: a word, for which its first master takes a snapshot of etcd. On a ByoHost: the last snapshot that was taken for a
/// word (JSON). On a Cluster: the word that was carried out last.
pub const SNAPSHOT_ANNOTATION: &str = "o2ims.provisioning.oran.org/snapshot";
/// Annotation on a ByoHost: its last support bundle (JSON), written by the unit itself.
pub const SUPPORT_BUNDLE_STATUS_ANNOTATION: &str = "o2ims.provisioning.oran.org/support-bundle-status";
/// Prefix of the names of Secrets with a host's job; `deploy/` lets the operator write no others beside [`INSTALL_SECRET_PREFIX`].
pub const JOB_SECRET_PREFIX: &str = "o2ims-job.";
/// Annotation on a ProvisioningRequest: the id of the failed job, which its status names. The job is tried again.
pub const RETRY_ANNOTATION: &str = "o2ims.provisioning.oran.org/retry";
/// Annotation on a ProvisioningRequest: the snapshot, which its status names, that its only master is brought back to after a failed upgrade.
pub const RESTORE_SNAPSHOT_ANNOTATION: &str = "o2ims.provisioning.oran.org/restore-snapshot";
/// Annotation on a ProvisioningRequest whose upgrade waits, as `spec.upgrade.pauseAfter` or `spec.upgrade.windows` of its template says: `<version>`, and it
/// goes on to its end; or `<version>/<host>`, and it goes on with this host.
pub const CONTINUE_ANNOTATION: &str = "o2ims.provisioning.oran.org/continue";
/// Annotation on a ProvisioningRequest: unless its value is `false`, the operator changes nothing of the request's cluster.
pub const PAUSED_ANNOTATION: &str = "o2ims.provisioning.oran.org/paused";
/// Annotation on a ProvisioningRequest: as [`PAUSED_ANNOTATION`], and the status says what would be done.
pub const PLAN_ANNOTATION: &str = "o2ims.provisioning.oran.org/plan";
/// Annotation on a ProvisioningRequest: ids of the lost Cluster or of ByoHosts, which its status names. What still runs is kept, and
/// managed again.
pub const RESTORE_ANNOTATION: &str = "o2ims.provisioning.oran.org/restore";
/// Annotation on a ProvisioningRequest: the id of the lost Cluster, which its status names: what still runs of it is torn down, and
/// its servers are reset. Or ids of ByoHosts that BYOH left paused: the pause is removed, so that their agents clean them.
pub const CLEAN_ANNOTATION: &str = "o2ims.provisioning.oran.org/clean";
/// Annotation on a ProvisioningRequest: names of ByoHosts that the request gives up, separated by commas. Their servers do not come back, so the
/// request does not wait until their agents have cleaned them.
pub const LOST_HOSTS_ANNOTATION: &str = "o2ims.provisioning.oran.org/lost-hosts";
/// Label on a ByoHost that was given up: owner UID of the request that has held it. It stays until the agent has cleaned the host.
pub const LOST_LABEL: &str = "o2ims.provisioning.oran.org/lost";
/// Annotation on a Cluster that is torn down although its request stays: the request has [`CLEAN_ANNOTATION`], or a part
/// of it was deleted while it was being created.
pub const CLEANING_ANNOTATION: &str = "o2ims.provisioning.oran.org/cleaning";
/// Annotation on a Cluster: UID of the restored request that has named every host that it holds. From then on an edit of that
/// request may remove hosts.
pub const RESTORED_BY_ANNOTATION: &str = "o2ims.provisioning.oran.org/restored-by";
/// Annotation on a Cluster that is upgraded: the version that its request asks for, and by which `spec.upgrade.strategy`, such as `v1.33.1 InPlace`.
/// It stays until every host has the version.
pub const UPGRADE_STRATEGY_ANNOTATION: &str = "o2ims.provisioning.oran.org/upgrade-strategy";
/// Annotation on a ProvisioningRequest: with the value `true` the API server refuses to delete it.
pub const DELETION_PROTECTION_ANNOTATION: &str = "o2ims.provisioning.oran.org/deletion-protection";
/// Annotation on an object of a cluster, or on a CustomResourceDefinition: with the value `true` it may be deleted by hand.
pub const ALLOW_DELETION_ANNOTATION: &str = "o2ims.provisioning.oran.org/allow-deletion";
/// Label on a ControllerRevision: the ProvisioningRequest whose spec it has.
pub const REVISION_OF_LABEL: &str = "o2ims.provisioning.oran.org/revision-of";
/// Finalizer that the API server adds to an object that is deleted with `--cascade=orphan`.
pub const ORPHAN_FINALIZER: &str = "orphan";
/// Value of [`ROLE_LABEL`] for masters.
pub const ROLE_CONTROL_PLANE: &str = "control-plane";
/// Value of [`ROLE_LABEL`] for workers.
pub const ROLE_WORKER: &str = "worker";

/// Names of the SMO's side.
pub mod focom {
    /// API group of FocomProvisioningRequests and OClouds.
    pub const GROUP: &str = "focom.nephio.org";
    /// Namespace of the FOCOM operator.
    pub const OPERATOR_NAMESPACE: &str = "focom-system";
    /// Field manager of everything that the FOCOM operator applies.
    pub const FIELD_MANAGER: &str = "focom-operator";
    /// Finalizer of a FocomProvisioningRequest, as Nephio names it: it stays until its ProvisioningRequest is deleted.
    pub const FINALIZER: &str = "focom.nephio.org/finalizer";
    /// Default of the `oCloudId` that means the SMO's own cluster.
    pub const LOCAL_O_CLOUD: &str = "management-cluster";

    /// Label on a ProvisioningRequest: name of the FocomProvisioningRequest that it was created for.
    pub const SOURCE_LABEL: &str = "focom.nephio.org/source";
    /// Label on a ProvisioningRequest: namespace of the FocomProvisioningRequest that it was created for.
    pub const SOURCE_NAMESPACE_LABEL: &str = "focom.nephio.org/source-namespace";
    /// Label on a ProvisioningRequest: UID of the FocomProvisioningRequest that it was created for, and to
    /// which it belongs.
    pub const SOURCE_UID_LABEL: &str = "focom.nephio.org/source-uid";
    /// Label on a ProvisioningRequest: id of the SMO that has sent it.
    pub const SMO_LABEL: &str = "focom.nephio.org/smo";
    /// Label on a ControllerRevision: the FocomProvisioningRequest whose spec it has.
    pub const REVISION_OF_LABEL: &str = "focom.nephio.org/revision-of";
    /// Annotation on a ProvisioningRequest: `metadata.generation` of the FocomProvisioningRequest that was last applied.
    pub const SOURCE_GENERATION_ANNOTATION: &str = "focom.nephio.org/source-generation";
    /// Annotation on a ProvisioningRequest: hash of what was applied.
    pub const APPLIED_HASH_ANNOTATION: &str = "focom.nephio.org/applied-hash";

    /// Annotation on a FocomProvisioningRequest whose ProvisioningRequest is gone: the UID, which its status names, of the Cluster, or if
    /// there was none of the first ByoHost. The request is then sent again.
    pub const SEND_AGAIN_ANNOTATION: &str = "focom.nephio.org/send-again";
    /// Annotation on a FocomProvisioningRequest. `true`: its deletion does not wait for that of its ProvisioningRequest. The value of
    /// `status.sentTo`: its ProvisioningRequest stays on that O-Cloud, and it is sent to the one that its OCloud leads to now.
    pub const ABANDON_ANNOTATION: &str = "focom.nephio.org/abandon";
    /// Annotation on a FocomProvisioningRequest that is to adopt a ProvisioningRequest of its name that was not created for it:
    /// [`ADOPT_DRY_RUN`], or the UID of that ProvisioningRequest. No new ProvisioningRequest is sent while the annotation is set.
    pub const ADOPT_ANNOTATION: &str = "focom.nephio.org/adopt";
    /// Name of the root of a trace: the FocomProvisioningRequest. The O2IMS operator names it as the parent of its own spans.
    pub const ROOT_SPAN: &str = "FocomProvisioningRequest";
    /// Value of [`ADOPT_ANNOTATION`]: the status says what would be adopted, and nothing is written.
    pub const ADOPT_DRY_RUN: &str = "dry-run";
    /// Annotation on a FocomProvisioningRequest, `true` or `false`: whether its deletion is refused. It is passed on as
    /// [`super::DELETION_PROTECTION_ANNOTATION`].
    pub const DELETION_PROTECTION_ANNOTATION: &str = "focom.nephio.org/deletion-protection";
    /// Annotations of a ProvisioningRequest that a FocomProvisioningRequest passes on, where they have the group [`GROUP`].
    pub const PASSED_ON: [&str; 7] = [
        super::PAUSED_ANNOTATION,
        super::PLAN_ANNOTATION,
        super::RETRY_ANNOTATION,
        super::CONTINUE_ANNOTATION,
        super::RESTORE_SNAPSHOT_ANNOTATION,
        super::SUPPORT_BUNDLE_ANNOTATION,
        super::SNAPSHOT_ANNOTATION,
    ];

    /// The annotation of the FocomProvisioningRequest that is passed on as this one.
    pub fn at_smo(passed_on: &str) -> String {
        passed_on.replacen(super::GROUP, GROUP, 1)
    }

    /// Annotation on a FocomProvisioningRequest: names of ByoHosts that it gives up. It is passed on once, as
    /// [`super::LOST_HOSTS_ANNOTATION`], and then removed.
    pub const LOST_HOSTS_ANNOTATION: &str = "focom.nephio.org/lost-hosts";
    /// Annotation on a Namespace: namespaces, separated by commas, whose requests to the SMO's own cluster may be for it; `*` for all.
    pub const REQUESTS_FROM_ANNOTATION: &str = "focom.nephio.org/requests-from";
    /// Annotation on a Namespace: namespaces, separated by commas, whose OClouds may use its Secrets; `*` for all.
    pub const SECRETS_FOR_ANNOTATION: &str = "focom.nephio.org/secrets-for";

    /// Name of the ProvisioningRequest that is created for a FocomProvisioningRequest.
    pub fn remote_request(name: &str) -> String {
        format!("{name}-o2ims")
    }

    /// The names that the ProvisioningRequest of a FocomProvisioningRequest can have: the one above, or Nephio's, if it was adopted.
    pub fn remote_requests(name: &str) -> [String; 2] {
        [remote_request(name), name.to_owned()]
    }
}

/// Longest label value, from the Kubernetes API conventions.
const LABEL_VALUE_MAX: usize = 63;
/// A MachineSet adds `-` and 5 characters to the MachineDeployment's name, its Machines add the same again.
const MACHINE_SUFFIX: usize = 12;
/// `-` and the eight digits of a hash.
const HASH_SUFFIX: usize = 9;
/// A shorter name would have nothing readable beside the hash.
const SHORTEST: usize = 16;

/// Longest namespace in which clusters can be created: BYOH writes `<namespace>.<machine>` into one label value.
pub const NAMESPACE_MAX: usize = LABEL_VALUE_MAX - 1 - MACHINE_SUFFIX - SHORTEST;

/// Name of the KubeadmControlPlane, and stem of the templates that belong to it.
pub fn control_plane(namespace: &str, cluster: &str) -> String {
    let name = format!("{cluster}-control-plane");
    if name.len() <= room(namespace) { name } else { with_hash(&name, &name, namespace) }
}

/// Name of the MachineDeployment of one worker host, and stem of the templates that belong to it.
///
/// `<cluster>-worker-<host>` if that can be read in one way only and is not too long; otherwise a hash of the two is appended.
pub fn worker(namespace: &str, cluster: &str, host_name: &str) -> String {
    const ROLE: &str = "-worker-";
    let name = format!("{cluster}{ROLE}{}", host_name.replace('.', "-"));
    let one_reading = !host_name.contains('.')
        && name.find(ROLE) == name.rfind(ROLE)
        && !ends_like_a_hash(&name)
        && name.len() <= room(namespace);
    if one_reading { name } else { with_hash(&name, &format!("{cluster}\0{host_name}"), namespace) }
}

/// Name of the Secret with a host's install scripts for one machine. The dot distinguishes it from the names that Cluster API and BYOH
/// derive from clusters and machines.
pub fn install_secret(host_name: &str, machine: &str) -> String {
    format!("{INSTALL_SECRET_PREFIX}{host_name}.{}", short_hash(machine))
}

/// Whether a name is one that [`install_secret`] gives for this host.
pub fn is_install_secret_of(name: &str, host_name: &str) -> bool {
    let rest =
        name.strip_prefix(INSTALL_SECRET_PREFIX).and_then(|rest| rest.strip_prefix(host_name)?.strip_prefix('.'));
    rest.is_some_and(|hash| !hash.is_empty() && !hash.contains('.'))
}

/// Name of the Secret with the job of a host.
pub fn job_secret(host_name: &str) -> String {
    format!("{JOB_SECRET_PREFIX}{host_name}")
}

/// Id of a job: what it is for (`upgrade`), the version of Kubernetes, the machine that the host is the node of, and how often it was given.
pub fn job(purpose: &str, version: &str, machine: &str, attempt: u32) -> String {
    format!("{}{attempt}", job_stem(purpose, version, machine))
}

/// How often a job was given whose id this is; `None` if it is the id of another job.
pub fn job_attempt(id: &str, purpose: &str, version: &str, machine: &str) -> Option<u32> {
    id.strip_prefix(&job_stem(purpose, version, machine))?.parse().ok()
}

/// The version, or what else stands in its place, in the id of a job that is for this purpose and machine, and how often it was given.
pub fn job_target<'a>(id: &'a str, purpose: &str, machine: &str) -> Option<(&'a str, u32)> {
    let (stem, attempt) = id.strip_prefix(purpose)?.strip_prefix('-')?.rsplit_once('-')?;
    Some((stem.strip_suffix(&short_hash(machine))?.strip_suffix('-')?, attempt.parse().ok()?))
}

/// Whether a job of this id is for this machine.
pub fn is_job_of(id: &str, machine: &str) -> bool {
    id.rsplit_once('-').is_some_and(|(stem, _)| stem.ends_with(&format!("-{}", short_hash(machine))))
}

fn job_stem(purpose: &str, version: &str, machine: &str) -> String {
    format!("{purpose}-{}-{}-", version.to_lowercase().replace(['+', '_'], "-"), short_hash(machine))
}

/// Name of an immutable template: a hash of its content is part of its name, so that a change results in a new object.
pub fn hashed(stem: &str, content_hash: &str) -> String {
    format!("{stem}-{}", &content_hash[..content_hash.len().min(8)])
}

/// Longest name whose machines' names fit into BYOH's label value beside the namespace.
fn room(namespace: &str) -> usize {
    (LABEL_VALUE_MAX - 1 - MACHINE_SUFFIX).saturating_sub(namespace.len()).max(SHORTEST)
}

/// As much of `name` as there is room for, made unique by a hash of `identity`.
fn with_hash(name: &str, identity: &str, namespace: &str) -> String {
    let keep: String = name.chars().take(room(namespace) - HASH_SUFFIX).collect();
    format!("{}-{}", keep.trim_end_matches('-'), short_hash(identity))
}

/// Whether a name ends like one of [`with_hash`], and so could be equal to one.
fn ends_like_a_hash(name: &str) -> bool {
    let digits = |hash: &str| hash.len() == HASH_SUFFIX - 1 && hash.bytes().all(|digit| digit.is_ascii_hexdigit());
    name.rsplit_once('-').is_some_and(|(_, last)| digits(last))
}

/// Eight hex digits of FNV-1a, 32 bit: short, the same in all releases, not secret.
fn short_hash(text: &str) -> String {
    let hash = text.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let mut out = String::with_capacity(8);
    let _ = write!(out, "{hash:08x}");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_install_secret_is_known_by_its_host() {
        let name = install_secret("a", "site.machine");
        assert!(is_install_secret_of(&name, "a"), "{name}");
        for (name, host) in
            [(install_secret("a.b", "m").as_str(), "a"), (&name, "b"), ("site-ca", "a"), ("o2ims-install.a.", "a")]
        {
            assert!(!is_install_secret_of(name, host), "{name} of {host}");
        }
    }

    #[test]
    fn a_job_is_known_by_what_it_is_for() {
        let id = job("upgrade", "v1.36.1+site", "site.machine", 2);
        assert_eq!(job_attempt(&id, "upgrade", "v1.36.1+site", "site.machine"), Some(2));
        assert!(is_job_of(&id, "site.machine") && !is_job_of(&id, "site.other"), "{id}");
        assert_eq!(job_target(&id, "upgrade", "site.machine"), Some(("v1.36.1-site", 2)));
        assert_eq!(job_target(&id, "preflight", "site.machine"), None);
        assert_eq!(job_target(&id, "upgrade", "site.other"), None);
        for (purpose, version, machine) in [
            ("preflight", "v1.36.1+site", "site.machine"),
            ("upgrade", "v1.36.1", "site.machine"),
            ("upgrade", "v1.36.1+site", "site.other"),
        ] {
            assert_eq!(job_attempt(&id, purpose, version, machine), None, "{id}");
        }
    }

    #[test]
    fn readable_where_there_is_room() {
        assert_eq!(control_plane("default", "core"), "core-control-plane");
        assert_eq!(worker("default", "core", "target-2"), "core-worker-target-2");
        assert_eq!(worker("default", "core", "a.example.org"), "core-worker-a-example-org-3fdbef09");
    }

    #[test]
    fn what_can_be_read_in_two_ways_gets_a_hash() {
        let pairs = [
            [("core", "a.b"), ("core", "a-b")],
            [("a", "b-worker-c"), ("a-worker-b", "c")],
            [("a", "worker-b"), ("a-worker", "b")],
        ];
        for [(cluster, host), (other_cluster, other_host)] in pairs {
            let (name, other) = (worker("default", cluster, host), worker("default", other_cluster, other_host));
            assert_ne!(name, other);
        }
        let hashed = worker("default", "core", "a.b");
        let twin = hashed.strip_prefix("core-worker-").expect("has room");
        assert_ne!(worker("default", "core", twin), hashed, "a host that is named like a hashed one");
    }

    /// A cluster and a host, both of this form.
    fn worker_of(form: &'static str) -> impl Strategy<Value = (String, String)> {
        (form, form)
    }

    proptest! {
        #[test]
        fn machines_of_any_name_fit_byohs_label(namespace in "[a-z]{1,34}", cluster in "[a-z][a-z0-9-]{0,61}[a-z0-9]", host in "[a-z0-9.-]{1,63}") {
            prop_assume!(namespace.len() <= NAMESPACE_MAX);
            for name in [control_plane(&namespace, &cluster), worker(&namespace, &cluster, &host)] {
                prop_assert!(namespace.len() + 1 + name.len() + MACHINE_SUFFIX <= LABEL_VALUE_MAX, "{name}");
            }
        }

        #[test]
        fn different_workers_have_different_names(a in worker_of("[a-z0-9.-]{1,63}"), b in worker_of("[a-z0-9.-]{1,63}")) {
            prop_assume!(a != b);
            prop_assert_ne!(worker("some-namespace", &a.0, &a.1), worker("some-namespace", &b.0, &b.1));
        }

        /// Few parts, so that pairs that read the same come up.
        #[test]
        fn different_workers_that_look_alike_have_different_names(
            a in worker_of("[ab]([.-](a|b|worker)){0,3}"), b in worker_of("[ab]([.-](a|b|worker)){0,3}")
        ) {
            prop_assume!(a != b);
            prop_assert_ne!(worker("n", &a.0, &a.1), worker("n", &b.0, &b.1));
        }
    }
}
