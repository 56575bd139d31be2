//! From a MODEL to files on this machine: the cache first, then the hub.

use std::future::poll_fn;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::cache::{Cached, Found, RepoCache, check_folder};
use super::client::{FileInfo, HubClient};
use super::download::{Downloader, Progress};
use super::select::{self, EXPECTED, INDEX, Selection, Unloadable};
use super::spec::hub_id;
use super::{HubConfig, HubError, HubProgress, ModelSource, ModelSpec, ResolvedModel};

/// Files asked about or fetched at the same time.
const PARALLEL_INFOS: usize = 8;
const PARALLEL_DOWNLOADS: usize = 4;
/// A raised cancel flag is seen within this time, whatever is being waited for.
const CANCEL_POLL: Duration = Duration::from_millis(20);

/// Finds a model on this machine, downloading what is missing. Blocks: to be called from a worker thread, never from inside
/// an async task.
///
/// `progress` hears of bytes as they come; raising `cancel` ends the call with [`HubError::Cancelled`] within
/// a fraction of a second, and what was downloaded is kept for the next attempt.
///
/// # Errors
/// Every [`HubError`] but `invalid_spec` for the model itself (a bad HF_ENDPOINT is one).
pub fn resolve(
    spec: &ModelSpec,
    config: &HubConfig,
    progress: &mut dyn FnMut(HubProgress),
    cancel: &AtomicBool,
) -> Result<ResolvedModel, HubError> {
    match spec.source() {
        ModelSource::Folder(path) => local_folder(spec, path),
        ModelSource::File(path) => {
            Ok(ResolvedModel { id: spec.id().to_owned(), path: path.clone(), revision: None, warnings: Vec::new() })
        }
        ModelSource::Hub { repo, revision, file } => {
            let hub = HubModel {
                config,
                repo,
                revision,
                file: file.as_deref(),
                cache: RepoCache::new(&config.cache_dir, repo),
            };
            hub.resolve(&Progress::new(progress), cancel)
        }
    }
}

fn local_folder(spec: &ModelSpec, path: &Path) -> Result<ResolvedModel, HubError> {
    let place = path.display().to_string();
    let found = match check_folder(path, 0) {
        Ok(Found::File(name)) => path.join(name),
        Ok(Found::Folder { .. }) => path.to_path_buf(),
        Err(Some(why)) => return Err(HubError::NoWeights { message: why.describe(&place, None) }),
        Err(None) => {
            return Err(HubError::NoWeights { message: format!("{place} lacks weights that its {INDEX} names") });
        }
    };
    Ok(ResolvedModel { id: spec.id().to_owned(), path: found, revision: None, warnings: Vec::new() })
}

/// One model of the hub.
struct HubModel<'a> {
    config: &'a HubConfig,
    repo: &'a str,
    revision: &'a str,
    file: Option<&'a str>,
    cache: RepoCache,
}

