//! Support bundles and snapshots: who is given an order, what is told of it, and what never gets into a bundle.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use cluster_api::byoh::ByohVariant;
use kube::ResourceExt as _;
use o2ims_types::o2ims::v1alpha1::provisioning_request::HostFile;
use o2ims_types::{HostRef, ProvisioningState, conditions, names};
use operator_kit::write::status::find;
use serde_json::json;

use crate::model::{PROGRESS, World, from, host_refs, request};
use crate::status::status;
use crate::upgrades::annotate;

/// A master and a worker, made by install scripts.
fn running() -> World {
    let spec = json!({"install": {"method": "installer"}, "defaults": {"k8sVersion": "v1.35.1"}});
    let mut world = World::new(ByohVariant::Upstream, spec, 4);
    world.submit(request("one", "core", &[1], &[2]));
    world.settle();
    world
}

fn order(world: &mut World, value: &str) {
    annotate(world, names::SUPPORT_BUNDLE_ANNOTATION, Some(value));
    world.reconcile("one");
}

fn bundles(world: &World) -> Vec<Option<HostFile>> {
    status(world).extensions.hosts.into_iter().map(|host| host.support_bundle).collect()
}

fn states(world: &World) -> Vec<(String, String)> {
    bundles(world).into_iter().flatten().map(|bundle| (bundle.name, bundle.state)).collect()
}

fn is(name: &str, state: &str) -> (String, String) {
    (name.to_owned(), state.to_owned())
}

#[test]
fn each_host_makes_one_and_says_where_it_is() {
    let mut world = running();
    assert_eq!(bundles(&world), [None, None]);
    order(&mut world, "2026-12-01");
    world.reconcile("one");
    assert_eq!(states(&world), [is("2026-12-01", "Waiting"), is("2026-12-01", "Waiting")]);
    assert_eq!(
        bundles(&world)[0].as_ref().unwrap().message,
        "waits for the host, or for a job that it runs; if this does not change, systemctl status o2ims-host on the host says why"
    );
    world.settle();
    let made = HostFile {
        name: "2026-12-01".to_owned(),
        state: "Done".to_owned(),
        path: Some("/bundles/2026-12-01".to_owned()),
        bytes: Some(7),
        sha256: Some("ab".to_owned()),
        message: String::new(),
    };
    assert_eq!(bundles(&world), [Some(made.clone()), Some(made)]);
    assert_eq!(world.state("one"), Some(ProvisioningState::Fulfilled));
    assert!(world.reconcile("one").is_empty(), "one word is one order");

    order(&mut world, "again/target-2");
    assert_eq!(states(&world), [is("2026-12-01", "Done"), is("again", "Waiting")]);
    world.settle();
    assert_eq!(states(&world), [is("2026-12-01", "Done"), is("again", "Done")]);
    annotate(&mut world, names::SUPPORT_BUNDLE_ANNOTATION, None);
    world.settle();
    assert_eq!(states(&world), [is("2026-12-01", "Done"), is("again", "Done")]);
    world.delete_request("one");
    world.settle();
    assert!(world.hosts.values().all(|host| host.annotations().keys().all(|key| !key.contains("o2ims"))));
}

/// A host that does not answer keeps no other one from it, nor does one that cannot make any.
#[test]
fn a_host_that_makes_none_is_told() {
    let mut world = running();
    world.silent.insert("target-1".to_owned());
    world.edit_host("target-2", |host| {
        host.annotations_mut().insert(names::HOST_UNIT_ANNOTATION.to_owned(), "1".to_owned());
    });
    order(&mut world, "now");
    world.settle();
    assert_eq!(states(&world), [is("now", "Waiting"), is("now", "Waiting")]);
    assert_eq!(
        bundles(&world)[1].as_ref().unwrap().message,
        "the unit o2ims-host does not report from the host, or is of an earlier release; to put it there: ansible-playbook ansible/unit.yaml -e \
         hosts=target-2"
    );
    world.edit_host("target-2", |host| {
        host.annotations_mut().insert(names::HOST_UNIT_ANNOTATION.to_owned(), "2".to_owned());
    });
    world.settle();
    assert_eq!(states(&world), [is("now", "Waiting"), is("now", "Done")]);
}

