use half::f16;

use super::*;
use crate::attention::{CacheType, KvPages};
use crate::testing::{Random, special};

/// A position's key and value as the cache keeps them.
pub(in crate::attention) fn position(pages: &KvPages, block: u32, head: usize, offset: usize) -> (Vec<f32>, Vec<f32>) {
    let head_dim = pages.head_dim();
    let page = bytes(pages, block, head);
    let scale = |at: usize| f32::from(f16::from_le_bytes([page[at], page[at + 1]]));
    let mut key = Vec::new();
    for d in 0..head_dim {
        let code = i32::from(page[(d / 4 * 16 + offset) * 4 + d % 4]) - 128;
        key.push(code as f32 * scale(16 * head_dim + (d / 32 * 16 + offset) * 2));
    }
    numbers::turn(&mut key, true);
    let values = key_bytes(head_dim);
    let value = |d: usize| {
        let code = page[values + (offset / 4 * head_dim + d) * 4 + offset % 4].cast_signed();
        f32::from(code) * scale(values + 16 * head_dim + offset * 2)
    };
    (key, (0..head_dim).map(value).collect())
}

fn bytes(pages: &KvPages, block: u32, head: usize) -> &[u8] {
    // SAFETY: a page is this long, and the tests write none meanwhile.
    unsafe { std::slice::from_raw_parts(pages.page(block, head), CacheType::Q8_0.page_bytes(pages.head_dim())) }
}

#[test]
fn a_position_is_kept_within_half_a_step() {
    let mut random = Random(1);
    for head_dim in [8, 16, 24, 40, 64, 72, 120, 256] {
        let pages = KvPages::new(CacheType::Q8_0, 1, 1, head_dim);
        for offset in 0..PAGE {
            // Every other key has a channel like those of real models.
            let (mut k, v) = (random.normals(head_dim), random.normals(head_dim));
            if offset % 2 == 1 {
                k[3] *= 50.0;
            }
            // SAFETY: one thread, and an available level.
            unsafe { pages.write(Level::detect(), 0, 0, offset, &k, &v) };
            let (key, value) = position(&pages, 0, 0, offset);
            let largest = |x: &[f32]| x.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
            // Rounding the scale adds up to 2^-11 of what is rounded.
            let step = |x: &[f32]| largest(x) / 127.0 * 0.5 + largest(x) / 2048.0;
            for (x, kept) in v.iter().zip(&value) {
                assert!((x - kept).abs() <= step(&v), "{head_dim}: {x} as {kept}");
            }
            for (block, kept) in k.chunks(32).zip(key.chunks(32)) {
                // A block turned is no longer than its root of n times its length; so are errors when turned back.
                let norm = |x: &[f32]| x.iter().map(|x| f64::from(x * x)).sum::<f64>().sqrt();
                let errors: Vec<f32> = block.iter().zip(kept).map(|(x, kept)| x - kept).collect();
                let mut turned = block.to_vec();
                numbers::turn(&mut turned, false);
                let n = block.len() as f64;
                let parts = if block.len() == 24 { 8.0 } else { n };
                assert!(
                    norm(&errors) <= f64::from(step(&turned)) * (n / parts).sqrt() * 1.01,
                    "{head_dim}: {errors:?}"
                );
            }
        }
    }
}

#[test]
fn turning_spreads_one_channel_and_back_is_back() {
    for n in [8, 16, 24, 32] {
        let mut block = vec![0.0; n];
        block[1] = 3.0;
        numbers::turn(&mut block, false);
        let part = if n == 24 { 16 } else { n };
        assert!(block[..part].iter().all(|x| x.abs() == 3.0), "{block:?}");
        numbers::turn(&mut block, true);
        assert!(block.iter().enumerate().all(|(i, &x)| x == if i == 1 { 3.0 } else { 0.0 }), "{block:?}");
    }
}

#[test]
fn writing_is_the_same_at_every_level_and_touches_one_position() {
    let mut random = Random(2);
    for head_dim in [8, 40, 64, 88] {
        for round in 0..12 {
            let (mut k, mut v) = (random.normals(head_dim), random.normals(head_dim));
            match round {
                0 => k.fill(0.0),
                1 => v.fill(0.0),
                2 => k.iter_mut().chain(&mut v).for_each(|x| *x *= 1e-7),
                3 => k.iter_mut().chain(&mut v).for_each(|x| *x *= 1e6),
                4 => k[5] = special(&mut random),
                5 => v[6] = special(&mut random),
                6 => k.iter_mut().chain(&mut v).for_each(|x| *x = f32::MAX.copysign(*x)),
                _ => {}
            }
            let mut written: Option<Vec<u8>> = None;
            for level in Level::available() {
                let pages = KvPages::new(CacheType::Q8_0, 2, 2, head_dim);
                // SAFETY: one thread, and an available level.
                unsafe { pages.write(level, 1, 1, 9, &k, &v) };
                for (block, head) in [(0, 0), (0, 1), (1, 0)] {
                    assert!(bytes(&pages, block, head).iter().all(|&x| x == 0));
                }
                let page = bytes(&pages, 1, 1);
                assert_eq!(*written.get_or_insert_with(|| page.to_vec()), page, "{level}, {head_dim}, round {round}");
                for other in (0..PAGE).filter(|&other| other != 9) {
                    let (key, value) = position(&pages, 1, 1, other);
                    assert!(key.iter().chain(&value).all(|&x| x == 0.0));
                }
            }
        }
    }
}

#[test]
fn what_cannot_be_kept_is_not_a_number() {
    let head_dim = 64;
    for x in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30] {
        let pages = KvPages::new(CacheType::Q8_0, 1, 1, head_dim);
        let (mut k, mut v) = (vec![1.0; head_dim], vec![1.0; head_dim]);
        (k[40], v[2]) = (x, x);
        // SAFETY: one thread, and an available level.
        unsafe { pages.write(Level::detect(), 0, 0, 0, &k, &v) };
        let (key, value) = position(&pages, 0, 0, 0);
        assert!(value.iter().all(|x| x.is_nan()));
        // The other block knows nothing of it.
        assert!(key[..32].iter().all(|x| (x - 1.0).abs() < 0.01) && key[32..].iter().all(|x| x.is_nan()));
    }
}

#[test]
fn pages_are_about_half_as_long_as_in_f16() {
    for (head_dim, bytes) in [(64, 2176), (128, 4288), (256, 8512)] {
        assert_eq!(CacheType::Q8_0.bytes_per_block(1, head_dim), bytes);
        assert_eq!(CacheType::F16.bytes_per_block(1, head_dim), 64 * head_dim);
    }
    for head_dim in (8..=512).step_by(8) {
        assert_eq!(CacheType::Q8_0.page_bytes(head_dim) % LINE, 0);
    }
}
