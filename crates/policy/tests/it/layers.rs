//! Layers: an upper bundle may be stricter, widen what is delegated, and nothing else.

use std::collections::BTreeMap;

use creel_model::{Verb, Verdict, Zone};
use creel_policy::{Bundle, Layers};

use crate::{NOW, files, judge, path, places, with};

const BASE_RULE: &str = "@id(\"base-rule\") @reason(\"x\") @effect(\"ask\")\nforbid (principal, action == Action::\"read\", resource is Path) when { resource.zones.contains(\"secrets\") };";

fn base() -> BTreeMap<String, String> {
    let base = files(BASE_RULE);
    let manifest = format!("{}\n[delegate]\nzones = [\"internal\"]\n", base["bundle.toml"]);
    with(base, "bundle.toml", &manifest)
}

/// Loads an upper layer of these files over the base; its manifest gets `extra`.
fn over(base: BTreeMap<String, String>, extra: &str, files: &[(&str, &str)]) -> Result<Bundle, String> {
    let mut layers = Layers::default();
    let digest = layers.add(base);
    let manifest = format!("id = \"upper\"\nversion = \"1\"\ncreel = \"1\"\nbase = \"{digest}\"\n{extra}");
    let mut upper = BTreeMap::from([("bundle.toml".to_owned(), manifest)]);
    upper.extend(files.iter().map(|(file, text)| ((*file).to_owned(), (*text).to_owned())));
    Bundle::load_over(&upper, &layers, NOW)
        .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}

#[track_caller]
fn refused(result: Result<Bundle, String>, words: &str) {
    let why = result.expect_err("it loads");
    assert!(why.contains(words), "{why}");
}

#[test]
fn an_upper_layer_adds_and_tightens() {
    let rule = "@id(\"upper-rule\") @reason(\"x\")\nforbid (principal, action == Action::\"write\", resource);";
    let zones = "[[zone]]\nname = \"internal\"\nhosts = [\"git.example.com\"]\n[[zone]]\nname = \"secrets\"\npaths = [\"~/vault/**\"]\n";
    let bundle =
        over(base(), "[default]\nspend = \"deny\"\n", &[("rules/u.cedar", rule), ("zones.toml", zones)]).unwrap();
    assert_eq!(bundle.rules().len(), 2);
    assert_eq!(judge(&bundle, &[path(&bundle, Verb::Read, "/home/dev/vault/x")]).verdict, Verdict::Ask);
    assert_eq!(judge(&bundle, &[path(&bundle, Verb::Read, "/home/dev/.ssh/x")]).verdict, Verdict::Ask);
    assert_eq!(judge(&bundle, &[path(&bundle, Verb::Write, "/x")]).verdict, Verdict::Deny);
    assert_eq!(bundle.zone_of_host("git.example.com"), Zone::named(Zone::INTERNAL));
    assert_eq!(bundle.defaults().get(&Verb::Spend), Some(&Verdict::Deny));
    assert!(bundle.base().is_some());
}

#[test]
fn an_upper_layer_relaxes_nothing() {
    let strict = with(base(), "bundle.toml", &base()["bundle.toml"].replace("read = \"allow\"", "read = \"ask\""));
    refused(over(strict, "[default]\nread = \"allow\"\n", &[]), "relaxes the default");
    refused(over(base(), "[modes]\nbase-rule = \"audit\"\n", &[]), "relaxes rule `base-rule`");
    let permit = "@id(\"p\")\npermit (principal, action, resource);";
    refused(over(base(), "", &[("rules/u.cedar", permit)]), "a layer permits");
    let widen = "[[zone]]\nname = \"workspace\"\npaths = [\"/**\"]\n";
    refused(over(base(), "", &[("zones.toml", widen)]), "widens the open zone");
    let narrow = "[[zone]]\nname = \"secrets\"\nexcept = [\"~/.ssh/**\"]\n";
    refused(over(base(), "", &[("zones.toml", narrow)]), "narrows the base's zone");
    let exception = "[[exception]]\nid = \"e\"\nrule = \"base-rule\"\nreason = \"x\"\nowner = \"a\"\nexpires = 2026-12-01\nscope = { agents = [\"claude-code\"] }\n";
    refused(over(base(), "", &[("exceptions.toml", exception)]), "not delegated");
    let delegating = with(base(), "bundle.toml", &format!("{}exceptions = [\"base-rule\"]\n", base()["bundle.toml"]));
    let excepted = over(delegating, "", &[("exceptions.toml", exception)]).unwrap();
    assert_eq!(judge(&excepted, &[path(&excepted, Verb::Read, "/home/dev/.ssh/x")]).verdict, Verdict::Allow);
    let again = "@id(\"base-rule\") @reason(\"x\")\nforbid (principal, action, resource);";
    refused(over(base(), "", &[("rules/u.cedar", again)]), "declared twice");
}

#[test]
fn a_base_must_be_here_and_is_named_by_content() {
    let digest = Bundle::digest_of(&base());
    let manifest = format!("id = \"u\"\nversion = \"1\"\ncreel = \"1\"\nbase = \"{digest}\"\n");
    let upper = BTreeMap::from([("bundle.toml".to_owned(), manifest)]);
    let faults = Bundle::load(&upper, NOW).unwrap_err();
    assert_eq!((faults[0].line, faults[0].column), (4, 8));
    let moved = BTreeMap::from([("a".to_owned(), "bc".to_owned())]);
    let other = BTreeMap::from([("ab".to_owned(), "c".to_owned())]);
    assert_ne!(Bundle::digest_of(&moved), Bundle::digest_of(&other));
}

#[test]
fn a_workspace_that_holds_the_home_is_none() {
    let bundle = crate::load(&base());
    let mut wide = places();
    wide.workspace = Some("/home/dev".to_owned());
    assert!(bundle.zones_of_path("/home/dev/x", &wide).is_empty());
    assert!(bundle.zones_of_path("/home/dev/project/x", &places()).contains(&Zone::named(Zone::WORKSPACE)));
}
