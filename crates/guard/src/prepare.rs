//! Facts about one action, complete except for the state: resolved objects, zones, origins, what stands in its texts.
//!
//! Stateless and parallel; stops when its budget is spent. The one fact a newcomer gets wrong: a path is judged under
//! both its names: the zones of an effect are those of the file that the name leads to, with the guarded ones of the name
//! as the agent wrote it, so neither a link into a zone nor a link out of one escapes a rule.

use std::collections::{BTreeMap, BTreeSet};

use creel_inspect::Place;
use creel_model::{Action, Confidence, Content, Effect, Finding, Modification, Object, Point, Verb};
use creel_policy::{Bundle, Places};

use crate::facts::{Budget, Caller, EFFECTS_MAX, Located, Looked, Overloaded, Parts, Prepared, Ready, Resolution};
use crate::understand::opaque_command;
use crate::{effects, origin, sink};

/// Most bytes of texts inspected for one action: a payload's own limit is 8 MiB, so this is never reached by one.
pub const PREPARED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Most findings kept of one action's texts; further ones change nothing that a rule can see, but are still redacted.
const LOCATED_MAX: usize = 256;

/// The places that zones are about, for a caller.
#[must_use]
pub fn places(caller: &Caller) -> Places {
    Places {
        home: caller.account.home.clone(),
        workspace: caller.workspace.clone(),
        temporary: caller.temporary.clone(),
        uid: caller.account.uid,
    }
}

/// Prepares an action. `looked` answers [`crate::wanted`]; `payload_bytes` is the size of what the agent sent.
#[must_use]
pub fn prepare(
    action: Action,
    caller: Caller,
    parts: Parts,
    looked: &Looked,
    bundle: &Bundle,
    payload_bytes: u64,
    budget: &dyn Budget,
) -> Prepared {
    let places = places(&caller);
    let mut effects = parts.effects.clone();
    effects.truncate(EFFECTS_MAX);
    let mut parts = parts;
    let mut of_process = false;
    for effect in &mut effects {
        if budget.spent() {
            return overload(caller, action, payload_bytes);
        }
        of_process |= resolve(effect, looked);
        set_zones(effect, bundle, &places);
    }
    if of_process {
        parts.opaque = true;
        let unknown = opaque_command();
        if effects.len() >= EFFECTS_MAX {
            parts.overflow = true;
        } else if !effects.contains(&unknown) {
            effects.push(unknown);
        }
    }
    let Some(texts) = inspect(&action.contents, budget) else { return overload(caller, action, payload_bytes) };
    let content_classes = classes(&texts.located);
    for effect in &mut effects {
        effect.origin = origin::of(effect);
    }
    move_content(&mut effects, &action, &texts.located);
    let named = named(&action, &caller);
    let shown = effects.iter().map(|effect| effects::shown(&effect.object)).collect();
    Prepared::Ready(Box::new(Ready {
        effects,
        files: looked.digests.clone(),
        located: texts.located,
        content_classes,
        redactions: texts.redactions,
        classes_after: texts.classes_after,
        shown,
        excerpt: effects::excerpt(&action),
        named,
        bundle: bundle.digest().clone(),
        payload_bytes,
        parts,
        caller,
        action,
    }))
}

fn overload(caller: Caller, action: Action, payload_bytes: u64) -> Prepared {
    Prepared::Overload(Box::new(Overloaded { caller, action, payload_bytes }))
}

/// Enters what the path turned out to be; whether that depends on the process that opens it.
fn resolve(effect: &mut Effect, looked: &Looked) -> bool {
    let (asked, script) = match &effect.object {
        Object::Path { path, resolved } => (resolved.as_ref().unwrap_or(path).clone(), false),
        Object::Program { script: Some(script), .. } => (script.clone(), true),
        _ => return false,
    };
    if effect.remote {
        return false;
    }
    let found = looked.paths.get(&asked);
    match found {
        Some(Resolution::Resolved(target)) if !script => {
            if let Object::Path { resolved, .. } = &mut effect.object {
                *resolved = Some(target.clone());
            }
        }
        Some(Resolution::Resolved(_)) => {}
        // Not looked up, or in vain: which file it is nobody knows.
        Some(Resolution::Failed(_) | Resolution::OfProcess) | None => effect.dynamic = true,
    }
    found == Some(&Resolution::OfProcess)
}

