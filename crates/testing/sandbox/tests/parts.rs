//! A sandbox survives the end of any of its processes, reports it, and keeps their logs. Hosts are simulated.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in a test they are the message")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kube::api::DeleteParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use o2ims_types::ProvisioningRequest;
use rustix::process::{Pid, Signal, kill_process};
use sandbox::waiting::wait;
use tokio::sync::Mutex;

/// One test at a time, because a network has room for one sandbox.
static TURN: Mutex<()> = Mutex::const_new(());
/// How long the sandbox may take until it is up.
const START: Duration = Duration::from_secs(300);
/// How long the sandbox may take to notice the end of a process and to start it again.
const RESTART: Duration = Duration::from_secs(60);
const OPERATORS: [&str; 2] = ["o2ims-operator", "focom-operator"];
/// The processes that the operator and each other depend on.
const CONTROL_PLANE: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "capi-core"];

#[tokio::test]
async fn a_part_that_ends_is_started_again() {
    let _turn = TURN.lock().await;
    let mut sandbox = Sandbox::start_until(&[], "The sandbox is up.");
    for name in OPERATORS {
        assert_eq!(sandbox.state_of(name), "running", "{}", sandbox.parts());
        sandbox.kill(name);
        sandbox.until(name, |state| state.starts_with("running, restarted once, last: signal 9, "));
    }
    // The second restart comes after a pause, in which the process is reported as down.
    sandbox.kill("o2ims-operator");
    sandbox.until("o2ims-operator", |state| state.starts_with("down, restarted once: signal 9, "));
    sandbox.until("o2ims-operator", |state| state.starts_with("running, restarted 2 times, last: signal 9, "));
    let part = sandbox.state_of("o2ims-operator");
    let (_, log) = part.split_once("; log ").expect("it names its log");
    // A running process may not have logged anything yet.
    let deadline = Instant::now() + RESTART;
    while fs::read_to_string(log).unwrap().matches("admin endpoints listen").count() != 3 {
        assert!(Instant::now() < deadline, "the log is not appended to:\n{}", fs::read_to_string(log).unwrap());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    // The processes that an operator depends on may end too, all at the same time.
    for name in CONTROL_PLANE {
        sandbox.kill(name);
    }
    for name in ["etcd", "kube-apiserver"] {
        sandbox.until(name, |state| state.starts_with("running, restarted"));
    }
    // The restarted processes work: they delete both clusters.
    let client = sandbox.client().await;
    let requests: Api<ProvisioningRequest> = Api::namespaced(client, "default");
    let deadline = Instant::now() + START;
    while requests.delete("core-cluster-request", &DeleteParams::default()).await.is_err() {
        assert!(Instant::now() < deadline, "the API server does not come back:\n{}", sandbox.parts());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let gone = |request: Option<&ProvisioningRequest>| request.is_none();
    if let Err(error) = wait(requests, "core-cluster-request", "the request to be gone", START, gone).await {
        panic!("{error:#}\n{}", sandbox.parts());
    }

    sandbox.stop();
    let kept = fs::read_to_string(sandbox.folder.join("failed/o2ims-operator.log")).expect("its logs are kept");
    assert!(kept.matches("admin endpoints listen").count() >= 3);
    for log in ["failed/etcd/log", "failed/api-server/log", "failed/log"] {
        assert!(sandbox.folder.join(log).is_file(), "{log} is not kept");
    }
    assert!(!sandbox.folder.join("parts").exists(), "nothing says that a part runs");
}

#[tokio::test]
async fn a_sandbox_that_only_goes_there_and_back_fails_with_its_part() {
    let _turn = TURN.lock().await;
    let mut sandbox = Sandbox::start_until(&["--once"], "hosts are registered");
    sandbox.kill("o2ims-operator");
    assert!(!sandbox.process.wait().unwrap().success());
    let said = sandbox.said();
    assert!(said.contains("FAILED: ") && said.contains("o2ims-operator ended by itself: signal 9"), "{said}");
}

/// A sandbox in the network namespace of the test.
struct Sandbox {
    process: Child,
    folder: PathBuf,
}

impl Sandbox {
    fn start_until(arguments: &[&str], words: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("o2ims-sandbox-{}-{}", std::process::id(), arguments.len()));
        fs::create_dir_all(&folder).unwrap();
        let log = fs::File::create(folder.join("log")).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_sandbox"))
            .args(["run", "--state-dir"])
            .arg(&folder)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut sandbox = Self { process, folder };
        let deadline = Instant::now() + START;
        while !sandbox.said().contains(words) {
            let in_time = Instant::now() < deadline && sandbox.process.try_wait().unwrap().is_none();
            assert!(in_time, "{words:?} was not said:\n{}", sandbox.said());
            std::thread::sleep(Duration::from_millis(50));
        }
        sandbox
    }

    fn said(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    fn parts(&self) -> String {
        fs::read_to_string(self.folder.join("parts")).unwrap_or_default()
    }

    /// The state of a process in the state folder.
    fn state_of(&self, name: &str) -> String {
        let parts = self.parts();
        let part = parts.lines().find_map(|line| line.split_once("  ").filter(|(part, _)| *part == name));
        part.map(|(_, state)| state.trim_start().to_owned()).unwrap_or_default()
    }

    fn until(&self, name: &str, done: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + RESTART;
        while !done(&self.state_of(name)) {
            assert!(Instant::now() < deadline, "{name} does not come that far:\n{}", self.parts());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Kills a process, as the kernel does when memory is short.
    fn kill(&self, name: &str) {
        let own = i32::try_from(self.process.id()).unwrap();
        let ids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let id = ids.into_iter().find(|id: &i32| parent(*id) == Some(own) && program(*id).as_deref() == Some(name));
        let id = id.and_then(Pid::from_raw).unwrap_or_else(|| panic!("{name} does not run"));
        kill_process(id, Signal::KILL).unwrap();
    }

    async fn client(&self) -> Client {
        let kubeconfig = Kubeconfig::read_from(self.folder.join("admin.kubeconfig")).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        Client::try_from(config).unwrap()
    }

    fn stop(&mut self) {
        kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
        assert!(self.process.wait().unwrap().success(), "{}", self.said());
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // The sandbox stops its processes in order. An error means that it has ended already.
        let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn program(id: i32) -> Option<String> {
    let path = fs::read_link(format!("/proc/{id}/exe")).ok()?;
    Some(Path::new(&path).file_name()?.to_string_lossy().into_owned())
}

/// The parent of a process: in `stat`, the number after the state, which follows the name in parentheses.
fn parent(id: i32) -> Option<i32> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    text.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}
