//! What is refused, in which words, and whether the requester or somebody else has to act.

use cluster_api::byoh::{ByohVariant, UNREGISTERING_ANNOTATION};
use cluster_api::machine::MachineDeployment;
use kube::ResourceExt as _;
use o2ims_types::conditions::{self, reason};
use o2ims_types::{ProvisioningRequest, ProvisioningState, names};
use operator_kit::cache::SyncState;
use operator_kit::write::status::find;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::model::{NAMESPACE, World, from, host_name, host_refs, request};

struct Case {
    name: &'static str,
    world: fn(&mut World),
    request: fn(&mut ProvisioningRequest),
    reason: &'static str,
    state: ProvisioningState,
    /// The stage that is not done.
    stage: &'static str,
    message: &'static str,
}

const NOTHING: fn(&mut World) = |_| ();
const AS_IT_IS: fn(&mut ProvisioningRequest) = |_| ();

fn host_of(world: &mut World, change: impl FnOnce(&mut cluster_api::byoh::ByoHost)) {
    world.edit_host(&host_name(2), change);
}

/// An object of another owner, by its name.
fn theirs<K: DeserializeOwned>(name: &str) -> (String, K) {
    (name.to_owned(), from(json!({"metadata": {"name": name, "namespace": NAMESPACE, "uid": "theirs"}})))
}

/// Host 2 has the mark of a request that does not exist any more.
fn left_by_another(world: &mut World) {
    host_of(world, |host| {
        host.labels_mut().insert(names::REQUEST_UID_LABEL.to_owned(), "u".to_owned());
        host.annotations_mut().insert(names::REQUEST_ANNOTATION.to_owned(), "site-a/older".to_owned());
    });
}

fn endpoint(request: &mut ProvisioningRequest, host: &str, port: i32) {
    request.spec.template_parameters.control_plane_endpoint = Some(from(json!({"host": host, "port": port})));
}

