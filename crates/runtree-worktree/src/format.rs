//! The format of a salvage, for whoever reads one with git alone.
//!
//! A salvage is a commit under `refs/runtree/salvage/<name>`, where `<name>` is the worktree's name with anything but
//! `[A-Za-z0-9_-]` replaced by `-`; the second of a name ends with `.2`, and so on. Nothing is written when a worktree holds nothing that
//! a surviving reference does not.
//!
//! # The commit
//!
//! Its first parent is the commit that HEAD named. Further parents are commits that nothing else reached: those of a detached HEAD, of the
//! worktree's and its branch's reflog, of its private references, and of an operation in progress; those that one of them reaches are
//! not repeated. Its message ends with the lines `Ownership:` (the token the worktree was made under) and `Saved-at:` (UTC).
//!
//! # Its tree
//!
//! | path | holds |
//! |---|---|
//! | `meta.json` | what is below, with everything that a tree cannot say |
//! | `index` | the index as a tree; what was only announced with `git add -N` is left out |
//! | `worktree` | the files on disk as a tree |
//! | `stages/1`, `stages/2`, `stages/3` | the sides of unresolved conflicts, where there are any |
//! | `admin` | the files of the administrative directory as they were: `index` (with all its flags), `logs/HEAD`, `MERGE_HEAD`, `rebase-merge`, private references and so on; not those that tell where it is or who has it |
//! | `objects/<id>` | trees and blobs that only those files mention |
//!
//! In `worktree`, a file that did not differ from the index is the index's blob. One that `meta.json` lists under `files` is the bytes on disk,
//! which no filter has touched: restoring writes them back without one.
//!
//! # `meta.json`
//!
//! | field | holds |
//! |---|---|
//! | `format` | `1` |
//! | `name`, `ownership`, `base` | those of the worktree |
//! | `head`, `reference` | the commit HEAD named, and the full name of the reference if it named one |
//! | `files` | `path`, `dirt` and `permissions` (decimal) of each file whose bytes were saved |
//! | `staged`, `conflicted`, `announced` | paths at which the index differs from HEAD, holds conflicts, or announces a file |
//! | `deleted`, `skipped` | paths of the index that were not on disk; the latter are marked skip-worktree |
//! | `empty_directories` | directories without entries |
//! | `commits` | every commit that nothing else reached |
//! | `in_progress` | operations begun and not finished |
//!
//! Paths are text in which `%`, control characters and bytes that are not UTF-8 are written as `%XX`.
//!
//! # By hand
//!
//! ```text
//! git show refs/runtree/salvage/<name>:meta.json
//! git archive refs/runtree/salvage/<name>:worktree | tar -x -C somewhere
//! git update-ref -d refs/runtree/salvage/<name>
//! ```
//!
//! # What is not saved
//!
//! Owners, times, extended attributes and hard links of files; ignored files that the request for the removal lists as disposable.
