//! Holds the sources against the style card, as far as no lint of the compiler does.

use super::Finding;
use crate::project::{Project, TextFile};

/// Longest source file, in lines.
const LINES_MAX: usize = 800;

/// Files that may be longer, each with a reason.
const LONGER: &[&str] = &[];

/// What the documentation of every published crate has, beside a heading that names its types.
const HEADINGS: &[&str] = &[
    "What it does not do",
    "Guarantees",
    "Limits",
    "Alternatives",
];

/// Words that say where something was written instead of what it is; each in two parts, so that
/// this list does not find itself.
const WORDS: &[(&str, &str)] = &[
    ("/wo", "rk/"),
    ("/ro", "ot/"),
    ("index.", "crates.io"),
    ("static.", "crates.io"),
];

/// Every source file opens with a sentence that says why it exists.
pub(super) fn headers(project: &Project) -> Vec<Finding> {
    let opening = |file: &TextFile| {
        let lines = file.text.lines();
        let lines = lines.map_while(|line| line.strip_prefix("//! "));
        lines.collect::<Vec<_>>().join(" ")
    };
    let bad = project.with_extension("rs").filter(|file| {
        let opening = opening(file);
        opening.len() < 20 || !opening.ends_with('.')
    });
    bad.map(|file| Finding::new(&*file.path, "does not open with a `//!` sentence"))
        .collect()
}

/// No source file is longer than a person can keep in mind.
pub(super) fn length(project: &Project) -> Vec<Finding> {
    let files = project.with_extension("rs");
    let long = files.filter(|file| {
        file.text.lines().count() > LINES_MAX && !LONGER.contains(&file.path.as_str())
    });
    long.map(|file| {
        let count = file.text.lines().count();
        Finding::new(
            &*file.path,
            format!("has {count} lines, {LINES_MAX} are allowed"),
        )
    })
    .collect()
}

/// The documentation of every published crate answers the same questions under the same headings.
pub(super) fn crate_docs(project: &Project) -> Vec<Finding> {
    let mut findings = Vec::new();
    for member in project.members.iter().filter(|member| member.published) {
        let path = format!("{}/src/lib.rs", member.directory);
        let Some(text) = project.text(&path) else {
            findings.push(Finding::new(path, "is missing"));
            continue;
        };
        let documentation: Vec<&str> = text
            .lines()
            .take_while(|line| line.starts_with("//!") || line.starts_with("#!["))
            .collect();
        let headings: Vec<&str> = documentation
            .iter()
            .filter_map(|line| line.strip_prefix("//! # "))
            .collect();
        let mut missing: Vec<&str> = HEADINGS.to_vec();
        if !member.features.is_empty() {
            missing.push("Features");
        }
        missing.retain(|heading| !headings.contains(heading));
        if !headings
            .iter()
            .any(|heading| heading.to_lowercase().ends_with("types"))
        {
            missing.push("Main types");
        }
        if !documentation.contains(&"//! ```") {
            missing.push("(a runnable example)");
        }
        findings.extend(missing.into_iter().map(|heading| {
            Finding::new(
                &*path,
                format!("the crate's documentation lacks `{heading}`"),
            )
        }));
    }
    findings
}

/// No public item of the worktree room shows a type of gix, which would tie its users to a version.
pub(super) fn foreign_types(project: &Project) -> Vec<Finding> {
    let files = project.with_extension("rs");
    let room = files.filter(|file| file.path.starts_with("crates/runtree-worktree/src/"));
    room.flat_map(|file| {
        let signatures = signatures(&file.text);
        let shown = signatures
            .into_iter()
            .filter(|(_, text)| text.contains("gix"));
        shown.map(|(index, _)| Finding::at_line(&file.path, index, "a type of gix in public"))
    })
    .collect()
}

/// Answers where each public item or conversion begins, and its text up to the body.
fn signatures(text: &str) -> Vec<(usize, &str)> {
    let starts = ["pub ", "impl From<", "impl TryFrom<"];
    let mut place = 0;
    let mut signatures = Vec::new();
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let code = line.trim_start();
        if starts.iter().any(|start| code.starts_with(start)) {
            let rest = &text[place..];
            signatures.push((index, &rest[..signature_end(rest)]));
        }
        place += line.len();
    }
    signatures
}

/// Answers the length of the signature at the start of a text: up to a body, an end, or the end of a
/// field. A tuple's fields are its body.
fn signature_end(text: &str) -> usize {
    let tuple = text.trim_start().starts_with("pub struct ");
    let mut depth = 0_u32;
    let mut last = ' ';
    for (place, character) in text.char_indices() {
        match character {
            '{' | ';' => return place,
            '(' if tuple => return place,
            '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            '\n' if depth == 0 && last == ',' => return place,
            _ => {}
        }
        last = character;
    }
    text.len()
}

/// Nothing is left as a draft: no place that panics because it is still to be written.
pub(super) fn macros_of_drafts(project: &Project) -> Vec<Finding> {
    let drafts = [concat!("todo", "!("), concat!("unimplemented", "!(")];
    each_line(project, |line| {
        let code = !line.starts_with("//");
        let draft = drafts.iter().find(|draft| code && line.contains(*draft))?;
        Some(format!("`{draft}..)` is a draft"))
    })
}

/// No lint is switched off for good: `expect` with a reason tells when it is no longer needed.
pub(super) fn reasons(project: &Project) -> Vec<Finding> {
    let allow = concat!("allow", "(");
    each_line(project, |line| {
        let attribute = line.strip_prefix("#!").or_else(|| line.strip_prefix('#'))?;
        let attribute = attribute.strip_prefix('[')?;
        let conditional = attribute.starts_with("cfg_attr(") && attribute.contains(allow);
        (attribute.starts_with(allow) || conditional)
            .then(|| "write `expect` with a reason".to_owned())
    })
}

/// No file says on whose machine it was written or through which mirror it was built.
pub(super) fn words(project: &Project) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &project.files {
        for (index, line) in file.text.lines().enumerate() {
            let found = WORDS.iter().map(|(one, two)| format!("{one}{two}"));
            let found = found.filter(|word| line.contains(word.as_str()));
            findings.extend(found.map(|word| {
                Finding::at_line(
                    &file.path,
                    index,
                    format!("`{word}` is of one machine only"),
                )
            }));
        }
    }
    findings
}

fn each_line(project: &Project, problem: impl Fn(&str) -> Option<String>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in project.with_extension("rs") {
        for (index, line) in file.text.lines().enumerate() {
            let problem = problem(line.trim_start());
            findings.extend(problem.map(|problem| Finding::at_line(&file.path, index, problem)));
        }
    }
    findings
}
