//! Parts of the scripts that run on hosts, each with functions in place of the programs that it calls.

use std::path::Path;
use std::process::Command;

use o2ims_operator::provisioner::byoh::installer;

/// A script of jobs, up to this line if there is one.
fn script(name: &str, end: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/provisioner/byoh/upgrade/scripts");
    up_to(&std::fs::read_to_string(folder.join(name)).unwrap(), end)
}

/// The program of the unit, without what it does when it is started.
fn unit() -> String {
    let [program, _] = installer::unit();
    up_to(&program, "umask 077")
}

fn up_to(script: &str, line: &str) -> String {
    let end = if line.is_empty() { script.len() } else { script.find(&format!("\n{line}\n")).unwrap() };
    script[..end].to_owned()
}

/// What bash prints that has read these scripts, and then runs a text. `$folder` is an empty one.
fn bash(scripts: &[String], text: &str) -> String {
    let script = format!("folder=$(mktemp -d)\ntrap 'rm -rf \"$folder\"' EXIT\n{}\n{text}", scripts.join("\n"));
    let output = Command::new("bash").args(["-c", &script]).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    printed
}

/// The unit reads the annotations of its host in one line, divided by ";".
#[test]
fn what_is_told_of_a_support_bundle_is_one_field() {
    let told = bash(
        &[unit()],
        r#"
        support=$folder
        df() { printf 'Avail\n102400\n'; }
        support_bundle one
        cat "$support/status"
        is_active() { return 1; }
        annotate() { :; }
        tell_support one Running
        support_status '' ''
        cat "$support/status"
        "#,
    );
    let expected = concat!(
        r#"{"name":"one","state":"Failed","message":"only 100 MiB are free in /var/lib, and a support bundle needs 256"}"#,
        r#"{"name":"one","state":"Failed","message":"it was interrupted: give another word to make one"}"#
    );
    assert_eq!(told, expected);
    assert!(!told.contains(';'));
}

/// Of the earlier snapshots the last one in time is kept, not the one of the last version.
#[test]
fn the_newest_snapshot_is_kept() {
    let left = bash(
        &[script("snapshot.sh", "")],
        r#"
        snapshots=$folder/o2ims-snapshots own=$folder drop_in=/none wrapper=/none links=/none
        mkdir -p "$snapshots"/{v1.33.1-20260301T000000Z,v1.34.1-20260101T000000Z,v1.34.1-20260201T000000Z,asked-20250101T000000Z}
        patiently() { :; }
        running() { echo etcd; }
        etcd_setting() { echo "$folder"; }
        timeout() { : >"$folder/o2ims-snapshot.db"; }
        tar() { : >"$3"; }
        sync() { :; }
        save_snapshot v1.34.1-20260401T000000Z '' 'v*'
        ls "$snapshots"
        "#,
    );
    assert_eq!(left, "asked-20250101T000000Z\nv1.33.1-20260301T000000Z\nv1.34.1-20260401T000000Z\n");
}

/// A node that a job has cordoned takes pods again when the upgrade fails: also where only an earlier try drained it, and where the API answers later.
#[test]
fn a_failed_upgrade_leaves_no_node_cordoned() {
    let failed = |role: &str, answers_after: u32| {
        let text = r#"
            id=upgrade-2 drain= host=target-2
            end() { echo "$1: $2"; }
            patiently() { "$@" || "$@"; }
            cluster() {
                echo >>"$folder/calls"
                [ "$(wc -l <"$folder/calls")" -gt "$answers_after" ] || return
                case $1 in
                get) echo upgrade-1 ;;
                patch) echo "$*" ;;
                esac
            }
            fail 'kubeadm upgrade node: no'
        "#;
        let told =
            bash(&[script("upgrade.sh", "steps=5")], &format!("role={role} answers_after={answers_after}\n{text}"));
        messages::record(&told);
        told
    };
    let uncordoned = r#"patch node target-2 --type merge --patch {"metadata":{"annotations":{"o2ims.provisioning.oran.org/cordoned":null}},"spec":{"unschedulable":null}}"#;
    let told = "Failed: kubeadm upgrade node: no";
    assert_eq!(failed("worker", 0), format!("{uncordoned}\n{told}\n"));
    assert_eq!(failed("worker", 1), format!("{uncordoned}\n{told}\n"));
    let cordoned = format!("{told}, and the node may still be cordoned: kubectl uncordon target-2\n");
    assert_eq!(failed("worker", 9), cordoned);
    assert_eq!(failed("control-plane", 9), format!("{told}\n"));
}

#[test]
fn a_job_that_is_given_up_tells_how_its_node_takes_pods_again() {
    let told = bash(
        &[unit()],
        r#"
        jobs=$folder host=target-2
        is_running() { return 1; }
        mkdir "$jobs/one" && echo 20 >"$jobs/one/starts"
        run one
        cat "$jobs/status"
        "#,
    );
    let text = "the job was started 20 times and ended without a result each time: journalctl -u o2ims-job. If it has cordoned the node: kubectl uncordon target-2";
    assert_eq!(told, format!(r#"{{"id":"one","state":"Failed","message":"{text}"}}"#));
}

/// A power cut between the unpacking of packages and the end of `apt-get`: the programs are there, so nothing is installed, but what is pending is configured,
/// and the packages are held as before.
#[test]
fn packages_that_a_power_cut_has_left_are_configured_and_held() {
    let did = |is_fetched: bool, is_unpacked: bool| {
        let text = r#"
            own=$folder fetched=$folder/fetched files=/none
            mkdir "$fetched"
            : >"$fetched/kubelet_1.deb"
            [ -z "$is_fetched" ] || : >"$fetched/complete"
            echo 'kubectl' >"$own/held"
            find_new() { if [ -n "$is_unpacked" ]; then echo "/usr/bin/$1"; else echo "$fetched/root/usr/bin/$1"; fi; }
            sync() { :; }
            apt-get() { :; }
            apt-mark() { echo "apt-mark $*" >&3; }
            dpkg() { echo "dpkg $*" >&3; }
            apt_install() { echo "apt_install ${*##*/}" >&3; }
            fail() { echo "$1"; exit; }
            exec 3>&1
            install_fetched kubelet
        "#;
        let flag = |is_set: bool| if is_set { "yes" } else { "" };
        let flags = format!("is_fetched={} is_unpacked={}", flag(is_fetched), flag(is_unpacked));
        bash(&[script("packages.sh", "")], &format!("{flags}\n{text}"))
    };
    let held = "apt-mark hold kubelet kubeadm kubectl\n";
    assert_eq!(did(true, true), format!("dpkg --force-confdef --force-confold --configure --pending\n{held}"));
    assert_eq!(did(true, false), format!("apt_install --reinstall kubelet_1.deb\n{held}"));
    assert_eq!(did(false, true), "");
}
