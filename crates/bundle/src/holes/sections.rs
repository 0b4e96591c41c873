//! The sections of a program, by which it is known what it is.

use object::{Object as _, ObjectSection as _};

/// Whether it is a program that Go has made.
pub(super) fn is_go(program: &[u8]) -> bool {
    has(program, ".go.buildinfo")
}

/// Whether the program names its functions. The linker's `-s` leaves the names out.
pub(super) fn has_symbols(program: &[u8]) -> bool {
    has(program, ".symtab")
}

fn has(program: &[u8], section: &str) -> bool {
    // What cannot be parsed is no program.
    object::File::parse(program).is_ok_and(|file| file.sections().any(|one| one.name() == Ok(section)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_tell_what_a_program_is() {
        let myself = std::fs::read("/proc/self/exe").unwrap();
        assert!(!is_go(&myself) && has_symbols(&myself));
        assert!(!is_go(b"#!/bin/sh\n# .go.buildinfo"));
    }
}
