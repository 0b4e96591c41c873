//! What users are told, as the list `docs/messages.md`, with what to do about it. The list has each text of the source, and each message of it
//! is made by a test. `UPDATE_DOCS=1 cargo test -p o2ims-operator --test pure messages` writes it anew.

use std::path::Path;

use messages::{Entry, Group, Source, assert_complete, assert_made, assert_page, entry, made};

const HEADING: &str = "The O2IMS operator";

const LIST: &[Group] = &[
    Group { title: "A ProvisioningRequest that is rejected", entries: REQUEST },
    Group { title: "What a ProvisioningRequest needs", entries: NEEDS },
    Group { title: "A cluster name or an endpoint that another one has", entries: CONTENTION },
    Group { title: "A host that a ProvisioningRequest cannot have", entries: HOSTS },
    Group { title: "A ProvisioningRequest on its way", entries: PROGRESS },
    Group { title: "A host of a ProvisioningRequest", entries: HOST },
    Group { title: "What a server reports of an installation or a bootstrap", entries: SERVER },
    Group { title: "An upgrade", entries: UPGRADE },
    Group { title: "What a server reports of an upgrade or a renewal", entries: UPGRADE_OF_SERVER },
    Group { title: "A cluster that runs, and something is wrong with it", entries: DEGRADED },
    Group { title: "Certificates that end", entries: CERTIFICATES },
    Group { title: "A support bundle, or a snapshot", entries: SUPPORT },
    Group { title: "A cluster of which something was deleted", entries: LOSS },
    Group { title: "A ProvisioningRequest that is being deleted", entries: DELETION },
    Group { title: "A write that failed", entries: WRITES },
    Group { title: "A ClusterTemplate", entries: TEMPLATE },
];

const REQUEST: &[Entry] = &[
    entry(
        "namespace … is too long: BYOH can create clusters in namespaces of at most … characters. Create the request in one with a shorter name",
        "Create the request, and register its hosts, in a namespace with a shorter name.",
    ),
    entry(
        "clusterProvisioner … is not supported: this O-Cloud has …",
        "Delete the request, and create it with a provisioner that the message names.",
    ),
    entry(
        "templateParameters: … (parameterSchema of ClusterTemplate …)",
        "The request does not fit `parameterSchema` of its ClusterTemplate. The text after the field is the rule. Correct the field.",
    ),
    entry(
        "…; the value of … is from spec.defaults of ClusterTemplate …: set it in the request, or correct it there",
        "The request leaves the field out, so it has the template's value, which does not fit the other values or is wrong by itself.",
    ),
    entry(
        "templateParameters with the defaults of ClusterTemplate … filled in cannot be decoded: …; correct the request or spec.defaults",
        "A field has the wrong type. The message has the position and the expected type.",
    ),
    entry(
        "… cannot change while the cluster exists: … has …, the request has …. If the request was changed, set … back to …. If … was \
         changed, set it back there to …",
        "The cluster keeps running. Set the field back where it was changed. Another value takes another request.",
    ),
    entry(
        "hosts.masters cannot change: the cluster's endpoint … is the address of …. Set hosts.masters back to …. A cluster that is to get other \
         masters needs a controlPlaneEndpoint that is a virtual IP, a load balancer or a DNS name when it is created, also with one master",
        "The cluster keeps running. Every node and kubeconfig has that address, so that master cannot go, and no other one can take its place. Name \
         the masters that the cluster has.",
    ),
    entry(
        "hosts.masters cannot change: … is being upgraded, or runs another version of Kubernetes than the control plane. Set hosts.masters back to …, \
         and change them when every master runs the same version",
        "A master that joined now would have the older version. The upgrade waits, too, until the masters are as before.",
    ),
    entry(
        "hosts.masters cannot change: …",
        "The cluster keeps running. The rest says why the masters that were added cannot be had; name other ones.",
    ),
    entry(
        "labels: … must be … or left out: the ClusterResourceSet of ClusterTemplate … (spec.cni) selects clusters by it",
        "Remove that label from `labels` of the request.",
    ),
    entry(
        "controlPlaneEndpoint.host … is the address of one of … masters; it must be a virtual IP or a load balancer",
        "Set an unused address of the masters' network, or the address of a load balancer.",
    ),
    entry(
        "controlPlaneEndpoint.host … is the address of …, which is a worker; set an address that no worker has",
        "A virtual IP is an address that no host has.",
    ),
    entry(
        "controlPlaneEndpoint.port …: the API servers of the masters listen on port …; use that one, or the address of a load balancer, with \
         virtualIp.provider external in the ClusterTemplate",
        "Set the port that the message names. Another port works behind a load balancer only.",
    ),
    entry(
        "controlPlaneEndpoint: the card of … has …, and BYOH's agent would remove exactly that when it cleans the host; set \
         controlPlaneEndpoint.host to another address or to a DNS name",
        "The host's own address is a host route (/32 or /128). Set an endpoint as the message says.",
    ),
    entry(
        "controlPlaneEndpoint.host … is not in the network of …, which has …, so kube-vip cannot advertise it; choose an address of that \
         network, or for a load balancer a ClusterTemplate with virtualIp.provider external",
        "Set an unused address of the masters' network.",
    ),
    entry(
        "controlPlaneEndpoint.host … is the network or broadcast address of …, and of no server",
        "Set another unused address of that network.",
    ),
    entry(
        "podCidr … is too small: each node gets a /… of it",
        "Set a larger `podCidr`, or a longer `node-cidr-mask-size` in the ClusterTemplate.",
    ),
    entry(
        "podCidr … is too large: each node gets a /… of it, so kubeadm accepts at most a /…",
        "Set a smaller `podCidr`, or a shorter `node-cidr-mask-size` in the ClusterTemplate.",
    ),
    entry(
        "podCidr … is too small for … nodes: each node gets a /… of it, which is enough for …",
        "Set a larger `podCidr`, or name fewer hosts.",
    ),
    entry(
        "… overlaps with the network of …, which has the address …: choose another one",
        "Pods and Services need networks in which no server is. Set `podCidr` or `serviceCidr` to another network.",
    ),
    entry(
        "the default serviceCidr … overlaps with the network of …",
        "The request and its template have no `serviceCidr`, so kubeadm's default counts. Set `serviceCidr` to another network.",
    ),
    entry(
        "serviceCidr … is …, but … reports no … address",
        "Set `serviceCidr` and `podCidr` to networks of the family that the hosts have, or give the host an address of that family and \
         restart its agent.",
    ),
    entry(
        "serviceCidr … (the default) is IPv4, but … reports no IPv4 address",
        "Set `serviceCidr` and `podCidr` to IPv6 networks, or give the host an IPv4 address and restart its agent.",
    ),
];

const NEEDS: &[Entry] = &[
    entry(
        "… is not installed on the management cluster; install it, then this operator continues",
        "`./mgmt.sh up` installs Cluster API and BYOH. The request continues by itself.",
    ),
    entry(
        "the management cluster serves …, and this operator needs …; install a release of … that serves … (this operator supports Cluster API …), then \
         this operator continues",
        "That Cluster API or BYOH is too new or too old for this release: [what is supported](deployment.md). Clusters that run stay as they \
         are.",
    ),
    entry(
        "ClusterTemplate … (spec.name …, spec.version …) exists neither in namespace … nor in …",
        "The name of the ClusterTemplate is `<templateName>-<templateVersion>`: `kubectl get ct -A`. Create it, or correct `templateName` and \
         `templateVersion` of the request.",
    ),
    entry(
        "ClusterTemplate …: …",
        "The template is wrong. The rest of the message is in the list of [a ClusterTemplate](#a-clustertemplate).",
    ),
    entry(
        "ClusterResourceSet … (spec.cni of ClusterTemplate …) does not exist: create it",
        "`cni.clusterResourceSet` of the template names the pod network, which every namespace with requests needs: `./mgmt.sh up --bundle \
         FOLDER --namespace NAME`, or `examples/cni.yaml` with your CNI in it.",
    ),
    entry(
        "ClusterResourceSet … (spec.cni of ClusterTemplate …) has no spec.clusterSelector.matchLabels: add at least one label",
        "The operator gives each cluster these labels, so that the ClusterResourceSet selects it.",
    ),
];

