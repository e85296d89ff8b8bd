//! `creel approvals`, `approve`, `deny`: questions and their answers.
//!
//! A yes needs a person at a terminal and the code that the question's own screen shows; a no needs neither. Nothing
//! is approved by silence.

use std::path::Path;

use clap::Args;
use creel_wire::control::{Answer, Purpose, QuestionState, QuestionView, Request};

use crate::connection::{Daemon, pick_one};
use crate::failure::{Exit, Failure, Outcome};
use crate::out::{self, Format, Look};
use crate::text::{clean, table};
use crate::{clock, presence, show};

/// Arguments of `creel approvals`.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Also those that are answered or lapsed.
    #[arg(long)]
    all: bool,
    /// How to print them.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Arguments of `creel approve`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  creel approve ap-4f2a\n  creel approve ap-4f2a --code 481220 --reason \"agreed with Ada\""
)]
pub(crate) struct Approve {
    /// The question, or the beginning of its id.
    id: String,
    /// The code that `creel up` shows for it in another terminal.
    #[arg(long)]
    code: Option<String>,
    /// Why, for the record.
    #[arg(long)]
    reason: Option<String>,
}

/// Arguments of `creel deny`.
#[derive(Debug, Args)]
pub(crate) struct Deny {
    /// The question, or the beginning of its id.
    id: String,
    /// Why, for the record.
    #[arg(long)]
    reason: Option<String>,
}

fn questions(answer: Answer) -> Option<Vec<QuestionView>> {
    match answer {
        Answer::Questions(questions) => Some(questions),
        _ => None,
    }
}

/// Lists questions.
pub(crate) fn list(arguments: &List, runtime: Option<&Path>) -> Outcome {
    let mut questions = Daemon::open(runtime)?.one(&Request::Approvals, questions)?;
    if !arguments.all {
        questions.retain(|question| question.state == QuestionState::Pending);
    }
    if questions.is_empty() && arguments.format == Format::Table {
        out::lines(["nothing waits for you"])?;
        return Ok(Exit::Good);
    }
    out::list(&questions, arguments.format, |look| lines(&questions, look, clock::now_unix_ns()))?;
    Ok(Exit::Good)
}

fn lines(questions: &[QuestionView], look: Look, now_unix_ns: i64) -> Vec<String> {
    let (waiting, closed): (Vec<_>, Vec<_>) =
        questions.iter().partition(|question| question.state == QuestionState::Pending);
    let mut lines: Vec<String> =
        waiting.iter().flat_map(|question| show::question(question, look, now_unix_ns)).collect();
    if !closed.is_empty() {
        let rows: Vec<Vec<String>> = closed
            .iter()
            .map(|question| {
                vec![
                    clean(&question.id),
                    question.state.as_str().to_owned(),
                    clean(question.answered_by.as_deref().unwrap_or("-")),
                    clean(&question.kind),
                    clean(&question.excerpt),
                ]
            })
            .collect();
        lines.extend(table(&["QUESTION", "STATE", "BY", "AGENT", "WHAT"], &rows, look.width));
    }
    lines
}

/// Answers with yes.
pub(crate) fn approve(arguments: Approve, runtime: Option<&Path>) -> Outcome {
    presence::person()?;
    let mut daemon = Daemon::open(runtime)?;
    let asked = daemon.one(&Request::Approval { id: arguments.id.clone() }, questions)?;
    let question = asked.into_iter().next().ok_or_else(|| Failure::new("there is no such question"))?;
    // What is agreed to is shown before it is agreed to, as the effects that were judged.
    let look = Look::of_stdout();
    let mut lines = vec![look.bold(&clean(&question.excerpt))];
    lines.extend(question.effects.iter().map(|effect| format!("  {}", show::effect_line(effect))));
    out::lines(lines)?;
    let purpose = Purpose::Approval { id: question.id.clone() };
    let answers = presence::carry_out(&mut daemon, &purpose, arguments.code.as_deref(), &|code| {
        Request::AnswerApproval { id: question.id.clone(), allow: true, code, reason: arguments.reason.clone() }
    })?;
    told(answers)
}

/// Answers with no.
pub(crate) fn deny(arguments: Deny, runtime: Option<&Path>) -> Outcome {
    let request = Request::AnswerApproval { id: arguments.id, allow: false, code: None, reason: arguments.reason };
    let answers = Daemon::open(runtime)?.ask(&request)?;
    told(answers)
}

fn told(answers: Vec<Answer>) -> Outcome {
    let answered = pick_one(answers, questions)?;
    for question in &answered {
        let what = match question.state {
            QuestionState::Approved => "approved; it may run once when the agent tries again",
            state => state.as_str(),
        };
        presence::done(&format!("{} is {what}", clean(&question.id)))?;
    }
    Ok(Exit::Good)
}
