//! Vectors that others have published, and where our profile is stricter than theirs.
//!
//! From the TypeID specification (version 0.3.0), its lists of valid and of invalid texts. We
//! differ in this, each time by refusing more:
//!
//! - The prefix is one of ours, for an id of one type is not one of another. The lists are read
//!   with `run` in the place of every prefix that the specification allows.
//! - There is always a prefix. Without one a text would not say what it names.
//! - The suffix is a UUID of version 7 and of the RFC 9562 variant, in the years that a
//!   [`Timestamp`] has. The specification asks this of new ids only; we made all that we read.
//!
//! From RFC 9562, the example of version 7 in appendix A.6, which is read as it stands. From the
//! JSON-Schema test suite, the cases of `uuid` for [`SessionId`]. We differ in this:
//!
//! - All zeroes, and all ones, are refused. They mean "none" and "all", and no session.

use runtree_id::{IdEnding, OwnerId, ParseErrorKind, RunId, SessionId};
use runtree_time::Timestamp;
use uuid::Uuid;

/// The valid list: the text, its suffix and its UUID.
const VALID: [(&str, &str, &str); 9] = [
    (
        "00000000000000000000000000",
        "00000000000000000000000000",
        "00000000-0000-0000-0000-000000000000",
    ),
    (
        "00000000000000000000000001",
        "00000000000000000000000001",
        "00000000-0000-0000-0000-000000000001",
    ),
    (
        "0000000000000000000000000a",
        "0000000000000000000000000a",
        "00000000-0000-0000-0000-00000000000a",
    ),
    (
        "0000000000000000000000000g",
        "0000000000000000000000000g",
        "00000000-0000-0000-0000-000000000010",
    ),
    (
        "00000000000000000000000010",
        "00000000000000000000000010",
        "00000000-0000-0000-0000-000000000020",
    ),
    (
        "7zzzzzzzzzzzzzzzzzzzzzzzzz",
        "7zzzzzzzzzzzzzzzzzzzzzzzzz",
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
    ),
    (
        "prefix_0123456789abcdefghjkmnpqrs",
        "0123456789abcdefghjkmnpqrs",
        "0110c853-1d09-52d8-d73e-1194e95b5f19",
    ),
    (
        "prefix_01h455vb4pex5vsknk084sn02q",
        "01h455vb4pex5vsknk084sn02q",
        "01890a5d-ac96-774b-bcce-b302099a8057",
    ),
    (
        "pre_fix_00000000000000000000000000",
        "00000000000000000000000000",
        "00000000-0000-0000-0000-000000000000",
    ),
];

/// The one entry of the valid list whose UUID is of version 7.
const VERSION_7: &str = "01h455vb4pex5vsknk084sn02q";

/// The invalid list, and why we refuse each when `run` stands for a prefix that is allowed.
const INVALID: [(&str, ParseErrorKind); 19] = [
    ("PREFIX_00000000000000000000000000", ParseErrorKind::Length),
    ("12345_00000000000000000000000000", ParseErrorKind::Length),
    ("pre.fix_00000000000000000000000000", ParseErrorKind::Length),
    ("préfix_00000000000000000000000000", ParseErrorKind::Length),
    (
        "  prefix_00000000000000000000000000",
        ParseErrorKind::Length,
    ),
    (
        "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijkl_00000000000000000000000000",
        ParseErrorKind::Length,
    ),
    ("_00000000000000000000000000", ParseErrorKind::Length),
    ("_", ParseErrorKind::Length),
    ("prefix_1234567890123456789012345", ParseErrorKind::Length),
    ("prefix_123456789012345678901234567", ParseErrorKind::Length),
    (
        "prefix_1234567890123456789012345 ",
        ParseErrorKind::Character,
    ),
    ("prefix_0123456789ABCDEFGHJKMNPQRS", ParseErrorKind::Case),
    (
        "prefix_123456789-123456789-123456",
        ParseErrorKind::Character,
    ),
    (
        "prefix_ooooooiiiiiiuuuuuuulllllll",
        ParseErrorKind::Character,
    ),
    (
        "prefix_i23456789ol23456789oi23456",
        ParseErrorKind::Character,
    ),
    (
        "prefix_123456789-0123456789-0123456",
        ParseErrorKind::Length,
    ),
    ("prefix_8zzzzzzzzzzzzzzzzzzzzzzzzz", ParseErrorKind::Range),
    ("_prefix_00000000000000000000000000", ParseErrorKind::Length),
    ("prefix__00000000000000000000000000", ParseErrorKind::Length),
];