const CONTENTION: &[Entry] = &[
    entry(
        "… is taken by ProvisioningRequest …; this request continues when that request is deleted. To continue now, delete this request and \
         create it with another …",
        "Two requests want one cluster name or one endpoint. Delete one of them.",
    ),
    entry(
        "… is also requested by ProvisioningRequest …, which comes first; this request continues when that request is deleted. To continue \
         now, delete this request and create it with another …",
        "Two requests want one cluster name or one endpoint. Delete one of them.",
    ),
    entry(
        "… by a ProvisioningRequest in another namespace (not shown)",
        "The endpoint is not free. Set another one, or ask the administrator of the O-Cloud whose it is.",
    ),
    entry(
        "… is taken by a Cluster in another namespace (not shown); …",
        "The endpoint is not free. Set another one, or ask the administrator of the O-Cloud whose it is.",
    ),
    entry(
        "… is taken by Cluster …, which this operator did not create; …",
        "Somebody else has created that Cluster. Set another cluster name or endpoint.",
    ),
    entry(
        "… is taken by Cluster … of ProvisioningRequest …, which does not exist any more; …. To manage that cluster, apply \
         ProvisioningRequest … again, unchanged. To delete that cluster, do the same, then delete ProvisioningRequest …",
        "A request was removed without its cluster, as with the finalizer `orphan`. Apply that request again.",
    ),
];

const HOSTS: &[Entry] = &[
    entry(
        "… is not registered in namespace …",
        "No ByoHost has that name: `./mgmt.sh hosts`. Register the host with the playbook, in the namespace of the request. If it is registered, \
         compare `hostName`.",
    ),
    entry(
        "… is not that host: ByoHost … has the label host-id=…",
        "`hostId` and `hostName` name two hosts. Correct one of them in the request, or the label of the ByoHost.",
    ),
    entry(
        "… is not that host: host-id=… is the label of ByoHost …",
        "`hostId` and `hostName` name two hosts. Correct one of them in the request.",
    ),
    entry(
        "… does not have the address … (hostIp)",
        "Correct or remove `hostIp`. An agent reports the addresses that the server had when the agent started; after a change restart it: \
         `systemctl restart byoh-hostagent`.",
    ),
    entry(
        "… reports no address that could be the control plane's endpoint: BYOH's agent reports addresses only if the server had an IPv4 \
         default route when the agent started. Add one, which may lead to a gateway that does not answer, then restart the agent on the \
         server: systemctl restart byoh-hostagent",
        "`ip route` on the server shows whether there is a default route.",
    ),
    entry(
        "… is held by ProvisioningRequest …",
        "Another request has the host. This request continues when that one releases it. Or name another host.",
    ),
    entry(
        "… is held by another request",
        "The host has the label `request-uid`, and no annotation that names the request. This request continues when the label is removed.",
    ),
    entry(
        "… has the label … of a request that does not exist; to release the host, remove that label from ByoHost …",
        "Remove the label once you know that nothing on the server is needed.",
    ),
    entry(
        "… is held by an earlier ProvisioningRequest … that does not exist any more; the host is released when its Cluster is deleted",
        "The host belongs to a Cluster whose request was removed. Delete that Cluster if nobody needs it.",
    ),
    entry(
        "… is held by an earlier ProvisioningRequest … that does not exist any more, and …. To manage that cluster, apply \
         ProvisioningRequest … again, unchanged. To delete that cluster, do the same, then delete ProvisioningRequest …",
        "The host runs a node of a cluster whose request was removed. Apply that request again, or name another host.",
    ),
    entry(
        "… is held by an earlier ProvisioningRequest … that does not exist any more, and is being cleaned by its agent",
        "The host is released when its agent has cleaned it.",
    ),
    entry(
        "… runs the node of Machine …, but its ByoHost was registered again, so BYOH regards it as not in use; this operator does not change \
         it. To attach it to its Machine again: …",
        "The host is a node of this cluster, which BYOH does not know any more. Run the command that the message ends with; see \
         [consent](o2ims-operator.md#consent).",
    ),
    entry(
        "… runs the node of Machine …, but its ByoHost was registered again, so BYOH regards it as not in use; the status of that cluster's \
         request says how to attach it again, or to clean it",
        "The host is a node of another cluster. Look at the request of that cluster, or name another host.",
    ),
    entry(
        "… is in use by cluster …",
        "The host is a node. It can be had when that cluster or its node is deleted, and the agent has cleaned the host.",
    ),
    entry(
        "… is attached to a machine",
        "BYOH has assigned the host to a machine. It can be had when that machine is deleted, and the agent has cleaned the host.",
    ),
    entry(
        "… is being cleaned by its agent",
        "The operator waits for the server. Is it on? If it does not come back: [runbook](o2ims-operator.md#it-does-not-come-back).",
    ),
    entry(
        "… was given up by ProvisioningRequest …, and has not come back: switch its server on; when its agent has cleaned it, the host \
         is free",
        "The server was dead when the host left that request. Switch it on, or name another host.",
    ),
    entry(
        "… has not been cleaned to the end by its agent",
        "The ByoHost still names scripts of its former machine. Is the server on? `journalctl -u byoh-hostagent` on the server; restart the \
         agent.",
    ),
    entry(
        "… still runs a node",
        "No request has the host, and its agent says that it is a node. If nobody needs the node: `kubeadm reset` on the server, then remove \
         its ByoHost and register the host again.",
    ),
    entry(
        "… is paused (annotation cluster.x-k8s.io/paused)",
        "Somebody has paused the ByoHost. Remove that annotation from it.",
    ),
    entry("… is being deleted", "Somebody deletes the ByoHost. Register the host again, or name another one."),
    entry(
        "… is not alive: its agent has reported nothing",
        "The host was registered, and its agent has not reported yet: `systemctl status byoh-hostagent` on the server.",
    ),
    entry(
        "… is not alive: …",
        "The agent has stopped reporting: is the server on? `systemctl status byoh-hostagent` on the server.",
    ),
];

