use half::f16;

use super::*;

/// A sequence in a cache whose blocks lie in no order, with everything unwritten poisoned.
struct Sequence {
    pages: KvPages,
    table: Vec<u32>,
    n_kv: usize,
    len: usize,
    /// `[head][position][head_dim]`, as written.
    keys: Vec<f32>,
    values: Vec<f32>,
    /// The same, as the cache keeps them.
    kept: [Vec<f32>; 2],
}

fn random(seed: u64, n: usize, scale: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..n).map(|_| ((next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * scale).collect()
}

impl Sequence {
    fn new(cache_type: CacheType, level: Level, n_kv: usize, head_dim: usize, len: usize) -> Self {
        let n_blocks = len.div_ceil(PAGE);
        let pages = KvPages::new(cache_type, n_blocks + 1, n_kv, head_dim);
        let table: Vec<u32> = (0..n_blocks).map(|b| (n_blocks - b) as u32).collect();
        let keys = random(1, n_kv * len * head_dim, 1.0);
        let values = random(2, n_kv * len * head_dim, 1.0);
        let mut sequence = Self { pages, table, n_kv, len, keys, values, kept: Default::default() };
        let poison = vec![f32::NAN; head_dim];
        for block in 0..=n_blocks as u32 {
            for head in 0..n_kv {
                for offset in 0..PAGE {
                    // SAFETY: one thread, and an available level.
                    unsafe { sequence.pages.write(level, block, head, offset, &poison, &poison) };
                }
            }
        }
        for p in 0..len {
            sequence.write(level, p);
        }
        sequence.kept = sequence.kept();
        sequence
    }

    fn write(&self, level: Level, p: usize) {
        for head in 0..self.n_kv {
            let (k, v) = (self.row(&self.keys, head, p), self.row(&self.values, head, p));
            // SAFETY: one thread, and an available level.
            unsafe { self.pages.write(level, self.table[p / PAGE], head, p % PAGE, k, v) };
        }
    }

    fn kept(&self) -> [Vec<f32>; 2] {
        if self.pages.cache_type() == CacheType::F16 {
            return [&self.keys, &self.values].map(|x| x.iter().map(|&x| f16::from_f32(x).to_f32()).collect());
        }
        let positions = (0..self.n_kv).flat_map(|head| (0..self.len).map(move |p| (head, p)));
        let (keys, values): (Vec<_>, Vec<_>) =
            positions.map(|(head, p)| q8::tests::position(&self.pages, self.table[p / PAGE], head, p % PAGE)).unzip();
        [keys.concat(), values.concat()]
    }

    fn row<'a>(&self, of: &'a [f32], head: usize, p: usize) -> &'a [f32] {
        let head_dim = self.pages.head_dim();
        &of[(head * self.len + p) * head_dim..][..head_dim]
    }

    fn context(&self, head: usize) -> Context<'_> {
        Context { pages: &self.pages, table: &self.table, head }
    }

    /// In f64: one query head, positions `from..to`.
    fn reference(&self, head: usize, q: &[f32], from: usize, to: usize, cap: Option<f32>) -> Vec<f64> {
        let dot = |k: &[f32]| q.iter().zip(k).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum::<f64>();
        let scores: Vec<f64> = (from..to)
            .map(|p| {
                let s = dot(self.row(&self.kept[0], head, p));
                cap.map_or(s, |cap| f64::from(cap) * (s / f64::from(cap)).tanh())
            })
            .collect();
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
        let sum: f64 = weights.iter().sum();
        let mut out = vec![0.0; q.len()];
        for (p, weight) in (from..to).zip(weights) {
            for (out, &v) in out.iter_mut().zip(self.row(&self.kept[1], head, p)) {
                *out += weight / sum * f64::from(v);
            }
        }
        out
    }

    /// Decode: spans, then merge.
    fn decode(
        &self,
        level: Level,
        head: usize,
        q: &[f32],
        group: usize,
        seen: std::ops::Range<usize>,
        cap: Option<f32>,
    ) -> Vec<f32> {
        let (from, to) = (seen.start, seen.end);
        let head_dim = self.pages.head_dim();
        let mut scratch = Scratch::new(group, head_dim);
        let mut spans = Vec::new();
        for base in (from / SPAN * SPAN..to).step_by(SPAN) {
            let mut partials = vec![Partial::NONE; group];
            let mut out = vec![f32::NAN; group * head_dim];
            let (from, to) = (from.max(base), to.min(base + SPAN));
            // SAFETY: nobody writes, and the level is available.
            unsafe {
                let ctx = self.context(head);
                attend_span(level, &ctx, q, group, from, to, cap, &mut scratch, &mut partials, &mut out);
            }
            spans.push((partials, out));
        }
        // All spans in one call: the same.
        let mut partials = vec![Partial::NONE; spans.len() * group];
        let mut out = vec![f32::NAN; spans.len() * group * head_dim];
        // SAFETY: nobody writes, and the level is available.
        unsafe {
            let ctx = self.context(head);
            attend_spans(level, &ctx, q, group, from, to, cap, &mut scratch, &mut partials, &mut out);
        }
        assert_eq!(bits(&out), bits(&spans.iter().flat_map(|(_, o)| o.clone()).collect::<Vec<_>>()));
        let flat = |partials: &[Partial]| partials.iter().flat_map(|p| [p.max, p.sum]).collect::<Vec<_>>();
        assert_eq!(bits(&flat(&partials)), bits(&spans.iter().flat_map(|(p, _)| flat(p)).collect::<Vec<_>>()));
        let mut out = vec![f32::NAN; group * head_dim];
        for (h, out) in out.chunks_exact_mut(head_dim).enumerate() {
            merge(level, spans.iter().map(|(p, o)| (p[h], &o[h * head_dim..][..head_dim])), out);
        }
        out
    }

    /// A prompt's rows, cut into chunks; `q` is `[n_q][group][head_dim]`.
    fn prompt(&self, level: Level, head: usize, q: &[f32], group: usize, start: usize, how: &Prompt) -> Vec<f32> {
        let head_dim = self.pages.head_dim();
        let stride = group * head_dim;
        let n_q = q.len() / stride;
        let mut scratch = Scratch::new(group, head_dim);
        let mut out = vec![f32::NAN; q.len()];
        for first in (0..n_q).step_by(how.chunk) {
            let n = how.chunk.min(n_q - first);
            // SAFETY: nobody writes, the level is available, and `out` has the rows.
            unsafe {
                attend_rows(
                    level,
                    &self.context(head),
                    &q[first * stride..][..n * stride],
                    stride,
                    group,
                    start + first,
                    n,
                    how.window,
                    how.cap,
                    &mut scratch,
                    out.as_mut_ptr().add(first * stride),
                    stride,
                );
            }
        }
        out
    }
}

