//! The generator behind sampling: xoshiro256++ 1.0, seeded through splitmix64, both by David Blackman and Sebastiano
//! Vigna (public domain, <https://prng.di.unimi.it/>). Written out because a seed must give the same answer for ever.

/// One hypothesis' own generator: what it draws depends on its seed and its place, not on what else is decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rng {
    state: [u64; 4],
}

impl Rng {
    /// A generator for one place: each of `keys` (window, attempt, hypothesis) gives another stream.
    pub fn new(seed: u64, keys: [u64; 3]) -> Self {
        let mut x = keys.into_iter().fold(seed, |x, key| splitmix64(x.wrapping_add(splitmix64(key.wrapping_add(1)))));
        let state = std::array::from_fn(|_| {
            x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
            splitmix64(x)
        });
        Self { state }
    }

    fn next_u64(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// Uniform in `[0, 1)`, 53 bits.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }
}

/// The output function of splitmix64: a bijection that mixes all bits.
fn splitmix64(x: u64) -> u64 {
    let mut z = x;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of the reference code: splitmix64 from seed 0, and xoshiro256++ from the state `[1, 2, 3, 4]`.
    #[test]
    fn equals_the_reference_code() {
        assert_eq!(splitmix64(0x9e37_79b9_7f4a_7c15), 0xe220_a839_7b1d_cdaf);
        let mut rng = Rng { state: [1, 2, 3, 4] };
        let first: Vec<u64> = (0..4).map(|_| rng.next_u64()).collect();
        assert_eq!(first, [41943041, 58720359, 3588806011781223, 3591011842654386]);
    }

    #[test]
    fn every_key_gives_another_stream() {
        let mut seen: Vec<u64> = Vec::new();
        for keys in [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [2, 0, 0]] {
            seen.push(Rng::new(7, keys).next_u64());
        }
        seen.push(Rng::new(8, [0, 0, 0]).next_u64());
        let count = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), count);
    }

    #[test]
    fn unit_draws_stay_below_one() {
        let mut rng = Rng::new(7, [0, 0, 0]);
        assert!((0..10_000).map(|_| rng.unit()).all(|x| (0.0..1.0).contains(&x)));
    }
}
