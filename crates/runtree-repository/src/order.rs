//! In which order runs are listed, and where in that order a page ended.

use std::cmp::Ordering;
use std::fmt;

use runtree_id::RunId;
use runtree_time::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{ErrorKind, RepositoryError};
use crate::run::RunSummary;

/// In which order runs are listed: by one value, and by the id among runs of the same value.
///
/// ```
/// use runtree_repository::{RunOrder, SortKey};
///
/// assert_eq!(RunOrder::default(), RunOrder::NEWEST_FIRST);
/// let dearest_first = RunOrder::descending(SortKey::Cost);
/// # let _ = dearest_first;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RunOrder {
    /// The value.
    pub by: SortKey,
    /// Which end comes first.
    pub direction: Direction,
}

impl RunOrder {
    /// The youngest first.
    pub const NEWEST_FIRST: Self = Self::descending(SortKey::Created);
    /// The oldest first.
    pub const OLDEST_FIRST: Self = Self::ascending(SortKey::Created);

    /// Lists the smallest value first.
    pub const fn ascending(by: SortKey) -> Self {
        let direction = Direction::Ascending;
        Self { by, direction }
    }

    /// Lists the greatest value first.
    pub const fn descending(by: SortKey) -> Self {
        let direction = Direction::Descending;
        Self { by, direction }
    }

    /// Tells which of two places comes first in this order.
    pub fn compare(self, one: &Position, other: &Position) -> Ordering {
        match self.direction {
            Direction::Ascending => one.cmp(other),
            Direction::Descending => other.cmp(one),
        }
    }
}

impl Default for RunOrder {
    /// The youngest first.
    fn default() -> Self {
        Self::NEWEST_FIRST
    }
}

impl fmt::Display for RunOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.by.as_str(), self.direction.as_str())
    }
}

/// Which end of an order comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "an order has two ends")]
pub enum Direction {
    /// The smallest value, and among equal ones the oldest run.
    Ascending,
    /// The greatest value, and among equal ones the youngest run.
    Descending,
}

impl Direction {
    /// Returns the short word for cursors and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ascending => "asc",
            Self::Descending => "desc",
        }
    }
}

/// What runs are ordered by.
///
/// A run without the value comes before all that have one, so it is last in a descending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SortKey {
    /// When it was created.
    Created,
    /// When its first attempt began.
    Started,
    /// When it ended.
    Ended,
    /// How long it took from the first start to the end.
    Duration,
    /// Its workflow, by the bytes of the name.
    Workflow,
    /// Its status, by the bytes of the word.
    Status,
    /// Its branch, by the bytes of the name.
    Branch,
    /// What it cost.
    Cost,
    /// The tokens that it used, of both kinds.
    Tokens,
}

impl SortKey {
    /// Every key.
    pub const ALL: &[Self] = &[
        Self::Created,
        Self::Started,
        Self::Ended,
        Self::Duration,
        Self::Workflow,
        Self::Status,
        Self::Branch,
        Self::Cost,
        Self::Tokens,
    ];

    /// Returns the word for cursors, interfaces and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Started => "started",
            Self::Ended => "ended",
            Self::Duration => "duration",
            Self::Workflow => "workflow",
            Self::Status => "status",
            Self::Branch => "branch",
            Self::Cost => "cost",
            Self::Tokens => "tokens",
        }
    }

    /// Returns the value that a run is ordered by.
    pub fn of(self, run: &RunSummary) -> SortValue {
        let instant = |at: Option<Timestamp>| at.map(Timestamp::as_unix_micros);
        let number = |number: u64| Some(i64::try_from(number).unwrap_or(i64::MAX));
        let text = |text: &str| SortValue::Text(text.to_owned());
        match self {
            Self::Created => SortValue::Number(instant(Some(run.created_at))),
            Self::Started => SortValue::Number(instant(run.started_at)),
            Self::Ended => SortValue::Number(instant(run.ended_at)),
            Self::Duration => {
                let micros = |started: Timestamp, ended: Timestamp| {
                    ended.as_unix_micros() - started.as_unix_micros()
                };
                let both = run.started_at.zip(run.ended_at);
                SortValue::Number(both.map(|(started, ended)| micros(started, ended)))
            }
            Self::Workflow => text(run.workflow.as_str()),
            Self::Status => text(run.status.as_str()),
            Self::Branch => text(
                run.worktree
                    .as_ref()
                    .map_or("", |worktree| worktree.branch.as_str()),
            ),
            Self::Cost => SortValue::Number(number(run.usage.cost.micros())),
            Self::Tokens => SortValue::Number(number(run.usage.total_tokens())),
        }
    }

    /// Tells whether values of this key are texts.
    pub const fn is_text(self) -> bool {
        match self {
            Self::Workflow | Self::Status | Self::Branch => true,
            Self::Created
            | Self::Started
            | Self::Ended
            | Self::Duration
            | Self::Cost
            | Self::Tokens => false,
        }
    }
}

