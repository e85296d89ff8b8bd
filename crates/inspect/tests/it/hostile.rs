//! Texts that once held the shell parser for ever, or ended it: each must come back, opaque.

use std::collections::BTreeMap;

use creel_inspect::{Place, Shell, command};

#[test]
fn hostile_texts_come_back_opaque() {
    let variables = BTreeMap::new();
    let place = Place { cwd: "/home/a", home: "/home/a", user: "a", variables: &variables };
    let open = "(".repeat(28);
    for text in [
        "cat <<'' x 'd e' ",
        "cat <<\"\" $(",
        &format!("cat {}'' x 'd e' ", "<".repeat(211)),
        &format!("cat {}'' x 'd e' ", "<".repeat(212)),
        &format!("diff <{open}curl x"),
        &format!("{open} # {}", ")".repeat(30)),
        &format!("{open}x ; ) {} y)", ")".repeat(18)),
        "cat a 18446744073709551616> /dev/tcp/h/1",
    ] {
        let understood = command(text, Shell::Posix, &place);
        assert!(understood.opaque && !understood.parsed, "{text}");
    }
    for text in ["grep -rn '<<<<<<<' .", "cat <<< ''", "cat <<<'a b'", "cat <<'EOF'\nx\nEOF\n"] {
        assert!(command(text, Shell::Posix, &place).parsed, "{text}");
    }
}
