//! Why a model's description could not be understood.

/// Why a model's description (config.json, generation_config.json or GGUF metadata) could not be understood.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    #[error("{file} is not valid JSON")]
    Json {
        file: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("{file} could not be read")]
    Io {
        file: String,
        #[source]
        source: std::io::Error,
    },
    #[error("the model's configuration has no {key}")]
    Missing { key: String },
    /// `expected` ends the sentence: "a whole number from 1 to 1048576".
    #[error("the model's configuration has {key} = {found}, expected {expected}")]
    Invalid { key: String, found: String, expected: String },
    #[error("models of type \"{model_type}\" are not supported (supported: {})", supported.join(", "))]
    UnsupportedFamily { model_type: String, supported: Vec<&'static str> },
    #[error("{what} is not supported")]
    Unsupported { what: String },
}

impl ConfigError {
    /// Stable code for matching: `model_broken` or `model_unsupported`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Json { .. } | Self::Io { .. } | Self::Missing { .. } | Self::Invalid { .. } => "model_broken",
            Self::UnsupportedFamily { .. } | Self::Unsupported { .. } => "model_unsupported",
        }
    }
}
