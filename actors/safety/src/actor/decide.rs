use super::{Shared, messages};
use crate::gate::*;
use opspilot_kernel::approval::Approval;
use std::sync::Arc;
pub(super) async fn propose(_shared: Arc<Shared>, _message: messages::Propose) -> Result<Approval, GateError> {
    Err(GateError::Unavailable(opspilot_runtime::AskError::Unavailable))
}
pub(super) async fn approve(_shared: Arc<Shared>, _message: messages::Approve) -> Result<Decision, GateError> {
    Err(GateError::Unavailable(opspilot_runtime::AskError::Unavailable))
}
pub(super) async fn deny(_shared: Arc<Shared>, _message: messages::Deny) -> Result<Approval, GateError> {
    Err(GateError::Unavailable(opspilot_runtime::AskError::Unavailable))
}
pub(super) async fn revoke(_shared: Arc<Shared>, _message: messages::Revoke) -> Result<Approval, GateError> {
    Err(GateError::Unavailable(opspilot_runtime::AskError::Unavailable))
}
pub(super) async fn withdraw(_shared: Arc<Shared>, _message: messages::Withdraw) -> Result<Approval, GateError> {
    Err(GateError::Unavailable(opspilot_runtime::AskError::Unavailable))
}
pub(super) async fn reissue(_shared: Arc<Shared>, _message: messages::Reissue) -> Result<IssuedToken, GateError> {
    Err(GateError::Unavailable(opspilot_runtime::AskError::Unavailable))
}
pub(super) async fn switch(_shared: Arc<Shared>, _message: messages::Switch) -> Result<KillSwitch, GateError> {
    Err(GateError::Unavailable(opspilot_runtime::AskError::Unavailable))
}
pub(super) async fn accept_clock(_shared: Arc<Shared>, _message: messages::AcceptClock) -> Result<(), GateError> {
    Err(GateError::Unavailable(opspilot_runtime::AskError::Unavailable))
}
pub(super) async fn recheck(_shared: Arc<Shared>, _message: messages::Recheck) -> Result<(), GateError> {
    Err(GateError::Unavailable(opspilot_runtime::AskError::Unavailable))
}
