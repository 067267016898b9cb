//! The service as a test holds it: the real binary, a folder of its own, a port of its own.

mod socket;

use std::{
    io::{BufRead, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value as Json, json};
use tempfile::TempDir;

pub use socket::Socket;

/// The password of `admin` in every test.
pub const PASSWORD: &str = "correct horse battery staple";
/// Longer than anything a test waits for.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Asks until there is an answer; a test that waits in vain says for what.
pub async fn until<T>(what: &str, ask: impl AsyncFnMut() -> Option<T>) -> T {
    within(PATIENCE, what, ask).await
}

/// The same for what may take another time.
pub async fn within<T>(patience: Duration, what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let over = tokio::time::Instant::now() + patience;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(tokio::time::Instant::now() < over, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A data directory and a configuration; services come and go on it.
pub struct Home {
    pub dir: TempDir,
}

impl Home {
    /// A folder with this configuration.
    pub fn new(config: &str) -> Home {
        let home = Home { dir: tempfile::tempdir().unwrap() };
        home.configure(config);
        home
    }

    /// Replaces the configuration.
    pub fn configure(&self, config: &str) {
        std::fs::write(self.config(), config).unwrap();
    }

    pub fn config(&self) -> PathBuf {
        self.dir.path().join("opspilot.yaml")
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The service on this folder, started but perhaps not ready.
    pub fn spawn(&self, variables: &[(&str, &str)]) -> Service {
        self.spawn_under(&[], variables)
    }

    /// The same as the child of another program, which must become the service (`exec`, `strace -D`).
    pub fn spawn_under(&self, wrapper: &[&str], variables: &[(&str, &str)]) -> Service {
        let mut command = wrapped(wrapper);
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--config"])
            .arg(self.config())
            .arg("--data")
            .arg(self.data())
            .current_dir(self.dir.path())
            .env("OPSPILOT_ADMIN_PASSWORD", PASSWORD)
            .env("OPSPILOT__LOG__FORMAT", "json")
            .envs(variables.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // fails only if another test did it already
        drop(rustls::crypto::ring::default_provider().install_default());
        let log = Log::default();
        let (lines, stderr) = (log.clone(), child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.0.lock().unwrap().push(line);
            }
        });
        Service { child: Some(child), log, url: String::new(), http: reqwest::Client::new(), token: None, data: self.data() }
    }

    /// The service on this folder, ready, with `admin` logged in.
    pub async fn start(&self) -> Service {
        self.start_with(&[]).await
    }

    pub async fn start_with(&self, variables: &[(&str, &str)]) -> Service {
        let mut service = self.spawn(variables);
        service.ready().await;
        service.token = Some(service.log_in("admin", PASSWORD).await);
        service
    }
}

/// The binary under test, with nothing of our own environment that could configure it.
pub fn command() -> Command {
    wrapped(&[])
}

fn wrapped(wrapper: &[&str]) -> Command {
    let words: Vec<&str> = wrapper.iter().copied().chain([env!("CARGO_BIN_EXE_opspilot")]).collect();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("OPSPILOT")) {
        command.env_remove(name);
    }
    command
}

/// What the service logged, line by line.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    pub fn has(&self, text: &str) -> bool {
        self.lines().iter().any(|line| line.contains(text))
    }
}

/// A running service. Dropping it kills it.
pub struct Service {
    child: Option<Child>,
    pub log: Log,
    pub url: String,
    pub http: reqwest::Client,
    pub token: Option<String>,
    data: PathBuf,
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
            if std::thread::panicking() {
                eprintln!("--- log of the service\n{}", self.log.lines().join("\n"));
            }
        }
    }
}

impl Service {
    /// Waits until it answers that it is ready.
    pub async fn ready(&mut self) {
        assert!(self.listening().await, "the service ended: {}", self.log.lines().join("\n"));
        let (http, url) = (self.http.clone(), self.url.clone());
        until("readiness", async || http.get(format!("{url}/api/readyz")).send().await.ok().filter(|answer| answer.status() == 200)).await;
    }

    /// Waits until it says where it listens; `false` if it ended instead.
    pub async fn listening(&mut self) -> bool {
        let log = self.log.clone();
        let child = self.child.as_mut().unwrap();
        let url = until("the service's address", async || {
            if child.try_wait().unwrap().is_some() {
                return Some(None);
            }
            let line = log.lines().into_iter().find(|line| line.contains("\"msg\":\"ready\""))?;
            let line: Json = serde_json::from_str(&line).unwrap();
            Some(Some(line["url"].as_str().unwrap().to_owned()))
        })
        .await;
        self.url = url.clone().unwrap_or_default();
        url.is_some()
    }

    pub fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(self.child.as_ref().unwrap())
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    /// Ends it without warning.
    pub fn kill(mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        let child = self.child.as_mut().unwrap();
        let status = until("the end of the service", async || child.try_wait().unwrap()).await;
        self.child = None;
        status
    }

