//! The starter bundle: it loads, its tables hold, and every rule is shown matching and sparing.

use creel_policy::{Bundle, starter};

#[test]
fn the_starter_bundle_holds_its_own_tables() {
    let bundle = match Bundle::load(&starter(), 0) {
        Ok(bundle) => bundle,
        Err(faults) => panic!("{}", faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
    };
    let report = bundle.run_tests();
    for failure in &report.failures {
        println!(
            "{}:{} {}: expected {}, {}",
            failure.file, failure.line, failure.case, failure.expected, failure.difference
        );
    }
    assert!(report.passed(), "{} of {} cases fail", report.failures.len(), report.cases);
    assert!(report.cases >= 150, "{} cases", report.cases);
    assert!(report.never_matched.is_empty(), "no case shows these matching: {:?}", report.never_matched);
    assert!(report.never_spared.is_empty(), "no case shows these sparing: {:?}", report.never_spared);
}
