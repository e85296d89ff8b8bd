//! Looks at SQL text (and MongoDB shell text) for statements that drop data or leave the database.
//!
//! Not a parser: comments and strings are blanked, statements are split at semicolons, and the first words decide.

use creel_model::{CommandClass, Verb};

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) classes: Vec<(CommandClass, &'static str)>,
    /// Shell commands that statements run.
    pub(crate) commands: Vec<String>,
    pub(crate) paths: Vec<(Verb, String)>,
}

/// Looks at the text; linear in its length.
pub(crate) fn look(text: &str) -> Report {
    let mut report = Report::default();
    let (blank, strings) = blank(text);
    let mut string = 0;
    for statement in blank.split(';') {
        let used: Vec<&String> = strings.iter().skip(string).take(statement.matches('\'').count() / 2).collect();
        string += used.len();
        let words: Vec<&str> =
            statement.split(|c: char| c.is_whitespace() || "(),".contains(c)).filter(|w| !w.is_empty()).collect();
        let word = |index: usize| words.get(index).copied().unwrap_or_default();
        match word(0) {
            "DROP"
                if matches!(
                    word(1),
                    "TABLE"
                        | "DATABASE"
                        | "SCHEMA"
                        | "USER"
                        | "ROLE"
                        | "VIEW"
                        | "MATERIALIZED"
                        | "KEYSPACE"
                        | "COLLECTION"
                ) =>
            {
                report.classes.push((CommandClass::DatabaseDrop, "a database object is dropped"));
            }
            "TRUNCATE" => report.classes.push((CommandClass::DatabaseDrop, "a table is emptied")),
            "DELETE" if !words.contains(&"WHERE") && words.contains(&"FROM") => {
                report.classes.push((CommandClass::DatabaseDrop, "all rows are deleted"));
            }
            "UPDATE" if !words.contains(&"WHERE") && words.contains(&"SET") => {
                report.classes.push((CommandClass::DatabaseDrop, "all rows are changed"));
            }
            "ALTER" if words.contains(&"DROP") => {
                report.classes.push((CommandClass::DatabaseDrop, "a column is dropped"))
            }
            "COPY" if words.contains(&"PROGRAM") => report.commands.extend(used.iter().map(|s| (*s).clone())),
            "COPY" => {
                let verb = if words.contains(&"TO") { Verb::Write } else { Verb::Read };
                report.paths.extend(used.first().filter(|s| s.starts_with('/')).map(|s| (verb, (*s).clone())));
            }
            first if first.starts_with("\\!") || first == "SYSTEM" || first == ".SHELL" || first == ".SYSTEM" => {
                let rest = text.find("\\!").map(|at| at + 2).or_else(|| text.find(' ')).and_then(|at| text.get(at..));
                report.commands.extend(
                    rest.map(|rest| rest.lines().next().unwrap_or_default().trim().trim_matches('\'').to_owned()),
                );
            }
            _ => {}
        }
        if statement.contains("XP_CMDSHELL") {
            report.classes.push((CommandClass::Privilege, "the database runs a program"));
        }
        if words.windows(2).any(|w| w == ["INTO", "OUTFILE"] || w == ["INTO", "DUMPFILE"]) {
            report.paths.extend(used.last().map(|s| (Verb::Write, (*s).clone())));
        }
        if let Some(read) = ["LOAD_FILE", "PG_READ_FILE", "LO_IMPORT"].iter().find(|f| statement.contains(**f)) {
            let _ = read;
            report.paths.extend(used.first().map(|s| (Verb::Read, (*s).clone())));
        }
    }
    let lower = text.to_ascii_lowercase();
    for call in [".dropdatabase(", ".drop()", ".deletemany({})", ".remove({})", "flushall", "flushdb"] {
        if lower.contains(call) {
            report.classes.push((CommandClass::DatabaseDrop, "a database or collection is dropped"));
        }
    }
    report
}

/// Upper-cased text with comments and the content of strings blanked, and the strings.
fn blank(text: &str) -> (String, Vec<String>) {
    let (mut out, mut strings) = (String::with_capacity(text.len()), Vec::new());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\'' => {
                let mut inner = String::new();
                for c in chars.by_ref() {
                    if c == '\'' {
                        break;
                    }
                    inner.push(c);
                }
                strings.push(inner);
                out.push_str("''");
            }
            '-' if chars.peek() == Some(&'-') => {
                for c in chars.by_ref() {
                    if c == '\n' {
                        break;
                    }
                }
                out.push(' ');
            }
            '/' if chars.peek() == Some(&'*') => {
                chars.next();
                let mut last = ' ';
                for c in chars.by_ref() {
                    if last == '*' && c == '/' {
                        break;
                    }
                    last = c;
                }
                out.push(' ');
            }
            c => out.push(c.to_ascii_uppercase()),
        }
    }
    (out, strings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drops(text: &str) -> bool {
        look(text).classes.iter().any(|(c, _)| *c == CommandClass::DatabaseDrop)
    }

    #[test]
    fn only_statements_that_lose_data_count() {
        assert!(drops("drop table users") && drops("SELECT 1; /* x */ TRUNCATE a;") && drops("delete from t"));
        assert!(drops("delete/**/from t -- where"));
        assert!(!drops("delete from t where id = 1") && !drops("select 'drop table x'") && !drops("-- drop table x"));
        assert_eq!(look("COPY t FROM PROGRAM 'id'").commands, ["id"]);
    }
}
