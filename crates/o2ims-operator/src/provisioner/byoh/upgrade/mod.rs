//! Upgrades. In place, which is the default: Cluster API would replace machines, and reset their servers, so each host is upgraded by kubeadm first, and
//! then the objects are changed to what runs: Cluster API finds nothing to do. Where the template says so, rolling: each host is reset, and becomes a node
//! again.
//!
//! [`hop`] says which version may follow another; [`gate`] what the next host waits for; [`next`] has the order of the hosts in place, and [`rolling`]
//! that of hosts that are reset; [`strategy`] which of both it is; [`window`] when a host may begin; [`job`] is what a host runs; [`restore`] is the way back; [`adoption`] changes Cluster API's objects.

pub mod adoption;
pub mod gate;
pub mod hop;
pub mod job;
pub mod member;
pub mod next;
pub mod outcome;
pub mod restore;
pub mod rolling;
pub mod strategy;
pub mod version;
pub mod window;
