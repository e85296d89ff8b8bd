//! What goes wrong around the daemon: killed, doubled, without disk, flooded, its record damaged, its folder taken.

use creel_tests::{Account, Creel, Stage};

#[test]
fn a_second_daemon_is_refused_and_the_first_goes_on() {
    let Some(stage) = Stage::open() else { return };
    let creel = Creel::user(&stage, Account::USER).unwrap();
    let second = stage.run(Account::USER, "creeld").arguments(["--user", "--enforce"]).finish(60).unwrap();
    assert_eq!(second.code, Some(1), "{second}");
    assert!(second.stderr.contains("creeld: "), "{second}");
    // Another runtime folder, the same record.
    stage.make_folder(Account::USER, "/home/dana/elsewhere").unwrap();
    let second = stage.run(Account::USER, "creeld").arguments(["--user", "--runtime", "/home/dana/elsewhere/run"]);
    let second = second.finish(60).unwrap();
    assert_eq!(second.code, Some(1), "{second}");
    assert!(second.stderr.contains("journal"), "{second}");
    creel.verified().unwrap();
    assert!(creel.stop().unwrap().code == Some(0));
}
