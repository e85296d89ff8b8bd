//! What one command with its arguments does, by the table of commands.

use std::collections::BTreeSet;

use creel_model::{CommandClass, Object, Severity, Verb};

use super::effects::{Manner, is_descriptor, parse_host};
use super::flow::Flow;
use super::walk::Walker;
use super::words::Arg;
use crate::knowledge::{self, Entry, Network, Role, Split};
use crate::path::base_name;
use crate::understood::SimpleCommand;
use crate::{bounds, code, suspicion};

/// Folders of programs that belong to the machine.
const PROGRAMS: &[&str] = &[
    "/bin/",
    "/usr/bin/",
    "/sbin/",
    "/usr/sbin/",
    "/usr/local/bin/",
    "/usr/local/sbin/",
    "/opt/homebrew/bin/",
    "/snap/bin/",
];

impl Walker<'_> {
    /// Runs a command: `args` begins with the command word. Gives its output.
    pub(crate) fn run(&mut self, args: &[Arg], stdin: &Flow, piped: bool) -> Flow {
        let unknown = Flow { produced: true, ..Flow::default() };
        let Some((word, rest)) = args.split_first() else {
            return stdin.clone();
        };
        self.steps += 1;
        if self.steps > bounds::COMMANDS {
            if self.steps <= bounds::COMMANDS + 2 {
                self.limit("commands");
            }
            return unknown;
        }
        if self.via.len() > bounds::WRAPPERS {
            self.limit("wrappers around a command");
            return unknown;
        }
        if word.unknown || word.loose || word.text.is_empty() {
            let from = word.flow.as_deref().cloned().unwrap_or_default();
            if from.downloaded {
                self.downloaded_and_run();
            }
            let hidden = word.loose || from.decoded || from.downloaded;
            self.record(&word.text, args, &BTreeSet::new());
            self.opaque(&word.text, "the command word is not known from the text", hidden);
            // `$SUDO rm …`: the unknown word may be empty or a wrapper.
            if word.unknown
                && word.text.starts_with('$')
                && rest.first().is_some_and(|next| next.known() && knowledge::lookup(base_name(&next.text)).is_some())
            {
                return self.run(rest, stdin, piped);
            }
            return unknown;
        }
        if word.disguised {
            self.class(CommandClass::Obfuscated, "the command's name is spelled so that it does not stand in the text");
        }
        if word.flow.as_ref().is_some_and(|flow| flow.decoded) {
            self.class(CommandClass::Obfuscated, "the command's name comes out of a decoder");
        }
        if let Some(flow) = self.call(&word.text, rest, stdin) {
            return flow;
        }
        let mut program = base_name(&word.text).to_owned();
        let local = word.text.contains('/') && !PROGRAMS.iter().any(|folder| word.text.starts_with(folder));
        if local {
            let (path, _) = self.resolve(word);
            if let Some(flow) = self.files.get(&path).cloned() {
                self.record(&program, args, &BTreeSet::new());
                self.script_effect(&program, rest, &path);
                return self.run_text(&flow, stdin);
            }
        }
        let mut entry = knowledge::lookup(&program);
        if (program == "busybox" || program == "toybox")
            && let Some(applet) = rest.first().filter(|a| !a.text.starts_with('-'))
        {
            program = base_name(&applet.text).to_owned();
            entry = knowledge::lookup(&program);
            if entry.is_some_and(|e| e.wrap == Some(knowledge::Wrap::Shell)) {
                let why = "a shell is started from inside another program";
                self.finding("command.shell-escape", CommandClass::Privilege, None, why);
            }
            return match entry {
                Some(entry) => self.known(entry, &program, rest, stdin, piped),
                None => self.run(rest, stdin, piped),
            };
        }
        match entry {
            Some(entry) => self.known(entry, &program, args, stdin, piped),
            None => self.unknown_program(&program, args, stdin, local),
        }
    }

    /// A command that the table does not hold: its execution, and nothing further.
    fn unknown_program(&mut self, program: &str, args: &[Arg], stdin: &Flow, local: bool) -> Flow {
        let rest = args.get(1..).unwrap_or_default();
        let mut classes = BTreeSet::new();
        self.escapes(rest, &mut classes);
        self.record(program, args, &classes);
        match args.first().filter(|_| local) {
            Some(word) => {
                if self.elevated {
                    self.class(CommandClass::Privilege, "a program that is not the system's runs with higher rights");
                }
                let (path, dynamic) = self.resolve(word);
                if dynamic && !self.remote && !path.starts_with('~') && word.unknown {
                    self.opaque(program, "the script is not known", false);
                }
                self.script_effect(program, rest, &path);
            }
            None => self.execute(program, rest, classes, false),
        }
        let mut flow = Flow { produced: true, ..Flow::default() };
        flow.merge(stdin);
        flow
    }

    /// Adds the execution of a script file.
    pub(crate) fn script_effect(&mut self, program: &str, rest: &[Arg], path: &str) {
        self.program_place(path);
        let argv = rest.iter().map(|a| a.text.clone()).collect();
        let object = Object::Program { program: program.to_owned(), argv, script: Some(path.to_owned()) };
        self.effect(Verb::Execute, object, Manner { dynamic: !path.starts_with('/'), ..Manner::default() });
    }

    /// Adds the execution of a program.
    pub(crate) fn execute(&mut self, program: &str, rest: &[Arg], classes: BTreeSet<CommandClass>, opaque: bool) {
        if !opaque
            && !self.elevated
            && classes.iter().all(|&c| suspicion::severity(c).is_none())
            && !self.keeps_harmless()
        {
            return;
        }
        let argv = rest.iter().map(|a| a.text.clone()).collect();
        let object = Object::Program { program: program.to_owned(), argv, script: None };
        let dynamic = rest.iter().any(|a| !a.known());
        self.effect(Verb::Execute, object, Manner { dynamic, classes, opaque, ..Manner::default() });
    }

    /// Notes a command in the list of all commands.
    pub(crate) fn record(&mut self, program: &str, args: &[Arg], classes: &BTreeSet<CommandClass>) {
        if self.out.commands.len() < bounds::COMMANDS {
            self.out.commands.push(SimpleCommand {
                program: program.to_owned(),
                argv: args.iter().skip(1).map(|a| a.text.clone()).collect(),
                known: args.iter().all(Arg::known),
                depth: self.depth,
                via: self.via.clone(),
                span: self.span,
                classes: classes.clone(),
            });
        }
    }

    /// A command that the table holds.
    fn known(&mut self, entry: &'static Entry, program: &str, args: &[Arg], stdin: &Flow, piped: bool) -> Flow {
        let rest = args.get(1..).unwrap_or_default();
        let texts: Vec<&str> = rest.iter().map(|a| a.text.as_str()).collect();
        let split = entry.split(&texts);
        let mut classes = entry.classes.clone();
        for &class in &entry.classes {
            self.class(class, if entry.why.is_empty() { "the command itself" } else { &entry.why });
        }
        let mut roles = &entry.positional;
        let mut network = entry.network;
        for when in entry.holding(&split, &texts, piped) {
            classes.extend(&when.classes);
            for &class in &when.classes {
                let why = if when.why.is_empty() { "the command with these options" } else { &when.why };
                self.finding(&format!("command.{class}"), class, when.severity, why);
            }
            if !when.positional.is_empty() {
                roles = &when.positional;
            }
            network = when.network.unwrap_or(network);
            if let Some((system, key)) = &when.config {
                let object = Object::ConfigKey { system: system.clone(), key: key.clone() };
                self.effect(Verb::Configure, object, Manner { classes: when.classes.clone(), ..Manner::default() });
            }
            if let Some(name) = &when.credential {
                let object = Object::Credential { name: name.clone() };
                self.effect(Verb::Read, object, Manner { classes: when.classes.clone(), ..Manner::default() });
            }
        }
        if entry.wrap.is_none() {
            self.escapes(rest, &mut classes);
        }
        // Dangerous classes drop the claim of only looking.
        if classes.iter().any(|&c| suspicion::severity(c).is_some()) {
            classes.remove(&CommandClass::ReadOnly);
        }
        self.out.classes.extend(&classes);
        self.record(program, args, &classes);
        let quiet = entry.quiet && classes.iter().all(|&c| c == CommandClass::ReadOnly);
        if !quiet && !entry.handler.starts_with("code:") && entry.wrap != Some(knowledge::Wrap::Shell) {
            self.execute(program, rest, classes.clone(), false);
        }
        if (entry.wrap.is_some() || !entry.handler.is_empty())
            && let Some(flow) = self.special(entry, program, args, &split, stdin, piped, &classes)
        {
            return flow;
        }
        let mut carried = self.objects(entry, rest, &split, roles);
        if network != Network::Off {
            self.network(entry, rest, &split, roles, network, stdin, piped, &carried);
            if network != Network::Send {
                carried.downloaded = true;
            }
        }
        carried.produced = true;
        self.output(program, rest, &split, stdin, carried)
    }

    /// Adds the effects on the objects that the arguments name; gives what the command read.
    fn objects(&mut self, entry: &Entry, rest: &[Arg], split: &Split<'_>, roles: &[(Role, bool)]) -> Flow {
        let recursive = entry.recursive.iter().any(|option| entry.has(split, option));
        let mut carried = Flow::default();
        let count = split.positional.len();
        let mut todo: Vec<(Role, Arg)> = Vec::new();
        for (position, &(text, index)) in split.positional.iter().enumerate() {
            let Some(arg) = rest.get(index) else { continue };
            let mut arg = Arg { text: text.to_owned(), ..arg.clone() };
            let mut role = Entry::role(roles, position, count);
            if let Some((name, value)) = text.split_once('=')
                && let Some(&operand) = entry.operands.get(name)
            {
                role = operand;
                value.clone_into(&mut arg.text);
            }
            todo.push((role, arg));
        }
        for &(_, value, role, index) in &split.values {
            if let Some(arg) = rest.get(index) {
                todo.push((role, Arg { text: value.to_owned(), ..arg.clone() }));
            }
        }
        for (role, arg) in todo {
            match role {
                Role::Read => {
                    let flow = if is_descriptor(&arg.text) {
                        arg.flow.as_deref().cloned().unwrap_or_default()
                    } else {
                        self.read_file(&arg)
                    };
                    carried.merge(&flow);
                }
                Role::Write => {
                    self.path_effect(Verb::Write, &arg, recursive);
                }
                Role::Delete => {
                    self.path_effect(Verb::Delete, &arg, recursive);
                }
                Role::Rename => {
                    self.path_effect(Verb::Rename, &arg, recursive);
                }
                Role::Script => {
                    let (path, _) = self.resolve(&arg);
                    self.script_effect(base_name(&arg.text), &[], &path);
                }
                Role::Text => {
                    self.run_text(&Flow::known(arg.text.clone()), &Flow::default());
                }
                Role::None | Role::Upload | Role::Send | Role::Host | Role::Url | Role::Remote => {}
            }
        }
        carried
    }

    /// Adds the effects on hosts.
    #[expect(clippy::too_many_arguments, reason = "one call, all of them facts of one command")]
    fn network(
        &mut self,
        entry: &Entry,
        rest: &[Arg],
        split: &Split<'_>,
        roles: &[(Role, bool)],
        network: Network,
        stdin: &Flow,
        piped: bool,
        carried: &Flow,
    ) {
        let mut hosts: Vec<Arg> = Vec::new();
        let mut sent = Flow::default();
        let mut sends = network == Network::Send;
        let mut local_target = false;
        let count = split.positional.len();
        for (position, &(text, index)) in split.positional.iter().enumerate() {
            let Some(arg) = rest.get(index) else { continue };
            match Entry::role(roles, position, count) {
                Role::Host | Role::Url => hosts.push(arg.clone()),
                Role::Remote if text.contains("::") || is_remote(text) => {
                    hosts.push(arg.clone());
                    // The last one is where it goes.
                    if position + 1 == count {
                        sends = true;
                    }
                }
                Role::Remote if position + 1 == count && count > 1 => {
                    local_target = true;
                    self.path_effect(Verb::Write, arg, false);
                    let named = |name: &str| split.options.contains(&name);
                    let mirrors = split.options.iter().any(|o| o.starts_with("--del"));
                    if mirrors && !named("--dry-run") && !named("-n") {
                        // What the source does not hold is removed there.
                        self.path_effect(Verb::Delete, arg, true);
                    }
                }
                Role::Remote => sent.merge(&self.read_file(arg)),
                Role::Upload => {
                    sends = true;
                    sent.merge(&self.upload(arg));
                }
                Role::Send => {
                    sends = true;
                    sent.merge(&self.sent_file(arg, stdin));
                }
                _ => {}
            }
        }
        for &(_, value, role, index) in &split.values {
            let Some(arg) = rest.get(index) else { continue };
            let arg = Arg { text: value.to_owned(), ..arg.clone() };
            match role {
                Role::Host | Role::Url => hosts.push(arg),
                Role::Upload => {
                    sends = true;
                    let flow = self.upload(&arg);
                    sent.merge(&flow);
                    if matches!(value, "@-" | "-" | "@/dev/stdin") || value.ends_with("=@-") {
                        sent.merge(stdin);
                    }
                }
                Role::Send => {
                    sends = true;
                    sent.merge(&self.sent_file(&arg, stdin));
                }
                _ => {}
            }
        }
        if entry.handler == "stdin-sends" && piped {
            sends = true;
            sent.merge(stdin);
        }
        for host in &hosts {
            // Data in the address itself: `http://host/?$(cat file)`.
            if let Some(flow) = &host.flow
                && (flow.file || flow.secret)
            {
                sends = true;
                sent.merge(flow);
            }
        }
        if sends && carried.file {
            sent.merge(carried);
        }
        let mut content = BTreeSet::new();
        if sent.secret {
            content.insert("secret".to_owned());
        }
        if sent.file {
            content.insert("local-file".to_owned());
        }
        let verb = if sends {
            Verb::Send
        } else if network == Network::Receive || local_target {
            Verb::Receive
        } else {
            Verb::Connect
        };
        let nowhere = hosts.iter().all(|h| is_loopback(&parse_host(&h.text).0));
        for host in &hosts {
            self.host_sign(host);
            self.host_effect(verb, host, content.clone());
        }
        if hosts.is_empty() && sends {
            self.host_effect(verb, &Arg { unknown: true, ..Arg::default() }, content.clone());
        }
        if sends && (!nowhere || hosts.is_empty()) {
            if sent.secret {
                let why = "credentials are sent away";
                self.finding("command.exfiltration", CommandClass::Exfiltration, Some(Severity::Critical), why);
                self.class(CommandClass::CredentialAccess, why);
            } else if sent.file || (sent.produced && piped) {
                let why = "local content is sent away";
                self.finding("command.exfiltration", CommandClass::Exfiltration, Some(Severity::Medium), why);
            }
        }
        if verb == Verb::Receive && !nowhere {
            let saves = split.values.iter().any(|(_, _, role, _)| *role == Role::Write)
                || split.options.iter().any(|o| {
                    matches!(*o, "-O" | "--remote-name")
                        || (o.starts_with('-') && !o.starts_with("--") && o.contains('O'))
                })
                || entry.handler == "saves";
            self.fetched(&hosts, split, saves);
            if saves && hosts.iter().any(|h| h.text.starts_with("http://") || h.text.starts_with("ftp://")) {
                self.finding(
                    "command.cleartext-download",
                    CommandClass::Obfuscated,
                    Some(Severity::Medium),
                    "a file is fetched over an unprotected connection",
                );
            }
        }
    }

    /// What an upload option's value sends: `@file`, `name=@file`, `<file`, or text.
    fn upload(&mut self, arg: &Arg) -> Flow {
        let text = arg.text.as_str();
        let file = text
            .strip_prefix(['@', '<'])
            .or_else(|| text.split_once("=@").map(|(_, f)| f))
            .or_else(|| text.split_once("=<").map(|(_, f)| f))
            .or_else(|| {
                text.split_once("@/").map(|_| text.get(text.find("@/").unwrap_or(0) + 1..).unwrap_or_default())
            });
        let mut flow = arg.flow.as_deref().cloned().unwrap_or_default();
        flow.secret |= Self::holds_secret(arg);
        let looks_like_path = text.starts_with(['/', '~', '.']) && !text.contains(['{', ' ', '\n']);
        if let Some(file) = file.or_else(|| looks_like_path.then_some(text)) {
            let file = Arg { text: file.split(';').next().unwrap_or(file).to_owned(), flow: None, ..arg.clone() };
            if file.text != "-" {
                flow.merge(&self.read_file(&file));
                flow.file = true;
            }
        }
        flow
    }

    /// A file that is sent as it is; `-` and `.` are standard input.
    fn sent_file(&mut self, arg: &Arg, stdin: &Flow) -> Flow {
        if matches!(arg.text.as_str(), "-" | "." | "/dev/stdin") {
            return stdin.clone();
        }
        let mut flow = self.read_file(arg);
        flow.merge(arg.flow.as_deref().unwrap_or(&Flow::default()));
        flow.file = true;
        flow
    }

    /// Notes that something fetched is run at once.
    pub(crate) fn downloaded_and_run(&mut self) {
        let why = "what comes over the network is run at once";
        self.finding("command.download-and-run", CommandClass::Obfuscated, Some(Severity::High), why);
    }

    /// Arguments that are code which starts a shell, whatever the program.
    fn escapes(&mut self, rest: &[Arg], classes: &mut BTreeSet<CommandClass>) {
        if rest.iter().any(|arg| code::starts_shell(&arg.text)) {
            classes.insert(CommandClass::Privilege);
            let why = "an argument starts a shell from inside another program";
            self.finding("command.shell-escape", CommandClass::Privilege, None, why);
        }
    }
}

/// Whether an argument of a copy command names another machine.
fn is_remote(text: &str) -> bool {
    if text.starts_with(['/', '.', '~']) {
        return false;
    }
    text.contains("://") || text.split_once(':').is_some_and(|(host, _)| !host.contains('/') && !host.is_empty())
}

/// Whether a host is this machine.
fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host == "::1"
        || host == "0.0.0.0"
        || host.starts_with("127.")
        || host.ends_with(".localhost")
}
