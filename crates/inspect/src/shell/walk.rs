//! Walks the syntax tree of shell text in the order of running, with what variables and the working folder would be.
//!
//! It follows every branch: what only might run counts as running. Where branches disagree about a variable or the
//! working folder, it is unknown afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use brush_parser::ast;

use super::flow::Flow;
use super::words::{Arg, Value};
use crate::path::Place;
use crate::understood::Understood;
use crate::{bounds, knowledge};

/// What a shell remembers between commands.
#[derive(Clone, Default)]
pub(crate) struct Env {
    variables: Rc<BTreeMap<String, Value>>,
    /// The working folder, absolute, where known.
    pub(crate) cwd: Option<Rc<str>>,
    functions: Rc<BTreeMap<String, Rc<ast::FunctionBody>>>,
}

impl Env {
    /// Makes everything unknown that `after` has otherwise than `before`.
    fn forget(&mut self, before: &Env, after: &Env) {
        if !Rc::ptr_eq(&before.variables, &after.variables) {
            for (name, value) in &*after.variables {
                if before.variables.get(name) != Some(value) {
                    Rc::make_mut(&mut self.variables).insert(name.clone(), Value::default());
                }
            }
        }
        if before.cwd != after.cwd && self.cwd != after.cwd {
            self.cwd = None;
        }
        if !Rc::ptr_eq(&self.functions, &after.functions) {
            for (name, body) in &*after.functions {
                if !self.functions.contains_key(name) {
                    Rc::make_mut(&mut self.functions).insert(name.clone(), Rc::clone(body));
                }
            }
        }
    }

    fn differs(&self, other: &Env) -> bool {
        (!Rc::ptr_eq(&self.variables, &other.variables) && self.variables != other.variables) || self.cwd != other.cwd
    }

    /// What a variable was set to in the text, if it was.
    pub(crate) fn variable(&self, name: &str) -> Option<&Value> {
        self.variables.get(name)
    }
}

/// The state of one analysis.
pub(crate) struct Walker<'a> {
    pub(crate) place: &'a Place<'a>,
    pub(crate) out: Understood,
    /// How much each effect can change a verdict.
    pub(crate) weights: Vec<u8>,
    pub(crate) env: Env,
    pub(crate) positional: Option<Vec<Arg>>,
    /// Files written by the text itself, with their content.
    pub(crate) files: BTreeMap<String, Flow>,
    pub(crate) depth: u8,
    pub(crate) via: Vec<String>,
    pub(crate) elevated: bool,
    pub(crate) remote: bool,
    pub(crate) span: (usize, usize),
    pub(crate) operand_depth: usize,
    /// Functions being called, innermost last.
    calls: Vec<String>,
    /// Functions that were called at least once.
    called: BTreeSet<String>,
    /// Byte offset of each character of the top-level text, when it is not all ASCII.
    offsets: Option<Vec<usize>>,
    text_len: usize,
    nested_bytes: usize,
    /// Bytes of output made by commands of known text so far.
    pub(crate) made_bytes: usize,
    pub(crate) steps: usize,
    /// How deep in pipelines or background lists the walk is, for recognising fork bombs.
    concurrent: usize,
    /// How many commands stand inside one another here, over all nested texts: it bounds the stack.
    levels: usize,
}

/// What redirections gave a command.
#[derive(Default)]
pub(crate) struct Redirected {
    pub(crate) stdin: Option<Flow>,
    /// Files that standard output goes to.
    pub(crate) writes: Vec<Arg>,
    /// Standard input or output is a network connection.
    pub(crate) socket: bool,
}

