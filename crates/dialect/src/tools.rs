//! What a tool call does, as the tool's own arguments state it: paths, hosts, commands, MCP tools.
//!
//! Turns an action into [`Part`]s. Shell text is handed on as text; the analyser of commands reads it. The one thing a
//! newcomer gets wrong: a tool that is not known here is not harmless but [`Part::Unknown`], which counts as opaque.

use serde_json::Value;

use creel_model::{Action, Certainty, Effect, Object, Verb};

use crate::kinds;
use crate::{claude_code, codex, mcp};

/// Which language a command is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shell {
    /// sh, bash, zsh and their relatives.
    Posix,
    /// PowerShell.
    PowerShell,
}

/// One thing that a tool call consists of.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// An effect that the tool's arguments state exactly.
    Effect(Effect),
    /// Text that a shell will run.
    Command {
        /// The text.
        text: String,
        /// Its language.
        shell: Shell,
        /// Where it runs, absolute, if not in the action's working directory.
        workdir: Option<String>,
    },
    /// The tool is not known, or its arguments are not what it takes: anything may happen.
    Unknown,
}

/// What the action's tool call does; empty when it has none. `home` is the account's home folder, empty if unknown.
#[must_use]
pub fn parts(action: &Action, home: &str) -> Vec<Part> {
    let Some(call) = &action.call else { return Vec::new() };
    let place = Place { cwd: action.cwd.as_deref().unwrap_or("/"), home };
    if let Some((server, tool)) = &call.mcp {
        let object = Object::McpTool { server: server.clone(), tool: tool.clone() };
        let mut parts = vec![Part::Effect(Effect::new(Verb::Call, object, Certainty::Exact))];
        parts.extend(mcp::parts(tool, &call.input, &place));
        return parts;
    }
    let parts = match action.kind.as_str() {
        kinds::CLAUDE_CODE => claude_code::tool_parts(call, &place),
        kinds::CODEX => codex::tool_parts(call, &place),
        _ => Vec::new(),
    };
    if parts.is_empty() { vec![Part::Unknown] } else { parts }
}

/// Where relative paths of a call begin.
pub(crate) struct Place<'a> {
    pub(crate) cwd: &'a str,
    pub(crate) home: &'a str,
}

impl Place<'_> {
    /// An effect on a path as a tool was given it.
    pub(crate) fn path(&self, verb: Verb, path: &str) -> Effect {
        let (path, known) = self.absolute(path);
        let mut effect = Effect::new(verb, Object::Path { path, resolved: None }, Certainty::Exact);
        effect.dynamic = !known;
        effect
    }

    /// The absolute, lexically normalised path, and whether it is known.
    pub(crate) fn absolute(&self, path: &str) -> (String, bool) {
        if path == "~" || path.starts_with("~/") {
            if self.home.is_empty() {
                return (path.to_owned(), false);
            }
            return (normalised(&format!("{}/{}", self.home, path.trim_start_matches('~'))), true);
        }
        if path.starts_with('~') {
            return (path.to_owned(), false);
        }
        if path.starts_with('/') {
            return (normalised(path), true);
        }
        (normalised(&format!("{}/{path}", self.cwd)), true)
    }
}

/// Without `.`, `..` and doubled slashes; links are not followed.
pub(crate) fn normalised(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(kept.pop()),
            part => kept.push(part),
        }
    }
    format!("/{}", kept.join("/"))
}

/// The text argument of that name.
pub(crate) fn text<'a>(input: &'a Value, key: &str) -> Option<&'a str> {
    input.get(key).and_then(Value::as_str)
}

/// A call of one of the agent's own tools.
pub(crate) fn own_tool(tool: &str) -> Part {
    let object = Object::McpTool { server: String::new(), tool: tool.to_owned() };
    Part::Effect(Effect::new(Verb::Call, object, Certainty::Exact))
}

/// Words to another model conversation.
pub(crate) fn prompt(words: &str) -> Part {
    let bytes = u64::try_from(words.len()).unwrap_or(u64::MAX);
    let object = Object::Text { role: creel_model::ContentRole::Prompt, bytes };
    Part::Effect(Effect::new(Verb::Prompt, object, Certainty::Exact))
}

/// A setting of the agent itself.
pub(crate) fn own_setting(kind: &str, key: &str) -> Effect {
    let object = Object::ConfigKey { system: kind.to_owned(), key: key.to_owned() };
    Effect::new(Verb::Configure, object, Certainty::Exact)
}

/// What fetching a URL does: connect, receive, and send when the URL itself carries data.
pub(crate) fn fetch(url: &str) -> Vec<Part> {
    let Some(parsed) = Url::parse(url) else { return vec![Part::Unknown] };
    let object = Object::Host { host: parsed.host, port: parsed.port, url: Some(parsed.shown) };
    let mut verbs = vec![Verb::Connect, Verb::Receive];
    if parsed.carries_data {
        verbs.push(Verb::Send);
    }
    verbs.into_iter().map(|verb| Part::Effect(Effect::new(verb, object.clone(), Certainty::Exact))).collect()
}

/// A URL's host and port, as far as rules need them.
struct Url {
    host: String,
    port: Option<u16>,
    /// Without user information, query and fragment.
    shown: String,
    carries_data: bool,
}

