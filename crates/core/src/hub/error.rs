//! Why a model could not be found or fetched, in sentences a user can act on.

use std::path::PathBuf;

/// Every way in which looking up or downloading a model fails.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The text given as a model cannot name one.
    #[error("'{spec}' does not name a model: {reason}")]
    InvalidSpec { spec: String, reason: String },
    /// No such folder, file, repository, revision or file of a repository; or it would have to be downloaded and may not.
    #[error("{message}")]
    ModelNotFound { message: String },
    /// The hub refuses access (401 or 403).
    #[error("{message}")]
    Gated { message: String },
    /// No answer from the hub.
    #[error(
        "cannot reach {host} ({reason}), and {what} is not in the cache; check the network or HF_ENDPOINT, or set HF_HUB_OFFLINE=1 to use only what is in the cache"
    )]
    Unreachable { host: String, reason: String, what: String },
    /// Not enough room for what is still to be downloaded.
    #[error(
        "{what} needs {} more on disk, but only {} are free in {} (HF_HOME moves the cache)",
        format_bytes(*.needed), format_bytes(*.free), .folder.display()
    )]
    DiskFull { what: String, needed: u64, free: u64, folder: PathBuf },
    /// The repository or folder is there, but holds nothing that can be loaded, or several things of which one must be named.
    #[error("{message}")]
    NoWeights { message: String },
    /// The caller raised the cancel flag.
    #[error("the download was cancelled")]
    Cancelled,
    /// The hub answered, but the file could not be fetched whole.
    #[error("{message}")]
    BrokenDownload { message: String },
    /// The cache folder cannot be read or written.
    #[error("cannot use {} ({source})", .path.display())]
    Cache { path: PathBuf, source: std::io::Error },
}

impl HubError {
    /// The stable name of the kind of failure.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidSpec { .. } => "invalid_spec",
            Self::ModelNotFound { .. } => "model_not_found",
            Self::Gated { .. } => "gated",
            Self::Unreachable { .. } => "hub_unreachable",
            Self::DiskFull { .. } => "disk_full",
            Self::NoWeights { .. } => "no_weights",
            Self::Cancelled => "cancelled",
            Self::BrokenDownload { .. } => "broken_download",
            Self::Cache { .. } => "cache_error",
        }
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::ModelNotFound { message: message.into() }
    }

    pub(super) fn broken(message: impl Into<String>) -> Self {
        Self::BrokenDownload { message: message.into() }
    }

    pub(super) fn cache(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Cache { path: path.into(), source }
    }
}

/// A size for people, in decimal units: `1.2 GB`.
pub(super) fn format_bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes} bytes");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// The innermost cause of an error, which is the part that says something ("connection refused").
pub(super) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let text = cause.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_well() {
        let texts: Vec<_> = [0, 999, 1000, 999_950, 1_234_567_890].into_iter().map(format_bytes).collect();
        assert_eq!(texts, ["0 bytes", "999 bytes", "1.0 kB", "1.0 MB", "1.2 GB"]);
    }

    #[test]
    fn a_full_disk_names_both_figures() {
        let error = HubError::DiskFull { what: "a/b".into(), needed: 2_000_000, free: 10_000, folder: "/c".into() };
        assert_eq!(
            error.to_string(),
            "a/b needs 2.0 MB more on disk, but only 10.0 kB are free in /c (HF_HOME moves the cache)"
        );
        assert_eq!(error.code(), "disk_full");
    }
}