impl<'a> Walker<'a> {
    pub(crate) fn new(place: &'a Place<'a>, text: &str) -> Self {
        let cwd = place.cwd.starts_with('/').then(|| crate::path::normalise(place.cwd, "")).flatten().map(Rc::from);
        Self {
            place,
            out: Understood::default(),
            weights: Vec::new(),
            env: Env { cwd, ..Env::default() },
            positional: None,
            files: BTreeMap::new(),
            depth: 0,
            via: Vec::new(),
            elevated: false,
            remote: false,
            span: (0, text.len()),
            operand_depth: 0,
            calls: Vec::new(),
            called: BTreeSet::new(),
            offsets: (!text.is_ascii()).then(|| text.char_indices().map(|(at, _)| at).collect()),
            text_len: text.len(),
            nested_bytes: 0,
            made_bytes: 0,
            steps: 0,
            concurrent: 0,
            levels: 0,
        }
    }

    /// Remembers a variable's value; more than [`bounds::VARIABLES`] are a limit.
    pub(crate) fn set(&mut self, name: String, value: Value) {
        if self.env.variables.len() < bounds::VARIABLES || self.env.variables.contains_key(&name) {
            Rc::make_mut(&mut self.env.variables).insert(name, value);
        } else if !self.out.overflow {
            self.limit("variables");
        }
    }

    /// Walks a whole text at the top; gives whether it was parsed.
    pub(crate) fn top(&mut self, text: &str) -> bool {
        match super::parse(text) {
            Ok(program) => {
                self.program(&program, &Flow::default());
                self.uncalled();
                true
            }
            Err(why) => {
                self.opaque("", why, false);
                false
            }
        }
    }

    /// Walks shell text found inside the text; gives its output.
    pub(crate) fn nested(&mut self, text: &str, stdin: &Flow) -> Flow {
        self.nested_bytes = self.nested_bytes.saturating_add(text.len());
        if self.depth >= bounds::TEXT_DEPTH || self.nested_bytes > bounds::NESTED_BYTES {
            self.limit("text nested in text");
            return Flow { produced: true, ..Flow::default() };
        }
        match super::parse(text) {
            Ok(program) => {
                self.depth += 1;
                let flow = self.program(&program, stdin);
                self.depth -= 1;
                flow
            }
            Err(why) => {
                self.opaque("", why, false);
                Flow { produced: true, ..Flow::default() }
            }
        }
    }

    /// Walks the text of a substitution in a shell of its own; gives what it stands for.
    pub(crate) fn substitute(&mut self, text: &str) -> Value {
        let trimmed = text.trim();
        if let Some(path) = trimmed.strip_prefix('<') {
            // `$(<file)` is the file's content.
            if !path.starts_with(['<', '(']) && !path.contains([';', '|', '&', '\n']) {
                let arg = self.expand_one(path.trim());
                let secret = self.path_effect(creel_model::Verb::Read, &arg, false);
                let flow = Flow { file: true, secret, produced: true, ..Flow::default() };
                return Value { text: None, loose: false, flow: Some(Box::new(flow)) };
            }
        }
        let saved = self.env.clone();
        let flow = self.nested(text, &Flow::default());
        self.env = saved;
        let text = flow.text.as_ref().map(|text| text.trim_end_matches('\n').to_owned());
        Value { text, loose: flow.loose, flow: Some(Box::new(flow)) }
    }

    fn program(&mut self, program: &ast::Program, stdin: &Flow) -> Flow {
        let mut out = Flow::known("");
        for list in &program.complete_commands {
            let flow = self.list(list, stdin);
            append(&mut out, &flow);
        }
        out
    }

    /// Walks functions that the text defines but never calls: another text may.
    fn uncalled(&mut self) {
        let functions = Rc::clone(&self.env.functions);
        for (name, body) in &*functions {
            if !self.called.contains(name) {
                let saved = self.env.clone();
                self.calls.push(name.clone());
                self.compound(&body.0, &Flow::default());
                self.calls.pop();
                self.env = saved;
            }
        }
    }

