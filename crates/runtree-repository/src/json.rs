//! The limits of JSON values in records, and the one way to write a value so that equal values have equal bytes.

use serde_json::Value;

use crate::error::{ErrorKind, RepositoryError};

/// The most bytes that a JSON value may have when it is written without white space.
pub const MAX_JSON_BYTES: usize = 1_048_576;

/// The most levels of arrays and objects inside each other.
pub const MAX_JSON_DEPTH: usize = 64;

/// Refuses a value that is too deep, too long, or holds a NUL, which PostgreSQL's `jsonb` cannot store.
///
/// # Errors
/// [`ErrorKind::InvalidInput`], naming the value and the limit.
pub(crate) fn check(what: &str, value: &Value) -> Result<(), RepositoryError> {
    let refuse = |why: String| {
        Err(RepositoryError::new(
            ErrorKind::InvalidInput,
            format!("{what} {why}"),
        ))
    };
    // Depth first: writing a value recurses, and a value that is too deep must not get that far.
    let mut level = vec![value];
    for depth in 0.. {
        if level.is_empty() {
            break;
        }
        if depth > MAX_JSON_DEPTH {
            return refuse(format!("is nested more than {MAX_JSON_DEPTH} levels deep"));
        }
        if level.iter().any(|value| holds_nul(value)) {
            return refuse("holds a NUL character, which is not allowed".to_owned());
        }
        level = level.into_iter().flat_map(children).collect();
    }
    let bytes = value.to_string().len();
    if bytes > MAX_JSON_BYTES {
        return refuse(format!(
            "has {bytes} bytes, at most {MAX_JSON_BYTES} are allowed"
        ));
    }
    Ok(())
}

/// How many bytes a value takes when it is written, but for quotes, commas and what is escaped: what a sum of many values needs to
/// be held in bounds, without writing each.
pub(crate) fn rough_bytes(value: &Value) -> usize {
    let mut bytes = 0_usize;
    // On a heap, because nothing has looked at the depth yet.
    let mut left = vec![value];
    while let Some(value) = left.pop() {
        bytes = bytes.saturating_add(match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => 4,
            Value::String(text) => text.len(),
            Value::Array(_) => 2,
            Value::Object(members) => members.keys().map(String::len).sum::<usize>() + 2,
        });
        left.extend(children(value));
    }
    bytes
}

fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Object(members) => members.keys().any(|key| key.contains('\0')),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => false,
    }
}

fn children(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(members) => members.values().collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

/// Writes a value with the members of each object in the order of their keys, whatever order the host's build of
/// `serde_json` keeps them in.
pub(crate) fn canonical(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(canonical).collect();
            format!("[{}]", items.join(","))
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(key, _)| *key);
            let members: Vec<String> = members
                .into_iter()
                .map(|(key, value)| format!("{}:{}", Value::from(key.as_str()), canonical(value)))
                .collect();
            format!("{{{}}}", members.join(","))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_beyond_a_limit_is_refused() {
        let mut deep = json!(1);
        for _ in 0..MAX_JSON_DEPTH {
            deep = json!([deep]);
        }
        assert!(check("it", &deep).is_ok());
        let deeper = json!([deep]);
        assert_eq!(
            check("it", &deeper).unwrap_err().to_string(),
            "it is nested more than 64 levels deep"
        );
        let long = json!("x".repeat(MAX_JSON_BYTES - 2));
        assert!(check("it", &long).is_ok());
        assert!(check("it", &json!("x".repeat(MAX_JSON_BYTES - 1))).is_err());
        assert!(check("it", &json!({"a": ["\0"]})).is_err());
        assert!(check("it", &json!({"a\0": 1})).is_err());
    }

    #[test]
    fn members_are_written_in_the_order_of_their_keys() {
        assert_eq!(
            canonical(&json!({"b": [1, {"d": null, "c": "\""}], "a": true})),
            r#"{"a":true,"b":[1,{"c":"\"","d":null}]}"#
        );
    }
}
