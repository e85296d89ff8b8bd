//! An action's own text to effects: structured tools exactly, commands through `inspect`, everything else opaque.
//!
//! Nothing is looked up here: paths are as the text says. The one fact a newcomer gets wrong: an empty list of effects
//! means that nothing is done only where the point cannot do anything; an unknown tool becomes an opaque call.

use std::collections::BTreeSet;

use creel_dialect::tools::{self, Part};
use creel_inspect::Place;
use creel_model::{Action, Certainty, ContentRole, Effect, Object, Point, Verb};

use crate::facts::{Budget, EFFECTS_MAX, Parts, Wanted};

/// Most paths looked up for one action.
const PATHS_MAX: usize = 128;
/// Most files digested for one action.
const DIGESTS_MAX: usize = 16;

/// What an action does, at most [`EFFECTS_MAX`] effects; `overflow` says that there were more. When the budget is spent
/// on the way, the rest counts as not understood; ask it again before going on, and hand in `Overload` instead.
#[must_use]
pub fn understand(action: &Action, place: &Place<'_>, budget: &dyn Budget) -> Parts {
    let mut parts = Parts { parsed: true, ..Parts::default() };
    match action.point {
        Point::Prompt => text(&mut parts, action, Verb::Prompt),
        Point::ToolResult => text(&mut parts, action, Verb::Receive),
        Point::Response => text(&mut parts, action, Verb::Reply),
        _ => {}
    }
    // A result's call is over: what it did was judged before it ran.
    if action.point != Point::ToolResult {
        for part in tools::parts(action, place.home) {
            if budget.spent() {
                parts.overflow = true;
                parts.parsed = false;
                break;
            }
            match part {
                Part::Effect(effect) => add(&mut parts, effect),
                Part::Command { text, shell, workdir } => {
                    let place = Place { cwd: workdir.as_deref().unwrap_or(place.cwd), ..*place };
                    let understood = creel_inspect::command(&text, shell_of(shell), &place);
                    parts.overflow |= understood.overflow;
                    parts.parsed &= understood.parsed;
                    parts.opaque |= understood.opaque;
                    parts.classes.extend(understood.classes);
                    parts.findings.extend(understood.findings);
                    let told = understood.effects.iter().any(|effect| effect.certainty == Certainty::Opaque);
                    understood.effects.into_iter().for_each(|effect| add(&mut parts, effect));
                    if !told && (understood.opaque || !understood.parsed) {
                        add(&mut parts, opaque_command());
                    }
                }
                Part::Unknown => {
                    parts.parsed = false;
                    parts.opaque = true;
                    let (server, tool) = action.call.as_ref().map_or_else(Default::default, |call| {
                        call.mcp.clone().unwrap_or_else(|| (String::new(), call.tool.clone()))
                    });
                    add(&mut parts, Effect::new(Verb::Call, Object::McpTool { server, tool }, Certainty::Opaque));
                }
            }
        }
    }
    parts
}

/// The words of `inspect` for the shell that the dialect stated.
fn shell_of(shell: tools::Shell) -> creel_inspect::Shell {
    match shell {
        tools::Shell::Posix => creel_inspect::Shell::Posix,
        tools::Shell::PowerShell => creel_inspect::Shell::PowerShell,
    }
}

/// The effect of command text that was not, or not wholly, understood.
pub(crate) fn opaque_command() -> Effect {
    let program = Object::Program { program: String::new(), argv: Vec::new(), script: None };
    Effect { dynamic: true, ..Effect::new(Verb::Execute, program, Certainty::Opaque) }
}

fn add(parts: &mut Parts, effect: Effect) {
    if parts.effects.contains(&effect) {
        return;
    }
    if effect.certainty == Certainty::Opaque {
        parts.opaque = true;
    }
    if parts.effects.len() >= EFFECTS_MAX {
        parts.overflow = true;
    } else {
        parts.effects.push(effect);
    }
}

/// One effect per role of the texts that enter or leave the context.
fn text(parts: &mut Parts, action: &Action, verb: Verb) {
    let roles: BTreeSet<ContentRole> = action.contents.iter().map(|content| content.role).collect();
    for role in roles {
        let bytes = action.contents.iter().filter(|content| content.role == role).map(|content| content.text.len());
        let bytes = bytes.fold(0_u64, |sum, len| sum.saturating_add(len as u64));
        add(parts, Effect::new(verb, Object::Text { role, bytes }, Certainty::Exact));
    }
}

/// What has to be looked up on the machine before the action can be prepared.
#[must_use]
pub fn wanted(parts: &Parts) -> Wanted {
    let mut paths = BTreeSet::new();
    let mut digests = BTreeSet::new();
    let sends = parts.effects.iter().any(|effect| effect.verb == Verb::Send);
    for effect in &parts.effects {
        match &effect.object {
            Object::Path { path, resolved } if path.starts_with('/') && !effect.remote => {
                let path = resolved.as_ref().unwrap_or(path);
                paths.insert(path.clone());
                if !effect.dynamic && (effect.verb == Verb::Execute || (sends && effect.verb == Verb::Read)) {
                    digests.insert(path.clone());
                }
            }
            Object::Program { script: Some(script), .. } if script.starts_with('/') && !effect.remote => {
                paths.insert(script.clone());
                digests.insert(script.clone());
            }
            _ => {}
        }
    }
    Wanted {
        paths: paths.into_iter().take(PATHS_MAX).collect(),
        digests: digests.into_iter().take(DIGESTS_MAX).collect(),
    }
}
