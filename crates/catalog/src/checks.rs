//! Checks that are the same for every kind: MCP servers, hooks, who may write a configuration file.

use creel_model::{Confidence, Finding, Severity};
use serde_json::Value;

use crate::document::scalar;
use crate::facts::{ConfigFile, Content};
use crate::kind::{McpList, Place, Scope};
use crate::process::base_name;
use crate::report::{Hook, McpServer};

/// A posture finding.
#[must_use]
pub fn finding(code: &str, severity: Severity, evidence: String, remedy: &str) -> Finding {
    let evidence = clip(&evidence, 300);
    Finding {
        code: code.to_owned(),
        class: "posture".to_owned(),
        severity,
        confidence: Confidence::High,
        span: None,
        evidence,
        remedy: remedy.to_owned(),
        taxonomy: Vec::new(),
    }
}

/// At most so many characters, control characters replaced: what agents write ends up on people's terminals.
#[must_use]
pub fn clip(text: &str, characters_max: usize) -> String {
    text.chars().take(characters_max).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Reads one entry of a table of MCP servers.
#[must_use]
pub fn mcp_server(name: &str, value: &Value, list: &McpList, file: &str) -> Option<McpServer> {
    let object = value.as_object()?;
    let text = |key: &str| object.get(key).and_then(Value::as_str);
    let url = ["url", "httpUrl", "serverUrl", "uri"].iter().find_map(|key| text(key)).map(bare_url);
    let mut command: Vec<String> = match object.get("command") {
        Some(Value::String(program)) => vec![program.clone()],
        Some(Value::Array(list)) => list.iter().filter_map(scalar).collect(),
        _ => Vec::new(),
    };
    if let Some(Value::Array(arguments)) = object.get("args") {
        command.extend(arguments.iter().filter_map(scalar));
    }
    if url.is_none() && command.is_empty() {
        return None;
    }
    let disabled = list.off.iter().any(|(key, off)| object.get(key).and_then(Value::as_bool) == Some(*off));
    let command = command.iter().take(64).map(|argument| clip(argument, 200)).collect();
    Some(McpServer {
        name: clip(name, 100),
        command: without_secrets(command),
        url,
        declared_in: file.to_owned(),
        disabled,
    })
}

/// Replaces arguments that look like credentials.
fn without_secrets(command: Vec<String>) -> Vec<String> {
    let list = Value::Array(command.iter().cloned().map(Value::String).collect());
    let secret = crate::secret::places(&list);
    let hide = |(index, argument): (usize, String)| {
        if secret.iter().any(|path| path.trim_start_matches('.') == index.to_string()) {
            "[secret]".to_owned()
        } else {
            argument
        }
    };
    command.into_iter().enumerate().map(hide).collect()
}

/// An address without user information, query and fragment.
#[must_use]
pub fn bare_url(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or("");
    let Some((scheme, rest)) = url.split_once("://") else { return clip(url, 200) };
    let (authority, path) = rest.split_once('/').map_or((rest, None), |(authority, path)| (authority, Some(path)));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    clip(&path.map_or_else(|| format!("{scheme}://{host}"), |path| format!("{scheme}://{host}/{path}")), 200)
}

/// What is weak about an MCP server.
#[must_use]
pub fn mcp_findings(server: &McpServer) -> Vec<Finding> {
    let mut findings = Vec::new();
    if server.disabled {
        return findings;
    }
    let place = format!("MCP server `{}` in {}", server.name, server.declared_in);
    if let Some(package) = unpinned(&server.command) {
        findings.push(finding(
            "agent.mcp-unpinned",
            Severity::Medium,
            format!("{place} runs `{}` without a fixed version", clip(&package, 80)),
            "name an exact version, so that what runs tomorrow is what was reviewed today",
        ));
    }
    if let Some(url) = &server.url
        && url.to_ascii_lowercase().starts_with("http://")
        && !is_loopback(url)
    {
        findings.push(finding(
            "agent.mcp-plain-http",
            Severity::High,
            format!("{place} is called over plain http: {url}"),
            "use https: anyone on the way can read and rewrite what the agent is told",
        ));
    }
    findings
}

fn is_loopback(url: &str) -> bool {
    let authority = url.get(7..).unwrap_or("").split('/').next().unwrap_or("");
    let host = if authority.starts_with('[') {
        authority.split(']').next().unwrap_or("").trim_start_matches('[')
    } else {
        authority.split(':').next().unwrap_or("")
    };
    let host = host.to_ascii_lowercase();
    host == "localhost"
        || host.ends_with(".localhost")
        || host == "::1"
        || host.parse::<std::net::Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
}

/// The package that a runner would fetch in whatever version is newest; `None` where it is fixed or no runner is used.
#[must_use]
pub fn unpinned(command: &[String]) -> Option<String> {
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let (program, arguments) = words.split_first()?;
    match (base_name(program), arguments.split_first()) {
        ("env", _) => {
            let rest: Vec<String> = arguments
                .iter()
                .skip_while(|word| word.contains('=') || word.starts_with('-'))
                .map(|word| (*word).to_owned())
                .collect();
            unpinned(&rest)
        }
        ("sh" | "bash" | "zsh" | "dash", Some((flag, rest))) if flag.starts_with('-') && flag.ends_with('c') => {
            let inner: Vec<String> = rest.first()?.split_whitespace().map(str::to_owned).take(64).collect();
            let start = inner.iter().position(|word| RUNNERS.contains(&base_name(word)))?;
            unpinned(inner.get(start..)?)
        }
        ("cmd" | "cmd.exe", Some((_, rest))) => {
            unpinned(&rest.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
        }
        ("npx" | "bunx" | "pnpx", _) => npm_package(arguments),
        ("npm", Some((&("exec" | "x"), rest))) => npm_package(rest),
        ("pnpm" | "yarn", Some((&"dlx", rest))) => npm_package(rest),
        ("bun", Some((&"x", rest))) => npm_package(rest),
        ("uvx", _) => python_package(arguments),
        ("uv", Some((&"tool", rest))) if rest.first() == Some(&"run") => python_package(rest.get(1..)?),
        ("pipx", Some((&"run", rest))) => python_package(rest),
        ("docker" | "podman", Some((&"run", rest))) => image(rest),
        _ => None,
    }
}

const RUNNERS: &[&str] =
    &["npx", "bunx", "pnpx", "npm", "pnpm", "yarn", "bun", "uvx", "uv", "pipx", "docker", "podman"];

fn npm_package(arguments: &[&str]) -> Option<String> {
    let package = first_operand(
        arguments,
        &["-p", "--package"],
        &["-c", "--call", "--registry", "-w", "--workspace", "--cache", "--userconfig"],
    )?;
    let local = package.starts_with('.') || package.starts_with('/') || package.starts_with("file:");
    // The first character may be the `@` of a scope.
    let version = package.get(1..).and_then(|rest| rest.rsplit_once('@')).map_or("", |(_, version)| version);
    (!local && !exact_version(version) && !commit(&package)).then_some(package)
}

fn python_package(arguments: &[&str]) -> Option<String> {
    let package = first_operand(
        arguments,
        &["--from", "--spec"],
        &["--with", "--python", "-p", "--index-url", "--index", "--extra-index-url", "--directory"],
    )?;
    let local = package.starts_with('.') || package.starts_with('/');
    let version = package.split_once("==").or_else(|| package.rsplit_once('@')).map_or("", |(_, version)| version);
    (!local && !exact_version(version.trim()) && !commit(&package)).then_some(package)
}

fn image(arguments: &[&str]) -> Option<String> {
    const TAKES: &[&str] = &[
        "-e",
        "--env",
        "-v",
        "--volume",
        "--name",
        "--network",
        "--net",
        "-p",
        "--publish",
        "-w",
        "--workdir",
        "-u",
        "--user",
        "--mount",
        "--env-file",
        "--entrypoint",
        "-m",
        "--memory",
        "--cpus",
        "-l",
        "--label",
        "--platform",
        "--pull",
        "--add-host",
        "-h",
        "--hostname",
        "--cap-add",
        "--cap-drop",
        "--security-opt",
        "--runtime",
        "--gpus",
        "--tmpfs",
        "--device",
    ];
    let image = first_operand(arguments, &[], TAKES)?;
    let pinned = image.contains("@sha256:")
        || base_name(&image)
            .rsplit_once(':')
            .is_some_and(|(_, tag)| tag != "latest" && tag.bytes().any(|byte| byte.is_ascii_digit()));
    (!pinned).then_some(image)
}

/// The value of a `names` option, else the first argument that is neither an option nor the value of one.
fn first_operand(arguments: &[&str], names: &[&str], takes: &[&str]) -> Option<String> {
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        if names.contains(argument) {
            return arguments.next().map(|value| (*value).to_owned());
        }
        if let Some((name, value)) = argument.split_once('=')
            && names.contains(&name)
        {
            return Some(value.to_owned());
        }
        if takes.contains(argument) {
            arguments.next();
        } else if *argument == "--" {
            return arguments.next().map(|value| (*value).to_owned());
        } else if !argument.starts_with('-') {
            return Some((*argument).to_owned());
        }
    }
    None
}

fn exact_version(version: &str) -> bool {
    version.starts_with(|first: char| first.is_ascii_digit())
        && version.contains('.')
        && !version.contains(['*', 'x', '>', '<', '|', ' '])
}

fn commit(package: &str) -> bool {
    package
        .rsplit(['@', '#'])
        .next()
        .is_some_and(|end| end.len() == 40 && end.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Hooks below a table of hooks by event, or in a list of plugin modules. At most 256.
#[must_use]
pub fn hooks(event: &str, value: &Value, plugins: bool, file: &str, managed: bool) -> Vec<Hook> {
    let mut commands = Vec::new();
    if plugins {
        match value {
            Value::Array(list) => {
                commands.extend(list.iter().filter_map(|module| scalar(module.get(0).unwrap_or(module))))
            }
            Value::Object(object) => commands.extend(
                object
                    .iter()
                    .filter(|(_, entry)| entry.get("enabled") != Some(&Value::Bool(false)))
                    .map(|(name, _)| name.clone()),
            ),
            _ => {}
        }
    } else {
        collect_commands(value, 0, &mut commands);
    }
    commands
        .into_iter()
        .take(256)
        .map(|command| Hook {
            event: if plugins { "plugin".to_owned() } else { clip(event, 60) },
            ours: is_creel_hook(&command),
            command: clip(&command, 200),
            declared_in: file.to_owned(),
            managed,
        })
        .collect()
}

fn collect_commands(value: &Value, depth: usize, commands: &mut Vec<String>) {
    if depth > 6 || commands.len() >= 256 {
        return;
    }
    match value {
        Value::Array(list) => list.iter().for_each(|value| collect_commands(value, depth + 1, commands)),
        Value::Object(object) => {
            let text = |key: &str| object.get(key).and_then(Value::as_str);
            if let Some(command) = text("command").or_else(|| text("bash")) {
                let mut words = vec![command.to_owned()];
                words.extend(object.get("args").and_then(Value::as_array).into_iter().flatten().filter_map(scalar));
                commands.push(without_secrets(words).join(" "));
            } else if let Some(url) = text("url") {
                commands.push(bare_url(url));
            } else if let Some(kind) = text("type").filter(|kind| matches!(*kind, "prompt" | "agent" | "mcp_tool")) {
                commands.push(kind.to_owned());
            } else {
                object.values().for_each(|value| collect_commands(value, depth + 1, commands));
            }
        }
        _ => {}
    }
}

/// Whether the command's program is called like creel's hook client. What runs behind that name only a canary shows.
fn is_creel_hook(command: &str) -> bool {
    base_name(command.split_whitespace().next().unwrap_or("")) == "creel-hook"
}

/// Who besides the account may write this file.
#[must_use]
pub fn file_findings(place: &Place, file: &ConfigFile, account_uid: u32) -> Vec<Finding> {
    let mut findings = Vec::new();
    let managed = matches!(place.scope, Scope::Managed | Scope::System);
    let foreign = file.owner != 0 && (managed || file.owner != account_uid);
    let (world, group) = (file.mode & 0o002 != 0, file.mode & 0o020 != 0);
    // A symlink's own bits say nothing.
    let link = matches!(&file.content, Content::NotAFile(what) if what == "symlink");
    if !link && (world || foreign || (group && managed)) {
        let mut who = Vec::new();
        if foreign {
            who.push(format!("belongs to user id {}", file.owner));
        }
        if world || group {
            let writers = if world { "everyone" } else { "its group" };
            who.push(format!("is writable by {writers} (mode {:03o})", file.mode & 0o777));
        }
        let who = who.join(" and ");
        findings.push(finding(
            "agent.writable-configuration",
            Severity::High,
            format!("{} {who}", file.path),
            "let only its owner write it (chmod go-w); administrators' files belong to root",
        ));
    } else if !link && group {
        findings.push(finding(
            "agent.writable-configuration",
            Severity::Low,
            format!("{} is writable by its group (mode {:03o})", file.path, file.mode & 0o777),
            "let only its owner write it (chmod g-w)",
        ));
    }
    if managed && foreign {
        findings.push(finding(
            "agent.policy-not-effective",
            Severity::High,
            format!("{} is an administrator's file and belongs to user id {}", file.path, file.owner),
            "give it to root, else that user decides what is enforced",
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pinned_and_unpinned() {
        let check = |line: &str, expected: Option<&str>| {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            assert_eq!(unpinned(&words).as_deref(), expected, "{line}");
        };
        check("npx -y @scope/server", Some("@scope/server"));
        check("/usr/bin/npx --yes server@latest /data", Some("server@latest"));
        check("npx -y @scope/server@1.2.3 /data", None);
        check("npx -y server@^1.2.3", Some("server@^1.2.3"));
        check("npx --package=server@1.0.0 run", None);
        check("npm exec server", Some("server"));
        check("pnpm dlx server", Some("server"));
        check("bunx server", Some("server"));
        check("uvx server", Some("server"));
        check("uvx server==1.2", None);
        check("uvx --from git+https://h/r@0123456789012345678901234567890123456789 server", None);
        check("uvx --from git+https://h/r server", Some("git+https://h/r"));
        check("uv tool run server@1.2.3", None);
        check("env A=b npx server", Some("server"));
        check("docker run -i --rm -e TOKEN image", Some("image"));
        check("docker run -i --rm h:5000/image:1.2", None);
        check("docker run -i image:latest", Some("image:latest"));
        check("node server.js", None);
        check("python3 -m server", None);
        let words = ["bash", "-lc", "cd /x && npx -y server"].map(str::to_owned);
        assert_eq!(unpinned(&words).as_deref(), Some("server"));
    }

    #[test]
    fn servers_are_read_without_secrets() {
        let list = McpList { key: "m".into(), places: vec![], off: [("enabled".to_owned(), false)].into() };
        let server =
            mcp_server("x", &json!({"command":"npx","args":["s","--token","A1b2C3d4E5f6"]}), &list, "/f").unwrap();
        assert_eq!(server.command, ["npx", "s", "--token", "[secret]"]);
        let server =
            mcp_server("x", &json!({"url":"http://u:p@h.example/p?k=1","enabled":false}), &list, "/f").unwrap();
        assert_eq!(server.url.as_deref(), Some("http://h.example/p"));
        assert!(server.disabled && mcp_findings(&server).is_empty());
        assert!(mcp_server("x", &json!({}), &list, "/f").is_none());
    }

    #[test]
    fn plain_http() {
        for (url, weak) in [
            ("http://h/x", true),
            ("https://h/x", false),
            ("http://127.0.0.1:1/x", false),
            ("http://[::1]:1/x", false),
            ("http://localhost.evil/", true),
        ] {
            let server = McpServer {
                name: "x".into(),
                command: vec![],
                url: Some(url.into()),
                declared_in: "/f".into(),
                disabled: false,
            };
            assert_eq!(!mcp_findings(&server).is_empty(), weak, "{url}");
        }
    }
}
