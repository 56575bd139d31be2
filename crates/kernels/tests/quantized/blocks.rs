//! GGUF's blocks by their definition, value by value: independent of how packing reads them. And random ones.

use half::f16;
use tsserve_kernels::Format;

/// A small reproducible generator (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From -1 to 1.
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// Roughly normal, variance 1.
    pub fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.unit()).sum::<f32>() * 0.5
    }

    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.bits() as u8).collect()
    }
}

pub const QUANTIZED: [Format; 10] = [
    Format::Q4_0,
    Format::Q4_1,
    Format::Q5_0,
    Format::Q5_1,
    Format::Q8_0,
    Format::Q4_K,
    Format::Q5_K,
    Format::Q6_K,
    Format::MXFP4,
    Format::IQ4_NL,
];

/// Where a block has f16 numbers.
pub fn halves(format: Format) -> &'static [usize] {
    match format {
        Format::Q4_1 | Format::Q5_1 | Format::Q4_K | Format::Q5_K => &[0, 2],
        Format::Q6_K => &[208],
        Format::MXFP4 => &[],
        _ => &[0],
    }
}

/// A row of random blocks: random codes and 6-bit scales, f16 numbers from -0.1 to 0.1 (minima so that the weights have
/// a mean of about 0), MXFP4 exponents from 2^-13 to 2^2.
pub fn random_row(format: Format, n_cols: usize, random: &mut Random) -> Vec<u8> {
    let (values, size) = format.block();
    let mut row = random.bytes(n_cols / values * size);
    for block in row.chunks_exact_mut(size) {
        let d = random.unit() * 0.1;
        let mut put = |at: usize, value: f32| block[at..at + 2].copy_from_slice(&f16::from_f32(value).to_le_bytes());
        match format {
            Format::Q4_1 => (put(0, d), put(2, -7.5 * d)),
            Format::Q5_1 => (put(0, d), put(2, -15.5 * d)),
            Format::Q4_K => (put(0, d), put(2, 7.5 * d)),
            Format::Q5_K => (put(0, d), put(2, 15.5 * d)),
            Format::Q6_K => (put(208, d), ()),
            Format::MXFP4 => (block[0] = 114 + block[0] % 16, ()),
            _ => (put(0, d), ()),
        };
    }
    row
}

/// The values of a row.
pub fn dequantize(format: Format, row: &[u8]) -> Vec<f32> {
    row.chunks_exact(format.block().1).flat_map(|block| dequantize_block(format, block)).collect()
}

fn dequantize_block(format: Format, b: &[u8]) -> Vec<f32> {
    let half = |at: usize| f16::from_le_bytes([b[at], b[at + 1]]).to_f32();
    // Nibble `k` of 16 bytes: the low ones come first.
    let nibble = |at: usize, k: usize| if k < 16 { b[at + k] & 15 } else { b[at + k - 16] >> 4 };
    let bit = |at: usize, k: usize| (b[at + k / 8] >> (k % 8)) & 1;
    let all = |n: usize, value: &dyn Fn(usize) -> f32| (0..n).map(value).collect();
    match format {
        Format::Q4_0 => all(32, &|k| (f32::from(nibble(2, k)) - 8.0) * half(0)),
        Format::Q4_1 => all(32, &|k| f32::from(nibble(4, k)) * half(0) + half(2)),
        Format::Q5_0 => all(32, &|k| (f32::from(nibble(6, k) + 16 * bit(2, k)) - 16.0) * half(0)),
        Format::Q5_1 => all(32, &|k| f32::from(nibble(8, k) + 16 * bit(4, k)) * half(0) + half(2)),
        Format::Q8_0 => all(32, &|k| f32::from(b[2 + k] as i8) * half(0)),
        Format::MXFP4 => all(32, &|k| {
            let e2m1 = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
            let code = nibble(1, k);
            let value = e2m1[usize::from(code & 7)];
            let scale = 2.0f64.powi(i32::from(b[0]) - 127);
            // The minus zero of E2M1 is read as zero, as llama.cpp does.
            ((if code & 8 == 0 || value == 0.0 { value } else { -value }) * scale) as f32
        }),
        Format::IQ4_NL => all(32, &|k| {
            let values = [-127i8, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
            f32::from(values[usize::from(nibble(2, k))]) * half(0)
        }),
        Format::Q4_K => all(256, &|k| {
            let (scale, min) = six_bits(&b[4..16], k / 32);
            let byte = b[16 + k / 64 * 32 + k % 32];
            let q = if k % 64 < 32 { byte & 15 } else { byte >> 4 };
            half(0) * scale * f32::from(q) - half(2) * min
        }),
        Format::Q5_K => all(256, &|k| {
            let (scale, min) = six_bits(&b[4..16], k / 32);
            let byte = b[48 + k / 64 * 32 + k % 32];
            let q = if k % 64 < 32 { byte & 15 } else { byte >> 4 };
            let fifth = (b[16 + k % 32] >> (k / 32)) & 1;
            half(0) * scale * f32::from(q + 16 * fifth) - half(2) * min
        }),
        Format::Q6_K => all(256, &|k| {
            let (half_block, quarter, l) = (k / 128, k % 128 / 32, k % 32);
            let byte = b[64 * half_block + 32 * (quarter % 2) + l];
            let low = if quarter < 2 { byte & 15 } else { byte >> 4 };
            let high = (b[128 + 32 * half_block + l] >> (2 * quarter)) & 3;
            half(208) * f32::from(b[192 + k / 16] as i8) * (f32::from(low + 16 * high) - 32.0)
        }),
        Format::BF16 | Format::F16 | Format::F32 => unreachable!(),
    }
}

fn six_bits(s: &[u8], j: usize) -> (f32, f32) {
    let (scale, min) = if j < 4 {
        (s[j] % 64, s[j + 4] % 64)
    } else {
        (s[j + 4] % 16 + s[j - 4] / 64 * 16, s[j + 4] / 16 + s[j] / 64 * 16)
    };
    (f32::from(scale), f32::from(min))
}
