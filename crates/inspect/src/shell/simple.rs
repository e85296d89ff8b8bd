//! One simple command: assignments, redirections, arguments.

use brush_parser::ast;
use creel_model::{CommandClass, Object, Verb};

use super::effects::{Manner, is_stream};
use super::flow::Flow;
use super::walk::{Redirected, Walker};
use super::words::{Arg, Value};
use crate::knowledge;

/// Variables whose value a program will run.
const RUNS: &[&str] = &[
    "PAGER",
    "GIT_PAGER",
    "EDITOR",
    "VISUAL",
    "GIT_EDITOR",
    "GIT_SSH_COMMAND",
    "GIT_SSH",
    "GIT_ASKPASS",
    "SSH_ASKPASS",
    "GIT_EXTERNAL_DIFF",
    "PROMPT_COMMAND",
    "MANPAGER",
    "BROWSER",
    "GIT_SEQUENCE_EDITOR",
    "RSYNC_RSH",
    "LESSOPEN",
    "SUDO_ASKPASS",
    "GIT_PROXY_COMMAND",
];
/// Variables that change which code other programs load.
const LOADS: &[&str] = &[
    "LD_PRELOAD",
    "LD_LIBRARY_PATH",
    "LD_AUDIT",
    "DYLD_INSERT_LIBRARIES",
    "DYLD_LIBRARY_PATH",
    "BASH_ENV",
    "ENV",
    "PYTHONSTARTUP",
    "PYTHONPATH",
    "PERL5OPT",
    "PERL5LIB",
    "NODE_OPTIONS",
    "RUBYOPT",
    "PATH",
    "PYTHONHOME",
    "JAVA_TOOL_OPTIONS",
    "ZDOTDIR",
];
/// Variables that send the traffic of other programs elsewhere.
const PROXIES: &[&str] =
    &["http_proxy", "https_proxy", "all_proxy", "ftp_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "FTP_PROXY"];
/// Variables whose change stops a record.
const HISTORY: &[&str] = &["HISTFILE", "HISTSIZE", "HISTFILESIZE", "HISTCONTROL", "HISTIGNORE"];

impl Walker<'_> {
    pub(crate) fn simple(&mut self, simple: &ast::SimpleCommand, stdin: &Flow, piped: bool) -> Flow {
        let mut redirected = Redirected::default();
        let mut args: Vec<Arg> = Vec::new();
        let mut assignments = Vec::new();
        for item in simple.prefix.iter().flat_map(|prefix| &prefix.0) {
            match item {
                ast::CommandPrefixOrSuffixItem::AssignmentWord(assignment, _) => {
                    assignments.push(self.assignment(assignment));
                }
                item => self.item(item, &mut args, &mut redirected),
            }
        }
        if let Some(word) = &simple.word_or_name {
            args.extend(self.expand(&word.value));
        }
        let declares = matches!(
            args.first().map(|a| a.text.as_str()),
            Some("export" | "declare" | "local" | "typeset" | "readonly" | "alias")
        );
        for item in simple.suffix.iter().flat_map(|suffix| &suffix.0) {
            match item {
                ast::CommandPrefixOrSuffixItem::AssignmentWord(assignment, word) => {
                    if declares {
                        assignments.push(self.assignment(assignment));
                    }
                    if !declares || args.first().is_some_and(|a| a.text == "alias") {
                        let arg = self.expand_one(&word.value);
                        args.push(arg);
                    }
                }
                item => self.item(item, &mut args, &mut redirected),
            }
        }
        let stdin = redirected.stdin.clone().unwrap_or_else(|| stdin.clone());
        let bare = args.is_empty() || (declares && args.first().is_some_and(|a| a.text != "alias"));
        for (name, value) in assignments {
            self.assigned(&name, &value);
            if bare {
                self.set(name, value);
            }
        }
        let piped = piped || redirected.stdin.is_some();
        let flow = if args.is_empty() {
            if simple.word_or_name.is_some() {
                self.opaque("", "the command word is empty or unknown", false);
            }
            Flow::known("")
        } else {
            if redirected.socket {
                let class = CommandClass::Exfiltration;
                self.finding("command.reverse-shell", class, None, "a shell's input or output is a network connection");
            }
            self.run(&args, &stdin, piped)
        };
        self.written(&redirected, &flow);
        if redirected.writes.is_empty() { flow } else { Flow::known("") }
    }

    fn item(&mut self, item: &ast::CommandPrefixOrSuffixItem, args: &mut Vec<Arg>, redirected: &mut Redirected) {
        match item {
            ast::CommandPrefixOrSuffixItem::IoRedirect(redirect) => self.redirect(redirect, redirected),
            ast::CommandPrefixOrSuffixItem::Word(word) => {
                let more = self.expand(&word.value);
                args.extend(more);
            }
            ast::CommandPrefixOrSuffixItem::AssignmentWord(_, word) => {
                let arg = self.expand_one(&word.value);
                args.push(arg);
            }
            ast::CommandPrefixOrSuffixItem::ProcessSubstitution(_, subshell) => {
                let flow = self.subshell(&subshell.list, &Flow::default());
                args.push(Arg { flow: Some(Box::new(flow)), ..Arg::literal("/dev/fd/63") });
            }
        }
    }

    fn assignment(&mut self, assignment: &ast::Assignment) -> (String, Value) {
        let (name, element) = match &assignment.name {
            ast::AssignmentName::VariableName(name) => (name.clone(), false),
            ast::AssignmentName::ArrayElementName(name, index) => {
                self.expand_body(index);
                (name.clone(), true)
            }
        };
        let value = match &assignment.value {
            ast::AssignmentValue::Scalar(word) => {
                let arg = self.expand_one(&word.value);
                let before = self.variable(&name);
                let mut text = (!arg.unknown).then_some(arg.text);
                if assignment.append {
                    text = before.text.zip(text).map(|(before, text)| before + &text);
                }
                Value { text: text.filter(|_| !element), loose: arg.loose, flow: arg.flow }
            }
            ast::AssignmentValue::Array(items) => {
                let mut first = None;
                for (_, word) in items {
                    let expanded = self.expand(&word.value);
                    first = first.or_else(|| expanded.into_iter().next());
                }
                let flow = first.and_then(|arg| arg.flow);
                Value { flow, ..Value::default() }
            }
        };
        (name, value)
    }

    /// What setting a variable does beyond setting it.
    pub(crate) fn assigned(&mut self, name: &str, value: &Value) {
        if name == "PROMPT_COMMAND" && value.text.as_ref().is_none_or(|text| !text.is_empty()) {
            let class = CommandClass::Persistence;
            self.finding(
                "command.prompt",
                class,
                Some(creel_model::Severity::Medium),
                "a shell's prompt runs a command",
            );
        }
        if RUNS.contains(&name) {
            match &value.text {
                Some(text) if !text.is_empty() => {
                    let text = text.clone();
                    self.via.push(name.to_owned());
                    self.nested(&text, &Flow::default());
                    self.via.pop();
                }
                Some(_) => {}
                None => self.opaque(name, "a variable that a program runs has an unknown value", false),
            }
        }
        let mut manner = Manner::default();
        if LOADS.contains(&name) {
            if matches!(name, "LD_PRELOAD" | "LD_AUDIT" | "DYLD_INSERT_LIBRARIES") {
                manner.classes.insert(CommandClass::DefenseEvasion);
                self.class(CommandClass::DefenseEvasion, "code is loaded into every program");
            }
        } else if HISTORY.contains(&name) {
            manner.classes.insert(CommandClass::DefenseEvasion);
            self.class(CommandClass::DefenseEvasion, "the shell's history is changed");
        } else if PROXIES.contains(&name) {
            if value.text.as_ref().is_none_or(|text| !text.is_empty()) {
                let why = "traffic is sent through another machine";
                let severity = Some(creel_model::Severity::Medium);
                self.finding("command.proxy", CommandClass::Exfiltration, severity, why);
            }
        } else if !RUNS.contains(&name) {
            return;
        }
        manner.dynamic = value.text.is_none();
        let object = Object::ConfigKey { system: "environment".to_owned(), key: name.to_owned() };
        self.effect(Verb::Configure, object, manner);
    }

    pub(crate) fn redirects(&mut self, redirects: Option<&ast::RedirectList>) -> Redirected {
        let mut redirected = Redirected::default();
        for redirect in redirects.into_iter().flat_map(|list| &list.0) {
            self.redirect(redirect, &mut redirected);
        }
        redirected
    }

    fn redirect(&mut self, redirect: &ast::IoRedirect, redirected: &mut Redirected) {
        match redirect {
            ast::IoRedirect::File(fd, kind, target) => {
                let word = match target {
                    ast::IoFileRedirectTarget::Filename(word) => word,
                    ast::IoFileRedirectTarget::Duplicate(word) => word,
                    ast::IoFileRedirectTarget::Fd(_) => return,
                    ast::IoFileRedirectTarget::ProcessSubstitution(_, subshell) => {
                        let flow = self.subshell(&subshell.list, &Flow::default());
                        if matches!(kind, ast::IoFileRedirectKind::Read) {
                            redirected.stdin = Some(flow);
                        }
                        return;
                    }
                };
                let arg = self.expand_one(&word.value);
                if matches!(target, ast::IoFileRedirectTarget::Duplicate(_))
                    && (arg.text == "-" || arg.text.trim_end_matches('-').bytes().all(|b| b.is_ascii_digit()))
                {
                    return;
                }
                match kind {
                    ast::IoFileRedirectKind::Read | ast::IoFileRedirectKind::DuplicateInput => {
                        redirected.stdin = Some(self.read_from(&arg, redirected));
                    }
                    ast::IoFileRedirectKind::ReadAndWrite => {
                        redirected.stdin = Some(self.read_from(&arg, redirected));
                        self.write_to(&arg, redirected, false);
                    }
                    _ => self.write_to(&arg, redirected, fd.is_none_or(|fd| fd == 1)),
                }
            }
            ast::IoRedirect::HereDocument(_, here) => {
                let raw = if here.remove_tabs {
                    here.doc.value.lines().map(|l| format!("{}\n", l.trim_start_matches('\t'))).collect()
                } else {
                    here.doc.value.clone()
                };
                redirected.stdin = Some(if here.requires_expansion {
                    let body = self.expand_body(&raw);
                    // A script with unknown holes is still read with the holes as written.
                    let flow = body.flow.as_deref().cloned().unwrap_or_default();
                    Flow { loose: body.unknown || body.loose, ..flow.with_text(Some(body.text)) }
                } else {
                    Flow::known(raw)
                });
            }
            ast::IoRedirect::HereString(_, word) => {
                let arg = self.expand_one(&word.value);
                let flow = arg.flow.as_deref().cloned().unwrap_or_default();
                redirected.stdin = Some(flow.with_text((!arg.unknown).then(|| format!("{}\n", arg.text))));
            }
            ast::IoRedirect::OutputAndError(word, _) => {
                let arg = self.expand_one(&word.value);
                self.write_to(&arg, redirected, true);
            }
        }
    }

    fn socket(&mut self, arg: &Arg, redirected: &mut Redirected) -> bool {
        let Some(rest) = arg.text.strip_prefix("/dev/tcp/").or_else(|| arg.text.strip_prefix("/dev/udp/")) else {
            return false;
        };
        redirected.socket = true;
        let target = Arg { text: rest.replacen('/', ":", 1), ..arg.clone() };
        self.host_effect(Verb::Connect, &target, std::collections::BTreeSet::new());
        self.host_effect(Verb::Send, &target, std::collections::BTreeSet::new());
        true
    }

    fn read_from(&mut self, arg: &Arg, redirected: &mut Redirected) -> Flow {
        if self.socket(arg, redirected) {
            return Flow { downloaded: true, produced: true, ..Flow::default() };
        }
        if let Some(flow) = &arg.flow
            && super::effects::is_descriptor(&arg.text)
        {
            return (**flow).clone();
        }
        self.read_file(arg)
    }

    /// Reads a file into a stream: its content is known when the text itself wrote it.
    pub(crate) fn read_file(&mut self, arg: &Arg) -> Flow {
        if is_stream(&arg.text) {
            return Flow::known("");
        }
        let secret = self.path_effect(Verb::Read, arg, false);
        if !self.files.is_empty()
            && let Some(flow) = self.files.get(&self.resolve(arg).0)
        {
            return Flow { file: true, ..flow.clone() };
        }
        Flow { file: true, secret, produced: true, ..Flow::default() }
    }

    fn write_to(&mut self, arg: &Arg, redirected: &mut Redirected, stdout: bool) {
        if self.socket(arg, redirected) || is_stream(&arg.text) {
            return;
        }
        if arg.unknown {
            self.opaque("", "the target of a redirection is not known", false);
        }
        self.path_effect(Verb::Write, arg, false);
        if stdout {
            redirected.writes.push(arg.clone());
        }
    }

    /// Remembers what was written to files of known name, for when the text runs or reads them later.
    pub(crate) fn written(&mut self, redirected: &Redirected, flow: &Flow) {
        for arg in &redirected.writes {
            self.remember(arg, flow.clone());
        }
    }

    /// Remembers the content of a file that the text made; at most 64 files.
    pub(crate) fn remember(&mut self, arg: &Arg, flow: Flow) {
        if arg.known() && self.files.len() < 64 {
            let (path, _) = self.resolve(arg);
            let flow = match self.files.remove(&path) {
                Some(mut before) => {
                    super::walk::append(&mut before, &flow);
                    before
                }
                None => flow,
            };
            self.files.insert(path, flow);
        }
    }

    /// Whether a name is one that holds credentials by convention.
    pub(crate) fn holds_secret(arg: &Arg) -> bool {
        arg.flow.as_ref().is_some_and(|flow| flow.secret)
            || arg.text.split('$').skip(1).any(|part| {
                let name: String =
                    part.trim_start_matches('{').chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                knowledge::is_secret_variable(&name)
            })
    }
}
