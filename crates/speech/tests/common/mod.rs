//! Fixtures of the speech tests.
#![allow(dead_code, reason = "each test file uses a part of this")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

use std::path::PathBuf;
use std::sync::Arc;

use tsserve_speech::{AudioInput, AudioReader, SpeechError};

pub fn fixture(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures")).join(path)
}

pub fn bytes(path: &str) -> Vec<u8> {
    std::fs::read(fixture(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

pub fn json(path: &str) -> serde_json::Value {
    serde_json::from_slice(&bytes(path)).unwrap()
}

/// A tensor of f32 or i16 (divided by 32768) as f32, with its shape.
pub fn tensor(file: &[u8], name: &str) -> (Vec<f32>, Vec<usize>) {
    let tensors = safetensors::SafeTensors::deserialize(file).unwrap();
    let view = tensors.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
    let values = match view.dtype() {
        safetensors::Dtype::F32 => {
            view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
        }
        safetensors::Dtype::I16 => view
            .data()
            .chunks_exact(2)
            .map(|b| f32::from(i16::from_le_bytes(b.try_into().unwrap())) / 32768.0)
            .collect(),
        other => panic!("{name}: {other:?}"),
    };
    (values, view.shape().to_vec())
}

pub fn input(bytes: impl Into<Arc<[u8]>>) -> AudioInput {
    AudioInput::Bytes { bytes: bytes.into(), name: None }
}

/// All samples.
pub fn decode(input: &AudioInput) -> Result<Vec<f32>, SpeechError> {
    let mut reader = AudioReader::open(input)?;
    let mut samples = Vec::new();
    while reader.read(&mut samples)? {}
    Ok(samples)
}

pub fn rms(samples: &[f32]) -> f64 {
    (samples.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / samples.len() as f64).sqrt()
}

/// Seeded; the same on every machine.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

/// A WAV file of 16-bit samples.
pub fn wav(rate: u32, channels: u16, samples: &[i16]) -> Vec<u8> {
    let data: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    let mut file = wav_header(rate, channels, data.len() as u32);
    file.extend(data);
    file
}

/// Of 16-bit samples, `size` bytes of which follow.
pub fn wav_header(rate: u32, channels: u16, size: u32) -> Vec<u8> {
    let block = channels.wrapping_mul(2);
    let mut file = Vec::new();
    file.extend(b"RIFF");
    file.extend(size.wrapping_add(36).to_le_bytes());
    file.extend(b"WAVEfmt ");
    file.extend(16u32.to_le_bytes());
    file.extend(1u16.to_le_bytes());
    file.extend(channels.to_le_bytes());
    file.extend(rate.to_le_bytes());
    file.extend(rate.wrapping_mul(u32::from(block)).to_le_bytes());
    file.extend(block.to_le_bytes());
    file.extend(16u16.to_le_bytes());
    file.extend(b"data");
    file.extend(size.to_le_bytes());
    file
}

/// Gives each page of an Ogg file the checksum that fits, as far as pages can be followed.
pub fn with_ogg_checksums(file: &mut [u8]) {
    let mut at = 0;
    while file.len() >= at + 27 && file[at..].starts_with(b"OggS") {
        let segments = usize::from(file[at + 26]);
        let Some(table) = file.get(at + 27..at + 27 + segments) else { return };
        let end = at + 27 + segments + table.iter().map(|&len| usize::from(len)).sum::<usize>();
        if end > file.len() {
            return;
        }
        file[at + 22..at + 26].fill(0);
        let mut crc = 0u32;
        for &byte in &file[at..end] {
            crc ^= u32::from(byte) << 24;
            for _ in 0..8 {
                crc = crc << 1 ^ if crc >> 31 == 1 { 0x04c1_1db7 } else { 0 };
            }
        }
        file[at + 22..at + 26].copy_from_slice(&crc.to_le_bytes());
        at = end;
    }
}
