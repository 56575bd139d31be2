//! Files that are cut or changed anywhere are errors in words or smaller models, never a panic, a hang or an absurd
//! allocation.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail by panicking")]

use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use tsserve_models::checkpoint::Checkpoint;
use tsserve_models::error::ModelError;
use tsserve_models::weights::{ModelFiles, Weights};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

/// A folder of this test, gone when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("tsserve-broken-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.0);
    }
}

/// xorshift64*: the same cases on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    }
}

/// A cut, some changed bytes, or an 8-byte number replaced by an extreme one.
fn damage(file: &[u8], header: usize, random: &mut Random) -> Vec<u8> {
    let mut damaged = file.to_vec();
    match random.below(4) {
        0 => damaged.truncate(random.below(file.len())),
        1 => damaged.truncate(random.below(header)),
        2 => {
            for _ in 0..1 + random.below(4) {
                damaged[random.below(header)] = random.below(256) as u8;
            }
        }
        _ => {
            let extremes = [u64::MAX, u64::MAX / 2, 1 << 62, 1 << 40, 1 << 32, u64::from(u32::MAX), 0];
            let at = random.below(header - 8);
            damaged[at..at + 8].copy_from_slice(&extremes[random.below(extremes.len())].to_le_bytes());
        }
    }
    damaged
}

/// Opens, and loads everything where that succeeds.
fn exercise(files: &ModelFiles) -> Result<(), ModelError> {
    let checkpoint = Checkpoint::open(files)?;
    _ = (checkpoint.gguf_tokenizer(), checkpoint.weights().format_summary(), checkpoint.weights().f32_bytes());
    for role in checkpoint.roles() {
        checkpoint.load(role, DType::F32, &Device::Cpu)?;
    }
    for name in checkpoint.weights().names() {
        _ = checkpoint.weights().tensor_f32(name);
    }
    Ok(())
}

#[test]
fn damaged_gguf_files_are_errors() {
    let folder = Folder::new("gguf");
    let path = folder.0.join("model.gguf");
    let mut refused = 0;
    for name in ["llama_mixed32.gguf", "qwen3_kquants.gguf"] {
        let file = std::fs::read(fixtures().join("golden/quant").join(name)).unwrap();
        // All of the metadata, and the tensor entries behind it.
        let header = file.windows(11).rposition(|w| w == b"output_norm").unwrap() + 64;
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for _ in 0..2500 {
            std::fs::write(&path, damage(&file, header, &mut random)).unwrap();
            if let Err(error) = exercise(&ModelFiles::Gguf { file: path.clone() }) {
                refused += 1;
                assert!(["model_broken", "model_unsupported"].contains(&error.code()), "{error}");
                assert!(!error.to_string().is_empty());
            }
        }
    }
    assert!(refused > 2500, "{refused}");
}

#[test]
fn every_short_gguf_file_is_an_error() {
    let folder = Folder::new("short");
    let path = folder.0.join("model.gguf");
    let file = std::fs::read(fixtures().join("golden/quant/llama_mixed32.gguf")).unwrap();
    for len in (0..2048).chain((2048..file.len()).step_by(509)).chain([file.len() - 1]) {
        std::fs::write(&path, &file[..len]).unwrap();
        assert_eq!(exercise(&ModelFiles::Gguf { file: path.clone() }).unwrap_err().code(), "model_broken", "{len}");
    }
}

#[test]
fn damaged_safetensors_files_are_errors() {
    let folder = Folder::new("safetensors");
    let source = fixtures().join("models/qwen2");
    std::fs::copy(source.join("config.json"), folder.0.join("config.json")).unwrap();
    let file = std::fs::read(source.join("model.safetensors")).unwrap();
    let header = 8 + u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let path = folder.0.join("model.safetensors");
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let mut refused = 0;
    for _ in 0..1500 {
        std::fs::write(&path, damage(&file, header, &mut random)).unwrap();
        if let Err(error) = ModelFiles::discover(&folder.0).map_err(ModelError::from).and_then(|f| exercise(&f)) {
            refused += 1;
            assert!(["model_broken", "model_unsupported"].contains(&error.code()), "{error}");
        }
    }
    assert!(refused > 750, "{refused}");
}

