//! What users are told, as a part of `docs/messages.md`, with what to do about it. The list has each text of the source, and each message of
//! it is made by a test. `UPDATE_DOCS=1 cargo test -p focom-operator --test pure messages` writes it anew.

use std::path::Path;

use messages::{Entry, Group, Source, assert_complete, assert_made, assert_page, entry, made};

const HEADING: &str = "The FOCOM operator";

const LIST: &[Group] = &[
    Group { title: "A FocomProvisioningRequest that is rejected", entries: REQUEST },
    Group { title: "A FocomProvisioningRequest on its way", entries: PROGRESS },
    Group { title: "A ProvisioningRequest that was not created for the request", entries: ADOPTION },
    Group { title: "A ProvisioningRequest that is gone, and an OCloud that leads elsewhere", entries: GONE },
    Group { title: "A FocomProvisioningRequest that is being deleted", entries: DELETION },
    Group { title: "A write to the O-Cloud that failed", entries: WRITES },
    Group { title: "An OCloud", entries: O_CLOUD },
    Group { title: "A field of a kubeconfig", entries: KUBECONFIG },
    Group { title: "A TemplateInfo", entries: TEMPLATE },
];

const REQUEST: &[Entry] = &[
    entry(
        "oCloudNamespace … is not for requests of namespace …: create Namespace … if it does not exist and annotate it with …, or use \
         oCloudNamespace …",
        "Whoever owns that namespace sets the annotation: [who may use what](focom-operator.md#who-may-use-what).",
    ),
    entry(
        "oCloudId …: there is no OCloud …: create it again, then the deletion continues",
        "The OCloud was deleted before its requests. Create it, with its Secret, as it was. The rest of the message has the way without it.",
    ),
    entry(
        "oCloudId …: there is no OCloud …: create it again, as it was when this request was sent",
        "The cluster runs on. A deletion of the request would wait for the OCloud too.",
    ),
    entry(
        "oCloudId …: there is no OCloud …: create it, or delete this request and create one with another oCloudId",
        "`kubectl get oclouds -A`. The request continues when the OCloud is there.",
    ),
    entry(
        "oCloudId …: namespace … may use no OCloud …: it does not exist, or its spec.allowedNamespaces does not name …",
        "Whoever owns the OCloud adds the namespace to `spec.allowedNamespaces`: [who may use what](focom-operator.md#who-may-use-what).",
    ),
    entry("metadata.annotations[…] is …: it must be \"true\" or \"false\"", "Correct the annotation, or remove it."),
    entry(
        "spec.… cannot change from … to …, because the request was sent to O-Cloud …: set it back to …, or create a request with another \
         name",
        "The cluster keeps running as it is.",
    ),
    entry(
        "…; the ProvisioningRequest on the O-Cloud is not changed",
        "The text before it is wrong with the request. The cluster keeps running as it is.",
    ),
    entry(
        "templateParameters: … (templateParameterSchema of TemplateInfo …)",
        "The parameters do not fit the schema of the TemplateInfo. The text after the field is the rule. Correct the field.",
    ),
    entry(
        "TemplateInfo …: templateParameterSchema …",
        "The TemplateInfo is wrong, whatever the request says: [a TemplateInfo](#a-templateinfo). Requests continue when it is corrected.",
    ),
];

const PROGRESS: &[Entry] = &[
    entry("connecting to O-Cloud …", "Nothing: the O-Cloud is asked for the first time."),
    entry(
        "waiting for O-Cloud …: …",
        "The O-Cloud cannot be used now. The rest is in the list of [an OCloud](#an-ocloud). It is tried again by itself.",
    ),
    entry(
        "it cannot be used now (…); the status of OCloud … says why",
        "The OCloud is in another namespace. Whoever owns it reads its status.",
    ),
    entry("O-Cloud … answers; this request has not been sent to it yet", "Nothing: it takes a moment."),
    entry("ProvisioningRequest … was sent to O-Cloud …", "Nothing: it takes a moment."),
    entry(
        "ProvisioningRequest … exists on O-Cloud …; the operator there has not reported a state yet",
        "If this does not change: does the O2IMS operator run on the O-Cloud?",
    ),
    entry(
        "O-Cloud … reports state …, without a message",
        "Look at the ProvisioningRequest on the O-Cloud. This operator's own O-Clouds send a message always.",
    ),
    entry(
        "ProvisioningRequest … is being deleted on O-Cloud …, although this request is not; it is created again when its deletion is finished",
        "Somebody deletes it on the O-Cloud. If no new cluster is wanted, delete the request.",
    ),
];

