//! Slugs, directories, branches and commits: what is allowed, and the way back to the run.

use proptest::prelude::*;
use runtree_id::{
    BranchName, CommitId, DirectoryName, IdGenerator, ParseErrorKind, PredictableEntropy, RunId,
    Slug,
};
use runtree_time::ManualClock;
use std::sync::Arc;

const ID: &str = "run_01h455vb4pex5vsknk084sn02q";

fn id() -> RunId {
    ID.parse().expect("is a run id")
}

fn directory(text: &str) -> ParseErrorKind {
    text.parse::<DirectoryName>().expect_err(text).kind()
}

fn branch(text: &str) -> ParseErrorKind {
    text.parse::<BranchName>().expect_err(text).kind()
}

#[test]
fn any_text_has_a_short_slug() {
    for (text, slug) in [
        ("", "run"),
        ("   ", "run"),
        ("日本語", "run"),
        ("Fix the *flaky* test!", "fix-the-flaky-test"),
        ("--x--", "x"),
        ("feat/a", "feat-a"),
        ("../../etc/passwd", "etc-passwd"),
        ("HEAD", "head"),
        ("naïve café", "na-ve-caf"),
        ("CON", "con"),
        ("a\0b\nc", "a-b-c"),
        (
            "one two three four five six seven eight nine ten",
            "one-two-three-four-five-six-seven-eight",
        ),
        (
            "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz short",
            "abcdefghijklmnopqrstuvwxyzabcdefghijklmn",
        ),
    ] {
        assert_eq!(Slug::from_text(text).as_str(), slug, "{text:?}");
    }
}

#[test]
fn a_given_slug_is_checked_not_changed() {
    for (text, kind) in [
        ("", ParseErrorKind::Empty),
        (&*"a".repeat(41), ParseErrorKind::Length),
        ("Fix", ParseErrorKind::Case),
        ("a_b", ParseErrorKind::Character),
        ("é", ParseErrorKind::Character),
        ("-a", ParseErrorKind::Structure),
        ("a-", ParseErrorKind::Structure),
        ("a--b", ParseErrorKind::Structure),
    ] {
        assert_eq!(
            text.parse::<Slug>().expect_err(text).kind(),
            kind,
            "{text:?}"
        );
    }
}

#[test]
fn names_of_a_run_contain_the_whole_id_and_lead_back_to_it() {
    let slug = Slug::from_text("fix tests");
    let directory = DirectoryName::for_run(&slug, id());
    let branch = BranchName::for_run(&slug, id());
    assert_eq!(directory.as_str(), format!("fix-tests-{ID}"));
    assert_eq!(branch.as_str(), format!("runtree/fix-tests-{ID}"));
    assert_eq!(
        branch.full_ref(),
        format!("refs/heads/runtree/fix-tests-{ID}")
    );
    assert_eq!(directory.run_id(), Some(id()));
    assert_eq!(branch.run_id(), Some(id()));
}

#[test]
fn only_an_id_that_stands_by_itself_at_the_end_is_found() {
    for (name, found) in [
        (format!("agents/{ID}"), true),
        (format!("x.{ID}"), true),
        (ID.to_owned(), true),
        (format!("over{ID}"), false),
        (format!("over_{ID}"), false),
        (format!("é{ID}"), false),
        (format!("{ID}-2"), false),
        (format!("x-{ID}{ID}"), false),
        ("main".to_owned(), false),
        ("x-run_01h455vb4p".to_owned(), false),
    ] {
        let branch: BranchName = name.parse().expect("is a branch name");
        assert_eq!(branch.run_id(), found.then(id), "{name}");
    }
}

#[test]
fn a_branch_and_its_flattened_twin_never_meet() {
    let clock = Arc::new(ManualClock::default());
    let generator = IdGenerator::new(clock, Arc::new(PredictableEntropy::new(3)));
    let nested = generator.run_id().expect("makes an id");
    let flat = generator.run_id().expect("makes an id");
    let (a, b) = (Slug::from_text("feat/a"), Slug::from_text("feat-a"));
    assert_eq!(a, b);
    assert_ne!(
        DirectoryName::for_run(&a, nested),
        DirectoryName::for_run(&b, flat)
    );
    assert_ne!(
        BranchName::for_run(&a, nested),
        BranchName::for_run(&b, flat)
    );
    // Given by a person, one is a branch only, so no directory takes the name of the other.
    assert!("feat/a".parse::<BranchName>().is_ok());
    assert_eq!(directory("feat/a"), ParseErrorKind::Character);
}

