//! What can be done about an incident: proposes from a reviewed catalogue, and runs what was permitted.