const ADOPTION: &[Entry] = &[
    entry(
        "ProvisioningRequest … on O-Cloud … was created for an earlier FocomProvisioningRequest of this name and namespace; this request \
         adopts it",
        "Nothing: it takes a moment.",
    ),
    entry(
        "this request has adopted ProvisioningRequest … on the O-Cloud; only its labels and annotations were written",
        "Nothing: the cluster runs on as it was.",
    ),
    entry(
        "… is not this request's and is being deleted; this request is sent when that deletion is finished, or choose another metadata.name",
        "Wait, or create the request under another name.",
    ),
    entry(
        "ProvisioningRequest … exists on O-Cloud … and is not this request's: choose another metadata.name",
        "Another request has that name on the O-Cloud. Create this one under another name.",
    ),
    entry(
        "ProvisioningRequest … exists on O-Cloud … and is not this request's. For a request of namespace … it can be adopted when it has the \
         labels … and … on the O-Cloud; or choose another metadata.name",
        "The O-Cloud belongs to another namespace, so its owner decides: [coming back, and adoption](focom-operator.md#coming-back-and-adoption).",
    ),
    entry(
        "ProvisioningRequest … exists on O-Cloud … and is not this request's: annotate this request with … to see whether it can be adopted, \
         or choose another metadata.name",
        "[Coming back, and adoption](focom-operator.md#coming-back-and-adoption).",
    ),
    entry(
        "… was created for a request of this name and namespace by another SMO (…): if this is that SMO, restored, start the operator with \
         --smo-id=…, or annotate this request with …; or choose another metadata.name",
        "Two SMOs share an O-Cloud, or this one has lost its id. Do not adopt what another SMO still manages.",
    ),
    entry(
        "… was created for a request of this name and namespace, and has no label … that names the SMO: annotate this request with … to adopt \
         it; or choose another metadata.name",
        "[Coming back, and adoption](focom-operator.md#coming-back-and-adoption).",
    ),
    entry(
        "… has the UID …, and the annotation … of this request names …: nothing is written; set the annotation to … to adopt it, or remove \
         the annotation",
        "Look at the ProvisioningRequest first: it is another one than you meant.",
    ),
    entry(
        "dry run: … (UID …) would be adopted; its spec is this request's, so only labels and annotations would be written. Nothing was \
         written. To adopt it, annotate this request with …",
        "Do so if it is the one that you mean.",
    ),
    entry(
        "… (UID …) cannot be adopted, because it differs from this request in …. Nothing was written. Give these fields of this request the \
         values that they have on the O-Cloud, and change them after the adoption; or choose another metadata.name",
        "The message names the fields.",
    ),
    entry(
        "… was sent from a newer state of this request (generation …, this is …), as after a restore of the SMO from an older backup, and \
         differs from it in …: nothing is changed on the O-Cloud; give these fields of this request the values that they have there, and \
         change them afterwards",
        "The message names the fields.",
    ),
    entry(
        "there is neither ProvisioningRequest … nor … on O-Cloud …, and nothing is sent while this request has the annotation …; correct its \
         UID, or remove it to have the request sent",
        "There is nothing that could be adopted.",
    ),
    entry(
        "there is neither ProvisioningRequest … nor … on O-Cloud …, and the status of this request says that another operator has sent it: it \
         is not sent again; create a new request to have it sent",
        "The request comes from another FOCOM operator, and what it had sent is gone.",
    ),
];

