//! As much of Markdown as the checks need: tables, headings, links, code.

/// Answers the rows of the table whose header has this first cell, without header and rule.
pub(super) fn table<'a>(text: &'a str, first_header: &str) -> Option<Vec<Vec<&'a str>>> {
    let mut lines = text.lines();
    lines.find(|line| cells(line).is_some_and(|cells| cells.first() == Some(&first_header)))?;
    let rows = lines.map_while(cells);
    // The rule of dashes between header and rows.
    Some(rows.skip(1).collect())
}

fn cells(line: &str) -> Option<Vec<&str>> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    Some(inner.split('|').map(str::trim).collect())
}

/// Answers what stands between single backticks, in order.
pub(super) fn code_spans(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// Answers the targets of links in a line, as in `[text](target)`, outside of code.
pub(super) fn link_targets(line: &str) -> Vec<String> {
    let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("code");
    let mut targets = Vec::new();
    let mut rest = prose.as_str();
    while let Some((_, after)) = rest.split_once("](") {
        let Some((target, after)) = after.split_once(')') else {
            break;
        };
        targets.push(target.to_owned());
        rest = after;
    }
    targets
}

/// Answers the lines of a text with their index, and whether they stand in a fenced block of code.
pub(super) fn lines(text: &str) -> impl Iterator<Item = (usize, &str, bool)> {
    let mut fenced = false;
    text.lines().enumerate().map(move |(index, line)| {
        let fence = line.trim_start().starts_with("```");
        let inside = fenced && !fence;
        fenced ^= fence;
        (index, line, inside)
    })
}

/// Answers the anchors that the headings of a text have, as forges make them.
pub(super) fn anchors(text: &str) -> Vec<String> {
    lines(text)
        .filter(|(_, line, inside)| !inside && line.starts_with('#'))
        .map(|(_, line, _)| anchor(line.trim_start_matches('#').trim()))
        .collect()
}

fn anchor(heading: &str) -> String {
    let kept = |character: char| match character {
        ' ' => Some('-'),
        '-' | '_' => Some(character),
        _ if character.is_alphanumeric() => Some(character.to_ascii_lowercase()),
        _ => None,
    };
    heading.chars().filter_map(kept).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_found_by_its_first_header_and_ends_with_its_last_row() {
        let text = "text\n| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | |\n\n| c |\n";
        let expected = vec![vec!["1", "2"], vec!["3", ""]];
        assert_eq!(table(text, "a"), Some(expected));
        assert_eq!(table(text, "b"), None);
    }

    #[test]
    fn links_in_code_are_no_links() {
        assert_eq!(link_targets("[a](b.md) `[c](d)` [e](f#g)"), ["b.md", "f#g"]);
    }

    #[test]
    fn comments_in_a_block_of_code_are_no_headings() {
        let text = "# The `xtask` way, in short\n```sh\n# no\n```\n## B_c\n";
        assert_eq!(anchors(text), ["the-xtask-way-in-short", "b_c"]);
    }
}
