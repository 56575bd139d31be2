use super::noise;
use crate::decode::rng::Rng;
use crate::decode::softmax::*;

#[test]
fn the_exponential_is_near_the_true_one() {
    for step in 0..8_700 {
        let x = -(step as f32) / 100.0;
        let (ours, exact) = (f64::from(exp(x)), f64::from(x).exp());
        assert!((ours - exact).abs() <= 3e-7 * exact, "{x}: {ours} for {exact}");
    }
    assert_eq!(exp(0.0), 1.0);
    assert_eq!(exp(-88.0), 0.0);
    assert_eq!(exp(f32::NEG_INFINITY), 0.0);
    assert!(exp(f32::NAN).is_nan());
}

#[test]
fn rows_of_any_length_are_summed_and_searched() {
    let mut rng = Rng::new(1, [0; 3]);
    for len in [1, 2, 15, 16, 17, 255, 256, 257, 1000] {
        let row = noise(&mut rng, len, 30.0);
        let exact: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
        assert!((f64::from(log_sum_exp(&row)) - exact.ln()).abs() < 1e-5, "{len}");
        let best = row.iter().copied().fold(f32::MIN, f32::max);
        let place = row.iter().position(|&x| x == best).unwrap();
        assert_eq!(largest(&row, 0..len), Some((place, best)));
        // Within a range, indices are those of the row.
        assert_eq!(largest(&row, place..len), Some((place, best)));
        assert_eq!(largest(&row, len..len), None);
    }
    assert_eq!(largest(&[f32::NEG_INFINITY; 20], 0..20), None);
    assert_eq!(log_sum_exp(&[f32::NEG_INFINITY; 20]), f32::NEG_INFINITY);
    assert_eq!(log_sum_exp(&[]), f32::NEG_INFINITY);
}

#[test]
fn the_best_few_are_those_of_a_full_sort() {
    let mut rng = Rng::new(2, [0; 3]);
    for round in 0..50 {
        // Coarse values, so that there are equal ones.
        let row: Vec<f32> = noise(&mut rng, 700, 40.0).into_iter().map(f32::round).collect();
        let mut sorted: Vec<(u32, f32)> = row.iter().enumerate().map(|(i, &x)| (i as u32, x)).collect();
        sorted.sort_by(|a, b| b.1.total_cmp(&a.1));
        for count in [1, 2, 6] {
            let mut best = Vec::new();
            top(&row, 0..300, count, &mut best);
            top(&row, 300..700, count, &mut best);
            assert_eq!(best, sorted[..count], "round {round}");
        }
    }
    let mut best = Vec::new();
    top(&[f32::NEG_INFINITY, 1.0], 0..2, 5, &mut best);
    assert_eq!(best, [(1, 1.0)], "what cannot be is no candidate");
}

#[test]
fn draws_follow_the_distribution() {
    // e^0 : e^ln2 : e^ln5, at temperature 1, in two ranges with something forbidden between.
    let row = [0.0, f32::NEG_INFINITY, 2f32.ln(), 9.0, 5f32.ln()];
    let shift = 5f32.ln();
    let at = |point: f64| draw(&row, [0..3, 4..5], shift, 1.0, point);
    assert_eq!(at(0.0), Some(0));
    assert_eq!(at(0.124), Some(0));
    assert_eq!(at(0.126), Some(2));
    assert_eq!(at(0.374), Some(2));
    assert_eq!(at(0.376), Some(4));
    assert_eq!(at(0.999_999_999), Some(4));
    // Nothing that cannot be is drawn, also at the very ends.
    let forbidden = [f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY];
    assert_eq!(draw(&forbidden, [0..3, 3..3], 0.0, 1.0, 0.0), Some(1));
    assert_eq!(draw(&forbidden, [0..3, 3..3], 0.0, 1.0, 1.0), Some(1));
    assert_eq!(draw(&forbidden, [0..1, 2..3], 0.0, 1.0, 0.5), None);
}
