//! Certificates that end: when they are renewed, in which order, and what is told.

use cluster_api::byoh::ByohVariant;
use cluster_api::conditions::Condition;
use cluster_api::labels::{CERTIFICATES_EXPIRY_ANNOTATION, PAUSED_ANNOTATION};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition as Told;
use kube::ResourceExt as _;
use o2ims_operator::provisioner::step::Step;
use o2ims_types::{ProvisioningState, conditions, names};
use operator_kit::write::status::find;
use serde_json::json;

use crate::model::{World, from, request};
use crate::status::{on_machine, status};
use ProvisioningState::Fulfilled;

/// A cluster whose hosts were made by install scripts; each reports certificates that are good for a year.
fn running(masters: &[u32], workers: &[u32]) -> World {
    let spec = json!({"install": {"method": "installer"}, "defaults": {"k8sVersion": "v1.35.1"}});
    let mut world = World::new(ByohVariant::Upstream, spec, 4);
    let mut one = request("one", "core", masters, workers);
    one.spec.template_parameters.control_plane_endpoint = Some(from(json!({"host": "10.0.0.100"})));
    world.submit(one);
    world.settle();
    for (number, is_master) in masters.iter().map(|n| (n, true)).chain(workers.iter().map(|n| (n, false))) {
        let mut dates = json!({"agent": world.in_days(300)});
        if is_master {
            dates["controlPlane"] = json!(world.in_days(365));
        }
        world.report_dates(&format!("target-{number}"), &dates);
    }
    assert!(world.reconcile("one").is_empty());
    world
}

/// The unit says that those of the control plane on this host are to be renewed.
fn due(world: &mut World, host: &str, due: &str) {
    let days = if due == "Ended" { -1 } else { 59 };
    let dates = json!({"agent": world.in_days(300), "controlPlane": world.in_days(days), "renew": due});
    world.report_dates(host, &dates);
}

fn told(world: &World) -> Told {
    find(&status(world).conditions, conditions::CERTIFICATES_VALID).unwrap().clone()
}

#[track_caller]
fn says(world: &World, status: &str, words: &str) {
    let told = told(world);
    assert!(told.status == status && told.message.contains(words), "{told:?} has no {words:?}");
}

/// The job of a host, if it has one.
fn job<'a>(world: &'a World, host: &str) -> Option<&'a str> {
    world.hosts[host].annotations().get(names::JOB_ANNOTATION).map(String::as_str)
}

/// The hosts with a job.
fn with_jobs(world: &World) -> Vec<&str> {
    let hosts = world.hosts.keys().map(String::as_str);
    hosts.filter(|host| job(world, host).is_some()).collect()
}

#[test]
fn the_first_end_is_told() {
    let mut world = running(&[1], &[2]);
    let first =
        format!("the first to end is the certificate of the agent on host 1 (target-1), at {}", world.in_days(300));
    says(&world, "True", &first);
    world.report_dates("target-2", &json!({"agent": world.in_days(200)}));
    world.reconcile("one");
    says(&world, "True", &format!("the certificate of the agent on host 2 (target-2), at {}", world.in_days(200)));
    world.report_dates("target-1", &json!({"agent": world.in_days(300), "controlPlane": world.in_days(100)}));
    world.reconcile("one");
    says(
        &world,
        "True",
        &format!("a certificate of the control plane on host 1 (target-1), at {}", world.in_days(100)),
    );
    assert_eq!(world.message("one"), "cluster is ready: 1 master, 1 worker");
    assert_eq!(world.state("one"), Some(Fulfilled));
}

