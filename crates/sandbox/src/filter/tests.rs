//! The program is interpreted over every call number and compared with the table, which is read here in another way.

use super::compile::{self, Instruction, returned};
use super::rule::{Action, Half, Rule, Test};
use super::{FilterSpec, table};

/// A call as the kernel shows it to a filter.
#[derive(Clone, Copy)]
struct Call {
    number: u32,
    architecture: u32,
    arguments: [u64; 6],
}

impl Call {
    fn word(self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.architecture,
            _ => (self.arguments[(offset as usize - 16) / 8] >> (8 * (offset % 8))) as u32,
        }
    }
}

/// The kernel's machine, as far as it is used; returns the verdict and the number of instructions.
fn run(program: &[Instruction], call: Call) -> (u32, usize) {
    let (mut at, mut accumulator, mut steps) = (0, 0u32, 0);
    loop {
        let instruction = program[at];
        steps += 1;
        at += 1;
        let jump = |holds: bool| usize::from(if holds { instruction.jump_true } else { instruction.jump_false });
        match instruction.code {
            compile::LOAD => accumulator = call.word(instruction.operand),
            compile::AND => accumulator &= instruction.operand,
            compile::IF_EQUAL => at += jump(accumulator == instruction.operand),
            compile::IF_AT_LEAST => at += jump(accumulator >= instruction.operand),
            compile::IF_ANY => at += jump(accumulator & instruction.operand != 0),
            compile::JUMP => at += instruction.operand as usize,
            compile::RETURN => return (instruction.operand, steps),
            other => panic!("unknown instruction {other:#x}"),
        }
    }
}

fn expected(table: &[(u32, Rule)], call: Call) -> Action {
    if call.architecture != table::ARCHITECTURE || call.number >= table::FOREIGN {
        return Action::Kill;
    }
    let Ok(at) = table.binary_search_by_key(&call.number, |(number, _)| *number) else { return table::MISSING };
    let rule = &table[at].1;
    match rule {
        Rule::Always(action) => *action,
        Rule::First(clauses, otherwise) => clauses
            .iter()
            .find(|clause| {
                clause.when.iter().all(|condition| {
                    let whole = call.arguments[usize::from(condition.argument)];
                    let half = match condition.half {
                        Half::Low => whole as u32,
                        Half::High => (whole >> 32) as u32,
                    };
                    match condition.test {
                        Test::Equal { mask, value } => half & mask == value,
                        Test::Any(bits) => half & bits != 0,
                    }
                })
            })
            .map_or(*otherwise, |clause| clause.then),
    }
}

fn program(spec: &FilterSpec) -> Vec<Instruction> {
    compile::compile(&table::table(spec), table::MISSING, table::ARCHITECTURE, table::FOREIGN).unwrap()
}

/// Arguments that make a difference somewhere: every value in the table, alone and with other bits.
fn interesting() -> Vec<u64> {
    let mut values = vec![0, 1, 2, 3, 5, 10, 16, 17, 255, 262, u64::from(u32::MAX), u64::MAX, 1 << 32];
    for (_, rule) in table::table(&FilterSpec::default()) {
        if let Rule::First(clauses, _) = rule {
            for condition in clauses.iter().flat_map(|clause| clause.when) {
                let value = match condition.test {
                    Test::Equal { value, .. } => value,
                    Test::Any(bits) => bits & bits.wrapping_neg(),
                };
                values.extend([u64::from(value), u64::from(value) | 0x80000, u64::from(value) | (7 << 32)]);
            }
        }
    }
    values.sort_unstable();
    values.dedup();
    values
}

#[test]
fn the_program_says_what_the_table_says_for_every_number_and_argument() {
    let values = interesting();
    for spec in [FilterSpec { learn: false }, FilterSpec { learn: true }] {
        let (table, program) = (table::table(&spec), program(&spec));
        let mut numbers: Vec<u32> = (0..640).collect();
        numbers.extend([table::FOREIGN - 1, table::FOREIGN, table::FOREIGN + 1, u32::MAX]);
        for number in numbers {
            let foreign = Call { number, architecture: 0x4000_0003, arguments: [0; 6] };
            assert_eq!(run(&program, foreign).0, returned(Action::Kill));
            for value in &values {
                for at in 0..3 {
                    let mut arguments = [1; 6];
                    arguments[at] = *value;
                    let call = Call { number, architecture: table::ARCHITECTURE, arguments };
                    assert_eq!(
                        run(&program, call).0,
                        returned(expected(&table, call)),
                        "number {number} argument {at} = {value:#x}"
                    );
                }
            }
        }
    }
}