const GONE: &[Entry] = &[
    entry(
        "ProvisioningRequest … is gone from O-Cloud …, and was not seen being deleted. Possible causes: it was deleted while the O-Cloud did \
         not answer, its finalizer was removed by hand, or the O-Cloud was restored from a backup. Its hosts may still run the cluster. This \
         request is not sent again by itself. If the ProvisioningRequest reappears on the O-Cloud, this request continues with it. If it does \
         not, make sure first that the O-Cloud still has the Cluster, which then stays as it runs, or that no node of the cluster runs on its \
         hosts. Then have this request sent again: kubectl annotate fpr … -n … …=… --overwrite",
        "If that O-Cloud is being restored, wait. Otherwise: [coming back](focom-operator.md#coming-back-and-adoption).",
    ),
    entry(
        "… The deletion of this request waits: if the ProvisioningRequest reappears on the O-Cloud, it is deleted, and then this request. If it \
         does not, make sure first that no node of the cluster runs on its hosts. Then delete this request without the ProvisioningRequest: \
         kubectl annotate fpr … -n … …=true --overwrite",
        "If that O-Cloud is being restored, wait. Otherwise: [coming back](focom-operator.md#coming-back-and-adoption).",
    ),
    entry(
        ". The annotation … of this request names …, but the id is …",
        "The annotation is for an earlier loss. Use the command of the message.",
    ),
    entry(
        "OCloud … leads to another O-Cloud than the one that this request was sent to, and that other O-Cloud has no ProvisioningRequest of \
         this request: put the former kubeconfig back; or annotate this request with … to leave its ProvisioningRequest on the former O-Cloud \
         and send this request to the present one",
        "Somebody has changed the kubeconfig of the OCloud. If it only has another address or authority of the same O-Cloud, nothing is to be \
         done but to wait.",
    ),
    entry(
        "OCloud … leads to another O-Cloud than the one that this request was being sent to, and it is not known whether that one has its \
         ProvisioningRequest: put the former kubeconfig back; or annotate this request with … to leave on the former O-Cloud what may be \
         there, and …",
        "The operator ended between the status and the write, and the kubeconfig of the OCloud was changed. Look on the former O-Cloud for \
         a ProvisioningRequest with the label `focom.nephio.org/source-uid` of this request before it is left there.",
    ),
    entry(
        "to leave its ProvisioningRequest on the former O-Cloud and delete this request",
        "The same, while the request is being deleted. Delete the ProvisioningRequest on the former O-Cloud yourself.",
    ),
];

const DELETION: &[Entry] = &[
    entry("ProvisioningRequest … is being deleted on O-Cloud …", "Nothing: the O-Cloud cleans the hosts first."),
    entry("O-Cloud … has no ProvisioningRequest of this request", "Nothing: it takes a moment."),
    entry(
        "; to delete this request without waiting for the ProvisioningRequest, which may then stay on the O-Cloud, annotate this request with …=true",
        "Do so only if the O-Cloud does not come back: [deletion](focom-operator.md#deletion).",
    ),
    entry(
        "this request is deleted with --cascade=orphan: its ProvisioningRequest stays on O-Cloud …",
        "Nothing: whoever has deleted the request wants it so.",
    ),
    entry(
        "namespace … is being deleted, and OCloud … is already deleted, so this operator cannot delete ProvisioningRequest … on that O-Cloud: \
         delete it there",
        "Its hosts run the cluster until then.",
    ),
    entry(
        "this request has the annotation …=true, which forbids the deletion of ProvisioningRequest … on O-Cloud …: annotate this request with …=false to \
         have both deleted",
        "Do so if the cluster is to be deleted.",
    ),
    entry(
        "ProvisioningRequest … on O-Cloud … is protected from deletion by its annotation …=true: annotate this request with …=false to have it deleted",
        "Do so if the cluster is to be deleted.",
    ),
    entry(
        "ProvisioningRequest … stays on O-Cloud …, with its cluster and hosts, because this request was deleted with --cascade=orphan; a \
         request of the same name, namespace and spec adopts it",
        "Nothing, if that is meant so.",
    ),
    entry(
        "ProvisioningRequest … may stay on the O-Cloud that OCloud … led to (sentTo …), with its cluster and hosts; delete it there",
        "This operator does not reach it any more.",
    ),
    entry(
        "ProvisioningRequest … stays on O-Cloud …: it was created for an earlier FocomProvisioningRequest of this name and namespace, and \
         this request has not adopted it",
        "Delete it on the O-Cloud if nobody needs its cluster.",
    ),
    entry(
        "the O-Cloud has not answered a write and may still carry it out: this request is kept for a minute after that write",
        "Nothing.",
    ),
    entry("ProvisioningRequest … is still on the O-Cloud", "Nothing: it is deleted again."),
    entry(
        "ProvisioningRequest … of namespace … on the O-Cloud has the label … with the UID of this request, so the deletion of this request \
         waits: remove that label, or delete that ProvisioningRequest",
        "Somebody has copied a ProvisioningRequest with its labels.",
    ),
];

