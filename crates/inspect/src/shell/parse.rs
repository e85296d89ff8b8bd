//! Shell text → the parser's tree, or why not. Refuses beforehand what the parser cannot bear.
//!
//! The parser is brush-parser's. Its tokenizer reads without nesting except at `$(`, `${` and `$[`; its grammar is
//! recursive and tries alternatives, so depth is measured on the tokens that it will see, not on the text: what a
//! quote or a comment hides is known only then. A newcomer gets wrong: every refusal here is safe, because a text that
//! was not parsed is opaque; everything let through must end soon, because a thread cannot be stopped.

use brush_parser::{ParserOptions, Token, ast};

use crate::bounds;

/// Parses shell text, or says why not. No cache: a text is seen once, and caches would keep secrets.
pub(super) fn parse(text: &str) -> Result<ast::Program, &'static str> {
    if text.len() > bounds::TEXT_BYTES {
        return Err("text is over the limit of 256 KiB");
    }
    if text.contains('\0') {
        return Err("text holds a zero byte");
    }
    match attempt(text) {
        Err(_) if text.contains("\r\n") => attempt(&text.replace("\r\n", "\n")),
        other => other,
    }
}

/// One try. The text is ended with a command that does nothing: at the end of its input the tokenizer would otherwise
/// look for an empty end word of a here-document for ever, taking memory as it goes. With the `:` there, the token that
/// it holds at the end is never empty, and no end word is found in it.
fn attempt(text: &str) -> Result<ast::Program, &'static str> {
    before(text)?;
    let ended = format!("{text}\n:");
    let options = ParserOptions::default();
    let tokens =
        brush_parser::uncached_tokenize_str(&ended, &options.tokenizer_options()).map_err(|_| "text is not shell")?;
    Shape::default().measure(&tokens)?;
    let mut program = brush_parser::parse_tokens(&tokens, &options).map_err(|_| "text is not shell")?;
    match program.complete_commands.pop() {
        Some(last) if does_nothing(&last) => Ok(program),
        // It became part of something: the text was not at its end.
        _ => Err("text is not complete"),
    }
}

/// Whether this is the command that [`attempt`] added, alone.
fn does_nothing(list: &ast::CompoundList) -> bool {
    let [ast::CompoundListItem(and_or, _)] = list.0.as_slice() else { return false };
    let [ast::Command::Simple(simple)] = and_or.first.seq.as_slice() else { return false };
    and_or.additional.is_empty()
        && and_or.first.timed.is_none()
        && !and_or.first.bang
        && simple.prefix.is_none()
        && simple.suffix.is_none()
        && simple.word_or_name.as_ref().is_some_and(|word| word.value == ":")
}

/// What can be told of the text alone: the tokenizer's own recursion and repeated work.
fn before(text: &str) -> Result<(), &'static str> {
    if text.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1 {
        return Err("text ends in the middle of an escape");
    }
    if substitutions(text) > bounds::SUBSTITUTIONS {
        return Err("text holds too many substitutions");
    }
    let Some(first) = text.find("<<") else { return Ok(()) };
    let whole = text.get(first..).unwrap_or_default();
    let lines = whole.bytes().filter(|byte| *byte == b'\n').count();
    let (mut rest, mut documents) = (whole, 0_usize);
    while let Some(at) = rest.find("<<") {
        let after = rest.get(at..).unwrap_or_default().trim_start_matches('<');
        end_word(after, lines)?;
        documents += 1;
        rest = after;
    }
    if documents > bounds::DOCUMENTS {
        return Err("text holds too many here-documents");
    }
    // The tokenizer moves all that waits for the end of a document once for each token of it.
    if marks(whole) > bounds::WAITING && !plain_documents(text) {
        return Err("a here-document stands among too many words");
    }
    Ok(())
}

/// How many tokens a text may have at most, newlines apart.
fn marks(text: &str) -> usize {
    text.bytes().filter(|byte| b" \t;|&<>()".contains(byte)).count()
}