/// Hosts of an earlier release have a unit that reports none.
#[test]
fn what_is_not_known_is_told() {
    let mut world = running(&[1], &[2]);
    for (host, reported) in [("target-2", None), ("target-1", Some("what is this"))] {
        world.edit_host(host, |host| {
            host.annotations_mut().remove(names::CERTIFICATES_ANNOTATION);
            let reported = reported.map(|text| (names::CERTIFICATES_ANNOTATION.to_owned(), text.to_owned()));
            host.annotations_mut().extend(reported);
        });
        world.reconcile("one");
        if host == "target-2" {
            says(
                &world,
                "True",
                "; not known of host 2 (target-2): the unit o2ims-host does not report any from there; to put it there: \
                 ansible-playbook ansible/unit.yaml -e hosts=target-2",
            );
        }
    }
    assert!(find(&status(&world).conditions, conditions::CERTIFICATES_VALID).is_none());
    // There Cluster API's date counts.
    let end = world.in_days(30);
    on_machine(&mut world, "control-plane", |machine| machine.status.certificates_expiry_date = Some(from(json!(end))));
    world.revision += 1;
    world.reconcile("one");
    assert!(world.message("one").contains("the certificates of the control plane on target-1 are valid until"));
    due(&mut world, "target-1", "Soon");
    world.reconcile("one");
    assert!(!world.message("one").contains("as Cluster API read them last"), "{}", world.message("one"));
}

/// One master after the other; Cluster API is told to read the date again.
#[test]
fn masters_are_renewed_one_after_the_other() {
    let mut world = running(&[1, 2, 3], &[4]);
    for host in ["target-1", "target-2", "target-3"] {
        due(&mut world, host, "Soon");
    }
    for host in ["target-1", "target-2", "target-3"] {
        let steps = world.reconcile("one");
        assert!(matches!(steps.as_slice(), [Step::GiveJob(order)] if order.host == host), "{steps:?}");
        let day = world.in_days(59).strftime("%Y-%m-%d").to_string();
        assert!(job(&world, host).unwrap().starts_with(&format!("certificates-{day}-")), "{:?}", job(&world, host));
        assert_eq!(with_jobs(&world), [host]);
        world.reconcile("one");
        let id = format!("host {} ({host})", &host[7..]);
        says(
            &world,
            "True",
            &format!("renewing the certificates of the control plane: {id}: has its job and has not reported yet"),
        );
        world.host_runs_its_job(0);
        assert!(world.reconcile("one").is_empty());
        says(&world, "True", &format!("{id}: 2 of 5"));
        assert_eq!(
            (world.state("one"), world.message("one").as_str()),
            (Some(Fulfilled), "cluster is ready: 3 masters, 1 worker")
        );
        world.host_runs_its_job(0);
        assert!(world.reconcile("one").is_empty());
        says(&world, "True", "is done; waiting for the host to report the new dates");
        assert!(world.new_dates_are_reported(0));
        let steps = world.reconcile("one");
        let [Step::Adopt { fields, .. }, Step::PatchHost(patch)] = steps.as_slice() else { panic!("{steps:?}") };
        assert_eq!(*fields, json!({"metadata": {"annotations": {CERTIFICATES_EXPIRY_ANNOTATION: null}}}));
        assert_eq!((patch.host.as_str(), with_jobs(&world).len()), (host, 0));
    }
    assert!(world.reconcile("one").is_empty());
    says(&world, "True", "the first to end is");
    assert!(!told(&world).message.contains("renewing"));
}

/// A user who has set the date on the Machine keeps it.
#[test]
fn a_date_that_a_user_has_set_stays() {
    let mut world = running(&[1], &[2]);
    on_machine(&mut world, "control-plane", |machine| {
        machine.annotations_mut().insert(CERTIFICATES_EXPIRY_ANNOTATION.to_owned(), "2099-01-01T00:00:00Z".to_owned());
    });
    due(&mut world, "target-1", "Soon");
    world.reconcile("one");
    while world.host_runs_its_job(0) {}
    world.new_dates_are_reported(0);
    assert!(matches!(world.reconcile("one").as_slice(), [Step::PatchHost(_)]));
}

/// A year later the same host gets another job.
#[test]
fn each_renewal_is_a_job_of_its_own() {
    let mut world = running(&[1], &[2]);
    let mut jobs = Vec::new();
    for _ in 0..3 {
        due(&mut world, "target-1", "Soon");
        world.reconcile("one");
        jobs.push(job(&world, "target-1").unwrap().to_owned());
        world.settle();
        assert_eq!(job(&world, "target-1"), None);
        world.second += 365 * 86_400;
    }
    jobs.dedup();
    assert_eq!(jobs.len(), 3, "{jobs:?}");
}