const PROGRESS: &[Entry] = &[
    entry("claiming hosts: … of … are held", "Nothing: it takes a moment."),
    entry("creating the objects of Cluster …", "Nothing: it takes a moment."),
    entry(
        "creation of Cluster … waits: …",
        "A host of the request is still in use. It is cleaned first; the message says what it waits for.",
    ),
    entry(
        "waiting for KubeadmControlPlane …: … of … replicas ready; if this does not change, check that … is up and that the cluster's API \
         answers at …",
        "A master is off, or its API server is. While the API server does not answer, Cluster API reports the last known state of the nodes \
         for five minutes. One of several masters that is back may be counted up to ten minutes later.",
    ),
    entry(
        "check that every master is up and that the cluster's API answers at …",
        "With several masters: as above. The address may be a virtual IP that no master has set.",
    ),
    entry(
        "Cluster API cannot connect to Cluster … (…), so the states of its nodes are not known; …",
        "As above. Workers may run on: nothing is known of them until the API server answers, and up to a minute longer. If it answers, but \
         not to the management cluster: look for a firewall, or for a certificate authority that was exchanged.",
    ),
    entry(
        "KubeadmControlPlane …: …: …",
        "Cluster API's own words. `CertificatesAvailable`: a Secret with certificates is missing, such as of \
         [external etcd](o2ims-operator.md#external-etcd). `ScalingUp`: what keeps it from creating a Machine.",
    ),
    entry(
        "waiting for MachineDeployment …: … of 1 replicas ready",
        "Nothing: Cluster API counts a new node within a minute.",
    ),
    entry(
        "waiting for Cluster API to report on the last change of …; if this does not change, check that its controllers run",
        "Nothing at first: it takes a moment. All nodes are Ready.",
    ),
    entry(
        "waiting for …: … of … replicas ready, of … in all, … of them up to date",
        "Cluster API removes or replaces Machines, because somebody has changed that object. `kubectl describe` it: its conditions say what \
         that waits for.",
    ),
    entry(
        "scaling cluster … from … to … masters",
        "Nothing: Cluster API adds one master after the other, when all others are healthy. What a host waits for is named after it.",
    ),
    entry(
        "removing master …",
        "Nothing: Cluster API removes one master after the other. What holds up a removal is named after it.",
    ),
    entry(
        "replacing master … by …",
        "Nothing: what it waits for is named after it. The only master is replaced by way of a second one.",
    ),
    entry(
        "while there are two masters, the loss of one of them stops the cluster's API",
        "Keep both up: etcd has a quorum of two until a third master has joined, or one of the two is gone.",
    ),
    entry(
        "waits: … is no node yet",
        "A master is replaced when all others are healthy. That host is joining; if it does not come, take it out of `hosts.masters`.",
    ),
    entry(
        "waits: … of Machine …: …",
        "A master is replaced when all others are healthy; the rest is Cluster API's own text about that one.",
    ),
    entry(
        "waits: without … etcd has no quorum; if … does not come back, the cluster cannot be mended",
        "Switch that server on. With fewer than two other masters nothing can take its place. If it is gone for good, so is the cluster's etcd: restore \
         the workloads from your backups in a new cluster.",
    ),
    entry(
        "leaves the control plane",
        "Nothing: the edit of the request took this master out, and it goes when its turn comes.",
    ),
    entry(
        "scaling cluster … from … to … workers",
        "Nothing: workers are added or removed. What holds up a removal is named after it.",
    ),
    entry(
        "time limit of … s exceeded (… of the ClusterTemplate): …; this operator continues",
        "The message has the cause, which has to be removed. The request goes on by itself then. If the time is too short for these servers, \
         raise the limit in the template.",
    ),
    entry(
        "paused by annotation … of this request: nothing is changed; to go on: …",
        "The owner of the request has paused it. The command removes the annotation.",
    ),
    entry(
        "only planned, by annotation … of this request: …; to carry it out: …",
        "Read the plan, also in `status.extensions.plan`. Edit the request again, or carry it out with the command.",
    ),
    entry("this request cannot be carried out", "`Validated` or `HostsReserved` says why."),
    entry("no host would be changed", "The cluster is as the request asks."),
    entry("the plan is: …", "What would be done, host by host."),
    entry("becomes a … of cluster … with Kubernetes …", "The host would be taken, and made a node."),
    entry(
        "is upgraded in place from … to …: …; its pods run on",
        "The host would be upgraded; the text in the middle says what stops meanwhile.",
    ),
    entry(
        "is upgraded in place from … to …: its pods are evicted if another worker is Ready, and the kubelet is restarted",
        "`spec.upgrade.drain` of the ClusterTemplate is `WhenPossible`. A pod without a controller, and those of DaemonSets, run on.",
    ),
    entry("the cluster's API does not answer for a minute or two", "The only master is upgraded."),
    entry(
        "its node is drained and removed from the cluster, the server is reset, and becomes a … again with Kubernetes … instead of …; local data of its pods \
         is lost",
        "The ClusterTemplate has `upgrade.strategy: Rolling`.",
    ),
    entry("; the same before, for …", "The server is reset for each of these versions."),
    entry("the kubelet is restarted", "Its node is not Ready for some seconds."),
    entry("…; after that it …", "The host would change its role, by way of a reset."),
    entry("is given back", "The host is no node, and would be free again."),
    entry(
        "its node is drained and removed from the cluster; …",
        "The host would be taken out of the cluster. What is only on its disks is lost if it is reset.",
    ),
    entry(
        "the server is not reset (install.method none)",
        "Its old node goes on running until `kubeadm reset` is run there.",
    ),
    entry("then the server is reset", "BYOH's agent does that."),
    entry("at the SMO, kubectl annotate fpr … -n … …", "The request comes from an SMO: the command is for there."),
    entry(
        "paused: …; this operator does not change the cluster until the pause is removed",
        "Remove the pause from the object that is named: `spec.paused`, or the annotation `cluster.x-k8s.io/paused`.",
    ),
    entry(
        "; BYOH has requested the cleaning of … and left its pause there, so the agent does not clean; to remove that pause: …",
        "Run the command that the message ends with. The agent then resets the server.",
    ),
    entry(
        "; Cluster … is being deleted, not by this operator: the deletion continues when the pause is removed",
        "Keep the pause until you have backed up what you need. The deletion itself cannot be undone.",
    ),
    entry(
        "cluster is ready: …, …",
        "Nothing. What follows after a semicolon is wrong with the cluster, and stands in this list.",
    ),
];

const HOST: &[Entry] = &[
    entry("is not registered", "As [above](#a-host-that-a-provisioningrequest-cannot-have)."),
    entry("waits to be attached to a machine", "Nothing: BYOH attaches the host in a moment."),
    entry(
        "waits for Cluster API to create a Machine; if this does not change, kubectl describe … -n … says why",
        "Nothing at first. A policy or a quota of the management cluster may refuse Machines: Cluster API tells that in events of that object only.",
    ),
    entry("waits for the control plane", "Nothing: workers join when the first master is ready."),
    entry("is being attached to its machine", "Nothing: it takes a moment."),
    entry(
        "its agent has been given the install script and has not reported back yet",
        "The script runs, or the server is off: `journalctl -u byoh-hostagent` on the server.",
    ),
    entry(
        "its agent has been given the bootstrap script and has not reported back yet",
        "kubeadm runs, or the server is off: `journalctl -u byoh-hostagent` on the server.",
    ),
    entry(
        "its bootstrap script has run; waiting for its node to appear",
        "If this does not change: `journalctl -u kubelet` on the server.",
    ),
    entry("its agent waits for the install script", "Nothing: the operator is about to give it."),
    entry(
        "its agent waits for an installer; with install.method none it has to be started with --skip-installation",
        "Start the agent with `--skip-installation`, or use a template with `install.method: installer`.",
    ),
    entry(
        "its agent waits for BYOH's install script, which BYOH makes for the systems of its bundles only; this is …",
        "`install.method: bundle` has no script for this system: use a template with `install.method: installer`.",
    ),
    entry(
        "installation of Kubernetes failed: …",
        "The rest is what the server reported: [what to do on the server](#what-a-server-reports-of-an-installation-or-a-bootstrap).",
    ),
    entry(
        "bootstrap failed: …",
        "The rest is what the server reported: [what to do on the server](#what-a-server-reports-of-an-installation-or-a-bootstrap).",
    ),
    entry(
        ". If the cluster's API answers, the join token is lost: it lives for 15 minutes, and Cluster API does not renew it while it is paused, \
         does not run or cannot connect to the cluster. Then remove the host from the request, and add it again when it is released",
        "The worker was off, or Cluster API stood still, for longer than a token lives. Do what the message says.",
    ),
    entry("Then delete Machine …; Cluster API creates another one", "The same of a master."),
    entry(
        "its Machine … has failed: …",
        "Cluster API has given the Machine up, and says why. Of a worker remove the host from the request, and add it again when it is released; \
         of a master delete the Machine.",
    ),
    entry(
        "its Machine … has become node …",
        "The server's name is not the name of its ByoHost. Set the server's name back, remove the host from the request, and add it again when \
         it is released.",
    ),
    entry(
        "the state of its node is not known: Cluster API cannot connect to the cluster",
        "The message of the request has what to check.",
    ),
    entry(
        "its node is not Ready: …",
        "Often the pod network: is there a ClusterResourceSet of the template's name in the namespace? `journalctl -u kubelet` on the server. \
         After power returns it mends by itself.",
    ),
    entry(
        "its node is not Ready since …: …; switch its server on, repair it, or remove the host from hosts.workers",
        "The worker does not answer. A request that was `fulfilled` stays so for `timeouts.unreachable` of its ClusterTemplate: \
         [a host is dead](o2ims-operator.md#a-host-is-dead).",
    ),
    entry("its node is not Ready since …: …; switch its server on, or repair it", "The same of a master."),
    entry(
        "…; if a server does not come back, switch it off, as one that is only cut off still runs its part of the cluster, then give it up: …",
        "The request waits for the agent of a host that leaves it. Is the server on? If it does not come back, do what the message says: \
         [it does not come back](o2ims-operator.md#it-does-not-come-back).",
    ),
    entry(
        "ClusterResourceSet … has not applied … to the cluster yet; if this does not change, create … in namespace …",
        "The ConfigMap or Secret that the ClusterResourceSet names does not exist there, or Cluster API has not got to it yet. Create it: \
         Cluster API then applies it. A Secret has to have the type \
         `addons.cluster.x-k8s.io/resource-set`.",
    ),
    entry(
        "its node runs Kubernetes …, the cluster has …",
        "Somebody has changed the kubelet on the server. Install the version that the request has.",
    ),
    entry("is being released", "Nothing: it takes a moment."),
    entry("its Machine … is being deleted", "Nothing, unless the message says what that waits for."),
    entry(
        "Machine … on …: the drain of its node waits for … (PodDisruptionBudget … does not allow the eviction)…. To continue, add replicas \
         on other nodes, change the PodDisruptionBudget, or delete the pod",
        "A worker leaves, and its pods may not. Do it in that cluster. `kubectl delete pod` is stopped by no budget.",
    ),
    entry("the drain of its node waits for … (a PodDisruptionBudget does not allow the eviction)", "The same."),
    entry(
        "the drain of its node waits for … (being deleted, not ended yet)",
        "These pods end by themselves. One that does not: `kubectl delete pod --force` in that cluster, once nothing of it runs on the server.",
    ),
    entry("the drain of its node failed: …", "Cluster API's own words. It tries again by itself."),
    entry(
        "Cluster API waits until the volumes of its node are detached (…). If they stay, look at the VolumeAttachments of the cluster",
        "`kubectl get volumeattachments` in that cluster: the storage driver has to detach them.",
    ),
    entry(
        "Cluster API waits until the annotation … is removed from it",
        "Another client delays the deletion of the Machine on purpose. If that client is gone for good, remove the annotation from the Machine.",
    ),
];

