//! Upgrades in place. Cluster API would replace machines, for which a site has no spare servers. So each host is upgraded by kubeadm first, and
//! then the objects are changed to what runs: Cluster API finds nothing to do.
//!
//! [`hop`] says which version may follow another; [`next`] has the order of the hosts and what each waits for; [`job`] is what a host runs;
//! [`window`] says when a host may begin; [`restore`] is the way back; [`adoption`] changes Cluster API's objects.

pub mod adoption;
pub mod hop;
pub mod job;
pub mod member;
pub mod next;
pub mod outcome;
pub mod restore;
pub mod window;