#[test]
fn damaged_configs_are_errors() {
    let folder = Folder::new("config");
    let source = fixtures().join("models/gemma3_text");
    std::fs::copy(source.join("model.safetensors"), folder.0.join("model.safetensors")).unwrap();
    let file = std::fs::read(source.join("config.json")).unwrap();
    let mut random = Random(77);
    for _ in 0..500 {
        let mut damaged = file.clone();
        for _ in 0..3 {
            let at = random.below(damaged.len());
            damaged[at] = b"0123456789-.e[]{}\"n"[random.below(19)];
        }
        std::fs::write(folder.0.join("config.json"), damaged).unwrap();
        if let Err(error) = exercise(&ModelFiles::discover(&folder.0).unwrap()) {
            assert!(["model_broken", "model_unsupported"].contains(&error.code()), "{error}");
        }
    }
    // Deeper than any parser's stack.
    std::fs::write(folder.0.join("config.json"), "[".repeat(1 << 20)).unwrap();
    assert_eq!(exercise(&ModelFiles::discover(&folder.0).unwrap()).unwrap_err().code(), "model_broken");
}

#[test]
fn files_that_are_something_else_are_named() {
    let folder = Folder::new("other");
    let path = folder.0.join("model.gguf");
    let open = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        Weights::open(&ModelFiles::Gguf { file: path.clone() }).err().unwrap()
    };
    assert!(open(b"").to_string().contains("empty"));
    assert!(open(b"version https://git-lfs.github.com/spec/v1\noid sha256:00").to_string().contains("LFS"));
    assert!(open(b"PK\x03\x04 and so on").to_string().contains("GGUF"));
    assert!(open(b"GGUF\x01\0\0\0\0\0\0\0\0\0\0\0").to_string().contains("version 1"));
    assert!(open(b"GGUF\0\0\0\x03\0\0\0\0\0\0\0\0").to_string().contains("big-endian"));
    assert!(open(b"GGUF\x09\0\0\0\0\0\0\0\0\0\0\0").to_string().contains("version 9"));
    let mut split = b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0".to_vec();
    split.extend([11, 0, 0, 0, 0, 0, 0, 0]);
    split.extend(b"split.count\x02\0\0\0\x03\0");
    let error = open(&split);
    assert!(error.to_string().contains("3 parts"), "{error}");
    assert_eq!(error.code(), "model_unsupported");
}

#[test]
fn weights_that_do_not_fit_the_config_are_named() {
    let folder = Folder::new("misfit");
    let source = fixtures().join("models/llama");
    std::fs::copy(source.join("model.safetensors"), folder.0.join("model.safetensors")).unwrap();
    let config = std::fs::read_to_string(source.join("config.json")).unwrap();
    let open = |from: &str, to: &str| {
        assert!(config.contains(from));
        std::fs::write(folder.0.join("config.json"), config.replace(from, to)).unwrap();
        Checkpoint::open(&ModelFiles::discover(&folder.0).unwrap()).err().unwrap()
    };
    let error = open("\"intermediate_size\": 144", "\"intermediate_size\": 160");
    assert_eq!(error.code(), "model_broken");
    let text = error.to_string();
    assert!(
        text.contains("mlp.gate_proj.weight") && text.contains("[144, 64]") && text.contains("[160, 64]"),
        "{text}"
    );
    let text = open("\"num_hidden_layers\": 4", "\"num_hidden_layers\": 5").to_string();
    assert!(text.contains("model.layers.4."), "{text}");
}

#[test]
fn a_tensor_of_unreadable_type_is_named() {
    let folder = Folder::new("type");
    let path = folder.0.join("model.gguf");
    let mut file = std::fs::read(fixtures().join("golden/quant/qwen3_kquants.gguf")).unwrap();
    // The type number follows the name, the number of dimensions and two dimensions.
    let name = b"blk.0.attn_v.weight";
    let at = file.windows(name.len()).position(|w| w == name).unwrap() + name.len() + 4 + 16;
    assert_eq!(file[at], 14);
    for (number, text) in [(22, "IQ2_S"), (99, "number 99")] {
        file[at] = number;
        std::fs::write(&path, &file).unwrap();
        let error = Checkpoint::open(&ModelFiles::Gguf { file: path.clone() }).err().unwrap();
        assert_eq!(error.code(), "model_unsupported");
        let said = error.to_string();
        assert!(said.contains("blk.0.attn_v.weight") && said.contains(text), "{said}");
    }
}