fn cases() -> Vec<Case> {
    use ProvisioningState::{Failed, Pending};
    let invalid = |name, message, request| Case {
        name,
        request,
        message,
        world: NOTHING,
        reason: reason::INVALID,
        state: Failed,
        stage: conditions::VALIDATED,
    };
    let hosts = |name, message, world| Case {
        name,
        world,
        message,
        request: AS_IT_IS,
        reason: reason::HOSTS_UNAVAILABLE,
        state: Pending,
        stage: conditions::HOSTS_RESERVED,
    };
    let waiting = |name, reason, message, world| Case {
        name,
        world,
        message,
        reason,
        request: AS_IT_IS,
        state: Pending,
        stage: conditions::VALIDATED,
    };
    vec![
        Case {
            name: "a provider is missing",
            world: |world| assert!(world.byoh_goes_or_comes(0)),
            request: AS_IT_IS,
            reason: reason::PROVIDER_NOT_INSTALLED,
            state: Pending,
            stage: conditions::PROVIDERS_AVAILABLE,
            message: "Bring-Your-Own-Host provider (BYOH) is not installed on the management cluster; install it, then this operator continues",
        },
        Case {
            name: "Cluster API is of another version",
            world: |world| {
                world.cluster_api = SyncState::OtherVersions(vec!["v1alpha4".to_owned(), "v1beta1".to_owned()]);
            },
            request: AS_IT_IS,
            reason: reason::PROVIDER_VERSION_NOT_SERVED,
            state: Pending,
            stage: conditions::PROVIDERS_AVAILABLE,
            message: "the management cluster serves clusters.cluster.x-k8s.io in v1alpha4 and v1beta1, and this operator needs v1beta2; install a \
                      release of Cluster API that serves v1beta2 (this operator supports Cluster API 1.12 to 1.14), then this operator continues",
        },
        Case {
            name: "Cluster API is of another version, and BYOH is missing",
            world: |world| {
                world.cluster_api = SyncState::OtherVersions(vec!["v1beta1".to_owned()]);
                assert!(world.byoh_goes_or_comes(0));
            },
            request: AS_IT_IS,
            reason: reason::PROVIDER_NOT_INSTALLED,
            state: Pending,
            stage: conditions::PROVIDERS_AVAILABLE,
            message: "Bring-Your-Own-Host provider (BYOH) is not installed on the management cluster; install it; the management cluster serves \
                      clusters.cluster.x-k8s.io in v1beta1, and this operator needs v1beta2; install a release of Cluster API that serves \
                      v1beta2 (this operator supports Cluster API 1.12 to 1.14), then this operator continues",
        },
        waiting(
            "the template is missing",
            reason::TEMPLATE_UNAVAILABLE,
            "ClusterTemplate base-v1 (spec.name base, spec.version v1) exists neither in namespace site-a nor in o2ims-system",
            |world| world.templates.clear(),
        ),
        waiting(
            "the CNI is missing",
            reason::TEMPLATE_UNAVAILABLE,
            "ClusterResourceSet site-a/cni (spec.cni of ClusterTemplate base-v1) does not exist: create it",
            |world| world.resource_sets.clear(),
        ),
        waiting(
            "the CNI selects nothing",
            reason::TEMPLATE_UNAVAILABLE,
            "has no spec.clusterSelector.matchLabels: add at least one label",
            |world| world.resource_sets.get_mut("cni").unwrap().spec.cluster_selector.match_labels.clear(),
        ),
        waiting(
            "the template's schema is none",
            reason::TEMPLATE_UNAVAILABLE,
            "ClusterTemplate base-v1: parameterSchema is not a JSON Schema",
            |world| world.templates.get_mut("base-v1").unwrap().spec.parameter_schema = Some(json!({"type": 5})),
        ),
        waiting(
            "bundle on upstream",
            reason::UNSUPPORTED,
            "ClusterTemplate base-v1: install.method bundle does not work with upstream BYOH",
            |world| {
                world.templates.get_mut("base-v1").unwrap().spec.install =
                    from(json!({"method": "bundle", "bundle": {"repo": "r"}}));
            },
        ),
        Case {
            name: "against the template's schema",
            world: |world| {
                world.templates.get_mut("base-v1").unwrap().spec.parameter_schema = Some(json!({"required": ["site"]}));
            },
            ..invalid(
                "",
                "templateParameters: \"site\" is a required property (parameterSchema of ClusterTemplate base-v1)",
                AS_IT_IS,
            )
        },
        Case {
            name: "a wrong value by default",
            world: |world| {
                world.templates.get_mut("base-v1").unwrap().spec.defaults =
                    Some(json!({"podCidr": "10.244.0.1/16", "k8sVersion": "v1.33.1"}));
            },
            ..invalid(
                "",
                "podCidr must be one network in CIDR form with no host bits set, such as 10.244.0.0/16; dual stack is not supported: 10.244.0.1/16 \
                 is an address in 10.244.0.0/16; the value of podCidr is from spec.defaults of ClusterTemplate base-v1: set it in the request, or \
                 correct it there",
                AS_IT_IS,
            )
        },
        invalid("a version that is none", "k8sVersion must be a Kubernetes version such as v1.33.1", |request| {
            request.spec.template_parameters.k8s_version = Some("1.33".to_owned());
        }),
        invalid("two masters", "hosts.masters must have an odd number of hosts: 1, 3, 5 or 7", |request| {
            request.spec.template_parameters.hosts.as_mut().unwrap().masters = from(host_refs(&[1, 3]));
        }),
        invalid(
            "three masters without endpoint",
            "controlPlaneEndpoint is required with 3 masters: a virtual IP or a load balancer",
            |request| request.spec.template_parameters.hosts.as_mut().unwrap().masters = from(host_refs(&[1, 3, 4])),
        ),
        invalid(
            "the endpoint is one of three masters",
            "controlPlaneEndpoint.host 10.0.0.3 is the address of one of 3 masters; it must be a virtual IP or a load balancer",
            |request| {
                request.spec.template_parameters.hosts.as_mut().unwrap().masters = from(host_refs(&[1, 3, 4]));
                request.spec.template_parameters.control_plane_endpoint = Some(from(json!({"host": "10.0.0.3"})));
            },
        ),
        invalid(
            "a version with a suffix",
            "k8sVersion must be a release such as v1.33.1, without a suffix such as -rc.1 or +build.7",
            |request| request.spec.template_parameters.k8s_version = Some("v1.33.1+rke2r1".to_owned()),
        ),
        invalid(
            "pods in the network of the servers",
            "podCidr 10.0.0.0/16 overlaps with the network of host 1 (target-1), which has the address 10.0.0.1/24",
            |request| request.spec.template_parameters.pod_cidr = Some("10.0.0.0/16".to_owned()),
        ),
        invalid(
            "a part of the network of the servers for Services",
            "serviceCidr 10.0.0.128/25 overlaps with the network of host 1 (target-1), which has the address 10.0.0.1/24",
            |request| request.spec.template_parameters.service_cidr = Some("10.0.0.128/25".to_owned()),
        ),
        Case {
            name: "servers in the network that Services have by default",
            world: |world| {
                world.templates.get_mut("base-v1").unwrap().spec.defaults = Some(json!({"k8sVersion": "v1.33.1"}));
                host_of(world, |host| host.status.network[0].ip_addrs = vec!["10.100.0.2/16".to_owned()]);
            },
            ..invalid(
                "",
                "the default serviceCidr 10.96.0.0/12 overlaps with the network of host 2 (target-2), which has the address 10.100.0.2/16",
                AS_IT_IS,
            )
        },
        invalid(
            "pods in less than the network of a node",
            "podCidr 10.244.0.0/28 is too small: each node gets a /24 of it",
            |request| request.spec.template_parameters.pod_cidr = Some("10.244.0.0/28".to_owned()),
        ),
        invalid(
            "more nodes than pod networks",
            "podCidr 10.244.0.0/24 is too small for 2 nodes: each node gets a /24 of it, which is enough for 1",
            |request| request.spec.template_parameters.pod_cidr = Some("10.244.0.0/24".to_owned()),
        ),
        invalid(
            "more pods than kubeadm accepts",
            "podCidr 12.0.0.0/7 is too large: each node gets a /24 of it, so kubeadm accepts at most a /8",
            |request| request.spec.template_parameters.pod_cidr = Some("12.0.0.0/7".to_owned()),
        ),
        invalid(
            "IPv6 on servers that have none",
            "serviceCidr fd00::/112 is IPv6, but host 1 (target-1) reports no IPv6 address",
            |request| {
                request.spec.template_parameters.pod_cidr = Some("fd01::/56".to_owned());
                request.spec.template_parameters.service_cidr = Some("fd00::/112".to_owned());
            },
        ),
        invalid(
            "a port at which no master listens",
            "controlPlaneEndpoint.port 8443: the API servers of the masters listen on port 6443; use that one, or the address of a load balancer, \
             with virtualIp.provider external in the ClusterTemplate",
            |request| endpoint(request, "10.0.0.1", 8443),
        ),
        invalid(
            "a port at which kube-vip does not listen",
            "controlPlaneEndpoint.port 443: the API servers of the masters listen on port 6443; use that one, or the address of a load balancer, \
             with virtualIp.provider external in the ClusterTemplate",
            |request| endpoint(request, "10.0.0.100", 443),
        ),
        invalid(
            "a virtual address that no router sends to the masters",
            "controlPlaneEndpoint.host 10.0.1.100 is not in the network of host 1 (target-1), which has 10.0.0.1/24, so kube-vip cannot advertise it",
            |request| endpoint(request, "10.0.1.100", 6443),
        ),
        invalid(
            "the broadcast address",
            "controlPlaneEndpoint.host 10.0.0.255 is the network or broadcast address of 10.0.0.0/24, and of no server",
            |request| endpoint(request, "10.0.0.255", 6443),
        ),
        invalid(
            "the address of a worker",
            "controlPlaneEndpoint.host 10.0.0.2 is the address of host 2 (target-2), which is a worker; set an address that no worker has",
            |request| endpoint(request, "10.0.0.2", 6443),
        ),
        Case {
            name: "a master whose address BYOH would remove",
            world: |world| {
                world.edit_host("target-1", |host| host.status.network[0].ip_addrs = vec!["10.0.0.1/32".to_owned()]);
            },
            ..invalid(
                "",
                "controlPlaneEndpoint: the card of host 1 (target-1) has 10.0.0.1/32, and BYOH's agent would remove exactly that",
                AS_IT_IS,
            )
        },
        waiting(
            "a template that contradicts the Cluster",
            reason::TEMPLATE_UNAVAILABLE,
            "ClusterTemplate base-v1: spec.kubeadm.controlPlane.clusterConfiguration.networking.podSubnet contradicts the Cluster; remove it \
             there: set podCidr in defaults or in the request",
            |world| {
                world.templates.get_mut("base-v1").unwrap().spec.kubeadm.control_plane =
                    Some(json!({"clusterConfiguration": {"networking": {"podSubnet": "10.200.0.0/16"}}}));
            },
        ),
        invalid(
            "another value for the label by which the CNI is found",
            "labels: cni must be \"cni\" or left out: the ClusterResourceSet of ClusterTemplate base-v1 (spec.cni) selects clusters by it",
            |request| request.spec.template_parameters.labels = Some(from(json!({"cni": "other"}))),
        ),
        invalid("an id twice", "hosts must have different ids: hostId 1 is given twice", |request| {
            request.spec.template_parameters.hosts.as_mut().unwrap().workers =
                from(json!([{"hostId": "1", "hostName": "target-2"}]));
        }),
        invalid(
            "another back end",
            "clusterProvisioner \"porch\" is not supported: this O-Cloud has \"byoh\"",
            |request| "porch".clone_into(&mut request.spec.template_parameters.cluster_provisioner),
        ),
        waiting(
            "the cluster's name is taken by a request",
            reason::NAME_TAKEN,
            "clusterName core is also requested by ProvisioningRequest site-a/older, which comes first; this request continues when that \
             request is deleted. To continue now, delete this request and create it with another clusterName",
            |world| {
                world.submit(request("older", "core", &[5], &[]));
                world.second += 5;
            },
        ),
        waiting(
            "the cluster's name is taken by a Cluster",
            reason::NAME_TAKEN,
            "clusterName core is taken by Cluster site-a/core, which this operator did not create; this request continues when that \
             Cluster is deleted",
            |world| {
                world.submit(request("x", "core", &[5], &[]));
                assert!(world.stranger_makes_the_cluster(0));
                world.requests.clear();
            },
        ),
        waiting(
            "a KubeadmControlPlane has the name of the cluster's",
            reason::NAME_TAKEN,
            "clusterName core is taken by KubeadmControlPlane site-a/core-control-plane, which this operator did not create; this request \
             continues when that KubeadmControlPlane is deleted. To continue now, delete this request and create it with another clusterName",
            |world| world.control_planes.extend([theirs("core-control-plane")]),
        ),
        waiting(
            "a ByoCluster has the name of the cluster's",
            reason::NAME_TAKEN,
            "clusterName core is taken by ByoCluster site-a/core, which this operator did not create",
            |world| world.byo_clusters.extend([theirs("core")]),
        ),
        waiting(
            "a MachineDeployment of another request has the name of a worker's",
            reason::NAME_TAKEN,
            "clusterName core is taken by MachineDeployment site-a/core-worker-target-2, of ProvisioningRequest site-a/older, which does not exist \
             any more; this request continues when that MachineDeployment is deleted",
            |world| {
                let (name, mut deployment) = theirs::<MachineDeployment>("core-worker-target-2");
                deployment.annotations_mut().insert(names::REQUEST_ANNOTATION.to_owned(), "site-a/older".to_owned());
                world.deployments.insert(name, deployment);
            },
        ),
        Case {
            name: "the endpoint is taken",
            request: |request| {
                request.spec.template_parameters.control_plane_endpoint = Some(from(json!({"host": "10.0.0.100"})));
            },
            ..waiting(
                "",
                reason::NAME_TAKEN,
                "controlPlaneEndpoint 10.0.0.100:6443 is also requested by ProvisioningRequest site-a/older, which comes first",
                |world| {
                    let mut older = request("older", "edge", &[5], &[]);
                    older.spec.template_parameters.control_plane_endpoint = Some(from(json!({"host": "10.0.0.100"})));
                    world.submit(older);
                    world.second += 5;
                },
            )
        },
        Case {
            name: "a cluster that nobody asks for has the endpoint",
            request: |request| {
                request.spec.template_parameters.control_plane_endpoint = Some(from(json!({"host": "10.0.0.100"})));
            },
            ..waiting(
                "",
                reason::NAME_TAKEN,
                "controlPlaneEndpoint 10.0.0.100:6443 is taken by Cluster site-a/theirs, which this operator did not create",
                |world| {
                    world.submit(request("x", "theirs", &[5], &[]));
                    assert!(world.stranger_makes_the_cluster(0));
                    world.requests.clear();
                    world.edit_cluster("theirs", |cluster| {
                        cluster.spec.control_plane_endpoint = Some(from(json!({"host": "10.0.0.100", "port": 6443})));
                    });
                },
            )
        },
        Case {
            name: "a request in another namespace has the endpoint",
            request: |request| endpoint(request, "10.0.0.100", 6443),
            ..waiting(
                "",
                reason::NAME_TAKEN,
                "controlPlaneEndpoint 10.0.0.100:6443 is also requested by a ProvisioningRequest in another namespace (not shown), which comes \
                 first",
                |world| {
                    let mut older = request("older", "edge", &[5], &[]);
                    older.metadata.namespace = Some("site-b".to_owned());
                    older.metadata.finalizers = Some(vec![names::FINALIZER.to_owned()]);
                    endpoint(&mut older, "10.0.0.100", 6443);
                    world.submit(older);
                    world.delete_request("older");
                },
            )
        },
        Case {
            name: "a Cluster in another namespace has the endpoint",
            request: |request| endpoint(request, "10.0.0.100", 6443),
            ..waiting(
                "",
                reason::NAME_TAKEN,
                "controlPlaneEndpoint 10.0.0.100:6443 is taken by a Cluster in another namespace (not shown); this request continues when that \
                 Cluster is deleted",
                |world| {
                    let theirs = json!({
                        "metadata": {"name": "theirs", "namespace": "site-b", "uid": "theirs", "resourceVersion": "1"},
                        "spec": {"controlPlaneEndpoint": {"host": "10.0.0.100", "port": 6443}},
                    });
                    world.clusters.insert("theirs".to_owned(), from(theirs));
                },
            )
        },
        Case {
            name: "servers without IPv4 in a cluster with the default networks",
            world: |world| {
                world.templates.get_mut("base-v1").unwrap().spec.defaults = Some(json!({"k8sVersion": "v1.33.1"}));
                for number in [1, 2] {
                    let address = format!("fd10::{number}/64");
                    world.edit_host(&host_name(number), |host| host.status.network[0].ip_addrs = vec![address]);
                }
            },
            ..invalid(
                "",
                "serviceCidr 10.96.0.0/12 (the default) is IPv4, but host 1 (target-1) reports no IPv4 address",
                AS_IT_IS,
            )
        },
        Case {
            name: "a default of the wrong type",
            world: |world| {
                world.templates.get_mut("base-v1").unwrap().spec.defaults = Some(json!({"labels": {"a": 5}}));
            },
            ..invalid(
                "",
                "templateParameters with the defaults of ClusterTemplate base-v1 filled in cannot be decoded: ",
                AS_IT_IS,
            )
        },
        hosts("the host does not exist", "host 2 (target-2) is not registered in namespace site-a", |world| {
            world.hosts.remove("target-2");
        }),
        hosts(
            "two hosts do not exist",
            "host 1 (target-1) is not registered in namespace site-a; host 2 (target-2) is not registered",
            |world| {
                world.hosts.clear();
            },
        ),
        hosts(
            "another id",
            "host 2 (target-2) is not that host: ByoHost site-a/target-2 has the label host-id=7",
            |world| {
                host_of(world, |host| {
                    host.labels_mut().insert(names::HOST_ID_LABEL.to_owned(), "7".to_owned());
                });
            },
        ),
        hosts(
            "the id of another host",
            "host 2 (target-2) is not that host: host-id=2 is the label of ByoHost target-6",
            |world| {
                host_of(world, |host| {
                    host.labels_mut().remove(names::HOST_ID_LABEL);
                });
                world.edit_host("target-6", |host| {
                    host.labels_mut().insert(names::HOST_ID_LABEL.to_owned(), "2".to_owned());
                });
            },
        ),
        Case {
            name: "another address",
            request: |request| {
                request.spec.template_parameters.hosts.as_mut().unwrap().workers[0].host_ip =
                    Some("10.0.0.9".to_owned());
            },
            ..hosts("", "host 2 (target-2) does not have the address 10.0.0.9 (hostIp)", NOTHING)
        },
        hosts("a dead agent", "host 2 (target-2) is not alive: HeartbeatTimeout", |world| {
            assert!(world.agent_falls_silent(1));
        }),
        hosts("an agent that never spoke", "host 2 (target-2) is not alive: its agent has reported nothing", |world| {
            host_of(world, |host| host.status.host_info = None);
        }),
        hosts(
            "no address",
            "host 1 (target-1) reports no address that could be the control plane's endpoint: BYOH's agent reports addresses only if the server had \
             an IPv4 default route when the agent started. Add one, which may lead to a gateway that does not answer, then restart the agent on \
             the server: systemctl restart byoh-hostagent",
            |world| world.edit_host("target-1", |host| host.status.network.clear()),
        ),
        hosts("in use", "host 2 (target-2) is in use by cluster other", |world| {
            host_of(world, |host| {
                host.labels_mut().insert("cluster.x-k8s.io/cluster-name".to_owned(), "other".to_owned());
            });
        }),
        hosts("not cleaned to the end", "host 2 (target-2) has not been cleaned to the end by its agent", |world| {
            host_of(world, |host| host.spec.bootstrap_secret = Some(from(json!({"name": "script"}))));
        }),
        hosts("a node of nobody", "host 2 (target-2) still runs a node", |world| {
            let node = json!({"type": "K8sNodeBootstrapSucceeded", "status": "True"});
            host_of(world, |host| host.status.conditions = vec![from(node)]);
        }),
        hosts("paused", "host 2 (target-2) is paused (annotation cluster.x-k8s.io/paused)", |world| {
            host_of(world, |host| {
                host.annotations_mut().insert("cluster.x-k8s.io/paused".to_owned(), String::new());
            });
        }),
        hosts("held by a request that is not named", "host 2 (target-2) is held by another request", |world| {
            world.submit(request("two", "edge", &[5], &[]));
            host_of(world, |host| {
                host.labels_mut().insert(names::REQUEST_UID_LABEL.to_owned(), "two-uid".to_owned());
            });
        }),
        hosts(
            "held by a request that is gone, and in use",
            "host 2 (target-2) is held by an earlier ProvisioningRequest site-a/older that does not exist any more, and is in use by cluster \
             other. To manage that cluster, apply ProvisioningRequest site-a/older again, unchanged. To delete that cluster, do the same, then \
             delete ProvisioningRequest site-a/older",
            |world| {
                left_by_another(world);
                host_of(world, |host| {
                    host.labels_mut().insert("cluster.x-k8s.io/cluster-name".to_owned(), "other".to_owned());
                });
            },
        ),
        hosts(
            "held by a request that is gone, and being cleaned",
            "host 2 (target-2) is held by an earlier ProvisioningRequest site-a/older that does not exist any more, and is being cleaned by its \
             agent",
            |world| {
                left_by_another(world);
                host_of(world, |host| {
                    host.annotations_mut().insert(UNREGISTERING_ANNOTATION.to_owned(), String::new());
                });
            },
        ),
        hosts(
            "held by a request that is gone",
            "host 2 (target-2) is held by an earlier ProvisioningRequest site-a/older that does not exist any more",
            left_by_another,
        ),
    ]
}

