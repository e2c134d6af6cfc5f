//! The OpenAPI document against a real host: every path and method is called, answers have the form that the document says,
//! and whatever else is sent is refused with an error of the one form.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Map, Value, json};

use super::{listening, read, with_dead_letters};
use crate::support::http::{Answer, Request, address};
use crate::support::{Publisher, Redis, message};

/// Random requests to each host.
const CASES: u32 = 300;

/// The document, and where a value in it is wrong.
struct Document(Value);

impl Document {
    fn of(address: SocketAddr) -> Document {
        Document(read(address, "openapi.json"))
    }

    /// Paths with their methods and operations.
    fn operations(&self) -> Vec<(String, String, Value)> {
        let paths = self.0["paths"].as_object().unwrap();
        let methods = |(path, methods): (&String, &Value)| {
            let all = methods.as_object().unwrap().clone().into_iter();
            all.map(|(method, operation)| (path.clone(), method, operation)).collect::<Vec<_>>()
        };
        paths.iter().flat_map(methods).collect()
    }

    /// The schema of the answer of an operation with this status.
    fn schema<'a>(&self, operation: &'a Value, status: u16) -> (&'a str, &'a Value) {
        let responses = &operation["responses"];
        let response = responses.get(status.to_string()).unwrap_or(&responses["default"]);
        let content = response["content"].as_object().unwrap_or_else(|| panic!("no content for {status}: {operation}"));
        let (kind, content) = content.iter().next().unwrap();
        (kind, &content["schema"])
    }

    /// Requires that an answer of JSON has the form of the document.
    fn expect(&self, operation: &Value, answer: &Answer) {
        let (kind, schema) = self.schema(operation, answer.status);
        assert_eq!((kind, answer.header("content-type")), ("application/json", Some("application/json")));
        let mut problems = Vec::new();
        self.check(schema, &answer.json(), "", &mut problems);
        assert!(problems.is_empty(), "{problems:?} in {}", answer.text());
    }

    fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        match schema.get("$ref").and_then(Value::as_str) {
            Some(link) => self.0.pointer(link.trim_start_matches('#')).unwrap_or_else(|| panic!("no schema {link}")),
            None => schema,
        }
    }

    /// Properties of a schema and of all those that it consists of, and the names of those that are required.
    fn properties(&self, schema: &Value, all: &mut Map<String, Value>, required: &mut BTreeSet<String>) {
        let schema = self.resolve(schema);
        all.extend(schema["properties"].as_object().cloned().unwrap_or_default());
        let names = schema["required"].as_array().into_iter().flatten();
        required.extend(names.map(|name| name.as_str().unwrap().to_owned()));
        schema["allOf"].as_array().into_iter().flatten().for_each(|part| self.properties(part, all, required));
    }

    fn check(&self, schema: &Value, value: &Value, place: &str, problems: &mut Vec<String>) {
        let schema = self.resolve(schema);
        if let Some(choices) = schema.get("oneOf").or_else(|| schema.get("anyOf")).and_then(Value::as_array) {
            let fits = |choice: &Value| {
                let mut problems = Vec::new();
                self.check(choice, value, place, &mut problems);
                problems.is_empty()
            };
            if !choices.iter().any(fits) {
                problems.push(format!("{place}: {value} fits none of {choices:?}"));
            }
            return;
        }
        let kinds: Vec<&str> = match &schema["type"] {
            Value::String(kind) => vec![kind],
            Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        if !kinds.is_empty() && !kinds.iter().any(|kind| is_of(kind, value)) {
            problems.push(format!("{place}: {value} is none of {kinds:?}"));
        }
        if let Some(known) = schema["enum"].as_array()
            && !known.contains(value)
        {
            problems.push(format!("{place}: {value} is none of {known:?}"));
        }
        if schema["minimum"].as_f64().zip(value.as_f64()).is_some_and(|(minimum, number)| number < minimum) {
            problems.push(format!("{place}: {value} is too small"));
        }
        for (index, item) in value.as_array().into_iter().flatten().enumerate() {
            self.check(&schema["items"], item, &format!("{place}[{index}]"), problems);
        }
        if let Some(object) = value.as_object() {
            self.check_object(schema, object, place, problems);
        }
    }

    fn check_object(&self, schema: &Value, object: &Map<String, Value>, place: &str, problems: &mut Vec<String>) {
        let (mut properties, mut required) = (Map::new(), BTreeSet::new());
        self.properties(schema, &mut properties, &mut required);
        // A schema that says nothing about properties takes any.
        if properties.is_empty() && schema.get("additionalProperties").is_none() {
            return;
        }
        for name in required.iter().filter(|name| !object.contains_key(*name)) {
            problems.push(format!("{place}: {name} is missing"));
        }
        for (name, value) in object {
            let place = format!("{place}.{name}");
            match properties.get(name).or_else(|| schema.get("additionalProperties")) {
                Some(schema) => self.check(schema, value, &place, problems),
                None => problems.push(format!("{place}: the document does not know it")),
            }
        }
    }
}

fn is_of(kind: &str, value: &Value) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        kind => panic!("an unknown type {kind}"),
    }
}

/// A body that the operation takes, and that changes little.
fn body(path: &str) -> Value {
    match path.rsplit('/').next().unwrap() {
        "consumers" => json!({"consumers": 1}),
        "replay" => json!({"filter": {"reason": "not-utf8"}}),
        "purge" => json!({"entry_ids": ["5-5"]}),
        _ => json!({}),
    }
}

