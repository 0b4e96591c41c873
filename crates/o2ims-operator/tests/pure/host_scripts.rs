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
