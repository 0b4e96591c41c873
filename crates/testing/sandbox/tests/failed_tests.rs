//! `scripts/failed-tests`, the last step of `./mgmt.sh test`, names the tests that have failed in a real run of cargo.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in a test they are the message")]

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

const PACKAGE: &str = "[package]\nname = \"tried\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n";

#[test]
fn every_binary_and_test_that_failed_is_named() {
    let said = failed_tests(&[
        ("aborts", "#[test] fn ends() { std::process::abort() }"),
        (
            "fails",
            r#"
            #[test] fn one() { panic!("failures:\n    not a test") }
            #[test] fn two() { panic!("twice") }
            #[test] fn works() {}
            "#,
        ),
        ("works", "#[test] fn works() {}"),
    ]);
    let wanted = "FAILED in 2 test binaries:
  --test aborts
      it names no test; its output is above
  --test fails
      one
      two
";
    assert_eq!(said, wanted);
}

#[test]
fn nothing_is_said_where_nothing_failed() {
    assert_eq!(failed_tests(&[("works", "#[test] fn works() {}")]), "");
}

/// The output of the script for a package with these test binaries.
fn failed_tests(binaries: &[(&str, &str)]) -> String {
    let names: Vec<_> = binaries.iter().map(|(name, _)| *name).collect();
    let folder = Folder::new(&names.join("-"));
    fs::create_dir_all(folder.0.join("tests")).unwrap();
    fs::create_dir_all(folder.0.join("src")).unwrap();
    fs::write(folder.0.join("Cargo.toml"), PACKAGE).unwrap();
    fs::write(folder.0.join("src/lib.rs"), "").unwrap();
    for (name, source) in binaries {
        fs::write(folder.0.join(format!("tests/{name}.rs")), source).unwrap();
    }
    // Both streams in one, as in `./mgmt.sh test`.
    let run = Command::new("sh")
        .args(["-c", r#""$0" "$@" 2>&1"#, env!("CARGO")])
        .args(["test", "--offline", "--no-fail-fast", "--color=always", "--tests"])
        .current_dir(&folder.0)
        .env("CARGO_TARGET_DIR", folder.0.join("target"))
        .env("CARGO_INCREMENTAL", "0")
        // Its lines are indented as those of the list of tests.
        .env("RUST_BACKTRACE", "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let mut script = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../scripts/failed-tests"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    script.stdin.take().unwrap().write_all(&run.stdout).unwrap();
    let said = script.wait_with_output().unwrap();
    assert!(said.status.success());
    String::from_utf8(said.stdout).unwrap()
}

/// A new folder; removed on drop.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("o2ims-failed-tests-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
