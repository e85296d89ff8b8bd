//! What comes out of commands that make or change text in ways simple enough to follow.

use super::flow::{self, Flow};
use super::spelling::ansi_c;
use super::walk::Walker;
use super::words::Arg;
use crate::bounds;
use crate::knowledge::Split;

impl Walker<'_> {
    /// The output of a command that read `carried` from its arguments and `stdin` from before it; too long a text is not
    /// known.
    pub(crate) fn output(
        &mut self,
        program: &str,
        rest: &[Arg],
        split: &Split<'_>,
        stdin: &Flow,
        carried: Flow,
    ) -> Flow {
        let mut out = self.made(program, rest, split, stdin, carried);
        let length = out.text.as_ref().map_or(0, String::len);
        self.made_bytes = self.made_bytes.saturating_add(length);
        // A filter may hand on all of the text, which is bounded itself; encoders in a row would make it grow.
        let handed_on = stdin.text.as_ref().is_some_and(|text| length <= text.len());
        if self.made_bytes > bounds::MADE_BYTES {
            out.text = None;
            out.produced = true;
            self.limit("text made by commands");
        } else if length > bounds::KNOWN_BYTES && !handed_on {
            out.text = None;
            out.produced = true;
        }
        out
    }

    fn made(&mut self, program: &str, rest: &[Arg], split: &Split<'_>, stdin: &Flow, mut carried: Flow) -> Flow {
        let known = rest.iter().all(|a| !a.unknown);
        let loose = rest.iter().any(|a| a.loose);
        for arg in rest {
            if let Some(flow) = &arg.flow {
                carried.merge(flow);
            }
            carried.secret |= Self::holds_secret(arg);
        }
        let has = |letter: char| {
            split.options.iter().any(|o| o.starts_with('-') && !o.starts_with("--") && o.contains(letter))
        };
        match program {
            "echo" => {
                let escapes = rest.first().is_some_and(|a| matches!(a.text.as_str(), "-e" | "-ne" | "-en"));
                let skip =
                    rest.iter().take_while(|a| matches!(a.text.as_str(), "-n" | "-e" | "-ne" | "-en" | "-E")).count();
                let text = rest.iter().skip(skip).map(|a| a.text.as_str()).collect::<Vec<_>>().join(" ");
                let hidden = escapes && text.contains("\\x");
                let text = if escapes { ansi_c(&text) } else { text };
                Flow {
                    text: known.then(|| text + "\n"),
                    loose,
                    decoded: carried.decoded || hidden,
                    produced: false,
                    ..carried
                }
            }
            "printf" => {
                let text = rest
                    .first()
                    .filter(|_| known)
                    .map(|format| printf(&format.text, rest.get(1..).unwrap_or_default()));
                let hidden = rest.first().is_some_and(|f| f.text.contains("\\x"));
                Flow { text, loose, decoded: carried.decoded || hidden, produced: false, ..carried }
            }
            // All variables, and with them whatever credentials they hold.
            "printenv" if split.positional.is_empty() => Flow { secret: true, produced: true, ..carried },
            "set" if rest.is_empty() => Flow { secret: true, produced: true, ..carried },
            "export" | "declare" | "typeset" if split.positional.is_empty() => {
                Flow { secret: true, produced: true, ..carried }
            }
            "printenv" => {
                let secret = split.positional.iter().any(|(name, _)| crate::knowledge::is_secret_variable(name));
                Flow { secret: secret || carried.secret, produced: true, ..carried }
            }
            "pwd" => Flow { text: self.env.cwd.as_deref().map(str::to_owned), ..Flow::default() },
            "whoami" | "logname" if !self.place.user.is_empty() => Flow::known(self.place.user),
            "date" | "nproc" | "uname" | "arch" | "id" | "hostname" | "wc" => {
                Flow { text: Some("0".to_owned()), loose: true, ..Flow::default() }
            }
            "mktemp" => Flow { text: Some("/tmp/tmp.0".to_owned()), loose: true, ..Flow::default() },
            "seq" | "shuf" => Flow { text: Some("0".to_owned()), loose: true, ..carried },
            "which" | "type" => {
                let text = split.positional.first().filter(|_| known).map(|(name, _)| format!("/usr/bin/{name}"));
                Flow { text, ..carried }
            }
            "basename" => {
                let text = split.positional.first().filter(|_| known);
                Flow { text: text.map(|(p, _)| crate::path::base_name(p).to_owned()), loose, ..carried }
            }
            "dirname" => {
                let text = split.positional.first().filter(|_| known);
                let text = text.and_then(|(p, _)| p.trim_end_matches('/').rsplit_once('/').map(|(d, _)| d.to_owned()));
                Flow { text: text.map(|d| if d.is_empty() { "/".to_owned() } else { d }), loose, ..carried }
            }
            "realpath" | "readlink" => {
                let text = split.positional.first().filter(|_| known).map(|(p, _)| (*p).to_owned());
                Flow { text, loose, ..carried }
            }
            "cat" | "tee" | "pv" | "dos2unix" => {
                let single = split
                    .positional
                    .first()
                    .filter(|(p, _)| program == "cat" && split.positional.len() == 1 && *p != "-");
                if program == "tee" {
                    for (path, _) in &split.positional {
                        self.remember(&Arg::literal(*path), stdin.clone());
                    }
                }
                // Of several files only where they come from is kept; a single one that the text made has its text.
                let mut out = match single {
                    Some((path, _)) => self.stored(path).unwrap_or_default(),
                    None if program == "cat" && split.positional.len() > 1 => Flow::default(),
                    None => stdin.clone(),
                };
                out.merge(&carried);
                out
            }
            "base64" | "base32" | "b64encode" | "b64decode" | "openssl" | "xxd" | "hexdump" | "od" | "uudecode"
            | "gzip" | "gunzip" | "zcat" | "xz" | "bzip2" | "zstd" | "gpg" => {
                let mut out = carried;
                out.merge(stdin);
                let source = split
                    .positional
                    .first()
                    .filter(|_| matches!(program, "base64" | "base32" | "xxd"))
                    .and_then(|(p, _)| self.stored(p).and_then(|flow| flow.text))
                    .or_else(|| stdin.text.clone().filter(|_| !stdin.loose));
                let decodes = has('d') || has('D') || split.options.contains(&"--decode") || program == "b64decode";
                let text = match program {
                    "base64" | "b64decode" if decodes => source.as_deref().and_then(flow::base64),
                    "base32" if decodes => source.as_deref().and_then(flow::base32),
                    "base64" | "b64encode" => source.as_deref().map(flow::to_base64),
                    "xxd" if split.options.iter().any(|o| matches!(*o, "-p" | "-ps" | "-plain")) && !has('r') => {
                        source.as_deref().map(flow::to_hex)
                    }
                    "openssl"
                        if has('d') && split.positional.first().is_some_and(|(p, _)| *p == "base64")
                            || split.options.contains(&"-base64") && split.options.contains(&"-d") =>
                    {
                        source.as_deref().and_then(flow::base64)
                    }
                    "xxd" if has('r') => source.as_deref().and_then(flow::hex),
                    _ => None,
                };
                if text.is_some() && (decodes || has('r')) {
                    self.decoded_text();
                }
                out.decoded |= decodes || has('r') || matches!(program, "gunzip" | "zcat" | "uudecode");
                Flow { text, produced: true, ..out }
            }
            "tr" => {
                let mut out = stdin.clone();
                let sets: Vec<&str> = split.positional.iter().map(|(p, _)| *p).collect();
                out.text = match (stdin.text.as_deref(), sets.as_slice()) {
                    (Some(text), [from, to]) if split.options.is_empty() => flow::translate(text, from, to),
                    (Some(text), [drop]) if has('d') => {
                        flow::set(drop).map(|drop| text.chars().filter(|c| !drop.contains(c)).collect())
                    }
                    _ => None,
                };
                out.decoded |= sets.len() == 2 && sets.iter().any(|s| s.contains("N-Z") || s.contains("n-z"));
                out
            }
            "rev" => {
                let mut out = stdin.clone();
                out.text = stdin.text.as_ref().map(|text| {
                    text.lines().map(|l| l.chars().rev().collect::<String>()).collect::<Vec<_>>().join("\n")
                });
                out.decoded = true;
                out
            }
            // Filters that only leave lines out: an example of the shape stays one.
            "grep" | "head" | "tail" | "sort" | "uniq" | "egrep" | "fgrep" if stdin.loose && !carried.file => {
                stdin.clone()
            }
            "ls" | "fd" | "rg" | "git" | "locate" | "fdfind" => {
                let text = known.then(|| "./entry*".to_owned());
                Flow { text: text.filter(|_| self.lists(program, split)), loose: true, ..carried }
            }
            _ => {
                carried.merge(stdin);
                carried.produced = true;
                carried
            }
        }
    }

    /// The content of a file that the text itself made.
    fn stored(&self, path: &str) -> Option<Flow> {
        self.files.get(&self.resolve(&Arg::literal(path)).0).cloned()
    }

    /// Whether a command prints paths below the working folder.
    fn lists(&self, program: &str, split: &Split<'_>) -> bool {
        let inside = split.positional.iter().all(|(p, _)| !p.starts_with(['/', '~']) && !p.contains(".."));
        match program {
            "ls" => inside,
            "git" => split.positional.first().is_some_and(|(p, _)| matches!(*p, "ls-files" | "diff" | "status")),
            "rg" => split.options.iter().any(|o| matches!(*o, "-l" | "--files" | "--files-with-matches")) && inside,
            "fd" | "fdfind" => inside,
            _ => false,
        }
    }
}

/// `printf` with `%s`, `%b`, `%d` and escapes, the format reused until the arguments are used up.
fn printf(format: &str, args: &[Arg]) -> String {
    let format = ansi_c(format);
    let mut out = String::new();
    let mut args = args.iter().peekable();
    loop {
        let before = args.len();
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let mut kind = chars.next();
            while kind.is_some_and(|k| k.is_ascii_digit() || matches!(k, '-' | '.' | '+' | ' ' | '#')) {
                kind = chars.next();
            }
            match kind {
                Some('%') => out.push('%'),
                Some('b') => out.push_str(&args.next().map(|a| ansi_c(&a.text)).unwrap_or_default()),
                Some(_) => out.push_str(args.next().map_or("", |a| a.text.as_str())),
                None => {}
            }
        }
        if args.peek().is_none() || args.len() == before || out.len() > bounds::KNOWN_BYTES {
            return out;
        }
    }
}
