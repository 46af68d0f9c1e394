//! The function that SQLite calls to look into metadata: it compares as records do, whatever the order of members.

use diesel::result::QueryResult;
use diesel::{SqliteConnection, declare_sql_function};
use serde_json::{Map, Value};

#[declare_sql_function]
extern "SQL" {
    /// Tells whether a JSON object has a member of this name and, when a value is given, with this value.
    fn runtree_has_member(
        object: diesel::sql_types::Text,
        name: diesel::sql_types::Text,
        wanted: diesel::sql_types::Nullable<diesel::sql_types::Text>,
    ) -> diesel::sql_types::Bool;
}

/// Makes the function known to a connection.
pub(super) fn register(connection: &mut SqliteConnection) -> QueryResult<()> {
    runtree_has_member_utils::register_impl(
        connection,
        |object: String, name: String, wanted: Option<String>| {
            has_member(&object, &name, wanted.as_deref())
        },
    )
}

/// What cannot be read has no members; whoever reads the run is told that it is corrupt.
fn has_member(object: &str, name: &str, wanted: Option<&str>) -> bool {
    let Ok(members) = serde_json::from_str::<Map<String, Value>>(object) else {
        return false;
    };
    let Some(found) = members.get(name) else {
        return false;
    };
    wanted.is_none_or(|wanted| {
        serde_json::from_str(wanted).is_ok_and(|wanted: Value| wanted == *found)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_compared_by_its_value() {
        let object = r#"{"a": 1, "b": {"x": 1, "y": [null]}, "": "é", "c": null}"#;
        let has = |name, wanted| has_member(object, name, wanted);
        assert!(has("a", None) && has("a", Some("1")));
        assert!(!has("a", Some("1.0")) && !has("a", Some("\"1\"")));
        assert!(has("b", Some(r#"{"y":[null],"x":1}"#)));
        assert!(has("", Some("\"\u{e9}\"")) && has("c", Some("null")));
        assert!(!has("d", None) && !has("d", Some("null")) && !has("$.a", None));
        assert!(!has_member("[1", "a", None));
    }
}
