//! The real agents, headless, pinned, talking to a scripted model and to nobody else.
//!
//! Turns "this prompt" into one run of the agent's own program. It sets nothing that has to do with creel; a test adds
//! managed settings by running creel. What each variable is for stands beside it.

use anyhow::Result;

use crate::account::Account;
use crate::endpoint::Endpoint;
use crate::run::Run;
use crate::skip::skip;
use crate::stage::Stage;

/// Which agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agent {
    /// Claude Code.
    Claude,
    /// Codex.
    Codex,
    /// Gemini CLI.
    Gemini,
}

impl Agent {
    /// The version that the lock files in `tests/agents` pin.
    #[must_use]
    pub const fn version(self) -> &'static str {
        match self {
            Self::Claude => "2.1.329",
            Self::Codex => "0.169.0",
            Self::Gemini => "0.61.0",
        }
    }

    /// Whether the pinned package is here. If not, that is said, and with `CI` set the test fails.
    ///
    /// # Panics
    ///
    /// Panics where `CI` is set and the package is missing.
    #[must_use]
    pub fn is_here(self, stage: &Stage) -> bool {
        let program = match self {
            Self::Claude => "/usr/bin/claude",
            Self::Codex => "/usr/bin/codex",
            Self::Gemini => "/usr/bin/gemini",
        };
        // Through the link, to the program itself; the link's target is relative and stays on the stage.
        let here = std::fs::metadata(stage.outside(program)).is_ok();
        if !here {
            skip(&format!("{self:?} {} is not installed in the cache; run ./dev test", self.version()));
        }
        here
    }
}

/// One headless run of Claude Code that may use every tool without asking its user.
///
/// # Errors
///
/// None today; the signature matches [`codex`].
pub fn claude<'stage>(
    stage: &'stage Stage,
    account: Account,
    endpoint: &Endpoint,
    prompt: &str,
) -> Result<Run<'stage>> {
    Ok(stage
        .run(account, "claude")
        .environment("ANTHROPIC_BASE_URL", endpoint.url())
        .environment("ANTHROPIC_API_KEY", "scripted")
        // Nothing but the model is contacted.
        .environment("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1")
        .environment("DISABLE_AUTOUPDATER", "1")
        .arguments(["-p", prompt, "--output-format", "json", "--dangerously-skip-permissions"]))
}

/// One headless run of Codex that may use every tool without asking its user, its own sandbox off.
///
/// # Errors
///
/// The account's configuration could not be written.
pub fn codex<'stage>(stage: &'stage Stage, account: Account, endpoint: &Endpoint, prompt: &str) -> Result<Run<'stage>> {
    let configuration = format!(
        r#"model = "fake-model"
model_provider = "scripted"
check_for_update_on_startup = false
features.plugins = false
features.apps = false
features.remote_plugin = false
analytics.enabled = false

[model_providers.scripted]
name = "scripted"
base_url = "{}/v1"
wire_api = "responses"
env_key = "SCRIPTED_KEY"
request_max_retries = 0
stream_max_retries = 0
"#,
        endpoint.url()
    );
    stage.write(account, &format!("{}/.codex/config.toml", account.home), configuration)?;
    Ok(stage.run(account, "codex").environment("SCRIPTED_KEY", "scripted").arguments([
        "exec",
        "--skip-git-repo-check",
        "--dangerously-bypass-approvals-and-sandbox",
        prompt,
    ]))
}

/// One headless run of Gemini CLI that may use every tool without asking its user.
///
/// # Errors
///
/// The account's configuration could not be written.
pub fn gemini<'stage>(
    stage: &'stage Stage,
    account: Account,
    endpoint: &Endpoint,
    prompt: &str,
) -> Result<Run<'stage>> {
    let settings = r#"{"security":{"auth":{"selectedType":"gemini-api-key"}},"privacy":{"usageStatisticsEnabled":false},
"general":{"disableAutoUpdate":true,"disableUpdateNag":true}}"#;
    stage.write(account, &format!("{}/.gemini/settings.json", account.home), settings)?;
    Ok(stage
        .run(account, "gemini")
        .environment("GEMINI_API_KEY", "scripted")
        .environment("GOOGLE_GEMINI_BASE_URL", endpoint.url())
        // Headless, it refuses a folder that nobody trusted.
        .environment("GEMINI_CLI_TRUST_WORKSPACE", "true")
        .arguments(["-p", prompt, "--yolo"]))
}
