//! `creel run diff`, `commit`, `undo`, `discard`: what a reviewed run wrote, and what becomes of it.
//!
//! Works alone, without the daemon: layers are the account's own files. The one fact a newcomer gets wrong: a commit does
//! nothing at all when something chosen is refused, unless told to leave that out.

use std::collections::BTreeSet;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use creel_model::cage::WorkspaceMode;
use creel_sandbox::review::{
    self, Change, CommitError, Difference, Folder, FolderError, Kind, Relative, Review, Side, Text, Why, Wish,
};
use serde_json::{Value, json};

use super::patch;
use crate::failure::{Exit, Failure, Outcome};
use crate::out::{self, Format, Look};
use crate::text::{bytes, clean, count, table};
use crate::{clock, up};

/// Arguments of `creel run diff`.
#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// The run, or the beginning of its id; without it the last reviewed run of this folder.
    run: Option<String>,
    /// Only these paths and what is below them.
    paths: Vec<PathBuf>,
    /// One line per file instead of a patch.
    #[arg(long)]
    stat: bool,
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Arguments of `creel run commit`.
#[derive(Debug, Args)]
pub(crate) struct Commit {
    /// The run, or the beginning of its id; without it the last reviewed run of this folder.
    run: Option<String>,
    /// Only these paths and what is below them.
    paths: Vec<PathBuf>,
    /// Also write this sealed file; to be given once for each.
    #[arg(long, value_name = "PATH")]
    include_sealed: Vec<PathBuf>,
    /// Leave out what is refused, and carry over the rest.
    #[arg(long)]
    leave_refused: bool,
    /// How to print what was done.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Arguments of `creel run undo`.
#[derive(Debug, Args)]
pub(crate) struct Undo {
    /// The run, or the beginning of its id.
    run: String,
    /// How to print what was done.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Arguments of `creel run discard`.
#[derive(Debug, Args)]
pub(crate) struct Discard {
    /// The run, or the beginning of its id.
    run: String,
    /// Also forget what earlier commits of it replaced, so that they cannot be undone any more.
    #[arg(long)]
    with_undo: bool,
}

/// Shows what a run wrote.
pub(crate) fn diff(arguments: &Diff) -> Outcome {
    let folder = find_reviewed(arguments.run.as_deref(), Folder::look)?;
    let scope = relative(&folder, &arguments.paths)?;
    let review = review::look(&folder, &scope).map_err(failure)?;
    match arguments.format {
        Format::Table if arguments.stat => stat(&folder, &review)?,
        Format::Table => print_patch(&folder, &review)?,
        format => {
            let items: Result<Vec<Value>, Failure> = review
                .differences
                .iter()
                .map(|(difference, why)| item(&folder, difference, why.as_ref(), arguments.stat))
                .collect();
            out::list(&items?, format, |_| Vec::new())?;
        }
    }
    for (path, why) in &review.unread {
        out::say(&format!("creel: `{}` cannot be read: {why}", path.shown()));
    }
    if review.cut {
        out::say("creel: there is more than is listed; name paths to see the rest");
    }
    if !folder.is_locked() {
        out::say("creel: the run still goes on; this is how far it is");
    }
    Ok(Exit::Good)
}

/// Carries over what a run wrote.
pub(crate) fn commit(arguments: &Commit) -> Outcome {
    let folder = find_reviewed(arguments.run.as_deref(), Folder::open)?;
    let wish = Wish {
        paths: relative(&folder, &arguments.paths)?,
        sealed: relative(&folder, &arguments.include_sealed)?,
        leave_refused: arguments.leave_refused,
    };
    let committed = review::commit(&folder, &wish, clock::now_unix_ns()).map_err(failure)?;
    let run = folder.facts().run.to_string();
    if arguments.format == Format::Table {
        let said = |what: &str| format!("{what} {}", count(committed.done.len() as u64, "path"));
        let left = committed.left.iter().map(|(path, why)| format!("{}: {}", path.shown(), explain(why)));
        out::lines(left.map(|line| format!("left out  {line}")))?;
        if !committed.refused {
            out::lines([said("carried over")])?;
        }
        if !committed.done.is_empty() {
            out::say(&format!("creel: taken back by `creel run undo {run}`"));
        }
    } else {
        let left: Vec<Value> = committed.left.iter().map(|(path, why)| refusal(path, why)).collect();
        let done: Vec<String> = committed.done.iter().map(Relative::shown).collect();
        let refused = committed.refused;
        out::json(&json!({ "run": run, "refused": refused, "done": done, "left": left }), arguments.format)?;
    }
    for path in &committed.unknown {
        out::say(&format!("creel: the run did not change `{}`", path.shown()));
    }
    if committed.refused {
        out::say("creel: nothing was carried over");
        out::say(
            "  hint: choose paths, give `--include-sealed PATH` for each sealed file that you mean, or `--leave-refused`",
        );
        return Ok(Exit::No);
    }
    Ok(if committed.unknown.is_empty() { Exit::Good } else { Exit::No })
}

/// Takes the last commit back.
pub(crate) fn undo(arguments: &Undo) -> Outcome {
    let folder = find_reviewed(Some(&arguments.run), Folder::open)?;
    let restored = review::undo(&folder).map_err(folder_failure)?;
    if restored.of_unix_ns.is_none() {
        return Err(Failure::new(format!("run `{}` has no commit to undo", folder.facts().run)));
    }
    if arguments.format == Format::Table {
        out::lines(restored.left.iter().map(|(path, why)| format!("left as it is  {}: {}", path.shown(), clean(why))))?;
        out::lines([format!("brought back {}", count(restored.done.len() as u64, "path"))])?;
    } else {
        let done: Vec<String> = restored.done.iter().map(Relative::shown).collect();
        let left = restored.left.iter().map(|(path, why)| json!({ "path": path.shown(), "why": why }));
        let left: Vec<Value> = left.collect();
        out::json(&json!({ "run": folder.facts().run, "done": done, "left": left }), arguments.format)?;
    }
    Ok(if restored.left.is_empty() { Exit::Good } else { Exit::No })
}

/// Throws a layer away.
pub(crate) fn discard(arguments: &Discard) -> Outcome {
    let folder = find_reviewed(Some(&arguments.run), Folder::open)?;
    if folder.facts().mode != WorkspaceMode::Review {
        return Err(failure(CommitError::NotReviewed(folder.facts().run.to_string())));
    }
    let run = folder.facts().run.to_string();
    review::discard(folder, arguments.with_undo).map_err(folder_failure)?;
    out::say(&format!("creel: what run {run} wrote is gone"));
    Ok(Exit::Good)
}

/// The run that a person means; without a name the last one of this folder that has what is asked for.
pub(super) fn find(
    run: Option<&str>,
    open: impl Fn(&Path, &str) -> Result<Folder, FolderError>,
    has: impl Fn(&PathBuf) -> bool,
    what: &str,
) -> Result<Folder, Failure> {
    let state = up::state_folder(None)?;
    let mut known = review::runs(&state).map_err(folder_failure)?;
    let id = match run {
        Some(run) => {
            let mut meant = known.iter().filter(|facts| facts.run.as_str().starts_with(run));
            match (meant.next(), meant.next()) {
                (Some(one), None) => one.run.to_string(),
                (Some(_), Some(_)) => return Err(Failure::new(format!("`{}` begins several runs' ids", clean(run)))),
                (None, _) => run.to_owned(),
            }
        }
        None => {
            let here = std::env::current_dir()?;
            let folder = |run: &str| state.join("runs").join(run);
            known.retain(|facts| here.starts_with(&facts.workspace) && has(&folder(facts.run.as_str())));
            let last = known.into_iter().max_by_key(|facts| facts.began_unix_ns);
            let last = last.ok_or_else(|| {
                let flag = if what == "learning" { "--learn" } else { "--review" };
                Failure::new(format!("no {what} run of this folder is kept"))
                    .hint(format!("begin one with `creel run {flag} -- COMMAND`"))
            })?;
            last.run.to_string()
        }
    };
    open(&state, &id).map_err(folder_failure)
}

/// The same, for a run with a layer.
fn find_reviewed(
    run: Option<&str>,
    open: impl Fn(&Path, &str) -> Result<Folder, FolderError>,
) -> Result<Folder, Failure> {
    find(run, open, |folder| folder.join("upper").exists(), "reviewed")
}

/// Paths as typed: against the current folder where that lies in the workspace, else against the workspace.
fn relative(folder: &Folder, paths: &[PathBuf]) -> Result<BTreeSet<Relative>, Failure> {
    let workspace = Path::new(&folder.facts().workspace);
    let here = std::env::current_dir().unwrap_or_default();
    let base = if here.starts_with(workspace) { here.as_path() } else { workspace };
    let parse = |path: &PathBuf| {
        let whole = lexical(&base.join(path));
        let inside = whole.strip_prefix(workspace).ok().and_then(Relative::parse);
        let shown = review::shown_path(path);
        inside.ok_or_else(|| {
            Failure::new(format!("`{shown}` does not lie in the workspace `{}`", review::shown_path(workspace)))
        })
    };
    paths.iter().map(parse).collect()
}

/// Without `.` and `..`, by the text alone.
fn lexical(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut whole, part| {
        match part {
            std::path::Component::ParentDir => {
                whole.pop();
            }
            std::path::Component::CurDir => {}
            part => whole.push(part),
        }
        whole
    })
}

fn print_patch(folder: &Folder, review: &Review) -> Result<(), Failure> {
    let terminal = std::io::stdout().is_terminal();
    let renamed: BTreeSet<&Relative> = review
        .differences
        .iter()
        .filter_map(|(difference, _)| if let Change::Renamed { from } = &difference.change { Some(from) } else { None })
        .collect();
    let mut out = std::io::stdout().lock();
    for (difference, why) in &review.differences {
        let folder_only = |side: &Option<Side>| side.as_ref().is_none_or(|side| side.kind == Kind::Folder);
        let is_folder = folder_only(&difference.before) && folder_only(&difference.after);
        let moved = difference.change == Change::Deleted && renamed.contains(&difference.path);
        if let Some(why) = why {
            // Lines before `diff` are prose to every program that reads patches.
            writeln!(out, "creel: {} is not carried over: {}", difference.path.shown(), explain(why))?;
        }
        if difference.set_id {
            writeln!(out, "creel: {} loses its set-id bits", difference.path.shown())?;
        }
        // Patches know no folders, no FIFOs, and a renamed file only once.
        if moved || is_folder || difference.obstacle.is_some() {
            continue;
        }
        let text = review::text(folder, difference).map_err(failure)?;
        for line in patch::lines(difference, &text, !terminal) {
            out.write_all(&line)?;
            out.write_all(b"\n")?;
        }
    }
    Ok(out.flush()?)
}

fn stat(folder: &Folder, review: &Review) -> Result<(), Failure> {
    let mut rows = Vec::new();
    for (difference, why) in &review.differences {
        let name = match &difference.change {
            Change::Renamed { from } => format!("{} → {}", from.shown(), difference.path.shown()),
            _ => difference.path.shown(),
        };
        let why = why.as_ref().map(explain).unwrap_or_default();
        rows.push(vec![difference.change.word().to_owned(), name, amount(folder, difference)?, why]);
    }
    if rows.is_empty() {
        return out::lines(["the run changed nothing"]);
    }
    let look = Look::of_stdout();
    out::lines(table(&["CHANGE", "PATH", "AMOUNT", "LEFT OUT BECAUSE"], &rows, look.width))
}

fn amount(folder: &Folder, difference: &Difference) -> Result<String, Failure> {
    let size = |side: &Option<Side>| side.as_ref().map_or_else(|| "–".to_owned(), |side| bytes(side.size));
    let modes = |side: &Option<Side>| side.as_ref().map_or_else(String::new, |side| format!("{:o}", side.permissions));
    if difference.change == Change::Permissions {
        return Ok(format!("{} → {}", modes(&difference.before), modes(&difference.after)));
    }
    Ok(match review::text(folder, difference).map_err(failure)? {
        text @ Text::Hunks(_) => {
            let (added, removed) = text.counts();
            format!("+{added} −{removed}")
        }
        Text::Binary | Text::Large => format!("{} → {}", size(&difference.before), size(&difference.after)),
        Text::None => String::new(),
    })
}

/// One difference as JSON. Paths that are no UTF-8 carry their bytes in hexadecimal too.
fn item(folder: &Folder, difference: &Difference, why: Option<&Why>, short: bool) -> Result<Value, Failure> {
    let side = |side: &Option<Side>| match side {
        None => Value::Null,
        Some(side) => json!({
            "kind": side.kind,
            "permissions": format!("{:o}", side.permissions),
            "bytes": side.size,
            "target": side.target.as_deref().map(review::shown),
        }),
    };
    let mut item = json!({
        "path": String::from_utf8_lossy(difference.path.bytes()),
        "change": difference.change.word(),
        "before": side(&difference.before),
        "after": side(&difference.after),
        "set_id_dropped": difference.set_id,
        "refused": why.map(|why| json!({ "kind": word(why), "why": explain(why) })),
    });
    let mut add = |key: &str, value: Value| {
        if let Some(object) = item.as_object_mut() {
            object.insert(key.to_owned(), value);
        }
    };
    if std::str::from_utf8(difference.path.bytes()).is_err() {
        add("path_hex", json!(creel_model::id::hex(difference.path.bytes())));
    }
    if let Change::Renamed { from } = &difference.change {
        add("from", json!(String::from_utf8_lossy(from.bytes())));
    }
    if difference.obstacle.is_none() {
        let text = review::text(folder, difference).map_err(failure)?;
        let (added, removed) = text.counts();
        add(
            "content",
            json!(match text {
                Text::Hunks(_) => "text",
                Text::Binary => "binary",
                Text::Large => "large",
                Text::None => "none",
            }),
        );
        add("lines_added", json!(added));
        add("lines_removed", json!(removed));
        if !short && matches!(text, Text::Hunks(_)) {
            let lines = patch::lines(difference, &text, true);
            let lines: Vec<String> = lines.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect();
            add("patch", json!(lines));
        }
    }
    Ok(item)
}

fn refusal(path: &Relative, why: &Why) -> Value {
    json!({ "path": path.shown(), "kind": word(why), "why": explain(why) })
}

fn word(why: &Why) -> &'static str {
    match why {
        Why::Conflict(_) => "conflict",
        Why::Sealed(_) => "sealed",
        Why::Obstacle(_) => "obstacle",
        Why::Unread(_) => "unread",
        Why::Inside => "inside",
    }
}