/// From the scripts of the install method `installer`, and from kubeadm by way of them. The agent tries again by itself.
const SERVER: &[Entry] = &[
    entry("only … MiB are free in …; Kubernetes needs at least 1024", "Make room on the server."),
    entry(
        "… is installed, … was asked for: install that one on the host, or delete the request and ask for what is installed",
        "Do one of both. `kubelet --version` on the host says what is installed.",
    ),
    entry("… is not installed", "Install the program, or use another `source` in the template."),
    entry(
        "the host is the node of ByoMachine … already, and nothing was done to it; if that may go, run kubeadm reset on the host",
        "Its ByoHost, or its management cluster, has lost it. Look whose it is: [backup.md](backup.md). If it may go: `kubeadm reset --force` \
         on the server; the agent then goes on by itself.",
    ),
    entry(
        "the host is a Kubernetes node already (/etc/kubernetes/kubelet.conf exists); run kubeadm reset on it",
        "Look whose node it is before you reset it.",
    ),
    entry("what a former bootstrap left could not be reset", "`kubeadm reset --force` on the server; it says why."),
    entry(
        "… is in the way: it is where this installer puts a file of its own; move kubeadm elsewhere",
        "Move your own program to `/usr/local/bin` or `/usr/bin`.",
    ),
    entry(
        "/usr/local/bin/… is in the way: it is no link; move it, or use install.installer.source preinstalled",
        "`source: files` puts links there, and overwrites no program.",
    ),
    entry("the unit o2ims-host cannot be started", "`systemctl status o2ims-host` on the server."),
    entry("/usr/local/bin/… cannot be linked", "Is the file system of that folder writable?"),
    entry("… cannot be written", "Is the file system of that folder writable?"),
    entry("swap cannot be switched off", "`swapoff -a` on the server; it says why."),
    entry("net.ipv4.ip_forward cannot be set to 1", "`sysctl -w net.ipv4.ip_forward=1` on the server; it says why."),
    entry("containerd does not run", "`journalctl -u containerd` on the server."),
    entry(
        "kubelet and kubeadm are not in …",
        "Put the files there, or correct `install.installer.files.path` of the template.",
    ),
    entry(
        "the ClusterTemplate has no install.installer.packages.deb",
        "The server has apt: set that field in the template.",
    ),
    entry(
        "the ClusterTemplate has no install.installer.packages.rpm",
        "The server has dnf or yum: set that field in the template.",
    ),
    entry("neither apt-get, dnf nor yum is on the host", "Use `source: preinstalled` or `files` for this server."),
    entry(
        "apt-get update: …",
        "Have the server reach the URL that is named. `NO_PUBKEY` or `EXPKEYSIG`: the repository has a new key; put it into `keyFile` of the \
         template.",
    ),
    entry("apt-get install: …", "Put the packages into the repository that the template names, or correct its URL."),
    entry("… install: …", "The same of dnf or yum."),
    entry("the kubelet cannot be enabled", "`systemctl enable kubelet` on the server; it says why."),
    entry("the kubelet does not stop", "`systemctl stop kubelet` on the server; it says why."),
    entry("containerd does not list its containers", "`journalctl -u containerd` on the server."),
    entry(
        "… containers cannot be removed",
        "`ctr -n k8s.io containers ls` on the server, and `journalctl -u containerd`.",
    ),
    entry("… cannot be unmounted", "A process still uses the volume: `fuser -vm FOLDER` on the server."),
    entry(
        "kubeadm init: [ERROR Port-6443]: Port 6443 is in use",
        "kubeadm's own words. Stop what has the port: `ss -ltnp` on the server.",
    ),
    entry(
        "kubeadm join: couldn't validate the identity of the API Server…",
        "The API's address is wrong, or the join token is; kubeadm waits five minutes before it says so. Mend the address and restart the \
         agent. The token lives for 15 minutes (`--bootstrap-token-ttl` of Cluster API's kubeadm bootstrap provider).",
    ),
    entry(
        "CloudInitExecutionFailed",
        "Nothing more is said if there is no kubectl on the server, with which it would say why: `journalctl -u byoh-hostagent`.",
    ),
];