#[test]
fn a_renewal_waits_for_a_healthy_control_plane() {
    let sick = |world: &mut World| {
        world.edit_control_planes(|object| {
            let told =
                json!({"type": "EtcdClusterHealthy", "status": "False", "reason": "NotHealthy", "message": "member-1"});
            object.status.conditions.push(serde_json::from_value::<Condition>(told).unwrap());
        });
    };
    let not_ready = |world: &mut World, owner: &str| {
        on_machine(world, owner, |machine| {
            crate::status::set(&mut machine.status.conditions, "NodeHealthy", "False", "Sick");
        });
        world.revision += 1;
    };
    let mut world = running(&[1], &[2]);
    sick(&mut world);
    due(&mut world, "target-1", "Soon");
    assert!(world.reconcile("one").is_empty());
    says(
        &world,
        "True",
        "host 1 (target-1): waits: EtcdClusterHealthy of KubeadmControlPlane core-control-plane: NotHealthy: member-1",
    );
    // 20 days before the end it is a warning too.
    world.second += 40 * 86_400;
    world.reconcile("one");
    let late = "a certificate of the control plane on host 1 (target-1) is valid until";
    assert!(world.message("one").contains(late), "{}", world.message("one"));
    assert!(world.message("one").contains(
        "and was not renewed; renewing the certificates of the control plane: host 1 (target-1): waits: Etcd"
    ));
    // When they have ended nothing is healthy.
    due(&mut world, "target-1", "Ended");
    assert!(matches!(world.reconcile("one").as_slice(), [Step::GiveJob(_)]));
    says(&world, "False", "the first to end is a certificate of the control plane on host 1 (target-1), at");
    assert_eq!(told(&world).reason, "Expired");

    let mut world = running(&[1], &[2]);
    not_ready(&mut world, "control-plane");
    due(&mut world, "target-1", "Soon");
    assert!(world.reconcile("one").is_empty());
    says(&world, "True", "waits: the node of host 1 (target-1) is not Ready");
    // A worker is no reason.
    let mut world = running(&[1], &[2]);
    not_ready(&mut world, "worker");
    due(&mut world, "target-1", "Soon");
    assert!(matches!(world.reconcile("one").as_slice(), [Step::GiveJob(_)]));
}

#[test]
fn a_renewal_that_fails_is_told_until_its_owner_says_so() {
    let mut world = running(&[1, 2, 3], &[]);
    for host in ["target-1", "target-2", "target-3"] {
        due(&mut world, host, "Soon");
    }
    world.reconcile("one");
    world.job_fails(0);
    world.settle();
    assert_eq!(with_jobs(&world), ["target-1"], "goes on by itself");
    assert_eq!(world.state("one"), Some(Fulfilled));
    let words = "the certificates of the control plane on host 1 (target-1) were not renewed: 2 of 5: kubeadm upgrade. Mend the cause, then try \
        again: kubectl annotate pr one -n site-a o2ims.provisioning.oran.org/retry=certificates-";
    says(&world, "False", words);
    assert_eq!(told(&world).reason, "Halted");
    assert!(world.message("one").contains(words), "{}", world.message("one"));
    world.speak_the_words();
    world.settle();
    says(&world, "True", "the first to end is");
    assert_eq!(world.message("one"), "cluster is ready: 3 masters, 0 workers");
    assert!(with_jobs(&world).is_empty());
}

/// BYOH's agents are renewed by the units themselves.
#[test]
fn an_agent_that_is_not_renewed_is_told() {
    let mut world = running(&[1], &[2]);
    let end = world.in_days(50);
    let failure = "CertificateSigningRequest byoh-csr-target-2-0123abcd is not approved";
    world.report_dates("target-2", &json!({"agent": end, "failure": failure}));
    assert!(world.reconcile("one").is_empty());
    let words = format!(
        "the certificate of the agent on host 2 (target-2), valid until {end}, was not renewed: {failure}; the unit o2ims-host tries again every \
         ten minutes"
    );
    says(&world, "False", &words);
    assert!(world.message("one").contains(&words));
    world.report_dates("target-2", &json!({"agent": end}));
    world.reconcile("one");
    says(&world, "True", "the first to end is the certificate of the agent on host 2 (target-2)");
    world.second += 31 * 86_400;
    world.reconcile("one");
    let late = format!("the certificate of the agent on host 2 (target-2) is valid until {end} and was not renewed");
    assert!(world.message("one").ends_with(&late), "{}", world.message("one"));
}

