//! Commands that run another one once per thing: `xargs`, `find`, `parallel`; on another machine or in a container.

use std::collections::BTreeSet;

use creel_model::{CommandClass, Severity, Verb};

use super::flow::Flow;
use super::walk::Walker;
use super::words::Arg;
use crate::knowledge::{Entry, Role, Split};

impl Walker<'_> {
    pub(crate) fn xargs(&mut self, entry: &'static Entry, rest: &[Arg], stdin: &Flow) -> Flow {
        let texts: Vec<&str> = rest.iter().map(|a| a.text.as_str()).collect();
        let mut from = 0;
        let mut replace: Option<String> = None;
        let mut mark: Option<char> = None;
        while let Some(&text) = texts.get(from) {
            if !text.starts_with('-') || text.len() < 2 {
                break;
            }
            let pair = entry.split(texts.get(from..(from + 2).min(texts.len())).unwrap_or_default());
            match pair.values.first() {
                Some(&(name, value, _, at)) => {
                    if name.ends_with('I') || name == "--replace" {
                        replace = Some(value.to_owned());
                    } else if name.ends_with('d') || name == "--delimiter" {
                        mark = super::spelling::ansi_c(value).chars().next();
                    }
                    from += at;
                }
                None if text == "--null" || (!text.starts_with("--") && text.contains('0')) => mark = Some('\0'),
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
                .split(|c: char| mark.map_or_else(|| c.is_whitespace(), |mark| c == mark))
                .filter(|word| !word.is_empty())
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

    pub(crate) fn find(&mut self, rest: &[Arg]) -> Flow {
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

    pub(crate) fn parallel(&mut self, rest: &[Arg], split: &Split<'_>, stdin: &Flow) -> Flow {
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

    pub(crate) fn ssh(
        &mut self,
        entry: &'static Entry,
        program: &str,
        rest: &[Arg],
        split: &Split<'_>,
        stdin: &Flow,
    ) -> Flow {
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
    pub(crate) fn inside(
        &mut self,
        program: &str,
        rest: &[Arg],
        split: &Split<'_>,
        stdin: &Flow,
        piped: bool,
    ) -> Option<Flow> {
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
