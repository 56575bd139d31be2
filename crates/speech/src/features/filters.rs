//! The mel filter bank.

use super::mel::BINS;
use crate::features::SAMPLE_RATE;

/// Triangles on the mel scale of Slaney's Auditory Toolbox from 0 to 8 kHz, each of area 1 (librosa's `htk=False,
/// norm="slaney"`): what Whisper was trained with.
#[derive(Debug, Clone, PartialEq)]
pub struct MelFilters {
    filters: Vec<Filter>,
}

/// Bins outside have weight 0.
#[derive(Debug, Clone, PartialEq)]
struct Filter {
    first: usize,
    weights: Vec<f64>,
}

impl MelFilters {
    /// Whisper has 80 or 128 filters.
    #[must_use]
    pub fn new(n_mels: usize) -> Self {
        let top = to_mel(f64::from(SAMPLE_RATE) / 2.0);
        let edges: Vec<f64> = (0..n_mels + 2).map(|i| to_hertz(top * i as f64 / (n_mels + 1) as f64)).collect();
        let filters = edges
            .windows(3)
            .map(|edge| {
                let (low, peak, high) = (edge[0], edge[1], edge[2]);
                let weight = |bin: usize| {
                    let hertz = bin as f64 * f64::from(SAMPLE_RATE) / (2 * (BINS - 1)) as f64;
                    let slope = ((hertz - low) / (peak - low)).min((high - hertz) / (high - peak));
                    slope.max(0.0) * 2.0 / (high - low)
                };
                let first = (0..BINS).find(|&bin| weight(bin) > 0.0).unwrap_or(0);
                Filter { first, weights: (first..BINS).map(weight).take_while(|&weight| weight > 0.0).collect() }
            })
            .collect();
        Self { filters }
    }

    #[must_use]
    pub fn n_mels(&self) -> usize {
        self.filters.len()
    }

    /// The filters' weights, `[201][n_mels]`.
    #[must_use]
    pub fn dense(&self) -> Vec<f32> {
        let mut dense = vec![0.0; BINS * self.n_mels()];
        for (mel, filter) in self.filters.iter().enumerate() {
            for (i, &weight) in filter.weights.iter().enumerate() {
                dense[(filter.first + i) * self.n_mels() + mel] = weight as f32;
            }
        }
        dense
    }

    /// Energy in each filter, of the power in each of 201 bins.
    pub(super) fn apply<'a>(&'a self, power: &'a [f64]) -> impl Iterator<Item = f64> + 'a {
        self.filters
            .iter()
            .map(|filter| filter.weights.iter().zip(&power[filter.first..]).map(|(weight, power)| weight * power).sum())
    }
}

/// Linear up to 1 kHz, logarithmic from there on.
fn to_mel(hertz: f64) -> f64 {
    if hertz < 1000.0 { hertz * 3.0 / 200.0 } else { 15.0 + (hertz / 1000.0).ln() * 27.0 / 6.4f64.ln() }
}

fn to_hertz(mel: f64) -> f64 {
    if mel < 15.0 { mel * 200.0 / 3.0 } else { 1000.0 * ((mel - 15.0) * 6.4f64.ln() / 27.0).exp() }
}
