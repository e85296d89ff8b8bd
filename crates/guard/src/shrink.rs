//! A state that is too large for a snapshot to one that fits: the largest table loses its older half, again and again.
//!
//! Without this an agent that claims ever new conversations would make the snapshot larger than the journal takes, and
//! a record that cannot be written denies everything. The one fact a newcomer gets wrong: forgetting is always to the
//! strict side. A run that is forgotten before it ended starts `untrusted` when it comes back, a conversation without a
//! run that is known does too, an answer that is forgotten must be given again.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::state::State;

/// Most bytes of a snapshot.
pub const SNAPSHOT_BYTES_MAX: usize = 1_500_000;

/// Each round halves the largest table; the tables' own limits are far below two to that power.
const ROUNDS_MAX: usize = 64;

/// Forgets what is oldest until `state` takes at most `bytes_max` bytes as JSON.
pub(crate) fn to_fit(state: &mut State, bytes_max: usize) {
    for _ in 0..ROUNDS_MAX {
        if size(state) <= bytes_max {
            return;
        }
        let sizes = [
            (size(&state.conversations), Table::Conversations),
            (size(&state.workspaces), Table::Workspaces),
            (size(&state.calls), Table::Calls),
            (size(&state.runs), Table::Runs),
            (size(&state.approvals), Table::Approvals),
        ];
        match sizes.into_iter().max_by_key(|(bytes, _)| *bytes).map(|(_, table)| table) {
            Some(Table::Conversations) => {
                older_half(&mut state.conversations, |_, known| known.last_boot_ns);
            }
            Some(Table::Workspaces) if state.workspaces.len() > 1 => {
                older_half(&mut state.workspaces, |_, sinks| sinks.order);
            }
            Some(Table::Workspaces) => {
                for sinks in state.workspaces.values_mut() {
                    older_half(&mut sinks.tokens, |_, order| *order);
                }
            }
            Some(Table::Calls) => {
                for open in state.calls.values_mut() {
                    older_half(open, |_, call| call.order);
                }
                state.calls.retain(|_, open| !open.is_empty());
            }
            Some(Table::Runs) => {
                for (id, run) in older_half(&mut state.runs, |_, run| (!run.ended, run.last_boot_ns)) {
                    state.calls.remove(&id);
                    if !run.ended {
                        let ticks = run.key.process.start_ticks;
                        let known = state.forgotten_start_ticks.map_or(ticks, |known| known.max(ticks));
                        state.forgotten_start_ticks = Some(known);
                    }
                }
            }
            Some(Table::Approvals) => {
                older_half(&mut state.approvals, |_, known| known.asked_boot_ns);
            }
            None => return,
        }
    }
}

#[derive(Clone, Copy)]
enum Table {
    Conversations,
    Workspaces,
    Calls,
    Runs,
    Approvals,
}

fn size(part: &impl Serialize) -> usize {
    serde_json::to_vec(part).map_or(0, |bytes| bytes.len())
}

/// Takes the older half (at least one) out and returns it.
fn older_half<K: Ord + Clone, V, A: Ord>(map: &mut BTreeMap<K, V>, age: impl Fn(&K, &V) -> A) -> Vec<(K, V)> {
    let mut by_age: Vec<(A, K)> = map.iter().map(|(key, value)| (age(key, value), key.clone())).collect();
    by_age.sort();
    let half = by_age.len().div_ceil(2);
    by_age.into_iter().take(half).filter_map(|(_, key)| map.remove_entry(&key)).collect()
}
