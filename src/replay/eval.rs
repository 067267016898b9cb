//! The benchmarks: what is shipped, with one default configuration, over data whose answers are known to others.
//!
//! Nothing here opens a file of answers or a column of them, and no detector is told a file's name, length or range.

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use opspilot_connectors::syslog::Offset;
use opspilot_detectors::offline;
use opspilot_kernel::{
    alert::{AlertRecord, Transition},
    ids::Seq,
    module::ModuleId,
    signal::{LogEntry, SignalBlock, SignalRef},
    time::Timestamp,
};
use serde_json::Value as Json;

use super::{
    Runs,
    drive::{Drive, Hears},
    input::csv,
};

/// The detector of anomalies.
const ANOMALY: &str = "detector.anomaly";

/// What became of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Evaluated {
    pub(crate) name: String,
    /// Rows or lines.
    pub(crate) rows: u64,
    /// Rows of an alarm, or groups.
    pub(crate) found: u64,
}

fn cannot(what: &str, path: &Path) -> impl FnOnce(io::Error) -> String {
    let text = format!("cannot {what} {}", path.display());
    move |error| format!("{text}: {error}")
}

/// The folders or files in a folder, by name.
fn listed(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(folder).map_err(cannot("read", folder))?;
    let paths: Result<Vec<PathBuf>, io::Error> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut paths = paths.map_err(cannot("read", folder))?;
    paths.sort();
    Ok(paths)
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(cannot("make", folder))?;
    }
    fs::write(path, text).map_err(cannot("write", path))
}

/// The files for which `wanted` holds, by the folders they lie in: those of the first of `places` in `data` that has any. So a
/// benchmark is found by its own folder and by one that holds it beside others.
fn found(data: &Path, places: &[&str], wanted: impl Fn(&Path) -> bool) -> Result<Vec<(PathBuf, Vec<PathBuf>)>, String> {
    if !data.is_dir() {
        return Err(format!("there is no folder {}; --data names the folder of the benchmark", data.display()));
    }
    for place in places.iter().map(|place| data.join(place)).filter(|place| place.is_dir()) {
        let mut folders = Vec::new();
        for folder in listed(&place)?.into_iter().filter(|path| path.is_dir()) {
            let files: Vec<PathBuf> = listed(&folder)?.into_iter().filter(|path| wanted(path)).collect();
            if !files.is_empty() {
                folders.push((folder, files));
            }
        }
        if !folders.is_empty() {
            return Ok(folders);
        }
    }
    Ok(Vec::new())
}

/// `DIR/data/<category>/<file>.csv`, `timestamp,value`, becomes `OUT/<category>/<file>.csv`, `timestamp,anomaly_score`.
pub(crate) fn anomaly(data: &Path, out: &Path) -> Result<Vec<Evaluated>, String> {
    let mut all = Vec::new();
    let is_series = |path: &Path| path.extension().is_some_and(|extension| extension == "csv");
    for (category, files) in found(data, &["data", "nab/data", "detection/nab/data", "."], is_series)? {
        for file in files {
            let name = format!("{}/{}", name_of(&category), name_of(&file));
            let text = fs::read_to_string(&file).map_err(cannot("read", &file))?;
            let (scored, rows, found) = series(&text).map_err(|why| format!("{name}: {why}"))?;
            write(&out.join(&name), &scored)?;
            all.push(Evaluated { name, rows, found });
        }
    }
    if all.is_empty() {
        return Err(format!("there is no data/<category>/<file>.csv in {}", data.display()));
    }
    Ok(all)
}

/// Which signals an alarm is about.
#[derive(Default)]
struct Alarms {
    seqs: Vec<Seq>,
}

impl Hears for Alarms {
    fn record(&mut self, record: AlertRecord) {
        // a repeat only counts: whoever was told already is not told again
        if record.transition == Transition::Firing {
            self.seqs.push(record.signal_seq);
        }
    }
}

