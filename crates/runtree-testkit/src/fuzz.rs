//! Fuzz bodies: plain functions over bytes, called by the fuzz targets and replayed by `cargo test`.

use runtree_time::{NaivePolicy, Normalizer, ParseError, SubMicros, TimeRange, Timestamp};

/// Reads bytes as a timestamp under every kind of rules, and as a number, and checks what must hold.
///
/// # Panics
///
/// When a promise of `runtree-time` is broken.
pub fn timestamp(data: &[u8]) {
    numbers(data);
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let strict = read(text, Normalizer::strict());
    let interop = read(text, Normalizer::interop());
    let assumed = read(text, Normalizer::interop().naive(NaivePolicy::AssumeUtc));
    let exact = read(text, Normalizer::interop().sub_micros(SubMicros::Reject));

    // Each set of rules reads all that a stricter one reads, and reads it alike.
    for (stricter, looser) in [(strict, interop), (interop, assumed), (exact, interop)] {
        if stricter.is_some() {
            assert_eq!(stricter, looser, "{text:?}");
        }
    }
    // Under the strict profile the policy for naive values changes nothing about texts.
    let strict_assumed = Normalizer::strict().naive(NaivePolicy::AssumeUtc);
    assert_eq!(read(text, strict_assumed), strict, "{text:?}");

    let middle = text.len() / 2;
    if let Some((start, end)) = text.split_at_checked(middle)
        && let Ok(range) = TimeRange::parse(start, end)
        && let (Some(start), Some(end)) = (range.start(), range.end())
    {
        assert!(start <= end, "{text:?}");
    }
}

/// Reads a text under some rules and checks the instant or the error.
fn read(text: &str, rules: Normalizer) -> Option<Timestamp> {
    match rules.parse(text) {
        Ok(instant) => {
            let canonical = instant.to_text();
            assert_eq!(canonical.len(), 27, "{text:?}");
            assert_eq!(canonical.parse(), Ok(instant), "{text:?}");
            assert_eq!(rules.parse(&canonical), Ok(instant), "{text:?}");
            Some(instant)
        }
        Err(error) => {
            check_error(text, &error);
            None
        }
    }
}

fn check_error(text: &str, error: &ParseError) {
    assert!(error.offset() <= text.len(), "{text:?}: {error}");
    assert!(error.preview().len() <= 32, "{text:?}: {error}");
    let printable = |byte: u8| (b' '..=b'~').contains(&byte);
    assert!(
        error.to_string().bytes().all(printable),
        "{text:?}: {error}"
    );
    assert!(!error.hint().is_empty(), "{text:?}: {error}");
}

/// Takes sixteen bytes as nanoseconds: flooring must keep order, and texts must sort as instants.
fn numbers(data: &[u8]) {
    let Some((bytes, _)) = data.split_first_chunk() else {
        return;
    };
    // A random number of 128 bits is almost never in range, so most of them are folded into it.
    let nanos = i128::from_le_bytes(*bytes);
    let whole = Timestamp::from_unix_nanos(nanos);
    assert_eq!(whole.is_ok(), in_range(nanos), "{nanos}");
    let folded = nanos.rem_euclid(1 << 68) - (1 << 66);
    let (one, another) = (folded, folded.saturating_add(nanos.rem_euclid(2_000)));
    if let (Ok(earlier), Ok(later)) = (
        Timestamp::from_unix_nanos(one),
        Timestamp::from_unix_nanos(another),
    ) {
        assert!(earlier <= later, "{one} {another}");
        assert!(
            (0..1_000).contains(&(one - earlier.as_unix_nanos())),
            "{one}"
        );
        assert_eq!(
            earlier.to_text().as_str().cmp(&later.to_text()),
            earlier.cmp(&later)
        );
        assert_eq!(earlier.to_text().parse(), Ok(earlier));
    }
}

fn in_range(nanos: i128) -> bool {
    (Timestamp::MIN.as_unix_nanos()..Timestamp::MAX.as_unix_nanos() + 1_000).contains(&nanos)
}