const DEGRADED: &[Entry] = &[
    entry(
        "the certificates of the control plane on … are valid until …, as Cluster API read them last. The unit o2ims-host renews them, and does not \
         report from there; to put it there: ansible-playbook ansible/unit.yaml -e hosts=…. Or on each master run \"kubeadm certs renew all\" and start its control plane pods again, then remove \
         the annotation … from its KubeadmConfig, so that Cluster API reads the new date (docs/o2ims-operator.md, \"Hosts without the unit\")",
        "The cluster's API ends with them, and the host has no unit that renews them: [put it there](o2ims-operator.md#hosts-without-the-unit).",
    ),
    entry(
        "the certificates of the control plane on … were not renewed: …. Mend the cause, then try again: kubectl annotate pr … -n … …=… --overwrite",
        "The cluster runs on until they end. `log` below `/var/lib/o2ims-jobs` on that host has everything; what it reports is under \
         [upgrades](#what-a-server-reports-of-an-upgrade-or-a-renewal).",
    ),
    entry(
        "the certificate of the agent on …, valid until …, was not renewed: …; the unit o2ims-host tries again every ten minutes",
        "The text in the middle says why; [the playbook](servers.md#4-register-them) renews it, too.",
    ),
    entry(
        "… on … is valid until … and was not renewed…",
        "It should have been by itself. If the message says what the renewal waits for, mend that; else `systemctl status o2ims-host` on the host.",
    ),
    entry(
        "this request was restored and does not name …, which its cluster uses; no host is removed until it names them once",
        "The request comes from an older backup than its cluster. Add these hosts to the request. Remove them afterwards if they are to go.",
    ),
    entry(
        "…: status.machineRef was removed from its ByoHost, although its Machine … runs; nothing protects that ByoHost from deletion now. To \
         set it again: …",
        "Run the command that the message ends with.",
    ),
    entry(
        "annotations … and … both name \"…\", so neither has an effect: remove the id from one of them",
        "Decide for one: [consent](o2ims-operator.md#consent).",
    ),
    entry(
        "annotation … names \"…\", which is not the id of anything lost that this annotation applies to",
        "Set the annotation with the command that the message of the loss has, or remove it.",
    ),
    entry(
        "annotation … was removed: nothing that it names is lost any more",
        "Nothing: the instruction was carried out.",
    ),
    entry(
        "annotation … was removed: no host that it names is lost, or leaves this request, any more",
        "Nothing: the hosts were given up, or are clean, or their nodes answer again, or the name was no host of the request.",
    ),
    entry(
        "annotation … names …, which this request still names: an upgrade passes over it while its node does not answer; to give it up, remove … from hosts \
         of the request, or else from the annotation",
        "A host that a request uses is not given up by the annotation alone. Do one of both.",
    ),
    entry(
        "annotation … names …, which is not, or not any more, a host that leaves this request; it takes names of ByoHosts, as in hostName",
        "Is the name right? The status has the hosts that leave. A host that was given up already is named there no more.",
    ),
    entry(
        "ByoHost … was given up, not cleaned: a server that is on and only cut off still runs its part of the cluster, so keep it switched off. When \
         it comes back, its agent cleans it",
        "Do what the event says.",
    ),
];

const CERTIFICATES: &[Entry] = &[
    entry("the first to end is … on …, at …", "Nothing: it is renewed 60 days before."),
    entry("the certificate of the agent", "With it BYOH's agent connects to the management cluster."),
    entry("a certificate of the control plane", "One that kubeadm issues on masters."),
    entry(
        "not known of …: the unit o2ims-host does not report any from there; to put it there: ansible-playbook ansible/unit.yaml -e hosts=…",
        "The host was installed by an earlier release, or has no kubectl or no openssl. What ends there is not renewed by itself: \
         [by hand](o2ims-operator.md#hosts-without-the-unit).",
    ),
    entry(
        "renewing the certificates of the control plane: …: …",
        "Nothing, unless the text behind the host says what it waits for.",
    ),
    entry("is given its job", "Nothing: the host is told to begin."),
    entry(
        "is done; waiting for the host to report the new dates",
        "Nothing. If this does not change: `systemctl status o2ims-host` on the host.",
    ),
];

const LOSS: &[Entry] = &[
    entry(
        "Cluster … is gone, but this request is not being deleted; …. This operator changes nothing until you decide. …; …: …",
        "Somebody has removed the Cluster. The message has a command that keeps the cluster, if that is possible, and one that replaces it: \
         [consent](o2ims-operator.md#consent).",
    ),
    entry("its nodes run on …", "Servers on which the cluster still runs."),
    entry("its Machines still exist", "The Machines are there, and no ByoHost is attached to them."),
    entry(
        "no Machine and no attached ByoHost of cluster … is left, but its nodes may still run on the servers",
        "Look at the servers before you reset them.",
    ),
    entry(
        "(paused: …; BYOH removes that pause when Cluster and Machines exist again)",
        "Nothing: the pause of these hosts is BYOH's own.",
    ),
    entry(
        "To keep the cluster, let this operator create the Cluster object again for the existing KubeadmControlPlane and ByoCluster: \
         kubectl annotate pr … -n … …=… --overwrite",
        "Run that command. No server is reset.",
    ),
    entry(
        "To keep the cluster, restore its objects from a backup: first the ByoHosts, with their status and with annotation \
         cluster.x-k8s.io/paused, then the others. This operator then manages them again; no annotation on this request is needed",
        "[backup.md](backup.md) has the commands.",
    ),
    entry(
        "To keep the cluster, restore its Cluster, KubeadmControlPlane and ByoCluster from a backup, or move them back with clusterctl move. \
         This operator then manages them again; no annotation on this request is needed",
        "[backup.md](backup.md) has the commands.",
    ),
    entry(
        "The deletion of … cannot be undone: it continues as soon as a Cluster of this name exists, and Cluster API then deletes the Machines \
         of these objects. The cluster cannot be kept, so back up what you need",
        "Back up what you need from the servers, then run the command that the message ends with.",
    ),
    entry(
        "To keep the rest of the cluster, back up what you need from the servers of these Machines, then restore the Cluster from a backup",
        "[backup.md](backup.md) has the commands.",
    ),
    entry(
        "to tear down the cluster (…) and create a new one: …",
        "Run that command if nothing of the cluster is needed. The servers are reset.",
    ),
    entry(
        "to create a new cluster, run \"kubeadm reset\" on each of its servers, then: …",
        "Do so if nothing of the cluster is needed.",
    ),
    entry("the agents clean the hosts", "Nothing: BYOH's agents reset the servers."),
    entry(
        "with install.method none the nodes keep running: run \"kubeadm reset\" on each server",
        "The template says that nobody but you resets servers. Do it on each server before it is used again.",
    ),
    entry(
        "the agents clean the hosts, except with install.method none",
        "The install method is not known, since the Cluster is gone. With `none` run `kubeadm reset` on each server.",
    ),
    entry(
        "KubeadmControlPlane … was deleted, not by this operator, and cannot be created again for a running cluster. The nodes keep running, \
         but failed masters are not replaced. Back up what you need, delete this request (…), then create a new request",
        "The cluster has to be replaced, when it suits.",
    ),
    entry(
        "KubeadmControlPlane … is being deleted, not by this operator. This cannot be undone: Cluster API deletes it and its masters once no \
         worker is left. Back up what you need, then delete this request",
        "The cluster has to be replaced, when it suits. Until the request is deleted, its workers keep the deletion from going on.",
    ),
    entry(
        "the last master of cluster … is deleted or being deleted, and a stacked etcd with it; neither Cluster API nor this operator can \
         create them again. Back up what you need from the workers, delete this request (…), then create a new request",
        "The cluster has no API any more. With external etcd the data is still there.",
    ),
    entry(
        "ByoCluster … is being deleted, not by this operator. This cannot be undone: BYOH deletes it once the last machine of cluster … is \
         gone. The nodes keep running. Back up what you need, delete this request, then create a new request",
        "The cluster has to be replaced, when it suits.",
    ),
    entry(
        "MachineDeployment … is being deleted, not by this operator; this operator creates it again when it is gone and its host is clean",
        "Nothing: the worker joins again.",
    ),
    entry(
        "MachineDeployment … is gone, but its Machine … still runs on …; this operator does not change the Machine. Apply the \
         MachineDeployment again as it was, or remove the host from the request and delete the Machine",
        "Do one of these two.",
    ),
    entry(
        "… is being deleted, not by this operator, before the creation of Cluster … has finished. No node runs yet; this operator deletes \
         the Cluster and creates it again",
        "Nothing: no node is lost.",
    ),
    entry(
        "Cluster … is being deleted, because a part of it was deleted, not by this operator, before its creation had finished; this operator \
         creates it again when the deletion is finished",
        "Nothing: no node is lost.",
    ),
    entry(
        "Cluster … is being deleted, not by this operator, before its creation has finished; this operator creates it again when the \
         deletion is finished",
        "Nothing: no node is lost.",
    ),
    entry(
        "Cluster … is being deleted, because of this request's annotation …",
        "Nothing: this is what its owner has instructed.",
    ),
    entry(
        "Cluster … is being deleted, not by this operator (…). When the Cluster is gone and its hosts are not in use any more, this operator \
         creates it again",
        "The deletion cannot be stopped. If no new cluster is wanted, delete the request.",
    ),
];