#[test]
fn each_refusal_says_what_is_wrong_and_who_has_to_act() {
    for case in cases() {
        let name = if case.name.is_empty() { case.message } else { case.name };
        let mut world = World::new(ByohVariant::Platform9, json!({}), 6);
        if case.reason == reason::UNSUPPORTED {
            world.dialect = ByohVariant::Upstream;
        }
        (case.world)(&mut world);
        let mut request = request("one", "core", &[1], &[2]);
        (case.request)(&mut request);
        world.submit(request);
        for _ in 0..3 {
            world.reconcile("one");
        }
        let status = world.requests["one"].status.clone().unwrap();
        let told = &status.provisioning_status;
        assert_eq!(told.provisioning_state, case.state, "{name}: {}", told.provisioning_message);
        assert!(
            told.provisioning_message.starts_with(case.message) || told.provisioning_message.contains(case.message),
            "{name}: {}",
            told.provisioning_message
        );
        let stage = find(&status.conditions, case.stage).unwrap();
        assert_eq!((stage.status.as_str(), stage.reason.as_str()), ("False", case.reason), "{name}");
        for type_ in [
            conditions::READY,
            if case.state == ProvisioningState::Failed { conditions::STALLED } else { conditions::RECONCILING },
        ] {
            let summary = find(&status.conditions, type_).unwrap();
            assert_eq!(summary.reason, case.reason, "{name}: {type_}");
            assert_eq!(summary.message, told.provisioning_message, "{name}: {type_}");
        }
        assert_eq!(world.made("one-uid"), [], "{name}");
        assert!(world.held("one-uid").is_empty(), "{name}: holds hosts");
        assert_eq!(status.provisioned_resource_set, None, "{name}");
    }
}