/// Feeds text to every reader of run ids, of owner ids and of their endings.
///
/// # Panics
///
/// When a text is accepted that is not the canonical text of what was read.
pub fn run_id(bytes: &[u8]) {
    use runtree_id::{IdEnding, OwnerId, RunId};

    if let Some(bytes) = bytes.first_chunk()
        && let Ok(id) = RunId::from_bytes(*bytes)
    {
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!(id.timestamp() >= Timestamp::UNIX_EPOCH);
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(id) = text.parse::<RunId>() {
        assert_eq!(id.to_string(), text);
        assert_eq!(RunId::from_bytes(*id.as_bytes()), Ok(id));
        assert_eq!(RunId::parse_human(text), Ok(id));
        assert!(id.short().matches(&id));
        // The same UUID is an owner's as well, and its text nobody else's.
        let owner = OwnerId::from_uuid(*id.as_uuid()).expect("is version 7 as well");
        assert_eq!(owner.timestamp(), id.timestamp());
        assert!(text.parse::<OwnerId>().is_err());
    }
    if let Ok(id) = text.parse::<OwnerId>() {
        assert_eq!(id.to_string(), text);
        assert_eq!(OwnerId::parse_human(text), Ok(id));
        assert!(text.parse::<RunId>().is_err() && RunId::parse_human(text).is_err());
    }
    if let Ok(id) = RunId::parse_human(text) {
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(RunId::parse_human(&id.as_uuid().to_string()), Ok(id));
    }
    if let Ok(ending) = IdEnding::new(text) {
        assert_eq!(ending.as_str(), text.trim().to_ascii_lowercase());
        assert_eq!(ending.value() & !ending.mask(), 0);
        assert_eq!(ending.as_str().parse(), Ok(ending));
    }
}

/// Feeds text to the reader of session ids.
///
/// # Panics
///
/// When a text is accepted that is not a hyphenated UUID.
pub fn session_id(bytes: &[u8]) {
    use runtree_id::SessionId;

    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(id) = text.parse::<SessionId>() {
        let canonical = id.to_string();
        assert_eq!(canonical, text.to_ascii_lowercase());
        assert_eq!(canonical.parse(), Ok(id));
        assert_eq!(SessionId::from_uuid(*id.as_uuid()), Ok(id));
        let groups: Vec<usize> = text.split('-').map(str::len).collect();
        assert_eq!(groups, [8, 4, 4, 4, 12]);
    }
}

/// Feeds text to the reader of external references.
///
/// # Panics
///
/// When a text is accepted that could leave a path, a ref or an argument.
pub fn external_ref(bytes: &[u8]) {
    use runtree_id::ExternalRef;

    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    match text.parse::<ExternalRef>() {
        Ok(reference) => {
            assert_eq!(reference.as_str(), text);
            assert!((1..=ExternalRef::MAX_BYTES).contains(&text.len()));
            assert!(text.bytes().all(allowed) && !text.contains(".."));
            assert!(text.starts_with(|first: char| first.is_ascii_alphanumeric()));
        }
        Err(error) => {
            let starts = text.starts_with(|first: char| first.is_ascii_alphanumeric());
            let fits = starts && text.len() <= ExternalRef::MAX_BYTES;
            assert!(!fits || !text.bytes().all(allowed) || text.contains(".."));
            assert!(!error.to_string().contains(char::is_control), "{text:?}");
        }
    }
}

/// Feeds text to the reader of commit ids.
///
/// # Panics
///
/// When a text is accepted that git would not print as the name of a commit.
pub fn commit_id(bytes: &[u8]) {
    use runtree_id::CommitId;

    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let is_hex = text.bytes().all(|byte| b"0123456789abcdef".contains(&byte));
    let is_none = text.bytes().all(|byte| byte == b'0');
    let is_name = is_hex && !is_none && matches!(text.len(), 40 | 64);
    let read = text.parse::<CommitId>();
    assert_eq!(read.is_ok(), is_name, "{text:?}");
    match read {
        Ok(id) => assert_eq!((id.as_str(), id.to_string().as_str()), (text, text)),
        Err(error) => assert!(!error.to_string().contains(char::is_control), "{text:?}"),
    }
}

/// Feeds text to the readers of branch names, directory names and slugs.
///
/// # Panics
///
/// When a name is accepted that git or a file system would take for something else.
pub fn branch_name(bytes: &[u8]) {
    use runtree_id::{BranchName, DirectoryName, Slug};

    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(branch) = text.parse::<BranchName>() {
        assert_eq!(branch.as_str(), text);
        assert_eq!(BranchName::from_full_ref(branch.full_ref()), Ok(branch));
        assert!(text.len() <= BranchName::MAX_BYTES);
        assert!(!text.starts_with(['-', '/', '.']));
        assert!(
            !["..", "@{", "//", "/."]
                .iter()
                .any(|part| text.contains(part))
        );
    }
    if let Ok(directory) = text.parse::<DirectoryName>() {
        assert_eq!(directory.as_str(), text);
        assert!(text == "head" || text.parse::<BranchName>().is_ok());
        assert!(!text.contains('/'));
    }
    if let Ok(branch) = BranchName::from_full_ref(text) {
        assert_eq!(branch.full_ref(), text);
        assert_eq!(branch.as_str().parse(), Ok(branch.clone()));
    }
    if let Ok(slug) = text.parse::<Slug>() {
        assert_eq!(slug.as_str(), text);
        assert_eq!(Slug::from_text(text), slug);
    }
    let slug = Slug::from_text(text);
    assert_eq!(slug.as_str().parse(), Ok(slug.clone()));
    assert_eq!(Slug::from_text(slug.as_str()), slug);
}

/// Feeds text to the tolerant and the strict readers of statuses and end reasons.
///
/// # Panics
///
/// When a word does not survive, or an unknown status allows an event.
pub fn status_word(bytes: &[u8]) {
    use runtree_status::{EndReason, Event, RunStatus};

    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(status) = RunStatus::from_stored(text) {
        assert_eq!(status.as_str(), text);
        assert_eq!(RunStatus::from_word(status.to_word()), status);
        assert_eq!(text.parse::<RunStatus>().is_ok(), status.is_known());
        if !status.is_known() {
            assert!(Event::ALL.iter().all(|event| status.apply(*event).is_err()));
        }
    }
    if let Ok(reason) = EndReason::from_stored(text) {
        assert_eq!(reason.as_str(), text);
        assert_eq!(text.parse::<EndReason>().is_ok(), reason.is_known());
    }
}
