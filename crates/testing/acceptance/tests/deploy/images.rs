//! The images, as far as they can be checked without a container engine: their programs, and the Dockerfiles.

use std::path::Path;

use anyhow::{Context as _, ensure};

use crate::Test;
use crate::run::{Outcome, must, top};

/// The tests.
pub const TESTS: &[Test] = &[
    ("both_dockerfiles_have_one_shape", false, both_dockerfiles_have_one_shape),
    // Builds the release programs, which takes minutes if they are not there.
    ("release_programs_are_static_small_and_say_what_is_in_them", true, release_programs),
];

/// Largest size of an image's program, in bytes.
const LIMIT: u64 = 20_000_000;

fn both_dockerfiles_have_one_shape() -> Outcome {
    let read = |name: &str| std::fs::read_to_string(top().join(name)).with_context(|| format!("reading {name}"));
    // Name and description differ between the operators.
    let shape = |text: &str, name: &str| {
        let lines = text.lines().filter(|line| !line.contains("image.description=")).map(str::to_lowercase);
        lines.map(|line| line.replace(name, "NAME")).collect::<Vec<_>>()
    };
    let (o2ims, focom) = (read("Dockerfile.o2ims")?, read("Dockerfile.focom")?);
    let (first, second) = (shape(&o2ims, "o2ims"), shape(&focom, "focom"));
    ensure!(first == second, "{first:#?}\n{second:#?}");
    for text in [&o2ims, &focom] {
        for wanted in ["FROM scratch", "USER 65532:65532", "org.opencontainers.image.licenses=\"Apache-2.0\""] {
            ensure!(text.contains(wanted), "{wanted} is missing");
        }
    }
    Ok(())
}

fn release_programs() -> Outcome {
    let folder = top().join("target/release-programs");
    must(Path::new("scripts/build-release"), [&folder], "")?;
    for operator in ["o2ims-operator", "focom-operator"] {
        let program = folder.join(operator);
        let bytes = std::fs::read(&program)?;
        ensure!((bytes.len() as u64) < LIMIT, "{operator} has {} bytes", bytes.len());
        ensure!(!wants_interpreter(&bytes)?, "{operator} is not static");
        let lists = auditable_info::audit_info_from_slice(&bytes, 8 * 1024 * 1024)
            .with_context(|| format!("the dependencies in {operator}"))?;
        for wanted in ["kube", "rustls", "ring", operator] {
            ensure!(lists.packages.iter().any(|package| package.name == wanted), "{operator} does not name {wanted}");
        }
        let version = must(&program, ["--version"], "")?.out;
        ensure!(version.starts_with(operator), "{version}");
        for folder in [".cargo/registry", top().canonicalize()?.to_str().context("not UTF-8")?] {
            let told = bytes.windows(folder.len()).any(|part| part == folder.as_bytes());
            ensure!(!told, "{operator} names the builder's folder {folder}");
        }
    }
    Ok(())
}

/// Whether an ELF program needs a dynamic loader: it then has a program header of type PT_INTERP.
fn wants_interpreter(elf: &[u8]) -> anyhow::Result<bool> {
    ensure!(elf.starts_with(b"\x7fELF\x02\x01"), "not a 64-bit little-endian ELF program");
    let number = |at: usize, size: usize| -> anyhow::Result<usize> {
        let bytes = elf.get(at..at + size).context("cut off")?;
        Ok(bytes.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    };
    let (first, size, count) = (number(0x20, 8)?, number(0x36, 2)?, number(0x38, 2)?);
    for header in 0..count {
        if number(first + header * size, 4)? == 3 {
            return Ok(true);
        }
    }
    Ok(false)
}
