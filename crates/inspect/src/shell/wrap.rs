//! Commands that run other commands: wrappers, shells, interpreters, and tools with a command inside.

use std::collections::BTreeSet;

use creel_model::{CommandClass, Severity, Verb};

use super::flow::Flow;
use super::walk::Walker;
use super::words::{Arg, Value};
use crate::knowledge::{Entry, Role, Split, Wrap};
use crate::path::base_name;
use crate::{code, sql, windows};

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
            }
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
            }
            _ => {}
        }
        None
    }

    /// Runs something inside a wrapper, with its rights and place.
    fn wrapped(&mut self, entry: &Entry, program: &str, run: impl FnOnce(&mut Self) -> Flow) -> Flow {
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
                return out;
            }
            walker.run(inner, stdin, piped)
        })
    }

    /// Joins arguments to a text and runs it, as `eval` and `ssh` do.
    fn join_and_run(&mut self, args: &[Arg], stdin: &Flow) -> Flow {
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

    fn xargs(&mut self, entry: &'static Entry, rest: &[Arg], stdin: &Flow) -> Flow {
        let texts: Vec<&str> = rest.iter().map(|a| a.text.as_str()).collect();
        let mut from = 0;
        let mut replace: Option<String> = None;
        while let Some(&text) = texts.get(from) {
            if !text.starts_with('-') || text.len() < 2 {
                break;
            }
            let pair = entry.split(texts.get(from..(from + 2).min(texts.len())).unwrap_or_default());
            match pair.values.first() {
                Some(&(name, value, _, at)) => {
                    if name.ends_with('I') || name == "--replace" {
                        replace = Some(value.to_owned());
                    }
                    from += at;
                }
                None if text == "-i" => replace = Some("{}".to_owned()),
                None => {}
            }
            from += 1;
        }
        let mut command: Vec<Arg> = rest.get(from..).unwrap_or_default().to_vec();
        if command.is_empty() {
            command.push(Arg::literal("echo"));
        }
        let fed: Vec<Arg> = match &stdin.text {
            Some(text) => text
                .split_whitespace()
                .take(64)
                .map(|word| Arg {
                    loose: stdin.loose,
                    flow: Some(Box::new(stdin.with_text(None))),
                    ..Arg::literal(word)
                })
                .collect(),
            None => vec![Arg { unknown: true, flow: Some(Box::new(stdin.clone())), ..Arg::literal("…") }],
        };
        let command = match &replace {
            Some(mark) => fill(&command, mark, &fed),
            None => {
                command.extend(fed);
                command
            }
        };
        self.via.push("xargs".to_owned());
        let flow = self.run(&command, stdin, false);
        self.via.pop();
        flow
    }

    fn find(&mut self, rest: &[Arg]) -> Flow {
        let roots: Vec<Arg> = rest
            .iter()
            .skip_while(|a| matches!(a.text.as_str(), "-L" | "-P" | "-H"))
            .take_while(|a| a.unknown || !a.text.starts_with(['-', '(', '!']))
            .cloned()
            .collect();
        let roots = if roots.is_empty() { vec![Arg::literal(".")] } else { roots };
        let name = rest.windows(2).find_map(|pair| match pair {
            [option, value] if matches!(option.text.as_str(), "-name" | "-iname") => Some(value.text.clone()),
            _ => None,
        });
        let narrowed = rest.iter().any(|a| {
            matches!(
                a.text.as_str(),
                "-name" | "-iname" | "-path" | "-regex" | "-mtime" | "-mmin" | "-empty" | "-newer" | "-size"
            )
        });
        let found: Vec<Arg> = roots
            .iter()
            .map(|root| {
                let folder = root.text.trim_end_matches('/');
                let text = match &name {
                    Some(name) => format!("{folder}/*/{name}"),
                    None if narrowed => format!("{folder}/*/entry"),
                    None => format!("{folder}/*"),
                };
                Arg { text, loose: true, ..root.clone() }
            })
            .collect();
        let mut index = 0;
        while let Some(arg) = rest.get(index) {
            match arg.text.as_str() {
                "-delete" => {
                    for (root, found) in roots.iter().zip(&found) {
                        self.path_effect(Verb::Delete, if narrowed { found } else { root }, true);
                    }
                }
                "-fprintf" | "-fprint" | "-fls" | "-fprint0" => {
                    if let Some(file) = rest.get(index + 1) {
                        self.path_effect(Verb::Write, file, false);
                    }
                }
                "-exec" | "-execdir" | "-ok" | "-okdir" => {
                    let from = index + 1;
                    let length = rest
                        .get(from..)
                        .map_or(0, |r| r.iter().take_while(|a| !matches!(a.text.as_str(), ";" | "+")).count());
                    let command = rest.get(from..from + length).unwrap_or_default();
                    let command = fill(command, "{}", &found);
                    self.via.push("find".to_owned());
                    self.run(&command, &Flow::default(), false);
                    self.via.pop();
                    index = from + length;
                }
                _ => {}
            }
            index += 1;
        }
        let text = found
            .iter()
            .all(|f| !f.unknown)
            .then(|| found.iter().map(|f| f.text.as_str()).collect::<Vec<_>>().join("\n"));
        Flow { text, loose: true, ..Flow::default() }
    }

    fn parallel(&mut self, rest: &[Arg], split: &Split<'_>, stdin: &Flow) -> Flow {
        let from = split.positional.first().map_or(rest.len(), |(_, index)| *index);
        let command: Vec<Arg> =
            rest.get(from..).unwrap_or_default().iter().take_while(|a| !a.text.starts_with(":::")).cloned().collect();
        let fed: Vec<Arg> = rest.iter().skip_while(|a| !a.text.starts_with(":::")).skip(1).take(16).cloned().collect();
        let fed = if fed.is_empty() {
            vec![Arg {
                unknown: stdin.text.is_none(),
                loose: true,
                ..Arg::literal(stdin.text.clone().unwrap_or_else(|| "…".into()))
            }]
        } else {
            fed
        };
        self.via.push("parallel".to_owned());
        let flow = if command.is_empty() {
            self.join_and_run(&fed, &Flow::default())
        } else {
            let marked = command.iter().any(|a| a.text.contains("{}"));
            let mut all = fill(&command, "{}", &fed);
            if !marked {
                all.extend(fed);
            }
            self.join_and_run(&all, stdin)
        };
        self.via.pop();
        flow
    }

    fn ssh(&mut self, entry: &'static Entry, program: &str, rest: &[Arg], split: &Split<'_>, stdin: &Flow) -> Flow {
        for &(_, value, role, index) in &split.values {
            if role == Role::Text {
                let command = value.split_once('=').filter(|(name, _)| {
                    matches!(name.to_ascii_lowercase().as_str(), "proxycommand" | "localcommand" | "knownhostscommand")
                });
                if let Some((_, command)) = command {
                    let command = command.to_owned();
                    self.nested(&command, &Flow::default());
                }
            } else if role == Role::Read
                && let Some(arg) = rest.get(index)
            {
                let arg = Arg { text: value.to_owned(), ..arg.clone() };
                self.path_effect(Verb::Read, &arg, false);
            }
        }
        let Some(&(host, index)) = split.positional.first() else { return Flow::default() };
        let Some(arg) = rest.get(index) else { return Flow::default() };
        let host = Arg { text: host.to_owned(), ..arg.clone() };
        let mut content = BTreeSet::new();
        if stdin.secret {
            content.insert("secret".to_owned());
            self.finding(
                "command.exfiltration",
                CommandClass::Exfiltration,
                Some(Severity::Critical),
                "credentials are sent away",
            );
        } else if stdin.file {
            content.insert("local-file".to_owned());
            self.finding(
                "command.exfiltration",
                CommandClass::Exfiltration,
                Some(Severity::Medium),
                "local content is sent away",
            );
        }
        let verb = if content.is_empty() { Verb::Connect } else { Verb::Send };
        self.host_effect(verb, &host, content);
        // ssh stops reading options at the host; the rest is the command.
        let command = rest.get(index + 1..).unwrap_or_default();
        if command.is_empty() {
            return Flow { downloaded: true, produced: true, ..Flow::default() };
        }
        let mut flow = self.wrapped(entry, program, |walker| walker.join_and_run(command, &stdin.with_text(None)));
        flow.downloaded = true;
        flow
    }

    /// `docker exec NAME COMMAND`, `kubectl exec NAME -- COMMAND`, `docker run IMAGE COMMAND`.
    fn inside(&mut self, program: &str, rest: &[Arg], split: &Split<'_>, stdin: &Flow, piped: bool) -> Option<Flow> {
        let verb = split
            .positional
            .iter()
            .position(|(p, _)| matches!(*p, "exec" | "run" | "debug" | "enter-chroot" | "execute-command"))?;
        let from = match rest.iter().position(|a| a.text == "--" && !a.unknown) {
            Some(dashes) => dashes + 1,
            None => split.positional.get(verb + 2)?.1,
        };
        let command = rest.get(from..).filter(|command| !command.is_empty())?;
        let remote = std::mem::replace(&mut self.remote, true);
        self.via.push(program.to_owned());
        let flow = self.run(command, stdin, piped);
        self.via.pop();
        self.remote = remote;
        Some(flow)
    }

    #[expect(clippy::too_many_arguments, reason = "one call, all of them facts of one command")]
    fn interpreter(
        &mut self,
        language: &str,
        program: &str,
        rest: &[Arg],
        split: &Split<'_>,
        stdin: &Flow,
        piped: bool,
        classes: &BTreeSet<CommandClass>,
    ) -> Flow {
        let unknown = Flow { produced: true, ..Flow::default() };
        let mut texts: Vec<Arg> = Vec::new();
        for &(_, value, role, index) in &split.values {
            if role == Role::Text
                && let Some(arg) = rest.get(index)
            {
                texts.push(Arg { text: value.to_owned(), ..arg.clone() });
            }
        }
        let module = split.values.iter().any(|(name, ..)| name.ends_with('m') && program.starts_with("py"));
        let filter = matches!(language, "awk" | "sed" | "jq" | "editor");
        if filter
            && texts.is_empty()
            && language != "editor"
            && !split.values.iter().any(|(n, ..)| *n == "-f" || *n == "--file")
            && let Some(&(text, index)) = split.positional.first()
            && let Some(arg) = rest.get(index)
        {
            texts.push(Arg { text: text.to_owned(), ..arg.clone() });
        }
        if !texts.is_empty() || filter {
            let mut opaque = false;
            for text in &texts {
                if text.flow.as_ref().is_some_and(|f| f.downloaded) {
                    self.downloaded_and_run();
                }
                opaque |= text.unknown && !filter;
                opaque |= self.code(&text.text, language);
            }
            self.execute(program, rest, classes.clone(), opaque);
            self.out.opaque |= opaque;
            if filter {
                let skip = usize::from(
                    texts.len() == 1
                        && language != "editor"
                        && split.values.iter().all(|(_, _, r, _)| *r != Role::Text),
                );
                let in_place = language == "sed"
                    && split.options.iter().any(|o| o.starts_with("-i") || o.starts_with("--in-place"));
                let mut flow = stdin.with_text(None);
                for &(text, index) in split.positional.iter().skip(skip) {
                    let Some(arg) = rest.get(index) else { continue };
                    let arg = Arg { text: text.to_owned(), ..arg.clone() };
                    if in_place {
                        self.path_effect(Verb::Write, &arg, false);
                    }
                    if language == "editor" {
                        self.path_effect(Verb::Write, &arg, false);
                    } else {
                        let read = self.read_file(&arg);
                        flow.merge(&read);
                    }
                }
                flow.produced = true;
                return flow;
            }
            let mut flow = unknown;
            for text in &texts {
                flow.secret |= Self::holds_secret(text);
            }
            return flow;
        }
        match split.positional.first() {
            _ if module => {
                self.execute(program, rest, classes.clone(), false);
                unknown
            }
            Some(&(script, index)) if script != "-" && !is_standard_input(script) => {
                let Some(arg) = rest.get(index) else { return unknown };
                if script.starts_with("/dev/fd/")
                    && let Some(flow) = arg.flow.as_deref().cloned()
                {
                    return self.piped_code(language, program, rest, &flow, classes);
                }
                if arg.unknown {
                    self.opaque(program, "the script is not known", false);
                }
                if let Some(tool) = crate::knowledge::lookup(base_name(script)) {
                    for &class in &tool.classes {
                        self.class(class, &tool.why);
                    }
                }
                let (path, _) = self.resolve(&Arg { text: script.to_owned(), ..arg.clone() });
                let others: Vec<Arg> = rest.get(index + 1..).unwrap_or_default().to_vec();
                self.script_effect(program, &others, &path);
                if let Some(flow) = self.files.get(&path).cloned() {
                    self.piped_code(language, program, &[], &flow, classes);
                }
                unknown
            }
            _ if piped || stdin.text.is_some() => self.piped_code(language, program, rest, stdin, classes),
            _ => {
                self.execute(program, rest, classes.clone(), false);
                unknown
            }
        }
    }

    /// Code on an interpreter's standard input.
    fn piped_code(
        &mut self,
        language: &str,
        program: &str,
        rest: &[Arg],
        flow: &Flow,
        classes: &BTreeSet<CommandClass>,
    ) -> Flow {
        if flow.downloaded {
            self.downloaded_and_run();
        }
        let opaque = match &flow.text {
            Some(text) => {
                if flow.decoded {
                    self.class(CommandClass::Obfuscated, "text out of a decoder is run");
                }
                let text = text.clone();
                self.code(&text, language)
            }
            None => true,
        };
        if opaque {
            self.opaque(program, "code that is not understood is run", flow.downloaded || flow.decoded);
        }
        self.execute(program, rest, classes.clone(), opaque);
        Flow { produced: true, ..Flow::default() }
    }

    /// Looks at code; gives whether something in it is not understood.
    fn code(&mut self, text: &str, language: &str) -> bool {
        let report = code::look(text, language);
        for (class, why) in &report.classes {
            self.class(*class, why);
        }
        for (code, why) in &report.findings {
            self.finding(code, CommandClass::Exfiltration, None, why);
        }
        for command in &report.commands {
            self.via.push(language.to_owned());
            self.nested(command, &Flow::default());
            self.via.pop();
        }
        let mut secret = false;
        for (verb, path, recursive) in &report.paths {
            let arg = Arg::literal(path.clone());
            secret |= self.path_effect(*verb, &arg, *recursive) && *verb == Verb::Read;
        }
        for (verb, host) in &report.hosts {
            let content =
                if secret && *verb == Verb::Send { BTreeSet::from(["secret".to_owned()]) } else { BTreeSet::new() };
            self.host_effect(*verb, &Arg { unknown: host.is_empty(), ..Arg::literal(host.clone()) }, content);
        }
        if secret && report.hosts.iter().any(|(verb, _)| *verb == Verb::Send) {
            self.finding(
                "command.exfiltration",
                CommandClass::Exfiltration,
                Some(Severity::Critical),
                "credentials are sent away",
            );
        }
        report.opaque
    }

    fn sql(&mut self, rest: &[Arg], split: &Split<'_>, stdin: &Flow, piped: bool) {
        let mut texts: Vec<String> = split
            .values
            .iter()
            .filter(|(_, _, role, _)| *role == Role::Text)
            .map(|(_, v, _, _)| (*v).to_owned())
            .collect();
        texts.extend(
            rest.iter()
                .filter(|a| a.text.contains(char::is_whitespace) || a.text.contains('('))
                .map(|a| a.text.clone()),
        );
        if piped || stdin.text.is_some() {
            texts.extend(stdin.text.clone());
        }
        for text in texts {
            let report = sql::look(&text);
            for (class, why) in report.classes {
                self.class(class, why);
            }
            for command in report.commands {
                self.nested(&command, &Flow::default());
            }
            for (verb, path) in report.paths {
                self.path_effect(verb, &Arg::literal(path), false);
            }
        }
    }

    fn powershell(&mut self, rest: &[Arg], split: &Split<'_>, stdin: &Flow) {
        let mut text = rest.iter().map(|a| a.text.as_str()).collect::<Vec<_>>().join(" ");
        for pair in rest.windows(2) {
            if let [option, value] = pair
                && windows::is_encoded_option(&option.text)
                && let Some(decoded) = super::base64_utf16(&value.text)
            {
                text.push('\n');
                text.push_str(&decoded);
                self.finding(
                    "command.obfuscated",
                    CommandClass::Obfuscated,
                    Some(Severity::High),
                    "an encoded command is run",
                );
            }
        }
        if let Some(more) = &stdin.text {
            text.push('\n');
            text.push_str(more);
        }
        let _ = split;
        for (class, severity, why) in windows::suspicions(&text) {
            self.finding(&format!("command.{class}"), class, severity, &why);
        }
        self.out.opaque = true;
    }
}

fn is_standard_input(path: &str) -> bool {
    matches!(path, "-" | "/dev/stdin" | "/proc/self/fd/0" | "/dev/fd/0")
}

/// Puts `fed` in the place of `mark` in every argument that holds it.
fn fill(command: &[Arg], mark: &str, fed: &[Arg]) -> Vec<Arg> {
    let mut out = Vec::new();
    for arg in command {
        if mark.is_empty() || !arg.text.contains(mark) {
            out.push(arg.clone());
        } else {
            for value in fed {
                out.push(Arg {
                    text: arg.text.replace(mark, &value.text),
                    unknown: arg.unknown || value.unknown,
                    loose: arg.loose || value.loose,
                    disguised: false,
                    flow: value.flow.clone().or_else(|| arg.flow.clone()),
                });
            }
        }
    }
    out
}
