//! Fetching blobs: resumable at any byte, also by a later process, and checked before they count.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use reqwest::header::CONTENT_RANGE;
use reqwest::{Response, StatusCode};
use sha2::{Digest, Sha256};

use super::cache::RepoCache;
use super::client::{Failure, FileInfo, HubClient};
use super::error::{format_bytes, root_cause};
use super::{HubConfig, HubError, HubProgress};

/// A connection that brought this much before it broke was a good one: the count of failures starts again.
const GOOD_CONNECTION_BYTES: u64 = 1 << 20;
/// Progress is reported at most this often, and at the start and end of each file.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);
/// How often a lock that somebody else holds is tried.
const LOCK_POLL: Duration = Duration::from_millis(50);
/// A resumed file is hashed in pieces of this size.
const HASH_PIECE: usize = 1 << 20;

/// Sums up the files of one model for whoever watches.
pub(super) struct Progress<'a> {
    inner: RefCell<ProgressInner<'a>>,
}

struct ProgressInner<'a> {
    report: &'a mut dyn FnMut(HubProgress),
    total: u64,
    done: u64,
    last: Option<Instant>,
}

/// One file's share of the progress.
pub(super) struct FileProgress<'p, 'a> {
    progress: &'p Progress<'a>,
    name: &'p str,
    total: u64,
    done: RefCell<u64>,
}

impl<'a> Progress<'a> {
    pub(super) fn new(report: &'a mut dyn FnMut(HubProgress)) -> Self {
        Self { inner: RefCell::new(ProgressInner { report, total: 0, done: 0, last: None }) }
    }

    pub(super) fn expect(&self, bytes: u64) {
        self.inner.borrow_mut().total += bytes;
    }

    pub(super) fn file<'p>(&'p self, info: &'p FileInfo) -> FileProgress<'p, 'a> {
        FileProgress { progress: self, name: &info.name, total: info.size.unwrap_or(0), done: RefCell::new(0) }
    }
}

impl FileProgress<'_, '_> {
    /// `done` bytes of the file are here; `force` reports it in any case.
    fn set(&self, done: u64, force: bool) {
        let mut inner = self.progress.inner.borrow_mut();
        let before = self.done.replace(done);
        inner.done = inner.done.saturating_sub(before) + done;
        if !force && inner.last.is_some_and(|last| last.elapsed() < REPORT_INTERVAL) {
            return;
        }
        inner.last = Some(Instant::now());
        let event = HubProgress { file: self.name.to_owned(), done: inner.done, total: inner.total.max(inner.done) };
        (inner.report)(event);
    }
}

/// Fetches the files of one commit into the cache.
pub(super) struct Downloader<'a> {
    pub(super) client: &'a HubClient<'a>,
    pub(super) cache: &'a RepoCache,
    pub(super) config: &'a HubConfig,
    pub(super) commit: &'a str,
}