const UPGRADE: &[Entry] = &[
    entry(
        "k8sVersion cannot change from … to …: …; set k8sVersion back to …",
        "The cluster runs on. Set the version that the message names; the text in the middle says why.",
    ),
    entry(
        "only clusters with install.method installer can be upgraded in place; set spec.upgrade.strategy Rolling in ClusterTemplate …, which resets one server \
         after the other",
        "Hosts of other clusters have no unit that could upgrade them.",
    ),
    entry(
        "with install.method none nothing installs another version on the hosts",
        "Upgrade such servers in your own way, or create another cluster.",
    ),
    entry(
        "with spec.upgrade.strategy Rolling of ClusterTemplate … each master is reset, and this cluster would not outlive that: it has … of them, and needs …",
        "Nothing was changed. The text behind it has the ways out.",
    ),
    entry("set strategy InPlace there", "Then no server is reset."),
    entry("first have … masters in hosts.masters", "That takes an endpoint that is no master's own address."),
    entry(
        "one of them is no version",
        "Somebody has changed `spec.version` of the KubeadmControlPlane. Set it back there.",
    ),
    entry(
        "Kubernetes has no way back to an older minor version",
        "Set the version of the cluster again, or a newer patch version.",
    ),
    entry(
        "this request was restored from a backup that is older than its cluster",
        "The cluster was upgraded since. Set the version that it has.",
    ),
    entry(
        "Kubernetes is upgraded by one minor version at a time; add a v….… to spec.upgrade.versions of the ClusterTemplate, set k8sVersion to a \
         v….… first, or back to …",
        "Upgrade to the minor version in between first, or list a version of it in the template: then the operator does that.",
    ),
    entry(
        "host … runs v… already, and Kubernetes has no way back to an older minor version; set k8sVersion to v…",
        "The upgrade of that host is done. Go on to its version.",
    ),
    entry("upgrading to …: checking … and bringing the images there", "Nothing: no host is changed yet."),
    entry(
        "upgrading to …, by resetting one host after the other: …",
        "Nothing, unless the text behind the host says what it waits for: it stands here, or in [the list of hosts](#a-host-of-a-provisioningrequest).",
    ),
    entry("the masters come first", "Nothing: Cluster API begins."),
    entry(
        "the upgrade of … has been left halfway, or it runs another version of Kubernetes than the control plane; to upgrade it without a reset, set \
         spec.upgrade.strategy InPlace in ClusterTemplate …",
        "Do what the message says; with `install.method: bundle`, bring that master back to the version of the control plane. Then another \
         upgrade can reset the hosts.",
    ),
    entry("… is to be replaced by Cluster API", "Nothing: Cluster API chooses the next master by itself."),
    entry(
        "; Cluster API waits: …",
        "The control plane is not healthy; the rest is Cluster API's own text. The next master is not replaced before.",
    ),
    entry("… is drained and reset", "Nothing: the host becomes a node again afterwards."),
    entry("… waits: …", "Do what the text behind it says."),
    entry("… is no node yet", "The upgrade begins when it is one. Or take the host out of the request."),
    entry("… is a node, but its ByoHost is gone or is not held", "`Degraded` says how it comes back."),
    entry(
        "; passed over, by annotation …: …",
        "Nothing now. When the upgrade is done, name another host in its place, or take the name out of the annotation when the server is back.",
    ),
    entry(
        "; if … does not come back, switch it off, then have the upgrade pass over it: …",
        "Switch the server on, if it can be. If not, carry out the command: the upgrade goes on with the other hosts.",
    ),
    entry("upgrading … to …: …: …", "Nothing, unless the text behind the host says what it waits for."),
    entry(
        "upgrading to …: waits: … is a node, but its ByoHost is gone or is not held",
        "`Degraded` says how it comes back.",
    ),
    entry("has its job", "Nothing: the host has been told to begin."),
    entry(
        "has its job and has not reported yet; if this does not change, systemctl status o2ims-host on the host says why",
        "The unit on the host fetches the job within moments. Is the host up, and does it reach the management cluster?",
    ),
    entry(
        "waits: spec.upgrade.pauseAfter of the ClusterTemplate is …; to go on with this host: …; with every host: …",
        "Look whether what is upgraded so far works, then carry out one of the commands.",
    ),
    entry(
        "waits: spec.upgrade.pauseAfter of the ClusterTemplate is …; to go on, at once and whatever spec.upgrade.windows says, with this host: …; with \
         every host: …",
        "As above. To wait for the window as well, give the word in it.",
    ),
    entry(
        "upgrading … to …: …: waits for the maintenance window that begins at … (spec.upgrade.windows of the ClusterTemplate). To begin at once, remove \
         the windows there; or for this host: …; for every host: …",
        "Nothing: it begins by itself then, in UTC. Or carry out one of the commands.",
    ),
    entry(
        "…. Or go back to … and to the snapshot from before the upgrade, which loses what has changed in the cluster since: …",
        "Mend the cause and try again, if that can be. The snapshot is the way back where it cannot.",
    ),
    entry("bringing … back to snapshot …: …", "Nothing, unless the text at the end says what failed."),
    entry(
        "has its job and has not reported yet",
        "As above: is the host up, and does it reach the management cluster?",
    ),
    entry("… runs … again", "Nothing: it is over."),
    entry("the masters of the cluster are being changed", "Nothing: the renewal goes on after that."),
    entry(
        "… has a job (…) that has not ended; if this does not change, systemctl status o2ims-host on the host says why",
        "Nothing at first: the job would be ended in the middle, or two masters changed at once. An order of a snapshot that the host does not begin can be taken back: remove the annotation.",
    ),
    entry(
        "… was brought back to snapshot …; set k8sVersion to …, or upgrade again: …",
        "Check the cluster. Then set the old version in the request, or upgrade again with the command.",
    ),
    entry(
        "is done; waiting for Cluster API to see the node's version",
        "Nothing. If this does not change: does Cluster API run?",
    ),
    entry("upgrading to …: every master runs it", "Nothing: the objects of Cluster API follow."),
    entry("upgrading to …: … runs it", "Nothing: the objects of Cluster API follow."),
    entry(
        "upgrading to …: handing … over to Cluster API",
        "Nothing: it takes a second or two. The pause on that object is the operator's; leave it alone.",
    ),
    entry(
        "waits: Cluster API cannot connect to the cluster: …",
        "Is the API of the cluster up? The next host is not begun before.",
    ),
    entry(
        "waits: … of KubeadmControlPlane …: …",
        "The control plane is not healthy; the rest is Cluster API's own text. The next host is not begun before.",
    ),
    entry(
        "waits: the node of … is not Ready",
        "`kubectl describe node` in the cluster says why. The next host is not begun before.",
    ),
    entry(
        "the upgrade cannot begin: the unit o2ims-host does not report from …. Where it is, systemctl status o2ims-host on the host says why; to put it \
         there: ansible-playbook ansible/unit.yaml -e hosts=…; or set k8sVersion back",
        "The host was installed by an earlier release, or had no kubectl then. Nothing was changed.",
    ),
    entry(
        "the upgrade to … has not begun, and no host was changed: …. Mend the cause, then try again: kubectl annotate pr … -n … …=… --overwrite",
        "A host has not passed its checks. What it reports is in the next group.",
    ),
    entry(
        "the upgrade to … does not go on: …. Mend the cause, then try again: kubectl annotate pr … -n … …=… --overwrite",
        "A host has not passed its checks; others were upgraded before. What it reports is in the next group.",
    ),
    entry(
        "the upgrade was left halfway, and hosts run different versions; set k8sVersion to the version that is wanted",
        "`k8sVersion` was removed from the request during an upgrade.",
    ),
    entry(
        "the upgrade to … has stopped at …: …. Mend the cause, then try again: kubectl annotate pr … -n … …=… --overwrite",
        "The hosts after it keep the old version, and the cluster runs on. `log` below `/var/lib/o2ims-jobs` on that host has everything.",
    ),
];