/// Zones of the effect's object by the bundle: for a path, those of where it leads and the guarded ones of its name.
pub(crate) fn set_zones(effect: &mut Effect, bundle: &Bundle, places: &Places) {
    effect.zones = bundle.zones_of_object(&effect.object, places);
}

struct Texts {
    located: Vec<Located>,
    redactions: Vec<Modification>,
    classes_after: BTreeSet<String>,
}

/// Looks into every text; `None` when the budget was spent first.
fn inspect(contents: &[Content], budget: &dyn Budget) -> Option<Texts> {
    let mut texts = Texts { located: Vec::new(), redactions: Vec::new(), classes_after: BTreeSet::new() };
    let mut bytes = 0_usize;
    for content in contents {
        bytes = bytes.saturating_add(content.text.len());
        if budget.spent() || bytes > PREPARED_BYTES_MAX {
            return None;
        }
        let findings = creel_inspect::content(&content.text, content.role);
        let sensitive: Vec<Finding> = findings.iter().filter(|finding| is_sensitive(finding)).cloned().collect();
        if !sensitive.is_empty() {
            let redacted = creel_inspect::redact(&content.text, &sensitive);
            if redacted.replaced > 0 {
                let again = creel_inspect::content(&redacted.text, content.role);
                let left = again.iter().filter(|finding| is_sensitive(finding));
                texts.classes_after.extend(left.flat_map(classes_of));
                texts.redactions.push(Modification {
                    pointer: content.pointer.clone(),
                    text: redacted.text,
                    replaced: redacted.replaced,
                });
            }
        }
        for finding in findings {
            if texts.located.len() < LOCATED_MAX {
                texts.located.push(Located { pointer: content.pointer.clone(), finding });
            }
        }
    }
    Some(texts)
}

/// Whether a finding stands for content that must not get about: it makes a content class and can be redacted.
pub(crate) fn is_sensitive(finding: &Finding) -> bool {
    let class = finding.class.as_str();
    finding.span.is_some()
        && finding.confidence >= Confidence::Medium
        && ["secret", "private-key", "personal"].contains(&class)
}

/// Classes of the content that the findings stand for.
pub(crate) fn classes(located: &[Located]) -> BTreeSet<String> {
    located.iter().map(|l| &l.finding).filter(|f| is_sensitive(f)).flat_map(classes_of).collect()
}

/// A private key is a secret too.
fn classes_of(finding: &Finding) -> Vec<String> {
    let mut classes = vec![finding.class.clone()];
    if finding.class == "secret" && finding.code.contains("private-key") {
        classes.push("private-key".to_owned());
    }
    classes
}

/// States which content each effect moves. A secret file that is read in the same action as something is sent is taken
/// to be what is sent: how the bytes flow inside a command is not known.
pub(crate) fn move_content(effects: &mut [Effect], action: &Action, located: &[Located]) {
    let reads_secret = !origin::sensitive(effects).is_empty();
    for effect in effects.iter_mut() {
        match (&effect.object, effect.verb) {
            (Object::Text { role, .. }, _) => {
                let role = *role;
                let here = |pointer: &str| action.contents.iter().any(|c| c.role == role && c.pointer == pointer);
                let found = located.iter().filter(|l| is_sensitive(&l.finding) && here(&l.pointer));
                effect.content.extend(found.flat_map(|l| classes_of(&l.finding)));
            }
            (_, Verb::Send | Verb::Write | Verb::Call | Verb::Execute | Verb::Configure)
                if action.point != Point::ToolResult =>
            {
                effect.content.extend(classes(located));
                if reads_secret && effect.verb == Verb::Send {
                    effect.content.insert("secret".to_owned());
                }
            }
            _ => {}
        }
    }
}

/// Objects that the user's own prompt names.
fn named(action: &Action, caller: &Caller) -> BTreeSet<u64> {
    if action.point != Point::Prompt || action.subagent.is_some() {
        return BTreeSet::new();
    }
    let variables = BTreeMap::new();
    let place = Place {
        cwd: action.cwd.as_deref().or(caller.workspace.as_deref()).unwrap_or_default(),
        home: &caller.account.home,
        user: &caller.account.name,
        variables: &variables,
    };
    let prompts = action.contents.iter().filter(|content| content.role == creel_model::ContentRole::Prompt);
    prompts.flat_map(|content| sink::named(&content.text, &place)).take(256).collect()
}
