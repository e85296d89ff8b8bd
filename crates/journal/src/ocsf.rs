//! A record as an OCSF 1.8.0 event. A pure projection; what OCSF has no place for stands under `unmapped.creel`.
//!
//! A decision that stopped or questioned something (or would have, in audit mode) and every alert is a *Detection
//! Finding* (2004); everything else is *API Activity* (6003). Our journal is the record, this is a copy for a SIEM: it
//! cannot be verified and it does not come back.

use serde_json::{Value, json};

use creel_model::record::RecordKind;
use creel_model::{Effect, Severity, Verb, Verdict};

use crate::reader::Stored;

/// The schema version that the events state.
pub const VERSION: &str = "1.8.0";

/// The event of a record.
#[must_use]
pub fn event(stored: &Stored) -> Value {
    let envelope = &stored.envelope;
    let finding = envelope.kind == RecordKind::Alert
        || matches!(envelope.verdict, Some(Verdict::Deny | Verdict::Ask))
        || !envelope.audit_rules.is_empty();
    let mut event = json!({
        "time": envelope.at.unix_ns.div_euclid(1_000_000),
        "severity_id": severity(stored),
        "severity": severity_name(severity(stored)),
        "metadata": {
            "version": VERSION,
            "profiles": ["security_control", "ai_operation"],
            "product": { "name": "creel", "vendor_name": "creel", "version": envelope.engine },
            "uid": envelope.action_id,
            "sequence": stored.sequence,
            "log_name": "journal",
            "log_version": envelope.schema,
        },
        "unmapped": { "creel": unmapped(stored) },
    });
    let Value::Object(fields) = &mut event else { return event };
    if let (Some(trace), Some(Value::Object(metadata))) = (&envelope.trace_id, fields.get_mut("metadata")) {
        metadata.insert("correlation_uid".to_owned(), json!(trace));
    }
    let (action_id, action, disposition_id, disposition) = outcome(stored);
    fields.extend(object(json!({
        "action_id": action_id, "action": action, "disposition_id": disposition_id, "disposition": disposition,
    })));
    fields.extend(object(if finding { detection(stored) } else { activity(stored) }));
    event
}

/// Detection Finding.
fn detection(stored: &Stored) -> Value {
    let envelope = &stored.envelope;
    let rules: Vec<&String> = envelope.rules.iter().chain(&envelope.audit_rules).collect();
    let decision = stored.detail.as_ref().and_then(|detail| detail.decision.as_ref());
    let reason = decision.map(|decision| decision.reason.as_str()).filter(|reason| !reason.is_empty());
    let title = rules.first().map(|rule| rule.as_str()).or(envelope.code.as_deref()).unwrap_or("creel");
    let mut finding = json!({
        "uid": envelope.action_id,
        "title": title,
        "types": rules,
        "analytic": { "uid": title, "name": title, "type_id": 1, "type": "Rule" },
    });
    if let (Some(reason), Value::Object(finding)) = (reason, &mut finding) {
        finding.insert("desc".to_owned(), json!(reason));
    }
    json!({
        "category_uid": 2, "category_name": "Findings",
        "class_uid": 2004, "class_name": "Detection Finding",
        "activity_id": 1, "activity_name": "Create",
        "type_uid": 200_401, "type_name": "Detection Finding: Create",
        "status_id": 1, "status": "New",
        "finding_info": finding,
        "evidences": [{ "actor": actor(stored), "api": api(stored) }],
        "resources": resources(stored),
    })
}

/// API Activity.
fn activity(stored: &Stored) -> Value {
    let effects = stored.detail.as_ref().map(|detail| detail.effects.as_slice()).unwrap_or_default();
    let (activity_id, name) = match effects.first().map(|effect| effect.verb) {
        Some(Verb::Read | Verb::Receive) => (2, "Read"),
        Some(Verb::Write | Verb::Rename | Verb::Configure) => (3, "Update"),
        Some(Verb::Delete) => (4, "Delete"),
        _ => (99, "Other"),
    };
    let service = stored.envelope.subject.as_ref().map_or("creel", |subject| subject.kind.as_str());
    json!({
        "category_uid": 6, "category_name": "Application Activity",
        "class_uid": 6003, "class_name": "API Activity",
        "activity_id": activity_id, "activity_name": name,
        "type_uid": 600_300 + activity_id, "type_name": format!("API Activity: {name}"),
        "actor": actor(stored),
        "api": api(stored),
        "src_endpoint": { "svc_name": service },
        "resources": resources(stored),
    })
}

