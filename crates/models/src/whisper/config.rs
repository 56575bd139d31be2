//! Sizes of a Whisper checkpoint.

use serde_json::Value;

use crate::config::ConfigError;

/// Sizes of a Whisper checkpoint. All are within the bounds that [`WhisperConfig::check`] holds them to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WhisperConfig {
    /// Bins of the log-mel features.
    pub n_mels: usize,
    /// Width of the residual streams, of encoder and decoder alike.
    pub width: usize,
    /// Positions of an encoded window, each of two mel frames.
    pub audio_context: usize,
    pub encoder_layers: usize,
    pub encoder_heads: usize,
    /// Inner width of the encoder's MLPs.
    pub encoder_inner: usize,
    /// Longest sequence of the decoder, in tokens.
    pub text_context: usize,
    pub decoder_layers: usize,
    pub decoder_heads: usize,
    pub decoder_inner: usize,
    pub vocab_size: usize,
}

impl WhisperConfig {
    /// From a config.json of transformers.
    ///
    /// # Errors
    /// Another kind of model, keys that are missing or make no sense, or variants that no Whisper model has.
    pub fn from_json(config: &Value) -> Result<Self, ConfigError> {
        let model_type = config.get("model_type").and_then(Value::as_str).unwrap_or_default();
        if model_type != "whisper" {
            let model_type = model_type.to_owned();
            return Err(ConfigError::UnsupportedFamily { model_type, supported: vec!["whisper"] });
        }
        let unsupported = |what: &str| Err(ConfigError::Unsupported { what: what.to_owned() });
        match config.get("activation_function").and_then(Value::as_str) {
            None | Some("gelu") => {}
            Some(_) => return unsupported("a Whisper model with another activation than gelu"),
        }
        let is = |key: &str, value: bool| config.get(key).and_then(Value::as_bool) == Some(value);
        if is("tie_word_embeddings", false) {
            return unsupported("a Whisper model with a head of its own");
        }
        if is("scale_embedding", true) {
            return unsupported("a Whisper model with scaled embeddings");
        }
        let size = |key: &str| match config.get(key) {
            None | Some(Value::Null) => Err(ConfigError::Missing { key: key.to_owned() }),
            Some(value) => value
                .as_u64()
                .and_then(|n| usize::try_from(n).ok())
                .ok_or_else(|| invalid(key, &value.to_string(), "a whole number that is not negative")),
        };
        Self {
            n_mels: size("num_mel_bins")?,
            width: size("d_model")?,
            audio_context: size("max_source_positions")?,
            encoder_layers: size("encoder_layers")?,
            encoder_heads: size("encoder_attention_heads")?,
            encoder_inner: size("encoder_ffn_dim")?,
            text_context: size("max_target_positions")?,
            decoder_layers: size("decoder_layers")?,
            decoder_heads: size("decoder_attention_heads")?,
            decoder_inner: size("decoder_ffn_dim")?,
            vocab_size: size("vocab_size")?,
        }
        .check()
    }

    /// The same, if all sizes are such as a Whisper model may have here.
    ///
    /// # Errors
    /// The first that is not.
    pub fn check(self) -> Result<Self, ConfigError> {
        let within = [
            ("num_mel_bins", self.n_mels, 512),
            ("d_model", self.width, 16_384),
            ("max_source_positions", self.audio_context, 16_384),
            ("encoder_layers", self.encoder_layers, 256),
            ("encoder_attention_heads", self.encoder_heads, 256),
            ("encoder_ffn_dim", self.encoder_inner, 65_536),
            ("max_target_positions", self.text_context, 16_384),
            ("decoder_layers", self.decoder_layers, 256),
            ("decoder_attention_heads", self.decoder_heads, 256),
            ("decoder_ffn_dim", self.decoder_inner, 65_536),
            ("vocab_size", self.vocab_size, 1 << 20),
        ];
        for (key, value, most) in within {
            if value == 0 || value > most {
                return Err(invalid(key, &value.to_string(), &format!("a whole number from 1 to {most}")));
            }
        }
        for heads in [self.encoder_heads, self.decoder_heads] {
            // Attention takes 16 dimensions at a time.
            if !self.width.is_multiple_of(heads * 16) {
                let what = format!("a Whisper model of width {} with {heads} heads", self.width);
                return Err(ConfigError::Unsupported { what });
            }
        }
        for inner in [self.encoder_inner, self.decoder_inner] {
            if !inner.is_multiple_of(16) {
                return Err(ConfigError::Unsupported { what: format!("a Whisper model with an MLP of {inner}") });
            }
        }
        Ok(self)
    }

    /// Mel frames of a window.
    pub fn window_frames(&self) -> usize {
        2 * self.audio_context
    }
}

/// Are features made as this crate's user will make them?
///
/// # Errors
/// A preprocessor_config.json or processor_config.json that says otherwise.
pub(super) fn check_features(json: &Value, config: &WhisperConfig) -> Result<(), ConfigError> {
    let features = json.get("feature_extractor").unwrap_or(json);
    let expected = [("feature_size", config.n_mels), ("sampling_rate", 16_000), ("n_fft", 400), ("hop_length", 160)];
    for (key, expected) in expected {
        match features.get(key).filter(|value| !value.is_null()) {
            Some(value) if value.as_u64() != Some(expected as u64) => {
                return Err(invalid(key, &value.to_string(), &expected.to_string()));
            }
            _ => {}
        }
    }
    Ok(())
}

pub(super) fn invalid(key: &str, found: &str, expected: &str) -> ConfigError {
    ConfigError::Invalid { key: key.to_owned(), found: found.chars().take(80).collect(), expected: expected.to_owned() }
}