/// Unusual values that are right: the request holds its hosts and gets its Cluster.
#[test]
fn what_is_unusual_and_right_is_accepted() {
    type Unusual = (&'static str, fn(&mut World), fn(&mut ProvisioningRequest), &'static str);
    let cases: Vec<Unusual> = vec![
        (
            "small networks for nodes",
            |world| {
                let arguments = json!({"node-cidr-mask-size-ipv4": "26"});
                world.templates.get_mut("base-v1").unwrap().spec.kubeadm.control_plane =
                    Some(json!({"clusterConfiguration": {"controllerManager": {"extraArgs": arguments}}}));
            },
            |request| request.spec.template_parameters.pod_cidr = Some("10.244.0.0/25".to_owned()),
            "10.0.0.1:6443",
        ),
        (
            "no networks for nodes",
            |world| {
                let arguments = json!({"allocate-node-cidrs": "false"});
                world.templates.get_mut("base-v1").unwrap().spec.kubeadm.control_plane =
                    Some(json!({"clusterConfiguration": {"controllerManager": {"extraArgs": arguments}}}));
            },
            |request| request.spec.template_parameters.pod_cidr = Some("10.244.0.0/28".to_owned()),
            "10.0.0.1:6443",
        ),
        (
            "API servers on another port",
            |world| {
                world.templates.get_mut("base-v1").unwrap().spec.kubeadm.control_plane =
                    Some(json!({"initConfiguration": {"localAPIEndpoint": {"bindPort": 8443}}}));
            },
            |request| endpoint(request, "10.0.0.1", 8443),
            "10.0.0.1:8443",
        ),
        (
            "a load balancer",
            |world| {
                world.templates.get_mut("base-v1").unwrap().spec.virtual_ip.provider = from(json!("external"));
            },
            |request| endpoint(request, "192.0.2.1", 443),
            "192.0.2.1:443",
        ),
        ("a name", NOTHING, |request| endpoint(request, "api.site-a.example.org", 443), "api.site-a.example.org:443"),
        ("a virtual address", NOTHING, |request| endpoint(request, "10.0.0.100", 6443), "10.0.0.100:6443"),
        (
            "a virtual address that the ByoHost has from a former cluster",
            |world| {
                world.edit_host("target-1", |host| host.status.network[0].ip_addrs.push("10.0.0.100/32".to_owned()));
            },
            |request| endpoint(request, "10.0.0.100", 6443),
            "10.0.0.100:6443",
        ),
        (
            "the card of the cluster",
            |world| {
                world.edit_host("target-1", |host| {
                    host.status.network.push(from(json!({"ipAddrs": ["172.16.0.1/24"]})));
                });
            },
            |request| {
                request.spec.template_parameters.hosts.as_mut().unwrap().masters[0].host_ip =
                    Some("172.16.0.1".to_owned());
            },
            "172.16.0.1:6443",
        ),
        (
            "a card that a former cluster has left in the ByoHost",
            |world| {
                world.edit_host("target-1", |host| {
                    host.status.network.push(from(json!({"ipAddrs": ["192.168.0.1/24"]})));
                });
            },
            AS_IT_IS,
            "10.0.0.1:6443",
        ),
        (
            "IPv6",
            |world| {
                for (number, name) in [(1, "target-1"), (2, "target-2")] {
                    world.edit_host(name, |host| host.status.network[0].ip_addrs.push(format!("fd10::{number}/64")));
                }
            },
            |request| {
                request.spec.template_parameters.pod_cidr = Some("fd01::/56".to_owned());
                request.spec.template_parameters.service_cidr = Some("fd00::/112".to_owned());
            },
            "10.0.0.1:6443",
        ),
    ];
    for (name, change, edit, endpoint) in cases {
        let mut world = World::new(ByohVariant::Platform9, json!({}), 6);
        change(&mut world);
        let mut request = request("one", "core", &[1], &[2]);
        edit(&mut request);
        world.submit(request);
        for _ in 0..6 {
            world.reconcile("one");
        }
        assert_eq!(world.held("one-uid").len(), 2, "{name}: {}", world.message("one"));
        let at = world.clusters["core"].spec.control_plane_endpoint.clone().unwrap();
        assert_eq!(format!("{}:{}", at.host, at.port), endpoint, "{name}");
    }
}

