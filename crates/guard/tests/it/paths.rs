//! Paths that are not what they look like.

use creel_guard::{Looked, Prepared, Resolution, Unlimited};
use creel_model::{Certainty, Object, Verb, Verdict};
use serde_json::json;

use crate::lab::*;

/// A repository may hold a link to anywhere; `link/..` is then above its target, not above the link.
#[test]
fn a_way_up_through_a_link_is_judged_where_it_ends() {
    let (mut lab, agent) = (Lab::new(), caller(10));
    lab.links.insert("/home/dev/work/l/../.git/hooks/x".into(), "/home/dev/work/.git/hooks/x".into());
    let Prepared::Ready(ready) = lab.prepare(&agent, &bash("s", "c1", "tee l/../.git/hooks/x")) else { panic!() };
    let written = ready.effects.iter().find(|effect| effect.verb == Verb::Write).unwrap();
    let Object::Path { resolved, .. } = &written.object else { panic!("{written:?}") };
    assert_eq!(resolved.as_deref(), Some("/home/dev/work/.git/hooks/x"));

    lab.links.insert("/home/dev/work/l/../plain".into(), "/home/dev/work/.git/hooks/x".into());
    let Prepared::Ready(ready) = lab.prepare(&agent, &bash("s", "c1", "tee l/../plain")) else { panic!() };
    let written = ready.effects.iter().find(|effect| effect.verb == Verb::Write).unwrap();
    assert!(written.zones.iter().any(|zone| zone.as_str() == "exec-bearing"), "{written:?}");
}

#[test]
fn what_is_another_file_for_every_process_is_not_understood() {
    let (mut lab, agent) = (Lab::new(), caller(10));
    let action = call("s", "c1", "Read", json!({"file_path": "/home/dev/work/docs/id_rsa"}));
    assert_eq!(lab.verdict(&agent, &action), Verdict::Allow);
    let place = creel_inspect::Place {
        cwd: "/home/dev/work",
        home: "/home/dev",
        user: "dev",
        variables: &std::collections::BTreeMap::new(),
    };
    let parts = creel_guard::understand(&action, &place, &Unlimited);
    let paths = [("/home/dev/work/docs/id_rsa".to_owned(), Resolution::OfProcess)].into();
    let looked = Looked { paths, ..Looked::default() };
    let prepared = creel_guard::prepare(action, agent, parts, &looked, &lab.bundle, 1, &Unlimited);
    let Prepared::Ready(ready) = prepared else { panic!() };
    let unknown = ready.effects.iter().find(|effect| effect.verb == Verb::Execute).unwrap();
    assert!(unknown.certainty == Certainty::Opaque && unknown.dynamic && ready.parts.opaque, "{unknown:?}");
    assert_eq!(ready.effects.len(), ready.shown.len());
}

#[test]
fn a_question_says_when_it_does_not_show_all() {
    let (mut lab, agent) = (Lab::new(), caller(10));
    let command = (0..40).map(|n| format!("> .git/hooks/h{n}")).collect::<Vec<_>>().join("; ");
    let (_, id) = lab.ask(&agent, &bash("s", "c1", &command));
    let views = lab.guard.approvals();
    let view = views.iter().find(|view| view.id == id).unwrap();
    assert_eq!(view.effects.len(), 16);
    assert_eq!(view.effects.last().unwrap(), "… and 25 more that are not shown");
}
