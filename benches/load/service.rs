//! The service under load: the release binary, with a data directory and a rules file of its own.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::http::{Connection, request};

const PASSWORD: &str = "a password for measuring";

/// The binary that is measured.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("OPSPILOT_BIN") {
        return path.into();
    }
    // target/release/deps/load-… stands beside target/release/opspilot
    let own = std::env::current_exe().expect("a path");
    own.ancestors().nth(2).expect("a target directory").join("opspilot")
}

const WHAT: [&str; 10] = ["payment", "checkout", "refund", "database", "replica", "cache", "queue", "backup", "certificate", "upstream"];
const FAILED: [&str; 5] = [
    r"failed for order (?P<what>\d+)",
    r"timed out after (?P<what>\d+)ms",
    r"refused connection from (?P<what>\S+)",
    r"lost quorum in zone (?P<what>\w+)",
    r"exhausted retries \((?P<what>\d+)\)",
];

/// Fifty rules of one shape or another, and one that the latency is measured with.
fn configuration() -> String {
    let mut rules = String::from(
        "modules:\n  connector.metrics: {enabled: false}\n  detector.regex:\n    rules:\n      - {id: probe, pattern: 'latency probe', severity: critical, title: 'Probe', cooldown: 1ms, max_alerts_per_minute: 1000000000}\n",
    );
    for failed in FAILED {
        for what in WHAT {
            let id = rules.lines().count();
            rules.push_str(&format!("      - {{id: rule-{id}, pattern: '{what} {failed}', severity: error, title: '{what} trouble'}}\n"));
        }
    }
    rules
}

/// A running service.
pub struct Service {
    child: Child,
    pub port: u16,
    pub token: String,
    /// From the start of the process to the first `readyz` that says yes.
    pub ready: Duration,
    dir: tempfile::TempDir,
}

impl Service {
    pub async fn start() -> Service {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("opspilot.yaml"), configuration()).expect("a file");
        let mut service = Service::start_in(dir).await;
        service.log_in().await;
        service
    }

    async fn start_in(dir: tempfile::TempDir) -> Service {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let begin = Instant::now();
        let child = Command::new(binary())
            .args(["serve", "--config"])
            .arg(dir.path().join("opspilot.yaml"))
            .arg("--data")
            .arg(dir.path().join("data"))
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .env("OPSPILOT_ADMIN_PASSWORD", PASSWORD)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the binary (cargo build --release)");
        let mut service = Service { child, port, token: String::new(), ready: Duration::ZERO, dir };
        loop {
            if let Some(status) = service.child.try_wait().unwrap() {
                panic!("the service ended with {status}: {}", std::fs::read_to_string(service.dir.path().join("log")).unwrap());
            }
            if let Ok(mut connection) = Connection::open(port).await
                && let Ok(answer) = connection.send(&request("GET", "/api/readyz", "", "text/plain", b"")).await
                && answer.status == 200
            {
                service.ready = begin.elapsed();
                return service;
            }
            assert!(begin.elapsed() < Duration::from_secs(60), "the service is not ready after a minute");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn log_in(&mut self) {
        let body = serde_json::json!({ "username": "admin", "password": PASSWORD }).to_string();
        let answer = self.connect().await.send(&request("POST", "/api/auth/login", "", "application/json", body.as_bytes())).await.unwrap();
        self.token = answer.json()["token"].as_str().expect("a token").to_owned();
    }

    pub async fn connect(&self) -> Connection {
        Connection::open(self.port).await.expect("a connection")
    }

    pub fn post(&self, lines: &[u8]) -> Vec<u8> {
        request("POST", "/api/events", &self.token, "application/x-ndjson", lines)
    }

    /// The sum of a metric over its labels; the name may go on with the first of them.
    pub async fn metric(&self, name: &str) -> f64 {
        let answer = self.connect().await.send(&request("GET", "/api/metrics", &self.token, "text/plain", b"")).await.unwrap();
        let text = String::from_utf8(answer.body).unwrap();
        let of = |line: &str| {
            line.strip_prefix(name)?.starts_with([' ', '{', '}', ',']).then(|| line.rsplit(' ').next()?.parse::<f64>().ok())?
        };
        text.lines().filter_map(of).fold(0.0, |sum, value| sum + value)
    }

    /// Resident memory and its highest, in MiB.
    pub fn memory(&self) -> (f64, f64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let of = |name: &str| -> f64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0");
            line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0) / 1024.0
        };
        (of("VmRSS"), of("VmHWM"))
    }

    /// Seconds of processor time used so far.
    pub fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
    }

    fn end(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
        self.child.wait().expect("an end");
    }

    /// Stops it in order; how many bytes the data directory holds then.
    pub fn stop(mut self) -> u64 {
        self.end();
        size(&self.dir.path().join("data"))
    }

    /// Stops it in order and starts it again on the same data.
    pub async fn again(mut self) -> Service {
        self.end();
        let token = std::mem::take(&mut self.token);
        let dir = std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap());
        drop(self);
        let mut service = Service::start_in(dir).await;
        service.token = token;
        service
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

fn size(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    // the file that is kept for a full disk holds nothing
    entries
        .filter(|entry| !entry.file_name().to_string_lossy().contains("reserve"))
        .map(|entry| if entry.path().is_dir() { size(&entry.path()) } else { entry.metadata().unwrap().len() })
        .sum()
}
