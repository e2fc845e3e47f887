//! The API's own description, OpenAPI 3.1: a table of what the routes do, over schemas that are derived from the types
//! that are really read and written.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use http::StatusCode;
use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{Shared, deliveries, events, explain, objects, problem, receivers, rollouts, stream, wait};

const JSON: &str = "application/json";
const PROBLEM: &str = "application/problem+json";
const STREAM: &str = "text/event-stream";
/// The header that a stream goes on by.
const LAST_EVENT_ID: &str = "Last-Event-ID";

/// What a route does.
struct Operation {
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    /// The schema of its query.
    query: Option<SchemaOf>,
    /// A header that it reads, and what for.
    header: Option<(&'static str, &'static str)>,
    /// The body that it takes.
    takes: Option<SchemaOf>,
    /// The status of a success.
    status: u16,
    /// Its bodies: content type and schema.
    answers: Vec<(&'static str, SchemaOf)>,
    /// Statuses of refusals, but for those that any route has.
    refusals: Vec<u16>,
}

type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// By its name.
fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// With its fields.
fn fields<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    T::json_schema(generator)
}

/// An event as Flux writes it.
fn flux_event(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({
        "type": "object",
        "description": "An event.toolkit.fluxcd.io/v1beta1 Event, its metadata without prefixes.",
    })
}

fn flux_events(generator: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({"type": "array", "items": flux_event(generator)})
}

fn any_object(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({"type": "object"})
}

impl Operation {
    fn get(path: &'static str, summary: &'static str) -> Self {
        Self {
            method: "get",
            path,
            summary,
            query: None,
            header: None,
            takes: None,
            status: 200,
            answers: Vec::new(),
            refusals: Vec::new(),
        }
    }

    fn post(path: &'static str, summary: &'static str) -> Self {
        Self { method: "post", status: 202, ..Self::get(path, summary) }
    }

    fn query(self, of: SchemaOf) -> Self {
        Self { query: Some(of), refusals: [self.refusals, vec![400]].concat(), ..self }
    }

    fn answers(mut self, kind: &'static str, of: SchemaOf) -> Self {
        self.answers.push((kind, of));
        self
    }

    fn refuses(self, statuses: &[u16]) -> Self {
        Self { refusals: [&self.refusals, statuses].concat(), ..self }
    }
}

/// Query parameters of waits.
#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
#[expect(dead_code, reason = "described only; waits read them by themselves")]
struct WaitParameters {
    /// The revision or commit: as Flux writes it, or the first 7 digits of its hash or more.
    revision: String,
    /// `Kind/namespace/name`, each of them possibly `*`; may be given more than once. None: whatever goes to the revision.
    object: Option<Vec<String>>,
    /// Only objects of this cluster.
    cluster: Option<String>,
    /// How long to wait for the verdict, at most an hour; 5m if not given.
    timeout: Option<String>,
    /// What a failure means: the answer (`fail`, the default) or nothing (`wait`).
    #[schemars(extend("enum" = ["fail", "wait"]))]
    on_failure: Option<String>,
    /// With `on-failure=fail`: a failure counts unless the object succeeds within this time.
    failure_grace: Option<String>,
    /// What it means that another revision came before this one was live.
    #[schemars(extend("enum" = ["fail", "succeed", "wait"]))]
    on_superseded: Option<String>,
    /// What happened before doesn't count: RFC 3339, or how long ago.
    not_before: Option<String>,
    /// When this was first asked, for who asks again after a broken connection: RFC 3339.
    asked: Option<String>,
    /// Whether what nothing is known to go to is the answer at once (`fail`), or waited for (`wait`, the default).
    #[schemars(extend("enum" = ["fail", "wait"]))]
    unknown: Option<String>,
}

