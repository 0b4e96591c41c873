//! A second provisioner, which has no cluster at all: what one has to supply, and what it gets from the path of a request.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use o2ims_operator::expectations::{Expectations, Write};
use o2ims_operator::provisioner::interface::{Admission, Provisioner};
use o2ims_operator::provisioner::registry::Provisioners;
use o2ims_operator::provisioner::report::{Deleting, Progress, Provisioning, Rejection, Report, Stage, StageState};
use o2ims_operator::provisioner::step::Step;
use o2ims_operator::provisioning_request::status::assess;
use o2ims_operator::request::{has_finalizer, is_being_deleted};
use o2ims_types::conditions::{self, reason};
use o2ims_types::o2ims::v1alpha1::provisioning_request::StatusExtensions;
use o2ims_types::{ProvisioningRequest, ProvisioningState, names};
use operator_kit::controller::Outcome;
use operator_kit::write::status::find;
use serde_json::json;
use tokio::time::Instant;

use crate::model::{from, record_status};

/// Fulfils a request as soon as its finalizer is there.
struct Paper;

impl Provisioner for Paper {
    type Observed = String;
    type Desired = ();

    fn name(&self) -> &'static str {
        "paper"
    }

    fn observe(&self, request: &ProvisioningRequest) -> String {
        request.uid().unwrap_or_default()
    }

    fn owner_uid<'a>(&self, uid: &'a String) -> &'a str {
        uid
    }

    fn shows(&self, _: &Write, request: &ProvisioningRequest, _: &String) -> bool {
        has_finalizer(request)
    }

    fn admit(&self, request: &ProvisioningRequest, _: &mut String, _: Instant) -> Result<Admission<()>, Outcome> {
        let named = request.spec.template_parameters.cluster_name.is_some();
        let verdict = if named { Ok(()) } else { Err(Rejection::invalid("clusterName is missing")) };
        Ok(Admission { verdict, recheck: None, guard: Box::new(()) })
    }

    fn plan(&self, request: &ProvisioningRequest, verdict: &Result<(), Rejection>, _: &String) -> Vec<Step> {
        match (is_being_deleted(request), has_finalizer(request)) {
            (true, true) => vec![Step::RemoveFinalizer],
            (false, false) if verdict.is_ok() => vec![Step::AddFinalizer],
            _ => Vec::new(),
        }
    }

    fn report(&self, request: &ProvisioningRequest, verdict: &Result<(), Rejection>, _: &String) -> Report {
        let (resources, extensions) = (None, StatusExtensions::default());
        if is_being_deleted(request) {
            let limit = Duration::from_secs(60);
            let deleting = Deleting { message: "shredding".to_owned(), paused: None, limit, overdue: String::new() };
            return Report { progress: Progress::Deleting(deleting), resources, extensions };
        }
        let validated = verdict.as_ref().err().map_or(StageState::Done, StageState::blocked);
        let printed = if has_finalizer(request) {
            StageState::Done
        } else {
            StageState::InProgress { message: "printing".to_owned() }
        };
        let stages = vec![
            Stage::new(conditions::VALIDATED, validated),
            Stage::new("Printed", printed).within("spec.timeouts.printing", Duration::from_secs(60)),
        ];
        let ready = "printed".to_owned();
        let (degraded, upcoming, paused) = (Vec::new(), Vec::new(), None);
        let progress = Provisioning {
            stages,
            has_begun: true,
            exists: false,
            ready,
            degraded,
            upcoming,
            certificates: None,
            paused,
        };
        Report { progress: Progress::Provisioning(progress), resources, extensions }
    }

    fn is_engaged(&self, _: &String) -> bool {
        false
    }

    fn forget(&self, _: &str, _: Instant) {}
}

fn request(provisioner: &str, name: Option<&str>) -> ProvisioningRequest {
    from(json!({
        "metadata": {"name": "one", "namespace": "site-a", "uid": "one-uid", "generation": 1},
        "spec": {
            "templateName": "edge", "templateVersion": "v1",
            "templateParameters": {"clusterProvisioner": provisioner, "clusterName": name},
        },
    }))
}

/// What is done for the request, and its state, message and status.
fn decide(request: &ProvisioningRequest) -> (Vec<Step>, o2ims_types::ProvisioningRequestStatus) {
    let provisioners = Provisioners::new(vec![Box::new(Paper)]);
    let Ok(decision) = provisioners.decide(request, &Expectations::default(), Instant::now()) else { panic!("waits") };
    let assessment = assess(request, &decision.report, None, Timestamp::now());
    record_status(&assessment.status);
    (decision.steps, assessment.status)
}