/// A newer release judges new clusters more strictly. What an earlier one began is continued: hosts that are held, a Cluster that is being
/// created, a cluster that runs, and one that somebody else deleted.
#[test]
fn what_an_earlier_release_began_is_continued() {
    for reconciles in 1..20 {
        let mut world = World::new(ByohVariant::Platform9, json!({}), 6);
        world.submit(request("one", "core", &[1], &[2]));
        for _ in 0..reconciles {
            world.reconcile("one");
        }
        if world.held("one-uid").is_empty() {
            continue;
        }
        // The servers are in the network of the pods, and the template contradicts the Cluster: no new request would be accepted.
        for name in ["target-1", "target-2"] {
            world.edit_host(name, |host| host.status.network[0].ip_addrs = vec!["192.168.1.1/24".to_owned()]);
        }
        world.templates.get_mut("base-v1").unwrap().spec.kubeadm.control_plane =
            Some(json!({"clusterConfiguration": {"clusterName": "other"}}));
        for _ in 0..6 {
            world.reconcile("one");
        }
        let told = &world.requests["one"].status.as_ref().unwrap().provisioning_status;
        assert_ne!(told.provisioning_state, ProvisioningState::Failed, "{reconciles}: {}", told.provisioning_message);
        assert_eq!(world.held("one-uid").len(), 2, "{reconciles}: {}", told.provisioning_message);
        assert!(world.clusters.contains_key("core"), "{reconciles}: {}", told.provisioning_message);
    }
}

