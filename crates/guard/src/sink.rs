//! How well known the object of an effect is as a destination (DESIGN §9), and which objects a prompt names.
//!
//! Objects are remembered as 64-bit tokens (the head of a SHA-256 of type and name), so that the state holds neither a
//! prompt's words nor a list of files. The one fact a newcomer gets wrong: a token hides text from a reader of the
//! state, not from somebody who guesses the name.

use std::collections::BTreeSet;

use creel_inspect::{Place, normalise};
use creel_model::{Effect, Object, SinkGrade, Zone};

/// Most bytes of a prompt in which named objects are looked for; what is beyond endorses nothing.
const PROMPT_BYTES_MAX: usize = 64 * 1024;
/// Most objects taken from one prompt; further ones endorse nothing.
const NAMED_PER_PROMPT_MAX: usize = 256;

/// The token of an object of that type.
pub(crate) fn token(kind: &str, name: &str) -> u64 {
    let digest = creel_seal::sha256(format!("creel.sink/1\0{kind}\0{name}").as_bytes());
    digest.iter().take(8).fold(0, |token, byte| (token << 8) | u64::from(*byte))
}

/// The tokens under which an object may be known: its own name, and the name it resolves to.
pub(crate) fn tokens(object: &Object) -> Vec<u64> {
    match object {
        Object::Path { path, resolved } => {
            // Both names must be known: a link with a familiar name does not make its target familiar.
            let target = resolved.as_deref().unwrap_or(path);
            if target == path { vec![token("path", path)] } else { vec![token("path", path), token("path", target)] }
        }
        Object::Host { host, .. } => vec![token("host", host)],
        Object::Program { program, script, .. } => {
            let mut tokens = vec![token("program", program)];
            tokens.extend(script.as_deref().map(|script| token("path", script)));
            tokens
        }
        Object::McpTool { server, tool } => vec![token("mcp", &format!("{server}/{tool}"))],
        Object::Credential { name } => vec![token("credential", name)],
        Object::ConfigKey { system, key } => vec![token("config", &format!("{system}:{key}"))],
        Object::Text { .. } => Vec::new(),
    }
}

/// The objects that a prompt names literally.
pub(crate) fn named(prompt: &str, place: &Place<'_>) -> BTreeSet<u64> {
    let mut end = prompt.len().min(PROMPT_BYTES_MAX);
    while !prompt.is_char_boundary(end) {
        end -= 1;
    }
    let mut named = BTreeSet::new();
    let words = prompt
        .get(..end)
        .unwrap_or_default()
        .split(|c: char| c.is_whitespace() || "\"'`<>()[]{},;|".contains(c))
        .map(|word| word.trim_end_matches(['.', ':', '!', '?']).trim_start_matches(['@', '=']))
        .filter(|word| !word.is_empty() && word.len() <= 4096);
    for word in words {
        if named.len() >= NAMED_PER_PROMPT_MAX {
            break;
        }
        if let Some((_, rest)) = word.split_once("://") {
            let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
            let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
            let host = host.split_once(':').map_or(host, |(host, _)| host);
            named.insert(token("host", &host.to_ascii_lowercase()));
            continue;
        }
        if let Some(below) = word.strip_prefix("~/") {
            named.extend(normalise(below, place.home).map(|path| token("path", &path)));
        } else if word.contains('/') || word.contains('.') {
            named.extend(normalise(word, place.cwd).map(|path| token("path", &path)));
        }
        if word.contains('.') && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '-') {
            named.insert(token("host", &word.to_ascii_lowercase()));
        }
        if word.len() >= 2 && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_.+".contains(c)) {
            named.insert(token("program", word));
            // A bare word may be a file of the folder in which the agent works.
            named.extend(normalise(word, place.cwd).map(|path| token("path", &path)));
        }
    }
    named
}

/// The grade of one effect's object.
pub(crate) fn grade(
    effect: &Effect,
    is_named: impl Fn(u64) -> bool,
    is_seen: impl Fn(u64) -> bool,
) -> Option<SinkGrade> {
    let tokens = tokens(&effect.object);
    if tokens.is_empty() {
        return None;
    }
    if effect.dynamic {
        // What is not known cannot be known well.
        return Some(SinkGrade::New);
    }
    Some(if tokens.iter().all(|token| is_named(*token)) {
        SinkGrade::NamedByUser
    } else if configured(effect) {
        SinkGrade::Configured
    } else if tokens.iter().all(|token| is_seen(*token)) {
        SinkGrade::SeenBefore
    } else {
        SinkGrade::New
    })
}

/// Whether the bundle's zones vouch for the object.
fn configured(effect: &Effect) -> bool {
    let inside = |names: &[&str]| effect.zones.iter().any(|zone| names.contains(&zone.as_str()));
    match &effect.object {
        Object::Host { .. } => {
            inside(&[Zone::MODEL_PROVIDER, Zone::CODE_HOST, Zone::PACKAGE_REGISTRY, Zone::INTERNAL, Zone::LOOPBACK])
                && !inside(&[Zone::METADATA])
        }
        Object::Path { .. } => {
            inside(&[Zone::WORKSPACE, Zone::TEMPORARY])
                && !inside(&[Zone::SECRETS, Zone::AGENT_CONFIG, Zone::EXEC_BEARING, Zone::SYSTEM])
        }
        Object::McpTool { server, .. } => server.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use creel_model::{Certainty, Verb};

    use super::*;

    fn path(path: &str) -> Object {
        Object::Path { path: path.into(), resolved: None }
    }

    #[test]
    fn a_prompt_endorses_what_it_names_and_nothing_else() {
        let variables = BTreeMap::new();
        let place = Place { cwd: "/w", home: "/home/u", user: "u", variables: &variables };
        let prompt = "Please upload `build/out.tgz` to https://Files.Example.com/in and delete ~/old, using rsync.";
        let known = named(prompt, &place);
        for object in [
            path("/w/build/out.tgz"),
            path("/home/u/old"),
            Object::Host { host: "files.example.com".into(), port: None, url: None },
            Object::Program { program: "rsync".into(), argv: vec![], script: None },
        ] {
            assert!(tokens(&object).iter().all(|token| known.contains(token)), "{object}");
        }
        for object in [path("/w/build"), path("/home/u"), path("/old"), path("/home/u/.ssh/id_ed25519")] {
            assert!(!tokens(&object).iter().any(|token| known.contains(token)), "{object}");
        }
    }

    #[test]
    fn a_named_link_does_not_endorse_its_target() {
        let object = Object::Path { path: "/w/notes".into(), resolved: Some("/home/u/.bashrc".into()) };
        let effect = Effect::new(Verb::Write, object, Certainty::Exact);
        let notes = token("path", "/w/notes");
        assert_eq!(grade(&effect, |token| token == notes, |_| false), Some(SinkGrade::New));
    }

    #[test]
    fn what_is_dynamic_is_new() {
        let mut effect = Effect::new(Verb::Delete, path("/w/$X"), Certainty::Parsed);
        effect.dynamic = true;
        assert_eq!(grade(&effect, |_| true, |_| true), Some(SinkGrade::New));
    }
}
