//! Session ids and external references: one notation in, one out.

use proptest::prelude::*;
use runtree_id::{ExternalRef, ParseErrorKind, SessionId};
use uuid::Uuid;

fn refused(text: &str) -> ParseErrorKind {
    text.parse::<SessionId>().expect_err(text).kind()
}

#[test]
fn every_other_text_is_refused_with_its_reason() {
    for (text, kind) in [
        ("", ParseErrorKind::Empty),
        (
            "2eb8aa08-aa98-11ea-b4aa-73b441d1638",
            ParseErrorKind::Length,
        ),
        ("2eb8aa08-aa98-11ea-73b441d16380", ParseErrorKind::Length),
        (
            "2eb8aa08-aa98-11ea-b4ga-73b441d16380",
            ParseErrorKind::Character,
        ),
        ("2eb8aa08aa98-11ea-b4aa73b441d16380", ParseErrorKind::Length),
        (
            "2eb8-aa08-aa98-11ea-b4aa73b44-1d16380",
            ParseErrorKind::Length,
        ),
        (
            "2eb8aa08aa9811eab4aa73b441d16380----",
            ParseErrorKind::Character,
        ),
        (
            " 2eb8aa08-aa98-11ea-b4aa-73b441d1638",
            ParseErrorKind::Character,
        ),
        (
            "2eb8aa08-aa98-11ea-b4aa-73b441d16380\n",
            ParseErrorKind::Length,
        ),
        (
            "2eb8aa08-aa98-11ea-b4aa-73b441d163é",
            ParseErrorKind::Character,
        ),
        ("2eb8aa08aa9811eab4aa73b441d16380", ParseErrorKind::Form),
        (
            "{2eb8aa08-aa98-11ea-b4aa-73b441d16380}",
            ParseErrorKind::Form,
        ),
        (
            "urn:uuid:2eb8aa08-aa98-11ea-b4aa-73b441d16380",
            ParseErrorKind::Form,
        ),
        (
            "00000000-0000-0000-0000-000000000000",
            ParseErrorKind::Reserved,
        ),
        (
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
            ParseErrorKind::Reserved,
        ),
        (
            "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
            ParseErrorKind::Reserved,
        ),
        ("null", ParseErrorKind::Length),
    ] {
        assert_eq!(refused(text), kind, "{text:?}");
    }
}

#[test]
fn other_notations_are_named_in_the_refusal() {
    for (text, notation) in [
        ("2eb8aa08aa9811eab4aa73b441d16380", "without hyphens"),
        ("{2eb8aa08-aa98-11ea-b4aa-73b441d16380}", "in braces"),
        (
            "urn:uuid:2eb8aa08-aa98-11ea-b4aa-73b441d16380",
            "with the prefix urn:uuid:",
        ),
    ] {
        let error = text.parse::<SessionId>().expect_err("is another notation");
        assert!(error.to_string().contains(notation), "{error}");
    }
}

#[test]
fn external_references_keep_to_their_alphabet() {
    for text in ["a", "9", "PROJ-1234", "v1.2.3_rc-1", &"a".repeat(128)] {
        let reference: ExternalRef = text.parse().expect(text);
        assert_eq!(reference.as_str(), text);
    }
    for (text, kind) in [
        ("", ParseErrorKind::Empty),
        (&*"a".repeat(129), ParseErrorKind::Length),
        ("-x", ParseErrorKind::Character),
        (".x", ParseErrorKind::Character),
        ("_x", ParseErrorKind::Character),
        ("a/b", ParseErrorKind::Character),
        ("a b", ParseErrorKind::Character),
        ("a\n", ParseErrorKind::Character),
        ("a\0", ParseErrorKind::Character),
        ("é", ParseErrorKind::Character),
        ("a..b", ParseErrorKind::Structure),
    ] {
        assert_eq!(
            text.parse::<ExternalRef>().expect_err(text).kind(),
            kind,
            "{text:?}"
        );
    }
}

proptest! {
    #[test]
    fn every_uuid_but_nil_and_max_is_a_session(value in any::<u128>()) {
        let uuid = Uuid::from_u128(value);
        prop_assume!(!uuid.is_nil() && !uuid.is_max());
        let id = SessionId::from_uuid(uuid).expect("names a session");
        prop_assert_eq!(id.to_string().parse(), Ok(id));
        prop_assert_eq!(id.to_string().to_uppercase().parse(), Ok(id));
        prop_assert!(uuid.simple().to_string().parse::<SessionId>().is_err());
    }

    #[test]
    fn a_text_is_an_external_reference_exactly_by_the_rule(text in "[a-c.Z9_/ -]{0,12}") {
        let by_rule = text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && !text.contains("..")
            && !text.contains(['/', ' ']);
        prop_assert_eq!(text.parse::<ExternalRef>().is_ok(), by_rule);
    }
}