/// Everything that is wrong with hosts is said at once, so that it can be put right at once.
#[test]
fn all_hosts_are_looked_at() {
    let mut world = World::new(ByohVariant::Platform9, json!({}), 4);
    world.hosts.remove("target-1");
    assert!(world.agent_falls_silent(0));
    world.submit(request("one", "core", &[1], &[2, 3]));
    world.reconcile("one");
    assert_eq!(
        world.message("one"),
        "host 1 (target-1) is not registered in namespace site-a; host 2 (target-2) is not alive: HeartbeatTimeout"
    );
}

/// BYOH writes the namespace and the machine's name into one label value.
#[test]
fn a_long_namespace_is_refused() {
    for (length, refused) in [(names::NAMESPACE_MAX, false), (names::NAMESPACE_MAX + 1, true)] {
        let world = {
            let mut world = World::new(ByohVariant::Upstream, json!({}), 2);
            world.submit(request("one", "core", &[1], &[2]));
            world
        };
        let mut flight = world.begin("one").unwrap();
        flight.request.metadata.namespace = Some("n".repeat(length));
        let verdict = o2ims_operator::provisioner::byoh::validate::validate(&flight.request, &flight.observed);
        if let Err(refusal) = &verdict {
            messages::record(&refusal.message);
        }
        let too_long =
            verdict.as_ref().is_err_and(|refusal| refusal.terminal && refusal.message.contains("is too long"));
        assert_eq!(too_long, refused, "{verdict:?}");
    }
    assert!(NAMESPACE.len() <= names::NAMESPACE_MAX);
}

