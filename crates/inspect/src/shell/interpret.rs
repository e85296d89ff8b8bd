//! Commands that run text in another language: interpreters, database clients, PowerShell.

use std::collections::BTreeSet;

use creel_model::{CommandClass, Severity, Verb};

use super::flow::Flow;
use super::walk::Walker;
use super::words::Arg;
use super::wrap::is_standard_input;
use crate::knowledge::Role;
use crate::knowledge::Split;
use crate::{code, sql, windows};

impl Walker<'_> {
    #[expect(clippy::too_many_arguments, reason = "one call, all of them facts of one command")]
    pub(crate) fn interpreter(
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
                self.module(program, rest, stdin, piped);
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
                self.tool(script);
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

    /// `python -m MODULE …`: modules that are commands of their own, and servers.
    fn module(&mut self, program: &str, rest: &[Arg], stdin: &Flow, piped: bool) {
        let Some(at) = rest.iter().position(|arg| arg.text == "-m") else { return };
        let Some((module, after)) = rest.get(at + 1..).and_then(<[Arg]>::split_first) else { return };
        match module.text.as_str() {
            "pip" | "pipx" | "uv" | "twine" | "poetry" => {
                let mut args = vec![module.clone()];
                args.extend_from_slice(after);
                self.via.push(program.to_owned());
                self.run(&args, stdin, piped);
                self.via.pop();
            }
            "http.server" | "SimpleHTTPServer" | "pyftpdlib" | "uploadserver" => {
                let local = after.iter().any(|a| matches!(a.text.as_str(), "127.0.0.1" | "localhost" | "::1"));
                if !local {
                    let why = "local files are served to the network";
                    self.finding("command.file-server", CommandClass::Exfiltration, Some(Severity::Medium), why);
                }
            }
            _ => {}
        }
    }

    /// Code on an interpreter's standard input.
    pub(crate) fn piped_code(
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
    pub(crate) fn code(&mut self, text: &str, language: &str) -> bool {
        let report = code::look(text, language);
        for (class, why) in &report.classes {
            self.class(*class, why);
        }
        for (code, why) in &report.findings {
            let sign = (*code == "command.collection").then_some(Severity::Medium);
            self.finding(code, CommandClass::Exfiltration, sign, why);
        }
        if language == "awk" && report.hosts.iter().any(|(verb, _)| *verb == Verb::Connect) {
            let why = "a text filter opens a connection";
            self.finding("command.raw-connection", CommandClass::Exfiltration, Some(Severity::Medium), why);
        }
        if report.decodes_text {
            self.decoded_text();
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

    pub(crate) fn sql(&mut self, rest: &[Arg], split: &Split<'_>, stdin: &Flow, piped: bool) {
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

    pub(crate) fn powershell(&mut self, rest: &[Arg], split: &Split<'_>, stdin: &Flow) {
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