const UPGRADE_OF_SERVER: &[Entry] = &[
    entry("etcd does not run on this host: crictl ps", "Look why on the server. Nothing was changed on it."),
    entry(
        "etcd gives no snapshot (etcdctl snapshot save, in its container): see the log of the job",
        "`log` below `/var/lib/o2ims-jobs` has etcdctl's words. An image of etcd without etcdctl is one cause. Nothing was changed.",
    ),
    entry(
        "the snapshot of etcd is not there",
        "The data folder of etcd is not where its manifest says. Nothing was changed.",
    ),
    entry("the configuration of the host cannot be copied", "`log` has tar's words. Nothing was changed."),
    entry("the snapshot cannot be written", "Is the disk full, or read only? Nothing was changed."),
    entry(
        "snapshot … is not complete in …",
        "Its files were changed or removed. Nothing was changed: mend the cause of the failed upgrade instead.",
    ),
    entry(
        "etcd is not on this host: it has no manifest there",
        "The manifests of the control plane were removed. Put them back first.",
    ),
    entry(
        "the containers of the control plane do not end: ctr --namespace k8s.io tasks list",
        "Look on the server what keeps them, then try again.",
    ),
    entry(
        "the configuration of the host cannot be put back",
        "Is the disk full, or read only? Mend that, then try again.",
    ),
    entry(
        "the snapshot of etcd cannot be restored (etcdutl snapshot restore): see the log of the job",
        "`log` has etcdutl's words. The old data are in `o2ims-replaced` in the data folder, if they were moved.",
    ),
    entry("containerd does not answer: journalctl -u containerd", "Run that on the server, then try again."),
    entry(
        "the images that the new version needs cannot be listed: see the log of the job",
        "`log` below `/var/lib/o2ims-jobs` on the server has the words of ctr and kubeadm.",
    ),
    entry(
        "etcd on this host is …; with several masters it must be … or newer before Kubernetes …",
        "etcd's own rule: older members are lost, or do not start. Set the newer etcd in the cluster first, or stay with this Kubernetes.",
    ),
    entry("the node is not Ready: journalctl -u kubelet", "Run that on the server. Nothing was changed on it."),
    entry(
        "the control plane on this host did not become ready within 5 minutes (…): crictl ps -a, journalctl -u kubelet",
        "Run these on the server; a pod's own log is below `/var/log/pods`. kubeadm has not begun.",
    ),
    entry("/usr/local/bin/… is in the way: it is no link", "Move that program to `/usr/bin`, then try again."),
    entry(
        "the job was started 20 times and ended without a result each time: journalctl -u o2ims-job. If it has cordoned the node: kubectl uncordon …",
        "Run that on the server; has it run out of memory or space?",
    ),
    entry("this host is not the node of ByoMachine …", "The host was reset, or belongs to another cluster."),
    entry(
        "these images are neither in containerd nor in …/images, and cannot be pulled: …",
        "Put their archives there, or `ctr -n k8s.io images import` them, then try again.",
    ),
    entry(
        "this host is not the node of ByoMachine … any more",
        "The host was reset, or belongs to another cluster. Look which: `kubectl get byohost NAME -o yaml`.",
    ),
    entry(
        "the packages of Kubernetes … cannot be fetched from …: …",
        "The words of apt, dnf or yum. Put the packages of this version into the repository that the template names, or have the server reach it. Nothing was \
         changed.",
    ),
    entry(
        "package … cannot be unpacked: see the log of the job",
        "`log` has the words of dpkg-deb or rpm2cpio; the latter needs cpio. Nothing was changed.",
    ),
    entry(
        "dpkg --configure --pending: …",
        "The words of dpkg, after a job was cut off while it installed packages. Mend the package that it names, then try again.",
    ),
    entry("… … is neither in … nor installed: put it into …", "Put the program there, then try again."),
    entry(
        "the kubelet is not enabled, so it would not start after a reboot: systemctl enable kubelet",
        "Run that on the server, then try again.",
    ),
    entry("only … MiB are free in …; an upgrade needs 2048", "Make room on the server, then try again."),
    entry(
        "the API server of the cluster does not answer",
        "Look at the masters first: `crictl ps -a`, `journalctl -u kubelet`.",
    ),
    entry(
        "this host has control groups of version 1, which the kubelet refuses from Kubernetes 1.35 on",
        "[What to set](o2ims-operator.md#control-groups-of-version-1), or stay with Kubernetes 1.34.",
    ),
    entry(
        "the feature gate ControlPlaneKubeletLocalMode cannot be removed from ConfigMap kube-system/kubeadm-config",
        "The job's `log` on the server has kubectl's words.",
    ),
    entry(
        "the node cannot be cordoned: see the log of the job",
        "`log` below `/var/lib/o2ims-jobs` has kubectl's words. Nothing was changed on the server.",
    ),
    entry(
        "the node was not drained within … s (spec.timeouts.drain of the ClusterTemplate): it waits for …",
        "Nothing was changed on the server, and its node takes pods again, unless you have cordoned it. Where a PodDisruptionBudget does not allow an \
         eviction, add replicas on other nodes, change the budget, or delete the pod in that cluster; then try again.",
    ),
    entry(
        ", and the node may still be cordoned: kubectl uncordon …",
        "The API of the cluster has not answered for five minutes. Run that in the cluster when it does; a new try does so too.",
    ),
    entry(
        "kubeadm upgrade …: …",
        "kubeadm's own words; all of them are in `kubeadm.log` beside the job's `log`. Where the new control plane did not start, kubeadm has put the old one back.",
    ),
    entry(
        "there is no room for a copy of …",
        "Make room in `/var/lib` on the server, then try again. No certificate was changed.",
    ),
    entry(
        "kubeadm certs renew: …",
        "kubeadm's own words; all of them are in `kubeadm.log` beside the job's `log`. The old certificates are in their places.",
    ),
    entry(
        "… did not become ready within 5 minutes after its restart (…): crictl ps -a, journalctl -u kubelet",
        "Run these on the server; the pod's own log is below `/var/log/pods`. Its certificates are new.",
    ),
    entry(
        "kubeadm does not renew these, which end soon or have ended:…",
        "Others are renewed. These you have made yourself, such as those for an external etcd: replace the files, then try again.",
    ),
    entry("the kubelet does not restart: journalctl -u kubelet", "Run that on the server."),
    entry(
        "the node did not become Ready at … within 5 minutes (version and Ready are: …): journalctl -u kubelet",
        "Run that on the server. The upgrade itself is done.",
    ),
    entry(
        "kubeadm … is not in … any more",
        "Somebody has removed it since the check. Put it there again, then try again.",
    ),
];

const SUPPORT: &[Entry] = &[
    entry(
        "annotation … has …, which is no name for a file: use at most … letters, digits, \".\", \"_\" and \"-\", such as 2026-12-01",
        "Correct the annotation; a word or `<word>/<host>`.",
    ),
    entry(
        "annotation … names host …, which this request does not hold; it takes names of ByoHosts, as in hostName",
        "Correct the annotation; a word or `<word>/<host>`.",
    ),
    entry(
        "waits for the host, or for a job that it runs; if this does not change, systemctl status o2ims-host on the host says why",
        "Nothing at first. Is the host up, and does it reach the management cluster?",
    ),
    entry(
        "waits for the host, or for an upgrade or a renewal of certificates",
        "Nothing: a snapshot is taken when no other job is due.",
    ),
    entry(
        "the unit o2ims-host does not report from the host; to put it there: ansible-playbook ansible/unit.yaml -e hosts=…",
        "Carry the command out; the snapshot follows.",
    ),
    entry(
        "the unit o2ims-host does not report from the host, or is of an earlier release; to put it there: ansible-playbook ansible/unit.yaml -e hosts=…",
        "Carry the command out; the bundle follows.",
    ),
    entry(
        "only … MiB are free in /var/lib, and a support bundle needs 256",
        "Make room on the server, then give another word.",
    ),
    entry(
        "the support bundle cannot be written: is the disk full?",
        "Make room on the server, then give another word.",
    ),
    entry(
        "it was interrupted: give another word to make one",
        "The server was restarted, or it took more than 15 minutes: `journalctl -u o2ims-support` on the server.",
    ),
];

