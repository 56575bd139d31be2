//! A hub on loopback: the protocol of huggingface.co as far as models need it, a content host on another port, a log of
//! every request, and faults on demand. One thread per connection, one request per connection.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tsserve_core::hub::HubConfig;

pub const COMMIT: &str = "1111111111111111111111111111111111111111";
pub const SECOND_COMMIT: &str = "2222222222222222222222222222222222222222";

/// A file of a repository.
#[derive(Clone)]
pub struct RepoFile {
    pub name: String,
    pub bytes: Vec<u8>,
    /// Stored by its SHA-256 on the content host, as large files are.
    pub large: bool,
    /// What the hub says its content's identity is.
    pub etag: String,
}

/// What goes wrong with the requests that a fault matches.
#[derive(Clone)]
pub enum Fault {
    /// Another answer.
    Status(u16, &'static str),
    /// The body breaks off after this many bytes.
    CutAfter(usize),
    /// A 200 with the whole file, whatever range was asked for.
    IgnoreRange,
    /// After this many bytes of the body nothing more comes until the client hangs up.
    HoldAfter(usize),
    /// The answer waits until a request that starts like this was made so many times.
    WaitFor(String, usize),
}

/// A request as it came, and how much of a body it was sent.
#[derive(Debug, Clone)]
pub struct Seen {
    /// `GET /path`, behind `cdn ` for the content host.
    pub line: String,
    pub range: Option<String>,
    pub authorization: Option<String>,
    pub sent: usize,
}

#[derive(Default)]
struct State {
    commits: HashMap<(String, String), String>,
    files: HashMap<(String, String), Vec<RepoFile>>,
    faults: Vec<(String, usize, Fault)>,
    seen: Vec<Seen>,
    held: usize,
}

type Shared = Arc<(Mutex<State>, Condvar)>;

pub struct FakeHub {
    pub address: SocketAddr,
    content: SocketAddr,
    shared: Shared,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl FakeHub {
    pub fn start() -> Self {
        let (shared, stop): (Shared, _) = (Shared::default(), Arc::new(AtomicBool::new(false)));
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [address, content] = [0, 1].map(|i: usize| listeners[i].local_addr().unwrap());
        let threads = listeners.into_iter().enumerate().map(|(i, listener)| {
            let (shared, stop) = (shared.clone(), stop.clone());
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let (shared, stream) = (shared.clone(), stream.unwrap());
                    // A client that hangs up is part of the tests.
                    std::thread::spawn(move || drop(serve(stream, i == 1, content, &shared)));
                }
            })
        });
        let threads = threads.collect();
        Self { address, content, shared, stop, threads }
    }

    /// Puts a commit of a repository on the hub, at `main`.
    pub fn add(&self, repo: &str, commit: &str, files: &[RepoFile]) {
        let mut state = self.shared.0.lock().unwrap();
        for revision in ["main", commit] {
            state.commits.insert((repo.into(), revision.into()), commit.into());
        }
        state.files.insert((repo.into(), commit.into()), files.to_vec());
    }

    pub fn add_revision(&self, repo: &str, revision: &str, commit: &str) {
        self.shared.0.lock().unwrap().commits.insert((repo.into(), revision.into()), commit.into());
    }

    /// The next `times` requests whose line starts with `line` go wrong.
    pub fn fault(&self, line: &str, times: usize, fault: Fault) {
        self.shared.0.lock().unwrap().faults.push((line.into(), times, fault));
    }

    pub fn heal(&self) {
        self.shared.0.lock().unwrap().faults.clear();
    }

    /// All requests whose line starts with this, in order.
    pub fn seen(&self, line: &str) -> Vec<Seen> {
        self.shared.0.lock().unwrap().seen.iter().filter(|seen| seen.line.starts_with(line)).cloned().collect()
    }

    pub fn forget(&self) {
        self.shared.0.lock().unwrap().seen.clear();
    }

    /// Returns once a body is being held back.
    pub fn wait_until_held(&self) {
        let state = self.shared.0.lock().unwrap();
        drop(self.shared.1.wait_while(state, |state| state.held == 0).unwrap());
    }

    pub fn config(&self, cache: &Path) -> HubConfig {
        config(cache, &format!("http://{}", self.address))
    }
}

