//! The limits of analysis, in one place. Reaching one never loses an effect silently: the result becomes opaque.

/// Longest command text that is parsed, in bytes; longer is opaque. Parsing is linear, about 1 ms per 16 KiB.
pub(crate) const TEXT_BYTES: usize = 256 * 1024;
/// Most bytes of nested text (`bash -c`, decoded pipes …) parsed for one command text.
pub(crate) const NESTED_BYTES: usize = 512 * 1024;
/// Deepest nesting of texts in texts.
pub(crate) const TEXT_DEPTH: u8 = 8;
/// Deepest nesting of brackets, substitutions and compound commands inside one text, checked before the recursive
/// parser sees it.
pub(crate) const BRACKET_DEPTH: usize = 40;
/// Most brackets and compound commands that a text may leave open: each doubles the parser's time.
pub(crate) const UNCLOSED: usize = 8;
/// Deepest nesting of what the parser reads in several ways (parentheses and `case`), for the same reason.
pub(crate) const DOUBLING: usize = 8;
/// Most `$(`, `${` and `$[` of one text, those that surely close apart: the tokenizer may nest the others, at about
/// 2 KiB of stack each.
pub(crate) const SUBSTITUTIONS: usize = 512;
/// How far the end of a plain substitution is looked for, in bytes.
pub(crate) const PLAIN_SUBSTITUTION_BYTES: usize = 512;
/// Most here-documents of one text.
pub(crate) const DOCUMENTS: usize = 1024;
/// Most words and operators beside here-documents' bodies in a text that has such: the tokenizer may need their square,
/// at most half a second.
pub(crate) const WAITING: usize = 24 * 1024;
/// Most bytes of a here-document's end word times lines that it is compared with.
pub(crate) const END_WORD_WORK: usize = 4 * 1024 * 1024;
/// Most names before brackets, and most brackets and quotes, in a word that begins like an array's element.
pub(crate) const INDEXES: usize = 8;
/// See [`INDEXES`].
pub(crate) const INDEX_MARKS: usize = 64;
/// Most digits of a file descriptor's number before a redirection.
pub(crate) const DESCRIPTOR_DIGITS: usize = 9;
/// Most effects of one text.
pub(crate) const EFFECTS: usize = 64;
/// Most commands of one text, loops of function calls included.
pub(crate) const COMMANDS: usize = 4096;
/// Most variables that a text sets.
pub(crate) const VARIABLES: usize = 256;
/// Most findings of one text.
pub(crate) const FINDINGS: usize = 128;
/// Deepest nesting of function calls followed.
pub(crate) const CALLS: usize = 8;
/// Most words one word's braces become.
pub(crate) const BRACES: usize = 64;
/// Longest text kept of one expanded word or known output, in bytes.
pub(crate) const KNOWN_BYTES: usize = 64 * 1024;
/// Most bytes of output of commands, followed for one text.
pub(crate) const MADE_BYTES: usize = 4 * 1024 * 1024;
/// Most wrappers (`sudo env nohup …`) around one command.
pub(crate) const WRAPPERS: usize = 24;
/// Most commands inside one another, over all nested texts; a 2 MiB stack holds them in a debug build.
pub(crate) const LEVELS: usize = 64;
