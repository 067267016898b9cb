//! What makes a module of a detector: a follower of the signal log around it.
//!
//! | Consumes   | batches, ticks and its reloads in the signal log, by a cursor               |
//! | Emits      | `AlertRecord`s, committed together with the cursor                          |
//! | Keeps      | the detector (cache; snapshots and the log are the truth)                   |
//! | On restart | makes a detector for the configuration at its cursor, restores its snapshots, has it read again what they lack, reads on |

use std::{
    any::Any,
    collections::VecDeque,
    marker::PhantomData,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use opspilot_kernel::{
    alert::AlertRecord,
    config::ModuleConfig,
    ids::{DeadLetterId, Seq},
    module::ModuleId,
    signal::LogEntry,
    time::Timestamp,
};
use opspilot_ledger::{CONFIG, Ledger, LedgerError, Priority, Snapshot};
use opspilot_runtime::{
    Applied, ChildSpec, Consumer, DriveAlone, Entry, Follower, FollowerOptions, Handle, Module, ModuleContext, ModuleError, ModuleSpec,
    Requeue, RestoreError, StartError, Supervisor, follow_configured,
};

use crate::{Change, Counts, Detect, metrics::Metrics, offline::Alone, relearn::Relearn};

/// What one call for snapshots may give.
const SNAPSHOT_BYTES: usize = 1 << 20;
/// A changed rule looks back over its own longest span, but over so much and so many signals at most.
const LOOK_BACK: Duration = Duration::from_secs(3600);
const LOOK_BACK_SIGNALS: u64 = 1_000_000;
/// Read at a time on the way back.
const CHUNK_BYTES: usize = 1 << 20;
/// How long a detector may take to come to a point between two commits.
const DEADLINE: Duration = Duration::from_secs(30);

/// The registry's entry of a detector.
pub(crate) const fn entry<D: Detect>() -> Entry {
    Entry::of::<Spec<D>>()
}

struct Spec<D>(PhantomData<D>);

impl<D: Detect> ModuleSpec for Spec<D> {
    const ID: ModuleId = ModuleId::new(D::ID);
    const SUMMARY: &'static str = D::SUMMARY;
    const ENABLED: bool = true;
    type Config = D::Config;
    const OFFLINE: Option<DriveAlone<D::Config>> = Some(|config| Box::new(Alone::<D>::new(config)));

    fn start(ctx: &ModuleContext, config: D::Config) -> Result<Box<dyn Module>, StartError> {
        let metrics = Metrics::new(D::ID).and_then(|metrics| metrics.register(&ctx.registry).map(|()| metrics));
        let metrics = metrics.map_err(|error| StartError::Failed(format!("its metrics cannot be registered: {error}")))?;
        // matching takes longer than a shared thread should be held
        let spec = ChildSpec::module(D::ID).on_own_arbiter();
        let wanted = Arc::new(Mutex::new(config));
        let (named, made) = (Arc::clone(&wanted), Arc::clone(&wanted));
        let (ledger, log) = (ctx.ledger.clone(), ctx.log.clone());
        let config = move || serde_json::to_value(&*locked(&named)).ok();
        let make = move || Shell::<D>::new(locked(&made).clone(), metrics.clone(), ledger.clone(), log.clone());
        let handle = follow_configured(ctx, spec, FollowerOptions::default(), config, make);
        Ok(Box::new(Running { handle, wanted, ledger: ctx.ledger.clone(), supervisor: ctx.supervisor.clone() }))
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A detector as a follower feeds it. It goes by the configuration that is in force at its place in the log: the one its
/// snapshots name, then that of each reload it comes to.
pub(crate) struct Shell<D: Detect> {
    detector: D,
    // boxed, because a shell may be moved and a configuration need not be made for that
    config: Box<D::Config>,
    metrics: Metrics,
    ledger: Ledger,
    log: slog::Logger,
    /// What the metrics were last told.
    counted: Counts,
    /// Pieces of state that did not fit into the last call for them.
    unsaved: VecDeque<Snapshot>,
    /// How many pieces of what was stored could not be taken up.
    unreadable: u64,
    relearn: Relearn,
}

fn snapshot(change: Change) -> Snapshot {
    Snapshot { key: change.key, blob: change.body.unwrap_or_default() }
}

impl<D: Detect> Shell<D> {
    fn new(config: D::Config, metrics: Metrics, ledger: Ledger, log: slog::Logger) -> Shell<D> {
        Shell {
            detector: D::build(&config),
            config: Box::new(config),
            metrics,
            ledger,
            log,
            counted: Counts::default(),
            unsaved: VecDeque::new(),
            unreadable: 0,
            relearn: Relearn::default(),
        }
    }

    fn name_config(&mut self) {
        // a configuration was read from such a value: it can always be written as one
        let blob = serde_json::to_vec(&*self.config).unwrap_or_default();
        self.unsaved.push_back(Snapshot { key: CONFIG.to_owned(), blob });
    }

    /// Goes by another configuration: rules that mean the same keep what they know, the alerts of the others end, and
    /// what they mean now begins with the signals that are stored.
    fn reload(&mut self, seq: Seq, at: Timestamp, config: &serde_json::Value, out: &mut Vec<AlertRecord>) {
        let config: D::Config = match serde_json::from_value(config.clone()) {
            Ok(config) => config,
            Err(error) => {
                return slog::warn!(self.log, "a configuration in the log cannot be read and is passed over"; "seq" => seq, "error" => %error);
            }
        };
        let tick = LogEntry::Tick { seq, at };
        self.detector.consume(&tick, out);
        self.detector.touch();
        let mut fresh = D::build(&config);
        for change in self.detector.changed() {
            if let Some(body) = &change.body
                && let Err(why) = fresh.restore(&change.key, body)
            {
                slog::warn!(self.log, "a piece of state is not carried over"; "key" => &change.key, "reason" => why);
            }
            // what the fresh one changes of it is given after it
            self.unsaved.push_back(snapshot(change));
        }
        fresh.take_over(&mut self.detector);
        if let Some((part, back)) = D::changed_part(&self.config, &config) {
            match self.recall(&part, at.before(back.min(LOOK_BACK)), seq) {
                Ok(recalled) => fresh.adopt(recalled, seq),
                Err(error) => slog::warn!(self.log, "changed rules begin without the signals before the reload"; "error" => %error),
            }
        }
        fresh.consume(&tick, out);
        (self.detector, *self.config) = (fresh, config);
        self.counted = Counts::default();
        self.name_config();
    }

    /// A detector for `part` that saw the signals before `seq` received since `since`. What it says is not said again.
    fn recall(&self, part: &D::Config, since: Timestamp, seq: Seq) -> Result<D, LedgerError> {
        let mut detector = D::build(part);
        let mut unsaid = Vec::new();
        let mut after = self.ledger.signals().before(since, seq, LOOK_BACK_SIGNALS)?;
        while after + 1 < seq {
            let entries = self.ledger.signals().next(after, CHUNK_BYTES)?;
            let Some(last) = entries.last().map(LogEntry::last_seq) else { break };
            for entry in entries.iter().filter(|entry| entry.last_seq() < seq) {
                detector.consume(entry, &mut unsaid);
                unsaid.clear();
            }
            after = last;
        }
        Ok(detector)
    }
}

impl<D: Detect> Consumer for Shell<D> {
    type Entry = LogEntry;
    type Output = AlertRecord;

    fn restore(&mut self, mut snapshots: Vec<Snapshot>) -> Result<(), RestoreError> {
        let config = snapshots.iter().position(|snapshot| snapshot.key == CONFIG).map(|at| snapshots.swap_remove(at));
        match config.map(|config| serde_json::from_slice::<D::Config>(&config.blob)) {
            Some(Ok(config)) => {
                self.detector = D::build(&config);
                *self.config = config;
            }
            // the first start, or a configuration of another release: the one that is wanted holds from here on
            Some(Err(_)) | None => self.name_config(),
        }
        for snapshot in snapshots {
            if let Err(why) = self.detector.restore(&snapshot.key, &snapshot.blob) {
                // one piece less is better than no detector; it is removed, so that the next start is whole
                slog::warn!(self.log, "a piece of what was stored cannot be read and is left out"; "key" => &snapshot.key, "reason" => why);
                self.metrics.unreadable();
                self.unreadable = self.unreadable.saturating_add(1);
                self.unsaved.push_back(Snapshot { key: snapshot.key, blob: Vec::new() });
            }
        }
        Ok(())
    }

    fn consume(&mut self, entry: &LogEntry, out: &mut Vec<AlertRecord>) {
        match entry {
            LogEntry::Reload { seq, at, reload } if reload.module == D::ID => self.reload(*seq, *at, &reload.config, out),
            _ => self.detector.consume(entry, out),
        }
        let counts = self.detector.counts();
        self.metrics.tell(&self.counted, &counts);
        self.counted = counts;
    }

    fn next_due(&self) -> Option<Timestamp> {
        self.detector.next_due()
    }

    fn changed(&mut self) -> Vec<Snapshot> {
        if self.unsaved.is_empty() {
            let changes = self.detector.changed();
            self.unsaved.extend(changes.into_iter().map(snapshot));
        }
        let mut bytes = 0_usize;
        let fits = self.unsaved.iter().take_while(|snapshot| {
            bytes = bytes.saturating_add(snapshot.key.len()).saturating_add(snapshot.blob.len());
            bytes <= SNAPSHOT_BYTES
        });
        // one that does not fit alone goes alone
        let count = fits.count().max(1).min(self.unsaved.len());
        self.unsaved.drain(..count).collect()
    }

    fn shelve(&mut self) -> Vec<Snapshot> {
        self.detector.shelve().into_iter().map(snapshot).collect()
    }

    fn catch_up(&mut self) -> Result<bool, LedgerError> {
        let more = self.relearn.step(&mut self.detector, &self.ledger)?;
        if !more && self.relearn.again > 0 {
            let (again, lost) = (std::mem::take(&mut self.relearn.again), self.relearn.lost);
            slog::info!(self.log, "what it knew is complete again"; "read_again" => again, "lost" => lost);
            self.metrics.relearned(again, lost);
            // what was counted on the way was counted before
            self.counted = self.detector.counts();
        }
        Ok(more)
    }

    fn is_urgent(&self) -> bool {
        self.detector.is_urgent()
    }

    fn trouble(&self) -> Option<String> {
        let counts = self.detector.counts();
        if self.unreadable > 0 {
            return Some(format!(
                "{} pieces of what it knew could not be read and were left out: alerts that it followed may have to be resolved by hand",
                self.unreadable
            ));
        }
        if self.relearn.lost > 0 {
            return Some(format!(
                "{} entries of the log that it had not stored yet had been removed when it started: what it learned from them is lost",
                self.relearn.lost
            ));
        }
        if counts.unreadable > 0 {
            return Some(format!(
                "{} pieces of what it had stored could not be read: what it learned of those series is lost",
                counts.unreadable
            ));
        }
        if counts.damaged > 0 {
            return Some(format!("{} stored signals could not be read", counts.damaged));
        }
        counts.full.then(|| format!("follows {}, as many as it may: for each that comes another has to go", counts.open + counts.shelved))
    }
}

/// A detector that was started.
struct Running<D: Detect> {
    handle: Handle<Follower<Shell<D>>>,
    /// What it is to go by once it has read so far.
    wanted: Arc<Mutex<D::Config>>,
    ledger: Ledger,
    supervisor: Supervisor,
}

impl<D: Detect> Module for Running<D> {
    fn stop(&self) -> BoxFuture<'static, ()> {
        let supervisor = self.supervisor.clone();
        Box::pin(async move {
            supervisor.stop(D::ID).await;
        })
    }

    fn reconfigure(&self, config: serde_json::Value) -> BoxFuture<'static, Result<Applied, ModuleError>> {
        let (ledger, wanted) = (self.ledger.clone(), Arc::clone(&self.wanted));
        Box::pin(async move {
            let config: D::Config = serde_json::from_value(config).map_err(|error| ModuleError::Failed(error.to_string()))?;
            if let Some(problem) = config.validate().into_iter().next() {
                return Err(ModuleError::Failed(format!("{}: {}", problem.pointer, problem.message)));
            }
            let section = serde_json::to_value(&config).map_err(|error| ModuleError::Failed(error.to_string()))?;
            // wanted before it is on record, so that a detector which starts meanwhile does not put the old one on record again
            let before = std::mem::replace(&mut *locked(&wanted), config);
            // the detector finds it in the log, between the signals before and those behind
            let recorded = ledger.write(Priority::Bulk, move |tx| tx.configure(D::ID, &section));
            if recorded.await.is_err() {
                *locked(&wanted) = before;
                return Err(ModuleError::Unavailable);
            }
            Ok(Applied::InPlace)
        })
    }

    fn requeue(&self, letter: DeadLetterId) -> BoxFuture<'static, Result<(), ModuleError>> {
        let handle = self.handle.clone();
        Box::pin(async move {
            let tried = handle.ask(Requeue(letter), DEADLINE).await.map_err(|_| ModuleError::Unavailable)?;
            tried.map_err(|error| ModuleError::Failed(error.to_string()))
        })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
