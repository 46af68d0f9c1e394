//! What may be added to a run at any time, also after its end: facts, usage, tags and metadata.

use std::collections::{BTreeMap, BTreeSet};

use runtree_id::CommitId;
use serde_json::{Map, Value};

use crate::error::{ErrorKind, RepositoryError};
use crate::facts::{
    DiffStatistics, FileChange, MAX_FILE_CHANGES, MAX_FILE_CHANGES_BYTES, RunFacts, Usage,
};
use crate::json;
use crate::run::Run;
use crate::text::{AgentType, GitRepositoryName, ModelName, SessionName, Tag};

/// The most tags that a run may have.
pub const MAX_TAGS: usize = 64;

/// What becomes of one field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a field is kept, set or cleared; there is no fourth"
)]
pub enum Change<T> {
    /// It stays as it is.
    #[default]
    Keep,
    /// It gets this value.
    Set(T),
    /// It becomes unknown.
    Clear,
}

impl<T> Change<T> {
    /// Tells whether this is a change at all.
    pub const fn is_keep(&self) -> bool {
        matches!(self, Self::Keep)
    }

    /// Returns the value that the field gets, if it gets one.
    pub const fn new_value(&self) -> Option<&T> {
        match self {
            Self::Set(value) => Some(value),
            Self::Keep | Self::Clear => None,
        }
    }

    fn apply(&self, field: &mut Option<T>)
    where
        T: Clone,
    {
        match self {
            Self::Keep => {}
            Self::Set(value) => *field = Some(value.clone()),
            Self::Clear => *field = None,
        }
    }
}

/// What becomes of a run's usage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a usage is kept, set or added to; there is no fourth"
)]
pub enum UsageChange {
    /// It stays as it is.
    #[default]
    Keep,
    /// It becomes this. Repeating it changes nothing.
    Set(Usage),
    /// This is added. Repeating it after a lost answer adds it twice: who must not count twice keeps the sum and sets it.
    Add(Usage),
}

/// What to add to a run, change or take away; everything else stays as it is.
///
/// ```
/// use runtree_repository::{Annotation, Cost, Usage};
///
/// let annotation = Annotation::new()
///     .add_tag("nightly".parse()?)
///     .metadata("branch_protected", true)
///     .remove_metadata("draft")
///     .add_usage(Usage { input_tokens: 1_200, output_tokens: 300, cost: Cost::from_micros(42_000) });
/// assert!(annotation.check().is_ok());
/// # Ok::<(), runtree_repository::RepositoryError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Annotation {
    /// What kind of agent does the work.
    pub agent: Change<AgentType>,
    /// The model that the agent uses.
    pub model: Change<ModelName>,
    /// What people call the session.
    pub session_name: Change<SessionName>,
    /// The git repository that the work is about.
    pub git_repository: Change<GitRepositoryName>,
    /// The commit that the work began at.
    pub first_commit: Change<CommitId>,
    /// The commit that the work ended at.
    pub last_commit: Change<CommitId>,
    /// How much was changed.
    pub diff: Change<DiffStatistics>,
    /// How much of each file was changed.
    pub file_changes: Change<Vec<FileChange>>,
    /// What was used up.
    pub usage: UsageChange,
    /// Tags to add; a tag that is also to be removed is added.
    pub add_tags: BTreeSet<Tag>,
    /// Tags to remove.
    pub remove_tags: BTreeSet<Tag>,
    /// Members of the metadata: the new value, or none to remove the member. Members that are not named stay.
    pub metadata: BTreeMap<String, Option<Value>>,
}

impl Annotation {
    /// Changes nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tag.
    #[must_use]
    pub fn add_tag(mut self, tag: Tag) -> Self {
        self.add_tags.insert(tag);
        self
    }

    /// Removes a tag.
    #[must_use]
    pub fn remove_tag(mut self, tag: Tag) -> Self {
        self.remove_tags.insert(tag);
        self
    }