const DELETION: &[Entry] = &[
    entry("the deletion waits: …", "What follows has to be removed first, such as a pause."),
    entry(
        "leaving cluster … as it runs, because this request has the finalizer …",
        "Nothing: the owner of the request has set that finalizer for it.",
    ),
    entry(
        "the deletion waits: the upgrade has begun to reset hosts, and first brings these back: …; then cluster … is left as it runs",
        "Nothing: a master without its role would stay out for ever. If the host does not come back, see [dead hosts](o2ims-operator.md#it-does-not-come-back).",
    ),
    entry(
        "deleting Cluster … (…)",
        "Nothing, unless the message says what that waits for. The text in brackets is Cluster API's own.",
    ),
    entry(
        "deleting Machine …, whose KubeadmControlPlane is gone",
        "Nothing: Cluster API does not delete such a Machine by itself.",
    ),
    entry(
        "Cluster … is deleted when Cluster API has set the owner references of its parts",
        "Nothing. If this does not change: does Cluster API run?",
    ),
    entry(
        "Cluster API has deleted everything of Cluster …, which stays until these finalizers of other clients are removed: …",
        "Whoever has set them removes them. If that client is gone for good: `kubectl edit cluster NAME`, and remove the line.",
    ),
    entry("waiting for hosts: …", "The hosts are cleaned first. What is told of each is in this list."),
    entry(
        "all hosts are released; waiting for finalizers of other clients: …",
        "Whoever has set them on the request removes them. If that client is gone for good: `kubectl edit pr NAME`, and remove the line.",
    ),
    entry("releasing hosts", "Nothing: it takes a moment."),
];

const WRITES: &[Entry] = &[
    entry(
        "… exists already and is not this request's; remove it, or use another clusterName",
        "Somebody else's object has the name of a part of the cluster.",
    ),
    entry(
        "…: not claimed, because … would be refused (dry run): …",
        "The API server was asked whether it would create this object, before the hosts are held. The rest is its answer. If that is about a \
         quota, a policy or a right of the operator, ask the management cluster's administrator. The operator tries again by itself, at the \
         latest after five minutes.",
    ),
    entry(
        "…; correct spec.kubeadm.… of ClusterTemplate …",
        "The setting has a field that Cluster API does not know, or a value that it does not take. The operator goes on when the template is \
         correct.",
    ),
    entry(
        "… is gone, so no Cluster is created for it",
        "A part of the cluster was deleted at this moment. The operator looks again by itself.",
    ),
    entry(
        "… still exists, so this request stays until it is gone",
        "Nothing at first. If this does not change, look at that object: `kubectl get KIND NAME -o yaml`.",
    ),
    entry(
        "…; apply deploy/byoh/webhook-exemption.yaml",
        "BYOH's webhook lets nobody else label hosts. BYOH was installed or upgraded without the exemption: apply it.",
    ),
    entry(
        "…; this happens at every try: another client changes the same object again and again, or this operator's watch of it is behind. To \
         see who writes it, kubectl get that object with -o yaml --show-managed-fields",
        "If two controllers write one field, take one of them away from it. If only this operator is among the managed fields: is its \
         connection to the API server cut by a proxy? Its log says which watch fails.",
    ),
    entry(
        "forbidden, check the operator's RBAC rules: …",
        "Apply the roles of `deploy/` of the operator's own release.",
    ),
    entry(
        "the spec of this request is carried out, but not recorded as a ControllerRevision, so there is no revision to go back to it: …",
        "The event `RevisionNotRecorded`. The rest is the answer of the API server, such as of a quota, or what right the operator lacks. Its next spec, or \
         the present one after a restart of the operator, is tried again.",
    ),
    entry(
        "API server answered …: …",
        "The API server's own words, such as of a quota or an admission policy. The operator tries again by itself.",
    ),
    entry(
        "cannot decode the answer of the API server (… error at line …, column …)",
        "Is a proxy between the operator and the API server, or a kind installed in another version than the operator knows?",
    ),
    entry(
        "cannot convert JSON (… error at line …, column …)",
        "The object that is named has a value that the operator cannot read or write. Report it.",
    ),
];

const TEMPLATE: &[Entry] = &[
    entry("requests can use it", "Nothing."),
    entry(
        "install.method bundle does not work with upstream BYOH: its installation Secret overwrites the bootstrap Secret of the same name. Use \
         install.method installer or none, or Platform9's BYOH",
        "Change `install.method`.",
    ),
    entry(
        "spec.defaults must not contain …; remove it there, and set it in the requests",
        "The field differs between requests, or is read before the template is.",
    ),
    entry(
        "parameterSchema is not a JSON Schema: …; correct it, or remove it",
        "The rest says why, such as a pattern with look-around or back references, which are not supported.",
    ),
    entry(
        "is not a JSON Schema: it is too large, references counted as often as they are used",
        "[The limits](focom-operator.md#templateinfo) keep one template from occupying the operator. Write it with fewer references.",
    ),
    entry("is not a JSON Schema: it is too deep", "Nest it less: [the limits](focom-operator.md#templateinfo)."),
    entry("is not a JSON Schema: it has a dynamic reference", "Use `$ref`."),
    entry(
        "is not a JSON Schema: a $ref leads back to itself",
        "Parameters of any depth cannot be described. Write the levels out.",
    ),
    entry(
        "is not a JSON Schema: a $ref leads to nothing in it, such as #/$defs/name",
        "A reference leads to a part of the same schema. Other documents are not fetched.",
    ),
    entry(
        "spec.defaults cannot be decoded: …; correct them",
        "A field has the wrong type. The message has the expected one.",
    ),
    entry(
        "spec.defaults: …",
        "No request could have this default. The rest is the rule. A request with a value of its own does without it.",
    ),
    entry(
        "spec.kubeadm.controlPlane.clusterConfiguration.… contradicts the Cluster; remove it there: set podCidr in defaults or in the request",
        "Cluster API and kubeadm would go by different values.",
    ),
    entry("remove it there: set serviceCidr in defaults or in the request", "The same."),
    entry("remove it there: set controlPlaneEndpoint in the request", "The same."),
    entry("remove it there: set k8sVersion in defaults or in the request", "The same."),
    entry("remove it there: set clusterName in the request", "The same."),
    entry("remove it there: clusters have the domain cluster.local", "The same."),
    entry(
        "spec.kubeadm.….… has no equivalent in v1beta2 of Cluster API; set it to a time such as 4m0s",
        "A time of the form that Cluster API had in `v1beta1`, which cannot be read. Or set the field of `v1beta2`, a number of seconds.",
    ),
    entry(
        "spec.kubeadm.….… has no equivalent in v1beta2 of Cluster API; remove it: kubeadm itself tries again to join",
        "Cluster API has no such setting any more.",
    ),
];

/// Where the texts are of which the messages consist.
fn sources() -> Vec<Source> {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    vec![
        Source {
            path: crates.join("o2ims-operator/src"),
            without: &[
                ("metrics.rs", "help texts of metrics"),
                ("provisioner/byoh/manifests", "objects that are created"),
                ("main.rs", "the process, which speaks to its log"),
                ("operator.rs", "the process, which speaks to its log"),
                ("watches.rs", "what is to be done about an object that cannot be decoded is logged"),
            ],
        },
        Source { path: crates.join("cluster-api/src/byoh/host.rs"), without: &[] },
        Source { path: crates.join("template-schema/src"), without: &[] },
    ]
}

#[test]
fn each_text_of_the_source_is_in_the_list() {
    assert_complete(&sources(), LIST);
}

#[test]
fn each_message_of_the_list_is_made_by_a_test() {
    assert_made(LIST, &made(&["messages", "properties"]));
}

#[test]
fn the_page_is_generated_from_the_list() {
    assert_page(HEADING, "cargo test -p o2ims-operator --test pure messages", LIST);
}
