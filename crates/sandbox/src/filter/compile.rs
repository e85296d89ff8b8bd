//! A table of rules to a program for the kernel: a balanced tree over the call numbers.
//!
//! Neighbouring numbers with the same rule become one leaf, so that a few hundred calls need about seven comparisons.
//! The one fact a newcomer gets wrong: a conditional jump reaches 255 instructions and no further; longer ways go through
//! an unconditional one.

use super::rule::{Action, Clause, Condition, Half, Rule, Test};

/// One instruction of the kernel's classic packet filter machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Instruction {
    /// What.
    pub(crate) code: u16,
    /// Instructions skipped when the condition holds.
    pub(crate) jump_true: u8,
    /// And when not.
    pub(crate) jump_false: u8,
    /// Operand.
    pub(crate) operand: u32,
}

/// Load a 32-bit word of the call's record.
pub(crate) const LOAD: u16 = 0x20;
/// Combine with a mask.
pub(crate) const AND: u16 = 0x54;
/// Jump if equal.
pub(crate) const IF_EQUAL: u16 = 0x15;
/// Jump if greater or equal.
pub(crate) const IF_AT_LEAST: u16 = 0x35;
/// Jump if a bit of the operand is set.
pub(crate) const IF_ANY: u16 = 0x45;
/// Jump.
pub(crate) const JUMP: u16 = 0x05;
/// End with a constant.
pub(crate) const RETURN: u16 = 0x06;

/// Where the call's number stands in its record.
pub(crate) const AT_NUMBER: u32 = 0;
/// Where the machine's word stands.
pub(crate) const AT_ARCHITECTURE: u32 = 4;
/// Where the arguments begin.
pub(crate) const AT_ARGUMENTS: u32 = 16;

/// The kernel takes no longer program.
pub(crate) const LONGEST: usize = 4096;

const RETURN_KILL: u32 = 0x8000_0000;
const RETURN_ERROR: u32 = 0x0005_0000;
const RETURN_NOTIFY: u32 = 0x7fc0_0000;
const RETURN_ALLOW: u32 = 0x7fff_0000;

/// The value a program ends with for an action.
pub(crate) const fn returned(action: Action) -> u32 {
    match action {
        Action::Allow => RETURN_ALLOW,
        Action::Notify => RETURN_NOTIFY,
        Action::Kill => RETURN_KILL,
        Action::Refuse(error) => RETURN_ERROR | error as u32,
    }
}

/// Numbers from `first` up to the next range's `first`, and their rule.
struct Range {
    first: u32,
    rule: Rule,
}

/// Translates `table` (sorted by number, without doubles). What is not in it gets `missing`; calls of another
/// architecture than `architecture`, and numbers from `foreign` on, end the process.
///
/// `None` if the program would be longer than the kernel takes.
pub(crate) fn compile(
    table: &[(u32, Rule)],
    missing: Action,
    architecture: u32,
    foreign: u32,
) -> Option<Vec<Instruction>> {
    let ranges = ranges(table, missing, foreign);
    let mut program = vec![
        load(AT_ARCHITECTURE),
        Instruction { code: IF_EQUAL, jump_true: 1, jump_false: 0, operand: architecture },
        end(Action::Kill),
        load(AT_NUMBER),
    ];
    program.extend(tree(&ranges)?);
    (program.len() <= LONGEST).then_some(program)
}

fn ranges(table: &[(u32, Rule)], missing: Action, foreign: u32) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::with_capacity(table.len());
    let mut push = |first: u32, rule: Rule| {
        if ranges.last().is_none_or(|last| last.rule != rule) {
            ranges.push(Range { first, rule });
        }
    };
    let mut next = 0;
    for &(number, rule) in table {
        if number > next {
            push(next, Rule::Always(missing));
        }
        push(number, rule);
        next = number.saturating_add(1);
    }
    push(next, Rule::Always(missing));
    push(foreign, Rule::Always(Action::Kill));
    ranges
}

fn tree(ranges: &[Range]) -> Option<Vec<Instruction>> {
    if let [only] = ranges {
        return leaf(only.rule);
    }
    let (left, right) = ranges.split_at(ranges.len() / 2);
    let boundary = right.first()?.first;
    let left = tree(left)?;
    let right = tree(right)?;
    let mut program = Vec::with_capacity(left.len() + right.len() + 2);
    match u8::try_from(left.len()) {
        Ok(skip) => {
            program.push(Instruction { code: IF_AT_LEAST, jump_true: skip, jump_false: 0, operand: boundary });
        }
        Err(_) => {
            program.push(Instruction { code: IF_AT_LEAST, jump_true: 0, jump_false: 1, operand: boundary });
            program.push(jump(left.len())?);
        }
    }
    program.extend(left);
    program.extend(right);
    Some(program)
}

fn leaf(rule: Rule) -> Option<Vec<Instruction>> {
    match rule {
        Rule::Always(action) => Some(vec![end(action)]),
        Rule::First(clauses, otherwise) => {
            let mut program = Vec::new();
            for clause in clauses {
                program.extend(one_clause(clause)?);
            }
            program.push(end(otherwise));
            Some(program)
        }
    }
}

/// The conditions, each of which jumps behind the clause when it does not hold, and the action.
fn one_clause(clause: &Clause) -> Option<Vec<Instruction>> {
    let length = clause.when.iter().map(|condition| length(*condition)).sum::<usize>() + 1;
    let mut program = Vec::with_capacity(length);
    for condition in clause.when {
        program.push(load(offset(*condition)));
        let (code, operand) = match condition.test {
            Test::Equal { mask, value } => {
                if mask != u32::MAX {
                    program.push(Instruction { code: AND, jump_true: 0, jump_false: 0, operand: mask });
                }
                (IF_EQUAL, value)
            }
            Test::Any(bits) => (IF_ANY, bits),
        };
        let behind = u8::try_from(length - program.len() - 1).ok()?;
        program.push(Instruction { code, jump_true: 0, jump_false: behind, operand });
    }
    program.push(end(clause.then));
    Some(program)
}

const fn length(condition: Condition) -> usize {
    match condition.test {
        Test::Equal { mask, .. } if mask != u32::MAX => 3,
        _ => 2,
    }
}

/// Both supported machines are little-endian: the low half comes first.
fn offset(condition: Condition) -> u32 {
    AT_ARGUMENTS
        + 8 * u32::from(condition.argument)
        + match condition.half {
            Half::Low => 0,
            Half::High => 4,
        }
}

const fn load(offset: u32) -> Instruction {
    Instruction { code: LOAD, jump_true: 0, jump_false: 0, operand: offset }
}

const fn end(action: Action) -> Instruction {
    Instruction { code: RETURN, jump_true: 0, jump_false: 0, operand: returned(action) }
}

fn jump(skip: usize) -> Option<Instruction> {
    Some(Instruction { code: JUMP, jump_true: 0, jump_false: 0, operand: u32::try_from(skip).ok()? })
}