fn table() -> Vec<Operation> {
    let get = Operation::get;
    vec![
        get("/openapi.json", "This description").answers(JSON, any_object),
        get("/events", "All events of a revision in Flux's JSON, oldest first")
            .query(fields::<events::RevisionParameters>)
            .answers(JSON, flux_events),
        Operation {
            takes: Some(flux_event),
            ..Operation::post("/events", "Takes in an event that a belfry, generic or generic-hmac Provider passes on")
                .refuses(&[400, 409, 413])
        },
        get("/api/v1/events", "Events, newest first")
            .query(fields::<events::ListParameters>)
            .answers(JSON, schema::<events::List>),
        Operation {
            header: Some((LAST_EVENT_ID, "Goes on after the event of this id, as browsers ask when a stream broke.")),
            ..get("/api/v1/events/stream", "Events as they come: each has its id, and one of these as its data")
                .query(fields::<stream::StreamParameters>)
                .answers(STREAM, schema::<events::Item>)
        },
        get("/api/v1/events/{id}", "One event, also in Flux's JSON")
            .answers(JSON, schema::<events::Whole<'_>>)
            .refuses(&[400, 404]),
        get("/api/v1/objects", "Objects and where they stand")
            .query(fields::<objects::ListParameters>)
            .answers(JSON, schema::<objects::List>),
        get("/api/v1/explain", "What is told about an object, and if not, why")
            .query(fields::<explain::ExplainParameters>)
            .answers(JSON, schema::<explain::Explanation>)
            .refuses(&[404]),
        get(
            "/api/v1/wait",
            "Whether a revision is live, once that is decided or the time is up; or each step on the way",
        )
        .query(fields::<WaitParameters>)
        .answers(JSON, schema::<wait::Told<'_>>)
        .answers(STREAM, schema::<wait::Told<'_>>)
        .refuses(&[403]),
        get("/api/v1/rollouts", "Rollouts, newest first")
            .query(fields::<rollouts::ListParameters>)
            .answers(JSON, schema::<rollouts::List>),
        get("/api/v1/rollouts/{id}", "One rollout").answers(JSON, schema::<rollouts::Rollout>).refuses(&[400, 404]),
        get("/api/v1/deliveries", "Deliveries, newest first")
            .query(fields::<deliveries::ListParameters>)
            .answers(JSON, schema::<deliveries::List>),
        get("/api/v1/deliveries/{id}", "One delivery, with its attempts")
            .answers(JSON, schema::<deliveries::Whole>)
            .refuses(&[400, 404]),
        Operation::post(
            "/api/v1/deliveries/{id}/redeliver",
            "Delivers again what was delivered, superseded or given up",
        )
        .answers(JSON, schema::<deliveries::Redelivered>)
        .refuses(&[400, 403, 404, 409]),
        get("/api/v1/receivers", "Receivers, their paths, and their last webhooks")
            .answers(JSON, schema::<receivers::List>),
    ]
}

pub(super) async fn show(State(shared): State<Shared>) -> Json<Value> {
    Json(document(&shared.routes))
}

/// What these routes do.
fn document(routes: &[(&'static str, &'static str)]) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut asked = settings.clone().with(|settings| settings.inline_subschemas = true).into_generator();
    let mut written = settings.for_serialize().into_generator();
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for operation in table().into_iter().filter(|known| routes.contains(&(known.method, known.path))) {
        let described = operation.describe(&mut asked, &mut written);
        paths.entry(operation.path).or_default().insert(operation.method.to_owned(), described);
    }
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Belfry",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
        },
        // From the machine itself nothing may be needed.
        "security": [{"bearer": []}, {}],
        "paths": paths,
        "components": {
            "schemas": written.take_definitions(true).into_iter().map(present).collect::<Map<_, _>>(),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    });
    unwrap_lines(&mut document);
    document
}

/// Comments are as wide as our files; descriptions are as wide as whoever shows them likes.
fn unwrap_lines(value: &mut Value) {
    match value {
        Value::Object(fields) => fields.iter_mut().for_each(|(key, value)| match value {
            Value::String(text) if key == "description" => *text = text.replace('\n', " "),
            value => unwrap_lines(value),
        }),
        Value::Array(items) => items.iter_mut().for_each(unwrap_lines),
        _ => {}
    }
}