    fn list(&mut self, list: &ast::CompoundList, stdin: &Flow) -> Flow {
        let mut out = Flow::known("");
        for ast::CompoundListItem(item, separator) in &list.0 {
            let flow = if matches!(separator, ast::SeparatorOperator::Async) {
                let saved = self.env.clone();
                self.concurrent += 1;
                let flow = self.and_or(item, stdin);
                self.concurrent -= 1;
                self.env = Env { functions: std::mem::take(&mut self.env.functions), ..saved };
                flow
            } else {
                self.and_or(item, stdin)
            };
            append(&mut out, &flow);
        }
        out
    }

    fn and_or(&mut self, list: &ast::AndOrList, stdin: &Flow) -> Flow {
        let mut before = self.env.clone();
        let mut out = self.pipeline(&list.first, stdin);
        for next in &list.additional {
            match next {
                ast::AndOr::And(pipeline) => {
                    before = self.env.clone();
                    let flow = self.pipeline(pipeline, stdin);
                    append(&mut out, &flow);
                }
                ast::AndOr::Or(pipeline) => {
                    // The right side runs when the left failed, so in the surroundings before it.
                    let left = std::mem::replace(&mut self.env, before.clone());
                    let flow = self.pipeline(pipeline, stdin);
                    let right = std::mem::replace(&mut self.env, left);
                    self.env.forget(&before, &right);
                    // One of the two ran for its output; the left one where it says something.
                    if out.text.as_ref().is_none_or(String::is_empty) {
                        out.text = flow.text.clone();
                    }
                    out.loose |= flow.loose;
                    out.merge(&flow);
                }
            }
        }
        out
    }

    fn pipeline(&mut self, pipeline: &ast::Pipeline, stdin: &Flow) -> Flow {
        if let [only] = pipeline.seq.as_slice() {
            return self.command(only, stdin, false);
        }
        self.concurrent += 1;
        let mut flow = stdin.clone();
        for (index, command) in pipeline.seq.iter().enumerate() {
            let saved = self.env.clone();
            flow = self.command(command, &flow, index > 0);
            self.env = Env { functions: std::mem::take(&mut self.env.functions), ..saved };
        }
        self.concurrent -= 1;
        flow
    }

    fn command(&mut self, command: &ast::Command, stdin: &Flow, piped: bool) -> Flow {
        if self.levels >= bounds::LEVELS {
            self.limit("commands inside one another");
            return Flow { produced: true, ..Flow::default() };
        }
        self.levels += 1;
        let flow = self.command_inside(command, stdin, piped);
        self.levels -= 1;
        flow
    }

    fn command_inside(&mut self, command: &ast::Command, stdin: &Flow, piped: bool) -> Flow {
        self.steps += 1;
        if self.steps > bounds::COMMANDS {
            if self.steps == bounds::COMMANDS + 1 {
                self.limit("commands");
            }
            return Flow { produced: true, ..Flow::default() };
        }
        match command {
            ast::Command::Simple(simple) => {
                if self.depth == 0 && self.calls.is_empty() && self.operand_depth == 0 {
                    self.locate(simple);
                }
                self.simple(simple, stdin, piped)
            }
            ast::Command::Compound(compound, redirects) => {
                let redirected = self.redirects(redirects.as_ref());
                let flow = self.compound(compound, redirected.stdin.as_ref().unwrap_or(stdin));
                self.written(&redirected, &flow);
                flow
            }
            ast::Command::Function(function) => {
                self.define(function);
                Flow::known("")
            }
            ast::Command::ExtendedTest(test, redirects) => {
                self.redirects(redirects.as_ref());
                self.test(&test.expr);
                Flow::known("")
            }
        }
    }