#[test]
fn directory_names_are_the_same_on_every_file_system() {
    for name in [
        "a",
        "0",
        "fix-tests",
        "v1.2_rc",
        "console",
        "com",
        "com10",
        "nulls",
        "x.con",
        ID,
    ] {
        let directory: DirectoryName = name.parse().expect(name);
        assert_eq!(directory.as_str(), name);
    }
    for (name, kind) in [
        ("", ParseErrorKind::Empty),
        (&*"a".repeat(101), ParseErrorKind::Length),
        ("Fix", ParseErrorKind::Case),
        ("a b", ParseErrorKind::Character),
        ("a/b", ParseErrorKind::Character),
        ("a\\b", ParseErrorKind::Character),
        ("a:b", ParseErrorKind::Character),
        ("a\0", ParseErrorKind::Character),
        ("ä", ParseErrorKind::Character),
        (".", ParseErrorKind::Structure),
        ("..", ParseErrorKind::Structure),
        (".git", ParseErrorKind::Structure),
        ("-a", ParseErrorKind::Structure),
        ("_a", ParseErrorKind::Structure),
        ("a.", ParseErrorKind::Structure),
        ("a..b", ParseErrorKind::Structure),
        ("a.lock", ParseErrorKind::Reserved),
        ("con", ParseErrorKind::Reserved),
        ("nul.txt", ParseErrorKind::Reserved),
        ("aux.tar.gz", ParseErrorKind::Reserved),
        ("prn", ParseErrorKind::Reserved),
        ("com0", ParseErrorKind::Reserved),
        ("com9.x", ParseErrorKind::Reserved),
        ("lpt1", ParseErrorKind::Reserved),
    ] {
        assert_eq!(directory(name), kind, "{name:?}");
    }
}

/// The longest names there are, and every name that Windows reserves as a slug and alone.
#[test]
fn names_of_runs_fit_and_are_nowhere_reserved_whatever_the_slug() {
    let longest = Slug::from_text(&"x".repeat(1000));
    assert_eq!(longest.as_str().len(), Slug::MAX_BYTES);
    let directory = DirectoryName::for_run(&longest, id());
    assert_eq!(directory.as_str().parse(), Ok(directory.clone()));
    assert_eq!(directory.as_str().len(), 71);
    assert_eq!(BranchName::for_run(&longest, id()).as_str().len(), 79);

    let numbered = (0..10).flat_map(|n| [format!("COM{n}"), format!("LPT{n}")]);
    let devices = ["CON", "PRN", "AUX", "NUL"].map(String::from);
    for device in devices.into_iter().chain(numbered) {
        let lower = device.to_lowercase();
        let name = DirectoryName::for_run(&Slug::from_text(&device), id());
        assert_eq!(name.as_str(), format!("{lower}-{ID}"));
        assert_eq!(name.as_str().parse(), Ok(name));
        for extension in ["", ".", ".txt", ".tar.gz", " ", "$"] {
            for alone in [
                format!("{device}{extension}"),
                format!("{lower}{extension}"),
            ] {
                assert!(alone.parse::<DirectoryName>().is_err(), "{alone}");
            }
        }
    }
    // The digits that Windows also counts with, and its console under its full names.
    for name in ["com¹", "lpt²", "com³.txt", "conin$", "conout$"] {
        assert_eq!(self::directory(name), ParseErrorKind::Character, "{name}");
    }
}

#[test]
fn branch_names_keep_to_the_rules_of_git_and_a_few_more() {
    for name in [
        "main",
        "feat/a",
        "a.b",
        "a@b",
        "{a}",
        "ünï/çode",
        "con",
        "head/x",
        "x/HEAD",
        "a-",
    ] {
        let branch: BranchName = name.parse().expect(name);
        assert_eq!(branch.as_str(), name);
        assert_eq!(branch.full_ref(), format!("refs/heads/{name}"));
        assert_eq!(BranchName::from_full_ref(branch.full_ref()), Ok(branch));
    }
    for (name, kind) in [
        ("", ParseErrorKind::Empty),
        (&*"a".repeat(201), ParseErrorKind::Length),
        ("HEAD", ParseErrorKind::Reserved),
        ("head", ParseErrorKind::Reserved),
        ("@", ParseErrorKind::Reserved),
        ("-a", ParseErrorKind::Structure),
        ("@{-1}", ParseErrorKind::Structure),
        ("a@{b", ParseErrorKind::Structure),
        ("a..b", ParseErrorKind::Structure),
        ("a.", ParseErrorKind::Structure),
        (".a", ParseErrorKind::Structure),
        ("a/.b", ParseErrorKind::Structure),
        ("/a", ParseErrorKind::Structure),
        ("a/", ParseErrorKind::Structure),
        ("a//b", ParseErrorKind::Structure),
        ("a.lock", ParseErrorKind::Structure),
        ("a.lock/b", ParseErrorKind::Structure),
        ("a b", ParseErrorKind::Character),
        ("a~1", ParseErrorKind::Character),
        ("a^", ParseErrorKind::Character),
        ("a:b", ParseErrorKind::Character),
        ("a?", ParseErrorKind::Character),
        ("a*", ParseErrorKind::Character),
        ("a[b", ParseErrorKind::Character),
        ("a\\b", ParseErrorKind::Character),
        ("a\0b", ParseErrorKind::Character),
        ("a\u{7f}", ParseErrorKind::Character),
        ("a\n", ParseErrorKind::Character),
    ] {
        assert_eq!(branch(name), kind, "{name:?}");
    }
    for full in [
        "main",
        "refs/tags/v1",
        "refs/heads",
        "refs/heads/",
        "refs/heads/-a",
    ] {
        assert!(BranchName::from_full_ref(full).is_err(), "{full:?}");
    }
}