/// Request `older` is wrong; `one` wants the same name.
fn world_with_a_wrong_request() -> World {
    let mut world = World::new(ByohVariant::Upstream, json!({}), 4);
    let mut wrong = request("older", "core", &[1], &[]);
    wrong.spec.template_parameters.k8s_version = Some("1".to_owned());
    world.submit(wrong);
    world.reconcile("older");
    world.second += 5;
    world.submit(request("one", "core", &[2], &[]));
    world
}

/// The request that is told that a name is taken gets it when the other one is gone; a wrong one holds nobody up.
#[test]
fn a_wrong_request_keeps_no_name() {
    let mut world = world_with_a_wrong_request();
    world.reconcile("one");
    assert_eq!(world.state("one"), Some(ProvisioningState::Pending));
    assert!(world.message("one").starts_with("claiming hosts"), "{}", world.message("one"));
}

/// A request that was put right counts as right from that moment, not only when its status says so.
#[test]
fn a_request_that_was_put_right_keeps_its_place() {
    let mut world = world_with_a_wrong_request();
    world.edit_request("older", |older| older.spec.template_parameters.k8s_version = None);
    world.reconcile("one");
    let told = world.message("one");
    let first = "clusterName core is also requested by ProvisioningRequest site-a/older, which comes first;";
    assert!(told.starts_with(first), "{told}");
}