impl Operation {
    fn describe(&self, asked: &mut SchemaGenerator, written: &mut SchemaGenerator) -> Value {
        let mut parameters = self.query.map(|of| parameters(of(asked))).unwrap_or_default();
        if self.path.contains("{id}") {
            let number = json!({"type": "integer", "format": "int64"});
            parameters.push(json!({"name": "id", "in": "path", "required": true, "schema": number}));
        }
        if let Some((name, what)) = self.header {
            let text = json!({"type": "string"});
            parameters.push(json!({"name": name, "in": "header", "description": what, "schema": text}));
        }
        let mut responses = Map::new();
        let words = |status: u16| StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
        let bodies = self.answers.iter().map(|(kind, of)| ((*kind).to_owned(), json!({"schema": of(written)})));
        let mut success = json!({"description": words(self.status)});
        if !self.answers.is_empty() {
            success["content"] = Value::Object(bodies.collect());
        }
        responses.insert(self.status.to_string(), success);
        for status in self.refusals.iter().chain(&[401, 503]) {
            let refusal = json!({
                "description": words(*status),
                "content": {PROBLEM: {"schema": written.subschema_for::<problem::Document>()}},
            });
            responses.insert(status.to_string(), refusal);
        }
        let mut described = json!({"summary": self.summary, "responses": responses});
        if !parameters.is_empty() {
            described["parameters"] = parameters.into();
        }
        if let Some(of) = self.takes {
            described["requestBody"] = json!({"required": true, "content": {JSON: {"schema": of(written)}}});
        }
        described
    }
}

/// A schema of what is written, where what there is not is left out and never null.
fn present((name, mut schema): (String, Value)) -> (String, Value) {
    if let Some(fields) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        fields.values_mut().for_each(|field| *field = without_null(field.take()));
    }
    (name, schema)
}

/// The fields of a schema as query parameters, which are never null either.
fn parameters(schema: Schema) -> Vec<Value> {
    let schema = schema.to_value();
    let is_required = |name: &str| {
        schema["required"].as_array().is_some_and(|required| required.iter().any(|required| required == name))
    };
    let fields = schema["properties"].as_object().into_iter().flatten();
    fields
        .map(|(name, field)| {
            let mut field = without_null(field.clone());
            let description = field.as_object_mut().and_then(|field| field.remove("description"));
            let mut parameter = json!({"name": name, "in": "query", "schema": field});
            if let Some(description) = description {
                parameter["description"] = description;
            }
            if is_required(name) {
                parameter["required"] = true.into();
            }
            parameter
        })
        .collect()
}

fn without_null(mut field: Value) -> Value {
    let null = json!({"type": "null"});
    if let Some(fields) = field.as_object_mut() {
        fields.remove("default");
        if let Some(types) = fields.get_mut("type")
            && let Some(one) = types.as_array().and_then(|types| types.iter().find(|one| **one != "null")).cloned()
        {
            *types = one;
        }
        if let Some(Value::Array(any)) = fields.remove("anyOf") {
            let others = any.into_iter().filter(|one| *one != null).filter_map(|one| match one {
                Value::Object(one) => Some(one),
                _ => None,
            });
            for (key, value) in others.flatten() {
                fields.entry(key).or_insert(value);
            }
        }
    }
    field
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::routes;

    #[test]
    fn every_route_is_described_and_the_reverse() {
        let mut described: Vec<_> = table().iter().map(|known| (known.method, known.path)).collect();
        let mut served = routes().listed;
        described.sort_unstable();
        served.sort_unstable();
        assert_eq!(described, served);
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document(&routes().listed);
        let mut references = Vec::new();
        collect(&document, &mut references);
        assert!(!references.is_empty());
        for reference in references {
            assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
        }
    }

    fn collect(value: &Value, references: &mut Vec<String>) {
        match value {
            Value::Object(fields) => fields.iter().for_each(|(key, value)| match value {
                Value::String(reference) if key == "$ref" => references.push(reference.clone()),
                value => collect(value, references),
            }),
            Value::Array(items) => items.iter().for_each(|value| collect(value, references)),
            _ => {}
        }
    }

    #[test]
    fn the_description_is_what_clients_were_made_from() {
        let mut document = document(&routes().listed);
        document["info"]["version"] = "…".into();
        insta::assert_json_snapshot!(document);
    }
}
