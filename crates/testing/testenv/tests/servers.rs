//! Servers: power, network, and that nothing is left of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in a test they are the message")]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Trial};
use testenv::servers::{Rack, left_out, no_hardware, racks, virtual_machines_left_out};

const ISOLATED: &str = "O2IMS_OWN_NAMESPACE";
const DEADLINE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let mut trials = vec![
        Trial::test("a_server_has_power_and_a_network", || {
            tokio::runtime::Runtime::new().unwrap().block_on(power_and_network());
            Ok(())
        }),
        Trial::test("a_killed_starter_leaves_nothing", || {
            killed_starter();
            Ok(())
        }),
    ];
    if let Some(why) = left_out().unwrap() {
        eprintln!("LEFT OUT: what needs real servers ({why})");
        trials.clear();
    }
    if let Some(why) = virtual_machines_left_out().unwrap() {
        eprintln!("LEFT OUT: what needs a virtual machine ({why})");
    } else {
        let trial = Trial::test("a_virtual_machine_has_power_and_a_disk", || {
            tokio::runtime::Runtime::new().unwrap().block_on(virtual_machine());
            Ok(())
        });
        trials.push(trial.with_ignored_flag(true));
    }
    // One at a time, because they share a network.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    libtest_mimic::run(&arguments, trials).exit_code()
}

async fn power_and_network() {
    let rack = Rack::start(false, |line| eprintln!("{line}")).await.unwrap();
    let [one, two] = [("one", 11), ("two", 12)].map(|(name, number)| rack.server(name, number).unwrap());
    one.power_on().await.unwrap();
    two.power_on().await.unwrap();
    assert_eq!(one.run(&["hostname"]).await.unwrap().trim(), "one");
    let ping = ["ping", "-c1", "-W2", "10.77.0.12"];
    one.run(&ping).await.unwrap();
    one.run(&["ctr", "--namespace", "k8s.io", "images", "check"]).await.unwrap();
    // No route beyond the LAN.
    assert!(one.run(&["ping", "-c1", "-W1", "192.0.2.1"]).await.is_err());

    two.run(&["touch", "/root/kept", "/run/lost"]).await.unwrap();
    two.power_off().await.unwrap();
    assert!(!two.is_on().await);
    assert!(one.run(&ping).await.is_err(), "a server that is off answers");
    assert!(two.run(&["true"]).await.is_err());
    two.power_on().await.unwrap();
    two.run(&["test", "-e", "/root/kept"]).await.unwrap();
    assert!(two.run(&["test", "-e", "/run/lost"]).await.is_err());

    let groups = groups_of(rack.name());
    assert!(!groups.is_empty());
    for server in [one, two] {
        server.remove().await.unwrap();
    }
    rack.stop().await.unwrap();
    assert!(groups.iter().all(|group| !group.exists()), "control groups are left");
}

async fn virtual_machine() {
    let by = no_hardware()
        .map_or_else(|| "on the processor (KVM)".to_owned(), |why| format!("by SOFTWARE EMULATION: {why}"));
    eprintln!("the virtual machine runs {by}");
    let rack = Rack::start(false, |line| eprintln!("{line}")).await.unwrap();
    let begun = Instant::now();
    let say = |what: &str| eprintln!("{:5.1} s: {what}", begun.elapsed().as_secs_f32());
    let machine = rack.virtual_machine("machine", 21).await.unwrap();
    say("the disk is made");
    assert!(machine.run(&["true"]).await.is_err());
    machine.power_on().await.unwrap();
    say("sshd answers");
    assert_eq!(machine.run(&["hostname"]).await.unwrap().trim(), "machine");
    assert_eq!(machine.run(&["echo", "a  'b' $c"]).await.unwrap().trim(), "a  'b' $c");
    assert_eq!(machine.run(&["stat", "-fc", "%T", "/sys/fs/cgroup"]).await.unwrap().trim(), "cgroup2fs");
    machine.run(&["ping", "-c1", "-W5", "10.77.0.1"]).await.unwrap();

    machine.run(&["bash", "-c", "echo kept >/root/kept; echo lost >/run/lost"]).await.unwrap();
    machine.reboot().await.unwrap();
    say("it is back after a reboot");
    machine.run(&["bash", "-c", "test -s /root/kept && test ! -e /run/lost"]).await.unwrap();

    machine.run(&["bash", "-c", "echo synced >/root/synced; sync; echo lost >/root/lost"]).await.unwrap();
    machine.power_off().await.unwrap();
    assert!(machine.run(&["true"]).await.is_err());
    machine.power_on().await.unwrap();
    say("it is back after a power cut");
    machine.run(&["bash", "-c", "test -s /root/synced"]).await.unwrap();
    machine.run(&["bash", "-c", "test ! -s /root/lost"]).await.expect("a write that was in memory only is there");

    machine.remove().await.unwrap();
    rack.stop().await.unwrap();
}

/// The starter is killed, and in a second run the script around it: the kernel and the sweeper remove everything.
fn killed_starter() {
    for victim in ["the starter", "the script around it"] {
        let mut script = start();
        let rack = name_of_rack(&mut script);
        let folder = racks().unwrap().join(&rack);
        assert!(folder.is_dir() && !groups_of(&rack).is_empty());
        let id = script.id().to_string();
        let target = if victim == "the starter" { starter_below(&id) } else { id };
        assert!(Command::new("kill").args(["-KILL", &target]).status().unwrap().success());
        script.wait().unwrap();
        let deadline = Instant::now() + DEADLINE;
        while folder.exists() || !groups_of(&rack).is_empty() {
            assert!(
                Instant::now() < deadline,
                "{victim} was killed: {} or {:?} is left",
                folder.display(),
                groups_of(&rack)
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn start() -> Child {
    Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../scripts/in-own-namespace"))
        .args([env!("CARGO_BIN_EXE_testenv"), "servers", "1"])
        .env_remove(ISOLATED)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn name_of_rack(script: &mut Child) -> String {
    let lines = BufReader::new(script.stdout.take().unwrap()).lines().map_while(Result::ok);
    let up = lines.into_iter().find_map(|line| line.strip_suffix(" is up; Ctrl-C stops it.").map(ToOwned::to_owned));
    up.expect("the servers do not start")
}

/// The process `testenv` among the descendants.
fn starter_below(ancestor: &str) -> String {
    let mut parents = vec![ancestor.to_owned()];
    while let Some(parent) = parents.pop() {
        let output = Command::new("pgrep").args(["-P", &parent]).output().unwrap();
        for child in String::from_utf8_lossy(&output.stdout).split_whitespace() {
            let program = std::fs::read_link(format!("/proc/{child}/exe")).unwrap_or_default();
            if program == Path::new(env!("CARGO_BIN_EXE_testenv")) {
                return child.to_owned();
            }
            parents.push(child.to_owned());
        }
    }
    panic!("the starter does not run");
}

fn groups_of(rack: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = std::fs::read_dir(root).unwrap().flatten().map(|entry| entry.path());
    hierarchies.chain([root.to_path_buf()]).map(|root| root.join(rack)).filter(|group| group.is_dir()).collect()
}
