//! The folder layout that Python's `huggingface_hub` keeps, so that nothing is downloaded twice on a machine:
//! `models--owner--name/{blobs/<etag>, snapshots/<commit>/<file> -> ../../blobs/<etag>, refs/<revision>, .no_exist/…}`
//! and `.locks/models--owner--name/<etag>.lock`.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::HubError;
use super::select::{self, EXPECTED, INDEX, Selection, Unloadable};
use super::spec::is_safe_relative;

/// Deeper folders than this are not followed when a snapshot is listed.
pub(super) const SNAPSHOT_DEPTH: usize = 8;
/// More files than this are not listed of one snapshot or folder.
const MAX_FILES: usize = 20_000;

/// One repository's part of the cache. Nothing need exist.
#[derive(Debug, Clone)]
pub(super) struct RepoCache {
    root: PathBuf,
    locks: PathBuf,
}

/// What the cache holds of a model.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Cached {
    /// All that is needed.
    Complete {
        commit: String,
        path: PathBuf,
        file: Option<String>,
    },
    /// It can be loaded, but files are missing that the repository may have.
    Usable {
        commit: String,
        path: PathBuf,
        missing: Vec<String>,
    },
    /// The snapshot is there and holds several models, or not the one that was named.
    Unclear(Unloadable),
    Absent,
}

/// Held while a blob is written; freed when dropped, also by a process that dies.
#[derive(Debug)]
pub(super) struct BlobLock {
    _file: Option<File>,
}

