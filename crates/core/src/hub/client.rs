//! Talking to the hub. hf-hub asks for what a revision holds; the files are asked for here, because hf-hub's own download
//! starts a broken file again instead of resuming it, and its metadata request follows the redirect to the content host,
//! whose answer lacks the hub's headers.

use std::time::Duration;

use hf_hub::{HFClient, HFError, RepoTypeModel, split_id};
use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, ETAG, HeaderMap, LOCATION, RANGE, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Method, Response, StatusCode, Url};

use super::cache::{is_commit, is_safe_etag};
use super::error::root_cause;
use super::spec::{DEFAULT_REVISION, is_safe_relative};
use super::{HubConfig, HubError};

/// Redirects inside the hub (a renamed repository) that are followed while asking for a file's metadata.
const MAX_HUB_REDIRECTS: usize = 10;
/// A hub that asks for a longer pause than this is tried again after this.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// What a revision is and holds.
#[derive(Debug)]
pub(super) struct RepoInfo {
    pub(super) commit: String,
    /// Paths with `/`, each inside the repository.
    pub(super) files: Vec<String>,
}

/// What the hub says of one file without sending it.
#[derive(Debug, Clone)]
pub(super) struct FileInfo {
    pub(super) name: String,
    /// The content's identity, as Python names its blob: the SHA-256 of large files, git's hash of small ones.
    pub(super) etag: String,
    /// In bytes; `None` where the hub does not say.
    pub(super) size: Option<u64>,
    /// Lower-case hex, for the files that are stored by it.
    pub(super) sha256: Option<String>,
}

/// How an attempt failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// Another attempt would end the same.
    Fatal(HubError),
    /// Nobody answered: worth one more attempt, no more, for a machine without a network should hear it soon.
    NoAnswer(HubError),
    /// Broken off or refused for now; the hub may say how long to wait.
    Passing { error: HubError, wait: Option<Duration> },
}

/// A client for one repository at one revision.
pub(super) struct HubClient<'a> {
    config: &'a HubConfig,
    repo: &'a str,
    revision: &'a str,
    endpoint: Url,
    api: hf_hub::HFRepository<RepoTypeModel>,
    /// Follows redirects; reqwest takes the token off when one leads to another host or port.
    following: reqwest::Client,
    staying: reqwest::Client,
}

impl<'a> HubClient<'a> {
    pub(super) fn new(config: &'a HubConfig, repo: &'a str, revision: &'a str) -> Result<Self, HubError> {
        let bad_endpoint = |reason: String| HubError::InvalidSpec { spec: config.endpoint.clone(), reason };
        let endpoint = Url::parse(&config.endpoint).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let endpoint = endpoint.ok_or_else(|| bad_endpoint("HF_ENDPOINT must be an http or https address".into()))?;
        let local = endpoint.host_str().is_some_and(|host| matches!(host, "localhost" | "127.0.0.1" | "[::1]"));
        let client = |policy: Policy| {
            let mut builder = reqwest::Client::builder()
                .user_agent(concat!("tsserve/", env!("CARGO_PKG_VERSION")))
                .redirect(policy)
                .connect_timeout(config.connect_timeout)
                .read_timeout(config.read_timeout);
            if local {
                builder = builder.no_proxy();
            }
            builder.build().map_err(|error| HubError::broken(format!("no HTTP client ({})", root_cause(&error))))
        };
        let following = client(Policy::limited(10))?;
        let mut builder =
            HFClient::builder().endpoint(&config.endpoint).cache_dir(&config.cache_dir).client(following.clone());
        if let Some(token) = &config.token {
            builder = builder.token(token);
        }
        // One attempt at a time: the attempts are counted here, with a wait that can be cancelled.
        let api = builder.retry_max_attempts(0).build().map_err(|error| bad_endpoint(root_cause(&error)))?;
        let (owner, name) = split_id(repo);
        Ok(Self {
            config,
            repo,
            revision,
            endpoint,
            api: api.model(owner, name),
            following,
            staying: client(Policy::none())?,
        })
    }

