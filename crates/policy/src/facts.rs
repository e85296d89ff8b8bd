//! An effect with its surroundings as the values that rules see.
//!
//! Borrowed from the question and looked up by attribute; Cedar's request is made from the same values, and only for
//! an effect that some rule may match. [`Facts::json`] shows them to people, so an explanation cannot differ from what
//! was judged.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::str::FromStr as _;

use cedar_policy::{
    Context as CedarContext, Entities, Entity, EntityId, EntityTypeName, EntityUid, Request, RestrictedExpression,
};
use serde_json::{Map, Value};

use creel_model::{Certainty, CommandClass, Effect, Object, Verb, Zone};

use crate::question::Question;
use crate::schema::TYPES;
use crate::zones::Zones;

/// An attribute's value.
#[derive(Debug)]
pub(crate) enum Fact<'a> {
    Text(Cow<'a, str>),
    Flag(bool),
    Number(i64),
    Set(Vec<Cow<'a, str>>),
}

/// Where an attribute stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Principal,
    Resource,
    Context,
    /// `context.labels`.
    Labels,
    /// `context.content`.
    Content,
}

macro_rules! attributes {
    ($($attribute:ident: $owner:ident $name:literal,)*) => {
        /// Everything that a rule can look at, beside the verb and the object's type.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Attribute { $($attribute,)* }

        impl Attribute {
            const ALL: &'static [(Attribute, Owner, &'static str)] =
                &[$((Attribute::$attribute, Owner::$owner, $name),)*];
        }
    };
}

attributes! {
    Kind: Principal "kind", Uid: Principal "uid", Mode: Principal "mode",
    ApprovalMode: Principal "approval_mode", Managed: Principal "managed",
    Zone: Resource "zone", Zones: Resource "zones",
    Path: Resource "path", Resolved: Resource "resolved", Name: Resource "name", Covers: Resource "covers",
    Host: Resource "host", Port: Resource "port", Url: Resource "url",
    Program: Resource "program", Argv: Resource "argv", Command: Resource "command", Script: Resource "script",
    Server: Resource "server", McpTool: Resource "tool",
    System: Resource "system", Key: Resource "key",
    Role: Resource "role", Bytes: Resource "bytes",
    Point: Context "point", Tool: Context "tool", Tier: Context "tier", Caged: Context "caged",
    Parsed: Context "parsed", Home: Context "home", Workspace: Context "workspace", Classes: Context "classes",
    ContextZones: Context "zones", Findings: Context "findings", FindingClasses: Context "finding_classes",
    Untrusted: Labels "untrusted", Mixed: Labels "mixed", Sensitive: Labels "sensitive",
    ContentClasses: Content "classes",
    Origin: Context "origin", Sink: Context "sink", Certainty: Context "certainty", Recursive: Context "recursive",
    Dynamic: Context "dynamic", Elevated: Context "elevated", Remote: Context "remote",
    Consequential: Context "consequential", Opaque: Context "opaque",
}

impl Attribute {
    /// The attribute of that name.
    pub(crate) fn named(owner: Owner, name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, of, known)| *of == owner && *known == name).map(|(attribute, _, _)| *attribute)
    }
}

/// The facts of one effect.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) verb: Verb,
    /// The object's type.
    pub(crate) kind: &'static str,
    /// By attribute; `None` where the object's type has no such attribute.
    values: Vec<Option<Fact<'a>>>,
}

/// Names that Cedar wants parsed; done once at load.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    agent: EntityUid,
    actions: Vec<EntityUid>,
    objects: Vec<EntityUid>,
}

