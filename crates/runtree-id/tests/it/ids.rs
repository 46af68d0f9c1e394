//! The text and the bytes of ids: strictness, and looking up by ending.

use proptest::prelude::*;
use runtree_id::{Id, IdEnding, Lookup, ParseErrorKind, RunId};
use uuid::Uuid;

/// The UUIDv7 of the valid list of the TypeID specification.
const TYPE_ID_UUID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";
const TYPE_ID_SUFFIX: &str = "01h455vb4pex5vsknk084sn02q";

fn canonical() -> RunId {
    format!("run_{TYPE_ID_SUFFIX}")
        .parse()
        .expect("is a run id")
}

fn strict(text: &str) -> ParseErrorKind {
    text.parse::<RunId>().expect_err(text).kind()
}

/// Makes a run id of any instant and any low bits.
fn run_id(millis: u64, fraction: u16, random: u64) -> RunId {
    let high = millis << 16 | 0x7000 | u64::from(fraction & 0xfff);
    let low = 0b10 << 62 | random >> 2;
    RunId::from_uuid(Uuid::from_u64_pair(high, low)).expect("is a run id")
}

fn run_ids() -> impl Strategy<Value = RunId> {
    (0..=253_402_300_799_999_u64, any::<u16>(), any::<u64>())
        .prop_map(|(millis, fraction, random)| run_id(millis, fraction, random))
}

#[test]
fn every_refusal_of_a_text_has_its_kind() {
    for (text, kind) in [
        ("", ParseErrorKind::Empty),
        ("run", ParseErrorKind::Length),
        ("run_", ParseErrorKind::Length),
        ("_01h455vb4pex5vsknk084sn02q", ParseErrorKind::Length),
        ("01h455vb4pex5vsknk084sn02q", ParseErrorKind::Length),
        ("run_1234567890123456789012345", ParseErrorKind::Length),
        ("run_123456789012345678901234567", ParseErrorKind::Length),
        ("RUN_01h455vb4pex5vsknk084sn02q", ParseErrorKind::Prefix),
        ("123_01h455vb4pex5vsknk084sn02q", ParseErrorKind::Prefix),
        ("r.n_01h455vb4pex5vsknk084sn02q", ParseErrorKind::Prefix),
        ("run-01h455vb4pex5vsknk084sn02q", ParseErrorKind::Prefix),
        ("own_01h455vb4pex5vsknk084sn02q", ParseErrorKind::Prefix),
        (" run_1h455vb4pex5vsknk084sn02q", ParseErrorKind::Prefix),
        ("rün_1h455vb4pex5vsknk084sn02q", ParseErrorKind::Prefix),
        ("run_1234567890123456789012345 ", ParseErrorKind::Character),
        ("run_123456789-123456789-123456", ParseErrorKind::Character),
        ("run_ooooooiiiiiiuuuuuuulllllll", ParseErrorKind::Character),
        ("run_i23456789ol23456789oi23456", ParseErrorKind::Character),
        ("run_01H455VB4PEX5VSKNK084SN02Q", ParseErrorKind::Case),
        ("run_8zzzzzzzzzzzzzzzzzzzzzzzzz", ParseErrorKind::Range),
    ] {
        assert_eq!(strict(text), kind, "{text:?}");
    }
}

#[test]
fn typeids_that_are_no_uuid_of_version_7_are_refused() {
    for suffix in [
        "00000000000000000000000000",
        "0000000000000000000000000g",
        "7zzzzzzzzzzzzzzzzzzzzzzzzz",
        "0123456789abcdefghjkmnpqrs",
    ] {
        assert_eq!(strict(&format!("run_{suffix}")), ParseErrorKind::Version);
    }
    // Version 7 with the variant of Microsoft and with that of NCS.
    for variant in [0xc000_0000_0000_0000, 0x4000_0000_0000_0000] {
        let uuid = Uuid::from_u64_pair(0x017f_22e2_79b0_7cc3, variant);
        let error = RunId::from_uuid(uuid).expect_err("is of another variant");
        assert_eq!(error.kind(), ParseErrorKind::Version);
    }
}

#[test]
fn an_instant_past_the_year_9999_is_refused() {
    let last = run_id(253_402_300_799_999, 0xfff, u64::MAX);
    assert_eq!(last.timestamp().as_unix_millis(), 253_402_300_799_999);
    let next = Uuid::from_u64_pair(253_402_300_800_000 << 16 | 0x7000, 0b10 << 62);
    let error = RunId::from_uuid(next).expect_err("is too late");
    assert_eq!(error.kind(), ParseErrorKind::Range);
    assert_eq!(
        error.to_string(),
        format!("\"{next}\" is not a run id: its instant lies past the year 9999")
    );
}

