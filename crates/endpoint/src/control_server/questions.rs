//! Questions to people, the codes that prove a person is there, and break-glass.

use std::collections::BTreeMap;

use creel_guard::{ApprovalView, Input, Response};
use creel_model::{MatchedRule, Moment, Verdict};
use creel_wire::control::{Answer, BreakGlassView, Purpose, QuestionState, QuestionView, RefusalCode};

use super::{Asker, ControlServer, Ended, Out, Refusal};
use crate::clock;
use crate::live::LiveEvent;

/// How long a code works, in nanoseconds: ten minutes, as long as a question is answerable.
const CODE_NS: i64 = 600 * 1_000_000_000;
/// Codes at a time; the one that ends first makes room.
const CODES_MAX: usize = 512;
/// Wrong codes before a code is void.
const TRIES: u8 = 3;
/// Wrong codes of one account, whatever they were for, before none of it counts any more for as long as a code works.
/// Voiding a code alone would not do: a new one is drawn for the asking, and so a million of them guessed.
const WRONG_MAX: u32 = 12;

/// Single-use codes by account and purpose.
#[derive(Debug, Default)]
pub struct Codes {
    drawn: BTreeMap<(u32, String), Code>,
    /// Wrong codes by account since the first of them; at most one entry per account that serves.
    wrong: BTreeMap<u32, Wrong>,
}

#[derive(Debug)]
struct Code {
    digits: String,
    expires_unix_ns: i64,
    /// By the clock that nobody sets.
    expires_boot_ns: u64,
    tries_left: u8,
}

#[derive(Debug)]
struct Wrong {
    count: u32,
    ends_boot_ns: u64,
}

impl Codes {
    /// The code for that purpose, a new one if there is none; with when it ends.
    ///
    /// # Errors
    /// The kernel has no randomness.
    pub fn code(&mut self, uid: u32, purpose: &Purpose, now: Moment) -> Result<(String, i64), getrandom::Error> {
        self.drawn.retain(|_, code| code.expires_boot_ns > now.boot_ns);
        let key = (uid, purpose.to_string());
        if let Some(code) = self.drawn.get(&key) {
            return Ok((code.digits.clone(), code.expires_unix_ns));
        }
        if self.drawn.len() >= CODES_MAX
            && let Some(first) =
                self.drawn.iter().min_by_key(|(_, code)| code.expires_boot_ns).map(|(key, _)| key.clone())
        {
            self.drawn.remove(&first);
        }
        let drawn = u128::from_le_bytes(clock::random16()?) % 1_000_000;
        let code = Code {
            digits: format!("{drawn:06}"),
            expires_unix_ns: now.unix_ns.saturating_add(CODE_NS),
            expires_boot_ns: now.boot_ns.saturating_add(CODE_NS.unsigned_abs()),
            tries_left: TRIES,
        };
        let answer = (code.digits.clone(), code.expires_unix_ns);
        self.drawn.insert(key, code);
        Ok(answer)
    }

    /// Uses a code up. A wrong one costs a try; the last one voids the code.
    pub fn redeem(&mut self, uid: u32, purpose: &Purpose, given: &str, now: Moment) -> bool {
        self.wrong.retain(|_, wrong| wrong.ends_boot_ns > now.boot_ns);
        if self.wrong.get(&uid).is_some_and(|wrong| wrong.count >= WRONG_MAX) {
            return false;
        }
        let key = (uid, purpose.to_string());
        let Some(code) = self.drawn.get_mut(&key) else { return false };
        if code.expires_boot_ns <= now.boot_ns {
            self.drawn.remove(&key);
            return false;
        }
        if code.digits == given.trim() {
            self.drawn.remove(&key);
            return true;
        }
        code.tries_left = code.tries_left.saturating_sub(1);
        if code.tries_left == 0 {
            self.drawn.remove(&key);
        }
        let ends_boot_ns = now.boot_ns.saturating_add(CODE_NS.unsigned_abs());
        let wrong = self.wrong.entry(uid).or_insert(Wrong { count: 0, ends_boot_ns });
        wrong.count = wrong.count.saturating_add(1);
        false
    }
}

impl ControlServer {
    /// Checks the confirmation of something that loosens, where one is needed.
    pub(crate) fn confirm(&self, asker: &Asker, purpose: &Purpose, code: Option<&str>) -> Result<(), Refusal> {
        if !asker.needs_code()? {
            return Ok(());
        }
        let Some(code) = code else {
            return Err(Refusal::new(
                RefusalCode::ConfirmationNeeded,
                format!("`{purpose}` needs the code that `creel up` shows on another screen"),
                "open `creel up` in another terminal, then repeat with `--code`",
            ));
        };
        if self.codes().redeem(asker.uid, purpose, code, clock::now()) {
            return Ok(());
        }
        Err(Refusal::new(
            RefusalCode::WrongCode,
            "the code is wrong, used up or has ended",
            "look at the `creel up` screen for the present one",
        ))
    }