    /// Sets a member of the metadata; the others stay.
    #[must_use]
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.metadata.insert(key.into(), Some(value.into()));
        self
    }

    /// Removes a member of the metadata; the others stay.
    #[must_use]
    pub fn remove_metadata(mut self, key: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), None);
        self
    }

    /// Adds to what was used up.
    #[must_use]
    pub fn add_usage(mut self, usage: Usage) -> Self {
        self.usage = UsageChange::Add(usage);
        self
    }

    /// Sets what was used up.
    #[must_use]
    pub fn set_usage(mut self, usage: Usage) -> Self {
        self.usage = UsageChange::Set(usage);
        self
    }

    /// Sets how much was changed.
    #[must_use]
    pub fn diff(mut self, diff: DiffStatistics) -> Self {
        self.diff = Change::Set(diff);
        self
    }

    /// Sets the commits that the work began and ended at.
    #[must_use]
    pub fn commits(mut self, first: CommitId, last: CommitId) -> Self {
        self.first_commit = Change::Set(first);
        self.last_commit = Change::Set(last);
        self
    }

    /// Refuses what is beyond the limits, or changes nothing at all.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`], naming the value and the limit.
    pub fn check(&self) -> Result<(), RepositoryError> {
        if *self == Self::default() {
            return Err(refused("the annotation changes nothing".to_owned()));
        }
        let set: Map<String, Value> = self.new_metadata().collect();
        json::check("the metadata", &Value::Object(set))?;
        let removed = self.removed_metadata().map(Value::from).collect();
        json::check("the names of removed metadata", &Value::Array(removed))?;
        if self.add_tags.len() > MAX_TAGS {
            return Err(too_many_tags(self.add_tags.len()));
        }
        if let Some(files) = self.file_changes.new_value() {
            check_files(files)?;
        }
        match &self.usage {
            UsageChange::Keep => Ok(()),
            UsageChange::Set(usage) | UsageChange::Add(usage) => usage.check(),
        }
    }

    /// Returns the members of the metadata that get a value.
    pub fn new_metadata(&self) -> impl Iterator<Item = (String, Value)> + '_ {
        self.metadata
            .iter()
            .filter_map(|(key, value)| Some((key.clone(), value.clone()?)))
    }

    /// Returns the members of the metadata that go.
    pub fn removed_metadata(&self) -> impl Iterator<Item = &str> {
        let removed = self.metadata.iter().filter(|(_, value)| value.is_none());
        removed.map(|(key, _)| key.as_str())
    }

    /// Applies the annotation: the meaning that every backend's statement has.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when the run would have too many tags or too much metadata; it is unchanged then.
    pub fn apply(&self, run: &mut Run) -> Result<(), RepositoryError> {
        let mut tags: BTreeSet<Tag> = run.tags.difference(&self.remove_tags).cloned().collect();
        tags.extend(self.add_tags.iter().cloned());
        if tags.len() > MAX_TAGS {
            return Err(too_many_tags(tags.len()));
        }
        let mut metadata = run.metadata.clone();
        for (key, value) in &self.metadata {
            match value {
                Some(value) => metadata.insert(key.clone(), value.clone()),
                None => metadata.remove(key),
            };
        }
        json::check("the metadata", &Value::Object(metadata.clone()))?;
        run.metadata = metadata;
        let summary = &mut run.summary;
        summary.tags = tags;
        self.apply_facts(&mut summary.facts);
        summary.usage = match &self.usage {
            UsageChange::Keep => summary.usage,
            UsageChange::Set(usage) => *usage,
            UsageChange::Add(more) => summary.usage.plus(more),
        };
        match &self.file_changes {
            Change::Keep => {}
            Change::Set(files) => run.file_changes.clone_from(files),
            Change::Clear => run.file_changes.clear(),
        }
        Ok(())
    }

    /// Tells whether any of the facts changes.
    pub fn changes_facts(&self) -> bool {
        !(self.agent.is_keep()
            && self.model.is_keep()
            && self.session_name.is_keep()
            && self.git_repository.is_keep()
            && self.first_commit.is_keep()
            && self.last_commit.is_keep()
            && self.diff.is_keep())
    }

    fn apply_facts(&self, facts: &mut RunFacts) {
        self.agent.apply(&mut facts.agent);
        self.model.apply(&mut facts.model);
        self.session_name.apply(&mut facts.session_name);
        self.git_repository.apply(&mut facts.git_repository);
        self.first_commit.apply(&mut facts.first_commit);
        self.last_commit.apply(&mut facts.last_commit);
        self.diff.apply(&mut facts.diff);
    }
}

/// The error of a run that would have too many tags.
pub(crate) fn too_many_tags(count: usize) -> RepositoryError {
    refused(format!(
        "the run would have {count} tags, at most {MAX_TAGS} are allowed"
    ))
}

fn check_files(files: &[FileChange]) -> Result<(), RepositoryError> {
    if files.len() > MAX_FILE_CHANGES {
        return Err(refused(format!(
            "the changes name {} files, at most {MAX_FILE_CHANGES} are allowed",
            files.len()
        )));
    }
    let bytes: usize = files.iter().map(|file| file.path.as_str().len()).sum();
    if bytes > MAX_FILE_CHANGES_BYTES {
        return Err(refused(format!(
            "the paths of the changed files have {bytes} bytes together, at most {MAX_FILE_CHANGES_BYTES} are allowed"
        )));
    }
    Ok(())
}

fn refused(why: String) -> RepositoryError {
    RepositoryError::new(ErrorKind::InvalidInput, why)
}