#[derive(Clone, Copy)]
struct Prompt {
    chunk: usize,
    window: Option<usize>,
    cap: Option<f32>,
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| if x.is_nan() { 0x7FC0_0000 } else { x.to_bits() }).collect()
}

/// Values are up to 1, and scores up to about 20. In 8 bits, queries and weights are rounded to 15 bits and a sign.
fn assert_near(cache_type: CacheType, got: &[f32], want: &[f64], what: &str) {
    assert_eq!(got.len(), want.len());
    let tolerance = if cache_type == CacheType::F16 { 5e-6 } else { 3e-4 };
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        assert!((f64::from(got) - want).abs() < tolerance, "{cache_type} {what}: value {i} is {got}, not {want}");
    }
}

/// Queries that give scores of a spread like a model's.
fn queries(seed: u64, n: usize, head_dim: usize) -> Vec<f32> {
    random(seed, n * head_dim, 12.0 / (head_dim as f32).sqrt())
}

#[test]
fn decode_at_page_and_span_edges() {
    for cache_type in CacheType::ALL {
        for (group, head_dim) in [(1, 64), (3, 64), (7, 64), (4, 256), (2, 72)] {
            for len in [1, 2, 15, 16, 17, 31, 32, 33, SPAN - 1, SPAN, SPAN + 1, 2 * SPAN + 5] {
                let sequence = Sequence::new(cache_type, Level::detect(), 2, head_dim, len);
                let q = queries(3, group, head_dim);
                let want = sequence.decode(Level::Scalar, 1, &q, group, 0..len, None);
                for (h, q) in q.chunks_exact(head_dim).enumerate() {
                    let reference = sequence.reference(1, q, 0, len, None);
                    assert_near(
                        cache_type,
                        &want[h * head_dim..][..head_dim],
                        &reference,
                        &format!("{group}x{head_dim} at {len}"),
                    );
                }
                for level in Level::available() {
                    let got = sequence.decode(level, 1, &q, group, 0..len, None);
                    assert_eq!(bits(&got), bits(&want), "{level}, {group}x{head_dim} at {len}");
                }
            }
        }
    }
}