#[test]
fn every_answer_has_the_form_that_the_document_says() {
    let redis = Redis::start();
    let host = with_dead_letters(&redis);
    let address = address(&host);
    let document = Document::of(address);
    assert!(document.0["openapi"].as_str().unwrap().starts_with("3."));
    let entry = redis.dead_letter_of("rejected").id().to_owned();
    let mut publisher = Publisher::new(&redis);
    publisher.publish(message("busy", json!({"do": "sleep"})));
    redis.wait_until_in_work("busy");
    let mut called = 0;
    for (path, method, operation) in document.operations() {
        called += 1;
        assert!(
            operation["summary"].as_str().or(operation["description"].as_str()).is_some(),
            "{path} is not explained"
        );
        let real = path.replace("{entry_id}", &entry);
        let (kind, schema) = document.schema(&operation, 200);
        if kind == "text/event-stream" {
            let mut events = Request::get(&real).follow(address);
            if path.ends_with("tail") {
                let mut outcome = Value::Null;
                for n in 0.. {
                    publisher.publish(format!("no message {n}"));
                    if let Some((name, data)) = events.next()
                        && name == "outcome"
                    {
                        outcome = data;
                        break;
                    }
                }
                let mut problems = Vec::new();
                document.check(schema, &outcome, "", &mut problems);
                assert!(problems.is_empty(), "{problems:?} in {outcome}");
            }
            continue;
        }
        let request = match method.as_str() {
            "get" => Request::get(&real),
            "post" => Request::post(&real, &body(&path)),
            other => panic!("{other} {path}"),
        };
        let answer = request.send(address);
        let is_refused = path.ends_with("rollback") || path.ends_with("trust");
        assert_eq!(answer.status, if is_refused { 409 } else { 200 }, "{method} {path}: {}", answer.text());
        document.expect(&operation, &answer);
        if let Some(parameters) = operation["parameters"].as_array() {
            for name in
                parameters.iter().filter(|parameter| parameter["in"] == "query").map(|parameter| &parameter["name"])
            {
                let given = match name.as_str().unwrap() {
                    "limit" => "3",
                    "after" => "5-5",
                    "reason" => "not-utf8",
                    _ => "x",
                };
                let answer = Request::get(&format!("{real}?{}={given}", name.as_str().unwrap())).send(address);
                assert_eq!(answer.status, 200, "{path} {name}: {}", answer.text());
                document.expect(&operation, &answer);
            }
        }
    }
    assert!(called > 15, "{called} operations");
}

#[test]
fn whatever_is_sent_is_carried_out_or_refused_with_an_error_of_the_document() {
    let redis = Redis::start();
    let host = listening(&redis).ready(&redis, 1);
    let address = address(&host);
    let document = Document::of(address);
    // A stream has no end; its parameters are tested with the other wrong ones.
    let is_stream = |operation: &Value| document.schema(operation, 200).0 == "text/event-stream";
    let operations = document.operations().into_iter().filter(|(.., operation)| !is_stream(operation));
    let operations: Vec<_> = operations.collect();
    let mut runner = TestRunner::new(Config { cases: CASES, ..Config::default() });
    let given = (0..operations.len(), any_json(), "[ -~]{0,20}", any::<bool>(), parameters());
    let outcome = runner.run(&given, |(which, body, text, is_json, query)| {
        let (path, method, operation) = &operations[which];
        let segment: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let path = path.replace("{entry_id}", &format!("x{segment}"));
        let request = match method.as_str() {
            "get" => Request::get(&format!("{path}?{query}")),
            _ if is_json => Request::post(&path, &body),
            _ => Request::post(&path, &json!({})).body(text.as_bytes()),
        };
        let answer = request.send(address);
        prop_assert!([200, 202, 400, 404, 409].contains(&answer.status), "{path} {query} {body}: {}", answer.text());
        document.expect(operation, &answer);
        Ok(())
    });
    outcome.unwrap();
    let health = Request::get("/health").send(address);
    assert_eq!(health.status, 200);
}

/// Parameters, mostly with names that some path knows.
fn parameters() -> impl Strategy<Value = String> {
    let name = prop_oneof![Just("limit"), Just("after"), Just("reason"), Just("id"), Just("text"), Just("other")];
    let value = prop_oneof![
        "[0-9]{1,25}",
        "-?[0-9]{1,4}-[0-9]{1,4}",
        "%[0-9a-f]{2}",
        "[a-z=&%+]{0,10}",
        Just("too-big".to_owned())
    ];
    let pairs = prop::collection::vec((name, value), 0..3);
    pairs.prop_map(|pairs| pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&"))
}

/// Any JSON, mostly objects with fields that some command knows. Numbers of consumers stay small.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0..3_u32).prop_map(Value::from),
        any::<i64>().prop_filter("few consumers", |number| !(3..=10_000).contains(number)).prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        "[ -~]{0,8}".prop_map(Value::from),
        Just(json!("5-5")),
        Just(json!("not-utf8")),
    ];
    let known = ["consumers", "force", "entry_ids", "filter", "rate", "reason", "id", "text", "all"];
    leaf.prop_recursive(3, 12, 4, move |inner| {
        let name = prop_oneof![9 => prop::sample::select(known.to_vec()).prop_map(str::to_owned), 1 => "[a-z]{0,6}"];
        let object = prop::collection::hash_map(name, inner.clone(), 0..4);
        prop_oneof![
            1 => prop::collection::vec(inner, 0..4).prop_map(Value::from),
            4 => object.prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}