    /// The commit of the revision and its files.
    pub(super) async fn repo_info(&self) -> Result<RepoInfo, HubError> {
        let info = self
            .retrying(async || self.api.info().revision(self.revision).send().await.map_err(|e| self.explain(e)))
            .await?;
        let commit = info.sha.filter(|sha| is_commit(sha));
        let commit = commit
            .ok_or_else(|| HubError::broken(format!("{} did not say which commit {} is", self.host(), self.what())))?;
        let files = info.siblings.unwrap_or_default().into_iter().map(|sibling| sibling.rfilename);
        Ok(RepoInfo { commit, files: files.filter(|name| is_safe_relative(name)).collect() })
    }

    /// What the hub says of a file at a commit.
    pub(super) async fn file_info(&self, commit: &str, name: &str) -> Result<FileInfo, HubError> {
        let (status, headers) = self.retrying(async || self.head(commit, name).await).await?;
        let text = |key: &str| headers.get(key).and_then(|value| value.to_str().ok());
        let missing = |what: &str| HubError::broken(format!("{} did not send {what} of {name}", self.host()));
        let linked = text("x-linked-etag").map(bare_etag);
        let etag = linked.or_else(|| text(ETAG.as_str()).map(bare_etag)).ok_or_else(|| missing("the ETag"))?;
        if !is_safe_etag(etag) {
            return Err(missing("a usable ETag"));
        }
        if let Some(other) = text("x-repo-commit").filter(|other| *other != commit) {
            return Err(HubError::broken(format!(
                "{} answered for commit {other} when asked for {commit}",
                self.host()
            )));
        }
        // The length of a redirect is that of its own text.
        let length = if status.is_success() { text(CONTENT_LENGTH.as_str()) } else { None };
        let size = text("x-linked-size").or(length).and_then(|size| size.parse().ok());
        let is_sha256 = |etag: &&str| etag.len() == 64 && etag.bytes().all(|b| b.is_ascii_hexdigit());
        let sha256 = linked.filter(is_sha256).map(str::to_ascii_lowercase);
        Ok(FileInfo { name: name.to_owned(), etag: etag.to_owned(), size, sha256 })
    }

    /// Asks for a file from byte `from` on. The answer's status is 200 (the whole file), 206 (from there) or 416.
    pub(super) async fn open(&self, commit: &str, name: &str, from: u64) -> Result<Response, Failure> {
        let mut request = self.request(&self.following, Method::GET, self.file_url(commit, name)?);
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        let response = request.send().await.map_err(|error| self.no_answer(&error))?;
        let status = response.status();
        if status.is_success() || (status == StatusCode::RANGE_NOT_SATISFIABLE && from > 0) {
            return Ok(response);
        }
        // The content host's links expire; the hub hands out a new one.
        if !is_same_host(response.url(), &self.endpoint) && status.is_client_error() {
            let host = response.url().host_str().unwrap_or("the content host").to_owned();
            return Err(Failure::Passing {
                error: HubError::broken(format!("{host} answered {status} for {name}")),
                wait: None,
            });
        }
        Err(self.refused(status, response.headers(), name))
    }

    /// Runs an attempt until it succeeds, fails for good, or has failed too often.
    pub(super) async fn retrying<T>(&self, attempt: impl AsyncFn() -> Result<T, Failure>) -> Result<T, HubError> {
        let mut failed = 0;
        loop {
            let (error, wait) = match attempt().await {
                Ok(value) => return Ok(value),
                Err(Failure::Fatal(error)) => return Err(error),
                Err(Failure::NoAnswer(error)) if failed > 0 => return Err(error),
                Err(Failure::NoAnswer(error)) => (error, None),
                Err(Failure::Passing { error, wait }) => (error, wait),
            };
            if failed >= self.config.retries {
                return Err(error);
            }
            self.pause(failed, wait).await;
            failed += 1;
        }
    }

