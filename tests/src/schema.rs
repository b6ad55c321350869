//! Checks JSON against docs/report-json.schema.json.
//!
//! Implements the part of JSON Schema 2020-12 that our schema uses, and refuses a schema with any
//! other keyword, so that nothing in it is silently not checked. The full validators would bring more
//! than seventy packages for it.
//!
//! Stricter than the schema in one thing: a key that an object's `properties` do not name is an
//! error, since every key we print has to be documented.

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value};

const REPORT_SCHEMA: &str = include_str!("../../docs/report-json.schema.json");

/// Checks a report.
///
/// # Errors
/// With the place and the rule that it breaks.
pub fn check_report(report: &Value) -> Result<()> {
    let schema: Value = serde_json::from_str(REPORT_SCHEMA).context("the schema is not JSON")?;
    Checker { root: &schema }.check(&schema, report, "report")
}

/// Checks what `nanalyze syscalls --json` says.
///
/// # Errors
/// As [`check_report`].
pub fn check_syscalls(report: &Value) -> Result<()> {
    let schema: Value = serde_json::from_str(REPORT_SCHEMA).context("the schema is not JSON")?;
    let root = schema.pointer("/$defs/syscalls").context("the schema has no $defs/syscalls")?;
    Checker { root: &schema }.check(root, report, "syscalls")
}

struct Checker<'a> {
    root: &'a Value,
}

impl Checker<'_> {
    fn check(&self, schema: &Value, value: &Value, place: &str) -> Result<()> {
        let schema = schema.as_object().with_context(|| format!("{place}: not a schema"))?;
        for (keyword, rule) in schema {
            let holds = match keyword.as_str() {
                "$schema" | "$defs" | "title" | "description" => true,
                "additionalProperties" if schema.contains_key("properties") => {
                    bail!("{place}: `additionalProperties` beside `properties` is not supported")
                }
                "$ref" => {
                    self.check(self.definition(rule)?, value, place)?;
                    true
                }
                "properties" => {
                    self.check_properties(rule, value, place)?;
                    true
                }
                "additionalProperties" => {
                    for (key, item) in value.as_object().into_iter().flatten() {
                        self.check(rule, item, &format!("{place}.{key}"))?;
                    }
                    true
                }
                "items" => {
                    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.check(rule, item, &format!("{place}[{index}]"))?;
                    }
                    true
                }
                "type" => has_type(rule, value)?,
                "required" => {
                    let keys = rule.as_array().context("`required` is not a list")?;
                    keys.iter().all(|key| key.as_str().is_some_and(|key| value.get(key).is_some()))
                }
                "const" => rule == value,
                "enum" => rule.as_array().is_some_and(|allowed| allowed.contains(value)),
                "minimum" => match (rule.as_i64(), value.as_i64()) {
                    (Some(minimum), Some(number)) => number >= minimum,
                    // Above i64::MAX, hence above any minimum that a schema can name here.
                    _ => value.is_u64(),
                },
                "minLength" => {
                    let minimum = rule.as_u64().context("`minLength` is not a number")?;
                    value.as_str().is_some_and(|text| text.chars().count() as u64 >= minimum)
                }
                other => bail!("{place}: keyword `{other}` of the schema is not supported"),
            };
            if !holds {
                bail!("{place}: breaks `{keyword}: {rule}` with {value}");
            }
        }
        Ok(())
    }

    fn check_properties(&self, properties: &Value, value: &Value, place: &str) -> Result<()> {
        let properties = properties.as_object().context("`properties` is not an object")?;
        let empty = Map::new();
        for (key, item) in value.as_object().unwrap_or(&empty) {
            let Some(schema) = properties.get(key) else {
                bail!("{place}.{key}: this key is not in docs/report-json.schema.json");
            };
            self.check(schema, item, &format!("{place}.{key}"))?;
        }
        Ok(())
    }

    fn definition(&self, reference: &Value) -> Result<&Value> {
        let name = reference.as_str().context("`$ref` is not a string")?;
        let pointer = name.strip_prefix('#').context("`$ref` leads out of the schema")?;
        self.root.pointer(pointer).with_context(|| format!("the schema has no {name}"))
    }
}

fn has_type(rule: &Value, value: &Value) -> Result<bool> {
    Ok(match rule.as_str().context("`type` is not one name")? {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        other => bail!("type `{other}` of the schema is not supported"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Value {
        serde_json::from_str(include_str!("example-report.json")).unwrap()
    }

    fn check_changed(pointer: &str, value: Value) -> Result<()> {
        let mut report = example();
        *report.pointer_mut(pointer).unwrap() = value;
        check_report(&report)
    }

    #[test]
    fn the_example_is_a_report() {
        check_report(&example()).unwrap();
    }

    #[test]
    fn every_rule_can_be_broken() {
        for (pointer, value) in [
            ("/schema", "nanalyze.report/2".into()),
            ("/capture/complete", 1.into()),
            ("/capture/lost", (-1).into()),
            ("/capture/events", 1.5.into()),
            ("/capture/processes/0/comm", "".into()),
            ("/opens", Value::Object(Map::new())),
            ("/opens/0/errors/ENOENT", 0.into()),
            ("/opens/0/stacks/0/frames/0/kind", "wasm".into()),
            ("/opens/0/stacks/0/frames/1/line", 0.into()),
            ("/opens/0/latency_ns", Value::Null),
        ] {
            assert!(check_changed(pointer, value).is_err(), "{pointer}");
        }
        assert!(check_changed("/capture/events", u64::MAX.into()).is_ok());
    }

    #[test]
    fn a_missing_and_an_undocumented_key_are_errors() {
        let mut report = example();
        report["stacks"].as_object_mut().unwrap().remove("unresolved");
        assert!(check_report(&report).is_err());
        let mut report = example();
        report["opens"][0]["surprise"] = 1.into();
        assert!(check_report(&report).unwrap_err().to_string().contains("surprise"));
    }

    #[test]
    fn an_unknown_keyword_is_refused() {
        let schema = serde_json::json!({ "oneOf": [] });
        assert!(Checker { root: &schema }.check(&schema, &Value::Null, "x").is_err());
    }
}
