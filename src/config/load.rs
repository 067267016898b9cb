//! From the three sources to a configuration that holds, or to everything that is wrong with it.

use std::{
    collections::BTreeMap,
    fmt, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use opspilot_kernel::config::{Size, Span};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json};

use super::{
    Config, ModuleSettings, overlay,
    report::{Finding, Place, Report, escaped},
    schema::{Catalogue, document},
    secrets::Hidden,
    tree::{Node, parse},
    walk::{Walked, walk},
};

/// Larger than any configuration.
const MAX_FILE: u64 = 4 << 20;

/// Shorter sessions would be over between two requests of one person.
const LEAST_SESSION: Span = Span::seconds(60);
/// Longer ones would be passwords.
const MOST_SESSION: Span = Span::seconds(90 * 86_400);
/// With less the disk would be full again with the next few requests, and with more than any disk has it would stay full.
const LEAST_HEADROOM: Size = Size::mib(1);
const MOST_HEADROOM: Size = Size(1 << 40);
/// Sooner one look at the disk would decide, and later nobody would know what it still waits for.
const LEAST_HEALING: Span = Span::seconds(1);
const MOST_HEALING: Span = Span::seconds(3600);

/// What wins over the file and the environment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Flags {
    /// `--listen`
    pub listen: Option<String>,
    /// `--data`
    pub data: Option<PathBuf>,
}

/// Where a configuration comes from. Kept, so that a reload reads the same places again.
#[derive(Clone, Default)]
pub struct Sources {
    /// The file; without one, the defaults.
    pub file: Option<PathBuf>,
    /// The environment.
    pub variables: Vec<(String, String)>,
    /// The command line.
    pub flags: Flags,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // a value may be a secret
        let names: Vec<&str> = self.variables.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Sources").field("file", &self.file).field("variables", &names).field("flags", &self.flags).finish()
    }
}

impl Sources {
    /// The file `file` under this process's environment and `flags`.
    pub fn of_process(file: Option<PathBuf>, flags: Flags) -> Sources {
        let variables = std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
            .filter(|(name, _)| name.starts_with("OPSPILOT__"))
            .collect();
        Sources { file, variables, flags }
    }
}

/// Reads and judges a configuration.
pub fn load(sources: &Sources, catalogue: &Catalogue<'_>) -> Result<Config, Report> {
    let name = sources.file.as_ref().map_or_else(|| "configuration".to_owned(), |path| path.display().to_string());
    let (text, mut findings) = match sources.file.as_deref().map(read) {
        None => (String::new(), Vec::new()),
        Some(Ok(text)) => (text, Vec::new()),
        Some(Err((text, finding))) => return Err(Report::new(name, &text, vec![finding], &Hidden::by(&document(catalogue)))),
    };
    let schema = document(catalogue);
    let hidden = Hidden::by(&schema);
    let Some(mut tree) = parse(&text, &mut findings) else { return Err(Report::new(name, &text, findings, &hidden)) };
    overlay::variables(&mut tree, &schema, &sources.variables, &mut findings);
    flags(&mut tree, &sources.flags);
    let (json, mut walked) = walk(&schema, &tree);
    findings.append(&mut walked.findings);
    let config = assembled(json, catalogue, &walked, &mut findings);
    match config {
        Some(config) if findings.is_empty() => Ok(config),
        _ => Err(Report::new(name, &text, findings, &hidden.and(walked.hidden))),
    }
}

/// The file's text; or as much of it as can be shown, and what is wrong.
fn read(path: &Path) -> Result<String, (String, Finding)> {
    let whole = |message: String| (String::new(), Finding::new(Place::Whole, message));
    let cannot = |error: std::io::Error| whole(format!("cannot read the file: {error}"));
    let about = fs::metadata(path).map_err(cannot)?;
    if !about.is_file() || about.len() > MAX_FILE {
        return Err(whole("not a regular file of at most 4 MiB".to_owned()));
    }
    String::from_utf8(fs::read(path).map_err(cannot)?).map_err(|error| {
        let good = String::from_utf8_lossy(error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default());
        let line = good.matches('\n').count() + 1;
        let column = good.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let finding = Finding::new(Place::file(line, column), "this is not UTF-8").suggest("save the file as UTF-8");
        (String::from_utf8_lossy(error.as_bytes()).into_owned(), finding)
    })
}

