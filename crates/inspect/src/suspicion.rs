//! What an understood text looks like without any policy: a first opinion for `creel inspect`, never an enforcement.

use creel_model::{CommandClass, Finding, Severity, Verdict};

use crate::understood::Understood;

/// How bad a class is by itself; `None` for classes that say nothing bad.
pub(crate) const fn severity(class: CommandClass) -> Option<Severity> {
    match class {
        CommandClass::ReadOnly | CommandClass::Build | CommandClass::Install | CommandClass::Discovery => None,
        CommandClass::Destructive
        | CommandClass::Exfiltration
        | CommandClass::CredentialAccess
        | CommandClass::DatabaseDrop
        | CommandClass::InfrastructureDrop
        | CommandClass::DefenseEvasion => Some(Severity::High),
        CommandClass::Persistence
        | CommandClass::Privilege
        | CommandClass::Obfuscated
        | CommandClass::HistoryRewrite => Some(Severity::Medium),
    }
}

/// Taxonomy ids of a class.
pub(crate) const fn taxonomy(class: CommandClass) -> &'static [&'static str] {
    match class {
        CommandClass::Destructive => &["ASI02", "T1485"],
        CommandClass::DatabaseDrop | CommandClass::InfrastructureDrop => &["ASI02", "T1485", "T1489"],
        CommandClass::Exfiltration => &["ASI02", "T1041", "T1567"],
        CommandClass::CredentialAccess => &["ASI03", "T1552", "T1555"],
        CommandClass::Persistence => &["ASI10", "T1543", "T1053", "T1546"],
        CommandClass::Privilege => &["ASI03", "T1548"],
        CommandClass::Obfuscated => &["ASI05", "T1027", "T1140"],
        CommandClass::HistoryRewrite => &["ASI02", "T1565"],
        CommandClass::DefenseEvasion => &["ASI10", "T1562", "T1070"],
        CommandClass::ReadOnly | CommandClass::Build | CommandClass::Install | CommandClass::Discovery => &[],
    }
}

/// A first opinion: `deny` for findings of high severity, `ask` for medium ones and for anything unparsed or opaque,
/// else `allow`. The findings are those with spans into the text.
#[must_use]
pub fn suspicion(understood: &Understood) -> (Verdict, Vec<Finding>) {
    let worst = understood.findings.iter().map(|f| f.severity).max();
    let verdict = match worst {
        Some(Severity::High | Severity::Critical) => Verdict::Deny,
        Some(Severity::Medium) => Verdict::Ask,
        _ if !understood.parsed || understood.opaque || understood.overflow => Verdict::Ask,
        _ => Verdict::Allow,
    };
    (verdict, understood.findings.clone())
}