impl RepoCache {
    pub(super) fn new(cache_dir: &Path, repo: &str) -> Self {
        let folder = format!("models--{}", repo.replace('/', "--"));
        Self { root: cache_dir.join(&folder), locks: cache_dir.join(".locks").join(folder) }
    }

    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.root.join("blobs").join(etag)
    }

    /// Where a blob grows until it is whole.
    pub(super) fn partial(&self, etag: &str) -> PathBuf {
        self.root.join("blobs").join(format!("{etag}.incomplete"))
    }

    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.root.join("snapshots").join(commit)
    }

    /// Where a file of a commit is found, if it is there.
    pub(super) fn file(&self, commit: &str, name: &str) -> Option<PathBuf> {
        let path = self.snapshot(commit).join(name);
        path.is_file().then_some(path)
    }

    /// The commit a revision pointed at when it was last fetched.
    pub(super) fn commit_of(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_owned());
        }
        let text = fs::read_to_string(self.root.join("refs").join(revision)).ok()?;
        let commit = text.trim();
        is_commit(commit).then(|| commit.to_owned())
    }

    /// What is here of the model that a revision, or one file of it, names. Touches no network.
    pub(super) fn lookup(&self, revision: &str, file: Option<&str>) -> Cached {
        let Some(commit) = self.commit_of(revision) else { return Cached::Absent };
        if let Some(name) = file {
            return match self.file(&commit, name) {
                Some(path) => Cached::Complete { commit, path, file: Some(name.to_owned()) },
                None => Cached::Absent,
            };
        }
        let folder = self.snapshot(&commit);
        match check_folder(&folder, SNAPSHOT_DEPTH) {
            Ok(Found::File(name)) => Cached::Complete { path: folder.join(&name), commit, file: Some(name) },
            Ok(Found::Folder { .. }) => {
                let missing: Vec<String> =
                    EXPECTED.into_iter().filter(|name| !self.is_known(&commit, name)).map(str::to_owned).collect();
                if missing.is_empty() {
                    Cached::Complete { commit, path: folder, file: None }
                } else {
                    Cached::Usable { commit, path: folder, missing }
                }
            }
            Err(Some(why @ Unloadable::Several(_))) => Cached::Unclear(why),
            Err(_) => Cached::Absent,
        }
    }

    /// Notes that a commit lacks a file, as Python does, so that the hub is not asked for it again.
    pub(super) fn note_absent(&self, commit: &str, name: &str) -> Result<(), HubError> {
        let path = self.root.join(".no_exist").join(commit).join(name);
        make_parent(&path)?;
        fs::write(&path, b"").map_err(|error| HubError::cache(path, error))
    }

    /// Remembers which commit a revision is. Written once its files are all there, so that an interrupted update leaves the
    /// older snapshot in use.
    pub(super) fn write_ref(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        if revision == commit || self.commit_of(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.root.join("refs").join(revision);
        make_parent(&path)?;
        fs::write(&path, commit).map_err(|error| HubError::cache(path, error))
    }

    /// Makes `snapshots/<commit>/<name>` point at a blob that is there; where links are not possible the blob itself goes
    /// there if it is new, a copy of it otherwise.
    pub(super) fn link(&self, commit: &str, name: &str, etag: &str, is_new: bool) -> Result<(), HubError> {
        let pointer = self.snapshot(commit).join(name);
        if pointer.is_file() {
            return Ok(());
        }
        make_parent(&pointer)?;
        // A link whose blob is gone.
        if pointer.symlink_metadata().is_ok() {
            fs::remove_file(&pointer).map_err(|error| HubError::cache(&pointer, error))?;
        }
        let up = "../".repeat(2 + name.matches('/').count());
        let blob = self.blob(etag);
        match symlink(Path::new(&format!("{up}blobs/{etag}")), &pointer) {
            Ok(()) => Ok(()),
            // Another process was faster.
            Err(_) if pointer.is_file() => Ok(()),
            Err(_) if is_new => fs::rename(&blob, &pointer).map_err(|error| HubError::cache(&pointer, error)),
            Err(_) => fs::copy(&blob, &pointer).map(drop).map_err(|error| HubError::cache(&pointer, error)),
        }
    }

    /// Takes the lock of a blob; `None` while another process or thread holds it.
    pub(super) fn try_lock(&self, etag: &str) -> Result<Option<BlobLock>, HubError> {
        let path = self.locks.join(format!("{etag}.lock"));
        make_parent(&path)?;
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(|error| HubError::cache(&path, error))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(BlobLock { _file: Some(file) })),
            Err(TryLockError::WouldBlock) => Ok(None),
            // Some network file systems have no locks: then, as in Python, each process is on its own.
            Err(TryLockError::Error(_)) => Ok(Some(BlobLock { _file: None })),
        }
    }

    /// Creates the folder of the blobs and returns it.
    pub(super) fn make_blobs(&self) -> Result<PathBuf, HubError> {
        let blobs = self.root.join("blobs");
        fs::create_dir_all(&blobs).map_err(|error| HubError::cache(&blobs, error))?;
        Ok(blobs)
    }

    /// Every revision name of this repository with its commit, in order of name.
    pub(super) fn refs(&self) -> Vec<(String, String)> {
        let folder = self.root.join("refs");
        let names = list_files(&folder, SNAPSHOT_DEPTH);
        names.into_iter().filter_map(|name| self.commit_of(&name).map(|commit| (name, commit))).collect()
    }

    /// The commits of which there is a snapshot, in order.
    pub(super) fn commits(&self) -> Vec<String> {
        let entries = fs::read_dir(self.root.join("snapshots")).into_iter().flatten().flatten();
        let mut commits: Vec<String> =
            entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| is_commit(name)).collect();
        commits.sort();
        commits
    }

    fn is_known(&self, commit: &str, name: &str) -> bool {
        self.file(commit, name).is_some() || self.root.join(".no_exist").join(commit).join(name).exists()
    }
}

/// A model in a folder, all of whose weights are there.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Folder { weights: Vec<String> },
    File(String),
}

/// Looks for a loadable model in a folder and `depth` levels below; `Err(None)` if a part of its weights is missing.
pub(super) fn check_folder(folder: &Path, depth: usize) -> Result<Found, Option<Unloadable>> {
    match select::select(&list_files(folder, depth), None).map_err(Some)? {
        Selection::File(name) => Ok(Found::File(name)),
        Selection::Folder { sharded: false, files } => {
            Ok(Found::Folder { weights: files.into_iter().rev().take(1).collect() })
        }
        Selection::Folder { sharded: true, .. } => {
            let shards = select::shards(&folder.join(INDEX)).map_err(|_| None)?;
            if shards.iter().all(|shard| folder.join(shard).is_file()) {
                Ok(Found::Folder { weights: shards.into_iter().collect() })
            } else {
                Err(None)
            }
        }
    }
}

