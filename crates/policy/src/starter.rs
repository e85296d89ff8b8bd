//! The starter bundle, built in. The list is checked against `policies/starter` by a test, so no file is forgotten.

use std::collections::BTreeMap;

/// Path in the bundle and text.
const FILES: &[(&str, &str)] = &[
    ("bundle.toml", include_str!("../../../policies/starter/bundle.toml")),
    ("profiles/claude-code.toml", include_str!("../../../policies/starter/profiles/claude-code.toml")),
    ("profiles/codex.toml", include_str!("../../../policies/starter/profiles/codex.toml")),
    ("profiles/copilot-cli.toml", include_str!("../../../policies/starter/profiles/copilot-cli.toml")),
    ("profiles/default.toml", include_str!("../../../policies/starter/profiles/default.toml")),
    ("profiles/gemini-cli.toml", include_str!("../../../policies/starter/profiles/gemini-cli.toml")),
    ("profiles/openclaw.toml", include_str!("../../../policies/starter/profiles/openclaw.toml")),
    ("profiles/opencode.toml", include_str!("../../../policies/starter/profiles/opencode.toml")),
    ("profiles/strict.toml", include_str!("../../../policies/starter/profiles/strict.toml")),
    ("rules/10-destruction.cedar", include_str!("../../../policies/starter/rules/10-destruction.cedar")),
    ("rules/20-credentials.cedar", include_str!("../../../policies/starter/rules/20-credentials.cedar")),
    ("rules/30-persistence.cedar", include_str!("../../../policies/starter/rules/30-persistence.cedar")),
    ("rules/40-commands.cedar", include_str!("../../../policies/starter/rules/40-commands.cedar")),
    ("rules/50-creel.cedar", include_str!("../../../policies/starter/rules/50-creel.cedar")),
    ("rules/60-labels.cedar", include_str!("../../../policies/starter/rules/60-labels.cedar")),
    ("tests/10-destruction.toml", include_str!("../../../policies/starter/tests/10-destruction.toml")),
    ("tests/20-credentials.toml", include_str!("../../../policies/starter/tests/20-credentials.toml")),
    ("tests/30-persistence.toml", include_str!("../../../policies/starter/tests/30-persistence.toml")),
    ("tests/40-commands.toml", include_str!("../../../policies/starter/tests/40-commands.toml")),
    ("tests/50-creel.toml", include_str!("../../../policies/starter/tests/50-creel.toml")),
    ("tests/60-labels.toml", include_str!("../../../policies/starter/tests/60-labels.toml")),
    ("tests/70-cage.toml", include_str!("../../../policies/starter/tests/70-cage.toml")),
    ("zones.toml", include_str!("../../../policies/starter/zones.toml")),
];

/// The starter bundle's files: relative path to text.
#[must_use]
pub fn starter() -> BTreeMap<String, String> {
    FILES.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
}
