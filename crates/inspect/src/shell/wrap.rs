//! Commands that run other commands: wrappers, shells, interpreters, and tools with a command inside.

use std::collections::BTreeSet;

use creel_model::{CommandClass, Severity};

use super::flow::Flow;
use super::walk::Walker;
use super::words::{Arg, Value};
use crate::knowledge::{Entry, Role, Split, Wrap};
use crate::path::base_name;

impl Walker<'_> {
    /// Handles what the table alone cannot; `None` leaves the command to the table.
    #[expect(clippy::too_many_arguments, reason = "one call, all of them facts of one command")]
    pub(crate) fn special(
        &mut self,
        entry: &'static Entry,
        program: &str,
        args: &[Arg],
        split: &Split<'_>,
        stdin: &Flow,
        piped: bool,
        classes: &BTreeSet<CommandClass>,
    ) -> Option<Flow> {
        let rest = args.get(1..).unwrap_or_default();
        match entry.wrap {
            Some(Wrap::Prefix) => return Some(self.prefix(entry, program, rest, stdin, piped)),
            Some(Wrap::Shell) => return Some(self.shell(entry, program, rest, split, stdin, piped, classes)),
            Some(Wrap::Text) => {
                let from = split.positional.get(entry.skip).map_or(rest.len(), |(_, index)| *index);
                return Some(self.wrapped(entry, program, |walker| {
                    walker.join_and_run(rest.get(from..).unwrap_or_default(), stdin)
                }));
            }
            None => {}
        }
        if let Some(language) = entry.handler.strip_prefix("code:") {
            return Some(self.interpreter(language, program, rest, split, stdin, piped, classes));
        }
        match entry.handler.as_str() {
            "cd" => self.change_folder(program, rest, split),
            "eval" => return Some(self.join_and_run(rest, stdin)),
            "source" => return Some(self.source(rest, stdin)),
            "trap" => {
                if let Some(action) = rest.first().filter(|a| !a.text.is_empty() && a.text != "-") {
                    self.join_and_run(std::slice::from_ref(action), stdin);
                }
            }
            "alias" => self.alias(rest),
            "read" => {
                for (name, _) in &split.positional {
                    self.set((*name).to_owned(), Value { flow: Some(Box::new(stdin.clone())), ..Value::default() });
                }
            }
            "xargs" => return Some(self.xargs(entry, rest, stdin)),
            "find" => return Some(self.find(rest)),
            "parallel" => return Some(self.parallel(rest, split, stdin)),
            "ssh" => return Some(self.ssh(entry, program, rest, split, stdin)),
            "inside" => return self.inside(program, rest, split, stdin, piped),
            "session" => {
                let starts = ["new*", "split*", "send*", "respawn*", "run*", "if*", "pipe*", "set-hook", "popup"];
                if split.positional.first().is_some_and(|(p, _)| starts.iter().any(|s| crate::path::glob(s, p))) {
                    let inner: Vec<Arg> =
                        split.positional.iter().skip(1).filter_map(|(_, index)| rest.get(*index).cloned()).collect();
                    return Some(self.join_and_run(&inner, stdin));
                }
            }
            "stdin-text" if piped => return Some(self.run_text(stdin, &Flow::default())),
            "sql" => self.sql(rest, split, stdin, piped),
            "powershell" => self.powershell(rest, split, stdin),
            "git" => {
                for &(name, value, _, _) in &split.values {
                    let runs = [
                        "core.pager=",
                        "core.sshCommand=",
                        "core.editor=",
                        "alias.",
                        "diff.external=",
                        "core.fsmonitor=",
                        "core.hooksPath=",
                        "sequence.editor=",
                        "credential.helper=",
                    ];
                    if matches!(name, "-c" | "--config")
                        && runs.iter().any(|r| value.to_lowercase().starts_with(&r.to_lowercase()))
                    {
                        let text = value.split_once('=').map_or("", |(_, v)| v).trim_start_matches('!').to_owned();
                        self.nested(&text, &Flow::default());
                    }
                }
                return self.inside_git(rest, split, stdin);
            }
            "archive" => return Some(self.archive(program, rest, split, stdin)),
            "tar" => {
                for arg in rest {
                    if let Some(action) = arg.text.strip_prefix("--checkpoint-action=exec=").or_else(|| {
                        ["--to-command=", "--use-compress-program=", "--rsh-command="]
                            .iter()
                            .find_map(|p| arg.text.strip_prefix(p))
                    }) {
                        let action = action.to_owned();
                        self.nested(&action, &Flow::default());
                    }
                }
                return Some(self.archive(program, rest, split, stdin));
            }
            _ => {}
        }
        None
    }

    /// `git submodule foreach COMMAND` and `git bisect run COMMAND`; `None` for anything else.
    fn inside_git(&mut self, rest: &[Arg], split: &Split<'_>, stdin: &Flow) -> Option<Flow> {
        let at = split.positional.windows(2).find_map(|pair| match pair {
            [("submodule", _), ("foreach", at)] | [("bisect", _), ("run", at)] => Some(*at),
            _ => None,
        })?;
        let command = rest.get(at + 1..).unwrap_or_default();
        let options = command.iter().take_while(|arg| arg.text.starts_with('-') && !arg.unknown).count();
        let command = command.get(options..).filter(|command| !command.is_empty())?;
        self.via.push("git".to_owned());
        // One argument is shell text; more are a command with its arguments.
        let flow = match command {
            [text] => self.join_and_run(std::slice::from_ref(text), stdin),
            command => self.run(command, stdin, false),
        };
        self.via.pop();
        Some(flow)
    }

    /// Runs something inside a wrapper, with its rights and place.
    pub(crate) fn wrapped(&mut self, entry: &Entry, program: &str, run: impl FnOnce(&mut Self) -> Flow) -> Flow {
        let (elevated, remote) = (self.elevated, self.remote);
        self.elevated |= entry.elevated;
        self.remote |= entry.remote;
        self.via.push(program.to_owned());
        let flow = run(self);
        self.via.pop();
        (self.elevated, self.remote) = (elevated, remote);
        flow
    }

    /// `sudo`, `env`, `timeout` …: options, assignments, some arguments, then a command.
    fn prefix(&mut self, entry: &'static Entry, program: &str, rest: &[Arg], stdin: &Flow, piped: bool) -> Flow {
        let mut index = 0;
        let mut skip = entry.skip;
        let mut texts: Vec<Arg> = Vec::new();
        while let Some(arg) = rest.get(index) {
            let text = arg.text.as_str();
            if text == "--" && !arg.unknown {
                index += 1;
                if skip == 0 {
                    break;
                }
                continue;
            }
            if text.starts_with('-') && text.len() > 1 && !arg.unknown {
                if program == "command" && matches!(text, "-v" | "-V") {
                    let found = rest.get(index + 1).map(|a| format!("/usr/bin/{}", a.text));
                    return Flow { text: found, ..Flow::default() };
                }
                if matches!(program, "sudo" | "doas") && matches!(text, "-l" | "-v" | "-K" | "-k" | "--list" | "-e") {
                    return Flow::default();
                }
                let one = [text];
                let split = entry.split(&one);
                let with_next = [text, rest.get(index + 1).map_or("", |a| a.text.as_str())];
                let pair = entry.split(&with_next);
                if let Some(&(_, value, role, at)) = split.values.first().or(pair.values.first()) {
                    if role == Role::Text {
                        texts.push(Arg { text: value.to_owned(), ..arg.clone() });
                    }
                    index += at;
                }
                index += 1;
                continue;
            }
            if let Some((name, value)) = text.split_once('=')
                && matches!(program, "env" | "sudo" | "doas")
                && !name.is_empty()
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            {
                let value = Value { text: (!arg.unknown).then(|| value.to_owned()), ..Value::default() };
                let name = name.to_owned();
                self.assigned(&name, &value);
                index += 1;
                continue;
            }
            if skip == 0 {
                break;
            }
            skip -= 1;
            index += 1;
        }
        let inner = rest.get(index..).unwrap_or_default();
        self.wrapped(entry, program, |walker| {
            let mut out = Flow::default();
            for text in &texts {
                let mut all = vec![text.clone()];
                all.extend_from_slice(inner);
                out = walker.join_and_run(&all, stdin);
            }
            if !texts.is_empty() || inner.is_empty() {
                // Alone, it prints all variables, and with them whatever credentials they hold.
                out.secret |= program == "env" && texts.is_empty();
                return out;
            }
            walker.run(inner, stdin, piped)
        })
    }

    /// Joins arguments to a text and runs it, as `eval` and `ssh` do.
    pub(crate) fn join_and_run(&mut self, args: &[Arg], stdin: &Flow) -> Flow {
        if args.is_empty() {
            return Flow::default();
        }
        let text = args.iter().map(|a| a.text.as_str()).collect::<Vec<_>>().join(" ");
        let mut from = Flow::default();
        for arg in args {
            if let Some(flow) = &arg.flow {
                from.merge(flow);
            }
        }
        let unknown = args.iter().any(|a| a.unknown);
        self.run_text(&Flow { loose: unknown, ..from.with_text(Some(text)) }, stdin)
    }

    /// Runs a stream as shell text: known text is walked, anything else is opaque. `loose` text has unknown holes.
    pub(crate) fn run_text(&mut self, flow: &Flow, stdin: &Flow) -> Flow {
        if flow.downloaded {
            self.downloaded_and_run();
        }
        match &flow.text {
            Some(text) => {
                if flow.decoded {
                    self.finding(
                        "command.obfuscated",
                        CommandClass::Obfuscated,
                        Some(Severity::High),
                        "text out of a decoder is run",
                    );
                }
                if text.trim().is_empty() {
                    return Flow::known("");
                }
                let out = self.nested(text, stdin);
                // Holes such as `$(curl …)` in command position come out as unknown words by themselves; as a whole
                // text they are what runs.
                if flow.loose && (flow.downloaded || text.trim().starts_with("$(") || text.trim().starts_with('`')) {
                    self.opaque("", "text that is not known is run", flow.downloaded || flow.decoded);
                }
                out
            }
            None => {
                self.opaque("", "text that is not known is run", flow.downloaded || flow.decoded);
                Flow { produced: true, ..Flow::default() }
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one call, all of them facts of one command")]
    fn shell(
        &mut self,
        entry: &'static Entry,
        program: &str,
        rest: &[Arg],
        split: &Split<'_>,
        stdin: &Flow,
        piped: bool,
        classes: &BTreeSet<CommandClass>,
    ) -> Flow {
        let code_option = split
            .options
            .iter()
            .any(|o| o.starts_with('-') && !o.starts_with("--") && o.contains('c') && *o != "-rcfile");
        self.execute(program, rest, classes.clone(), false);
        if code_option || split.options.contains(&"--command") {
            // The text is the first positional, or the value where the table took it for one (`su -c`).
            let value = split.values.iter().find(|(_, _, role, _)| *role == Role::Text);
            let text = value.map(|&(_, v, _, i)| (v, i)).or_else(|| split.positional.first().copied());
            let Some((text, index)) = text else { return Flow::default() };
            let Some(arg) = rest.get(index) else { return Flow::default() };
            let arg = Arg { text: text.to_owned(), ..arg.clone() };
            let saved = self.positional.replace(rest.get(index + 2..).unwrap_or_default().to_vec());
            let env = self.env.clone();
            let flow = self.wrapped(entry, program, |walker| {
                let from = arg.flow.as_deref().cloned().unwrap_or_default();
                if arg.unknown && arg.text.starts_with('$') && !arg.text.contains(char::is_whitespace) {
                    return walker.run_text(&from.with_text(None), stdin);
                }
                walker.run_text(&Flow { loose: arg.unknown, ..from.with_text(Some(arg.text.clone())) }, stdin)
            });
            self.env = env;
            self.positional = saved;
            return flow;
        }
        let from_stdin = split.options.contains(&"-s");
        let script = split.positional.get(entry.skip).filter(|_| !from_stdin);
        match script.and_then(|(text, index)| rest.get(*index).map(|a| Arg { text: (*text).to_owned(), ..a.clone() })) {
            Some(arg) if arg.text != "-" && !is_standard_input(&arg.text) => {
                self.wrapped(entry, program, |walker| walker.run_file(&arg, rest, stdin))
            }
            _ if entry.elevated => Flow::default(),
            _ if piped || stdin != &Flow::default() => {
                self.wrapped(entry, program, |walker| walker.run_text(stdin, &Flow::default()))
            }
            _ => Flow::default(),
        }
    }

    /// Runs a file as shell text.
    fn run_file(&mut self, arg: &Arg, rest: &[Arg], stdin: &Flow) -> Flow {
        if arg.text.starts_with("/dev/fd/")
            && let Some(flow) = &arg.flow
        {
            return self.run_text(&flow.clone(), stdin);
        }
        if arg.unknown {
            self.opaque(&arg.text, "the script is not known", false);
            return Flow { produced: true, ..Flow::default() };
        }
        self.tool(&arg.text);
        let (path, _) = self.resolve(arg);
        let argv: Vec<Arg> = rest.iter().filter(|a| a.text != arg.text).cloned().collect();
        self.script_effect(base_name(&arg.text), &argv, &path);
        match self.files.get(&path).cloned() {
            Some(flow) => self.run_text(&flow, stdin),
            None => Flow { produced: true, ..Flow::default() },
        }
    }

    fn source(&mut self, rest: &[Arg], stdin: &Flow) -> Flow {
        match rest.first() {
            Some(arg) if is_standard_input(&arg.text) => self.run_text(stdin, &Flow::default()),
            Some(arg) => self.run_file(arg, rest, stdin),
            None => Flow::default(),
        }
    }

    fn change_folder(&mut self, program: &str, rest: &[Arg], split: &Split<'_>) {
        if self.remote {
            return;
        }
        if program == "popd" {
            self.env.cwd = None;
            return;
        }
        let target = split.positional.first().and_then(|(_, index)| rest.get(*index)).cloned();
        self.env.cwd = match target {
            None if rest.iter().any(|a| a.text == "-") => None,
            None => Some(self.place.home).filter(|home| home.starts_with('/')).map(Into::into),
            Some(arg) if arg.text == "-" || !arg.known() || arg.text.starts_with('~') => None,
            Some(arg) => crate::path::normalise(&arg.text, self.env.cwd.as_deref().unwrap_or("")).map(Into::into),
        };
    }

    fn alias(&mut self, rest: &[Arg]) {
        for arg in rest {
            let Some((name, value)) = arg.text.split_once('=') else { continue };
            let name = name.to_owned();
            // `alias ls='ls --color'` only adds options.
            let same = value.split_whitespace().next() == Some(name.as_str());
            let flow = Flow::known(value.to_owned());
            if crate::knowledge::lookup(&name).is_some() && !same {
                self.opaque(&name, "a known command gets another meaning", true);
            }
            self.run_text(&flow, &Flow::default());
        }
    }
}

/// Whether a path is standard input.
pub(crate) fn is_standard_input(path: &str) -> bool {
    matches!(path, "-" | "/dev/stdin" | "/proc/self/fd/0" | "/dev/fd/0")
}