    /// Remembers where in the given text the command stands.
    fn locate(&mut self, simple: &ast::SimpleCommand) {
        let mut words: Vec<&brush_parser::SourceSpan> = Vec::new();
        words.extend(simple.word_or_name.as_ref().and_then(|w| w.loc.as_ref()));
        for items in [simple.prefix.as_ref().map(|p| &p.0), simple.suffix.as_ref().map(|s| &s.0)].into_iter().flatten()
        {
            for item in items {
                match item {
                    ast::CommandPrefixOrSuffixItem::Word(w) | ast::CommandPrefixOrSuffixItem::AssignmentWord(_, w) => {
                        words.extend(w.loc.as_ref());
                    }
                    ast::CommandPrefixOrSuffixItem::ProcessSubstitution(_, s) => words.push(&s.loc),
                    ast::CommandPrefixOrSuffixItem::IoRedirect(_) => {}
                }
            }
        }
        let start = words.iter().map(|s| s.start.index).min();
        let end = words.iter().map(|s| s.end.index).max();
        if let (Some(start), Some(end)) = (start, end) {
            let byte = |index: usize| match &self.offsets {
                Some(offsets) => offsets.get(index).copied().unwrap_or(self.text_len),
                None => index.min(self.text_len),
            };
            self.span = (byte(start), byte(end).max(byte(start)));
        }
    }

    fn test(&mut self, expr: &ast::ExtendedTestExpr) {
        match expr {
            ast::ExtendedTestExpr::And(a, b) | ast::ExtendedTestExpr::Or(a, b) => {
                self.test(a);
                self.test(b);
            }
            ast::ExtendedTestExpr::Not(a) | ast::ExtendedTestExpr::Parenthesized(a) => self.test(a),
            ast::ExtendedTestExpr::UnaryTest(_, word) => {
                self.expand_one(&word.value);
            }
            ast::ExtendedTestExpr::BinaryTest(_, a, b) => {
                self.expand_one(&a.value);
                self.expand_one(&b.value);
            }
        }
    }

    fn define(&mut self, function: &ast::FunctionDefinition) {
        let name = function.fname.value.clone();
        if knowledge::lookup(&name).is_some() && !matches!(name.as_str(), "test" | "build" | "install" | "run" | "main")
        {
            self.opaque(&name, "a known command gets another meaning", true);
        }
        Rc::make_mut(&mut self.env.functions).insert(name, Rc::new(function.body.clone()));
    }

    /// Calls a function of the text, if there is one of that name.
    pub(crate) fn call(&mut self, name: &str, args: &[Arg], stdin: &Flow) -> Option<Flow> {
        let body = Rc::clone(self.env.functions.get(name)?);
        self.called.insert(name.to_owned());
        if self.calls.iter().any(|called| called == name) {
            if self.concurrent > 0 {
                let class = creel_model::CommandClass::Destructive;
                self.finding("command.fork-bomb", class, None, "a function starts copies of itself");
            }
            return Some(Flow { produced: true, ..Flow::default() });
        }
        if self.calls.len() >= bounds::CALLS {
            self.limit("calls of functions");
            return Some(Flow::default());
        }
        let saved = self.positional.replace(args.to_vec());
        self.calls.push(name.to_owned());
        let redirected = self.redirects(body.1.as_ref());
        let flow = self.compound(&body.0, redirected.stdin.as_ref().unwrap_or(stdin));
        self.written(&redirected, &flow);
        self.calls.pop();
        self.positional = saved;
        Some(flow)
    }

    fn compound(&mut self, compound: &ast::CompoundCommand, stdin: &Flow) -> Flow {
        match compound {
            ast::CompoundCommand::Arithmetic(arithmetic) => {
                self.expand_body(&arithmetic.expr.value);
                Flow::known("")
            }
            ast::CompoundCommand::ArithmeticForClause(clause) => {
                for expr in [&clause.initializer, &clause.condition, &clause.updater].into_iter().flatten() {
                    self.expand_body(&expr.value);
                }
                self.repeat(None, &clause.body.list, stdin)
            }
            ast::CompoundCommand::BraceGroup(group) => self.list(&group.list, stdin),
            ast::CompoundCommand::Subshell(subshell) => self.subshell(&subshell.list, stdin),
            ast::CompoundCommand::ForClause(clause) => self.for_clause(clause, stdin),
            ast::CompoundCommand::CaseClause(case) => {
                self.expand_one(&case.value.value);
                let before = self.env.clone();
                let mut out = Flow::known("");
                for item in &case.cases {
                    let Some(body) = &item.cmd else { continue };
                    let joined = std::mem::replace(&mut self.env, before.clone());
                    let flow = self.list(body, stdin);
                    let after = std::mem::replace(&mut self.env, joined);
                    self.env.forget(&before, &after);
                    append(&mut out, &flow);
                }
                out
            }
            ast::CompoundCommand::IfClause(clause) => self.if_clause(clause, stdin),
            ast::CompoundCommand::WhileClause(clause) | ast::CompoundCommand::UntilClause(clause) => {
                self.repeat(Some(&clause.0), &clause.1.list, stdin)
            }
            ast::CompoundCommand::Coprocess(coprocess) => self.command(&coprocess.body, stdin, false),
        }
    }