/// The operator looks again by itself: at 20 days before the end, and at the end.
#[test]
fn the_end_is_a_timer() {
    let mut world = running(&[1], &[2]);
    let end = world.in_days(21);
    world.report_dates("target-2", &json!({"agent": end}));
    world.reconcile("one");
    assert_eq!(world.assess("one").recheck.map(|time| time.as_secs()), Some(86_400));
    world.second += 86_400;
    assert_eq!(world.assess("one").recheck.map(|time| time.as_secs()), Some(20 * 86_400));
    world.second += 20 * 86_400;
    world.reconcile("one");
    says(&world, "False", "the certificate of the agent on host 2 (target-2)");
}

/// Never together with an upgrade: the upgrade renews them too.
#[test]
fn a_renewal_and_an_upgrade_wait_for_each_other() {
    let mut world = running(&[1], &[2]);
    world.edit_request("one", |one| one.spec.template_parameters.k8s_version = Some("v1.36.1".to_owned()));
    world.reconcile("one");
    due(&mut world, "target-1", "Soon");
    for _ in 0..400 {
        let jobs: Vec<_> =
            world.hosts.values().filter_map(|host| host.annotations().get(names::JOB_ANNOTATION)).collect();
        let upgrades = world.message("one").contains("upgrading");
        assert!(!upgrades || jobs.iter().all(|job| !job.starts_with("certificates-")), "{jobs:?}");
        crate::model::PROGRESS.iter().any(|progress| progress(&mut world, 0));
        world.second += 1;
        world.reconcile("one");
    }
    assert_eq!(world.message("one"), "cluster is ready: 1 master, 1 worker");

    due(&mut world, "target-1", "Soon");
    world.reconcile("one");
    world.host_runs_its_job(0);
    world.edit_request("one", |one| one.spec.template_parameters.k8s_version = Some("v1.36.2".to_owned()));
    world.reconcile("one");
    assert!(job(&world, "target-1").unwrap().starts_with("certificates-"), "it is finished first");
    world.settle();
    assert_eq!(world.message("one"), "cluster is ready: 1 master, 1 worker");
    let versions = world.machines.values().map(|machine| machine.record.status.node_info.kubelet_version.as_str());
    assert_eq!(versions.collect::<Vec<_>>(), ["v1.36.2", "v1.36.2"]);
}

/// A kubelet that somebody has changed by hand is not changed back because its host had a job.
#[test]
fn a_renewal_is_no_reason_to_change_a_kubelet() {
    let mut world = running(&[1], &[2]);
    on_machine(&mut world, "control-plane", |machine| {
        "v1.35.9".clone_into(&mut machine.status.node_info.kubelet_version);
    });
    due(&mut world, "target-1", "Soon");
    for _ in 0..6 {
        world.reconcile("one");
        world.host_runs_its_job(0);
        assert!(job(&world, "target-1").is_none_or(|job| job.starts_with("certificates-")));
    }
    assert!(!world.message("one").contains("upgrading"), "{}", world.message("one"));
}

/// What is wrong with a request may stay so for years.
#[test]
fn a_rejected_request_does_not_keep_its_cluster_from_being_renewed() {
    let mut world = running(&[1], &[2]);
    world.template_goes_or_comes(0);
    due(&mut world, "target-1", "Soon");
    assert!(matches!(world.reconcile("one").as_slice(), [Step::GiveJob(_)]));
    world.settle();
    says(&world, "True", "the first to end is");
}

#[test]
fn a_paused_cluster_and_one_that_is_deleted_are_not_renewed() {
    for part in ["cluster", "host", "machine"] {
        let mut world = running(&[1], &[2]);
        let pause = (PAUSED_ANNOTATION.to_owned(), String::new());
        match part {
            "cluster" => world.edit_cluster("core", |cluster| cluster.spec.paused = true),
            "host" => world.edit_host("target-1", |host| host.annotations_mut().extend([pause])),
            _ => on_machine(&mut world, "control-plane", |machine| machine.annotations_mut().extend([pause])),
        }
        due(&mut world, "target-1", "Soon");
        assert!(world.reconcile("one").is_empty(), "{part}");
        assert_eq!(job(&world, "target-1"), None, "{part}");
    }
    let mut world = running(&[1], &[2]);
    world.delete_request("one");
    due(&mut world, "target-1", "Soon");
    world.settle();
    assert!(world.requests.is_empty());
    let left = world.hosts.values().flat_map(|host| host.annotations().keys()).find(|key| key.contains("o2ims"));
    assert_eq!(left, None);
}