    pub(super) fn request_confirmation(&self, asker: &Asker, purpose: Purpose, out: Out<'_>) -> Result<(), Ended> {
        let (code, expires_unix_ns) = self
            .codes()
            .code(asker.uid, &purpose, clock::now())
            .map_err(|error| Refusal::new(RefusalCode::Internal, error.to_string(), ""))?;
        let screens = self.live.send(LiveEvent::Confirmation { purpose, code, expires_unix_ns, uid: asker.uid });
        Ok(out(&Answer::Confirmation { screens, expires_unix_ns })?)
    }

    pub(super) fn questions(&self, asker: &Asker, id: Option<&str>, out: Out<'_>) -> Result<(), Ended> {
        let views = match id {
            Some(id) => vec![self.find_question(asker, id)?],
            None => self.visible_questions(asker),
        };
        Ok(out(&Answer::Questions(views.iter().map(|view| self.question_view(view, None)).collect()))?)
    }

    fn visible_questions(&self, asker: &Asker) -> Vec<ApprovalView> {
        let mut views = self.desk.look(|guard, _| guard.approvals());
        views.retain(|view| asker.may_see_question(view.owner));
        views
    }

    fn find_question(&self, asker: &Asker, id: &str) -> Result<ApprovalView, Refusal> {
        let mut found: Vec<ApprovalView> =
            self.visible_questions(asker).into_iter().filter(|view| view.id.starts_with(id)).collect();
        match (found.pop(), found.is_empty()) {
            (Some(view), true) => Ok(view),
            (Some(_), false) => {
                Err(Refusal::new(RefusalCode::Invalid, format!("`{id}` begins several ids"), "give more of it"))
            }
            (None, _) => Err(Refusal::new(
                RefusalCode::NotFound,
                format!("no question `{id}`"),
                "`creel approvals` lists those that are open",
            )),
        }
    }

    pub(super) fn answer_question(
        &self,
        asker: &Asker,
        id: &str,
        allow: bool,
        code: Option<&str>,
        reason: Option<String>,
        out: Out<'_>,
    ) -> Result<(), Ended> {
        let view = self.find_question(asker, id)?;
        let approver = asker.may_answer(view.owner)?;
        if allow {
            self.confirm(asker, &Purpose::Approval { id: view.id.clone() }, code)?;
        }
        // The reason of a person is free text; it is bounded, and it is not needed for the answer to count.
        let _reason = reason.map(|text| text.chars().take(500).collect::<String>());
        let response = if allow { Response::Approve } else { Response::Refuse };
        self.desk
            .tell(Input::Answer { approval: view.id.clone(), response, approver })
            .map_err(|refused| Refusal::new(RefusalCode::Invalid, refused.0, "`creel approvals` shows what is open"))?;
        self.live.send(LiveEvent::Question { id: view.id.clone() });
        let now = self.desk.look(|guard, _| guard.approvals()).into_iter().find(|other| other.id == view.id);
        let state = match (&now, allow) {
            (None, true) => Some(QuestionState::Used),
            (None, false) => Some(QuestionState::Denied),
            (Some(_), _) => None,
        };
        let mut shown = self.question_view(now.as_ref().unwrap_or(&view), None);
        if let Some(state) = state {
            shown.state = state;
        }
        shown.answered_by = Some(asker.name.clone());
        Ok(out(&Answer::Questions(vec![shown]))?)
    }

    /// A question as it is shown; with its code when `screen_of` says that this watcher may see it.
    pub(crate) fn question_view(&self, view: &ApprovalView, screen_of: Option<u32>) -> QuestionView {
        let now = clock::now();
        let left = i64::try_from(view.expires_boot_ns.saturating_sub(now.boot_ns)).unwrap_or(i64::MAX);
        let code = match screen_of {
            Some(uid) if view.state == "open" && (uid == view.owner || uid == 0) => {
                self.codes().code(uid, &Purpose::Approval { id: view.id.clone() }, now).map(|(digits, _)| digits).ok()
            }
            _ => None,
        };
        QuestionView {
            id: view.id.clone(),
            state: match view.state.as_str() {
                "approved" => QuestionState::Approved,
                "refused" => QuestionState::Denied,
                _ if left == 0 => QuestionState::Expired,
                _ => QuestionState::Pending,
            },
            asked_unix_ns: view.asked_unix_ns,
            expires_unix_ns: now.unix_ns.saturating_add(left),
            kind: view.kind.clone(),
            uid: view.owner,
            account: self.world.account_name(view.owner),
            run: view.run.clone(),
            pid: 0,
            workspace: view.workspace.clone(),
            tool: Some(view.tool.clone()).filter(|tool| !tool.is_empty()),
            excerpt: view.effects.join("\n"),
            reason: view.rules.iter().map(|(_, reason)| reason.as_str()).collect::<Vec<_>>().join("; "),
            severity: view.severity,
            rules: view
                .rules
                .iter()
                .map(|(rule, reason)| MatchedRule {
                    rule: rule.clone(),
                    effect: Verdict::Ask,
                    severity: view.severity,
                    reason: reason.clone(),
                    effect_index: 0,
                    excepted_by: None,
                    approved_by: None,
                })
                .collect(),
            effects: Vec::new(),
            code,
            asked_by_agent: false,
            answered_by: None,
        }
    }