/// It is made where an upgrade has stopped, and the upgrade stays as it is.
#[test]
fn a_stopped_upgrade_stays_stopped() {
    let mut world = running();
    world.edit_request("one", |one| one.spec.template_parameters.k8s_version = Some("v1.36.1".to_owned()));
    world.reconcile("one");
    world.host_runs_its_job(0);
    world.job_fails(0);
    world.settle();
    assert_eq!(world.state("one"), Some(ProvisioningState::Failed));
    let jobs = |world: &World| -> Vec<_> {
        let keys = [names::JOB_ANNOTATION, names::JOB_STATUS_ANNOTATION];
        world.hosts.values().flat_map(|host| keys.map(|key| host.annotations().get(key).cloned())).collect()
    };
    let (before, message) = (jobs(&world), world.message("one"));
    order(&mut world, "cause");
    world.settle();
    assert_eq!(states(&world), [is("cause", "Done"), is("cause", "Done")]);
    assert_eq!((jobs(&world), world.message("one")), (before, message));
}

/// Nothing is ordered while the owner has paused the request.
#[test]
fn a_paused_request_orders_none() {
    let mut world = running();
    annotate(&mut world, names::PAUSED_ANNOTATION, Some("true"));
    order(&mut world, "later");
    world.settle();
    assert_eq!(states(&world), [is("later", "Waiting"), is("later", "Waiting")]);
    annotate(&mut world, names::PAUSED_ANNOTATION, None);
    world.settle();
    assert_eq!(states(&world), [is("later", "Done"), is("later", "Done")]);
}

#[test]
fn a_word_that_cannot_be_carried_out_is_told() {
    let mut world = running();
    for (word, told) in [
        (
            "../etc",
            "annotation o2ims.provisioning.oran.org/support-bundle has \"..\", which is no name for a file: use at most 63 letters, digits, \".\", \
             \"_\" and \"-\", such as 2026-12-01",
        ),
        (
            "now/target-9",
            "annotation o2ims.provisioning.oran.org/support-bundle names host \"target-9\", which this request does not hold; it takes names of \
             ByoHosts, as in hostName",
        ),
    ] {
        order(&mut world, word);
        world.settle();
        let degraded = find(&status(&world).conditions, conditions::DEGRADED).unwrap().clone();
        assert_eq!((degraded.status.as_str(), degraded.message.as_str()), ("True", told));
        assert_eq!(states(&world), []);
    }
}

fn snapshots(world: &World) -> Vec<Option<HostFile>> {
    status(world).extensions.hosts.into_iter().map(|host| host.snapshot).collect()
}

fn order_snapshot(world: &mut World, value: &str) {
    annotate(world, names::SNAPSHOT_ANNOTATION, Some(value));
    world.reconcile("one");
}

#[test]
fn the_first_master_takes_a_snapshot_once_for_a_word() {
    let mut world = running();
    order_snapshot(&mut world, "Before_1.2");
    assert!(world.hosts["target-1"].annotations()[names::JOB_ANNOTATION].starts_with("snapshot-before-1.2-"));
    world.host_runs_its_job(0);
    world.reconcile("one");
    let [Some(file), None] = &snapshots(&world)[..] else { panic!("{:?}", snapshots(&world)) };
    assert_eq!((file.name.as_str(), file.state.as_str()), ("Before_1.2", "Running"));
    world.settle();
    let [Some(file), None] = &snapshots(&world)[..] else { panic!("{:?}", snapshots(&world)) };
    assert_eq!((file.state.as_str(), file.path.as_deref()), ("Done", Some("/var/lib/o2ims-snapshots/v1-before")));
    assert!(!world.hosts["target-1"].annotations().contains_key(names::JOB_ANNOTATION));
    assert!(world.reconcile("one").is_empty(), "one word is one order");
    assert_eq!(world.state("one"), Some(ProvisioningState::Fulfilled));

    order_snapshot(&mut world, "later");
    world.job_fails(0);
    world.settle();
    let [Some(file), None] = &snapshots(&world)[..] else { panic!("{:?}", snapshots(&world)) };
    assert_eq!((file.name.as_str(), file.state.as_str()), ("later", "Failed"));
    assert_eq!(world.state("one"), Some(ProvisioningState::Fulfilled));
    order_snapshot(&mut world, "a b");
    world.settle();
    let degraded = find(&status(&world).conditions, conditions::DEGRADED).unwrap().clone();
    assert!(degraded.message.contains("has \"a b\", which is no name for a file"), "{degraded:?}");
}