const WRITES: &[Entry] = &[
    entry(
        "…: the O-Cloud refuses it: …",
        "The O-Cloud's own words, such as of a schema, a policy or a quota. Correct the request, or have the O-Cloud's owner raise the quota.",
    ),
    entry(
        "…: its namespace is being deleted on the O-Cloud; it can be sent when that namespace is created again",
        "Ask the owner of the O-Cloud.",
    ),
    entry(
        "…: the SMO's account on the O-Cloud may not write it: give the account its rights there",
        "`kubectl apply -f deploy/focom-operator/o-cloud-account.yaml` on the O-Cloud.",
    ),
    entry(
        "…: the O-Cloud has no such namespace: create it there, or create the request again with another oCloudNamespace",
        "The namespace on the O-Cloud is `oCloudNamespace` of the request.",
    ),
    entry(
        "…: the O-Cloud answers with an error (…)",
        "It is tried again by itself. If it stays, look at the O-Cloud's API server.",
    ),
    entry(
        "…: the O-Cloud's answer cannot be read",
        "Is a proxy between the SMO and the O-Cloud? Which version of the O2IMS operator has the O-Cloud?",
    ),
    entry("FocomProvisioningRequest … does not exist any more", "Nothing: it was deleted at this moment."),
];

const O_CLOUD: &[Entry] = &[
    entry("the O-Cloud answers", "Nothing."),
    entry("the O-Cloud answers; its ProvisioningRequests are …", "Nothing."),
    entry("the O-Cloud has not answered yet", "Nothing: it is asked for the first time."),
    entry("… (the kubeconfig is in Secret …)", "What is wrong stands before it."),
    entry(
        "Secret … does not exist: put a kubeconfig of the O-Cloud there",
        "The OCloud continues when the Secret is there: [OCloud](focom-operator.md#ocloud).",
    ),
    entry(
        "Secret … has neither the key kubeconfig nor the key value: put a kubeconfig of the O-Cloud there",
        "Put it under the key `kubeconfig`.",
    ),
    entry(
        "the operator may not read Secret …: kubectl create rolebinding focom-operator-secrets --namespace … --clusterrole \
         focom-operator-secrets --serviceaccount …:focom-operator",
        "Whoever owns that namespace runs the command: [who may use what](focom-operator.md#who-may-use-what).",
    ),
    entry(
        "Secrets of namespace … are not for OClouds of namespace …: move the Secret, or annotate Namespace … with …",
        "Whoever owns the namespace of the Secret sets the annotation: [who may use what](focom-operator.md#who-may-use-what).",
    ),
    entry(
        "Secret …: the kubeconfig is not used: …",
        "The rest names the field: [a field of a kubeconfig](#a-field-of-a-kubeconfig). Only inline credentials are taken.",
    ),
    entry(
        "the address, the certificates or the key in the kubeconfig cannot be used: put a valid kubeconfig into the Secret",
        "Try `kubectl --kubeconfig FILE version` with the same file.",
    ),
    entry(
        "the O-Cloud does not accept the credentials (401): put valid ones into the Secret",
        "The token or certificate has expired, or its account was deleted.",
    ),
    entry(
        "the O-Cloud does not let the account list and watch provisioningrequests (403): apply \
         deploy/focom-operator/o-cloud-account.yaml there, or give it these rights",
        "The message has what to do.",
    ),
    entry(
        "the O-Cloud has no provisioningrequests of o2ims.provisioning.oran.org/v1alpha1: install the O2IMS operator there",
        "Or does the kubeconfig lead to another cluster than you mean?",
    ),
    entry(
        "the O-Cloud answers with an error (…)",
        "It is tried again by itself. If it stays, look at the O-Cloud's API server.",
    ),
    entry(
        "what answers at the O-Cloud's address is no Kubernetes API",
        "Correct `server` in the kubeconfig. Is a proxy or a login page in between?",
    ),
    entry(
        "the O-Cloud does not answer in time",
        "Look at the address, the network and the firewall. It is tried again by itself.",
    ),
    entry(
        "internal error while speaking to the O-Cloud, see the operator's log",
        "Report the lines of the log. It is tried again by itself.",
    ),
    entry(
        "the O-Cloud's certificate is not accepted: it is not signed by the authority in the kubeconfig",
        "Put the O-Cloud's present authority into `certificate-authority-data`.",
    ),
    entry(
        "the O-Cloud's certificate is not accepted: it is for another host name or address than the kubeconfig's",
        "Use an address that the certificate names, or set `tls-server-name`.",
    ),
    entry(
        "the O-Cloud's certificate is not accepted: it has expired",
        "Renew the certificate of the O-Cloud's API server.",
    ),
    entry(
        "the O-Cloud's certificate is not accepted: it is not valid yet",
        "Compare the clocks of the O-Cloud and of the SMO.",
    ),
    entry(
        "the O-Cloud's certificate is not accepted: the O-Cloud ends the TLS handshake, probably because of the client certificate",
        "Put a client certificate into the kubeconfig that the O-Cloud's authority has signed.",
    ),
    entry(
        "the O-Cloud's certificate is not accepted: it is not valid",
        "Look at it: `openssl s_client -connect HOST:PORT -showcerts`.",
    ),
    entry(
        "the O-Cloud cannot be reached: connection refused",
        "Nothing listens at the address in the kubeconfig, or a firewall refuses it.",
    ),
    entry(
        "the O-Cloud cannot be reached: the connection was closed",
        "A firewall, a proxy or a load balancer closes it.",
    ),
    entry("the O-Cloud cannot be reached: no route to its address", "Look at the routes of the SMO's nodes."),
    entry(
        "the O-Cloud cannot be reached: what answers there does not speak TLS",
        "Correct the port of `server` in the kubeconfig.",
    ),
    entry(
        "the O-Cloud cannot be reached: its host name is unknown",
        "Correct `server` in the kubeconfig, or the SMO's DNS.",
    ),
    entry("the O-Cloud cannot be reached: the connection fails", "Look at the address, the network and the firewall."),
    entry(
        "the O-Cloud has sent more than … MiB of ProvisioningRequests with the label … (after … of them), which is more than the operator \
         keeps of one O-Cloud: see whether the address in the kubeconfig is the O-Cloud's, and delete those on the O-Cloud that this SMO has \
         not sent",
        "`kubectl get pr -A -l LABEL` on the O-Cloud, with the label of the message. No request of this O-Cloud goes on until then.",
    ),
    entry(
        "this SMO has sent these ProvisioningRequests, and their FocomProvisioningRequests do not exist any more: they were deleted with \
         --cascade=orphan or abandoned, their finalizer was removed by hand, or the SMO was restored from an older backup. Their clusters run \
         on and hold their hosts. To take one back, apply the FocomProvisioningRequest again that its labels … and … name, with the spec \
         that it has on the O-Cloud; to have its cluster deleted, run kubectl delete pr NAME on the O-Cloud",
        "The names are in `status.orphanedRequests.names` of the OCloud: [orphans](focom-operator.md#orphans).",
    ),
];

