fn entry(id: &'static str) -> Entry {
    Entry { id: ModuleId::new(id), summary: "", enabled_by_default: true, schema: |g| g.subschema_for::<Rules>(), defaults: || serde_json::json!({}), check }
}