#[test]
fn a_snapshot_waits_for_an_upgrade_and_for_the_unit() {
    let waits = |world: &World, words: &str| {
        let [Some(file), None] = &snapshots(world)[..] else { panic!("{:?}", snapshots(world)) };
        assert_eq!(file.state, "Waiting");
        assert!(file.message.starts_with(words), "{file:?}");
    };
    let mut world = running();
    world.edit_request("one", |one| one.spec.template_parameters.k8s_version = Some("v1.36.1".to_owned()));
    world.reconcile("one");
    world.host_runs_its_job(0);
    world.job_fails(0);
    world.settle();
    let job = world.hosts["target-1"].annotations()[names::JOB_ANNOTATION].clone();
    order_snapshot(&mut world, "now");
    world.settle();
    waits(&world, "waits for the host, or for an upgrade or a renewal of certificates");
    assert_eq!(world.hosts["target-1"].annotations()[names::JOB_ANNOTATION], job);
    world.speak_the_words();
    world.settle();
    assert_eq!(world.state("one"), Some(ProvisioningState::Fulfilled), "{}", world.message("one"));
    assert_eq!(snapshots(&world)[0].as_ref().unwrap().state, "Done");

    world.edit_host("target-1", |host| {
        host.annotations_mut().remove(names::HOST_UNIT_ANNOTATION);
    });
    order_snapshot(&mut world, "again");
    world.settle();
    waits(
        &world,
        "the unit o2ims-host does not report from the host; to put it there: ansible-playbook ansible/unit.yaml -e hosts=target-1",
    );
}

/// A word is for the hosts that the request has when it is given: one that is added later, or becomes the first master, does not carry it out again.
#[test]
fn a_host_that_comes_later_carries_no_old_word_out() {
    let spec = json!({"install": {"method": "installer"}, "defaults": {"k8sVersion": "v1.35.1"}});
    let mut world = World::new(ByohVariant::Upstream, spec, 5);
    let mut one = request("one", "core", &[1, 2, 3], &[4]);
    one.spec.template_parameters.control_plane_endpoint = Some(from(json!({"host": "10.0.0.100"})));
    world.submit(one);
    world.settle();
    order(&mut world, "old");
    order_snapshot(&mut world, "old");
    world.settle();
    assert_eq!(states(&world), [is("old", "Done"), is("old", "Done"), is("old", "Done"), is("old", "Done")]);
    assert_eq!(snapshots(&world)[0].as_ref().unwrap().state, "Done");
    world.edit_request("one", |one| {
        let hosts = one.spec.template_parameters.hosts.as_mut().unwrap();
        hosts.masters.remove(0);
        hosts.masters.extend(from::<Vec<HostRef>>(json!(host_refs(&[5]))));
    });
    world.settle();
    assert_eq!(world.state("one"), Some(ProvisioningState::Fulfilled), "{}", world.message("one"));
    assert_eq!(bundles(&world)[2], None, "{:?}", status(&world).extensions.hosts);
    assert!(snapshots(&world).iter().all(Option::is_none), "{:?}", snapshots(&world));
    let new = world.hosts["target-5"].annotations();
    assert!(new.contains_key(names::HOST_UNIT_ANNOTATION) && !new.contains_key(names::SUPPORT_BUNDLE_ANNOTATION));
    // Another word is for it too.
    order(&mut world, "new");
    order_snapshot(&mut world, "new");
    world.settle();
    assert!(states(&world).iter().all(|state| *state == is("new", "Done")) && states(&world).len() == 4);
    assert_eq!(snapshots(&world)[0].as_ref().unwrap().name, "new");
}