    /// Waits before the next attempt after `failed` failures before this one.
    pub(super) async fn pause(&self, failed: u32, wait: Option<Duration>) {
        let delay = self.config.retry_delay.saturating_mul(1 << failed.min(16)).min(HubConfig::MAX_RETRY_DELAY);
        tokio::time::sleep(wait.unwrap_or(delay).min(MAX_RETRY_AFTER)).await;
    }

    /// Host and, if it is not the usual one, port of the hub.
    pub(super) fn host(&self) -> String {
        host_of(&self.endpoint)
    }

    /// The repository as a user writes it.
    pub(super) fn what(&self) -> String {
        super::spec::hub_id(self.repo, self.revision, None)
    }

    async fn head(&self, commit: &str, name: &str) -> Result<(StatusCode, HeaderMap), Failure> {
        let mut url = self.file_url(commit, name)?;
        for _ in 0..MAX_HUB_REDIRECTS {
            let response = self.request(&self.staying, Method::HEAD, url.clone()).send().await;
            let response = response.map_err(|error| self.no_answer(&error))?;
            let (status, headers) = (response.status(), response.headers());
            if !status.is_redirection() && !status.is_success() {
                return Err(self.refused(status, headers, name));
            }
            let next = headers.get(LOCATION).and_then(|to| to.to_str().ok()).and_then(|to| url.join(to).ok());
            // A redirect to the content host carries what is asked for; one of the hub to itself (renamed) may not.
            let next = next.filter(|next| {
                let linked = headers.contains_key("x-linked-etag");
                let stays = is_same_host(next, &self.endpoint);
                status.is_redirection() && !(linked && (headers.contains_key("x-linked-size") || !stays))
            });
            match next {
                Some(next) => url = next,
                None => return Ok((status, headers.clone())),
            }
        }
        Err(Failure::Fatal(HubError::broken(format!("{} redirects without end for {name}", self.host()))))
    }

    fn request(&self, client: &reqwest::Client, method: Method, url: Url) -> reqwest::RequestBuilder {
        let to_hub = is_same_host(&url, &self.endpoint);
        // Offsets count the file's own bytes.
        let request = client.request(method, url).header(ACCEPT_ENCODING, "identity");
        match &self.config.token {
            Some(token) if to_hub => request.header(AUTHORIZATION, format!("Bearer {token}")),
            _ => request,
        }
    }

    fn file_url(&self, commit: &str, name: &str) -> Result<Url, Failure> {
        let mut url = self.endpoint.clone();
        url.path_segments_mut()
            .map_err(|()| Failure::Fatal(HubError::broken("HF_ENDPOINT cannot hold a path")))?
            .pop_if_empty()
            .extend(self.repo.split('/').chain(["resolve", commit]).chain(name.split('/')));
        Ok(url)
    }

    fn no_answer(&self, error: &reqwest::Error) -> Failure {
        let reason = if error.is_timeout() { "no answer in time".to_owned() } else { root_cause(error) };
        // The content host has a name of its own.
        let host = error.url().map_or_else(|| self.host(), host_of);
        if error.is_connect() || error.is_timeout() {
            Failure::NoAnswer(HubError::Unreachable { host, reason, what: self.what() })
        } else {
            let error = HubError::broken(format!("the connection to {host} broke ({reason})"));
            Failure::Passing { error, wait: None }
        }
    }

