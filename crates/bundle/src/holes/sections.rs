//! The sections of a program, by which it is known what it is: little-endian ELF with 64 bits, as all programs here are.

/// Whether it is a program that Go has made.
pub(super) fn is_go(program: &[u8]) -> bool {
    has(program, ".go.buildinfo")
}

/// Whether the program names its functions. The linker's `-s` leaves the names out.
pub(super) fn has_symbols(program: &[u8]) -> bool {
    has(program, ".symtab")
}

fn has(program: &[u8], section: &str) -> bool {
    names(program).is_some_and(|names| names.split(|byte| *byte == 0).any(|name| name == section.as_bytes()))
}

/// The names of the sections, each with a zero at its end.
fn names(program: &[u8]) -> Option<&[u8]> {
    program.strip_prefix(b"\x7fELF\x02\x01")?;
    let number = |at: usize, length: usize| {
        let bytes = program.get(at..at.checked_add(length)?)?;
        bytes.iter().rev().try_fold(0_usize, |sum, byte| Some(sum.checked_mul(256)? + usize::from(*byte)))
    };
    // Where the headers of the sections are, the size of each, and which of them is that of the names.
    let (headers, size, index) = (number(0x28, 8)?, number(0x3a, 2)?, number(0x3e, 2)?);
    let header = headers.checked_add(size * index)?;
    let (begin, length) = (number(header.checked_add(0x18)?, 8)?, number(header.checked_add(0x20)?, 8)?);
    program.get(begin..begin.checked_add(length)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read of a program: the header, the names, and the header of the section with the names.
    fn program(names: &[u8]) -> Vec<u8> {
        let mut program = vec![0; 0x40];
        program[..6].copy_from_slice(b"\x7fELF\x02\x01");
        program[0x28] = 0x40;
        program[0x3a] = 0x40;
        program[0x3e] = 1;
        program.resize(0xc0, 0);
        // The second header.
        program[0x80 + 0x18] = 0xc0;
        program[0x80 + 0x20] = names.len().try_into().unwrap();
        program.extend(names);
        program
    }

    #[test]
    fn sections_tell_what_a_program_is() {
        for (names, go, symbols) in [
            (b"\0.text\0.go.buildinfo\0.symtab\0".as_slice(), true, true),
            (b"\0.text\0.go.buildinfo\0.shstrtab\0", true, false),
            (b"\0.text\0.symtab\0", false, true),
        ] {
            let program = program(names);
            assert_eq!((is_go(&program), has_symbols(&program)), (go, symbols), "{names:?}");
        }
        let myself = std::fs::read("/proc/self/exe").unwrap();
        assert!(!is_go(&myself) && has_symbols(&myself));
    }

    #[test]
    fn what_is_no_program_has_no_sections() {
        let whole = program(b"\0.go.buildinfo\0");
        for length in 0..whole.len() {
            assert!(!is_go(&whole[..length]), "{length}");
        }
        assert!(!is_go(b"#!/bin/sh\n# .go.buildinfo"));
        let mut wild = whole;
        wild[0x28..0x30].fill(0xff);
        assert!(!is_go(&wild));
    }
}
