//! The status of a ClusterTemplate. `now` is a parameter. Of the old status only the time of the condition's last transition is read.

use cluster_api::byoh::ByohVariant;
use k8s_openapi::jiff::Timestamp;
use o2ims_types::conditions::{self, reason};
use o2ims_types::{ClusterTemplate, ClusterTemplateStatus};
use operator_kit::write::status::{self, ConditionUpdate};

use crate::provisioner::byoh::template::{problems, unsupported_method};

/// Derives the status: everything that is wrong with the template at once, with the BYOH that is installed.
pub fn assess(template: &ClusterTemplate, variant: Option<ByohVariant>, now: Timestamp) -> ClusterTemplateStatus {
    let mut wrong = problems(&template.spec);
    let unsupported = unsupported_method(&template.spec, variant);
    let reason = match (wrong.is_empty(), &unsupported) {
        (false, _) => reason::INVALID,
        (true, Some(_)) => reason::UNSUPPORTED,
        (true, None) => reason::READY,
    };
    wrong.extend(unsupported);
    let message = if wrong.is_empty() { "requests can use it".to_owned() } else { wrong.join("; ") };
    let observed_generation = template.metadata.generation;
    let ready = ConditionUpdate {
        type_: conditions::READY,
        status: wrong.is_empty().into(),
        reason,
        message,
        observed_generation,
    };
    let mut conditions = template.status.clone().unwrap_or_default().conditions;
    status::set(&mut conditions, ready, now);
    ClusterTemplateStatus { conditions, observed_generation }
}