fn explain(why: &Why) -> String {
    match why {
        Why::Conflict(what) => (*what).to_owned(),
        Why::Sealed(rule) => format!("sealed by `{}`", clean(rule)),
        Why::Obstacle(what) => (*what).to_owned(),
        Why::Unread(what) => format!("cannot be read: {}", clean(what)),
        Why::Inside => "its folder is left out".to_owned(),
    }
}

fn failure(error: CommitError) -> Failure {
    match error {
        CommitError::Folder(error) => folder_failure(error),
        error @ CommitError::Step { .. } => {
            Failure::new(error.to_string()).hint("`creel run undo` takes back what was carried over")
        }
        error => Failure::new(error.to_string()),
    }
}

pub(super) fn folder_failure(error: FolderError) -> Failure {
    let hint = match &error {
        FolderError::Missing(_) => "only runs with `--review` or `--learn` keep anything",
        FolderError::Running(_) => "it can be looked at with `creel run diff` meanwhile",
        _ => "",
    };
    Failure::new(error.to_string()).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typed_paths_lose_their_dots_by_text_alone() {
        for (path, expected) in [("/a/b/../c", "/a/c"), ("/a/./b/", "/a/b"), ("/../a", "/a")] {
            assert_eq!(lexical(Path::new(path)), Path::new(expected));
        }
    }
}
