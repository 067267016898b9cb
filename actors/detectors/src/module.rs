//! What makes a module of a detector: a follower of the signal log around it.
//!
//! | Consumes   | batches and ticks of the signal log, by a cursor                            |
//! | Emits      | `AlertRecord`s, committed together with the cursor                          |
//! | Keeps      | the detector (cache; snapshots and the log are the truth)                   |
//! | On restart | makes a fresh detector, restores its snapshots, reads on from where they stand |

use std::{any::Any, collections::VecDeque, marker::PhantomData, time::Duration};

use futures_util::future::BoxFuture;
use opspilot_kernel::{alert::AlertRecord, config::ModuleConfig, ids::DeadLetterId, module::ModuleId, signal::LogEntry, time::Timestamp};
use opspilot_ledger::Snapshot;
use opspilot_runtime::{
    Applied, ChildSpec, Consumer, Entry, Follower, FollowerOptions, Handle, Module, ModuleContext, ModuleError, ModuleSpec, Reconfigure,
    Requeue, RestoreError, StartError, Supervisor, follow,
};

use crate::{Counts, Detect, metrics::Metrics};

/// What one call for snapshots may give.
const SNAPSHOT_BYTES: usize = 1 << 20;
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

    fn start(ctx: &ModuleContext, config: D::Config) -> Result<Box<dyn Module>, StartError> {
        let metrics = Metrics::new(D::ID).and_then(|metrics| metrics.register(&ctx.registry).map(|()| metrics));
        let metrics = metrics.map_err(|error| StartError::Failed(format!("its metrics cannot be registered: {error}")))?;
        // matching takes longer than a shared thread should be held
        let spec = ChildSpec::module(D::ID).on_own_arbiter();
        let handle = follow(ctx, spec, FollowerOptions::default(), maker::<D>(config, metrics.clone()));
        Ok(Box::new(Running { handle, metrics, supervisor: ctx.supervisor.clone() }))
    }
}

fn maker<D: Detect>(config: D::Config, metrics: Metrics) -> impl Fn() -> Shell<D> + Send + 'static {
    move || Shell { detector: D::build(&config), metrics: metrics.clone(), counted: Counts::default(), unsaved: VecDeque::new() }
}

/// A detector as a follower feeds it.
pub(crate) struct Shell<D> {
    detector: D,
    metrics: Metrics,
    /// What the metrics were last told.
    counted: Counts,
    /// Pieces of state that did not fit into the last call for them.
    unsaved: VecDeque<Snapshot>,
}

impl<D: Detect> Consumer for Shell<D> {
    type Entry = LogEntry;
    type Output = AlertRecord;

    fn restore(&mut self, snapshots: Vec<Snapshot>) -> Result<(), RestoreError> {
        for snapshot in snapshots {
            self.detector.restore(&snapshot.key, &snapshot.blob).map_err(|why| RestoreError(format!("{}: {why}", snapshot.key)))?;
        }
        Ok(())
    }

    fn consume(&mut self, entry: &LogEntry, out: &mut Vec<AlertRecord>) {
        self.detector.consume(entry, out);
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
            self.unsaved.extend(changes.into_iter().map(|change| Snapshot { key: change.key, blob: change.body.unwrap_or_default() }));
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

    fn trouble(&self) -> Option<String> {
        let counts = self.detector.counts();
        if counts.damaged > 0 {
            return Some(format!("{} stored signals could not be read", counts.damaged));
        }
        counts.full.then(|| format!("follows {}, as many as it may: for each that comes another has to go", counts.open))
    }
}

/// A detector that was started.
struct Running<D: Detect> {
    handle: Handle<Follower<Shell<D>>>,
    metrics: Metrics,
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
        let (handle, metrics) = (self.handle.clone(), self.metrics.clone());
        Box::pin(async move {
            let config: D::Config = serde_json::from_value(config).map_err(|error| ModuleError::Failed(error.to_string()))?;
            if let Some(problem) = config.validate().into_iter().next() {
                return Err(ModuleError::Failed(format!("{}: {}", problem.pointer, problem.message)));
            }
            let changed = handle.ask(Reconfigure::new(maker::<D>(config, metrics)), DEADLINE).await;
            changed.map_err(|_| ModuleError::Unavailable)?.map_err(|_| ModuleError::Unavailable)?;
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