impl Names {
    pub(crate) fn new() -> Result<Self, String> {
        let uid = |kind: &str, id: &str| -> Result<EntityUid, String> {
            let name = EntityTypeName::from_str(kind).map_err(|error| error.to_string())?;
            Ok(EntityUid::from_type_name_and_id(name, EntityId::new(id)))
        };
        Ok(Self {
            agent: uid("Agent", "agent")?,
            actions: Verb::ALL.iter().map(|verb| uid("Action", verb.as_str())).collect::<Result<_, _>>()?,
            objects: TYPES.iter().map(|kind| uid(kind, "object")).collect::<Result<_, _>>()?,
        })
    }

    /// The request and entities for one effect; an error is Cedar's own words and leads to a deny.
    pub(crate) fn request(&self, facts: &Facts<'_>) -> Result<(Request, Entities), String> {
        let action = Verb::ALL.iter().position(|verb| *verb == facts.verb).and_then(|index| self.actions.get(index));
        let object = TYPES.iter().position(|name| *name == facts.kind).and_then(|index| self.objects.get(index));
        let (Some(action), Some(object)) = (action, object) else { return Err("no such verb or type".to_owned()) };
        let entity = |uid: &EntityUid, owner: Owner| {
            let attributes = facts.of(owner).map(|(name, fact)| (name.to_owned(), fact.cedar()));
            Entity::new(uid.clone(), attributes.collect(), [].into_iter().collect()).map_err(|error| error.to_string())
        };
        let entities = [entity(&self.agent, Owner::Principal)?, entity(object, Owner::Resource)?];
        let entities = Entities::from_entities(entities, None).map_err(|error| error.to_string())?;
        let record = |owner: Owner| {
            let pairs = facts.of(owner).map(|(name, fact)| (name.to_owned(), fact.cedar()));
            RestrictedExpression::new_record(pairs).map_err(|error| error.to_string())
        };
        let mut pairs: Vec<(String, RestrictedExpression)> =
            facts.of(Owner::Context).map(|(name, fact)| (name.to_owned(), fact.cedar())).collect();
        pairs.push(("labels".to_owned(), record(Owner::Labels)?));
        pairs.push(("content".to_owned(), record(Owner::Content)?));
        let context = CedarContext::from_pairs(pairs).map_err(|error| error.to_string())?;
        let request = Request::new(self.agent.clone(), action.clone(), object.clone(), context, None)
            .map_err(|error| error.to_string())?;
        Ok((request, entities))
    }
}

impl<'a> Facts<'a> {
    pub(crate) fn new(question: &Question<'a>, effect: &'a Effect, zones: &'a Zones) -> Self {
        let mut values = Vec::new();
        values.resize_with(Attribute::ALL.len(), || None);
        let mut facts = Self { verb: effect.verb, kind: effect.object.type_name(), values };
        facts.principal(question);
        facts.resource(question, effect, zones);
        facts.context(question, effect);
        facts
    }