    /// Puts an answer that is not the file into words.
    fn refused(&self, status: StatusCode, headers: &HeaderMap, name: &str) -> Failure {
        let header = |key: &str| headers.get(key).and_then(|value| value.to_str().ok());
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Failure::Fatal(self.no_access(status, header("x-error-code"), header("x-error-message")))
            }
            StatusCode::NOT_FOUND => {
                Failure::Fatal(HubError::not_found(format!("{} has no file '{name}'", self.what())))
            }
            status => self.other_status(status, header(RETRY_AFTER.as_str()), name),
        }
    }

    fn other_status(&self, status: StatusCode, retry_after: Option<&str>, name: &str) -> Failure {
        let error = HubError::broken(format!("{} answered {status} for {name}", self.host()));
        let passing =
            status.is_server_error() || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
        if passing {
            let wait = retry_after.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
            Failure::Passing { error, wait }
        } else {
            Failure::Fatal(error)
        }
    }

    /// 401 and 403. The hub hides repositories that are not there behind a 401 as well.
    fn no_access(&self, status: StatusCode, code: Option<&str>, message: Option<&str>) -> HubError {
        let (repo, endpoint) = (self.repo, self.config.endpoint.as_str());
        let about_user = message.is_some_and(|text| text.starts_with("Invalid username or password"));
        if code == Some("RepoNotFound") || (code.is_none() && status == StatusCode::UNAUTHORIZED && about_user) {
            return HubError::not_found(format!(
                "there is no model '{repo}' on {}, or it is private (then set HF_TOKEN)",
                self.host()
            ));
        }
        let token = match (&self.config.token, status) {
            (None, _) => "set HF_TOKEN to a token of your account",
            (Some(_), StatusCode::UNAUTHORIZED) => "check HF_TOKEN, which the hub did not accept",
            (Some(_), _) => "check that HF_TOKEN belongs to that account and may read the repository",
        };
        HubError::Gated {
            message: format!("access to {repo} is restricted: accept its licence at {endpoint}/{repo} and {token}"),
        }
    }

    /// Puts an error of hf-hub into words.
    fn explain(&self, error: HFError) -> Failure {
        let what = self.what();
        match error {
            HFError::AuthRequired { context } | HFError::Forbidden { context } => Failure::Fatal(self.no_access(
                context.status,
                context.error_code.as_deref(),
                context.server_message.as_deref(),
            )),
            HFError::RepoNotFound { .. } => Failure::Fatal(self.no_such_repo()),
            HFError::RevisionNotFound { context, .. } => {
                let code = context.and_then(|context| context.error_code);
                let of_revision = code.as_deref() == Some("RevisionNotFound")
                    || (code.is_none() && self.revision != DEFAULT_REVISION);
                Failure::Fatal(if of_revision {
                    let (repo, revision) = (self.repo, self.revision);
                    HubError::not_found(format!(
                        "'{repo}' has no revision '{revision}' on {}, or is not there",
                        self.host()
                    ))
                } else {
                    self.no_such_repo()
                })
            }
            HFError::RateLimited { retry_after, .. } => Failure::Passing {
                error: HubError::broken(format!("{} asks to slow down (429)", self.host())),
                wait: retry_after,
            },
            HFError::Http { context } => self.other_status(context.status, None, &what),
            HFError::Request { source, .. } if is_json_error(&source) => Failure::Fatal(HubError::broken(format!(
                "{} sent no description of {what} that can be read",
                self.host()
            ))),
            HFError::Request { source, .. } => self.no_answer(&source),
            other => Failure::Fatal(HubError::broken(format!("{} could not describe {what} ({other})", self.host()))),
        }
    }

    fn no_such_repo(&self) -> HubError {
        HubError::not_found(format!("there is no model '{}' on {}", self.repo, self.host()))
    }
}

fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or("the hub");
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn bare_etag(raw: &str) -> &str {
    raw.strip_prefix("W/").unwrap_or(raw).trim_matches('"')
}

fn is_same_host(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme() && a.host_str() == b.host_str() && a.port_or_known_default() == b.port_or_known_default()
}

fn is_json_error(error: &reqwest::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if cause.is::<serde_json::Error>() {
            return true;
        }
        source = cause.source();
    }
    false
}
