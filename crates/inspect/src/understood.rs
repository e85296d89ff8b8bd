//! What was understood of a command text, as plain data.

use std::collections::BTreeSet;

use creel_model::{CommandClass, Effect, Finding};

/// Which language a command text is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shell {
    /// sh, bash, zsh and their relatives: analysed in depth.
    Posix,
    /// PowerShell: looked at for suspicion only, always opaque.
    PowerShell,
    /// The Windows command processor: looked at for suspicion only, always opaque.
    Cmd,
}

/// One command that the text would run, after its wrappers (`sudo`, `env`, `bash -c` …) were taken off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimpleCommand {
    /// Base name of the program; the raw word where it could not be determined.
    pub program: String,
    /// Its arguments after expansion, as far as known; unknown parts stand as written.
    pub argv: Vec<String>,
    /// Whether program and arguments are all literally known.
    pub known: bool,
    /// How many texts it was nested in: 0 is the given text, 1 a `bash -c` in it, and so on.
    pub depth: u8,
    /// The wrapper commands around it, outermost first.
    pub via: Vec<String>,
    /// Byte range in the given text of the top-level command it came from.
    pub span: (usize, usize),
    /// What kind of command it is.
    pub classes: BTreeSet<CommandClass>,
}

/// What a command text would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Understood {
    /// Effects, at most 64, each once.
    pub effects: Vec<Effect>,
    /// Classes of all commands and objects together.
    pub classes: BTreeSet<CommandClass>,
    /// Whether the text could be split into commands.
    pub parsed: bool,
    /// Whether some part may do anything: an unknown command word, an unknown target of a deletion or redirection,
    /// a redefinition, text that was not understood, a limit.
    pub opaque: bool,
    /// More effects or commands than the limits hold; always also opaque.
    pub overflow: bool,
    /// Why classes and opacity were assigned, with spans into the given text. Holds no argument values.
    pub findings: Vec<Finding>,
    /// Every command found, in the order of the text, at most 4,096.
    pub commands: Vec<SimpleCommand>,
}
