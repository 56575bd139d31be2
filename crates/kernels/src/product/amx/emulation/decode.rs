//! From bytes to the instructions that the kernels use.

/// A register by its number in encodings: rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8 to r15.
pub(super) type Register = usize;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Instruction {
    /// `ldtilecfg`
    Configure { at: Memory },
    /// `tilerelease`
    Release,
    /// `tileloadd`: the index is the distance of rows.
    Load { tile: usize, at: Memory },
    /// `tilestored`: likewise.
    Store { tile: usize, at: Memory },
    /// `tdpbf16ps`: `sum += a * b`
    Dot { sum: usize, a: usize, b: usize },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Memory {
    pub base: Register,
    /// A register and what it is multiplied with.
    pub index: Option<(Register, u64)>,
    pub displacement: i64,
}

/// The instruction whose bytes `byte` gives, and their number; `None` if it is another. No byte is read behind it.
pub(super) fn decode(byte: impl Fn(usize) -> u8) -> Option<(Instruction, usize)> {
    // VEX of three bytes, in the opcode map 0F38. The inverted bits R, X and B extend register numbers.
    if byte(0) != 0xc4 || byte(1) & 0x1f != 2 {
        return None;
    }
    let extension = |bit: u8| usize::from(!byte(1) >> bit & 1) * 8;
    let (r, x, b) = (extension(7), extension(6), extension(5));
    // W = 0, L = 0; the fourth register is inverted too.
    let (prefix, third) = (byte(2) & 3, usize::from(!byte(2) >> 3 & 15));
    if byte(2) & 0x84 != 0 {
        return None;
    }
    let (opcode, modrm) = (byte(3), byte(4));
    let (mode, register, low) = (modrm >> 6, usize::from(modrm >> 3 & 7) + r, usize::from(modrm & 7));
    let in_memory = mode != 3;
    let memory = || memory(&byte, mode, low, x, b);
    match (opcode, prefix, in_memory) {
        (0x49, 0, true) if register == 0 => memory().map(|(at, end)| (Instruction::Configure { at }, end)),
        (0x49, 0, false) if modrm == 0xc0 => Some((Instruction::Release, 5)),
        // The index is needed.
        (0x4b, 3, true) if low == 4 => memory().map(|(at, end)| (Instruction::Load { tile: register, at }, end)),
        (0x4b, 2, true) if low == 4 => memory().map(|(at, end)| (Instruction::Store { tile: register, at }, end)),
        (0x5c, 2, false) => Some((Instruction::Dot { sum: register, a: low + b, b: third }, 5)),
        _ => None,
    }
}

/// The operand in memory and where the instruction ends. One without base, or relative to the instruction, is not known.
fn memory(byte: &impl Fn(usize) -> u8, mode: u8, low: usize, x: usize, b: usize) -> Option<(Memory, usize)> {
    let (base, index, at) = if low == 4 {
        let sib = byte(5);
        let (scale, index, base) = (sib >> 6, usize::from(sib >> 3 & 7) + x, usize::from(sib & 7));
        (base, (index != 4).then_some((index, 1 << scale)), 6)
    } else {
        (low, None, 5)
    };
    let (displacement, size) = match mode {
        0 if base == 5 => return None,
        0 => (0, 0),
        1 => (i64::from(byte(at).cast_signed()), 1),
        _ => (i64::from(i32::from_le_bytes([byte(at), byte(at + 1), byte(at + 2), byte(at + 3)])), 4),
    };
    Some((Memory { base: base + b, index, displacement }, at + size))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(bytes: &[u8]) -> Option<Instruction> {
        let (instruction, size) = decode(|i| bytes[i])?;
        assert_eq!(size, bytes.len());
        Some(instruction)
    }

    fn memory(base: Register, index: Option<(Register, u64)>, displacement: i64) -> Memory {
        Memory { base, index, displacement }
    }

    /// Bytes as GNU as writes them.
    #[test]
    fn the_kernels_instructions_are_read() {
        // ldtilecfg [rax]; [r15 + 8]; [rsp + 0x1000]
        assert_eq!(decoded(&[0xc4, 0xe2, 0x78, 0x49, 0x00]), Some(Instruction::Configure { at: memory(0, None, 0) }));
        assert_eq!(
            decoded(&[0xc4, 0xc2, 0x78, 0x49, 0x47, 0x08]),
            Some(Instruction::Configure { at: memory(15, None, 8) })
        );
        assert_eq!(
            decoded(&[0xc4, 0xe2, 0x78, 0x49, 0x84, 0x24, 0x00, 0x10, 0x00, 0x00]),
            Some(Instruction::Configure { at: memory(4, None, 0x1000) })
        );
        // tilerelease
        assert_eq!(decoded(&[0xc4, 0xe2, 0x78, 0x49, 0xc0]), Some(Instruction::Release));
        // tileloadd tmm4, [rdi + rsi]; tmm7, [r9 + r10 * 8 - 64]
        assert_eq!(
            decoded(&[0xc4, 0xe2, 0x7b, 0x4b, 0x24, 0x37]),
            Some(Instruction::Load { tile: 4, at: memory(7, Some((6, 1)), 0) })
        );
        assert_eq!(
            decoded(&[0xc4, 0x82, 0x7b, 0x4b, 0x7c, 0xd1, 0xc0]),
            Some(Instruction::Load { tile: 7, at: memory(9, Some((10, 8)), -64) })
        );
        // tilestored [rdx + rcx], tmm1
        assert_eq!(
            decoded(&[0xc4, 0xe2, 0x7a, 0x4b, 0x0c, 0x0a]),
            Some(Instruction::Store { tile: 1, at: memory(2, Some((1, 1)), 0) })
        );
        // tdpbf16ps tmm3, tmm5, tmm7
        assert_eq!(decoded(&[0xc4, 0xe2, 0x42, 0x5c, 0xdd]), Some(Instruction::Dot { sum: 3, a: 5, b: 7 }));
    }

    #[test]
    fn others_are_not() {
        // ud2; vpdpbusd ymm0, ymm0, ymm0; tdpbssd tmm0, tmm1, tmm2; tileloaddt1 tmm0, [rax + rcx]; tilezero tmm0
        assert_eq!(decoded(&[0x0f, 0x0b]), None);
        assert_eq!(decoded(&[0xc4, 0xe2, 0x7d, 0x50, 0xc0]), None);
        assert_eq!(decoded(&[0xc4, 0xe2, 0x6b, 0x5e, 0xc1]), None);
        assert_eq!(decoded(&[0xc4, 0xe2, 0x79, 0x4b, 0x04, 0x08]), None);
        assert_eq!(decoded(&[0xc4, 0xe2, 0x7b, 0x49, 0xc0]), None);
    }
}