/// An upper bound of how deeply `$(`, `${` and `$[` nest: all of them, except those that are surely closed soon. Other
/// closing brackets are not trusted: they may stand in quotes.
fn substitutions(text: &str) -> usize {
    text.split_inclusive('$')
        .scan(0, |at, part| {
            *at += part.len();
            Some(*at)
        })
        .filter_map(|at| text.get(at..))
        .filter(|after| match after.as_bytes().first() {
            Some(b'(') => !closes(after.as_bytes().get(1..).unwrap_or_default()),
            Some(b'{') => !named(after.as_bytes()),
            first => first == Some(&b'['),
        })
        .count()
}

/// Whether this is `{NAME}`.
fn named(bytes: &[u8]) -> bool {
    let name = |byte: &&u8| byte.is_ascii_alphanumeric() || **byte == b'_';
    let length = bytes.iter().skip(1).take_while(name).count();
    bytes.get(length + 1) == Some(&b'}')
}

/// Whether a substitution that begins here ends with nothing but plain words and simple quotes in it.
fn closes(bytes: &[u8]) -> bool {
    let mut quote = None;
    let mut last = 0;
    for (at, &byte) in bytes.iter().enumerate().take(bounds::PLAIN_SUBSTITUTION_BYTES) {
        match (quote, byte) {
            (Some(b'\''), _) if byte != b'\'' => {}
            (_, b'`' | b'\\' | b'[') | (None, b'(' | b'#') => return false,
            (_, b'{') if last == b'$' && !bytes.get(at..).is_some_and(named) => return false,
            (_, b'(') if last == b'$' => return false,
            (None, b'<') if last == b'<' => return false,
            (None, b')') => return true,
            (None, b'\'' | b'"') => quote = Some(byte),
            (Some(open), _) if open == byte => quote = None,
            _ => {}
        }
        last = byte;
    }
    false
}

/// Refuses a word behind `<<` in which something is substituted, or which is long in a text of many lines, with each of
/// which it would be compared. A shell takes such a word literally; the parser takes the first word of what is
/// substituted, and would look for the document's end elsewhere.
fn end_word(after: &str, lines: usize) -> Result<(), &'static str> {
    let word = after.strip_prefix('-').unwrap_or(after).trim_start_matches([' ', '\t']);
    let (mut quote, mut escaped, mut last) = (None, false, None);
    for (length, c) in word.char_indices() {
        if length.saturating_mul(lines) > bounds::END_WORD_WORK {
            return Err("a here-document's end word is too long");
        }
        match (quote, c) {
            _ if escaped => escaped = false,
            (None | Some('"'), '\\') => escaped = true,
            (None | Some('"'), '(' | '{' | '[') if last == Some('$') => {
                return Err("a here-document's end word is not plain");
            }
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), _) if open == c => quote = None,
            (None, _) if c.is_ascii_whitespace() || ";|&<>()".contains(c) => return Ok(()),
            _ => {}
        }
        last = Some(c);
    }
    Ok(())
}

/// Whether few words stand outside of here-documents' bodies, where these can be told without doubt: each line outside
/// is plain, so that nothing goes on over its end.
fn plain_documents(text: &str) -> bool {
    let mut lines = text.lines();
    let mut outside = 0;
    while let Some(line) = lines.next() {
        outside += marks(line) + 1;
        let quotes = |mark: char| line.matches(mark).count();
        let doubtful = line.contains(['`', '#']) || line.contains("((") || quotes('\'') % 2 + quotes('"') % 2 > 0;
        if outside > bounds::WAITING || doubtful || (quotes('\'') > 0 && quotes('"') > 0) {
            return false;
        }
        let Some((_, after)) = line.split_once("<<") else {
            if line.contains('\\') {
                return false;
            }
            continue;
        };
        let word = after.strip_prefix('-').unwrap_or(after).trim_start_matches([' ', '\t']);
        let word = word.split([' ', '\t', ';', '|', '&', '<', '>']).next().unwrap_or_default();
        let Some(end) = plain(word) else { return false };
        if line.replacen("<<\\", "<<", 1).contains('\\') || after.contains(['(', ')', '{', '}', '[', ']', '<']) {
            return false;
        }
        if !lines.by_ref().any(|line| line.trim_start_matches('\t') == end) {
            return true;
        }
    }
    true
}