#[test]
fn decode_with_every_group_and_width() {
    for cache_type in CacheType::ALL {
        let len = SPAN + 50;
        for head_dim in [8, 16, 24, 40, 64, 72, 80, 96, 120, 128, 256] {
            let sequence = Sequence::new(cache_type, Level::detect(), 1, head_dim, len);
            for group in (1..=8).chain([12, 13, 14, 25]) {
                let q = queries(group as u64, group, head_dim);
                for (from, cap) in [(0, None), (SPAN - 3, Some(5.0)), (SPAN + 18, None)] {
                    let want = sequence.decode(Level::Scalar, 0, &q, group, from..len, cap);
                    for (h, q) in q.chunks_exact(head_dim).enumerate() {
                        let reference = sequence.reference(0, q, from, len, cap);
                        assert_near(
                            cache_type,
                            &want[h * head_dim..][..head_dim],
                            &reference,
                            &format!("{group}x{head_dim}"),
                        );
                    }
                    for level in Level::available() {
                        let got = sequence.decode(level, 0, &q, group, from..len, cap);
                        assert_eq!(bits(&got), bits(&want), "{level}, {group}x{head_dim} from {from}");
                    }
                }
            }
        }
    }
}

#[test]
fn prompt_rows_are_computed_as_if_alone() {
    for cache_type in CacheType::ALL {
        for (group, head_dim) in [(1, 64), (3, 64), (7, 64), (4, 256), (5, 80), (2, 72), (14, 16)] {
            let n_q = SPAN + 22;
            for (start, window, cap) in [
                (0, None, None),
                (0, Some(16), None),
                (SPAN - 30, None, Some(4.0)),
                (75, Some(SPAN), None),
                (3, Some(1), None),
            ] {
                let mut sequence = Sequence::new(cache_type, Level::detect(), 2, head_dim, start + n_q);
                let first_seen = |p: usize| window.map_or(0, |w| (p + 1).saturating_sub(w));
                // A block that nobody sees is not looked up.
                sequence.table[..first_seen(start) / PAGE].fill(u32::MAX);
                let q = queries(9, n_q * group, head_dim);
                let width = group * head_dim;
                let what = format!("{group}x{head_dim} from {start}, window {window:?}, cap {cap:?}");
                let fast = Level::detect();
                let all = sequence.prompt(fast, 1, &q, group, start, &Prompt { chunk: n_q, window, cap });
                for row in 0..n_q {
                    let p = start + row;
                    let q = &q[row * width..][..width];
                    let decoded = sequence.decode(fast, 1, q, group, first_seen(p)..p + 1, cap);
                    assert_eq!(bits(&all[row * width..][..width]), bits(&decoded), "{what}: row {row} against decode");
                }
                for row in [0, 1, n_q / 2, n_q - 1] {
                    for h in 0..group {
                        let at = row * width + h * head_dim;
                        let p = start + row;
                        let want = sequence.reference(1, &q[at..][..head_dim], first_seen(p), p + 1, cap);
                        assert_near(cache_type, &all[at..][..head_dim], &want, &format!("{what}: row {row}, head {h}"));
                    }
                }
                for level in Level::available() {
                    for chunk in [1, 5, 16, 100, n_q] {
                        if level == Level::Scalar && chunk != 100 {
                            continue;
                        }
                        let got = sequence.prompt(level, 1, &q, group, start, &Prompt { chunk, window, cap });
                        assert_eq!(bits(&got), bits(&all), "{what}: {level}, chunks of {chunk}");
                    }
                }
            }
        }
    }
}

#[test]
fn rows_lie_where_their_strides_say() {
    for cache_type in CacheType::ALL {
        let (group, head_dim, n_q) = (3, 64, 30);
        let sequence = Sequence::new(cache_type, Level::detect(), 1, head_dim, n_q);
        let width = group * head_dim;
        let (q_stride, out_stride) = (width + 40, width + 17);
        let q = queries(4, n_q * q_stride / head_dim + 1, head_dim);
        let dense: Vec<f32> = (0..n_q).flat_map(|i| q[i * q_stride..][..width].to_vec()).collect();
        let how = Prompt { chunk: n_q, window: None, cap: None };
        for level in Level::available() {
            let want = sequence.prompt(level, 0, &dense, group, 0, &how);
            let mut out = vec![7.5f32; n_q * out_stride];
            let mut scratch = Scratch::new(8, head_dim);
            // SAFETY: nobody writes, the level is available, and `out` has the rows.
            unsafe {
                let ctx = sequence.context(0);
                let to = out.as_mut_ptr();
                attend_rows(level, &ctx, &q, q_stride, group, 0, n_q, None, None, &mut scratch, to, out_stride);
            }
            for (i, row) in out.chunks_exact(out_stride).enumerate() {
                assert_eq!(bits(&row[..width]), bits(&want[i * width..][..width]));
                assert!(row[width..].iter().all(|&x| x == 7.5));
            }
        }
    }
}