    /// The value of an attribute; `None` where this type of object has none.
    pub(crate) fn get(&self, attribute: Attribute) -> Option<&Fact<'a>> {
        self.values.get(attribute as usize)?.as_ref()
    }

    /// The same values for people.
    pub(crate) fn json(&self) -> Value {
        let record = |owner: Owner| -> Map<String, Value> {
            self.of(owner).map(|(name, fact)| (name.to_owned(), fact.json())).collect()
        };
        let mut object = record(Owner::Resource);
        object.insert("type".to_owned(), Value::from(self.kind));
        let mut context = record(Owner::Context);
        context.insert("labels".to_owned(), Value::Object(record(Owner::Labels)));
        context.insert("content".to_owned(), Value::Object(record(Owner::Content)));
        let mut map = Map::new();
        map.insert("principal".to_owned(), Value::Object(record(Owner::Principal)));
        map.insert("action".to_owned(), Value::from(self.verb.as_str()));
        map.insert("resource".to_owned(), Value::Object(object));
        map.insert("context".to_owned(), Value::Object(context));
        Value::Object(map)
    }

    fn of(&self, owner: Owner) -> impl Iterator<Item = (&'static str, &Fact<'a>)> {
        let pairs = Attribute::ALL.iter().zip(&self.values);
        pairs
            .filter(move |((_, of, _), _)| *of == owner)
            .filter_map(|((_, _, name), fact)| Some((*name, fact.as_ref()?)))
    }

    fn put(&mut self, attribute: Attribute, fact: Fact<'a>) {
        if let Some(value) = self.values.get_mut(attribute as usize) {
            *value = Some(fact);
        }
    }

    fn text(&mut self, attribute: Attribute, text: &'a str) {
        self.put(attribute, Fact::Text(Cow::Borrowed(text)));
    }

    fn flag(&mut self, attribute: Attribute, flag: bool) {
        self.put(attribute, Fact::Flag(flag));
    }

    fn set(&mut self, attribute: Attribute, words: impl IntoIterator<Item = &'a str>) {
        self.put(attribute, Fact::Set(words.into_iter().map(Cow::Borrowed).collect()));
    }

    fn principal(&mut self, question: &Question<'a>) {
        let agent = question.agent;
        self.text(Attribute::Kind, &agent.kind);
        self.put(Attribute::Uid, Fact::Number(i64::from(agent.account_uid)));
        self.text(Attribute::Mode, agent.mode.as_str());
        self.text(Attribute::ApprovalMode, agent.approval_mode.as_str());
        self.flag(Attribute::Managed, agent.managed);
    }

    fn resource(&mut self, question: &Question<'a>, effect: &'a Effect, zones: &'a Zones) {
        self.text(Attribute::Zone, zones.main(&effect.zones));
        self.set(Attribute::Zones, effect.zones.iter().map(Zone::as_str));
        match &effect.object {
            Object::Path { path, resolved } => {
                let after = resolved.as_ref().unwrap_or(path);
                self.text(Attribute::Path, path);
                self.text(Attribute::Resolved, after);
                self.text(Attribute::Name, after.rsplit('/').find(|part| !part.is_empty()).unwrap_or(""));
                let covered = covers(question, effect, path, after, zones);
                self.put(Attribute::Covers, Fact::Set(covered.into_iter().map(Cow::Owned).collect()));
            }
            Object::Host { host, port, url } => {
                self.text(Attribute::Host, host);
                self.put(Attribute::Port, Fact::Number(port.map_or(0, i64::from)));
                self.text(Attribute::Url, url.as_deref().unwrap_or_default());
            }
            Object::Program { program, argv, script } => {
                self.text(Attribute::Program, program);
                self.set(Attribute::Argv, argv.iter().map(String::as_str));
                self.put(Attribute::Command, Fact::Text(Cow::Owned(effect.object.to_string())));
                self.text(Attribute::Script, script.as_deref().unwrap_or_default());
            }
            Object::McpTool { server, tool } => {
                self.text(Attribute::Server, server);
                self.text(Attribute::McpTool, tool);
            }
            Object::Credential { name } => self.text(Attribute::Name, name),
            Object::ConfigKey { system, key } => {
                self.text(Attribute::System, system);
                self.text(Attribute::Key, key);
            }
            Object::Text { role, bytes } => {
                self.text(Attribute::Role, role.as_str());
                self.put(Attribute::Bytes, Fact::Number(i64::try_from(*bytes).unwrap_or(i64::MAX)));
            }
        }
    }

    fn context(&mut self, question: &Question<'a>, effect: &'a Effect) {
        let context = question.context;
        self.text(Attribute::Point, context.point.as_str());
        self.text(Attribute::Tool, &context.tool);
        self.text(Attribute::Tier, &context.tier);
        self.flag(Attribute::Caged, context.caged);
        self.flag(Attribute::Parsed, context.parsed);
        self.text(Attribute::Home, &question.places.home);
        self.text(Attribute::Workspace, question.places.workspace.as_deref().unwrap_or_default());
        self.set(Attribute::Classes, effect.classes.iter().map(|class| class.as_str()));
        self.set(Attribute::ContextZones, effect.zones.iter().map(Zone::as_str));
        self.set(Attribute::Findings, context.findings.iter().map(String::as_str));
        self.set(Attribute::FindingClasses, context.finding_classes.iter().map(String::as_str));
        self.flag(Attribute::Untrusted, context.labels.untrusted);
        self.flag(Attribute::Mixed, context.labels.mixed);
        self.set(Attribute::Sensitive, context.labels.sensitive.iter().map(String::as_str));
        let content = effect.content.union(&context.content_classes);
        self.set(Attribute::ContentClasses, content.map(String::as_str));
        let origin = effect.origin.as_ref().map(ToString::to_string).unwrap_or_default();
        self.put(Attribute::Origin, Fact::Text(Cow::Owned(origin)));
        self.text(Attribute::Sink, effect.sink.map_or("", |sink| sink.as_str()));
        self.text(Attribute::Certainty, effect.certainty.as_str());
        self.flag(Attribute::Recursive, effect.recursive);
        self.flag(Attribute::Dynamic, effect.dynamic);
        self.flag(Attribute::Elevated, effect.elevated);
        self.flag(Attribute::Remote, effect.remote);
        self.flag(Attribute::Consequential, consequential(effect));
        self.flag(Attribute::Opaque, effect.certainty == Certainty::Opaque);
    }
}