#[test]
fn a_refusal_shows_the_value_and_what_would_do() {
    let error = "run_01H\u{7}".parse::<RunId>().expect_err("is too short");
    assert_eq!(
        error.to_string(),
        "\"run_01H\\u{7}\" is not a run id: it has 8 bytes; it should be run_ and 26 characters"
    );
    let long = "x"
        .repeat(100_000)
        .parse::<RunId>()
        .expect_err("is too long");
    assert!(long.to_string().len() < 200);
}

#[test]
fn the_tolerant_reader_forgives_space_and_case_and_knows_the_uuid() {
    for text in [
        "run_01h455vb4pex5vsknk084sn02q",
        "  RUN_01H455VB4PEX5VSKNK084SN02Q\n",
        "run_01h455vb4p ex5vsknk084\tsn02q",
        TYPE_ID_UUID,
        "01890A5D-AC96-774B-BCCE-B302099A8057 ",
    ] {
        assert_eq!(RunId::parse_human(text), Ok(canonical()), "{text:?}");
    }
}

#[test]
fn the_tolerant_reader_guesses_nothing() {
    for text in [
        "",
        "   ",
        "01h455vb4pex5vsknk084sn02q",
        "own_01h455vb4pex5vsknk084sn02q",
        "01890a5dac96774bbcceb302099a8057",
        "{01890a5d-ac96-774b-bcce-b302099a8057}",
        "urn:uuid:01890a5d-ac96-774b-bcce-b302099a8057",
        "919108f7-52d1-4320-9bac-f847db4148a8",
        "run_oih455vb4pex5vsknk084sn02q",
    ] {
        assert!(RunId::parse_human(text).is_err(), "{text:?}");
    }
    let padded = format!("{}run_{TYPE_ID_SUFFIX}", " ".repeat(1000));
    assert!(RunId::parse_human(&padded).is_err());
}

#[test]
fn the_short_form_is_the_last_eight_characters() {
    assert_eq!(canonical().short().as_str(), "084sn02q");
}

#[test]
fn an_ending_has_4_to_26_characters_that_ids_have() {
    for (text, kind) in [
        ("", ParseErrorKind::Empty),
        (" ", ParseErrorKind::Empty),
        ("02q", ParseErrorKind::Length),
        ("run_01h455vb4pex5vsknk084sn02q", ParseErrorKind::Length),
        ("sn0_2q", ParseErrorKind::Character),
        ("sn0 2q", ParseErrorKind::Character),
        ("illu", ParseErrorKind::Character),
        ("éé", ParseErrorKind::Character),
        ("81h455vb4pex5vsknk084sn02q", ParseErrorKind::Range),
    ] {
        assert_eq!(
            IdEnding::new(text).expect_err(text).kind(),
            kind,
            "{text:?}"
        );
    }
    let typed: IdEnding = " 84SN02Q ".parse().expect("is an ending");
    assert_eq!(typed.as_str(), "84sn02q");
    assert!(typed.matches(&canonical()));
    let whole = IdEnding::new(TYPE_ID_SUFFIX).expect("is an ending");
    assert_eq!(whole.mask(), u128::MAX);
    assert_eq!(whole.value(), canonical().as_uuid().as_u128());
}

#[test]
fn a_look_up_finds_none_one_or_names_the_candidates() {
    assert_eq!(Lookup::<u8>::from_matches([]), Lookup::NotFound);
    assert_eq!(Lookup::from_matches([7]).found(), Some(7));
    let several = Lookup::from_matches([7, 8, 9]);
    assert_eq!(several, Lookup::Ambiguous(vec![7, 8, 9]));
    assert_eq!(several.clone().found(), None);
    assert_eq!(several.map(|n| n * 2), Lookup::Ambiguous(vec![14, 16, 18]));
}

