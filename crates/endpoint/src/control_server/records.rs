//! Records for people: listed, followed, told as a story, verified, erased.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use creel_guard::{Input, Note};
use creel_journal::{Anchor, Reader, Start, Stored, Verdict as Seal};
use creel_model::RecordKind;
use creel_wire::control::{
    Answer, FRAME_BYTES_MAX, Purpose, RecordFilter, RecordView, RefusalCode, Story, VerificationVerdict,
    VerificationView,
};

use super::{Asker, ControlServer, Ended, Out, Refusal};
use crate::{clock, policy_views, streams};

/// Records looked at by one request before it is cut off, so that a filter that matches nothing ends.
const LOOKED_AT_MAX: u64 = 50_000_000;
/// Most records that `last` keeps in mind.
const LAST_MAX: usize = 10_000;
/// Most causes and followers of a story.
const STORY_MAX: usize = 16;

impl ControlServer {
    fn reader(&self, from: Start) -> Result<Reader, Refusal> {
        Reader::open(&self.world.config().state.join("journal"), from)
            .map_err(|error| Refusal::new(RefusalCode::Internal, format!("the record cannot be read: {error}"), ""))
    }

    /// Hands the matching records that the asker may see to `work`, in order, until it says stop.
    pub(crate) fn each_record(
        &self,
        asker: &Asker,
        filter: &RecordFilter,
        work: &mut dyn FnMut(&Stored) -> Result<bool, Ended>,
    ) -> Result<(), Ended> {
        let start = filter.after_sequence.map_or(Start::Beginning, |after| Start::At(after.saturating_add(1)));
        let mut reader = self.reader(start)?;
        let mut looked_at = 0;
        while let Some(stored) = next(&mut reader)? {
            looked_at += 1;
            if looked_at > LOOKED_AT_MAX {
                let message = "more records than one request may look at";
                return Err(Refusal::new(RefusalCode::TooLarge, message, "narrow it down with `--since`").into());
            }
            if visible(asker, filter, &stored) && !work(&stored)? {
                break;
            }
        }
        Ok(())
    }

    pub(super) fn records(
        &self,
        asker: &Asker,
        filter: RecordFilter,
        follow: bool,
        out: Out<'_>,
        stream: &UnixStream,
    ) -> Result<(), Ended> {
        let watcher = if follow {
            let busy = || Refusal::new(RefusalCode::Busy, "too many watch already", "end another `--follow` first");
            Some(self.live.watch(None).ok_or_else(busy)?)
        } else {
            None
        };
        let mut after = filter.after_sequence;
        if let Some(last) = filter.last {
            let keep = usize::try_from(last).unwrap_or(LAST_MAX).min(LAST_MAX);
            let mut kept = std::collections::VecDeque::new();
            self.each_record(asker, &filter, &mut |stored| {
                if kept.len() == keep {
                    kept.pop_front();
                }
                if keep > 0 {
                    kept.push_back(view(stored));
                }
                after = Some(stored.sequence);
                Ok(true)
            })?;
            for view in kept {
                out(&Answer::Record(Box::new(view)))?;
            }
        } else {
            self.each_record(asker, &filter, &mut |stored| {
                after = Some(stored.sequence);
                out(&Answer::Record(Box::new(view(stored))))?;
                Ok(true)
            })?;
        }
        let Some(watcher) = watcher else { return Ok(()) };
        loop {
            let (events, lost) = watcher.wait(Duration::from_secs(1));
            if streams::is_closed(stream) {
                return Err(Ended::Gone);
            }
            if events.is_empty() && lost == 0 {
                continue;
            }
            let ends = events.contains(&crate::live::LiveEvent::Stopping);
            let filter = RecordFilter { after_sequence: after, last: None, ..filter.clone() };
            self.each_record(asker, &filter, &mut |stored| {
                after = Some(stored.sequence);
                out(&Answer::Record(Box::new(view(stored))))?;
                Ok(true)
            })?;
            if ends {
                return Ok(());
            }
        }
    }

    pub(super) fn story(&self, asker: &Asker, id: &str, out: Out<'_>) -> Result<(), Ended> {
        let sequence: Option<u64> = id.parse().ok();
        let everything = RecordFilter { kinds: RecordKind::ALL.to_vec(), ..RecordFilter::default() };
        let mut found: Option<Stored> = None;
        let mut ambiguous = false;
        self.each_record(asker, &everything, &mut |stored| {
            let hit = sequence.is_some_and(|sequence| stored.sequence == sequence)
                || (id.len() >= 4 && stored.envelope.action_id.as_str().starts_with(id));
            if hit && found.as_ref().is_none_or(|known| known.envelope.action_id != stored.envelope.action_id) {
                ambiguous = found.is_some();
                found = Some(stored.clone());
            }
            Ok(!ambiguous)
        })?;
        if ambiguous {
            return Err(
                Refusal::new(RefusalCode::Invalid, format!("`{id}` begins several ids"), "give more of it").into()
            );
        }
        let Some(record) = found else {
            let hint = "`creel log` lists them with their numbers";
            return Err(Refusal::new(RefusalCode::NotFound, format!("no record `{id}`"), hint).into());
        };
        let wanted: Vec<_> = record.envelope.causes.iter().map(|cause| cause.action_id.clone()).collect();
        let (mut causes, mut followed_by) = (Vec::new(), Vec::new());
        self.each_record(asker, &everything, &mut |stored| {
            if stored.sequence != record.sequence && wanted.contains(&stored.envelope.action_id) {
                causes.push(view(stored));
            }
            let names = stored.envelope.causes.iter().any(|cause| cause.action_id == record.envelope.action_id);
            if names && followed_by.len() < STORY_MAX {
                followed_by.push(view(stored));
            }
            Ok(true)
        })?;
        causes.truncate(STORY_MAX);
        let bundle = self.world.bundle();
        let ids = record.envelope.rules.iter().chain(&record.envelope.audit_rules);
        let rules = ids.filter_map(|id| bundle.rule(id)).map(policy_views::rule).collect();
        let story = Story { record: view(&record), causes, followed_by, rules, mode: self.world.mode() };
        Ok(out(&Answer::Story(Box::new(story)))?)
    }