impl Downloader<'_> {
    /// Makes sure that the blob is there and the snapshot points at it.
    pub(super) async fn fetch(&self, info: &FileInfo, progress: &Progress<'_>) -> Result<(), HubError> {
        let blob = self.cache.blob(&info.etag);
        let file = progress.file(info);
        let mut is_new = false;
        if !blob.is_file() {
            let _lock = self.lock(info, &file).await?;
            // Whoever held the lock has probably fetched it.
            if !blob.is_file() && self.cache.file(self.commit, &info.name).is_none() {
                self.fill(info, &file).await?;
                fs::rename(self.cache.partial(&info.etag), &blob).map_err(|error| HubError::cache(&blob, error))?;
                is_new = true;
            }
            // Linked under the lock: where links are not possible the blob moves into the snapshot.
            self.cache.link(self.commit, &info.name, &info.etag, is_new)?;
        } else {
            self.cache.link(self.commit, &info.name, &info.etag, is_new)?;
        }
        file.set(file.total, true);
        Ok(())
    }

    /// Bytes of a file that are still to come.
    pub(super) fn missing_bytes(&self, info: &FileInfo) -> u64 {
        if self.cache.blob(&info.etag).is_file() {
            return 0;
        }
        let here = fs::metadata(self.cache.partial(&info.etag)).map_or(0, |meta| meta.len());
        info.size.unwrap_or(0).saturating_sub(here)
    }

    async fn lock(&self, info: &FileInfo, file: &FileProgress<'_, '_>) -> Result<super::cache::BlobLock, HubError> {
        loop {
            if let Some(lock) = self.cache.try_lock(&info.etag)? {
                return Ok(lock);
            }
            // Somebody else is fetching it: what has come is their doing, but progress all the same.
            let here = fs::metadata(self.cache.partial(&info.etag)).map_or(0, |meta| meta.len());
            file.set(here, false);
            tokio::time::sleep(LOCK_POLL).await;
        }
    }

    /// Completes the partial blob and checks it.
    async fn fill(&self, info: &FileInfo, file: &FileProgress<'_, '_>) -> Result<(), HubError> {
        self.cache.make_blobs()?;
        // What an earlier run left may be damaged; then, once, it is fetched from its first byte.
        let mut may_start_over = true;
        loop {
            let mut partial = Partial::open(self.cache.partial(&info.etag), info).await?;
            let had_bytes = partial.len > 0;
            file.set(partial.len, true);
            self.receive(&mut partial, info, file).await?;
            let Some(wrong) = partial.finish(info)? else { return Ok(()) };
            fs::remove_file(&partial.path).map_err(|error| HubError::cache(&partial.path, error))?;
            if !(had_bytes && may_start_over) {
                return Err(HubError::broken(wrong));
            }
            may_start_over = false;
        }
    }

    /// Asks for the rest of the file, again after each break, until all is there.
    async fn receive(
        &self,
        partial: &mut Partial,
        info: &FileInfo,
        file: &FileProgress<'_, '_>,
    ) -> Result<(), HubError> {
        let mut failed = 0;
        while partial.expected != Some(partial.len) {
            let before = partial.len;
            let (error, wait) = match self.receive_once(partial, info, file).await {
                Ok(()) => return Ok(()),
                Err(Failure::Fatal(error)) => return Err(error),
                Err(Failure::NoAnswer(error)) => (error, None),
                Err(Failure::Passing { error, wait }) => (error, wait),
            };
            if partial.len.saturating_sub(before) >= GOOD_CONNECTION_BYTES {
                failed = 0;
            }
            if failed >= self.config.retries {
                return Err(match error {
                    HubError::BrokenDownload { message } if partial.len > 0 => HubError::broken(format!(
                        "{message}, after {} of {}; what came is kept and the next attempt goes on from there",
                        format_bytes(partial.len),
                        partial.expected.map_or_else(|| "an unknown size".to_owned(), format_bytes),
                    )),
                    other => other,
                });
            }
            self.client.pause(failed, wait).await;
            failed += 1;
        }
        Ok(())
    }

    /// One request and its body.
    async fn receive_once(
        &self,
        partial: &mut Partial,
        info: &FileInfo,
        file: &FileProgress<'_, '_>,
    ) -> Result<(), Failure> {
        let mut response = self.client.open(self.commit, &info.name, partial.len).await?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT if starts_at(&response, partial.len) => {}
            StatusCode::OK if partial.len == 0 => {}
            StatusCode::OK => {
                // The host does not resume.
                partial.restart().map_err(Failure::Fatal)?;
                file.set(0, false);
            }
            status => {
                partial.restart().map_err(Failure::Fatal)?;
                let error = HubError::broken(format!("{} did not resume {} ({status})", self.client.host(), info.name));
                return Err(Failure::Passing { error, wait: None });
            }
        }
        if partial.expected.is_none() {
            partial.expected = response.content_length().map(|rest| partial.len + rest);
        }
        loop {
            match response.chunk().await {
                Ok(Some(bytes)) => {
                    partial.append(&bytes, info, self.config).map_err(Failure::Fatal)?;
                    file.set(partial.len, false);
                }
                Ok(None) if partial.expected.is_none_or(|expected| expected == partial.len) => return Ok(()),
                Ok(None) => return Err(broken_off(info, "it ended too early")),
                Err(error) if error.is_timeout() => return Err(broken_off(info, "nothing came any more")),
                Err(error) => return Err(broken_off(info, &root_cause(&error))),
            }
        }
    }
}

