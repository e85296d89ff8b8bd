//! Hostile and random texts: never a panic, never a clean bill for what was not understood.

use std::collections::BTreeMap;

use creel_inspect::{Place, guess_shell, suspicion, text_commands};
use creel_model::Verdict;

use crate::understand;

/// A small deterministic generator (xorshift), so that a failure repeats.
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % 1_000_003).unwrap_or(0) % below.max(1)
    }
}

const PIECES: &[&str] = &[
    "rm",
    " ",
    "-rf",
    "/",
    "$(",
    ")",
    "`",
    "\"",
    "'",
    "\\",
    "\n",
    ";",
    "|",
    "&&",
    "||",
    "&",
    "<",
    ">",
    "<<EOF",
    "EOF",
    "${",
    "}",
    "$",
    "{",
    "a,b",
    "(",
    "((",
    "))",
    "[[",
    "]]",
    "if",
    "then",
    "fi",
    "for",
    "in",
    "do",
    "done",
    "while",
    "case",
    "esac",
    "é",
    "日本",
    "\u{0}",
    "bash -c",
    "eval",
    "sudo",
    "echo",
    "base64 -d",
    "python3 -c",
    "find . -exec",
    "xargs",
    "=",
    "X",
    "*",
    "?",
    "[",
    "]",
    "~",
    "#",
    "!",
    "\r",
    "\t",
    "$'",
    "\\x41",
    "%",
    "1",
    "2>&1",
    "/dev/tcp/h/1",
    "curl",
    "http://x",
    "@",
    "-",
    "--",
    "printf",
    "%s",
    "tr a-z",
    "<(",
    ">(",
    "ssh h",
    "git -c",
    "sed -i",
    "awk",
    "psql -c",
    "drop table",
    "powershell -enc",
    "QUJD",
    "alias ls=",
    "f(){",
    "trap",
    "{1..9}",
    "${x/",
];

#[test]
fn random_texts_never_panic() {
    let mut random = Random(0x5eed_cafe_f00d_0001);
    for _ in 0..6000 {
        let length = random.next(24) + 1;
        let text: String = (0..length).map(|_| PIECES[random.next(PIECES.len())]).collect();
        let got = understand(&text);
        assert!(got.parsed || got.opaque, "{text:?} is unparsed but not opaque");
        assert!(got.effects.len() <= 64);
        for finding in &got.findings {
            let (start, end) = finding.span.expect("a span");
            assert!(start <= end && end <= text.len(), "{text:?} {finding:?}");
        }
        let variables = BTreeMap::new();
        let place = Place { cwd: "", home: "", user: "", variables: &variables };
        let other = text_commands(&text, &place);
        let (verdict, _) = suspicion(&other);
        assert!(other.parsed || verdict >= Verdict::Ask);
        let _ = guess_shell(&text);
    }
}

#[test]
fn random_bytes_as_text_never_panic() {
    let mut random = Random(0x0bad_5eed_1234_5678);
    for _ in 0..2000 {
        let bytes: Vec<u8> = (0..random.next(64)).map(|_| u8::try_from(random.next(256)).unwrap_or(0)).collect();
        understand(&String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn deep_nesting_is_refused_not_followed() {
    for (open, middle, close) in [
        ("(", "true", ")"),
        ("( ", "true", " )"),
        ("((", "1", "))"),
        ("{ ", "true;", "};"),
        ("$(", "true", ")"),
        ("echo $(", "true", ")"),
        ("echo \"$(", "true", ")\""),
        ("if true; then ", "true;", " fi;"),
        ("while true; do ", "true;", " done;"),
        ("case x in x) ", "true", ";; esac"),
        ("${a:-", "b", "}"),
        ("[[ ( ", "-n x", " ) ]]"),
        ("! ", "true", ""),
        ("f() { ", "true;", "};"),
        ("<(", "true", ")"),
        ("bash -c '", "true", "'"),
        ("eval ", "true", ""),
        ("sudo ", "true", ""),
        ("coproc ", "true", ""),
        ("`", "true", "`"),
        ("a=(", "b", ")"),
        ("$((", "1", "))"),
        ("[", "a", "]"),
        ("if ", "true", ""),
        ("echo {a,", "b", "}"),
    ] {
        for depth in [3, 12, 30, 39, 60, 201, 5000] {
            let text = format!("{}{middle}{}", open.repeat(depth), close.repeat(depth));
            let got = understand(&text);
            assert!(got.parsed || got.opaque, "{open} {depth}");
        }
    }
}

#[test]
fn nesting_adds_up_over_nested_texts() {
    for (open, close) in
        [("( ", " )"), ("if true; then ", "; fi"), ("{ ", "; }"), ("echo $(", ")"), ("sudo env nohup ", "")]
    {
        let mut text = "rm -rf /etc/x".to_owned();
        for _ in 0..8 {
            let times = if close.is_empty() { 8 } else { 38 };
            text = format!("{}eval {}{}", open.repeat(times), shell_quote(&text), close.repeat(times));
            assert!(text.len() < 200_000 || understand(&text).opaque);
            if text.len() >= 200_000 {
                break;
            }
            understand(&text);
        }
    }
}

#[test]
fn what_a_parser_needs_long_for_or_dies_of_never_reaches_it() {
    for text in [
        "(".repeat(40),
        "$(".repeat(40),
        "echo \"$(".repeat(40),
        format!("{}a b c{}", "(".repeat(30), ")".repeat(30)),
        "${a:-".repeat(30),
        "cat 99999999999999999999< x".to_owned(),
        "echo a 123456789012>&2".to_owned(),
    ] {
        let got = understand(&text);
        assert!(!got.parsed && got.opaque, "{text}");
    }
    assert!(understand("(cd a && (make; (true))) 2>&1; echo $(( (1 + 2) * (3) ))").parsed);
}

#[test]
fn limits_come_back_opaque() {
    let long = "true\n".repeat(60_000);
    assert!(understand(&long).opaque, "too long");
    let many = "cat /etc/a".to_owned() + &(0..200).map(|n| format!("; cat /etc/a{n}")).collect::<String>();
    let got = understand(&many);
    assert!(got.overflow && got.opaque && got.effects.len() == 64);
    let padded = many + "; rm -rf /etc";
    let got = understand(&padded);
    assert!(got.overflow && got.effects.len() == 64);
    assert!(got.effects.iter().any(|e| e.verb == creel_model::Verb::Delete), "padding pushed the deletion out");
    let variables: String = (0..300).map(|n| format!("v{n}=1 || true\n")).collect();
    assert!(understand(&variables).overflow, "too many variables");
    let mut nested = "true".to_owned();
    for _ in 0..9 {
        nested = format!("eval {}", shell_quote(&nested));
    }
    assert!(understand(&nested).opaque, "too deep");
}

fn shell_quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