    pub(super) fn verify(&self, asker: &Asker, anchors: &[String], out: Out<'_>) -> Result<(), Ended> {
        let _ = asker;
        // What is verified should include everything that was answered so far.
        self.desk.with_journal(|journal| journal.checkpoint()).map_err(|error| {
            Refusal::new(RefusalCode::Internal, format!("the record cannot be sealed: {error}"), "")
        })?;
        let key = self
            .world
            .verifier()
            .ok_or_else(|| Refusal::new(RefusalCode::Internal, "the device key is not known", ""))?;
        let anchors: Vec<_> = anchors.iter().take(64).flat_map(|text| Anchor::parse(text)).collect();
        let folder = self.world.config().state.join("journal");
        let verification = creel_journal::verify(&folder, &key, &anchors)
            .map_err(|error| Refusal::new(RefusalCode::Internal, error.to_string(), ""))?;
        Ok(out(&Answer::Verification(verification_view(&verification)))?)
    }

    pub(super) fn erase(
        &self,
        asker: &Asker,
        filter: RecordFilter,
        reason: &str,
        dry_run: bool,
        code: Option<&str>,
        out: Out<'_>,
    ) -> Result<(), Ended> {
        let reason = reason.trim();
        if reason.is_empty() {
            let hint = "for example `--reason \"request of the person concerned\"`";
            return Err(Refusal::new(RefusalCode::Invalid, "erasing needs a reason", hint).into());
        }
        asker.may_administer("erase details")?;
        let mut sequences = Vec::new();
        self.each_record(asker, &filter, &mut |stored| {
            if stored.detail.is_some() {
                sequences.push(stored.sequence);
            }
            Ok(true)
        })?;
        if dry_run {
            return Ok(out(&Answer::Erased { details: sequences.len() as u64 })?);
        }
        self.confirm(asker, &Purpose::EraseDetails, code)?;
        let erased = self.desk.erase(&sequences, reason, &asker.name, asker.uid).map_err(|why| {
            Refusal::new(RefusalCode::Internal, format!("not everything could be erased: {why}"), "try again")
        })?;
        Ok(out(&Answer::Erased { details: erased })?)
    }

    /// Writes something about creel itself down.
    pub(crate) fn note(
        &self,
        kind: RecordKind,
        code: &str,
        owner: u32,
        facts: serde_json::Map<String, serde_json::Value>,
    ) {
        let note = Note { kind, code: code.to_owned(), owner, facts };
        let _ = self.desk.tell(Input::Note(Box::new(note)));
        let _ = clock::now();
    }
}

fn next(reader: &mut Reader) -> Result<Option<Stored>, Refusal> {
    reader.next_where(&mut |_, _| true).map_err(|error| {
        let hint = "`creel log verify` says which record is bad";
        Refusal::new(RefusalCode::Internal, format!("the record cannot be read: {error}"), hint)
    })
}

fn visible(asker: &Asker, filter: &RecordFilter, stored: &Stored) -> bool {
    filter.matches(stored.sequence, &stored.envelope)
        && asker.sees_only().is_none_or(|owner| stored.envelope.owner == owner)
}

/// A record as it is shown; without its detail where that would not fit a frame.
pub(crate) fn view(stored: &Stored) -> RecordView {
    let detail = stored
        .detail
        .clone()
        .filter(|detail| serde_json::to_vec(detail).is_ok_and(|bytes| bytes.len() < FRAME_BYTES_MAX / 2));
    RecordView { sequence: stored.sequence, envelope: stored.envelope.clone(), erased: stored.detail.is_none(), detail }
}

/// A verification as it is shown.
pub(crate) fn verification_view(found: &creel_journal::Verification) -> VerificationView {
    let (verdict, anchor, first_bad, why) = match &found.verdict {
        Seal::Intact => (VerificationVerdict::Intact, found.anchored.map(|size| format!("{size} records")), None, ""),
        Seal::IntactSince { records, when } => {
            (VerificationVerdict::IntactSince, Some(format!("{records} records at {when}")), None, "")
        }
        Seal::SelfConsistentOnly => (VerificationVerdict::SelfConsistentOnly, None, None, ""),
        Seal::Broken { first_bad, why } => (VerificationVerdict::Broken, None, Some(*first_bad), why.as_str()),
    };
    let why = why.to_owned();
    VerificationView { verdict, records: found.records, erased: found.erased, anchor, first_bad, why, lost: found.lost }
}