fn flags(tree: &mut Node, flags: &Flags) {
    let mut put = |path: [&str; 2], flag: &'static str, text: &str| {
        overlay::set(tree, &path.map(str::to_owned), Node::plain(Place::Flag(flag), text));
    };
    if let Some(listen) = &flags.listen {
        put(["server", "listen"], "--listen", listen);
    }
    if let Some(data) = &flags.data {
        put(["ledger", "dir"], "--data", &data.display().to_string());
    }
}

/// The typed configuration, judged by the types, by us and by the modules.
fn assembled(json: Json, catalogue: &Catalogue<'_>, walked: &Walked, findings: &mut Vec<Finding>) -> Option<Config> {
    let mut top = match json {
        Json::Object(top) => top,
        _ => Map::new(),
    };
    let modules = modules(top.remove("modules"), catalogue, walked, findings);
    let server = section(&mut top, "server", walked, findings);
    let ledger = section(&mut top, "ledger", walked, findings);
    let outbound = section(&mut top, "outbound", walked, findings);
    let policy = section::<opspilot_safety::Policy>(&mut top, "policy", walked, findings);
    for problem in policy.iter().flat_map(opspilot_safety::Policy::validate) {
        let problem = problem.under("/policy");
        findings.push(Finding::at(walked.place_of(&problem.pointer), &problem.pointer, problem.message));
    }
    let log = section(&mut top, "log", walked, findings);
    let limits = section(&mut top, "limits", walked, findings);
    let config = Config { server: server?, ledger: ledger?, outbound: outbound?, policy: policy?, log: log?, limits: limits?, modules };
    judged(&config, walked, findings);
    Some(config)
}

fn section<T: DeserializeOwned + Default>(
    top: &mut Map<String, Json>,
    name: &str,
    walked: &Walked,
    findings: &mut Vec<Finding>,
) -> Option<T> {
    let Some(json) = top.remove(name) else { return Some(T::default()) };
    match serde_json::from_value(json) {
        Ok(section) => Some(section),
        Err(error) => {
            let pointer = format!("/{name}");
            findings.push(Finding::at(walked.place_of(&pointer), &pointer, error.to_string()));
            None
        }
    }
}

fn modules(
    json: Option<Json>,
    catalogue: &Catalogue<'_>,
    walked: &Walked,
    findings: &mut Vec<Finding>,
) -> BTreeMap<opspilot_kernel::module::ModuleId, ModuleSettings> {
    let mut given = match json {
        Some(Json::Object(given)) => given,
        _ => Map::new(),
    };
    let mut modules = BTreeMap::new();
    for entry in catalogue {
        let mut own = match given.remove(entry.id.as_str()) {
            Some(Json::Object(own)) => own,
            _ => Map::new(),
        };
        let enabled = own.remove("enabled").and_then(|on| on.as_bool()).unwrap_or(entry.enabled_by_default);
        let config = Json::Object(own);
        // a module that is off is judged too: switching it on must not be the moment one learns of a mistake
        for problem in (entry.check)(config.clone()) {
            let problem = problem.under(&format!("/modules/{}", escaped(entry.id.as_str())));
            if walked.is_patched(&problem.pointer) || walked.blames_patched(&problem.pointer, &problem.message) {
                continue;
            }
            let place = walked.place_of(&problem.pointer);
            let suggestion = problem.suggestion.map(|text| if text.contains(' ') { text } else { format!("write `{text}`") });
            findings.push(Finding { place, pointer: problem.pointer, message: problem.message, suggestion });
        }
        let own = format!("/modules/{}/", escaped(entry.id.as_str()));
        let secrets = walked.secrets.iter().filter_map(|pointer| pointer.strip_prefix(&own)).map(|rest| format!("/{rest}")).collect();
        modules.insert(entry.id, ModuleSettings { enabled, config, secrets });
    }
    modules
}

