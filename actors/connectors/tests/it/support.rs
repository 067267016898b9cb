//! A service with nothing in it but connectors.

use std::{path::Path, sync::Arc, time::Duration};

use opspilot_connectors::MODULES;
use opspilot_kernel::{
    clock::SystemClock,
    module::ModuleId,
    signal::{LogEntry, SignalKind},
};
use opspilot_ledger::{Ledger, Options};
use opspilot_runtime::{Module, ModuleContext};

pub(crate) struct Service {
    pub(crate) ledger: Ledger,
    pub(crate) ctx: ModuleContext,
}

impl Service {
    /// Opens the ledger in `dir`; called inside an actix system.
    pub(crate) fn open(dir: &Path) -> Service {
        Service::open_on(dir, None)
    }

    /// The same, on the SQLite file system of this name.
    pub(crate) fn open_on(dir: &Path, vfs: Option<&str>) -> Service {
        let clock = SystemClock::shared();
        let mut options = Options::new(dir, Arc::clone(&clock));
        options.vfs = vfs.map(str::to_owned);
        options.limits.probe_every = Duration::from_millis(20);
        let ledger = Ledger::open(options).unwrap();
        let ctx = ModuleContext::alone(ledger.clone(), clock, Arc::new(|exit| panic!("the service would end: {exit:?}"))).unwrap();
        Service { ledger, ctx }
    }

    pub(crate) fn start(&self, id: &str, config: serde_json::Value) -> Box<dyn Module> {
        let entry = MODULES.iter().find(|entry| entry.id.as_str() == id).unwrap();
        (entry.start)(&self.ctx, config).unwrap()
    }

    pub(crate) fn health(&self, id: &'static str) -> String {
        let id = ModuleId::new(id);
        self.ctx.health.report().into_iter().find(|health| health.id == id).map(|health| health.detail).unwrap_or_default()
    }

    /// The texts of all logs, and the names of all metrics, as they are stored.
    pub(crate) fn stored(&self) -> Vec<String> {
        let (mut all, mut after) = (Vec::new(), 0);
        loop {
            let entries = self.ledger.signals().next(after, 1 << 20).unwrap();
            let Some(last) = entries.last() else { return all };
            after = last.last_seq();
            for entry in entries {
                let LogEntry::Batch(block) = entry else { continue };
                for (_, record) in block.iter() {
                    let signal = record.decode().unwrap();
                    all.push(if signal.kind == SignalKind::Log { signal.message } else { signal.name }.to_owned());
                }
            }
        }
    }

    /// Waits until `enough` is true of what is stored.
    pub(crate) async fn until(&self, enough: impl Fn(&[String]) -> bool) -> Vec<String> {
        let mut head = self.ledger.signals().watch();
        let waited = tokio::time::timeout(Duration::from_secs(30), async {
            loop {
                head.borrow_and_update();
                let stored = self.stored();
                if enough(&stored) {
                    return stored;
                }
                head.changed().await.unwrap();
            }
        });
        waited.await.unwrap_or_else(|_| panic!("not stored in time: {:?}; {}", self.stored().len(), self.health("connector.fileTail")))
    }

    pub(crate) async fn close(self) {
        self.ctx.supervisor.stop_all().await;
        self.ledger.shut_down().await.unwrap();
    }
}

/// Runs a test in an actix system.
pub(crate) fn in_system<F: Future>(test: impl FnOnce() -> F) -> F::Output {
    actix::System::new().block_on(async { test().await })
}
