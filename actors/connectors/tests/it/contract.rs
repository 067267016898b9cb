//! What every connector promises.

use opspilot_connectors::MODULES;

#[test]
fn every_connector_has_defaults_that_pass_and_refuses_unknown_keys() {
    let ids: Vec<&str> = MODULES.iter().map(|entry| entry.id.as_str()).collect();
    assert_eq!(ids, ["connector.fileTail", "connector.metrics"]);
    for entry in MODULES {
        assert_eq!((entry.check)((entry.defaults)()), [], "{:?}", entry.id);
        let mut config = (entry.defaults)();
        config["no_such_key"] = serde_json::json!(1);
        assert!(!(entry.check)(config).is_empty(), "{:?}", entry.id);
        assert!(entry.enabled_by_default && !entry.summary.is_empty());
    }
}
