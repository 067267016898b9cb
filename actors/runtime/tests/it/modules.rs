//! How a category crate's modules are offered, checked, started and stopped.

use std::{any::Any, time::Duration};

use futures_util::future::BoxFuture;
use opspilot_kernel::{
    config::{ModuleConfig, Problem},
    ids::DeadLetterId,
    module::ModuleId,
};
use opspilot_runtime::{
    Applied, ChildSpec, Entry, Handle, Module, ModuleContext, ModuleError, ModuleSpec, StartError, Stopped, Supervisor,
};
use schemars::{JsonSchema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    kit::Stage,
    world::{Do, Knobs, Sick, on_real_time},
};

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// How many.
    count: u8,
}

impl ModuleConfig for Config {
    fn validate(&self) -> Vec<Problem> {
        if self.count > 100 { vec![Problem::at("/count", "more than a hundred")] } else { Vec::new() }
    }
}

struct Toy;

struct Started {
    handle: Handle<Sick>,
    supervisor: Supervisor,
}

impl ModuleSpec for Toy {
    const ID: ModuleId = ModuleId::new("detector.toy");
    const SUMMARY: &'static str = "a toy";
    const ENABLED: bool = true;
    type Config = Config;

    fn start(ctx: &ModuleContext, _: Config) -> Result<Box<dyn Module>, StartError> {
        let knobs = Knobs::new();
        let handle = ctx.supervisor.start(ChildSpec::module(Toy::ID.as_str()), move || Sick::new(knobs.clone()));
        Ok(Box::new(Started { handle, supervisor: ctx.supervisor.clone() }))
    }
}

impl Module for Started {
    fn stop(&self) -> BoxFuture<'static, ()> {
        let supervisor = self.supervisor.clone();
        Box::pin(async move { assert_eq!(supervisor.stop("detector.toy").await, Stopped::Drained) })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

const TOY: Entry = Entry::of::<Toy>();

#[test]
fn a_section_is_checked_without_starting_anything() {
    assert_eq!((TOY.check)((TOY.defaults)()), []);
    assert_eq!((TOY.check)(json!({ "count": 7 })), []);
    assert_eq!((TOY.check)(json!({ "count": 101 })), [Problem::at("/count", "more than a hundred")]);
    let problems = (TOY.check)(json!({ "count": "many", "cuont": 1 }));
    let places: Vec<&str> = problems.iter().map(|problem| problem.pointer.as_str()).collect();
    assert!(places.contains(&"/count") && places.contains(&"/cuont"), "{problems:?}");
    let schema = (TOY.schema)(&mut SchemaGenerator::default()).to_value().to_string();
    assert!(schema.contains("Config") || schema.contains("count"), "{schema}");
}

#[test]
fn a_module_starts_from_its_section_and_stops() {
    on_real_time(|| async {
        let stage = Stage::new();
        let Err(StartError::Config(problems)) = (TOY.start)(&stage.ctx, json!({ "count": 101 })) else { panic!("it started") };
        assert_eq!(problems.len(), 1);
        let module = (TOY.start)(&stage.ctx, json!({ "count": 1 })).ok().unwrap();
        let handle = module.as_any().downcast_ref::<Started>().unwrap().handle.clone();
        assert_eq!(handle.ask(Do(1), Duration::from_secs(5)).await, Ok(1));
        assert_eq!(module.reconfigure(json!({})).await, Ok(Applied::NeedsRestart));
        assert_eq!(module.requeue(DeadLetterId::given("dlq_x")).await, Err(ModuleError::Unsupported));
        module.stop().await;
        assert_eq!(stage.world.supervisor.children().len(), 0);
    });
}