#[test]
fn the_table_names_each_call_once_and_the_tree_is_shallow() {
    let table = table::table(&FilterSpec::default());
    for pair in table.windows(2) {
        assert!(pair[0].0 < pair[1].0, "call {} stands twice", pair[1].0);
    }
    let program = program(&FilterSpec::default());
    assert!(program.len() < 500, "{} instructions", program.len());
    let call = |number| Call { number, architecture: table::ARCHITECTURE, arguments: [0; 6] };
    let longest = (0..512).map(|number| run(&program, call(number)).1).max().unwrap();
    assert!(longest < 50, "{longest} steps");
}

/// Spot checks with the numbers written out, so that a slip in the lists shows.
#[test]
#[cfg(target_arch = "x86_64")]
fn dangerous_calls_do_not_pass() {
    let program = program(&FilterSpec::default());
    let verdict = |number, arguments: [u64; 3]| {
        let [a, b, c] = arguments;
        let call = Call { number, architecture: table::ARCHITECTURE, arguments: [a, b, c, 0, 0, 0] };
        run(&program, call).0
    };
    let (allow, notify) = (returned(Action::Allow), returned(Action::Notify));
    let refuse = |error: i32| returned(Action::Refuse(error as u16));
    // ptrace, mount, bpf, userfaultfd, perf_event_open, keyctl, process_vm_writev, setns, pidfd_getfd, kcmp
    for number in [101, 165, 321, 323, 298, 250, 311, 308, 438, 312] {
        assert_eq!(verdict(number, [0; 3]), refuse(libc::EPERM), "{number}");
    }
    // io_uring_setup, clone3, openat2, landlock_create_ruleset, an unknown one
    for number in [425, 435, 437, 444, 600] {
        assert_eq!(verdict(number, [0; 3]), refuse(libc::ENOSYS), "{number}");
    }
    assert_eq!(verdict(56, [0x1000_0011, 0, 0]), refuse(libc::EPERM), "clone(CLONE_NEWUSER)");
    assert_eq!(verdict(56, [0x003d_0f00, 0, 0]), allow, "clone of a thread");
    assert_eq!(verdict(272, [0x80, 0, 0]), refuse(libc::EPERM), "unshare(CLONE_NEWTIME)");
    assert_eq!(verdict(16, [0, 0x5412, 0]), refuse(libc::EPERM), "TIOCSTI");
    assert_eq!(verdict(16, [0, 0xffff_ffff_0000_5412, 0]), refuse(libc::EPERM), "TIOCSTI with bits above");
    assert_eq!(verdict(16, [0, 0x5413, 0]), allow, "TIOCGWINSZ");
    assert_eq!(verdict(41, [1, 0x80002, 0]), refuse(libc::EPROTONOSUPPORT), "unix datagrams");
    assert_eq!(verdict(41, [1, 0x80001, 0]), allow, "unix stream");
    assert_eq!(verdict(41, [2, 1, 262]), refuse(libc::EPROTONOSUPPORT), "MPTCP");
    assert_eq!(verdict(41, [2, 3, 1]), refuse(libc::EPROTONOSUPPORT), "raw");
    assert_eq!(verdict(41, [17, 3, 0]), refuse(libc::EAFNOSUPPORT), "packet");
    assert_eq!(verdict(41, [40, 1, 0]), refuse(libc::EAFNOSUPPORT), "vsock");
    assert_eq!(verdict(41, [16, 3, 12]), refuse(libc::EPROTONOSUPPORT), "netfilter");
    assert_eq!(verdict(53, [1, 2, 0]), refuse(libc::EPROTONOSUPPORT), "pair of unix datagrams");
    assert_eq!(verdict(2, [0, 0o101, 0]), notify, "open(O_CREAT|O_WRONLY)");
    assert_eq!(verdict(2, [0, 0, 0]), allow, "open for reading");
    assert_eq!(verdict(257, [0, 0, 0o1000]), notify, "openat(O_RDONLY|O_TRUNC)");
    assert_eq!(verdict(257, [0, 0, 0o20200002]), allow, "O_TMPFILE");
    assert_eq!(verdict(257, [0, 0, 0o10000101]), allow, "O_PATH");
}