#[test]
fn names_that_differ_only_by_case_are_found() {
    let name = |text: &str| text.parse::<BranchName>().expect(text);
    assert!(name("Feat/A").eq_ignore_case(&name("feat/a")));
    assert!(name("ÜBER").eq_ignore_case(&name("über")));
    // Lower case alone does not find these, and some file systems do.
    for (one, other) in [
        ("ſ", "s"),
        ("straße", "STRASSE"),
        ("straẞe", "straße"),
        ("STRAẞE", "strasse"),
        ("ς", "σ"),
        ("\u{212a}", "k"),
    ] {
        assert!(name(one).eq_ignore_case(&name(other)), "{one} {other}");
    }
    assert!(!name("feat/a").eq_ignore_case(&name("feat-a")));
}

#[test]
fn commit_ids_are_whole_and_in_lower_case() {
    for text in [
        "9fceb02d0ae598e95dc970b74767f19372d61af8",
        &"0123456789abcdef".repeat(4),
    ] {
        let commit: CommitId = text.parse().expect(text);
        assert_eq!(commit.as_str(), text);
        assert_eq!(commit.to_string(), text);
    }
    for (text, kind) in [
        ("", ParseErrorKind::Empty),
        ("9fceb02", ParseErrorKind::Length),
        (&*"a".repeat(41), ParseErrorKind::Length),
        (&*"a".repeat(128), ParseErrorKind::Length),
        (&*"g".repeat(40), ParseErrorKind::Character),
        (&*"é".repeat(20), ParseErrorKind::Character),
        (&*"A".repeat(40), ParseErrorKind::Case),
        (&*"0".repeat(40), ParseErrorKind::Reserved),
        (&*"0".repeat(64), ParseErrorKind::Reserved),
    ] {
        assert_eq!(
            text.parse::<CommitId>().expect_err(text).kind(),
            kind,
            "{text:?}"
        );
    }
}

proptest! {
    #[test]
    fn every_text_has_a_valid_slug_and_valid_names(text in "\\PC{0,80}|[ -~]{0,80}", seed: u64) {
        let slug = Slug::from_text(&text);
        prop_assert_eq!(slug.as_str().parse(), Ok(slug.clone()));
        prop_assert_eq!(Slug::from_text(slug.as_str()), slug.clone());

        let clock = Arc::new(ManualClock::default());
        let generator = IdGenerator::new(clock, Arc::new(PredictableEntropy::new(seed)));
        let id = generator.run_id().expect("makes an id");
        let directory = DirectoryName::for_run(&slug, id);
        let branch = BranchName::for_run(&slug, id);
        prop_assert_eq!(directory.as_str().parse(), Ok(directory.clone()));
        prop_assert_eq!(branch.as_str().parse(), Ok(branch.clone()));
        prop_assert_eq!(directory.run_id(), Some(id));
        prop_assert_eq!(branch.run_id(), Some(id));
    }

    #[test]
    fn different_runs_or_slugs_never_share_a_name(a in "[ -~]{0,60}", b in "[ -~]{0,60}", seed: u64) {
        let clock = Arc::new(ManualClock::default());
        let generator = IdGenerator::new(clock, Arc::new(PredictableEntropy::new(seed)));
        let ids: Vec<RunId> = generator.batch(2).expect("makes a batch");
        let (a, b) = (Slug::from_text(&a), Slug::from_text(&b));
        let name = |slug: &Slug, id: RunId| DirectoryName::for_run(slug, id).as_str().to_lowercase();
        prop_assert_ne!(name(&a, ids[0]), name(&b, ids[1]));
        prop_assert_ne!(name(&a, ids[0]), name(&a, ids[1]));
        prop_assert_eq!(name(&a, ids[0]) == name(&b, ids[0]), a == b);
    }

    #[test]
    fn every_directory_name_is_a_branch_name_too(text in "[a-z0-9._-]{1,110}|[a-z.]{1,5}") {
        if let Ok(directory) = text.parse::<DirectoryName>() {
            prop_assert!(text.parse::<BranchName>().is_ok() || text == "head");
            prop_assert_eq!(directory.as_str(), text);
        }
    }
}
