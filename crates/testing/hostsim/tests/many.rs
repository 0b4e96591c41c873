//! Many simulated hosts at the same time, and the writes of one of them in the audit log.

// Helper functions of tests may panic as tests do.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt, stream};
use hostsim::{Failure, HostSpec, Site, SiteOptions};
use kube::{
    Api,
    api::{DynamicObject, ListParams},
    core::{ApiResource, GroupVersionKind},
    runtime::wait::await_condition,
};
use testenv::{ByohDialect, ManagementCluster, Options};

const HOSTS: u32 = 200;

fn waits(host: Option<&DynamicObject>) -> bool {
    let conditions = host.and_then(|host| host.data["status"]["conditions"].as_array());
    conditions.is_some_and(|list| list.iter().any(|c| c["reason"] == "WaitingForMachineRefToBeAssigned"))
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_hosts_register() {
    let management = ManagementCluster::start(Options::default(), |step| println!("{step}")).await.unwrap();
    let mark = management.audit_log().mark().unwrap();
    let site = Site::new(&management, SiteOptions::default()).unwrap();
    let start = Instant::now();
    stream::iter(0..HOSTS)
        .map(|n| site.register(HostSpec::new(format!("host-{n}"), format!("h-{n}"))))
        .buffer_unordered(16)
        .try_collect::<Vec<_>>()
        .await
        .unwrap();
    let resource =
        ApiResource::from_gvk(&GroupVersionKind::gvk("infrastructure.cluster.x-k8s.io", "v1beta1", "ByoHost"));
    let hosts: Api<DynamicObject> = Api::default_namespaced_with(management.admin(), &resource);
    let idle = async {
        for n in 0..HOSTS {
            await_condition(hosts.clone(), &format!("host-{n}"), waits).await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(120), idle).await.unwrap();
    println!("{HOSTS} hosts idle: {:.1} s", start.elapsed().as_secs_f32());
    assert_eq!(site.hosts().len(), usize::try_from(HOSTS).unwrap());

    // The agent's writes at its start, in their order, each as the agent's user.
    let writes = |user: &str| {
        let mut entries = management.audit_log().since(&mark).unwrap();
        entries.retain(|entry| entry.is_write() && entry.user == user && entry.resource == "byohosts");
        entries.sort_by(|a, b| a.received.cmp(&b.received));
        assert!(entries.iter().all(|entry| entry.code < 400));
        entries.into_iter().map(|e| [e.verb, e.subresource].join(" ").trim_end().to_owned()).collect::<Vec<_>>()
    };
    let expected: &[&str] = match management.byoh_dialect().unwrap() {
        ByohDialect::Upstream => &["create", "patch status", "patch status"],
        // The fork also writes labels, and the heartbeat before the condition.
        ByohDialect::Platform9 => &["create", "patch", "patch status", "patch status", "patch status"],
    };
    assert_eq!(writes("byoh:host:host-7"), expected);

    // A host that is unregistered, and registered again.
    let host = site.host("host-7").unwrap();
    host.fail(Failure::Unregistered);
    let gone = await_condition(hosts.clone(), "host-7", |host: Option<&DynamicObject>| host.is_none());
    tokio::time::timeout(Duration::from_secs(30), gone).await.unwrap().unwrap();
    host.heal();
    tokio::time::timeout(Duration::from_secs(30), await_condition(hosts.clone(), "host-7", waits))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(writes("byoh:host:host-7").len(), expected.len() * 2 + 1);

    let start = Instant::now();
    site.shut_down().await;
    println!("shut down: {:.1} s", start.elapsed().as_secs_f32());
    assert_eq!(hosts.list(&ListParams::default()).await.unwrap().items.len(), usize::try_from(HOSTS).unwrap());
    management.stop().await.unwrap();
}
