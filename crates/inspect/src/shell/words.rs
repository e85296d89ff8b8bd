//! Expands one raw shell word into the arguments it becomes, as far as the text alone tells.
//!
//! The fact a newcomer gets wrong: "unknown" and "loose" differ. An unknown word may be anything (`$X`), a loose one
//! has a known shape whose holes cannot leave their folder (`*.o`, `log.$$`).

use super::flow::Flow;
use super::spelling::{
    ansi_c, ansi_c_end, arithmetic_end, backtick_end, brace_end, braces, double_quote_end, is_disguised, paren_end,
    unescape_backticks,
};
use super::walk::Walker;
use crate::bounds;

/// One argument after expansion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arg {
    /// Its text; unknown parts stand as written.
    pub(crate) text: String,
    /// Some part is unknown: the text may become anything.
    pub(crate) unknown: bool,
    /// Some part is a pattern or a number: the shape is known, the exact text is not.
    pub(crate) loose: bool,
    /// The word was spelled so that its text does not stand in the source.
    pub(crate) disguised: bool,
    /// Where its content came from, when that is a command's output or a process substitution.
    pub(crate) flow: Option<Box<Flow>>,
}

impl Arg {
    /// A literal argument.
    pub(crate) fn literal(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// Whether its text is exactly known.
    pub(crate) const fn known(&self) -> bool {
        !self.unknown && !self.loose
    }
}

/// The fields of a word while it is being expanded.
struct Fields {
    done: Vec<Arg>,
    current: Arg,
    started: bool,
    separators: Separators,
}

/// What splits a value that stands outside quotes: the variable `IFS`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Separators {
    /// White space.
    #[default]
    Usual,
    /// These characters.
    These(String),
    /// Not known: a value may become anything.
    Unknown,
}

impl Fields {
    fn started(started: bool) -> Self {
        Self { done: Vec::new(), current: Arg::default(), started, separators: Separators::Usual }
    }

    fn push_str(&mut self, text: &str) {
        self.started = true;
        if self.current.text.len() + text.len() <= bounds::KNOWN_BYTES {
            self.current.text.push_str(text);
        } else {
            self.current.unknown = true;
        }
    }

    fn push(&mut self, c: char) {
        self.push_str(c.encode_utf8(&mut [0; 4]));
    }

    fn split(&mut self) {
        if self.started {
            self.done.push(std::mem::take(&mut self.current));
            self.started = false;
        }
    }

    /// Adds a value that the shell would split at white space.
    fn push_split(&mut self, text: &str) {
        let separators = std::mem::take(&mut self.separators);
        let separates = |c: char| match &separators {
            Separators::These(these) => these.contains(c),
            _ => c.is_whitespace(),
        };
        self.current.unknown |= separators == Separators::Unknown;
        if text.starts_with(separates) {
            self.split();
        }
        let mut first = true;
        for part in text.split(separates).filter(|part| !part.is_empty()) {
            if !first {
                self.split();
            }
            first = false;
            self.push_str(part);
            if part.contains(['*', '?']) {
                self.current.loose = true;
            }
        }
        if text.ends_with(separates) {
            self.split();
        }
        self.separators = separators;
    }

    fn value(&mut self, value: &Value, quoted: bool, raw: &str) {
        match &value.text {
            Some(text) if quoted => self.push_str(text),
            Some(text) => self.push_split(text),
            None => {
                self.push_str(raw);
                self.current.unknown = true;
            }
        }
        self.current.loose |= value.loose;
        if let Some(flow) = &value.flow {
            self.current.flow.get_or_insert_with(Box::default).merge(flow);
        }
    }
}

/// What a variable or substitution stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Value {
    /// Its exact text, where known.
    pub(crate) text: Option<String>,
    /// Its shape is known, its exact text is not.
    pub(crate) loose: bool,
    /// Where its content came from.
    pub(crate) flow: Option<Box<Flow>>,
}

impl Value {
    /// Exactly this text.
    pub(crate) fn known(text: impl Into<String>) -> Self {
        Self { text: Some(text.into()), ..Self::default() }
    }

    /// A text of this shape.
    fn loose(text: &str) -> Self {
        Self { text: Some(text.to_owned()), loose: true, flow: None }
    }
}

