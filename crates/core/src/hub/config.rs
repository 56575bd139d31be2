//! Where models are kept and fetched from: the variables every Hugging Face library reads.

use std::path::{Path, PathBuf};
use std::time::Duration;

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// How to reach the hub and where its files lie on this machine.
#[derive(Clone)]
pub struct HubConfig {
    /// The folder that holds `models--owner--name` (`HF_HUB_CACHE`, else `HF_HOME/hub`).
    pub cache_dir: PathBuf,
    /// Base address of the hub, without a slash at its end (`HF_ENDPOINT`).
    pub endpoint: String,
    /// Sent to the hub, never to another host (`HF_TOKEN`, or the file that `hf auth login` writes).
    pub token: Option<String>,
    /// Use only what is in the cache (`HF_HUB_OFFLINE`).
    pub offline: bool,
    /// Use only what is in the cache (`--no-download`); differs from `offline` only in what errors say.
    pub no_download: bool,
    /// Ask the hub for the newest commit of the revision even if the cache holds one.
    pub refresh: bool,
    /// How often in a row a broken connection or a 5xx answer is tried again.
    pub retries: u32,
    /// Wait before the first retry; doubles with each, up to [`HubConfig::MAX_RETRY_DELAY`].
    pub retry_delay: Duration,
    /// Limit for opening a connection.
    pub connect_timeout: Duration,
    /// A connection over which nothing comes for this long counts as broken.
    pub read_timeout: Duration,
    /// Free bytes of the file system that holds a folder, `None` where it cannot be told. Replaced in tests.
    pub free_space: fn(&Path) -> Option<u64>,
}

impl HubConfig {
    /// No single wait between two attempts is longer.
    pub const MAX_RETRY_DELAY: Duration = Duration::from_secs(20);

    /// The settings of this process's environment.
    pub fn from_env() -> Self {
        Self::from_vars(|name| std::env::var(name).ok(), std::env::home_dir())
    }

    /// The settings of the given variables and home folder.
    pub fn from_vars(var: impl Fn(&str) -> Option<String>, home: Option<PathBuf>) -> Self {
        let var = |name: &str| var(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let folder = |name: &str| var(name).map(|value| expand_home(&value, home.as_deref()));
        let hf_home = folder("HF_HOME").unwrap_or_else(|| {
            let cache = folder("XDG_CACHE_HOME").or_else(|| home.as_ref().map(|home| home.join(".cache")));
            cache.unwrap_or_else(std::env::temp_dir).join("huggingface")
        });
        let cache_dir =
            folder("HF_HUB_CACHE").or_else(|| folder("HUGGINGFACE_HUB_CACHE")).unwrap_or_else(|| hf_home.join("hub"));
        let token_file = folder("HF_TOKEN_PATH").unwrap_or_else(|| hf_home.join("token"));
        let token = if is_true(var("HF_HUB_DISABLE_IMPLICIT_TOKEN")) {
            None
        } else {
            var("HF_TOKEN").or_else(|| {
                std::fs::read_to_string(token_file).ok().map(|t| t.trim().to_owned()).filter(|t| !t.is_empty())
            })
        };
        let endpoint = var("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned());
        Self {
            cache_dir,
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token,
            offline: is_true(var("HF_HUB_OFFLINE").or_else(|| var("TRANSFORMERS_OFFLINE"))),
            no_download: false,
            refresh: false,
            retries: 5,
            retry_delay: Duration::from_millis(500),
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(30),
            free_space,
        }
    }
}

impl std::fmt::Debug for HubConfig {
    /// Says whether there is a token, never which.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HubConfig")
            .field("cache_dir", &self.cache_dir)
            .field("endpoint", &self.endpoint)
            .field("token", &self.token.is_some())
            .field("offline", &self.offline)
            .field("no_download", &self.no_download)
            .field("refresh", &self.refresh)
            .finish_non_exhaustive()
    }
}

fn expand_home(value: &str, home: Option<&Path>) -> PathBuf {
    match (value.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(value),
    }
}

fn is_true(value: Option<String>) -> bool {
    value.is_some_and(|value| matches!(value.to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE"))
}

#[cfg(unix)]
fn free_space(folder: &Path) -> Option<u64> {
    let stats = rustix::fs::statvfs(folder).ok()?;
    Some(stats.f_bavail.saturating_mul(stats.f_frsize))
}

#[cfg(not(unix))]
fn free_space(folder: &Path) -> Option<u64> {
    let folder = folder.canonicalize().ok()?;
    let disks = sysinfo::Disks::new_with_refreshed_list();
    let holding = disks.list().iter().filter(|disk| {
        // Canonical Windows paths carry a `\\?\` before the drive, mount points do not.
        let mount = disk.mount_point();
        folder.starts_with(mount)
            || folder.to_string_lossy().trim_start_matches(r"\\?\").starts_with(&*mount.to_string_lossy())
    });
    holding.max_by_key(|disk| disk.mount_point().as_os_str().len()).map(sysinfo::Disk::available_space)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(vars: &[(&str, &str)]) -> HubConfig {
        HubConfig::from_vars(
            |name| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()),
            Some(PathBuf::from("/home/me")),
        )
    }

    #[test]
    fn the_cache_is_where_python_keeps_it() {
        let dir = |vars: &[(&str, &str)]| config(vars).cache_dir;
        assert_eq!(dir(&[]), Path::new("/home/me/.cache/huggingface/hub"));
        assert_eq!(dir(&[("XDG_CACHE_HOME", "/x")]), Path::new("/x/huggingface/hub"));
        assert_eq!(dir(&[("HF_HOME", "~/hf")]), Path::new("/home/me/hf/hub"));
        assert_eq!(dir(&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/models")]), Path::new("/models"));
    }

    #[test]
    fn endpoint_and_offline() {
        assert_eq!(config(&[]).endpoint, "https://huggingface.co");
        assert_eq!(config(&[("HF_ENDPOINT", "http://mirror:80/")]).endpoint, "http://mirror:80");
        assert!(!config(&[]).offline);
        assert!(!config(&[("HF_HUB_OFFLINE", "0")]).offline);
        assert!(config(&[("HF_HUB_OFFLINE", "1")]).offline);
        assert!(config(&[("HF_HUB_OFFLINE", "true")]).offline);
        assert!(config(&[("TRANSFORMERS_OFFLINE", "YES")]).offline);
    }

    #[test]
    fn the_token_comes_from_the_variable_then_from_the_file_and_is_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_str().unwrap();
        std::fs::write(folder.path().join("token"), "hf_file\n").unwrap();
        let other = folder.path().join("other");
        std::fs::write(&other, "hf_other").unwrap();
        let token = |vars: &[(&str, &str)]| config(vars).token;
        assert_eq!(token(&[("HF_HOME", home)]).as_deref(), Some("hf_file"));
        assert_eq!(token(&[("HF_HOME", home), ("HF_TOKEN", " hf_env\n")]).as_deref(), Some("hf_env"));
        assert_eq!(
            token(&[("HF_HOME", home), ("HF_TOKEN_PATH", other.to_str().unwrap())]).as_deref(),
            Some("hf_other")
        );
        assert_eq!(token(&[("HF_TOKEN", "x"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
        assert!(!format!("{:?}", config(&[("HF_TOKEN", "hf_secret")])).contains("hf_secret"));
    }

    #[test]
    fn free_space_of_a_real_folder_is_known() {
        let folder = tempfile::tempdir().unwrap();
        assert!(free_space(folder.path()).is_some_and(|bytes| bytes > 0));
    }
}