/// The value that a run is ordered by. Texts compare by their bytes; no number is before every number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a backend stores each kind in a type of its own"
)]
pub enum SortValue {
    /// Unix microseconds of an instant, microseconds of a time, a count.
    Number(Option<i64>),
    /// A text; a run that has none has the empty one.
    Text(String),
}

/// A place between two runs of a list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// What the run before it is ordered by.
    pub value: SortValue,
    /// The run before it.
    pub id: RunId,
}

impl Position {
    /// Returns the place just after this run, in an order by this key.
    pub fn of(by: SortKey, run: &RunSummary) -> Self {
        let value = by.of(run);
        Self { value, id: run.id }
    }
}

/// Where a page ended, as a text to hand out and take back: opaque, with a version and a check sum.
///
/// The check sum finds damage and guesses; it is no secret. A cursor gives no rights: a list shows what its filter allows. It holds
/// the value that the last run had when the page was read; a run whose value changes while somebody pages may be seen twice or not
/// at all, as in every keyset page. Instants, workflows and branches do not change once they are set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    order: RunOrder,
    position: Position,
}

impl Cursor {
    const VERSION: &str = "c2";

    /// Marks a place in a list of this order.
    pub const fn new(order: RunOrder, position: Position) -> Self {
        Self { order, position }
    }

    /// Returns the place, if the cursor is of a list in this order.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when it is of another order.
    pub fn position_in(&self, order: RunOrder) -> Result<&Position, RepositoryError> {
        let refuse = |why| Err(RepositoryError::new(ErrorKind::InvalidInput, why));
        if self.order != order {
            return refuse(format!(
                "the cursor is of a list in the order `{}`, not `{order}`",
                self.order
            ));
        }
        let fits = match &self.position.value {
            SortValue::Number(_) => !order.by.is_text(),
            SortValue::Text(text) => order.by.is_text() && !text.contains('\0'),
        };
        if fits {
            Ok(&self.position)
        } else {
            refuse(format!(
                "the cursor holds a value that no `{}` has",
                order.by.as_str()
            ))
        }
    }

    fn body(&self) -> String {
        let value = match &self.position.value {
            SortValue::Number(Some(number)) => number.to_string(),
            SortValue::Number(None) => "none".to_owned(),
            SortValue::Text(text) => text.bytes().fold("x".to_owned(), |mut text, byte| {
                text.push_str(&format!("{byte:02x}"));
                text
            }),
        };
        format!(
            "{}.{}.{}.{value}.{}",
            Self::VERSION,
            self.order.by.as_str(),
            self.order.direction.as_str(),
            self.position.id
        )
    }

