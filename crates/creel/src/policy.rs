//! `creel policy`: test, show, explain and change the rules. One file per group of verbs.
//!
//! What needs no running daemon is asked of its program (see [`crate::offline`]): a bundle is text that people review,
//! and its tests run wherever the text is.

mod bundle;
mod change;
mod explain;
mod read;

use std::path::Path;

use clap::{Args, Subcommand};
use creel_wire::control::DiagnosticView;

use crate::failure::{Failure, Outcome};
use crate::out::{self, Format};
use crate::text::clean;

/// Arguments of `creel policy`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  creel policy test                      the rules in force, or those of ./bundle.toml\n  creel policy report                    what the rules would have asked or denied\n  creel policy enforce                   let all rules act\n  creel policy audit noisy-rule          let one only watch again\n  creel policy replay --bundle ./new     what another bundle would have decided\n  creel policy explain 1234              why that was decided"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run a bundle's own decision tables.
    Test(read::Bundle),
    /// Show the rules in force.
    Show(read::Show),
    /// Check a bundle folder: every mistake with file, line and column.
    Check(read::Check),
    /// Put a bundle in force.
    Load(change::Load),
    /// Say why a record was decided as it was: the rule and the facts.
    Explain(explain::Arguments),
    /// Judge the record again with another bundle; changes nothing.
    Replay(change::Replay),
    /// Rule × agent × mechanism: held, mediated, hook-only or not held.
    Coverage(read::Bundle),
    /// Verb × zone without context: what holds whatever happens.
    Floor(read::Bundle),
    /// Let rules act.
    Enforce(change::Modes),
    /// Let rules only watch.
    Audit(change::Modes),
    /// What the watching rules would have asked or denied.
    Report(read::Report),
}

/// Does it.
pub(crate) fn run(arguments: Arguments, runtime: Option<&Path>) -> Outcome {
    match arguments.verb {
        Verb::Test(arguments) => read::test(&arguments, runtime),
        Verb::Show(arguments) => read::show(&arguments, runtime),
        Verb::Check(arguments) => read::check(&arguments),
        Verb::Load(arguments) => change::load(&arguments, runtime),
        Verb::Explain(arguments) => explain::run(&arguments, runtime),
        Verb::Replay(arguments) => change::replay(&arguments, runtime),
        Verb::Coverage(arguments) => read::coverage(&arguments, runtime),
        Verb::Floor(arguments) => read::floor(&arguments, runtime),
        Verb::Enforce(arguments) => change::modes(&arguments, creel_model::RuleMode::Block, runtime),
        Verb::Audit(arguments) => change::modes(&arguments, creel_model::RuleMode::Audit, runtime),
        Verb::Report(arguments) => read::report(&arguments, runtime),
    }
}

/// Prints a bundle's mistakes as compilers do; says so by the exit code.
pub(crate) fn mistakes(diagnostics: &[DiagnosticView], format: Format) -> Result<(), Failure> {
    if format != Format::Table {
        return out::list(diagnostics, format, |_| Vec::new());
    }
    out::lines(diagnostics.iter().flat_map(mistake))
}

fn mistake(diagnostic: &DiagnosticView) -> Vec<String> {
    let place = match (diagnostic.line, diagnostic.column) {
        (0, _) => clean(&diagnostic.file),
        (line, 0) => format!("{}:{line}", clean(&diagnostic.file)),
        (line, column) => format!("{}:{line}:{column}", clean(&diagnostic.file)),
    };
    let mut lines = vec![format!("{place}: {}", clean(&diagnostic.message))];
    if !diagnostic.hint.is_empty() {
        lines.push(format!("  hint: {}", clean(&diagnostic.hint)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_look_as_those_of_compilers() {
        let mut diagnostic = DiagnosticView {
            file: "rules/files.cedar".to_owned(),
            line: 12,
            column: 5,
            message: "unknown annotation `@efect`".to_owned(),
            hint: "did you mean `@effect`?".to_owned(),
        };
        assert_eq!(
            mistake(&diagnostic),
            ["rules/files.cedar:12:5: unknown annotation `@efect`", "  hint: did you mean `@effect`?"]
        );
        diagnostic.line = 0;
        diagnostic.hint.clear();
        assert_eq!(mistake(&diagnostic), ["rules/files.cedar: unknown annotation `@efect`"]);
    }
}