impl HubModel<'_> {
    fn resolve(&self, progress: &Progress<'_>, cancel: &AtomicBool) -> Result<ResolvedModel, HubError> {
        let may_ask = !self.config.offline && !self.config.no_download;
        let cached = self.cache.lookup(self.revision, self.file);
        if let (Cached::Complete { commit, path, file }, true) = (&cached, !self.config.refresh || !may_ask) {
            return Ok(self.resolved(commit, path.clone(), file.as_deref()));
        }
        if !may_ask {
            return self.use_cache_only(cached);
        }
        let error = match run(self.ask_hub(progress), cancel) {
            Ok(resolved) => return Ok(resolved),
            Err(error) => error,
        };
        // Whatever keeps the hub from giving it, what is here can be used.
        let (commit, path, file) = match (&error, cached) {
            (HubError::Cancelled | HubError::InvalidSpec { .. }, _) => return Err(error),
            (_, Cached::Complete { commit, path, file }) => (commit, path, file),
            (_, Cached::Usable { commit, path, .. }) => (commit, path, None),
            (_, Cached::Unclear(_) | Cached::Absent) => return Err(error),
        };
        let reason = match &error {
            HubError::Unreachable { host, reason, .. } => format!("cannot reach {host} ({reason})"),
            other => other.to_string(),
        };
        let warning = format!("{reason}; using the copy of {} in the cache", self.what());
        Ok(ResolvedModel { warnings: vec![warning], ..self.resolved(&commit, path, file.as_deref()) })
    }

    fn use_cache_only(&self, cached: Cached) -> Result<ResolvedModel, HubError> {
        match cached {
            Cached::Complete { commit, path, file } => Ok(self.resolved(&commit, path, file.as_deref())),
            Cached::Usable { commit, path, missing } => {
                let warning = format!("the copy of {} in the cache has no {}", self.what(), missing.join(", "));
                Ok(ResolvedModel { warnings: vec![warning], ..self.resolved(&commit, path, None) })
            }
            Cached::Unclear(why) => Err(self.unloadable(&why)),
            Cached::Absent => {
                let reason = if self.config.no_download { "--no-download" } else { "HF_HUB_OFFLINE" };
                let (what, dir) = (hub_id(self.repo, self.revision, self.file), self.config.cache_dir.display());
                Err(HubError::not_found(format!(
                    "{what} is not (or not completely) in the cache at {dir}, and downloads are off ({reason})"
                )))
            }
        }
    }

    async fn ask_hub(&self, progress: &Progress<'_>) -> Result<ResolvedModel, HubError> {
        let client = HubClient::new(self.config, self.repo, self.revision)?;
        let info = client.repo_info().await?;
        let commit = info.commit.as_str();
        let selection = select::select(&info.files, self.file).map_err(|why| self.unloadable(&why))?;
        let downloader = Downloader { client: &client, cache: &self.cache, config: self.config, commit };

        let (names, file) = match selection {
            Selection::File(name) => (vec![name.clone()], Some(name)),
            Selection::Folder { mut files, sharded } => {
                if sharded {
                    // Which weights there are is only known once the index is here.
                    self.fetch_all(&downloader, &[INDEX.to_owned()], progress).await?;
                    files.extend(self.shards(commit, &info.files)?);
                }
                (files, None)
            }
        };
        self.fetch_all(&downloader, &names, progress).await?;
        if file.is_none() {
            for name in EXPECTED.iter().filter(|name| !info.files.iter().any(|file| file == *name)) {
                self.cache.note_absent(commit, name)?;
            }
        }
        self.cache.write_ref(self.revision, commit)?;
        let folder = self.cache.snapshot(commit);
        let path = file.as_ref().map_or_else(|| folder.clone(), |name| folder.join(name));
        Ok(self.resolved(commit, path, file.as_deref()))
    }

    /// Fetches those of the named files that the snapshot lacks.
    async fn fetch_all(
        &self,
        downloader: &Downloader<'_>,
        names: &[String],
        progress: &Progress<'_>,
    ) -> Result<(), HubError> {
        let commit = downloader.commit;
        let missing = names.iter().filter(|name| self.cache.file(commit, name).is_none());
        let infos: Vec<FileInfo> = stream::iter(missing)
            .map(|name| downloader.client.file_info(commit, name))
            .buffered(PARALLEL_INFOS)
            .try_collect()
            .await?;
        if infos.is_empty() {
            return Ok(());
        }
        let needed = infos.iter().map(|info| downloader.missing_bytes(info)).sum();
        let blobs = self.cache.make_blobs()?;
        if let Some(free) = (self.config.free_space)(&blobs).filter(|free| *free < needed) {
            return Err(HubError::DiskFull { what: self.what(), needed, free, folder: self.config.cache_dir.clone() });
        }
        progress.expect(infos.iter().filter_map(|info| info.size).sum());
        stream::iter(&infos)
            .map(|info| downloader.fetch(info, progress))
            .buffer_unordered(PARALLEL_DOWNLOADS)
            .try_collect::<()>()
            .await
    }

    fn shards(&self, commit: &str, files: &[String]) -> Result<Vec<String>, HubError> {
        let no_weights = |why: String| HubError::NoWeights { message: format!("{}: {why}", self.what()) };
        let shards = select::shards(&self.cache.snapshot(commit).join(INDEX)).map_err(no_weights)?;
        match shards.iter().find(|shard| !files.contains(shard)) {
            Some(absent) => Err(no_weights(format!("{INDEX} names {absent}, which is not there"))),
            None => Ok(shards.into_iter().collect()),
        }
    }

    fn unloadable(&self, why: &Unloadable) -> HubError {
        let message = why.describe(&self.what(), self.file);
        match why {
            Unloadable::NoSuchFile(_) => HubError::ModelNotFound { message },
            _ => HubError::NoWeights { message },
        }
    }

    fn resolved(&self, commit: &str, path: PathBuf, file: Option<&str>) -> ResolvedModel {
        ResolvedModel {
            id: hub_id(self.repo, self.revision, file),
            path,
            revision: Some(commit.to_owned()),
            warnings: Vec::new(),
        }
    }

    fn what(&self) -> String {
        hub_id(self.repo, self.revision, None)
    }
}

/// Drives a download on this thread until it ends or `cancel` is raised; then it is dropped where it stands, which closes
/// its files and frees its locks.
fn run<T>(work: impl Future<Output = Result<T, HubError>>, cancel: &AtomicBool) -> Result<T, HubError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| HubError::broken(format!("no network runtime ({error})")))?;
    let result = runtime.block_on(async {
        let mut work = pin!(work);
        let mut ticks = pin!(async {
            while !cancel.load(Ordering::Relaxed) {
                tokio::time::sleep(CANCEL_POLL).await;
            }
        });
        poll_fn(|context| {
            if cancel.load(Ordering::Relaxed) || ticks.as_mut().poll(context).is_ready() {
                return Poll::Ready(Err(HubError::Cancelled));
            }
            work.as_mut().poll(context)
        })
        .await
    });
    // A name lookup may still hang in a thread of the runtime; nobody waits for it.
    runtime.shutdown_background();
    result
}
