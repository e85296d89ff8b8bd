//! The papers' commands against the programs: what README.md tells a reader to type must exist.
//!
//! Every line that begins with `./dev` or `creel` in a fenced block of README.md must name a command that exists; a
//! block after the comment `<!-- run -->` is run, in an empty folder with an empty home. It does not compare output.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::place;
use crate::report::Report;
use crate::suite::with_deadline;

/// How long one block may take.
const BLOCK_SECONDS_MAX: u64 = 60;

/// Checks README.md against the programs in `programs`.
pub(crate) fn check(programs: &Path) -> Result<Report> {
    let mut report = Report::default();
    let text = fs::read_to_string(place::root().join("README.md")).context("README.md")?;
    let blocks = blocks(&text);
    let mut commands = 0;
    let mut run = 0;
    for block in &blocks {
        for line in block.lines.iter().filter_map(|line| command_line(line)) {
            commands += 1;
            if let Err(error) = exists(&line, programs) {
                report.complain(format!("README.md: `{}`: {error:#}", line.join(" ")));
            }
        }
        if block.run {
            run += 1;
            execute(block, programs, &mut report)?;
        }
    }
    if commands == 0 || run == 0 {
        report.complain("README.md: no command was found, or none is marked to be run; the check would be empty");
    }
    report.looked_at = format!("README.md: {} blocks, {commands} commands, {run} blocks run", blocks.len());
    Ok(report)
}

struct Block {
    lines: Vec<String>,
    run: bool,
}

fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    let mut run_next = false;
    for line in text.lines() {
        if line.starts_with("```") {
            match open.take() {
                Some(block) => blocks.push(block),
                None => {
                    let shell = ["```sh", "```console", "```bash"].contains(&line.trim_end());
                    open = Some(Block { lines: Vec::new(), run: run_next && shell });
                    run_next = false;
                }
            }
        } else if let Some(block) = &mut open {
            block.lines.push(line.to_owned());
        } else if line.trim() == "<!-- run -->" {
            run_next = true;
        }
    }
    blocks
}

/// The words of a line that is a command of ours, without its comment.
fn command_line(line: &str) -> Option<Vec<String>> {
    let line = line.trim().trim_start_matches("$ ");
    let line = line.split(" #").next().unwrap_or(line);
    let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    let first = words.first()?;
    (first == "./dev" || first == "creel" || first == "creeld").then_some(words)
}

fn exists(words: &[String], programs: &Path) -> Result<()> {
    let (first, rest) = words.split_first().context("empty")?;
    if first == "./dev" {
        let help = Command::new("./dev").arg("help").current_dir(place::root()).output().context("./dev help")?;
        let help = String::from_utf8_lossy(&help.stdout).into_owned();
        let command = rest.first().map_or("help", String::as_str);
        let known = help.lines().any(|line| line.split_whitespace().next() == Some(command));
        anyhow::ensure!(known || command == "help", "`./dev help` does not know it");
        return Ok(());
    }
    // The leading plain words are the command; what follows are values, which no help text checks.
    let plain = rest
        .iter()
        .take_while(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !word.starts_with('-'));
    let mut command = Command::new(programs.join(first));
    command.args(plain).arg("--help").stdin(Stdio::null());
    let output = command.output().with_context(|| format!("start {first}"))?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    let help = String::from_utf8_lossy(&output.stdout).into_owned();
    for option in rest.iter().filter(|word| word.starts_with("--")) {
        let name = option.split('=').next().unwrap_or(option).trim_end_matches(']');
        anyhow::ensure!(help.contains(name), "its help does not mention `{name}`");
    }
    Ok(())
}

fn execute(block: &Block, programs: &Path, report: &mut Report) -> Result<()> {
    let folder = place::target().join("tmp").join("readme");
    if folder.exists() {
        fs::remove_dir_all(&folder).context("readme folder")?;
    }
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let script: Vec<&str> = block.lines.iter().map(|line| line.trim_start_matches("$ ")).collect();
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", &script.join("\n")]).current_dir(&folder);
    command.env("HOME", &folder).env("PATH", format!("{}:/usr/bin:/bin", programs.display()));
    let ended = with_deadline(command, Duration::from_secs(BLOCK_SECONDS_MAX))?;
    if !ended.good {
        report.complain(format!(
            "README.md: a block did not run ({}):\n{}\n{}",
            ended.end,
            script.join("\n"),
            ended.output
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_commands_and_marks_are_read() {
        let text = "x\n```sh\n./dev up   # go\n```\n<!-- run -->\n```console\n$ creel inspect --as command -\n```\n";
        let blocks = blocks(text);
        assert_eq!(blocks.len(), 2);
        assert!(!blocks[0].run && blocks[1].run);
        assert_eq!(command_line(&blocks[0].lines[0]).unwrap(), ["./dev", "up"]);
        assert_eq!(command_line(&blocks[1].lines[0]).unwrap(), ["creel", "inspect", "--as", "command", "-"]);
        assert_eq!(command_line("ls creel"), None);
    }
}