/// Files from a backup end on the same day as before: the job is another one all the same.
#[test]
fn what_ends_again_is_renewed_again() {
    let mut world = running(&[1], &[2]);
    let old = json!({"agent": world.in_days(300), "controlPlane": world.in_days(30), "renew": "Soon"});
    for attempt in 1..4 {
        world.report_dates("target-1", &old);
        world.reconcile("one");
        let id = job(&world, "target-1").unwrap().split(' ').next().unwrap();
        assert!(id.ends_with(&format!("-{attempt}")), "{id}");
        world.settle();
        assert_eq!(job(&world, "target-1"), None);
    }
}

/// The unit on the first master has died before it took the job of a snapshot. The renewal says what it waits for, and goes on when the order is taken back.
#[test]
fn a_renewal_waits_for_the_job_of_a_snapshot() {
    let mut world = running(&[1, 2, 3], &[]);
    world.silent.insert("target-1".to_owned());
    let order = |world: &mut World, word: Option<&str>| {
        let text = word.map(ToOwned::to_owned);
        world.edit_request("one", |one| {
            one.annotations_mut().remove(names::SNAPSHOT_ANNOTATION);
            one.annotations_mut().extend(text.map(|text| (names::SNAPSHOT_ANNOTATION.to_owned(), text)));
        });
        world.reconcile("one")
    };
    order(&mut world, Some("now"));
    assert!(job(&world, "target-1").unwrap().starts_with("snapshot-now-"));
    due(&mut world, "target-2", "Soon");
    assert!(world.reconcile("one").is_empty());
    says(
        &world,
        "True",
        "host 2 (target-2): waits: host 1 (target-1) has a job (snapshot) that has not ended; if this does not change, systemctl status o2ims-host on the \
         host says why",
    );
    order(&mut world, None);
    assert!(!job(&world, "target-1").unwrap_or_default().starts_with("snapshot-"));
    world.reconcile("one");
    assert!(job(&world, "target-2").unwrap().starts_with("certificates-"));

    // One that has begun is not taken off.
    let mut world = running(&[1], &[2]);
    order(&mut world, Some("now"));
    world.host_runs_its_job(0);
    assert!(order(&mut world, None).is_empty());
    assert!(job(&world, "target-1").unwrap().starts_with("snapshot-now-"));
    // What it has made is kept before the host gets another job.
    order(&mut world, Some("now"));
    while world.host_runs_its_job(0) {}
    due(&mut world, "target-1", "Soon");
    assert!(matches!(world.reconcile("one").as_slice(), [Step::Annotate { .. }, Step::PatchHost(_)]));
    assert!(world.hosts["target-1"].annotations()[names::SNAPSHOT_ANNOTATION].contains("Done"));
    assert!(matches!(world.reconcile("one").as_slice(), [Step::GiveJob(_)]));
}

/// A master that says nothing does not keep another one from being renewed whose certificates have ended.
#[test]
fn a_silent_master_holds_nobody_up() {
    let mut world = running(&[1, 2, 3], &[]);
    due(&mut world, "target-1", "Soon");
    world.reconcile("one");
    assert_eq!(with_jobs(&world), ["target-1"]);
    due(&mut world, "target-3", "Soon");
    world.reconcile("one");
    assert_eq!(with_jobs(&world), ["target-1"]);
    due(&mut world, "target-2", "Ended");
    world.reconcile("one");
    assert_eq!(with_jobs(&world), ["target-1", "target-2"]);
}

/// Nothing is renewed while members of etcd come or go.
#[test]
fn a_renewal_waits_for_a_change_of_masters() {
    let mut world = running(&[1, 2, 3], &[]);
    due(&mut world, "target-1", "Soon");
    world.edit_control_planes(|object| object.spec.replicas = Some(5));
    world.reconcile("one");
    says(&world, "True", "waits: the masters of the cluster are being changed");
    assert!(with_jobs(&world).is_empty());
}
