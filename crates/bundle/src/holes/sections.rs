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

    /// A program of one section with this name, which has the names of the sections.
    fn program(name: &str) -> Vec<u8> {
        let names = format!("\0{name}\0");
        let mut program = vec![0; 0xc0];
        program[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        // An executable for x86-64, two headers of sections from 0x40 on, of which the second one is that of the names.
        for (at, value) in
            [(0x10, 2), (0x12, 0x3e), (0x14, 1), (0x28, 0x40), (0x34, 0x40), (0x3a, 0x40), (0x3c, 2), (0x3e, 1)]
        {
            program[at] = value;
        }
        // The second header: name, type, place and length of the content.
        for (at, value) in [(0x00, 1), (0x04, 3), (0x18, 0xc0), (0x20, names.len().try_into().unwrap())] {
            program[0x80 + at] = value;
        }
        program.extend(names.as_bytes());
        program
    }

    #[test]
    fn sections_tell_what_a_program_is() {
        for (name, go, symbols) in
            [(".go.buildinfo", true, false), (".symtab", false, true), (".shstrtab", false, false)]
        {
            let program = program(name);
            assert_eq!((is_go(&program), has_symbols(&program)), (go, symbols), "{name}");
        }
        let myself = std::fs::read("/proc/self/exe").unwrap();
        assert!(!is_go(&myself) && has_symbols(&myself));
    }

    #[test]
    fn what_is_no_program_has_no_sections() {
        let whole = program(".go.buildinfo");
        for length in 0..whole.len() - 1 {
            assert!(!is_go(&whole[..length]), "{length}");
        }
        assert!(!is_go(b"#!/bin/sh\n# .go.buildinfo"));
        let mut wild = whole;
        wild[0x28..0x30].fill(0xff);
        assert!(!is_go(&wild));
    }
}
