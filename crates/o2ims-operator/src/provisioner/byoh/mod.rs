//! The provisioner for Cluster API with the Bring-Your-Own-Host provider (BYOH): a cluster on exactly the bare-metal hosts that a request
//! names.
//!
//! The path of a request: [`observe`], [`validate`] (with [`contention`]), [`plan`], and [`report`]. The plan is split by policy:
//! [`dry_run`], [`claim`], [`create`], [`maintain`], [`scale`], [`rollout`], [`upgrade`], [`certificates`], [`reattach`], [`recover`], [`give_up`],
//! [`teardown`], [`support`], [`snapshot`]; [`consent`] and [`pause`] say what none of them may do. [`preview`] says what an edit will do. [`template`] judges a ClusterTemplate, for
//! [`validate`] and for its author.

pub mod availability;
pub mod certificates;
pub mod claim;
pub mod consent;
pub mod contention;
pub mod create;
pub mod desired;
pub mod dry_run;
pub mod endpoint;
pub mod give_up;
pub mod hosts;
pub mod identity;
pub mod installer;
pub mod instructions;
pub mod kubeadm;
pub mod machine_deletion;
pub mod maintain;
pub mod manifests;
pub mod marks;
pub mod masters;
pub mod networks;
pub mod observe;
pub mod observed;
pub mod orphans;
pub mod pause;
pub mod plan;
pub mod preview;
pub mod provisioner;
pub mod reattach;
pub mod recover;
pub mod report;
pub mod rollout;
pub mod scale;
pub mod snapshot;
pub mod stages;
pub mod support;
pub mod teardown;
pub mod template;
pub mod upgrade;
pub mod validate;
pub mod warnings;
