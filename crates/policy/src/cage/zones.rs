//! What the rules say about reading and writing each guarded zone, for a mechanism that knows no context and cannot ask.
//!
//! Known in a cage is only that nothing happens on another machine. The one fact a newcomer gets wrong: reading is held
//! where a rule *certainly* matches, writing also where one *may*: a file that was read unasked is seen by the hook,
//! a file that will be executed elsewhere is seen by nobody.

use std::collections::BTreeMap;

use creel_model::{RuleMode, Verb, Verdict, Zone};

use crate::rules::Rule;
use crate::zones::Zones;

/// What holds in one zone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hold {
    /// The strongest word about reading, and its rule; nothing where it is allowed.
    pub(crate) read: Option<(Verdict, String)>,
    /// The same about writing.
    pub(crate) write: Option<(Verdict, String)>,
}

/// A zone that no bundle can declare: a rule that may match even there is not about zones.
const NOWHERE: &str = "-";

/// What holds in every zone that tightens rules and has patterns of its own.
pub(crate) fn holds(rules: &[Rule], zones: &Zones) -> BTreeMap<Zone, Hold> {
    let nowhere = Zone::named(NOWHERE);
    let mut holds = BTreeMap::new();
    for zone in zones.guarded() {
        let mut hold = Hold::default();
        for rule in rules.iter().filter(|rule| !rule.permit && rule.cage_mode() == RuleMode::Block) {
            if !rule.types.contains("Path") || rule.info.effect < Verdict::Ask {
                continue;
            }
            let here = rule.local_truth(zone);
            if rule.info.verbs.contains(&Verb::Read) && here == Some(true) {
                stronger(&mut hold.read, rule);
            }
            let about_it = here == Some(true) || (here.is_none() && rule.local_truth(&nowhere) == Some(false));
            if rule.info.verbs.contains(&Verb::Write) && about_it {
                stronger(&mut hold.write, rule);
            }
        }
        if hold != Hold::default() {
            holds.insert(zone.clone(), hold);
        }
    }
    holds
}

fn stronger(held: &mut Option<(Verdict, String)>, rule: &Rule) {
    if held.as_ref().is_none_or(|(verdict, _)| *verdict < rule.info.effect) {
        *held = Some((rule.info.effect, rule.info.id.clone()));
    }
}