    fn check_sum(body: &str) -> String {
        Sha256::digest(body)
            .iter()
            .take(4)
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    fn parse_body(body: &str) -> Option<Self> {
        let parts: Vec<&str> = body.split('.').collect();
        let [version, by, direction, value, id] = parts.as_slice() else {
            return None;
        };
        let by = SortKey::ALL.iter().find(|key| key.as_str() == *by)?;
        let direction = [Direction::Ascending, Direction::Descending]
            .into_iter()
            .find(|known| known.as_str() == *direction)?;
        let value = match (value.strip_prefix('x'), *value) {
            (Some(digits), _) => SortValue::Text(text_of_hex(digits)?),
            (None, "none") => SortValue::Number(None),
            (None, number) => SortValue::Number(Some(number.parse().ok()?)),
        };
        if *version != Self::VERSION || by.is_text() != matches!(value, SortValue::Text(_)) {
            return None;
        }
        let order = RunOrder { by: *by, direction };
        let id = id.parse().ok()?;
        let cursor = Self::new(order, Position { value, id });
        // One cursor has one text.
        (cursor.body() == body).then_some(cursor)
    }
}

fn text_of_hex(digits: &str) -> Option<String> {
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    let bytes = pairs.iter().map(|pair| {
        let pair = std::str::from_utf8(pair).ok()?;
        u8::from_str_radix(pair, 16).ok()
    });
    String::from_utf8(bytes.collect::<Option<_>>()?).ok()
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = self.body();
        write!(f, "{body}.{}", Self::check_sum(&body))
    }
}

impl std::str::FromStr for Cursor {
    type Err = RepositoryError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.rsplit_once('.')
            .filter(|(body, sum)| Self::check_sum(body) == *sum)
            .and_then(|(body, _)| Self::parse_body(body))
            .ok_or_else(|| {
                RepositoryError::new(
                    ErrorKind::InvalidInput,
                    "the cursor was not made by this version, or was changed",
                )
            })
    }
}

impl Serialize for Cursor {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursors() -> Vec<Cursor> {
        let id: RunId = "run_01jyb5zk2re4d8ahs1x3v6b9fq".parse().unwrap();
        let at = |by, value| {
            let position = Position { value, id };
            Cursor::new(RunOrder::descending(by), position)
        };
        vec![
            at(
                SortKey::Created,
                SortValue::Number(Some(-62_135_596_800_000_000)),
            ),
            at(SortKey::Started, SortValue::Number(None)),
            at(SortKey::Cost, SortValue::Number(Some(0))),
            at(
                SortKey::Workflow,
                SortValue::Text("a.b é\u{1f600}".to_owned()),
            ),
            at(SortKey::Branch, SortValue::Text(String::new())),
        ]
    }

    #[test]
    fn a_cursor_is_read_back_and_no_changed_one_is() {
        for cursor in cursors() {
            let text = cursor.to_string();
            assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{text}");
            assert_eq!(text.parse::<Cursor>().unwrap(), cursor);
            for at in 0..text.len() {
                let mut changed = text.clone().into_bytes();
                changed[at] = if changed[at] == b'0' { b'1' } else { b'0' };
                let changed = String::from_utf8(changed).unwrap();
                assert!(changed.parse::<Cursor>().is_err(), "{changed}");
            }
        }
        // A right check sum alone is not enough.
        for body in [
            "c1.created.desc.1.run_01jyb5zk2re4d8ahs1x3v6b9fq",
            "c2.cost.desc.x61.run_01jyb5zk2re4d8ahs1x3v6b9fq",
        ] {
            let text = format!("{body}.{}", Cursor::check_sum(body));
            assert!(text.parse::<Cursor>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_cursor_belongs_to_its_order() {
        let cursor = &cursors()[2];
        assert!(
            cursor
                .position_in(RunOrder::descending(SortKey::Cost))
                .is_ok()
        );
        let error = cursor
            .position_in(RunOrder::ascending(SortKey::Cost))
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        for value in [
            SortValue::Text("7".to_owned()),
            SortValue::Text("\0".to_owned()),
        ] {
            let order = RunOrder::descending(SortKey::Cost);
            let id = cursor.position.id;
            let made = Cursor::new(order, Position { value, id });
            let error = made.position_in(order).unwrap_err();
            assert_eq!(
                error.to_string(),
                "the cursor holds a value that no `cost` has"
            );
        }
        assert_eq!(
            error.to_string(),
            "the cursor is of a list in the order `cost desc`, not `cost asc`"
        );
    }
}