    /// Walks a list in a shell of its own.
    pub(crate) fn subshell(&mut self, list: &ast::CompoundList, stdin: &Flow) -> Flow {
        let saved = self.env.clone();
        let flow = self.list(list, stdin);
        self.env = saved;
        flow
    }

    fn if_clause(&mut self, clause: &ast::IfClauseCommand, stdin: &Flow) -> Flow {
        self.list(&clause.condition, stdin);
        let before = self.env.clone();
        let mut out = self.list(&clause.then, stdin);
        let mut joined = before.clone();
        let after = std::mem::replace(&mut self.env, before.clone());
        joined.forget(&before, &after);
        for branch in clause.elses.iter().flatten() {
            if let Some(condition) = &branch.condition {
                self.list(condition, stdin);
            }
            let flow = self.list(&branch.body, stdin);
            append(&mut out, &flow);
            let after = std::mem::replace(&mut self.env, before.clone());
            joined.forget(&before, &after);
        }
        self.env = joined;
        out
    }

    /// A loop of unknown length: what its body changes is unknown in its next round and afterwards.
    fn repeat(&mut self, condition: Option<&ast::CompoundList>, body: &ast::CompoundList, stdin: &Flow) -> Flow {
        let before = self.env.clone();
        let mut flow = Flow { produced: true, ..Flow::default() };
        for _ in 0..2 {
            if let Some(condition) = condition {
                self.list(condition, stdin);
            }
            let round = self.list(body, stdin);
            flow.merge(&round);
            if !self.env.differs(&before) {
                break;
            }
            let after = self.env.clone();
            self.env.forget(&before, &after);
            if before.cwd != after.cwd {
                self.env.cwd = None;
            }
        }
        flow
    }

    fn for_clause(&mut self, clause: &ast::ForClauseCommand, stdin: &Flow) -> Flow {
        let mut values = Vec::new();
        for word in clause.values.iter().flatten() {
            values.extend(self.expand(&word.value));
        }
        let name = clause.variable_name.clone();
        if !values.is_empty() && values.len() <= 16 && values.iter().all(|v| !v.unknown) {
            let mut flow = Flow::known("");
            for value in values {
                let value = Value { text: Some(value.text), loose: value.loose, flow: value.flow };
                self.set(name.clone(), value);
                let round = self.list(&clause.body.list, stdin);
                append(&mut flow, &round);
            }
            return flow;
        }
        let mut source = Flow::default();
        for value in &values {
            if let Some(flow) = &value.flow {
                source.merge(flow);
            }
        }
        self.set(name, Value { flow: Some(Box::new(source)), ..Value::default() });
        self.repeat(None, &clause.body.list, stdin)
    }
}

/// Adds the output of a later command to that of earlier ones.
pub(crate) fn append(out: &mut Flow, next: &Flow) {
    out.text = match (out.text.take(), &next.text) {
        (Some(mut text), Some(more)) if text.len() + more.len() <= bounds::KNOWN_BYTES => {
            text.push_str(more);
            Some(text)
        }
        _ => None,
    };
    out.loose |= next.loose;
    out.merge(next);
}