/// A worker that is taken out and put in again before it is released: what its unit has reported was on the disk that was cleaned.
#[test]
fn a_host_that_was_reset_keeps_no_old_words() {
    let mut world = running();
    order(&mut world, "old");
    world.settle();
    let workers = |world: &mut World, numbers: &[u32]| {
        let workers = from(json!(host_refs(numbers)));
        world.edit_request("one", |one| one.spec.template_parameters.hosts.as_mut().unwrap().workers = workers);
    };
    workers(&mut world, &[]);
    world.reconcile("one");
    workers(&mut world, &[2]);
    for _ in 0..200 {
        let host = &world.hosts["target-2"];
        if host.in_use_reason().is_none() {
            break;
        }
        PROGRESS.iter().any(|progress| progress(&mut world, 0));
        world.second += 1;
        world.reconcile("one");
    }
    assert_eq!(world.hosts["target-2"].in_use_reason(), None);
    world.reconcile("one");
    let of_unit = [
        names::JOB_STATUS_ANNOTATION,
        names::HOST_UNIT_ANNOTATION,
        names::CERTIFICATES_ANNOTATION,
        names::SUPPORT_BUNDLE_ANNOTATION,
        names::SUPPORT_BUNDLE_STATUS_ANNOTATION,
    ];
    let host = &world.hosts["target-2"];
    assert_eq!(host.labels().get(names::REQUEST_UID_LABEL), world.requests["one"].uid().as_ref(), "was released");
    assert!(of_unit.iter().all(|key| !host.annotations().contains_key(*key)), "{:?}", host.annotations());
    world.settle();
    assert_eq!(world.state("one"), Some(ProvisioningState::Fulfilled), "{}", world.message("one"));
    assert_eq!(bundles(&world)[1], None);
    assert!(bundles(&world)[0].is_some());
}

/// The job of an upgrade that failed tells that the host is halfway, also when the request names no version any more.
#[test]
fn a_snapshot_does_not_replace_the_job_of_an_upgrade_left_halfway() {
    let mut world = running();
    let ask = |world: &mut World, version: Option<&str>| {
        let version = version.map(ToOwned::to_owned);
        world.edit_request("one", |one| one.spec.template_parameters.k8s_version = version);
    };
    ask(&mut world, Some("v1.36.1"));
    for _ in 0..20 {
        world.reconcile("one");
        let job = world.hosts["target-1"].annotations().get(names::JOB_ANNOTATION);
        if job.is_some_and(|job| job.starts_with("upgrade-")) {
            break;
        }
        while world.host_runs_its_job(0) {}
    }
    world.job_fails(0);
    let job = world.hosts["target-1"].annotations()[names::JOB_ANNOTATION].clone();
    assert!(job.starts_with("upgrade-v1.36.1-"), "{job}");
    ask(&mut world, None);
    order_snapshot(&mut world, "now");
    world.settle();
    assert_eq!(world.hosts["target-1"].annotations()[names::JOB_ANNOTATION], job);
    assert_eq!(snapshots(&world)[0].as_ref().unwrap().state, "Waiting");
    ask(&mut world, Some("v1.35.1"));
    world.settle();
    assert_eq!(snapshots(&world)[0].as_ref().unwrap().state, "Done");
}

/// What a part of the unit's program makes of a text.
fn redacted(text: &str) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/provisioner/byoh/upgrade/scripts/support.sh");
    let mut bash = Command::new("bash");
    let bash = bash.args(["-c", "source \"$1\" && redact", "redact"]).arg(script);
    let mut bash = bash.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    bash.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    String::from_utf8(bash.wait_with_output().unwrap().stdout).unwrap()
}