proptest! {
    #[test]
    fn every_form_leads_back_to_the_id(id in run_ids()) {
        let text = id.to_string();
        prop_assert_eq!(text.len(), 30);
        prop_assert_eq!(&*id.to_text(), text.as_str());
        prop_assert_eq!(&format!("{id}"), &text);
        prop_assert_eq!(&ToString::to_string(&id), &text);
        prop_assert_eq!(text.parse(), Ok(id));
        prop_assert_eq!(RunId::from_bytes(*id.as_bytes()), Ok(id));
        prop_assert_eq!(RunId::parse_human(&text.to_uppercase()), Ok(id));
        prop_assert_eq!(RunId::parse_human(&id.as_uuid().to_string().to_uppercase()), Ok(id));
        prop_assert!(text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'));
    }

    #[test]
    fn ids_texts_and_bytes_sort_alike_and_by_time(a in run_ids(), b in run_ids()) {
        prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
        prop_assert_eq!(a.cmp(&b), a.as_bytes().cmp(b.as_bytes()));
        if a < b {
            prop_assert!(a.timestamp() <= b.timestamp());
        }
    }

    #[test]
    fn only_the_canonical_text_is_accepted(text in "run_[0-9a-hjkmnp-tv-zA-Z]{26}|run_0[0-9a-hjkmnp-tv-z]{9}e[0-9a-hjkmnp-tv-z]{15}") {
        if let Ok(id) = text.parse::<RunId>() {
            prop_assert_eq!(id.to_string(), text);
        }
    }

    #[test]
    fn an_ending_matches_exactly_the_ids_whose_text_ends_so(
        id in run_ids(),
        other in run_ids(),
        length in 4_usize..=26,
    ) {
        let text = id.to_string();
        let ending = IdEnding::new(&text[text.len() - length..]).expect("is an ending");
        prop_assert!(ending.matches(&id));
        prop_assert_eq!(ending.matches(&other), other.to_string().ends_with(ending.as_str()));
        prop_assert_eq!(Id::as_uuid(&id).as_u128() & ending.mask(), ending.value());
    }

    #[test]
    fn no_text_makes_a_reader_panic(text in "\\PC{0,40}") {
        let _ = text.parse::<RunId>().map(|id| id.timestamp());
        let _ = RunId::parse_human(&text).map(|id| id.timestamp());
        if let Ok(ending) = IdEnding::new(&text) {
            prop_assert!(ending.as_str().len() >= 4);
        }
    }
}

#[test]
fn an_error_of_a_typed_id_quotes_what_was_typed_and_says_what_would_do() {
    for (typed, kind, said) in [
        (
            " RUN_01H455VB4PEX5VSKNK084SN0IU",
            ParseErrorKind::Character,
            "without white space and in lower case, the byte at 28",
        ),
        (
            "01890A5DAC96774BBCCEB302099A8057",
            ParseErrorKind::Form,
            "8-4-4-4-12 digits",
        ),
        (
            &"x".repeat(200),
            ParseErrorKind::Length,
            "run_ and 26 characters, or a UUID with hyphens",
        ),
    ] {
        let error = RunId::parse_human(typed).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        let text = error.to_string();
        assert!(text.contains(said), "{text}");
        assert!(text.contains(&typed[..20]), "{text}");
    }
    // Lower case is said to do only where it does.
    let mixed = "run_01H455VB4PEX5VSKNK084SN0IU"
        .parse::<RunId>()
        .unwrap_err();
    assert_eq!(mixed.kind(), ParseErrorKind::Character);
}

#[test]
fn an_error_of_an_ending_counts_bytes_in_what_was_typed() {
    for (typed, at) in [("abcdu", 4), ("  abcdu", 6), ("\u{3000}abcdu ", 7)] {
        let error = typed.parse::<IdEnding>().unwrap_err();
        assert!(
            error.to_string().contains(&format!("the byte at {at} ")),
            "{error}"
        );
    }
}

#[test]
fn every_byte_at_every_place_is_read_as_itself_or_refused_at_that_place() {
    const ALPHABET: &str = "0123456789abcdefghjkmnpqrstvwxyz";
    let valid = "run_01h455vb4pex5vsknk084sn02q";
    for at in 4..valid.len() {
        for character in (0..=127_u8).map(char::from).chain(['é', '日']) {
            let mut text = valid.to_owned();
            let end = at + 1;
            text.replace_range(at..end, character.encode_utf8(&mut [0; 4]));
            match text.parse::<RunId>() {
                Ok(id) => {
                    assert!(ALPHABET.contains(character), "{text:?}");
                    assert_eq!(id.to_string(), text);
                }
                Err(error) if character.is_ascii() && error.kind() == ParseErrorKind::Character => {
                    assert!(!ALPHABET.contains(character), "{text:?}");
                    assert!(
                        error.to_string().contains(&format!("the byte at {at} ")),
                        "{error}"
                    );
                }
                // Beyond the bits, the version or the variant; or not of the right length.
                Err(_) => {}
            }
        }
    }
}