    /// Ends it in order. Whatever the test did, the audit log must be whole.
    pub async fn stop(self) {
        let data = self.data.clone();
        self.stop_unverified("verified here").await;
        let output = command().args(["audit", "verify", "--data"]).arg(&data).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "`opspilot audit verify` after a clean stop: {}", said(&output));
    }

    /// Ends it in order, where the audit log cannot be whole; says why not.
    pub async fn stop_unverified(mut self, _why: &str) {
        self.signal(rustix::process::Signal::TERM);
        let status = self.ended().await;
        assert_eq!(status.code(), Some(0), "a clean stop; log:\n{}", self.log.lines().join("\n"));
    }

    pub async fn log_in(&self, user: &str, password: &str) -> String {
        let answer =
            self.call(reqwest::Method::POST, "/api/auth/login", None, Some(json!({ "username": user, "password": password }))).await;
        assert_eq!(answer.0, 200, "{}", answer.1);
        answer.1["token"].as_str().unwrap().to_owned()
    }

    /// Any call; the status and the JSON.
    pub async fn call(&self, method: reqwest::Method, path: &str, token: Option<&str>, body: Option<Json>) -> (u16, Json) {
        self.try_call(method, path, token, body).await.unwrap()
    }

    pub async fn try_call(
        &self,
        method: reqwest::Method,
        path: &str,
        token: Option<&str>,
        body: Option<Json>,
    ) -> Result<(u16, Json), reqwest::Error> {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if let Some(token) = token {
            request = if token.starts_with("opk_") { request.header("X-API-Key", token) } else { request.bearer_auth(token) };
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await?;
        let status = answer.status().as_u16();
        let text = answer.text().await?;
        Ok((status, serde_json::from_str(&text).unwrap_or(Json::String(text))))
    }

    /// `GET` as `admin`, which must work.
    pub async fn get(&self, path: &str) -> Json {
        let (status, json) = self.call(reqwest::Method::GET, path, self.token.as_deref(), None).await;
        assert_eq!(status, 200, "{path}: {json}");
        json
    }

    /// `POST` as `admin`.
    pub async fn post(&self, path: &str, body: Json) -> (u16, Json) {
        self.call(reqwest::Method::POST, path, self.token.as_deref(), Some(body)).await
    }

    /// Sends log lines, which must be accepted.
    pub async fn logs(&self, source: &str, lines: &[&str]) -> Json {
        let events: Vec<Json> = lines.iter().map(|line| json!({ "source": source, "message": line })).collect();
        let (status, answer) = self.post("/api/events", Json::Array(events)).await;
        assert_eq!(status, 202, "{answer}");
        answer
    }

    /// Every incident.
    pub async fn incidents(&self) -> Vec<Json> {
        self.get("/api/incidents?limit=500").await["items"].as_array().unwrap().clone()
    }

    /// Waits for an incident whose title holds `title`.
    pub async fn incident(&self, title: &str) -> Json {
        until(&format!("an incident titled {title:?}"), async || {
            self.incidents().await.into_iter().find(|incident| incident["title"].as_str().unwrap().contains(title))
        })
        .await
    }

    /// Waits until the health report, a 503 while the service is not well, says that all is well. What a part went through a
    /// moment ago may still be told.
    pub async fn healthy(&self) {
        let token = self.token.as_deref();
        let report = async || self.call(reqwest::Method::GET, "/api/health", token, None).await.1;
        until("health", async || (report().await["status"] == "healthy").then_some(())).await;
    }

    /// How a module is, by the health report.
    pub async fn module(&self, id: &str) -> Json {
        let health = self.get("/api/health").await;
        health["modules"].as_array().unwrap().iter().find(|module| module["id"] == id).cloned().unwrap_or(Json::Null)
    }

    pub async fn socket(&self) -> Socket {
        Socket::open(&self.url, self.token.as_deref().unwrap(), None).await
    }

    /// A socket whose client reads only when the test does.
    pub async fn slow_socket(&self) -> Socket {
        Socket::open(&self.url, self.token.as_deref().unwrap(), Some(4096)).await
    }

    /// Every signal stored, as its message, in order.
    pub async fn messages(&self) -> Vec<String> {
        let mut messages = Vec::new();
        let mut path = "/api/signals?limit=500".to_owned();
        loop {
            let page = self.get(&path).await;
            messages.extend(page["items"].as_array().unwrap().iter().filter_map(|item| item["message"].as_str()).map(str::to_owned));
            match page["next_cursor"].as_str() {
                Some(cursor) => path = format!("/api/signals?limit=500&cursor={cursor}"),
                None => return messages,
            }
        }
    }
}

/// Runs a client command against a service.
pub fn client(service: &Service, args: &[&str]) -> Output {
    command().args(args).env("OPSPILOT_URL", &service.url).env("OPSPILOT_TOKEN", service.token.as_deref().unwrap_or("")).output().unwrap()
}

/// Runs a command with `input` on its standard input.
pub fn fed(command: &mut Command, input: &str) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // a command that does not read its input closes it, which is fine
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
    child.wait_with_output().unwrap()
}

/// All that a command wrote.
pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// How a command ended, and all that it wrote.
pub fn outcome(output: &Output) -> (i32, String) {
    (output.status.code().unwrap(), said(output))
}

/// Appends to a file, as a service that logs does.
pub fn append(path: &Path, text: &str) {
    std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

/// Whether the long run was asked for.
pub fn long() -> bool {
    std::env::var_os("OPSPILOT_LONG").is_some()
}

/// Whether an outside program is there. Under `OPSPILOT_REQUIRE_TOOLS` it must be.
pub fn has_tool(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = std::env::split_paths(&path).any(|folder| folder.join(name).is_file());
    assert!(there || std::env::var_os("OPSPILOT_REQUIRE_TOOLS").is_none(), "{name} is not installed, and must be here");
    if !there {
        eprintln!("SKIPPED: {name} is not installed");
    }
    there
}