impl Url {
    fn parse(url: &str) -> Option<Self> {
        // Browsers and Node's parser take a backslash for a slash and drop tabs and newlines; so do we, else the host
        // that is judged is not the host that is called.
        let cleaned: String = url.trim().chars().filter(|c| !matches!(c, '\t' | '\n' | '\r')).collect();
        let (scheme, rest) = cleaned.split_once(':')?;
        let scheme = scheme.to_ascii_lowercase();
        let default_port = match scheme.as_str() {
            "https" | "wss" => 443,
            "http" | "ws" => 80,
            _ => return None,
        };
        let rest = rest.trim_start_matches(['/', '\\']);
        let end = rest.find(['/', '\\', '?', '#']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at_checked(end)?;
        let (user, host_port) = authority.rsplit_once('@').map_or(("", authority), |(user, host)| (user, host));
        let (host, port) = match host_port.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, after)) => (address, after.strip_prefix(':').unwrap_or_default()),
            None => host_port.split_once(':').unwrap_or((host_port, "")),
        };
        let port = if port.is_empty() { Some(default_port) } else { Some(port.parse().ok()?) };
        let host = numeric_host(&host.trim_end_matches('.').to_ascii_lowercase())?;
        // Browsers turn `①69.254.169.254` and `ｅvil.com` into plain letters before they call: who is called then is not
        // what stands here.
        if host.is_empty() || host.contains('%') || !host.is_ascii() {
            return None;
        }
        let path_end = tail.find(['?', '#']).unwrap_or(tail.len());
        let (path, query) = tail.split_at_checked(path_end)?;
        let carries_data = query.starts_with('?') && query.len() > 1 || !user.is_empty();
        let shown_port = port.filter(|port| *port != default_port).map(|port| format!(":{port}")).unwrap_or_default();
        Some(Self { shown: format!("{scheme}://{host}{shown_port}{path}"), host, port, carries_data })
    }
}

/// An IPv4 address in any of its spellings (`0x7f.1`, `2130706433`, `0177.0.0.1`) as four decimal numbers; other hosts
/// unchanged; nothing when it looks like such an address and is none.
fn numeric_host(host: &str) -> Option<String> {
    let number = |part: &str| -> Option<u64> {
        if let Some(hexadecimal) = part.strip_prefix("0x") {
            return if hexadecimal.is_empty() { Some(0) } else { u64::from_str_radix(hexadecimal, 16).ok() };
        }
        if part.len() > 1 && part.starts_with('0') {
            return u64::from_str_radix(part, 8).ok();
        }
        part.parse().ok()
    };
    let last = host.rsplit('.').next().unwrap_or_default();
    let looks_numeric = !last.is_empty() && (last.bytes().all(|b| b.is_ascii_digit()) || number(last).is_some());
    if !looks_numeric || host.contains(':') {
        return Some(host.to_owned());
    }
    let numbers = host.split('.').map(number).collect::<Option<Vec<u64>>>()?;
    let (last, first) = numbers.split_last()?;
    if first.len() > 3 || first.iter().any(|part| *part > 255) {
        return None;
    }
    let shift = |at: usize| 8 * (3 - u32::try_from(at).unwrap_or(3));
    let whole = first.iter().enumerate().fold(*last, |sum, (at, part)| sum.saturating_add(part << shift(at)));
    let room = 1u64 << (8 * (4 - u32::try_from(first.len()).unwrap_or(3)));
    let address = u32::try_from(whole).ok().filter(|_| *last < room)?;
    Some(std::net::Ipv4Addr::from(address).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_absolute() {
        let place = Place { cwd: "/home/u/proj", home: "/home/u" };
        let check = |path: &str, expected: &str| assert_eq!(place.absolute(path), (expected.to_owned(), true));
        check("a/../b", "/home/u/proj/b");
        check("../../../../etc/passwd", "/etc/passwd");
        check("/x//y/./z", "/x/y/z");
        check("~/.ssh/id_rsa", "/home/u/.ssh/id_rsa");
        check("~", "/home/u");
        assert_eq!(place.absolute("~root/x"), ("~root/x".to_owned(), false));
        let homeless = Place { cwd: "/", home: "" };
        assert!(homeless.path(Verb::Read, "~/x").dynamic);
    }

    #[test]
    fn urls_give_the_host_that_is_called() {
        let host = |url: &str| Url::parse(url).map(|url| (url.host, url.port, url.carries_data));
        let found = |host: &str, port: u16, data: bool| Some((host.to_owned(), Some(port), data));
        assert_eq!(host("https://Docs.RS/x"), found("docs.rs", 443, false));
        assert_eq!(host("http://good.com@evil.com:8080/?q=1"), found("evil.com", 8080, true));
        assert_eq!(host("https:\\\\evil.com\\@good.com"), found("evil.com", 443, false));
        assert_eq!(host("https://e\tvil.com/"), found("evil.com", 443, false));
        assert_eq!(host("http://[::1]:99/"), found("::1", 99, false));
        assert_eq!(host("http://0x7f.1/"), found("127.0.0.1", 80, false));
        assert_eq!(host("http://2852039166/latest"), found("169.254.169.254", 80, false));
        assert_eq!(host("http://0251.254.169.254/"), found("169.254.169.254", 80, false));
        assert_eq!(host("http://1.2.3.4.5/"), None);
        assert_eq!(host("http://①69.254.169.254/latest"), None);
        assert_eq!(host("https://ｗebhook。site/"), None);
        assert_eq!(host("https://web\u{ad}hook.site/"), None);
        assert_eq!(host("http://1.2.3.256/"), None);
        assert_eq!(host("file:///etc/passwd"), None);
        assert_eq!(host("docs.rs"), None);
        assert_eq!(host("https://"), None);
        assert_eq!(Url::parse("https://u:p@h/a?k=secret#f").unwrap().shown, "https://h/a");
    }
}