    pub(super) fn break_glass(
        &self,
        asker: &Asker,
        minutes: u32,
        reason: &str,
        code: Option<&str>,
        out: Out<'_>,
    ) -> Result<(), Ended> {
        asker.may_administer("open break-glass")?;
        if !(1..=240).contains(&minutes) || reason.trim().is_empty() {
            let message = "break-glass needs 1 to 240 minutes and a reason";
            return Err(Refusal::new(RefusalCode::Invalid, message, "for example `--minutes 15 --reason \"…\"`").into());
        }
        self.confirm(asker, &Purpose::BreakGlass, code)?;
        let input = Input::OpenBreakGlass {
            seconds: u64::from(minutes) * 60,
            reason: reason.trim().chars().take(500).collect(),
            uid: None,
            by: asker.as_administrator(),
        };
        self.desk.tell(input).map_err(|refused| Refusal::new(RefusalCode::Invalid, refused.0, ""))?;
        self.live.send(LiveEvent::State);
        Ok(out(&Answer::BreakGlass(self.break_glass_view()))?)
    }

    pub(super) fn break_glass_end(&self, asker: &Asker, out: Out<'_>) -> Result<(), Ended> {
        asker.may_administer("end break-glass")?;
        self.desk
            .tell(Input::EndBreakGlass { by: asker.as_administrator() })
            .map_err(|refused| Refusal::new(RefusalCode::Invalid, refused.0, ""))?;
        self.live.send(LiveEvent::State);
        Ok(out(&Answer::BreakGlass(None))?)
    }

    pub(crate) fn break_glass_view(&self) -> Option<BreakGlassView> {
        let now = clock::now();
        self.desk.look(|guard, _| {
            guard.break_glass().filter(|glass| glass.until_boot_ns > now.boot_ns).map(|glass| BreakGlassView {
                since_unix_ns: glass.opened_unix_ns,
                until_unix_ns: now
                    .unix_ns
                    .saturating_add(i64::try_from(glass.until_boot_ns.saturating_sub(now.boot_ns)).unwrap_or(i64::MAX)),
                reason: glass.reason.clone(),
                by: glass.by.name.clone(),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Moment {
        Moment { unix_ns: seconds * 1_000_000_000, boot_ns: seconds.unsigned_abs() * 1_000_000_000 }
    }

    #[test]
    fn a_code_works_once_for_its_own_purpose_and_account() {
        let mut codes = Codes::default();
        let purpose = Purpose::Approval { id: "q-1".to_owned() };
        let (code, _) = codes.code(1000, &purpose, at(0)).expect("random");
        assert_eq!(codes.code(1000, &purpose, at(1)).expect("random").0, code, "the same until it is used");
        assert!(!codes.redeem(1000, &Purpose::BreakGlass, &code, at(1)));
        assert!(!codes.redeem(1001, &purpose, &code, at(1)));
        assert!(codes.redeem(1000, &purpose, &format!(" {code} "), at(1)));
        assert!(!codes.redeem(1000, &purpose, &code, at(1)), "used up");
    }

    #[test]
    fn drawing_new_codes_gives_no_new_tries_for_ever() {
        let mut codes = Codes::default();
        let mut tried = 0;
        for _ in 0..10 {
            let (code, _) = codes.code(1, &Purpose::BreakGlass, at(0)).expect("random");
            let wrong = if code == "000000" { "000001" } else { "000000" };
            for _ in 0..TRIES {
                assert!(!codes.redeem(1, &Purpose::BreakGlass, wrong, at(1)));
                tried += 1;
            }
        }
        assert!(tried > WRONG_MAX);
        let (code, _) = codes.code(1, &Purpose::BreakGlass, at(1)).expect("random");
        assert!(!codes.redeem(1, &Purpose::BreakGlass, &code, at(2)), "also the right one, for now");
        let (code, _) = codes.code(2, &Purpose::BreakGlass, at(2)).expect("random");
        assert!(codes.redeem(2, &Purpose::BreakGlass, &code, at(2)), "another account is not concerned");
        let (code, _) = codes.code(1, &Purpose::BreakGlass, at(700)).expect("random");
        assert!(codes.redeem(1, &Purpose::BreakGlass, &code, at(700)), "it passes");
    }

    #[test]
    fn three_wrong_tries_void_it_and_time_ends_it() {
        let mut codes = Codes::default();
        let (code, _) = codes.code(1, &Purpose::BreakGlass, at(0)).expect("random");
        let wrong = if code == "000000" { "000001" } else { "000000" };
        for _ in 0..3 {
            assert!(!codes.redeem(1, &Purpose::BreakGlass, wrong, at(1)));
        }
        assert!(!codes.redeem(1, &Purpose::BreakGlass, &code, at(1)));
        let (code, _) = codes.code(1, &Purpose::BreakGlass, at(0)).expect("random");
        assert!(!codes.redeem(1, &Purpose::BreakGlass, &code, at(601)));
    }
}