impl Drop for FakeHub {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for address in [self.address, self.content] {
            drop(TcpStream::connect(address));
        }
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

/// Settings with quick retries that read nothing of the environment.
pub fn config(cache: &Path, endpoint: &str) -> HubConfig {
    let mut config = HubConfig::from_vars(|_| None, None);
    config.cache_dir = cache.to_path_buf();
    config.endpoint = endpoint.to_owned();
    config.token = Some("hf_secret".to_owned());
    config.retries = 3;
    config.retry_delay = Duration::from_millis(1);
    config
}

/// An address at which nobody listens.
pub fn dead_endpoint() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A small file, kept in git.
pub fn small(name: &str, text: &str) -> RepoFile {
    let etag = sha256(text.as_bytes())[..40].to_owned();
    RepoFile { name: name.into(), bytes: text.into(), large: false, etag }
}

/// A large file of bytes that differ everywhere.
pub fn large(name: &str, len: usize, seed: u64) -> RepoFile {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x.to_le_bytes()[3]
    })
    .take(len)
    .collect();
    let etag = sha256(&bytes);
    RepoFile { name: name.into(), bytes, large: true, etag }
}

/// A whole little checkpoint.
pub fn checkpoint(weights: RepoFile) -> Vec<RepoFile> {
    vec![
        small("README.md", "read me"),
        small("config.json", r#"{"model_type":"llama"}"#),
        small("tokenizer.json", "{}"),
        small("tokenizer_config.json", r#"{"chat_template":"x"}"#),
        weights,
    ]
}

struct Request {
    seen: Seen,
    method: String,
    path: String,
}

fn read_request(stream: &TcpStream, is_content: bool) -> std::io::Result<Request> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((key, value)) = line.trim().split_once(": ") else { break };
        headers.insert(key.to_ascii_lowercase(), value.to_owned());
    }
    let mut words = first.split(' ');
    let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or("").replace("%2F", "/"));
    let line = format!("{}{method} {path}", if is_content { "cdn " } else { "" });
    let seen = Seen {
        line,
        range: headers.get("range").cloned(),
        authorization: headers.get("authorization").cloned(),
        sent: 0,
    };
    Ok(Request { seen, method: method.to_owned(), path })
}

fn serve(stream: TcpStream, is_content: bool, content: SocketAddr, shared: &Shared) -> std::io::Result<()> {
    let request = read_request(&stream, is_content)?;
    let (index, fault) = {
        let mut state = shared.0.lock().unwrap();
        state.seen.push(request.seen.clone());
        let line = &request.seen.line;
        let matching = state.faults.iter_mut().find(|(start, times, _)| *times > 0 && line.starts_with(start.as_str()));
        let fault = matching.map(|(_, times, fault)| {
            *times -= 1;
            fault.clone()
        });
        shared.1.notify_all();
        (state.seen.len() - 1, fault)
    };
    if let Some(Fault::WaitFor(line, times)) = &fault {
        let state = shared.0.lock().unwrap();
        let count = |state: &mut State| state.seen.iter().filter(|seen| seen.line.starts_with(line)).count() < *times;
        drop(shared.1.wait_while(state, count).unwrap());
    }
    let mut answer = match &fault {
        Some(Fault::Status(status, headers)) => Answer { head: format!("{status} Fault\r\n{headers}"), body: vec![] },
        _ => answer(&request, is_content, content, shared, matches!(fault, Some(Fault::IgnoreRange))),
    };
    let announced = answer.body.len();
    if request.method == "HEAD" {
        answer.body.clear();
    }
    let end = match fault {
        Some(Fault::CutAfter(n) | Fault::HoldAfter(n)) => n.min(answer.body.len()),
        _ => answer.body.len(),
    };
    {
        let mut state = shared.0.lock().unwrap();
        if let Some(seen) = state.seen.get_mut(index) {
            seen.sent = end;
        }
    }
    let mut stream = stream;
    let head = format!("HTTP/1.1 {}content-length: {announced}\r\nconnection: close\r\n\r\n", answer.head);
    stream.write_all(head.as_bytes())?;
    stream.write_all(&answer.body[..end])?;
    stream.flush()?;
    if matches!(fault, Some(Fault::HoldAfter(_))) {
        shared.0.lock().unwrap().held += 1;
        shared.1.notify_all();
        // Ends when the client hangs up.
        drop(stream.read(&mut [0]));
    }
    stream.shutdown(Shutdown::Write)
}

