//! Servers for tests and the sandbox, made of Linux namespaces. Each has a root file system of its own, systemd as
//! process 1, containerd, the kubelet, kubeadm and BYOH's agent, and is connected to the rack's LAN only. Everything
//! that runs on a server is real; the kernel, memory and processors are shared with the machine.
//!
//! Distribution, programs and images are made once and kept in the cache; a server has only a folder of its own above
//! them.

mod cgroups;
mod debian;
mod distribution;
mod host_files;
mod image_store;
mod images;
mod kernel;
mod lan;
mod layer_files;
mod layers;
mod login;
mod programs;
mod rack;
mod rack_state;
mod runtime;
mod script;
mod server;
mod support;
mod virtual_machine;

pub(crate) use programs::PROGRAMS;
pub(crate) use runtime::recipes as runtime_recipes;

pub use distribution::DistributionUnavailable;
pub use host_files::{build, build_before, build_other_system, fetch, host_files};
pub use kernel::build_kernel;
pub use lan::GATEWAY;
pub use login::Login;
pub use rack::{Rack, racks};
pub use runtime::runtime;
pub use server::{AgentSetup, Server};
pub use support::{left_out, unsupported_reason};
pub use virtual_machine::{VirtualMachine, no_hardware, no_virtual_machines, virtual_machines_left_out};
