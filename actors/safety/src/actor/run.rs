use super::{Shared, messages};
use crate::gate::*;
use opspilot_kernel::execution::Execution;
use std::sync::Arc;
pub(super) async fn run(_shared: Arc<Shared>, _message: messages::Run) -> Result<Execution, GateError> {
    Err(GateError::Unavailable(opspilot_runtime::AskError::Unavailable))
}
pub(super) async fn close(_shared: Arc<Shared>, _message: messages::Close) -> Result<Execution, GateError> {
    Err(GateError::Unavailable(opspilot_runtime::AskError::Unavailable))
}
pub(super) async fn recover(_shared: Arc<Shared>, _message: messages::Recover) -> Result<(), GateError> {
    Err(GateError::Unavailable(opspilot_runtime::AskError::Unavailable))
}
