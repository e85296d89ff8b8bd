//! The Cedar schema that rules are checked against: which verbs, object types and attributes exist.
//!
//! Generated from the words of `model`, so a new verb cannot be forgotten here. Every verb applies to every object
//! type: an unusual combination in a hostile action must still be judged, not fail.

use std::fmt::Write as _;

use cedar_policy::Schema;

use creel_model::Verb;

/// Object types, as rules write them.
pub(crate) const TYPES: [&str; 7] = ["Path", "Host", "Program", "McpTool", "Credential", "ConfigKey", "Text"];

/// The schema's text.
pub(crate) fn text() -> String {
    let mut text = String::from(
        "type Facts = {
  point: String, tool: String, tier: String,
  caged: Bool, parsed: Bool,
  home: String, workspace: String,
  classes: Set<String>, zones: Set<String>,
  findings: Set<String>, finding_classes: Set<String>,
  labels: { untrusted: Bool, mixed: Bool, sensitive: Set<String> },
  content: { classes: Set<String> },
  origin: String, sink: String, certainty: String,
  recursive: Bool, dynamic: Bool, elevated: Bool, remote: Bool,
  consequential: Bool, opaque: Bool,
};
entity Agent = { kind: String, uid: Long, mode: String, approval_mode: String, managed: Bool };
entity Path = { zone: String, zones: Set<String>, path: String, resolved: String, name: String, covers: Set<String> };
entity Host = { zone: String, zones: Set<String>, host: String, port: Long, url: String };
entity Program = { zone: String, zones: Set<String>, program: String, argv: Set<String>, command: String, script: String };
entity McpTool = { zone: String, zones: Set<String>, server: String, tool: String };
entity Credential = { zone: String, zones: Set<String>, name: String };
entity ConfigKey = { zone: String, zones: Set<String>, system: String, key: String };
entity Text = { zone: String, zones: Set<String>, role: String, bytes: Long };
",
    );
    for verb in Verb::ALL {
        let _ = writeln!(
            text,
            "action \"{verb}\" appliesTo {{ principal: [Agent], resource: [{}], context: Facts }};",
            TYPES.join(", ")
        );
    }
    text
}

/// The schema, parsed.
pub(crate) fn schema() -> Result<Schema, String> {
    Schema::from_cedarschema_str(&text()).map(|(schema, _)| schema).map_err(|error| error.to_string())
}
