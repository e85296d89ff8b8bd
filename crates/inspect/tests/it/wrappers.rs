//! Every wrapper around every payload: the inner command is found, with its effects, whatever stands around it.

use base64::Engine as _;

use crate::understand;

/// Text of a payload in forms that wrappers need.
fn single(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn hex(text: &str) -> String {
    text.bytes().map(|b| format!("{b:02x}")).collect()
}

fn escaped(text: &str) -> String {
    text.bytes().map(|b| format!("\\x{b:02x}")).collect()
}

fn base64(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// Wrappers; `{}` is the payload, `{q}` the payload quoted, `{b}` in base64, `{x}` in hex, `{e}` as escapes,
/// `{r}` reversed, `{13}` rotated.
const WRAPPERS: &[&str] = &[
    "{}",
    "true; {}",
    "true && {}",
    "false || {}",
    "{} &",
    "( {} )",
    "{ {}; }",
    "! {}",
    "X=1 {}",
    "A=1 B=2 env C=3 {}",
    "if true; then {}; fi",
    "if {}; then true; fi",
    "if false; then true; else {}; fi",
    "for i in 1 2; do {}; done",
    "while true; do {}; done",
    "until false; do {}; done",
    "case x in x) {};; esac",
    "f() { {}; }; f",
    "f() { {}; }",
    "function f { {}; }; f",
    "echo $({})",
    "echo `{}`",
    "echo \"a $({}) b\"",
    "echo \"`{}`\"",
    "X=$({})",
    "echo \"${X:-$({})}\"",
    "cat <({})",
    "ls > >({})",
    "echo a | ( {} )",
    "coproc {}",
    "[[ -n $({}) ]]",
    "echo $(( $({}) + 1 ))",
    "bash -c {q}",
    "sh -ec {q}",
    "bash -lc {q} name",
    "/bin/bash -c {q}",
    "zsh -c {q}",
    "bash <<< {q}",
    "bash <<'EOF'\n{}\nEOF\n",
    "bash -s <<EOF\n{}\nEOF\n",
    "cat <<'EOF' | sh\n{}\nEOF\n",
    "echo {q} | sh",
    "printf '%s' {q} | bash",
    "echo {q} | sudo bash",
    "bash <(echo {q})",
    "source <(echo {q})",
    ". /dev/stdin <<< {q}",
    "eval {q}",
    "eval \"$(echo {q})\"",
    "bash -c \"$(echo {q})\"",
    "X={q}; eval \"$X\"",
    "X={q}; bash -c \"$X\"",
    "X={q}; $X",
    "echo {q} > /tmp/x.sh; sh /tmp/x.sh",
    "cat > /tmp/x.sh <<'EOF'\n{}\nEOF\nchmod +x /tmp/x.sh && /tmp/x.sh",
    "echo {q} | tee /tmp/y.sh; bash /tmp/y.sh",
    "sudo {}",
    "sudo -u root -E {}",
    "sudo -- {}",
    "sudo bash -c {q}",
    "doas {}",
    "su -c {q}",
    "su root -c {q}",
    "env {}",
    "env -i PATH=/bin {}",
    "env -u X {}",
    "nohup {} &",
    "timeout 5 {}",
    "timeout -s KILL -k 1 5 {}",
    "nice -n 5 {}",
    "ionice -c 3 {}",
    "stdbuf -oL {}",
    "setsid {}",
    "time {}",
    "time -p {}",
    "exec {}",
    "command {}",
    "builtin {}",
    "strace -f -o /tmp/s {}",
    "watch {q}",
    "watch -n 1 {}",
    "flock /tmp/l {}",
    "flock /tmp/l -c {q}",
    "script -qc {q} /dev/null",
    "unshare -r {}",
    "chroot / {}",
    "busybox sh -c {q}",
    "xargs -I% {} < /dev/null",
    "echo a | xargs -n 1 {}",
    "find . -maxdepth 0 -exec {} \\;",
    "find . -maxdepth 0 -exec sh -c {q} \\;",
    "parallel ::: {q}",
    "ssh host {}",
    "ssh -p 22 user@host {q}",
    "docker exec c {}",
    "docker run --rm image {}",
    "kubectl exec pod -- {}",
    "trap {q} EXIT",
    "alias zz={q}",
    "echo {b} | base64 -d | sh",
    "base64 -d <<< {b} | bash",
    "bash -c \"$(echo {b} | base64 --decode)\"",
    "eval \"$(base64 -d <<< {b})\"",
    "echo {x} | xxd -r -p | sh",
    "echo -e '{e}' | sh",
    "printf '{e}' | sh",
    "eval $'{e}'",
    "bash -c $'{e}'",
    "echo {r} | rev | sh",
    "echo {13} | tr 'A-Za-z' 'N-ZA-Mn-za-m' | sh",
    "python3 -c \"import os; os.system({py})\"",
    "perl -e 'system({py})'",
    "ruby -e 'system({py})'",
    "node -e 'require(\"child_process\").execSync({py})'",
    "php -r 'system({py});'",
    "awk 'BEGIN { system({py}) }'",
    "python3 <<'EOF'\nimport subprocess\nsubprocess.run({py}, shell=True)\nEOF\n",
    "git -c core.pager={q} log",
    "GIT_SSH_COMMAND={q} git fetch",
    "tar cf /dev/null x --checkpoint=1 --checkpoint-action=exec={q}",
    "at now <<< {q}",
    "tmux new-session -d {q}",
];

/// Payloads and the program that must be found in them.
const PAYLOADS: &[(&str, &str)] = &[
    ("rm -rf /etc/ssl", "rm"),
    ("shred -u /home/user/notes", "shred"),
    ("crontab /tmp/jobs", "crontab"),
    ("chmod 4755 /tmp/tool", "chmod"),
];

fn rotate(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            'a'..='z' => char::from((c as u8 - b'a' + 13) % 26 + b'a'),
            'A'..='Z' => char::from((c as u8 - b'A' + 13) % 26 + b'A'),
            c => c,
        })
        .collect()
}