fn actor(stored: &Stored) -> Value {
    let Some(subject) = &stored.envelope.subject else {
        return json!({ "app_name": "creel", "user": { "uid": stored.envelope.owner.to_string() } });
    };
    let account = stored.detail.as_ref().and_then(|detail| detail.account.as_ref());
    let mut user = json!({ "uid": subject.uid.to_string() });
    if let (Some(account), Value::Object(user)) = (account, &mut user) {
        user.insert("name".to_owned(), json!(account.name));
    }
    json!({
        "app_name": subject.kind,
        "user": user,
        "process": { "pid": subject.pid },
        "session": { "uid": subject.conversation },
    })
}

fn api(stored: &Stored) -> Value {
    let envelope = &stored.envelope;
    let operation = envelope
        .tool
        .as_deref()
        .or(envelope.code.as_deref())
        .or(envelope.event.as_deref())
        .unwrap_or(envelope.kind.as_str());
    let service = envelope.subject.as_ref().map_or("creel", |subject| subject.kind.as_str());
    json!({ "operation": operation, "service": { "name": service }, "request": { "uid": envelope.action_id } })
}

fn resources(stored: &Stored) -> Vec<Value> {
    let effects = stored.detail.as_ref().map(|detail| detail.effects.as_slice()).unwrap_or_default();
    let resource = |effect: &Effect| {
        let labels: Vec<String> = effect.zones.iter().map(ToString::to_string).collect();
        json!({ "name": effect.object.to_string(), "type": effect.object.type_name(), "labels": labels })
    };
    effects.iter().map(resource).collect()
}

/// What became of it: OCSF action and disposition, each with its caption.
fn outcome(stored: &Stored) -> (u8, &'static str, u8, &'static str) {
    match stored.envelope.verdict {
        Some(Verdict::Allow) if !stored.envelope.audit_rules.is_empty() => (3, "Observed", 15, "Detected"),
        Some(Verdict::Allow) => (1, "Allowed", 1, "Allowed"),
        Some(Verdict::Deny) => (2, "Denied", 2, "Blocked"),
        Some(Verdict::Modify) => (4, "Modified", 11, "Corrected"),
        Some(Verdict::Ask) => (99, "Asked", 99, "Asked"),
        None => (3, "Observed", 17, "Logged"),
    }
}

fn severity(stored: &Stored) -> u8 {
    let decision = stored.detail.as_ref().and_then(|detail| detail.decision.as_ref());
    let matched = decision.into_iter().flat_map(|decision| decision.rules.iter().chain(&decision.audit));
    let worst = matched.map(|rule| rule.severity).max();
    match (worst, stored.envelope.verdict, stored.envelope.kind) {
        (Some(Severity::Critical), ..) => 5,
        (Some(Severity::High), ..) => 4,
        (Some(Severity::Medium), ..) => 3,
        (Some(Severity::Low), ..) => 2,
        (Some(Severity::Info), ..) => 1,
        // The detail is erased or there was no rule: the verdict alone speaks.
        (None, Some(Verdict::Deny), _) | (None, None, RecordKind::Alert) => 4,
        (None, Some(Verdict::Ask), _) | (None, None, RecordKind::Gap) => 3,
        (None, Some(Verdict::Modify), _) => 2,
        (None, ..) => 1,
    }
}

const fn severity_name(severity: u8) -> &'static str {
    match severity {
        1 => "Informational",
        2 => "Low",
        3 => "Medium",
        4 => "High",
        5 => "Critical",
        _ => "Unknown",
    }
}

/// The whole envelope, unknown fields included, and whether its detail is gone.
fn unmapped(stored: &Stored) -> Value {
    let mut fields = serde_json::from_slice::<Value>(&stored.envelope_bytes).map(object).unwrap_or_default();
    fields.insert("erased".to_owned(), json!(stored.erased));
    Value::Object(fields)
}

fn object(value: Value) -> serde_json::Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => serde_json::Map::new(),
    }
}