/// What an end word stands for, when that is the same to every shell and to the parser: letters, digits and a few
/// marks, wholly in quotes, behind one backslash, or as they are.
fn plain(word: &str) -> Option<&str> {
    let quoted = |mark: char| word.strip_prefix(mark).and_then(|rest| rest.strip_suffix(mark));
    let inner = quoted('\'').or_else(|| quoted('"')).or_else(|| word.strip_prefix('\\')).unwrap_or(word);
    let known = !inner.is_empty() && inner.chars().all(|c| c.is_alphanumeric() || "_-.!@%+=:,".contains(c));
    known.then_some(inner)
}

/// Refuses a here-document whose end another shell may see elsewhere than the parser.
fn document(tag: &str, tabs: bool, body: &str) -> Result<(), &'static str> {
    let Some(end) = plain(tag) else { return Err("a here-document's end word is not plain") };
    if end != tag {
        return Ok(());
    }
    // Without quotes, a backslash at a line's end joins the next line to it before either is compared.
    let mut joined = String::new();
    for line in body.lines() {
        let backslashes = line.bytes().rev().take_while(|byte| *byte == b'\\').count();
        if backslashes % 2 == 1 {
            joined.push_str(line.get(..line.len() - 1).unwrap_or_default());
            continue;
        }
        joined.push_str(line);
        if joined.len() > line.len() && joined.trim_start_matches(|c| tabs && c == '\t') == end {
            return Err("a here-document's end is spread over lines");
        }
        joined.clear();
    }
    if joined.is_empty() && !body.ends_with("\\\n") { Ok(()) } else { Err("a here-document's last line goes on") }
}

/// What is open while the tokens are read.
#[derive(Default)]
struct Shape<'a> {
    open: Vec<&'a str>,
    /// Those of `open` of which the grammar tries every reading: its time doubles with each.
    doubling: usize,
    /// Negations in a row.
    negations: usize,
    /// The last two tokens that are no newlines.
    before: Option<&'a Token>,
    second: Option<&'a Token>,
    /// Whether newlines stood behind them.
    newline: bool,
}