#[test]
fn secrets_do_not_get_into_one() {
    for (text, left) in [
        ("a\n-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\nb\n", "a\nb\n"),
        (
            "key: \"-----BEGIN EC PRIVATE KEY-----\\nMIIE\\n-----END EC PRIVATE KEY-----\\n\" b\n",
            "key: \"[removed]\\n\" b\n",
        ),
        ("client-key-data: TUlJRQ==\n", "client-key-data: [removed]\n"),
        (
            "client-certificate-data: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCk1JSUU=\n",
            "client-certificate-data: [removed]\n",
        ),
        (
            "join --token abcdef.0123456789abcdef --certificate-key 0a1b2c\n",
            "join --token [removed] --certificate-key [removed]\n",
        ),
        ("id abcdef.0123456789abcdef, known\n", "id [removed], known\n"),
        ("Authorization: Bearer c2VjcmV0LXRva2Vu\n", "Authorization: Bearer [removed]\n"),
        ("jwt eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrIn0.c2ln end\n", "jwt [removed] end\n"),
        ("HTTPS_PROXY=http://site:hunter2@proxy:3128\n", "HTTPS_PROXY=http://[removed]@proxy:3128\n"),
        ("{\"password\": \"hunter2\", \"user\": \"a\"}\n", "{\"password\": \"[removed]\", \"user\": \"a\"}\n"),
        ("password:  hunter2\n", "password:  [removed]\n"),
        ("password:\thunter2\n", "password:\t[removed]\n"),
        ("password: \"a b\" c\n", "password: \"[removed]\" c\n"),
        ("password: 'a b' c\n", "password: '[removed]' c\n"),
        ("password: \"a\\\" b\" c\n", "password: \"[removed]\" c\n"),
        ("password: \"a b\n", "password: [removed]\n"),
        ("{\"password\":\"a,b\",\"token\":\"c\"}\n", "{\"password\":\"[removed]\",\"token\":\"[removed]\"}\n"),
        ("password=a,b c\n", "password=[removed] c\n"),
        ("text=\"{\\\"password\\\":\\\"x\\\",1}\"\n", "text=\"{\\\"password\\\":\\\"[removed]\\\",1}\"\n"),
        ("{\\\"password\\\":\\\"a \\\\\\\"b\\\"}\n", "{\\\"password\\\":\\\"[removed]\\\"}\n"),
        ("AWS_SECRET_ACCESS_KEY=x\n", "AWS_SECRET_ACCESS_KEY=[removed]\n"),
        ("aws_secret_access_key = x\n", "aws_secret_access_key = [removed]\n"),
        ("client_secret_key: x\n", "client_secret_key: [removed]\n"),
        ("api_key=x passphrase=y\n", "api_key=[removed] passphrase=[removed]\n"),
        ("DB_PASS=x private-key=y\n", "DB_PASS=[removed] private-key=[removed]\n"),
        ("login --password x --user b\n", "login --password [removed] --user b\n"),
        ("run --bearer-token x b\n", "run --bearer-token [removed] b\n"),
        ("\"auth\": \"dXNlcjpwYXNz\",\n", "\"auth\": \"[removed]\",\n"),
        ("http://u:p/w@h/\n", "http://[removed]@h/\n"),
        ("http://u:p@w@h/ b\n", "http://[removed]@h/ b\n"),
        ("- --client-cert-auth=true\n", "- --client-cert-auth=true\n"),
        (
            "E1201 pod kube-system/etcd-a failed: port 2379 is in use\n",
            "E1201 pod kube-system/etcd-a failed: port 2379 is in use\n",
        ),
        (
            "- --tls-private-key-file=/etc/kubernetes/pki/apiserver.key\n",
            "- --tls-private-key-file=/etc/kubernetes/pki/apiserver.key\n",
        ),
    ] {
        assert_eq!(redacted(text), left, "{text}");
    }
}
