use super::Shared;
use std::sync::Arc;
pub(super) async fn forever(_shared: Arc<Shared>) {
    std::future::pending::<()>().await;
}