impl<'a> Shape<'a> {
    /// Refuses what nests too deeply, and single tokens that the grammar cannot bear. An upper bound: something may
    /// count as open that is none, but nothing counts as closed that the grammar still has open.
    fn measure(&mut self, tokens: &'a [Token]) -> Result<(), &'static str> {
        for (at, token) in tokens.iter().enumerate() {
            let mut following = tokens.get(at + 1..).unwrap_or_default().iter();
            match token {
                Token::Operator(operator, _) => {
                    match operator.as_str() {
                        "(" => self.push("("),
                        ")" => self.pop(&["("]),
                        "<<" | "<<-" => {
                            let mut word = || following.next().map(Token::to_str).unwrap_or_default();
                            let (tag, body, end) = (word(), word(), word());
                            // In an arithmetic expression these are shifts, and no end word follows.
                            if !tag.is_empty() && brush_parser::unquote_str(tag) == end {
                                document(tag, operator == "<<-", body)?;
                            }
                        }
                        _ => {}
                    }
                    self.negations = 0;
                }
                Token::Word(word, _) => {
                    let next = following.next();
                    descriptor(token, next)?;
                    index(word)?;
                    self.negations = if word == "!" { self.negations + 1 } else { 0 };
                    self.word(word, next.map(Token::to_str));
                }
            }
            if token.to_str() == "\n" {
                self.newline = true;
            } else {
                (self.second, self.before, self.newline) = (self.before, Some(token), false);
            }
            if self.open.len().max(self.negations) > bounds::BRACKET_DEPTH {
                return Err("text is nested too deeply");
            }
            if self.doubling > bounds::DOUBLING {
                return Err("text nests what has several readings too deeply");
            }
        }
        // Each bracket that is never closed doubles the time too.
        if self.open.len() > bounds::UNCLOSED { Err("text leaves too much open") } else { Ok(()) }
    }

    fn push(&mut self, opener: &'a str) {
        self.open.push(opener);
        self.doubling += usize::from(matches!(opener, "(" | "case"));
    }

    fn pop(&mut self, openers: &[&str]) {
        if let Some(opener) = self.open.pop_if(|top| openers.contains(top)) {
            self.doubling -= usize::from(matches!(opener, "(" | "case"));
        }
    }

    fn word(&mut self, word: &'a str, next: Option<&str>) {
        let (said, operator) = match self.before {
            None => ("", true),
            Some(Token::Operator(operator, _)) => (operator.as_str(), true),
            Some(Token::Word(word, _)) => (word.as_str(), false),
        };
        // Where a command may begin: behind what ends or opens one, or behind a function's name.
        let begins = self.newline
            || (operator && !said.starts_with(['<', '>']))
            || matches!(
                said,
                "{" | "!" | "then" | "do" | "else" | "elif" | "if" | "while" | "until" | "time" | "-p" | "coproc"
            )
            || self.second.is_some_and(|second| matches!(second.to_str(), "function" | "coproc"));
        // Where a closing word surely closes: behind what ends a command, and not where a word is still expected.
        let ends = if operator {
            matches!(said, ";" | "&" | ";;" | ";&" | ";;&") || (said == ")" && self.newline)
        } else if self.newline {
            !matches!(said, "in" | "coproc" | "[[" | "!")
        } else {
            matches!(said, "}" | "fi" | "done" | "esac")
        };
        match word {
            // A co-process has no end of its own: it stays open.
            "{" | "if" | "while" | "until" | "for" | "select" | "case" | "[[" | "coproc" if begins => self.push(word),
            "}" if ends => self.pop(&["{"]),
            "fi" if ends => self.pop(&["if"]),
            "done" if ends => self.pop(&["while", "until", "for", "select"]),
            // A pattern may be called like the end.
            "esac" if ends && !matches!(next, Some(")" | "|")) => self.pop(&["case"]),
            "]]" => self.pop(&["[["]),
            _ => {}
        }
    }
}

/// Refuses a number right before a redirection that is no file descriptor's: the parser takes it for one that fits, and
/// dies when not.
fn descriptor(word: &Token, next: Option<&Token>) -> Result<(), &'static str> {
    let digits = word.to_str();
    let redirected = next.is_some_and(|next| {
        next.to_str().starts_with(['<', '>']) && next.location().start.index == word.location().end.index
    });
    if redirected && digits.len() > bounds::DESCRIPTOR_DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("text names an impossible file descriptor");
    }
    Ok(())
}

/// Refuses a word that begins like an array's element and in which more brackets follow than the parser can bear: it
/// reads an index by recursion, and tries two readings of each name before a bracket.
fn index(word: &str) -> Result<(), &'static str> {
    let after = word.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_');
    let Some(index) = after.strip_prefix('[').filter(|_| after.len() < word.len()) else { return Ok(()) };
    // An index of nothing but a name, a number or a quoted one ends at the first bracket.
    let (inner, _) = index.split_once(']').unwrap_or((index, ""));
    let marks = |mark: char| inner.matches(mark).count() % 2;
    if !inner.contains(['[', '(', '{', '`', '\\']) && marks('\'') + marks('"') == 0 && index.len() > inner.len() {
        return Ok(());
    }
    let named = |pair: &[u8]| matches!(pair, [name, b'['] if name.is_ascii_alphanumeric() || *name == b'_');
    let names = word.as_bytes().windows(2).filter(|pair| named(pair)).count();
    let openers = word.bytes().filter(|byte| b"[({`\"".contains(byte)).count();
    if names > bounds::INDEXES || openers > bounds::INDEX_MARKS {
        return Err("text holds an index that nests too deeply");
    }
    Ok(())
}