/// A blob that is growing in its `.incomplete` file, hashed as it grows.
struct Partial {
    path: PathBuf,
    file: File,
    len: u64,
    expected: Option<u64>,
    hash: Option<Sha256>,
}

impl Partial {
    async fn open(path: PathBuf, info: &FileInfo) -> Result<Self, HubError> {
        let fail = |error| HubError::cache(&path, error);
        let mut file = File::options().create(true).truncate(false).read(true).write(true).open(&path).map_err(fail)?;
        let mut len = file.metadata().map_err(fail)?.len();
        if info.size.is_none_or(|size| len > size) {
            // More than there can be, or nothing to tell a whole file by.
            file.set_len(0).map_err(fail)?;
            len = 0;
        }
        let mut hash = info.sha256.as_ref().map(|_| Sha256::new());
        if let Some(hash) = &mut hash {
            let mut piece = vec![0; HASH_PIECE.min(usize::try_from(len).unwrap_or(HASH_PIECE))];
            let mut left = len;
            while left > 0 {
                let n = file.read(&mut piece).map_err(fail)?;
                if n == 0 {
                    return Err(fail(io::ErrorKind::UnexpectedEof.into()));
                }
                hash.update(&piece[..n]);
                left = left.saturating_sub(n as u64);
                // A cancellation is seen here.
                tokio::task::yield_now().await;
            }
        }
        file.seek(SeekFrom::Start(len)).map_err(fail)?;
        Ok(Self { file, len, expected: info.size, hash, path })
    }

    fn append(&mut self, bytes: &[u8], info: &FileInfo, config: &HubConfig) -> Result<(), HubError> {
        let len = self.len + bytes.len() as u64;
        if let Some(expected) = self.expected.filter(|expected| len > *expected) {
            self.restart()?;
            return Err(HubError::broken(format!(
                "{} is longer than the {} announced",
                info.name,
                format_bytes(expected)
            )));
        }
        self.file.write_all(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => HubError::DiskFull {
                what: info.name.clone(),
                needed: self.expected.unwrap_or(len).saturating_sub(self.len),
                free: (config.free_space)(&self.path).unwrap_or(0),
                folder: config.cache_dir.clone(),
            },
            _ => HubError::cache(&self.path, error),
        })?;
        if let Some(hash) = &mut self.hash {
            hash.update(bytes);
        }
        self.len = len;
        Ok(())
    }

    fn restart(&mut self) -> Result<(), HubError> {
        let reset = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        reset.map_err(|error| HubError::cache(&self.path, error))?;
        self.len = 0;
        self.hash = self.hash.as_ref().map(|_| Sha256::new());
        Ok(())
    }

    /// Brings the bytes to disk; `Some` says what is wrong with them.
    fn finish(&mut self, info: &FileInfo) -> Result<Option<String>, HubError> {
        self.file.sync_data().map_err(|error| HubError::cache(&self.path, error))?;
        let (Some(hash), Some(expected)) = (self.hash.take(), &info.sha256) else { return Ok(None) };
        let got: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok((got != *expected).then(|| {
            format!("{} was damaged on the way: its SHA-256 is {got}, not {expected}; it was deleted", info.name)
        }))
    }
}

fn broken_off(info: &FileInfo, reason: &str) -> Failure {
    Failure::Passing {
        error: HubError::broken(format!("the download of {} broke off ({reason})", info.name)),
        wait: None,
    }
}

/// Whether a 206 answer begins where it was asked to.
fn starts_at(response: &Response, from: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
    let start = range.and_then(|range| range.trim().strip_prefix("bytes ")).and_then(|range| range.split('-').next());
    start.and_then(|start| start.trim().parse().ok()) == Some(from)
}
