//! The words of the filter's table: what happens to a call, and on which of its arguments that depends.
//!
//! The one fact a newcomer gets wrong: a filter sees registers, never memory. A path or an address is a number here; what
//! it points to can change after the look, which is why such calls are handed to the broker and not decided.

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// It is made.
    Allow,
    /// It is answered with this error number.
    Refuse(u16),
    /// It waits for the broker.
    Notify,
    /// The whole process ends.
    Kill,
}

/// Which 32 bits of an argument are looked at; arguments are 64 bits wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Half {
    /// All there is of an `int`.
    Low,
    /// The rest of a `long` or of a pointer.
    High,
}

/// What the 32 bits are compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Test {
    /// Under this mask they are this value.
    Equal {
        /// Which bits count.
        mask: u32,
        /// What they must be.
        value: u32,
    },
    /// At least one of these bits is set.
    Any(u32),
}

/// One condition on one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Condition {
    /// 0 to 5.
    pub(crate) argument: u8,
    /// Which half.
    pub(crate) half: Half,
    /// The comparison.
    pub(crate) test: Test,
}

/// Conditions that must all hold, and what happens then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Clause {
    /// All must hold.
    pub(crate) when: &'static [Condition],
    /// What happens.
    pub(crate) then: Action,
}

/// What happens to one call number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Always the same.
    Always(Action),
    /// The first clause whose conditions hold, else the last action.
    First(&'static [Clause], Action),
}

/// A condition on the low half of an argument.
pub(crate) const fn low(argument: u8, test: Test) -> Condition {
    Condition { argument, half: Half::Low, test }
}

/// A condition on the high half of an argument.
pub(crate) const fn high(argument: u8, test: Test) -> Condition {
    Condition { argument, half: Half::High, test }
}

/// The low half under a mask is a value.
pub(crate) const fn masked(argument: u8, mask: u32, value: u32) -> Condition {
    low(argument, Test::Equal { mask, value })
}

/// The low half is a value.
pub(crate) const fn equal(argument: u8, value: u32) -> Condition {
    masked(argument, u32::MAX, value)
}