/// Status line and headers, each ended by CRLF, and the body.
struct Answer {
    head: String,
    body: Vec<u8>,
}

fn answer(request: &Request, is_content: bool, content: SocketAddr, shared: &Shared, ignore_range: bool) -> Answer {
    let state = shared.0.lock().unwrap();
    let not_found = || Answer { head: "404 Not Found\r\n".into(), body: vec![] };
    if is_content {
        let etag = request.path.trim_start_matches("/content/");
        let file = state.files.values().flatten().find(|file| file.etag == etag);
        return file.map_or_else(not_found, |file| ranged(request, file, "", ignore_range));
    }
    if let Some((repo, revision)) = request.path.strip_prefix("/api/models/").and_then(|p| p.split_once("/revision/")) {
        let Some(commit) = state.commits.get(&(repo.into(), revision.into())) else {
            let known = state.files.keys().any(|(r, _)| r == repo);
            let code = if known { "RevisionNotFound" } else { "RepoNotFound" };
            return Answer { head: format!("404 Not Found\r\nx-error-code: {code}\r\n"), body: vec![] };
        };
        let files = &state.files[&(repo.to_owned(), commit.clone())];
        let siblings: Vec<_> = files.iter().map(|file| serde_json::json!({ "rfilename": file.name })).collect();
        let body = serde_json::json!({ "_id": "1", "id": repo, "sha": commit, "siblings": siblings });
        return Answer { head: "200 OK\r\ncontent-type: application/json\r\n".into(), body: body.to_string().into() };
    }
    let Some((repo, rest)) = request.path.trim_start_matches('/').split_once("/resolve/") else { return not_found() };
    let Some((commit, name)) = rest.split_once('/') else { return not_found() };
    let files = state.files.get(&(repo.to_owned(), commit.to_owned()));
    let Some(file) = files.and_then(|files| files.iter().find(|file| file.name == name)) else { return not_found() };
    if file.large {
        let (etag, len) = (&file.etag, file.bytes.len());
        let head = format!(
            "302 Found\r\nlocation: http://{content}/content/{etag}\r\nx-linked-etag: \"{etag}\"\r\n\
             x-linked-size: {len}\r\nx-repo-commit: {commit}\r\n"
        );
        return Answer { head, body: b"moved".to_vec() };
    }
    ranged(request, file, &format!("etag: \"{}\"\r\nx-repo-commit: {commit}\r\n", file.etag), ignore_range)
}

fn ranged(request: &Request, file: &RepoFile, headers: &str, ignore_range: bool) -> Answer {
    let from = request.seen.range.as_ref().filter(|_| !ignore_range);
    let from = from.map(|range| range.trim_start_matches("bytes=").trim_end_matches('-').parse::<usize>().unwrap());
    let total = file.bytes.len();
    match from {
        None => Answer { head: format!("200 OK\r\n{headers}"), body: file.bytes.clone() },
        Some(from) if from >= total => Answer { head: "416 Range Not Satisfiable\r\n".into(), body: vec![] },
        Some(from) => Answer {
            head: format!("206 Partial Content\r\n{headers}content-range: bytes {from}-{}/{total}\r\n", total - 1),
            body: file.bytes[from..].to_vec(),
        },
    }
}
