//! A stand-in for an agent: a shell that stands where the agent's own program would, so that creel takes it for one.
//!
//! Turns a script or one hook call into a run that the catalog recognises by its executable. It speaks no protocol of
//! its own: a test hands it the payloads, well-formed or not. A newcomer gets wrong: a shell that runs only one command
//! becomes that command, and then no agent is above it; every script here ends with a second one.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::account::Account;
use crate::run::Run;
use crate::stage::Stage;

/// A stand-in for Claude Code in one account.
#[derive(Clone, Debug)]
pub struct StandIn<'stage> {
    stage: &'stage Stage,
    account: Account,
    program: String,
}

impl<'stage> StandIn<'stage> {
    /// Puts a copy of the shell where the agent's native installer puts its program.
    ///
    /// # Errors
    ///
    /// It could not be put there.
    pub fn claude(stage: &'stage Stage, account: Account) -> Result<Self> {
        let program = format!("{}/.local/bin/claude", account.home);
        stage.make_folder(account, &format!("{}/.local/bin", account.home))?;
        // Copied on the stage, so that the shell is the stage's own.
        stage.run(account, "cp").arguments(["/bin/bash", &program]).finish(30)?.well().context("stand-in")?;
        Ok(Self { stage, account, program })
    }

    /// One run of the agent that does what the script says; its exit code is the script's.
    pub fn script(&self, script: &str) -> Run<'stage> {
        self.stage.run(self.account, &self.program).arguments(["-c", &format!("{script}\nexit $?")])
    }

    /// One run of the agent that makes one hook call with this payload and these arguments behind the event.
    pub fn call(&self, event: &str, arguments: &str, payload: impl Into<Vec<u8>>) -> Run<'stage> {
        self.script(&format!("/usr/bin/creel-hook claude-code {event} {arguments}")).input(payload)
    }
}

/// A call of a tool, as Claude Code words it.
#[must_use]
pub fn tool_call(account: Account, session: &str, id: &str, tool: &str, input: &Value) -> Value {
    json!({
        "session_id": session,
        "transcript_path": format!("{}/.claude/projects/x/{session}.jsonl", account.home),
        "cwd": account.home,
        "permission_mode": "default",
        "hook_event_name": "PreToolUse",
        "tool_name": tool,
        "tool_input": input,
        "tool_use_id": id,
    })
}
