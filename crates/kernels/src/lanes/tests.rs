use half::{bf16, f16};

use super::*;
use crate::Level;
use crate::testing::{Random, special};

leveled! {
    unsafe fn halves_at(x: *const f32, f16: *mut u16, bf16: *mut u16) = halves_with;
}

#[inline(always)]
unsafe fn halves_with<L: Lanes>(x: *const f32, f16: *mut u16, bf16: *mut u16) {
    // SAFETY: all are sixteen values.
    unsafe {
        L::store_f16(f16, L::load(x));
        L::store_bf16(bf16, L::load(x));
    }
}

leveled! {
    unsafe fn wide_at(from: *const u16, to: *mut f32) = wide_with;
}

#[inline(always)]
unsafe fn wide_with<L: Lanes>(from: *const u16, to: *mut f32) {
    // SAFETY: both are sixteen values.
    unsafe { L::store(to, L::load_f16(from)) }
}

#[test]
fn halves_are_the_nearest_at_every_level() {
    let mut random = Random(61);
    for round in 0..20_000 {
        let mut x: [f32; LANES] = std::array::from_fn(|_| match round % 3 {
            0 => f32::from_bits(random.next() as u32),
            // Where f16 has its ties and its subnormal numbers.
            1 => random.normal() * (random.below(40) as f32 - 26.0).exp2(),
            _ => f32::from_bits((random.next() as u32 & 0xffff_0000) | 0x8000),
        });
        x[..2].copy_from_slice(&[special(&mut random), if round % 2 == 0 { -0.0 } else { f32::MAX }]);
        for level in Level::available() {
            let (mut halves, mut shorts, mut back) = ([0; LANES], [0; LANES], [0.0; LANES]);
            // SAFETY: the level is available, and all are sixteen values.
            unsafe {
                halves_at(level, x.as_ptr(), halves.as_mut_ptr(), shorts.as_mut_ptr());
                wide_at(level, halves.as_ptr(), back.as_mut_ptr());
            }
            for (i, &x) in x.iter().enumerate() {
                if x.is_nan() {
                    assert!(
                        f16::from_bits(halves[i]).is_nan() && bf16::from_bits(shorts[i]).is_nan() && back[i].is_nan()
                    );
                } else {
                    assert_eq!(halves[i], f16::from_f32(x).to_bits(), "{level} f16 of {x:e}");
                    assert_eq!(shorts[i], bf16::from_f32(x).to_bits(), "{level} bf16 of {x:e}");
                    assert_eq!(back[i].to_bits(), f16::from_f32(x).to_f32().to_bits(), "{level} {x:e}");
                }
            }
        }
    }
}

leveled! {
    unsafe fn swaps_at(x: *const f32, to: *mut [f32; LANES]) = swaps_with;
}

#[inline(always)]
unsafe fn swaps_with<L: Lanes>(x: *const f32, to: *mut [f32; LANES]) {
    // SAFETY: sixteen values, and four times as many.
    unsafe {
        let x = L::load(x);
        L::store(to.cast(), L::swap::<1>(x));
        L::store(to.add(1).cast(), L::swap::<2>(x));
        L::store(to.add(2).cast(), L::swap::<4>(x));
        L::store(to.add(3).cast(), L::swap::<8>(x));
    }
}

#[test]
fn neighbours_change_places_at_every_level() {
    let x: [f32; LANES] = std::array::from_fn(|i| i as f32);
    for level in Level::available() {
        let mut swapped = [[0.0; LANES]; 4];
        // SAFETY: the level is available, and these are sixteen values and four times as many.
        unsafe { swaps_at(level, x.as_ptr(), swapped.as_mut_ptr()) };
        for (swapped, n) in swapped.iter().zip([1, 2, 4, 8]) {
            assert!(swapped.iter().enumerate().all(|(i, &x)| x == (i ^ n) as f32), "{level}: {swapped:?}");
        }
    }
}
