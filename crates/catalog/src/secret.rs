//! Whether a key with its value looks like a credential written down in a configuration.
//!
//! Judged by the key's words and the value's shape only: knowing providers' formats is the business of `inspect`.

use serde_json::Value;

/// Places of credentials in a document, as dotted paths; never a value. At most 64.
pub(crate) fn places(root: &Value) -> Vec<String> {
    let mut found = Vec::new();
    walk(root, &mut Vec::new(), &mut found);
    found
}

fn walk(value: &Value, path: &mut Vec<String>, found: &mut Vec<String>) {
    if found.len() >= 64 {
        return;
    }
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                path.push(name.clone());
                walk(value, path, found);
                path.pop();
            }
        }
        Value::Array(list) => {
            let mut before = "";
            for (index, value) in list.iter().enumerate() {
                if let Value::String(text) = value {
                    if in_argument(before, text) {
                        found.push(format!("{}.{index}", path.join(".")));
                    }
                    before = text;
                } else {
                    before = "";
                    path.push(index.to_string());
                    walk(value, path, found);
                    path.pop();
                }
            }
        }
        Value::String(text) => {
            let key = path.last().map_or("", String::as_str);
            if (names_secret(key) && is_literal(text)) || in_url(text) {
                found.push(path.join("."));
            }
        }
        _ => {}
    }
}

/// `--api-key VALUE`, `--token=VALUE`, `Authorization: Bearer VALUE`, a URL with a password.
fn in_argument(before: &str, text: &str) -> bool {
    if before.starts_with('-') && !before.contains('=') && names_secret(before.trim_start_matches('-')) {
        return !text.starts_with('-') && is_literal(text);
    }
    if let Some((name, value)) = text.split_once('=')
        && !name.contains(' ')
        && names_secret(name.trim_start_matches('-'))
    {
        return is_literal(value);
    }
    if let Some((name, value)) = text.split_once(": ")
        && names_secret(name)
    {
        return is_literal(value);
    }
    in_url(text)
}

/// `https://user:password@host`, `https://host/?api_key=…`.
fn in_url(text: &str) -> bool {
    let Some((_, rest)) = text.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
    if let Some((user, _)) = authority.rsplit_once('@')
        && let Some((_, password)) = user.split_once(':')
    {
        return is_literal(password);
    }
    let query = rest.split_once('?').map_or("", |(_, query)| query);
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .any(|(name, value)| names_secret(name) && is_literal(value))
}

/// Whether a key's words say that its value is a credential: `GITHUB_TOKEN`, `apiKey`, `client-secret`, `Authorization`.
pub(crate) fn names_secret(key: &str) -> bool {
    let words = words(key);
    let Some(last) = words.last().map(String::as_str) else { return false };
    let before = words.len().checked_sub(2).and_then(|index| words.get(index)).map_or("", String::as_str);
    match last {
        "token" | "secret" | "password" | "passwd" | "passphrase" | "credential" | "credentials" | "authorization"
        | "apikey" | "authtoken" | "accesstoken" | "pat" => true,
        "key" => {
            matches!(before, "api" | "access" | "secret" | "private" | "auth" | "signing" | "encryption" | "account" | "service")
                // `STRIPE_KEY`: in the style of variables a key is a credential, unless it says that it is a public one.
                || (key.contains('_') && key.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_') && before != "public")
        }
        _ => false,
    }
}

/// `githubToken`, `GITHUB_TOKEN`, `github-token` → `github`, `token`.
fn words(key: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut word = String::new();
    let mut lower_before = false;
    for c in key.chars().take(128) {
        let part = !c.is_ascii_alphanumeric();
        if (part || (c.is_ascii_uppercase() && lower_before)) && !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        if !part {
            word.push(c.to_ascii_lowercase());
        }
        lower_before = c.is_ascii_lowercase() || c.is_ascii_digit();
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Whether a value is a credential itself, not a reference to one, a placeholder or a word.
fn is_literal(value: &str) -> bool {
    let value = value.trim();
    let value =
        ["Bearer ", "bearer ", "Basic ", "token "].iter().find_map(|word| value.strip_prefix(word)).unwrap_or(value);
    if value.len() < 8 || value.contains(char::is_whitespace) {
        return false;
    }
    let reference =
        value.starts_with('$') || value.contains("${") || value.contains("{env:") || value.contains("{file:");
    let reference = reference
        || value.starts_with("env:")
        || value.starts_with("op://")
        || value.starts_with('/')
        || value.starts_with("~/");
    let lower = value.to_ascii_lowercase();
    let placeholder = (value.starts_with('<') && value.ends_with('>'))
        || [
            "your",
            "changeme",
            "change-me",
            "placeholder",
            "example",
            "replace",
            "xxxx",
            "****",
            "redacted",
            "dummy",
            "todo",
        ]
        .iter()
        .any(|word| lower.contains(word));
    // A single letter over and over, or words alone such as `keychain` and `oauth-personal`.
    let varied = value.bytes().collect::<std::collections::BTreeSet<_>>().len() >= 5;
    let mixed = value.bytes().any(|byte| byte.is_ascii_digit())
        || value.bytes().any(|byte| byte.is_ascii_uppercase())
        || value.len() >= 24;
    !reference && !placeholder && varied && mixed
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys() {
        for key in [
            "GITHUB_TOKEN",
            "apiKey",
            "client-secret",
            "Authorization",
            "STRIPE_KEY",
            "x-api-key",
            "OPENAI_API_KEY",
            "accessToken",
        ] {
            assert!(names_secret(key), "{key}");
        }
        for key in [
            "key",
            "maxTokens",
            "tokenizer",
            "publicKey",
            "PUBLIC_KEY",
            "env_key",
            "bearer_token_env_var",
            "keyBindings",
            "primary",
            "",
        ] {
            assert!(!names_secret(key), "{key}");
        }
    }

    #[test]
    fn documents() {
        let check = |value: Value, expected: &[&str]| assert_eq!(places(&value), expected, "{value}");
        check(json!({"env":{"GITHUB_TOKEN":"gh0_A1b2C3d4E5f6"}}), &["env.GITHUB_TOKEN"]);
        check(json!({"env":{"GITHUB_TOKEN":"${GITHUB_TOKEN}","A_KEY":"<your key>","B_KEY":"$X_KEY_OF_MINE"}}), &[]);
        check(json!({"args":["--token","A1b2C3d4E5f6","--key-file","/x"]}), &["args.1"]);
        check(json!({"args":["--api-key=A1b2C3d4E5f6","-y"]}), &["args.0"]);
        check(json!({"headers":{"Authorization":"Bearer A1b2C3d4E5f6"}}), &["headers.Authorization"]);
        check(json!({"args":["--header","Authorization: Bearer A1b2C3d4E5f6"]}), &["args.1"]);
        check(json!({"url":"https://u:A1b2C3d4E5@h/p"}), &["url"]);
        check(json!({"url":"https://h/p?api_key=A1b2C3d4E5&x=1"}), &["url"]);
        check(json!({"auth":{"mode":"token","token":"keychain"},"apiKeyHelper":"/bin/x"}), &[]);
        check(json!({"token":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}), &[]);
    }
}
