//! The tables that a Vorbis header asks for (Vorbis I specification, 3.2.1): a few bytes can ask for gigabytes.

use super::{Result, refuse};

/// Entries of all codebooks, and values of those that hold vectors. What encoders write stays below a hundredth of it.
const MAX_ENTRIES: u64 = 1 << 20;
/// See [`MAX_ENTRIES`].
const MAX_VALUES: u64 = 1 << 24;

/// Looks through the codebooks of a setup header, which stands behind the identification header.
pub(super) fn check_header(header: &[u8]) -> Result<()> {
    let Some(at) = header.windows(7).position(|bytes| bytes == b"\x05vorbis") else { return Ok(()) };
    match measure(&header[at + 7..]) {
        // Where it is broken the decoder says so.
        None => Ok(()),
        Some((entries, values)) if entries <= MAX_ENTRIES && values <= MAX_VALUES => Ok(()),
        Some(_) => Err(refuse("the audio is damaged: its Vorbis header asks for tables of absurd size")),
    }
}

/// Entries and values of all codebooks. Stops early once they are too many.
fn measure(setup: &[u8]) -> Option<(u64, u64)> {
    let mut bits = Bits { bytes: setup, at: 0 };
    let (mut all_entries, mut all_values) = (0, 0);
    for _ in 0..=bits.take(8)? {
        if bits.take(24)? != 0x56_43_42 {
            return None;
        }
        let (dimensions, entries) = (bits.take(16)?, bits.take(24)?);
        all_entries += u64::from(entries);
        let values = u64::from(dimensions) * u64::from(entries);
        if all_entries > MAX_ENTRIES {
            return Some((all_entries, all_values));
        }
        bits.skip_lengths(entries)?;
        match bits.take(4)? {
            0 => {}
            kind @ (1 | 2) => {
                all_values += values;
                bits.take(32)?;
                bits.take(32)?;
                let width = u64::from(bits.take(4)?) + 1;
                bits.take(1)?;
                let count = if kind == 1 { root(entries, dimensions) } else { values };
                bits.skip(count.checked_mul(width)?)?;
            }
            _ => return None,
        }
    }
    Some((all_entries, all_values))
}

/// The greatest whole number whose power by `dimensions` is not above `entries`.
fn root(entries: u32, dimensions: u32) -> u64 {
    let fits = |value: u64| value.checked_pow(dimensions).is_some_and(|power| power <= u64::from(entries));
    (0..=u64::from(entries)).take_while(|&value| value < 2 || fits(value)).last().unwrap_or(0)
}

/// Reads from the lowest bit of each byte up.
struct Bits<'a> {
    bytes: &'a [u8],
    at: u64,
}

impl Bits<'_> {
    fn take(&mut self, count: u32) -> Option<u32> {
        (0..count).try_fold(0, |sum, bit| {
            let byte = self.bytes.get(usize::try_from(self.at / 8).ok()?)?;
            let value = u32::from(byte >> (self.at % 8) & 1);
            self.at += 1;
            Some(sum | value << bit)
        })
    }

    fn skip(&mut self, count: u64) -> Option<()> {
        self.at = self.at.checked_add(count).filter(|at| *at <= self.bytes.len() as u64 * 8)?;
        Some(())
    }

    /// Passes over the lengths of a codebook's words.
    fn skip_lengths(&mut self, entries: u32) -> Option<()> {
        if self.take(1)? == 0 {
            if self.take(1)? == 0 {
                return self.skip(5 * u64::from(entries));
            }
            for _ in 0..entries {
                if self.take(1)? == 1 {
                    self.skip(5)?;
                }
            }
            return Some(());
        }
        self.take(5)?;
        let mut done = 0;
        // A length per round; at most 32 of them.
        for _ in 0..32 {
            if done >= entries {
                break;
            }
            done += self.take(32 - (entries - done).leading_zeros())?;
        }
        (done == entries).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fields of (value, bits), lowest bit first.
    fn packed(fields: &[(u32, u32)]) -> Vec<u8> {
        let bits: Vec<bool> =
            fields.iter().flat_map(|&(value, count)| (0..count).map(move |bit| value >> bit & 1 == 1)).collect();
        let bytes = bits.chunks(8).map(|bits| bits.iter().enumerate().fold(0, |b, (i, &bit)| b | u8::from(bit) << i));
        [b"\x01vorbis....\x05vorbis".to_vec(), bytes.collect()].concat()
    }

    /// A codebook of 2^17 words of 17 bits with vectors of 32, in a dozen bytes.
    const LARGE: [(u32, u32); 11] = [
        (0x56_43_42, 24),
        (32, 16),
        (1 << 17, 24),
        (1, 1),
        (16, 5),
        (1 << 17, 18),
        (1, 4),
        (0, 32),
        (0, 32),
        (0, 4),
        (0, 1),
    ];

    #[test]
    fn large_tables_are_refused() {
        let books = |n: u32| {
            let mut fields = vec![(n - 1, 8)];
            for _ in 0..n {
                fields.extend(LARGE);
                // One value of one bit.
                fields.push((0, 1));
            }
            check_header(&packed(&fields))
        };
        assert!(books(1).is_ok());
        assert!(books(4).is_ok());
        assert!(books(5).is_err());
        assert!(books(200).is_err());
    }

    #[test]
    fn roots_are_the_greatest_that_fit() {
        assert_eq!([root(81, 4), root(80, 4), root(1, 3), root(7, 3), root(8, 3)], [3, 2, 1, 1, 2]);
        assert_eq!(root(100, 1), 100);
        assert_eq!(root(1 << 20, 65_535), 1);
    }

    #[test]
    fn broken_headers_are_the_decoders() {
        assert!(check_header(b"").is_ok());
        assert!(check_header(b"\x05vorbis").is_ok());
        assert!(check_header(&packed(&LARGE[..5])).is_ok());
    }
}
