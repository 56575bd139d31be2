//! Rotary embeddings: inverse frequencies once, cosines and sines per step for the positions that run in it.

use candle_core::{DType, Device, Result, Tensor};

use crate::architecture::{Rope, RopeScaling};

/// Inverse frequencies of one rope, `rotary_dim / 2` of them.
#[derive(Debug, Clone)]
pub struct RopeFrequencies {
    inverse: Vec<f32>,
}

impl RopeFrequencies {
    pub fn new(rope: &Rope) -> Self {
        let half = rope.rotary_dim / 2;
        let plain = (0..half).map(|i| rope.theta.powf(-((2 * i) as f64) / rope.rotary_dim as f64));
        let inverse = match &rope.scaling {
            RopeScaling::None => plain.map(|f| f as f32).collect(),
            RopeScaling::Linear { factor } => plain.map(|f| (f / factor) as f32).collect(),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position } => {
                let original = *original_max_position as f64;
                plain.map(|f| llama3(f, *factor, *low_freq_factor, *high_freq_factor, original) as f32).collect()
            }
            RopeScaling::Factors(factors) => {
                plain.zip(factors).map(|(f, factor)| (f / f64::from(*factor)) as f32).collect()
            }
        };
        Self { inverse }
    }

    /// Cosines and sines per position.
    pub fn half(&self) -> usize {
        self.inverse.len()
    }

    /// Cosines and sines of the angles at one position, `half` of each. Angles are f32 products, as the reference
    /// computes them.
    pub fn fill(&self, position: usize, cos: &mut [f32], sin: &mut [f32]) {
        for ((&frequency, cos), sin) in self.inverse.iter().zip(cos).zip(sin) {
            (*sin, *cos) = (position as f32 * frequency).sin_cos();
        }
    }

    /// Cosines and sines of the angles, each `[positions, rotary_dim / 2]`.
    pub fn table(&self, positions: &[usize]) -> RopeTable {
        let half = self.half();
        let (mut cos, mut sin) = (vec![0.0; positions.len() * half], vec![0.0; positions.len() * half]);
        for (i, &position) in positions.iter().enumerate() {
            let row = i * half..(i + 1) * half;
            self.fill(position, &mut cos[row.clone()], &mut sin[row]);
        }
        RopeTable { half, cos, sin }
    }
}

/// Cosines and sines for the tokens of one step, on the host.
#[derive(Debug)]
pub struct RopeTable {
    /// Values per token.
    pub half: usize,
    pub cos: Vec<f32>,
    pub sin: Vec<f32>,
}

impl RopeTable {
    /// `[tokens, half]` each, on the device.
    pub fn to_device(&self, device: &Device, dtype: DType) -> Result<(Tensor, Tensor)> {
        let shape = (self.cos.len() / self.half.max(1), self.half);
        let cos = Tensor::from_slice(&self.cos, shape, device)?.to_dtype(dtype)?;
        let sin = Tensor::from_slice(&self.sin, shape, device)?.to_dtype(dtype)?;
        Ok((cos, sin))
    }
}

/// Llama 3.1's rule: low frequencies are divided by `factor`, high ones stay, between them it is blended.
fn llama3(frequency: f64, factor: f64, low: f64, high: f64, original: f64) -> f64 {
    let wavelength = 2.0 * std::f64::consts::PI / frequency;
    if wavelength > original / low {
        frequency / factor
    } else if wavelength < original / high {
        frequency
    } else {
        let smooth = (original / wavelength - low) / (high - low);
        (1.0 - smooth) * frequency / factor + smooth * frequency
    }
}
