//! The names of an event's fields, and what other systems call them.

/// The fields an event may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Source,
    Kind,
    Timestamp,
    Message,
    Name,
    Value,
    Unit,
    Severity,
    Labels,
    Status,
    Fingerprint,
    Title,
    Description,
    Id,
}

impl Field {
    pub(super) const ALL: [(Field, &'static str); 14] = [
        (Field::Source, "source"),
        (Field::Kind, "kind"),
        (Field::Timestamp, "timestamp"),
        (Field::Message, "message"),
        (Field::Name, "name"),
        (Field::Value, "value"),
        (Field::Unit, "unit"),
        (Field::Severity, "severity"),
        (Field::Labels, "labels"),
        (Field::Status, "status"),
        (Field::Fingerprint, "fingerprint"),
        (Field::Title, "title"),
        (Field::Description, "description"),
        (Field::Id, "id"),
    ];

    pub(super) fn named(name: &str) -> Option<Field> {
        Some(match name {
            "source" => Field::Source,
            "timestamp" => Field::Timestamp,
            "severity" => Field::Severity,
            "message" => Field::Message,
            "labels" => Field::Labels,
            "kind" => Field::Kind,
            "name" => Field::Name,
            "value" => Field::Value,
            "unit" => Field::Unit,
            "status" => Field::Status,
            "fingerprint" => Field::Fingerprint,
            "title" => Field::Title,
            "description" => Field::Description,
            "id" => Field::Id,
            _ => return None,
        })
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Field::Source => "source",
            Field::Kind => "kind",
            Field::Timestamp => "timestamp",
            Field::Message => "message",
            Field::Name => "name",
            Field::Value => "value",
            Field::Unit => "unit",
            Field::Severity => "severity",
            Field::Labels => "labels",
            Field::Status => "status",
            Field::Fingerprint => "fingerprint",
            Field::Title => "title",
            Field::Description => "description",
            Field::Id => "id",
        }
    }

    pub(super) const fn bit(self) -> u16 {
        match self {
            Field::Source => 1,
            Field::Kind => 1 << 1,
            Field::Timestamp => 1 << 2,
            Field::Message => 1 << 3,
            Field::Name => 1 << 4,
            Field::Value => 1 << 5,
            Field::Unit => 1 << 6,
            Field::Severity => 1 << 7,
            Field::Labels => 1 << 8,
            Field::Status => 1 << 9,
            Field::Fingerprint => 1 << 10,
            Field::Title => 1 << 11,
            Field::Description => 1 << 12,
            Field::Id => 1 << 13,
        }
    }
}

/// What other systems call our fields.
pub(super) const ALIASES: [(&str, &str); 17] = [
    ("level", "severity"),
    ("priority", "severity"),
    ("ts", "timestamp"),
    ("time", "timestamp"),
    ("date", "timestamp"),
    ("@timestamp", "timestamp"),
    ("msg", "message"),
    ("text", "message"),
    ("log", "message"),
    ("line", "message"),
    ("service", "source"),
    ("host", "source"),
    ("tags", "labels"),
    ("attributes", "labels"),
    ("metric", "name"),
    ("state", "status"),
    ("type", "kind"),
];
