//! Where content comes from, and which labels that raises (DESIGN §9).
//!
//! The one fact a newcomer gets wrong: origin is a property of the effect that brings content in, labels follow when
//! the content has arrived — at the result, not at the call.

use std::collections::BTreeSet;

use creel_model::{ActionId, Basis, Certainty, Confidence, Effect, Label, LabelFact, Object, Origin, Verb, Zone};

use crate::facts::Located;

/// Folders whose content is somebody else's code, wherever they stand in a path.
const DEPENDENCY_FOLDERS: &[&str] = &[
    "node_modules",
    "vendor",
    "site-packages",
    "dist-packages",
    ".venv",
    "venv",
    "bower_components",
    "Pods",
    "third_party",
    ".cargo",
    "pkg",
];

/// Finding classes that mean "somebody tries to instruct the model"; only with high confidence they raise a label.
const INSTRUCTION_CLASSES: &[&str] = &["injection", "prompt-injection", "hidden-instruction", "obfuscated-text"];

/// Where the content that this effect brings into the agent's context comes from. `None`: it brings none in.
pub(crate) fn of(effect: &Effect) -> Option<Origin> {
    let in_zone = |name: &str| effect.zones.iter().any(|zone| zone.as_str() == name);
    match (effect.verb, &effect.object) {
        (Verb::Read, Object::Path { path, resolved }) => {
            let target = resolved.as_deref().unwrap_or(path);
            Some(if target.split('/').any(|part| DEPENDENCY_FOLDERS.contains(&part)) {
                Origin::Dependency
            } else if in_zone(Zone::AGENT_CONFIG) && !in_zone(Zone::WORKSPACE) || in_zone(Zone::SYSTEM) {
                Origin::OperatorConfig
            } else if in_zone(Zone::WORKSPACE) {
                Origin::WorkspaceOwned
            } else {
                Origin::ToolLocal
            })
        }
        (Verb::Receive | Verb::Connect | Verb::Send, Object::Host { .. }) if in_zone(Zone::LOOPBACK) => {
            Some(Origin::ToolLocal)
        }
        (Verb::Receive | Verb::Connect, Object::Host { .. }) => Some(Origin::External),
        // What is sent to a host is answered by it.
        (Verb::Send, Object::Host { .. }) => Some(Origin::External),
        (Verb::Call, Object::McpTool { server, .. }) if !server.is_empty() => Some(Origin::Mcp(server.clone())),
        (Verb::Call, Object::McpTool { .. }) | (Verb::Execute, Object::Program { .. }) => Some(Origin::ToolLocal),
        (Verb::Prompt, Object::Text { .. }) => Some(Origin::User),
        _ => None,
    }
}

/// The weaker and the stronger label that content from there raises.
fn raised_by(origin: &Origin) -> Option<Label> {
    match origin {
        Origin::External | Origin::Mcp(_) => Some(Label::Untrusted),
        Origin::WorkspaceForeign | Origin::Dependency => Some(Label::Mixed),
        Origin::User | Origin::OperatorConfig | Origin::WorkspaceOwned | Origin::ToolLocal => None,
    }
}

/// The labels that arrived content raises.
pub(crate) fn labels(
    origins: &[Origin],
    sensitive: &[String],
    located: &[Located],
    content_classes: &BTreeSet<String>,
    cause: &ActionId,
) -> Vec<LabelFact> {
    let mut facts: Vec<LabelFact> = Vec::new();
    let mut add = |label: Label, origin: Origin| {
        if !facts.iter().any(|fact| fact.label == label) {
            facts.push(LabelFact { label, origin, cause: cause.clone(), basis: Basis::Observed });
        }
    };
    for origin in origins {
        if let Some(label) = raised_by(origin) {
            add(label, origin.clone());
        }
    }
    let instructs = |located: &&Located| {
        located.finding.confidence == Confidence::High && INSTRUCTION_CLASSES.contains(&located.finding.class.as_str())
    };
    let first = origins.first().cloned().unwrap_or(Origin::ToolLocal);
    if located.iter().any(|located| instructs(&located)) {
        add(Label::Untrusted, first.clone());
    }
    for class in content_classes.iter().map(String::as_str).chain(sensitive.iter().map(String::as_str)) {
        add(Label::Sensitive(class.to_owned()), first.clone());
    }
    facts
}

/// Classes of sensitive content that a call reads, by what it reads: credentials and the zone `secrets`.
pub(crate) fn sensitive(effects: &[Effect]) -> Vec<String> {
    let reads_secret = effects.iter().any(|effect| {
        let credential = matches!(effect.object, Object::Credential { .. });
        let store = effect.zones.iter().any(|zone| zone.as_str() == Zone::SECRETS);
        matches!(effect.verb, Verb::Read | Verb::Receive) && (credential || store)
    });
    if reads_secret { vec!["secret".to_owned()] } else { Vec::new() }
}

/// All origins of a call's result, each once. A call that was not understood may bring anything in; it counts as the
/// output of a local tool, because a label on every unusual command would label every session.
pub(crate) fn of_call(effects: &[Effect]) -> Vec<Origin> {
    let mut origins: Vec<Origin> = effects.iter().filter_map(|effect| effect.origin.clone()).collect();
    if origins.is_empty() && effects.iter().any(|effect| effect.certainty == Certainty::Opaque) {
        origins.push(Origin::ToolLocal);
    }
    origins.sort();
    origins.dedup();
    origins
}

#[cfg(test)]
mod tests {
    use super::*;

    fn effect(verb: Verb, object: Object, zones: &[&str]) -> Effect {
        Effect {
            zones: zones.iter().map(|zone| Zone::named(zone)).collect(),
            ..Effect::new(verb, object, Certainty::Exact)
        }
    }

    fn path(path: &str) -> Object {
        Object::Path { path: path.into(), resolved: None }
    }

    #[test]
    fn origins() {
        let host = Object::Host { host: "example.com".into(), port: None, url: None };
        let mcp = Object::McpTool { server: "jira".into(), tool: "get".into() };
        for (effect, expected) in [
            (effect(Verb::Read, path("/w/src/main.rs"), &["workspace"]), Some(Origin::WorkspaceOwned)),
            (effect(Verb::Read, path("/w/node_modules/x/README.md"), &["workspace"]), Some(Origin::Dependency)),
            (effect(Verb::Read, path("/etc/hosts"), &["system"]), Some(Origin::OperatorConfig)),
            (effect(Verb::Receive, host.clone(), &["unknown"]), Some(Origin::External)),
            (effect(Verb::Receive, host, &["loopback"]), Some(Origin::ToolLocal)),
            (effect(Verb::Call, mcp, &[]), Some(Origin::Mcp("jira".into()))),
            (effect(Verb::Write, path("/w/x"), &["workspace"]), None),
        ] {
            assert_eq!(of(&effect), expected, "{effect:?}");
        }
    }

    #[test]
    fn labels_keep_the_first_reason() {
        let cause = ActionId("a-1".into());
        let facts = labels(&[Origin::Dependency, Origin::External], &["secret".into()], &[], &BTreeSet::new(), &cause);
        let labels: Vec<String> = facts.iter().map(|fact| fact.label.to_string()).collect();
        assert_eq!(labels, ["mixed", "untrusted", "sensitive:secret"]);
    }
}
