//! An effect with its surroundings as the values that rules see.
//!
//! Built once per effect and shared by every rule. [`json`] shows the same values to people; both come from one list,
//! so an explanation cannot differ from what was judged.

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

/// An attribute's value before it becomes Cedar's or JSON's.
enum Fact {
    Text(String),
    Flag(bool),
    Number(i64),
    Set(Vec<String>),
    Record(Vec<(&'static str, Fact)>),
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
    pub(crate) fn request(
        &self,
        question: &Question<'_>,
        effect: &Effect,
        zones: &Zones,
    ) -> Result<(Request, Entities), String> {
        let action = Verb::ALL.iter().position(|verb| *verb == effect.verb).and_then(|index| self.actions.get(index));
        let kind = effect.object.type_name();
        let object = TYPES.iter().position(|name| *name == kind).and_then(|index| self.objects.get(index));
        let (Some(action), Some(object)) = (action, object) else { return Err("no such verb or type".to_owned()) };
        let entity = |uid: &EntityUid, facts: Vec<(&'static str, Fact)>| {
            let attributes = facts.into_iter().map(|(name, fact)| (name.to_owned(), fact.cedar()));
            Entity::new(uid.clone(), attributes.collect(), [].into_iter().collect()).map_err(|error| error.to_string())
        };
        let entities = [entity(&self.agent, principal(question))?, entity(object, resource(question, effect, zones))?];
        let entities = Entities::from_entities(entities, None).map_err(|error| error.to_string())?;
        let pairs = context(question, effect).into_iter().map(|(name, fact)| (name.to_owned(), fact.cedar()));
        let context = CedarContext::from_pairs(pairs).map_err(|error| error.to_string())?;
        let request = Request::new(self.agent.clone(), action.clone(), object.clone(), context, None)
            .map_err(|error| error.to_string())?;
        Ok((request, entities))
    }
}

/// The same values for people.
pub(crate) fn json(question: &Question<'_>, effect: &Effect, zones: &Zones) -> Value {
    let record = |facts: Vec<(&'static str, Fact)>| Fact::Record(facts).json();
    let mut map = Map::new();
    map.insert("principal".to_owned(), record(principal(question)));
    map.insert("action".to_owned(), Value::from(effect.verb.as_str()));
    let mut object = record(resource(question, effect, zones));
    if let Some(object) = object.as_object_mut() {
        object.insert("type".to_owned(), Value::from(effect.object.type_name()));
    }
    map.insert("resource".to_owned(), object);
    map.insert("context".to_owned(), record(context(question, effect)));
    Value::Object(map)
}

fn principal(question: &Question<'_>) -> Vec<(&'static str, Fact)> {
    let agent = question.agent;
    vec![
        ("kind", Fact::Text(agent.kind.clone())),
        ("uid", Fact::Number(i64::from(agent.account_uid))),
        ("mode", Fact::Text(agent.mode.as_str().to_owned())),
        ("approval_mode", Fact::Text(agent.approval_mode.as_str().to_owned())),
        ("managed", Fact::Flag(agent.managed)),
    ]
}

fn resource(question: &Question<'_>, effect: &Effect, zones: &Zones) -> Vec<(&'static str, Fact)> {
    let mut facts = vec![
        ("zone", Fact::Text(zones.main(&effect.zones).to_owned())),
        ("zones", Fact::Set(effect.zones.iter().map(|zone| zone.0.clone()).collect())),
    ];
    facts.extend(match &effect.object {
        Object::Path { path, resolved } => {
            let after = resolved.as_ref().unwrap_or(path);
            let name = after.rsplit('/').find(|part| !part.is_empty()).unwrap_or("");
            vec![
                ("path", Fact::Text(path.clone())),
                ("resolved", Fact::Text(after.clone())),
                ("name", Fact::Text(name.to_owned())),
                ("covers", Fact::Set(covers(question, effect, path, after, zones))),
            ]
        }
        Object::Host { host, port, url } => vec![
            ("host", Fact::Text(host.clone())),
            ("port", Fact::Number(port.map_or(0, i64::from))),
            ("url", Fact::Text(url.clone().unwrap_or_default())),
        ],
        Object::Program { program, argv, script } => vec![
            ("program", Fact::Text(program.clone())),
            ("argv", Fact::Set(argv.clone())),
            ("command", Fact::Text(effect.object.to_string())),
            ("script", Fact::Text(script.clone().unwrap_or_default())),
        ],
        Object::McpTool { server, tool } => {
            vec![("server", Fact::Text(server.clone())), ("tool", Fact::Text(tool.clone()))]
        }
        Object::Credential { name } => vec![("name", Fact::Text(name.clone()))],
        Object::ConfigKey { system, key } => {
            vec![("system", Fact::Text(system.clone())), ("key", Fact::Text(key.clone()))]
        }
        Object::Text { role, bytes } => vec![
            ("role", Fact::Text(role.as_str().to_owned())),
            ("bytes", Fact::Number(i64::try_from(*bytes).unwrap_or(i64::MAX))),
        ],
    });
    facts
}

/// What lies below a folder matters only where a whole tree is meant; a deletion or move of a folder always is.
fn covers(question: &Question<'_>, effect: &Effect, path: &str, resolved: &str, zones: &Zones) -> Vec<String> {
    if !effect.recursive && !matches!(effect.verb, Verb::Delete | Verb::Rename) {
        return Vec::new();
    }
    let mut covered = zones.covered(path, question.places);
    if resolved != path {
        covered.extend(zones.covered(resolved, question.places));
    }
    covered.into_iter().collect()
}

fn context(question: &Question<'_>, effect: &Effect) -> Vec<(&'static str, Fact)> {
    let context = question.context;
    let set = |words: &BTreeSet<String>| Fact::Set(words.iter().cloned().collect());
    let text = |word: Option<String>| Fact::Text(word.unwrap_or_default());
    let labels = vec![
        ("untrusted", Fact::Flag(context.labels.untrusted)),
        ("mixed", Fact::Flag(context.labels.mixed)),
        ("sensitive", set(&context.labels.sensitive)),
    ];
    let content: Vec<String> = effect.content.union(&context.content_classes).cloned().collect();
    vec![
        ("point", Fact::Text(context.point.as_str().to_owned())),
        ("tool", Fact::Text(context.tool.clone())),
        ("tier", Fact::Text(context.tier.clone())),
        ("caged", Fact::Flag(context.caged)),
        ("parsed", Fact::Flag(context.parsed)),
        ("home", Fact::Text(question.places.home.clone())),
        ("workspace", text(question.places.workspace.clone())),
        ("classes", Fact::Set(effect.classes.iter().map(|class| class.as_str().to_owned()).collect())),
        ("zones", Fact::Set(effect.zones.iter().map(|zone| zone.0.clone()).collect())),
        ("findings", set(&context.findings)),
        ("finding_classes", set(&context.finding_classes)),
        ("labels", Fact::Record(labels)),
        ("content", Fact::Record(vec![("classes", Fact::Set(content))])),
        ("origin", text(effect.origin.as_ref().map(ToString::to_string))),
        ("sink", text(effect.sink.map(|sink| sink.as_str().to_owned()))),
        ("certainty", Fact::Text(effect.certainty.as_str().to_owned())),
        ("recursive", Fact::Flag(effect.recursive)),
        ("dynamic", Fact::Flag(effect.dynamic)),
        ("elevated", Fact::Flag(effect.elevated)),
        ("remote", Fact::Flag(effect.remote)),
        ("consequential", Fact::Flag(consequential(effect))),
        ("opaque", Fact::Flag(effect.certainty == Certainty::Opaque)),
    ]
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

impl Fact {
    fn cedar(self) -> RestrictedExpression {
        match self {
            Fact::Text(text) => RestrictedExpression::new_string(text),
            Fact::Flag(flag) => RestrictedExpression::new_bool(flag),
            Fact::Number(number) => RestrictedExpression::new_long(number),
            Fact::Set(words) => RestrictedExpression::new_set(words.into_iter().map(RestrictedExpression::new_string)),
            Fact::Record(facts) => {
                let pairs = facts.into_iter().map(|(name, fact)| (name.to_owned(), fact.cedar()));
                // A record with each name once cannot be refused; were it, the rules would see an empty one and fail.
                RestrictedExpression::new_record(pairs).unwrap_or_else(|_| RestrictedExpression::new_bool(false))
            }
        }
    }

    fn json(self) -> Value {
        match self {
            Fact::Text(text) => Value::from(text),
            Fact::Flag(flag) => Value::from(flag),
            Fact::Number(number) => Value::from(number),
            Fact::Set(words) => Value::from(words),
            Fact::Record(facts) => {
                Value::Object(facts.into_iter().map(|(name, fact)| (name.to_owned(), fact.json())).collect())
            }
        }
    }
}