/// What lies below a folder matters only where a whole tree is meant; a deletion or move of a folder always is.
fn covers(question: &Question<'_>, effect: &Effect, path: &str, resolved: &str, zones: &Zones) -> BTreeSet<String> {
    if !effect.recursive && !matches!(effect.verb, Verb::Delete | Verb::Rename) {
        return BTreeSet::new();
    }
    let mut covered = zones.covered(path, question.places);
    if resolved != path {
        covered.extend(zones.covered(resolved, question.places));
    }
    covered
}

/// Whether an effect changes something that matters if it was not wanted: what DESIGN §9 gates.
pub(crate) fn consequential(effect: &Effect) -> bool {
    let scratch = || {
        let has = |zone: &str| effect.zones.iter().any(|found| found.as_str() == zone);
        has(Zone::TEMPORARY) && effect.zones.len() == 1
    };
    match effect.verb {
        Verb::Delete | Verb::Rename | Verb::Write => !scratch(),
        Verb::Send | Verb::Configure | Verb::Spend => true,
        Verb::Call => matches!(&effect.object, Object::McpTool { server, .. } if !server.is_empty()),
        Verb::Execute => {
            let harmless = [CommandClass::ReadOnly, CommandClass::Build];
            effect.classes.is_empty() || effect.classes.iter().any(|class| !harmless.contains(class))
        }
        Verb::Read | Verb::Connect | Verb::Receive | Verb::Prompt | Verb::Reply => false,
    }
}

impl Fact<'_> {
    fn cedar(&self) -> RestrictedExpression {
        match self {
            Fact::Text(text) => RestrictedExpression::new_string(text.to_string()),
            Fact::Flag(flag) => RestrictedExpression::new_bool(*flag),
            Fact::Number(number) => RestrictedExpression::new_long(*number),
            Fact::Set(words) => RestrictedExpression::new_set(
                words.iter().map(|word| RestrictedExpression::new_string(word.to_string())),
            ),
        }
    }

    fn json(&self) -> Value {
        match self {
            Fact::Text(text) => Value::from(text.as_ref()),
            Fact::Flag(flag) => Value::from(*flag),
            Fact::Number(number) => Value::from(*number),
            Fact::Set(words) => words.iter().map(|word| Value::from(word.as_ref())).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_stand_at_their_own_place_in_the_list() {
        for (index, (attribute, owner, name)) in Attribute::ALL.iter().enumerate() {
            assert_eq!(*attribute as usize, index);
            assert_eq!(Attribute::named(*owner, name), Some(*attribute));
        }
    }
}