impl Walker<'_> {
    /// The arguments that a raw word becomes; empty when an unquoted expansion is empty.
    pub(crate) fn expand(&mut self, raw: &str) -> Vec<Arg> {
        if !raw.contains(['$', '`', '\'', '"', '\\', '*', '?', '[', '{', '~']) {
            return vec![Arg::literal(raw)];
        }
        let mut out = Vec::new();
        for word in braces(raw) {
            let mut fields = Fields { separators: self.separators(), ..Fields::started(false) };
            self.scan(&word, &mut fields, false, true);
            fields.split();
            for mut arg in fields.done {
                arg.disguised |= is_disguised(raw);
                out.push(arg);
            }
        }
        out
    }

    /// What splits values now.
    fn separators(&self) -> Separators {
        match self.env.variable("IFS") {
            None => Separators::Usual,
            Some(Value { text: Some(these), .. }) => Separators::These(these.clone()),
            Some(_) => Separators::Unknown,
        }
    }

    /// A word where the shell neither splits nor matches patterns: assignments, redirection targets, here-strings.
    pub(crate) fn expand_one(&mut self, raw: &str) -> Arg {
        let mut fields = Fields::started(true);
        self.scan(raw, &mut fields, false, false);
        let mut args = fields.done;
        args.push(fields.current);
        let mut all = Arg::default();
        for (index, arg) in args.into_iter().enumerate() {
            if index > 0 {
                all.text.push(' ');
            }
            all.text.push_str(&arg.text);
            all.unknown |= arg.unknown;
            all.loose |= arg.loose;
            if let Some(flow) = &arg.flow {
                all.flow.get_or_insert_with(Box::default).merge(flow);
            }
        }
        all
    }

    /// The body of a here-document with expansion, as if in double quotes.
    pub(crate) fn expand_body(&mut self, raw: &str) -> Arg {
        let mut fields = Fields::started(true);
        self.scan(raw, &mut fields, true, false);
        fields.current
    }

    /// Reads `raw` piece by piece. `quoted`: inside double quotes; `split`: values split and patterns match.
    fn scan(&mut self, raw: &str, fields: &mut Fields, quoted: bool, split: bool) {
        let mut rest = raw;
        if !quoted && let Some(after) = self.tilde(raw, fields) {
            rest = after;
        }
        while let Some(c) = rest.chars().next() {
            let after = rest.get(c.len_utf8()..).unwrap_or_default();
            rest = match c {
                '\\' => escape(after, fields, quoted),
                '\'' if !quoted => {
                    let (inner, after) = after.split_once('\'').unwrap_or((after, ""));
                    fields.push_str(inner);
                    after
                }
                '"' if !quoted => {
                    let end = double_quote_end(after);
                    fields.started = true;
                    self.scan(after.get(..end).unwrap_or_default(), fields, true, false);
                    after.get(end + 1..).unwrap_or_default()
                }
                '$' if !quoted && after.starts_with('\'') => {
                    let end = ansi_c_end(after.get(1..).unwrap_or_default());
                    let inner = after.get(1..=end).unwrap_or_default();
                    fields.push_str(&ansi_c(inner));
                    after.get(end + 2..).unwrap_or_default()
                }
                '$' if !quoted && after.starts_with('"') => after,
                '$' => self.dollar(after, fields, quoted || !split),
                '`' => {
                    let end = backtick_end(after);
                    let inner = unescape_backticks(after.get(..end).unwrap_or_default());
                    let value = self.substitute(&inner);
                    fields.value(&value, quoted || !split, "`…`");
                    after.get(end + 1..).unwrap_or_default()
                }
                '*' | '?' if !quoted && split => {
                    fields.push(c);
                    fields.current.loose = true;
                    after
                }
                '[' if !quoted && split => {
                    fields.push(c);
                    fields.current.loose |= after.contains(']');
                    after
                }
                c => {
                    fields.push(c);
                    after
                }
            };
        }
    }

    fn tilde<'r>(&self, raw: &'r str, fields: &mut Fields) -> Option<&'r str> {
        let after = raw.strip_prefix('~')?;
        let end = after.find(['/', ':']).unwrap_or(after.len());
        let (who, rest) = after.split_at_checked(end)?;
        let home = match who {
            "" => self.variable("HOME").text.filter(|home| !home.is_empty()),
            "+" => self.env.cwd.as_deref().map(str::to_owned),
            name if name == self.place.user && !name.is_empty() => Some(self.place.home.to_owned()),
            "root" => Some("/root".to_owned()),
            _ => None,
        };
        match home {
            Some(home) => fields.push_str(&home),
            None if who.chars().all(|c| c.is_alphanumeric() || "_-+".contains(c)) => {
                fields.push('~');
                fields.push_str(who);
                fields.current.loose = true;
            }
            None => return None,
        }
        Some(rest)
    }

    /// Reads what follows a dollar sign and gives what follows that.
    fn dollar<'r>(&mut self, after: &'r str, fields: &mut Fields, quoted: bool) -> &'r str {
        let Some(c) = after.chars().next() else {
            fields.push('$');
            return after;
        };
        match c {
            '(' if after.starts_with("((") && arithmetic_end(after).is_some() => {
                let end = arithmetic_end(after).unwrap_or(after.len());
                self.substitutions_in(after.get(2..end.saturating_sub(2)).unwrap_or_default());
                fields.push('0');
                fields.current.loose = true;
                after.get(end..).unwrap_or_default()
            }
            '(' => {
                let body = after.get(1..).unwrap_or_default();
                let end = paren_end(body);
                let value = self.substitute(body.get(..end).unwrap_or_default());
                fields.value(&value, quoted, "$(…)");
                body.get(end + 1..).unwrap_or_default()
            }
            '{' => {
                let body = after.get(1..).unwrap_or_default();
                let end = brace_end(body);
                let inner = body.get(..end).unwrap_or_default();
                let value = self.parameter(inner);
                fields.value(&value, quoted, &format!("${{{inner}}}"));
                body.get(end + 1..).unwrap_or_default()
            }
            '[' => {
                let end = after.find(']').unwrap_or(after.len() - 1);
                fields.push('0');
                fields.current.loose = true;
                after.get(end + 1..).unwrap_or_default()
            }
            '@' | '*' => {
                match self.positional.clone() {
                    Some(args) => {
                        for (index, arg) in args.iter().enumerate() {
                            if index > 0 {
                                fields.split();
                            }
                            fields.push_str(&arg.text);
                            fields.current.unknown |= arg.unknown;
                            fields.current.loose |= arg.loose;
                        }
                    }
                    None => fields.value(&Value::default(), quoted, "$@"),
                }
                after.get(1..).unwrap_or_default()
            }
            '?' | '$' | '!' | '#' | '-' => {
                fields.push('0');
                fields.current.loose = true;
                after.get(1..).unwrap_or_default()
            }
            c if c.is_ascii_digit() => {
                let value = self.variable(after.get(..1).unwrap_or_default());
                fields.value(&value, quoted, &format!("${c}"));
                after.get(1..).unwrap_or_default()
            }
            c if c == '_' || c.is_ascii_alphabetic() => {
                let end = after.find(|c: char| c != '_' && !c.is_ascii_alphanumeric()).unwrap_or(after.len());
                let (name, rest) = after.split_at_checked(end).unwrap_or((after, ""));
                let value = self.variable(name);
                fields.value(&value, quoted, &format!("${name}"));
                rest
            }
            _ => {
                fields.push('$');
                after
            }
        }
    }

    /// What a variable stands for now.
    pub(crate) fn variable(&self, name: &str) -> Value {
        if let Some(value) = self.env.variable(name) {
            return value.clone();
        }
        if let Ok(index) = name.parse::<usize>() {
            let arg = index.checked_sub(1).and_then(|i| self.positional.as_ref().map(|args| args.get(i).cloned()));
            return match arg {
                Some(Some(arg)) if !arg.unknown => Value { text: Some(arg.text), loose: arg.loose, flow: arg.flow },
                Some(None) => Value::known(""),
                _ => Value::default(),
            };
        }
        match name {
            "HOME" if !self.place.home.is_empty() => Value::known(self.place.home),
            "PWD" => Value { text: self.env.cwd.as_deref().map(str::to_owned), ..Value::default() },
            "USER" | "LOGNAME" if !self.place.user.is_empty() => Value::known(self.place.user),
            "IFS" => Value::known(" "),
            "RANDOM" | "SECONDS" | "UID" | "EUID" | "PPID" | "LINENO" | "BASHPID" | "EPOCHSECONDS" => Value::loose("0"),
            name => match self.place.variables.get(name) {
                Some(value) => Value::known(value.clone()),
                None => Value {
                    flow: crate::knowledge::is_secret_variable(name)
                        .then(|| Box::new(Flow { secret: true, ..Flow::default() })),
                    ..Value::default()
                },
            },
        }
    }

    /// What `${inner}` stands for. Operators on known values that hide text are carried out; others are unknown.
    fn parameter(&mut self, inner: &str) -> Value {
        if inner.starts_with('!') {
            return Value::default();
        }
        if let Some(name) = inner.strip_prefix('#').filter(|name| !name.is_empty()) {
            let _ = name;
            return Value::loose("0");
        }
        let end = inner.find(|c: char| c != '_' && !c.is_ascii_alphanumeric()).unwrap_or(inner.len());
        let (name, operator) = inner.split_at_checked(end).unwrap_or((inner, ""));
        if name.is_empty() {
            return match inner {
                "@" | "*" => Value::default(),
                _ => Value::loose("0"),
            };
        }
        let value = self.variable(name);
        if operator.is_empty() {
            return value;
        }
        if name == "IFS" {
            return Value::known(" ");
        }
        self.substitutions_in(operator);
        let Some(text) = value.text.clone() else {
            return value;
        };
        let changed = match operator.as_bytes() {
            [b':', b'-' | b'=' | b'?', ..] if !text.is_empty() => Some(text),
            [b'-' | b'=' | b'?', ..] => Some(text),
            [b':', offset @ ..] => substring(&text, offset),
            [b'^', b'^'] => Some(text.to_uppercase()),
            [b',', b','] => Some(text.to_lowercase()),
            [b'/', ..] => replace(&text, operator),
            [b'#' | b'%', ..] => strip(&text, operator),
            _ => None,
        };
        match changed {
            Some(text) => Value { text: Some(text), ..value },
            None => Value { text: None, ..value },
        }
    }

    /// Walks every substitution inside an operand, for its effects only.
    fn substitutions_in(&mut self, operand: &str) {
        if operand.contains("$(") || operand.contains('`') || operand.contains("${") {
            let mut fields = Fields::started(false);
            self.operand_depth += 1;
            if self.operand_depth <= bounds::BRACKET_DEPTH {
                self.scan(operand, &mut fields, true, false);
            } else {
                self.limit("nested expansions");
            }
            self.operand_depth -= 1;
        }
    }
}

