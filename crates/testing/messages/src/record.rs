//! The messages that the tests of a program make.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::process::Command;
use std::sync::Mutex;

/// Names the file to which tests write the messages that they make.
const VARIABLE: &str = "RECORD_MESSAGES";

/// The messages that are in the file already: tests make the same ones again and again.
static RECORDED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Notes a message that a test has made with the operator's code.
pub fn record(message: &str) {
    let Some(path) = std::env::var_os(VARIABLE) else { return };
    let mut recorded = RECORDED.lock().unwrap();
    if recorded.insert(message.to_owned()) {
        let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        writeln!(file, "{}", message.replace('\n', " ")).unwrap();
    }
}

/// The messages that the tests of this program make: it runs once more, without the tests whose path contains one of `without`.
pub fn made(without: &[&str]) -> BTreeSet<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("messages");
    let mut tests = Command::new(std::env::current_exe().unwrap());
    tests.env(VARIABLE, &path);
    for name in without {
        tests.args(["--skip", name]);
    }
    let output = tests.output().unwrap();
    assert!(output.status.success(), "tests fail: {}", String::from_utf8_lossy(&output.stdout));
    fs::read_to_string(&path).unwrap().lines().map(ToOwned::to_owned).collect()
}