/// What was claimed for a request that cannot go on after all is free for others.
#[test]
fn a_request_that_cannot_go_on_holds_nothing() {
    let mut world = World::new(ByohVariant::Upstream, json!({}), 3);
    world.submit(request("one", "core", &[1], &[2]));
    world.reconcile("one");
    world.reconcile("one");
    assert_eq!(world.held("one-uid").len(), 2);
    assert!(world.template_goes_or_comes(0));
    world.reconcile("one");
    assert!(world.held("one-uid").is_empty());
}

/// Of several that want the same, the oldest is named: it is the one that goes on next.
#[test]
fn the_oldest_rival_is_named() {
    let mut world = World::new(ByohVariant::Upstream, json!({}), 9);
    let names = ["d", "b", "e", "a", "f", "c"];
    for (name, number) in names.iter().zip(1..) {
        world.submit(request(name, "core", &[number], &[]));
        world.second += 1;
    }
    for name in &names[1..] {
        world.reconcile(name);
        let told = world.message(name);
        let first = "clusterName core is also requested by ProvisioningRequest site-a/d, which comes first;";
        assert!(told.starts_with(first), "{told}");
    }
}

/// Two clusters behind one load balancer go on when the template, which says that it is one, goes.
#[test]
fn a_running_cluster_keeps_its_endpoint() {
    let mut world = World::new(ByohVariant::Platform9, json!({"virtualIp": {"provider": "external"}}), 2);
    for (name, host, port) in [("one", 1, 6443), ("two", 2, 6444)] {
        let mut request = request(name, name, &[host], &[]);
        request.spec.template_parameters.control_plane_endpoint =
            Some(from(json!({"host": "10.0.0.100", "port": port})));
        world.submit(request);
    }
    world.settle();
    let states = |world: &World| ["one", "two"].map(|name| world.state(name));
    assert_eq!(states(&world), [Some(ProvisioningState::Fulfilled); 2], "{}", world.message("one"));
    world.templates.get_mut("base-v1").unwrap().spec.virtual_ip = from(json!({"provider": "kube-vip"}));
    for name in ["one", "two"] {
        world.reconcile(name);
    }
    assert_eq!(states(&world), [Some(ProvisioningState::Fulfilled); 2], "{}", world.message("two"));
}