/// The files in a folder and `depth` levels below that can be read (links whose target is gone are left out), with `/`
/// between folders, sorted.
pub(super) fn list_files(folder: &Path, depth: usize) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![(folder.to_path_buf(), String::new(), depth)];
    while let Some((path, prefix, below)) = open.pop() {
        for entry in fs::read_dir(&path).into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let full = entry.path();
            if full.is_file() {
                found.push(format!("{prefix}{name}"));
            } else if below > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push((full, format!("{prefix}{name}/"), below - 1));
            }
            if found.len() >= MAX_FILES {
                return found;
            }
        }
    }
    found.sort();
    found
}

/// A commit as git writes it; a name of a folder, so nothing else is let through.
pub(super) fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Whether what the hub calls the content's identity can name a file.
pub(super) fn is_safe_etag(etag: &str) -> bool {
    etag.len() <= 128
        && is_safe_relative(etag)
        && !etag.starts_with('.')
        && etag.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

fn make_parent(path: &Path) -> Result<(), HubError> {
    let Some(parent) = path.parent() else { return Ok(()) };
    fs::create_dir_all(parent).map_err(|error| HubError::cache(parent, error))
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(windows)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, link)
}

#[cfg(not(any(unix, windows)))]
fn symlink(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn links_are_relative_and_mended() {
        let folder = tempfile::tempdir().unwrap();
        let cache = RepoCache::new(folder.path(), "o/r");
        let blobs = cache.make_blobs().unwrap();
        assert_eq!(blobs, folder.path().join("models--o--r/blobs"));
        fs::write(cache.blob("e1"), b"one").unwrap();
        cache.link(COMMIT, "a/b.txt", "gone", true).unwrap();
        assert_eq!(cache.file(COMMIT, "a/b.txt"), None, "its blob is not there");
        cache.link(COMMIT, "a/b.txt", "e1", true).unwrap();
        let pointer = cache.file(COMMIT, "a/b.txt").unwrap();
        assert_eq!(fs::read(&pointer).unwrap(), b"one");
        #[cfg(unix)]
        assert_eq!(fs::read_link(&pointer).unwrap(), Path::new("../../../blobs/e1"));
    }

    #[test]
    fn a_ref_that_is_no_commit_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let cache = RepoCache::new(folder.path(), "o/r");
        cache.write_ref("refs/pr/1", COMMIT).unwrap();
        assert_eq!(cache.commit_of("refs/pr/1").as_deref(), Some(COMMIT));
        assert_eq!(cache.refs(), [("refs/pr/1".to_owned(), COMMIT.to_owned())]);
        fs::write(folder.path().join("models--o--r/refs/main"), "../../../etc").unwrap();
        assert_eq!(cache.commit_of("main"), None);
        assert_eq!(cache.commit_of(COMMIT).as_deref(), Some(COMMIT));
    }

    #[test]
    fn one_holder_per_blob() {
        let folder = tempfile::tempdir().unwrap();
        let cache = RepoCache::new(folder.path(), "o/r");
        let held = cache.try_lock("e").unwrap().unwrap();
        assert!(cache.try_lock("e").unwrap().is_none());
        assert!(cache.try_lock("f").unwrap().is_some());
        drop(held);
        assert!(cache.try_lock("e").unwrap().is_some());
        assert!(folder.path().join(".locks/models--o--r/e.lock").is_file());
    }

    #[test]
    fn etags_that_could_leave_the_folder_are_refused() {
        assert!(is_safe_etag("a1b2-3"));
        for bad in ["", "../x", "a/b", "a\\b", ".hidden", "a b"] {
            assert!(!is_safe_etag(bad), "{bad}");
        }
    }
}