fn substring(text: &str, offset: &[u8]) -> Option<String> {
    let spec = std::str::from_utf8(offset).ok()?;
    let mut parts = spec.splitn(2, ':');
    let start: usize = parts.next()?.trim().parse().ok()?;
    let chars = text.chars().skip(start);
    Some(match parts.next() {
        Some(length) => chars.take(length.trim().parse().ok()?).collect(),
        None => chars.collect(),
    })
}

fn replace(text: &str, operator: &str) -> Option<String> {
    let (all, rest) = match operator.strip_prefix("//") {
        Some(rest) => (true, rest),
        None => (false, operator.strip_prefix('/')?),
    };
    let (from, to) = rest.split_once('/').unwrap_or((rest, ""));
    if from.is_empty() || format!("{from}{to}").contains(['*', '?', '[', '$', '`', '\\', '\'', '"', '#', '%']) {
        return None;
    }
    Some(if all { text.replace(from, to) } else { text.replacen(from, to, 1) })
}

fn strip(text: &str, operator: &str) -> Option<String> {
    let pattern = operator.trim_start_matches(['#', '%']);
    if pattern.contains(['*', '?', '[', '$', '`', '\\', '\'', '"']) {
        return None;
    }
    let stripped = if operator.starts_with('#') { text.strip_prefix(pattern) } else { text.strip_suffix(pattern) };
    Some(stripped.unwrap_or(text).to_owned())
}

fn escape<'r>(after: &'r str, fields: &mut Fields, quoted: bool) -> &'r str {
    let Some(c) = after.chars().next() else {
        fields.push('\\');
        return after;
    };
    if c != '\n' {
        if quoted && !matches!(c, '$' | '`' | '"' | '\\') {
            fields.push('\\');
        }
        fields.push(c);
    }
    after.get(c.len_utf8()..).unwrap_or_default()
}