/// One series through the detector, row by row as they came.
fn series(text: &str) -> Result<(String, u64, u64), String> {
    let detector = offline(ANOMALY, Json::Null).map_err(|error| error.to_string())?;
    let mut drive = Drive::new(vec![(ModuleId::new(ANOMALY), detector)], Alarms::default(), std::time::Duration::ZERO);
    let mut rows = text.lines().filter(|line| !line.trim().is_empty());
    let heading = csv::split(rows.next().unwrap_or_default(), ',');
    let column = |name: &str| heading.iter().position(|cell| cell.trim() == name).ok_or_else(|| format!("there is no column {name}"));
    let (time, value) = (column("timestamp")?, column("value")?);

    let mut scored = String::from("timestamp,anomaly_score\n");
    let (mut seq, mut count, mut found): (Seq, u64, u64) = (0, 0, 0);
    let mut received = Timestamp::ZERO;
    for row in rows {
        let cells = csv::split(row, ',');
        let cell = |column: usize| cells.get(column).map(|cell| cell.trim()).unwrap_or_default();
        let at = csv::moment(cell(time), Offset::UTC);
        let number = cell(value).parse::<f64>().ok().filter(|number| number.is_finite());
        let mut alarm = false;
        if let (Some(at), Some(number)) = (at, number) {
            seq += 1;
            received = received.max(at);
            drive.feed(&point(seq, received, at, number), received);
            alarm = drive.hears.seqs.drain(..).any(|of| of == seq);
        }
        count += 1;
        found += u64::from(alarm);
        // writing to a string cannot fail
        writeln!(scored, "{},{}", cell(time), u8::from(alarm)).ok();
    }
    Ok((scored, count, found))
}

fn point(seq: Seq, received_at: Timestamp, at: Timestamp, value: f64) -> LogEntry {
    let mut runs = Runs::new(true);
    runs.push(&SignalRef::metric(at, "series", "value", value));
    runs.close();
    let run = runs.next();
    let (kinds, pieces) = run.map_or_else(Default::default, |run| (run.kinds, vec![run.piece]));
    LogEntry::Batch(Arc::new(SignalBlock { first_seq: seq, last_seq: seq, received_at, kinds, pieces }))
}

/// `DIR/<set>/*_structured.csv`, of which only `LineId` and `Content` are looked at, becomes `OUT/<set>.csv`, `LineId,ClusterId`.
pub(crate) fn logs(data: &Path, out: &Path) -> Result<Vec<Evaluated>, String> {
    let mut all = Vec::new();
    let is_set = |path: &Path| name_of(path).ends_with("_structured.csv");
    for (set, files) in found(data, &[".", "loghub_2k", "detection/loghub_2k"], is_set)? {
        let Some(file) = files.into_iter().next() else { continue };
        let name = name_of(&set);
        let text = fs::read_to_string(&file).map_err(cannot("read", &file))?;
        let (grouped, rows, found) = lines(&text).map_err(|why| format!("{name}: {why}"))?;
        write(&out.join(format!("{name}.csv")), &grouped)?;
        all.push(Evaluated { name, rows, found });
    }
    if all.is_empty() {
        return Err(format!("there is no <set>/*_structured.csv in {}", data.display()));
    }
    Ok(all)
}

fn lines(text: &str) -> Result<(String, u64, u64), String> {
    use opspilot_detectors::log_template::miner::{Miner, Settings};

    let mut rows = text.lines();
    let heading = csv::split(rows.next().unwrap_or_default().trim_start_matches('\u{feff}'), ',');
    let column = |name: &str| heading.iter().position(|cell| cell == name).ok_or_else(|| format!("there is no column {name}"));
    let (id, content) = (column("LineId")?, column("Content")?);
    let mut miner = Miner::new(&Settings::default());
    let mut learned = Vec::new();
    for row in rows.filter(|row| !row.is_empty()) {
        let cells = csv::split(row, ',');
        let cell = |column: usize| cells.get(column).map(AsRef::as_ref).unwrap_or_default();
        learned.push((cell(id).to_owned(), miner.learn(cell(content)).template));
    }
    let mut grouped = String::from("LineId,ClusterId\n");
    let mut groups = std::collections::BTreeSet::new();
    for (line, template) in &learned {
        // what a line belongs to may become part of another while more is learned
        let template = miner.current(*template);
        groups.insert(template);
        writeln!(grouped, "{line},{template}").ok();
    }
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    Ok((grouped, count(learned.len()), count(groups.len())))
}