const KUBECONFIG: &[Entry] = &[
    entry("it has more than … KiB", "Take out the contexts that are not needed."),
    entry(
        "it is not text in UTF-8",
        "Put the file into the Secret as it is, such as with `kubectl create secret generic --from-file`.",
    ),
    entry("it is not one YAML document", "As above. It has to be one document, without many anchors."),
    entry("it is not a map of fields", "As above."),
    entry("… is not a map of fields", "Correct the field."),
    entry("preferences is not empty", "Take the field out."),
    entry("current-context names none of contexts", "Set it to the name of a context in the file."),
    entry("the current context's cluster names none of clusters", "Set it to the name of a cluster in the file."),
    entry("the current context's user names none of users", "Set it to the name of a user in the file."),
    entry(
        "insecure-skip-tls-verify is not allowed: any server could pass for the O-Cloud",
        "Put the O-Cloud's authority into `certificate-authority-data`.",
    ),
    entry("disable-compression is neither true nor false", "Correct the field, or take it out."),
    entry("server is not a URL", "Write `https://ADDRESS:PORT`."),
    entry("server is not a URL that begins with https://", "Write `https://ADDRESS:PORT`."),
    entry(
        "server is not https: credentials would go over the wire in the clear",
        "Use the address at which the API server speaks TLS.",
    ),
    entry("server has a user or a password in it", "Use a token or a client certificate."),
    entry("server has a query or a fragment", "Take it out of the URL."),
    entry("tls-server-name is not a host name", "Correct the field, or take it out."),
    entry(
        "token is empty, or has spaces or characters that no token has",
        "Put the token there, without a line break.",
    ),
    entry("client-key-data is missing beside client-certificate-data", "Put the key there too."),
    entry("client-certificate-data is missing beside client-key-data", "Put the certificate there too."),
    entry("has neither a token nor a client certificate", "Put one of them there: only inline credentials are taken."),
    entry("has a field of an impossible name", "Is something misplaced? Take the field out."),
    entry("… is not a text", "Correct the field."),
    entry("… is not …", "The field has to have the value that is named."),
    entry("… is not … in PEM, base64", "Put the content of the PEM file there, in base64."),
    entry("… is not a list", "Correct the field."),
    entry("… is there twice", "Take one of the two entries out."),
    entry("exec is not allowed: it would run a program in the operator", "Use a token or a client certificate."),
    entry("auth-provider is not allowed: it would run a plug-in; use a token", "Use a token or a client certificate."),
    entry(
        "tokenFile is not allowed: it would read a file of the operator; put the token into token",
        "Put the content there.",
    ),
    entry(
        "client-certificate is not allowed: it would read a file of the operator; put the content into client-certificate-data",
        "`kubectl config view --flatten --minify --raw` writes such a file.",
    ),
    entry(
        "client-key is not allowed: it would read a file of the operator; put the content into client-key-data",
        "`kubectl config view --flatten --minify --raw` writes such a file.",
    ),
    entry(
        "certificate-authority is not allowed: it would read a file of the operator; put the content into certificate-authority-data",
        "`kubectl config view --flatten --minify --raw` writes such a file.",
    ),
    entry(
        "proxy-url is not allowed: requests would go through a proxy that the Secret names",
        "The operator has to reach the O-Cloud directly.",
    ),
    entry("is not allowed: it impersonates another user", "Use the credentials of the account itself."),
    entry(
        "is not allowed: Kubernetes accepts no passwords; use a token or a client certificate",
        "Take user name and password out.",
    ),
    entry("… is not a field that is allowed here", "Take the field out. It may be misspelt."),
];

const TEMPLATE: &[Entry] = &[
    entry("requests are checked against the schema", "Nothing."),
    entry(
        "templateParameterSchema is not a JSON Schema: …",
        "Correct it. The rest is in the list of [a ClusterTemplate](#a-clustertemplate), whose schemas have the same limits.",
    ),
];

#[test]
fn each_text_of_the_source_is_in_the_list() {
    let sources = [Source {
        path: Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        without: &[
            ("metrics.rs", "help texts of metrics"),
            ("main.rs", "the process, which speaks to its log"),
            ("operator.rs", "the process, which speaks to its log"),
            ("watches.rs", "what is to be done about an object that cannot be decoded is logged"),
        ],
    }];
    assert_complete(&sources, LIST);
}

#[test]
fn each_message_of_the_list_is_made_by_a_test() {
    assert_made(LIST, &made(&["messages", "properties"]));
}

#[test]
fn the_page_is_generated_from_the_list() {
    assert_page(HEADING, "cargo test -p focom-operator --test pure messages", LIST);
}