/// What only the whole can show.
fn judged(config: &Config, walked: &Walked, findings: &mut Vec<Finding>) {
    let mut say = |pointer: &str, message: String, suggestion: &str| {
        findings.push(Finding::at(walked.place_of(pointer), pointer, message).suggest(suggestion));
    };
    let server = &config.server;
    if !server.listen.ip().to_canonical().is_loopback() && server.tls.is_none() && server.trusted_proxies.is_empty() && !server.insecure {
        say(
            "/server/listen",
            format!("{} is reachable from other machines, and passwords would travel in the clear", server.listen),
            "set server.tls, or server.trusted_proxies if a proxy does TLS, or server.insecure: true if you accept that",
        );
    }
    let session = server.session;
    if session.idle < LEAST_SESSION {
        say("/server/session/idle", format!("{} would log people out while they work", session.idle), "write at least 1m, such as 30m");
    }
    if session.absolute < session.idle || session.absolute > MOST_SESSION {
        let message = format!("{} is no length for a session that may be idle for {}", session.absolute, session.idle);
        say("/server/session/absolute", message, "write at least as much as server.session.idle, and at most 90d");
    }
    let ledger = &config.ledger;
    if !(LEAST_HEADROOM..=MOST_HEADROOM).contains(&ledger.headroom) {
        let message = format!("{} is no room to go on in after a full disk", ledger.headroom);
        say("/ledger/headroom", message, "write at least 1MiB and at most 1024GiB, such as 16MiB");
    }
    if !(LEAST_HEALING..=MOST_HEALING).contains(&ledger.heal_after) {
        let message = format!("{} is no time to see in whether a full disk stays free", ledger.heal_after);
        say("/ledger/heal_after", message, "write at least 1s and at most 1h, such as 10s");
    }
    if let Some(tls) = &server.tls {
        for (pointer, path) in [("/server/tls/cert", &tls.cert), ("/server/tls/key", &tls.key)] {
            if let Err(error) = fs::File::open(path) {
                say(pointer, format!("cannot read {}: {error}", path.display()), "name a PEM file that this user can read");
            }
        }
    }
    if let Some(file) = &config.log.file {
        let parent = file.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !parent.is_dir() {
            say("/log/file/path", format!("there is no folder {}", parent.display()), "make the folder, or name another");
        }
    }
    colliding(config, walked, findings);
}

/// Two things that would listen on one port.
fn colliding(config: &Config, walked: &Walked, findings: &mut Vec<Finding>) {
    let mut taken: Vec<(String, String, SocketAddr)> = Vec::new();
    if !walked.listeners.iter().any(|(pointer, ..)| pointer == "/server/listen") {
        taken.push(("/server/listen".to_owned(), "tcp".to_owned(), config.server.listen));
    }
    for (pointer, transport, text) in &walked.listeners {
        let Ok(address) = text.parse::<SocketAddr>() else { continue };
        if !is_on(config, pointer) {
            continue;
        }
        let clash = taken.iter().find(|(_, other, held)| other == transport && clash(*held, address));
        if let Some((first, ..)) = clash {
            let message = format!("{address} ({transport}) is taken already");
            let finding = Finding::at(walked.place_of(pointer), pointer, message);
            let holder = first.trim_start_matches('/').replace('/', ".");
            findings.push(finding.suggest(format!("{holder} listens there; choose another port")));
        }
        taken.push((pointer.clone(), transport.clone(), address));
    }
}

/// Whether what `pointer` belongs to runs; a module that is off holds no port.
fn is_on(config: &Config, pointer: &str) -> bool {
    let Some(behind) = pointer.strip_prefix("/modules/") else { return true };
    let id = behind.split('/').next().unwrap_or_default();
    config.modules.iter().find(|(module, _)| module.as_str() == id).is_none_or(|(_, settings)| settings.enabled)
}

fn clash(a: SocketAddr, b: SocketAddr) -> bool {
    let anywhere = a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() != 0 && a.port() == b.port() && (anywhere || a.ip() == b.ip())
}