fn wrap(wrapper: &str, payload: &str) -> String {
    wrapper
        .replace("{q}", &single(payload))
        .replace("{b}", &base64(payload))
        .replace("{x}", &hex(payload))
        .replace("{e}", &escaped(payload))
        .replace("{r}", &single(&payload.chars().rev().collect::<String>()))
        .replace("{13}", &single(&rotate(payload)))
        .replace(
            "{py}",
            &if wrapper.contains('\'') && !wrapper.contains("EOF") {
                format!("\"{payload}\"")
            } else {
                format!("'{payload}'")
            },
        )
        .replace("{}", payload)
}

#[test]
fn every_inner_command_of_every_wrapper_is_found() {
    let (mut cases, mut missed) = (0, Vec::new());
    for wrapper in WRAPPERS {
        for (payload, program) in PAYLOADS {
            cases += 1;
            let text = wrap(wrapper, payload);
            let got = understand(&text);
            let found = got.commands.iter().any(|c| {
                c.program == *program
                    && c.argv.join(" ").starts_with(payload.split_once(' ').map_or("", |(_, rest)| rest))
            });
            if !found {
                let seen: Vec<_> = got.commands.iter().map(|c| format!("{} {}", c.program, c.argv.join(" "))).collect();
                missed.push(format!("{text:?} parsed={} saw {seen:?}", got.parsed));
            }
        }
    }
    assert!(cases >= 300, "only {cases} cases");
    assert!(missed.is_empty(), "{} of {cases}:\n{}", missed.len(), missed.join("\n"));
}

#[test]
fn two_wrappers_deep_is_found_too() {
    let mut missed = Vec::new();
    for outer in
        ["bash -c {q}", "sudo {}", "echo {b} | base64 -d | sh", "ssh host {q}", "eval {q}", "timeout 5 bash -c {q}"]
    {
        for inner in ["sh -c {q}", "env A=1 {}", "echo {b} | base64 -d | bash", "( {} )", "nohup {} &", "echo $({})"] {
            let text = wrap(outer, &wrap(inner, "rm -rf /etc/ssl"));
            // An operator outside quotes would end the outer command: that is another text.
            let whole = !outer.contains("{}") || !inner.contains(['|', '(', '&']);
            if whole && !understand(&text).commands.iter().any(|c| c.program == "rm") {
                missed.push(text);
            }
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}