#[test]
fn not_a_number_reaches_those_who_see_it_and_no_others() {
    for cache_type in CacheType::ALL {
        let (group, head_dim, n_q, bad) = (3, 64, 40, 21);
        for level in Level::available() {
            let mut sequence = Sequence::new(cache_type, level, 1, head_dim, n_q);
            let q = queries(5, n_q * group, head_dim);
            let how = Prompt { chunk: n_q, window: Some(8), cap: None };
            let want = sequence.prompt(level, 0, &q, group, 0, &how);
            for (of_keys, x) in [(true, f32::NAN), (false, f32::NAN), (false, f32::INFINITY)] {
                let of = if of_keys { &mut sequence.keys } else { &mut sequence.values };
                let was = std::mem::replace(&mut of[bad * head_dim + 5], x);
                sequence.write(level, bad);
                let got = sequence.prompt(level, 0, &q, group, 0, &how);
                let width = group * head_dim;
                for (row, (got, want)) in got.chunks_exact(width).zip(want.chunks_exact(width)).enumerate() {
                    let p = row;
                    let decoded =
                        sequence.decode(level, 0, &q[row * width..][..width], group, p.saturating_sub(7)..p + 1, None);
                    assert_eq!(bits(got), bits(&decoded));
                    if !(bad..bad + 8).contains(&p) {
                        assert_eq!(bits(got), bits(want), "{level}: row {row}");
                    } else if of_keys {
                        assert!(got.iter().all(|x| x.is_nan()), "{level}: row {row}");
                    } else {
                        for (i, x) in got.iter().enumerate() {
                            // In 8 bits one value's scale is all values'.
                            let bad = cache_type == CacheType::Q8_0 || i % head_dim == 5;
                            assert_eq!(x.is_finite(), !bad, "{cache_type} {level}: row {row}, value {i}");
                        }
                    }
                }
                let of = if of_keys { &mut sequence.keys } else { &mut sequence.values };
                of[bad * head_dim + 5] = was;
                sequence.write(level, bad);
            }
        }
    }
}

#[test]
fn writing_rounds_to_f16_and_touches_one_position() {
    for head_dim in [8, 40, 64] {
        let mut k = random(6, head_dim, 70_000.0);
        k[..4].copy_from_slice(&[1e-7, f32::INFINITY, 65_519.9, -0.0]);
        let v = random(7, head_dim, 1e-4);
        for level in Level::available() {
            let pages = KvPages::new(CacheType::F16, 3, 2, head_dim);
            // SAFETY: one thread, and an available level.
            unsafe { pages.write(level, 2, 1, 9, &k, &v) };
            let len = 2 * PAGE * head_dim;
            let mut want = vec![0u16; len];
            for d in 0..head_dim {
                want[d * PAGE + 9] = f16::from_f32(k[d]).to_bits();
                want[(PAGE + 9) * head_dim + d] = f16::from_f32(v[d]).to_bits();
            }
            for (block, head) in [(0, 0), (1, 1), (2, 0), (2, 1)] {
                // SAFETY: a page is this long, and nobody writes.
                let page = unsafe { std::slice::from_raw_parts(pages.page(block, head).cast::<u16>(), len) };
                assert!(if (block, head) == (2, 1) { page == want } else { page.iter().all(|&x| x == 0) });
            }
        }
    }
}

#[test]
fn far_scores_weigh_nothing() {
    for cache_type in CacheType::ALL {
        let (head_dim, len) = (64, SPAN + 40);
        let sequence = Sequence::new(cache_type, Level::detect(), 1, head_dim, len);
        let q = random(8, 2 * head_dim, 200.0);
        let want = sequence.decode(Level::Scalar, 0, &q, 2, 0..len, None);
        for (h, q) in q.chunks_exact(head_dim).enumerate() {
            let reference = sequence.reference(0, q, 0, len, None);
            for (&got, &want) in want[h * head_dim..].iter().zip(&reference) {
                // Scores near 1000 are rounded to 6e-5.
                assert!((f64::from(got) - want).abs() < 2e-3, "{got} {want}");
            }
        }
        for level in Level::available() {
            assert_eq!(bits(&sequence.decode(level, 0, &q, 2, 0..len, None)), bits(&want), "{level}");
        }
    }
}