#[test]
fn every_suffix_of_the_typeid_specification_is_the_bits_that_it_says() {
    for (text, suffix, uuid) in VALID {
        assert!(text.ends_with(suffix));
        let uuid = Uuid::try_parse(uuid).expect("is a UUID");
        let whole = IdEnding::new(suffix).expect(suffix);
        assert_eq!(whole.value(), uuid.as_u128(), "{text}");
        let run = format!("run_{suffix}");
        match RunId::from_uuid(uuid) {
            Ok(id) => {
                assert_eq!(suffix, VERSION_7);
                assert_eq!(id.to_string(), run);
                assert_eq!(run.parse(), Ok(id));
                let owner: OwnerId = format!("own_{suffix}").parse().expect("is an owner");
                assert_eq!(owner.as_uuid(), id.as_uuid());
            }
            Err(error) => {
                assert_eq!(error.kind(), ParseErrorKind::Version, "{text}");
                let error = run.parse::<RunId>().expect_err(&run);
                assert_eq!(error.kind(), ParseErrorKind::Version, "{text}");
            }
        }
        // With a prefix of somebody else's, or none, it names nothing of ours.
        assert!(text.parse::<RunId>().is_err() && RunId::parse_human(text).is_err());
    }
}

#[test]
fn everything_that_the_typeid_specification_refuses_is_refused() {
    for (text, kind) in INVALID {
        let ours = match text.strip_prefix("prefix_") {
            Some(suffix) => format!("run_{suffix}"),
            None => text.to_owned(),
        };
        let error = ours.parse::<RunId>().expect_err(text);
        assert_eq!(error.kind(), kind, "{text:?}");
        assert!(text.parse::<RunId>().is_err(), "{text:?}");
    }
}

#[test]
fn the_example_of_rfc_9562_appendix_a_6_has_its_instant_and_its_text() {
    let uuid = Uuid::try_parse("017F22E2-79B0-7CC3-98C4-DC0C0C07398F").expect("is a UUID");
    let id = RunId::from_uuid(uuid).expect("is version 7");
    let instant: Timestamp = "2022-02-22T14:22:22.00-05:00".parse().expect("is one");
    assert_eq!(id.timestamp(), instant);
    assert_eq!(instant.as_unix_millis(), 0x017f_22e2_79b0);
    assert_eq!(id.to_string().parse(), Ok(id));
    assert_eq!(RunId::parse_human(&uuid.to_string()), Ok(id));
}

#[test]
fn the_json_schema_suite_and_session_ids_agree_but_for_the_uuid_of_zeroes() {
    for (text, valid) in [
        ("2EB8AA08-AA98-11EA-B4AA-73B441D16380", true),
        ("2eb8aa08-aa98-11ea-b4aa-73b441d16380", true),
        ("2eb8aa08-AA98-11ea-B4Aa-73B441D16380", true),
        ("00000000-0000-0000-0000-000000000000", true),
        ("2eb8aa08-aa98-11ea-b4aa-73b441d1638", false),
        ("2eb8aa08-aa98-11ea-73b441d16380", false),
        ("2eb8aa08-aa98-11ea-b4ga-73b441d16380", false),
        ("2eb8aa08aa9811eab4aa73b441d16380", false),
        ("2eb8aa08aa98-11ea-b4aa73b441d16380", false),
        ("2eb8-aa08-aa98-11ea-b4aa73b44-1d16380", false),
        ("2eb8aa08aa9811eab4aa73b441d16380----", false),
        ("2eb8aa0-8aa98-11e-ab4aa7-3b441d16380", false),
        ("98d80576-482e-427f-8434-7f86890ab222", true),
        ("99c17cbb-656f-564a-940f-1a4568f03487", true),
        ("99c17cbb-656f-664a-940f-1a4568f03487", true),
        ("99c17cbb-656f-f64a-940f-1a4568f03487", true),
        ("urn:uuid:2eb8aa08-aa98-11ea-b4aa-73b441d16380", false),
    ] {
        let is_nil = text.bytes().all(|byte| matches!(byte, b'0' | b'-'));
        match text.parse::<SessionId>() {
            Ok(id) => {
                assert!(valid && !is_nil, "{text}");
                assert_eq!(id.to_string(), text.to_lowercase());
            }
            Err(error) => {
                let is_ours = error.kind() == ParseErrorKind::Reserved;
                assert_eq!((valid, is_ours), (is_nil, is_nil), "{error}");
            }
        }
    }
}
