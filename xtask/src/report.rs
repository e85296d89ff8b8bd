//! Complaints and remarks of a check, and how they are shown. A complaint fails the check, a remark does not.

use std::process::ExitCode;

use anyhow::Result;

/// What a check found.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// What is wrong; any of it fails the check.
    pub complaints: Vec<String>,
    /// What deserves a look, and does not fail.
    pub remarks: Vec<String>,
    /// What was looked at, in words for the last line.
    pub looked_at: String,
}

impl Report {
    /// Notes something wrong.
    pub(crate) fn complain(&mut self, what: impl Into<String>) {
        self.complaints.push(what.into());
    }

    /// Notes something that deserves a look.
    pub(crate) fn remark(&mut self, what: impl Into<String>) {
        self.remarks.push(what.into());
    }
}

/// Shows a report, complaints last.
pub(crate) fn print(report: &Report) -> Result<ExitCode> {
    for remark in &report.remarks {
        println!("warning: {remark}");
    }
    for complaint in &report.complaints {
        println!("error: {complaint}");
    }
    println!("{}: {} errors, {} warnings", report.looked_at, report.complaints.len(), report.remarks.len());
    Ok(if report.complaints.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