fn told(status: &o2ims_types::ProvisioningRequestStatus) -> (ProvisioningState, &str) {
    let told = &status.provisioning_status;
    (told.provisioning_state, &told.provisioning_message)
}

#[test]
fn a_second_provisioner_is_selected_by_its_name() {
    let mut request = request("paper", Some("core"));
    let (steps, status) = decide(&request);
    assert_eq!((steps, told(&status)), (vec![], (ProvisioningState::Progressing, "printing")), "a status comes first");
    request.status = Some(status);
    let (steps, status) = decide(&request);
    assert_eq!(steps, [Step::AddFinalizer]);
    assert_eq!(told(&status), (ProvisioningState::Progressing, "printing"));
    assert_eq!(find(&status.conditions, "Printed").unwrap().reason, reason::IN_PROGRESS);

    request.metadata.finalizers = Some(vec![names::FINALIZER.to_owned()]);
    let (steps, status) = decide(&request);
    assert_eq!((steps, told(&status)), (vec![], (ProvisioningState::Fulfilled, "printed")));

    request.metadata.deletion_timestamp = Some(Time(Timestamp::now()));
    let (steps, status) = decide(&request);
    assert_eq!((steps, told(&status)), (vec![Step::RemoveFinalizer], (ProvisioningState::Deleting, "shredding")));
}

#[test]
fn deadlines_and_rejections_are_the_same_for_each_provisioner() {
    let (steps, status) = decide(&request("paper", None));
    assert_eq!((steps, told(&status)), (vec![], (ProvisioningState::Failed, "clusterName is missing")));
    assert_eq!(find(&status.conditions, conditions::STALLED).unwrap().reason, reason::INVALID);

    let mut slow = request("paper", Some("core"));
    let (_, mut status) = decide(&slow);
    let printed = status.conditions.iter_mut().find(|condition| condition.type_ == "Printed").unwrap();
    printed.last_transition_time = Time("2020-01-01T00:00:00Z".parse().unwrap());
    slow.status = Some(status);
    let (_, status) = decide(&slow);
    let message = "time limit of 60 s exceeded (spec.timeouts.printing of the ClusterTemplate): printing; this operator continues";
    assert_eq!(told(&status), (ProvisioningState::Failed, message));
}

#[test]
fn an_unknown_provisioner_is_refused_with_the_list_of_the_known_ones() {
    let mut request = request("stone", Some("core"));
    let (steps, status) = decide(&request);
    let message = "clusterProvisioner \"stone\" is not supported: this O-Cloud has \"paper\"";
    assert_eq!((steps, told(&status)), (vec![], (ProvisioningState::Failed, message)));
    assert_eq!(find(&status.conditions, conditions::VALIDATED).unwrap().reason, reason::INVALID);

    // Nothing of it is left at any provisioner, so the finalizer goes.
    request.metadata.finalizers = Some(vec![names::FINALIZER.to_owned()]);
    request.metadata.deletion_timestamp = Some(Time(Timestamp::now()));
    let (steps, _) = decide(&request);
    assert_eq!(steps, [Step::RemoveFinalizer]);
}

#[test]
fn a_spec_is_accepted_when_it_is_carried_out() {
    let is_accepted = |request: &ProvisioningRequest| {
        let provisioners = Provisioners::new(vec![Box::new(Paper)]);
        provisioners
            .decide(request, &Expectations::default(), Instant::now())
            .is_ok_and(|decision| decision.is_accepted)
    };
    let mut request = request("paper", Some("core"));
    assert!(!is_accepted(&request), "a status comes first");
    request.status = Some(decide(&request).1);
    assert!(is_accepted(&request));
    let edited = |edit: fn(&mut ProvisioningRequest)| {
        let mut request = request.clone();
        edit(&mut request);
        request
    };
    assert!(!is_accepted(&edited(|request| request.spec.template_parameters.cluster_name = None)), "it is refused");
    let unknown = |request: &mut ProvisioningRequest| {
        request.spec.template_parameters.cluster_provisioner = "stone".to_owned();
    };
    assert!(!is_accepted(&edited(unknown)), "nobody carries it out");
    let deleted =
        |request: &mut ProvisioningRequest| request.metadata.deletion_timestamp = Some(Time(Timestamp::now()));
    assert!(!is_accepted(&edited(deleted)), "it is being deleted");
}
