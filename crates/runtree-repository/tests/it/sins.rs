//! The ways in which a repository is broken on purpose, and the case that must notice each.

/// What one broken repository does wrong; everything else it does right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sin {
    /// Looks for the key, then inserts: two requests may both find nothing.
    LooksBeforeItInserts,
    /// Answers a conflict as if the run of the other request were this one's.
    SwallowsConflicts,
    /// Answers that a run is new, and has not written it.
    AcknowledgesWhatItDidNotWrite,
    /// Makes a run of a request that must be refused.
    SwallowsErrors,
    /// Chooses a run, then takes it: two claimers may both have chosen it.
    ClaimsInTwoSteps,
    /// Serves whoever came last.
    ClaimsTheYoungestFirst,
    /// Takes runs before their time.
    ClaimsWhatIsNotDue,
    /// Plans no worktree for the run that it hands out.
    ForgetsTheWorktree,
    /// Does not tell owners who wants the run to stop.
    ForgetsTheCancelInRenewals,
    /// Prolongs a lease that has expired.
    RenewsExpiredLeases,
    /// Answers several renewals in the order of its index.
    AnswersRenewalsInItsOwnOrder,
    /// Reads the run, decides, then writes: the later ending wins over the earlier.
    LosesUpdates,
    /// Accepts a result from an owner whose lease has expired.
    CompletesAfterExpiry,
    /// Ends the run by its id, whatever token the owner shows.
    AcceptsStaleEndings,
    /// Answers a repeated ending as if it were the first.
    EndsTwice,
    /// Tries again although somebody wants the run to stop.
    RetriesCancelledRuns,
    /// Counts an attempt that the owner gave back.
    CountsReleases,
    /// Lets a graceful cancel replace a forced one.
    WeakensCancels,
    /// Kills without a new token, so that the owner goes on writing.
    KillsWithoutFencing,
    /// Takes up the run of whoever holds it now, when an earlier owner was proven dead.
    RescuesTheNextOwner,
    /// Takes up runs whose leases have not expired.
    RescuesTheLiving,
    /// Forgets the worktree of a run that was killed without its owner.
    ForgetsCleanupsOfKilledRuns,
    /// Wishes to clean up in a second transaction, after the one that ends the run.
    WantsCleanupsLater,
    /// Frees the clean-up of whoever holds it now, when an earlier holder was proven dead.
    FreesTheNextHolder,
    /// Begins the next page after the instant of the last run, and skips others of the same instant.
    SkipsEqualInstants,
    /// Begins the next page with the last run of the one before.
    RepeatsAtThePageBorder,
    /// Shows what happened at the very end of a range.
    IncludesTheEndOfRanges,
    /// Takes a condition without values for no condition.
    ShowsEverythingWhenNothingIsNamed,
    /// Takes the first of several runs that match.
    GuessesAmongCandidates,
    /// Reads a run by its id alone.
    ReadsAcrossNamespaces,
    /// Cancels a run by its id alone.
    CancelsAcrossNamespaces,
    /// Keeps no trace of a rejected write.
    ForgetsRejections,
    /// Stamps every change with the clock, wherever it went.
    TurnsTimeBack,
    /// Stores milliseconds.
    TruncatesInstants,
    /// Promises more than it keeps.
    DeclaresTooMuch,
    /// Claims whatever waits, however many use its concurrency key.
    IgnoresConcurrencyLimits,
    /// Counts who uses the key, then claims: two claimers may both have counted.
    CountsHoldersBeforeItClaims,
    /// Looks at as many waiting runs as it may take, and takes those of them that may run.
    LooksNoFurtherThanItsLimit,
    /// Takes runs of queues that nobody named.
    ClaimsFromAnyQueue,
    /// Makes many runs in as many transactions.
    MakesManyOneByOne,
    /// Answers a create of many in the order of its index.
    AnswersManyInItsOwnOrder,
    /// Gives a retry the idempotency key of the first request.
    KeepsTheKeyInRetries,
    /// Keeps no trace of a retry in the history of the run that it tries again.
    TellsNoRetries,
    /// Finds a run by its key alone.
    FindsKeysAcrossNamespaces,
    /// Ends many runs in as many transactions.
    EndsManyOneByOne,
    /// Answers no more endings once one of them has lost.
    StopsAtTheFirstLoser,
    /// Reads the usage, adds to it, writes the sum: the later addition wins over the earlier.
    LosesConcurrentAnnotations,
    /// Takes the members that are named for all there are to be.
    ReplacesMetadata,
    /// Answers an annotation that changes nothing as if it had changed something.
    AnnotatesTwice,
    /// Ignores which tags a filter asks for.
    ForgetsTagsInFilters,
    /// Counts the runs of a page.
    CountsOnePage,
    /// Puts runs without a value where PostgreSQL would.
    OrdersMissingValuesLast,
    /// Computes statistics over the runs of a page.
    MeasuresOnePage,
    /// Answers a median that no run had.
    InterpolatesPercentiles,
    /// Says that a run can be claimed when its concurrency key is used up.
    ExplainsAwayLimits,
    /// Ends a run for its deadline without asking it to stop first.
    EndsLateRunsUnasked,
    /// Ends a late run under the token of its owner.
    TimesOutWithoutFencing,
    /// Takes a stop because of a deadline for one that somebody asked for.
    KillsLateRuns,
    /// Deletes runs whose clean-up is still wanted.
    DeletesWhatIsToBeCleanedUp,
    /// Deletes old runs, whosever they are.
    DeletesAcrossNamespaces,
    /// Tells nobody of a change.
    NeverWakesWhoWaits,
}

impl Sin {
    pub(crate) const ALL: &[Self] = &[
        Self::LooksBeforeItInserts,
        Self::SwallowsConflicts,
        Self::AcknowledgesWhatItDidNotWrite,
        Self::SwallowsErrors,
        Self::ClaimsInTwoSteps,
        Self::ClaimsTheYoungestFirst,
        Self::ClaimsWhatIsNotDue,
        Self::ForgetsTheWorktree,
        Self::ForgetsTheCancelInRenewals,
        Self::RenewsExpiredLeases,
        Self::AnswersRenewalsInItsOwnOrder,
        Self::LosesUpdates,
        Self::CompletesAfterExpiry,
        Self::AcceptsStaleEndings,
        Self::EndsTwice,
        Self::RetriesCancelledRuns,
        Self::CountsReleases,
        Self::WeakensCancels,
        Self::KillsWithoutFencing,
        Self::RescuesTheNextOwner,
        Self::RescuesTheLiving,
        Self::ForgetsCleanupsOfKilledRuns,
        Self::WantsCleanupsLater,
        Self::FreesTheNextHolder,
        Self::SkipsEqualInstants,
        Self::RepeatsAtThePageBorder,
        Self::IncludesTheEndOfRanges,
        Self::ShowsEverythingWhenNothingIsNamed,
        Self::GuessesAmongCandidates,
        Self::ReadsAcrossNamespaces,
        Self::CancelsAcrossNamespaces,
        Self::ForgetsRejections,
        Self::TurnsTimeBack,
        Self::TruncatesInstants,
        Self::DeclaresTooMuch,
        Self::IgnoresConcurrencyLimits,
        Self::CountsHoldersBeforeItClaims,
        Self::LooksNoFurtherThanItsLimit,
        Self::ClaimsFromAnyQueue,
        Self::MakesManyOneByOne,
        Self::AnswersManyInItsOwnOrder,
        Self::KeepsTheKeyInRetries,
        Self::TellsNoRetries,
        Self::FindsKeysAcrossNamespaces,
        Self::EndsManyOneByOne,
        Self::StopsAtTheFirstLoser,
        Self::LosesConcurrentAnnotations,
        Self::ReplacesMetadata,
        Self::AnnotatesTwice,
        Self::ForgetsTagsInFilters,
        Self::CountsOnePage,
        Self::OrdersMissingValuesLast,
        Self::MeasuresOnePage,
        Self::InterpolatesPercentiles,
        Self::ExplainsAwayLimits,
        Self::EndsLateRunsUnasked,
        Self::TimesOutWithoutFencing,
        Self::KillsLateRuns,
        Self::DeletesWhatIsToBeCleanedUp,
        Self::DeletesAcrossNamespaces,
        Self::NeverWakesWhoWaits,
    ];

    /// The case that is there to notice it, and what it says.
    pub(crate) const fn noticed_by(self) -> (&'static str, &'static str) {
        match self {
            Self::LooksBeforeItInserts => (
                "create::concurrent_creates_of_one_idempotency_key_make_one_run",
                "new and existing runs of one request",
            ),
            Self::SwallowsConflicts => (
                "create::an_idempotency_key_of_another_request_is_a_conflict",
                "a request that another run stands in the way of",
            ),
            Self::AcknowledgesWhatItDidNotWrite => {
                ("create::a_new_run_is_pending_and_whole", "must exist")
            }
            Self::SwallowsErrors => (
                "create::an_invalid_request_writes_nothing",
                "an invalid request was answered",
            ),
            Self::ClaimsInTwoSteps => (
                "claim::concurrent_claims_of_one_run_have_one_winner",
                "eight claims of one run must have one answer",
            ),
            Self::ClaimsTheYoungestFirst => (
                "claim::the_highest_priority_goes_first_then_the_oldest",
                "the next run",
            ),
            Self::ClaimsWhatIsNotDue => (
                "claim::a_run_that_is_not_due_is_not_claimed",
                "what is claimed before it is due",
            ),
            Self::ForgetsTheWorktree => (
                "worktree::a_claim_plans_the_worktree",
                "must plan a worktree",
            ),
            Self::ForgetsTheCancelInRenewals => (
                "renew::a_renewal_tells_who_wants_the_run_to_stop",
                "the cancel intent that each renewal tells",
            ),
            Self::RenewsExpiredLeases => (
                "renew::an_expired_lease_is_lost_though_nobody_took_the_run_up",
                "a renewal at the instant the lease expires",
            ),
            Self::AnswersRenewalsInItsOwnOrder => (
                "renew::answers_come_in_the_order_of_the_question",
                "the answers to five renewals",
            ),
            Self::LosesUpdates => (
                "end::concurrent_endings_have_one_winner",
                "endings that race must have one answer",
            ),
            Self::CompletesAfterExpiry => (
                "end::a_completion_after_the_lease_expired_is_rejected",
                "must be answered by Stale",
            ),
            Self::AcceptsStaleEndings => (
                "end::an_old_owner_cannot_end_the_run_of_the_new_one",
                "an old owner's ending must be answered by Stale",
            ),
            Self::EndsTwice => (
                "end::repeating_an_ending_is_answered_by_already",
                "must be answered by Already",
            ),
            Self::RetriesCancelledRuns => (
                "end::a_failure_while_a_cancel_waits_is_a_kill",
                "status and reason",
            ),
            Self::CountsReleases => (
                "release::a_release_does_not_count_the_attempt",
                "the attempts",
            ),
            Self::WeakensCancels => (
                "cancel::graceful_becomes_forced_and_never_back",
                "the intent",
            ),
            Self::KillsWithoutFencing => ("cancel::a_forced_kill_fences_the_owner", "the token"),
            Self::RescuesTheNextOwner => (
                "rescue::a_proof_about_an_earlier_owner_is_worth_nothing",
                "the token that was observed",
            ),
            Self::RescuesTheLiving => (
                "rescue::a_lease_that_has_not_expired_is_left_alone",
                "a live lease must not be rescued",
            ),
            Self::ForgetsCleanupsOfKilledRuns => (
                "cleanup::a_forced_kill_wants_a_cleanup",
                "a claim of the run's clean-up",
            ),
            Self::WantsCleanupsLater => (
                "store::a_call_that_is_dropped_writes_all_or_nothing",
                "a claim of the run's clean-up",
            ),
            Self::FreesTheNextHolder => (
                "cleanup_lease::a_proof_about_an_earlier_holder_is_worth_nothing",
                "the token that was observed",
            ),
            Self::SkipsEqualInstants => (
                "list::pages_show_every_run_of_one_instant_once",
                "pages of 1",
            ),
            Self::RepeatsAtThePageBorder => ("list::pages_show_every_run_once", "pages"),
            Self::IncludesTheEndOfRanges => (
                "list::a_range_begins_with_its_start_and_stops_before_its_end",
                "whether the range",
            ),
            Self::ShowsEverythingWhenNothingIsNamed => (
                "list::a_condition_without_values_is_refused",
                "was answered by",
            ),
            Self::GuessesAmongCandidates => (
                "find::an_ending_of_several_runs_is_ambiguous",
                "an ending of two runs",
            ),
            Self::ReadsAcrossNamespaces => (
                "namespace::reads_see_only_their_own",
                "another namespace's run by its id",
            ),
            Self::CancelsAcrossNamespaces => (
                "namespace::owners_touch_only_their_own",
                "a cancel from another namespace",
            ),
            Self::ForgetsRejections => (
                "events::a_rejected_write_says_what_was_tried_under_which_token",
                "the events of three rejected writes",
            ),
            Self::TurnsTimeBack => (
                "time::a_clock_that_steps_back_does_not_turn_a_run_back",
                "went back",
            ),
            Self::TruncatesInstants => (
                "time::instants_keep_their_microseconds",
                "when the run may start",
            ),
            Self::DeclaresTooMuch => (
                "store::it_says_of_itself_what_the_backend_declared",
                "the capabilities",
            ),
            Self::IgnoresConcurrencyLimits => (
                "concurrency::a_batch_takes_no_more_than_may_run",
                "the first two of five",
            ),
            Self::CountsHoldersBeforeItClaims => (
                "concurrency::concurrent_claimers_never_exceed_a_limit",
                "three may run",
            ),
            Self::LooksNoFurtherThanItsLimit => (
                "concurrency::runs_that_must_wait_do_not_hold_up_those_behind_them",
                "a claim behind 300 that must wait",
            ),
            Self::ClaimsFromAnyQueue => (
                "queue::a_claim_of_queues_takes_only_theirs",
                "of a queue without runs",
            ),
            Self::MakesManyOneByOne => (
                "create_many::one_invalid_request_refuses_the_whole_call",
                "the runs",
            ),
            Self::AnswersManyInItsOwnOrder => (
                "create_many::answers_come_in_the_order_of_the_question",
                "the run of answer 0",
            ),
            Self::KeepsTheKeyInRetries => (
                "retry::the_idempotency_key_stays_with_the_first_run",
                "the idempotency key of the new run",
            ),
            Self::TellsNoRetries => (
                "retry::an_ended_run_is_tried_again_whatever_its_end",
                "the history of the ended run",
            ),
            Self::FindsKeysAcrossNamespaces => (
                "find::a_key_of_another_namespace_is_not_found",
                "another namespace's run by its key",
            ),
            Self::EndsManyOneByOne => (
                "store::a_call_of_many_that_is_dropped_writes_all_or_nothing",
                "a call with five endings that was dropped ended",
            ),
            Self::StopsAtTheFirstLoser => (
                "end_many::answers_come_in_the_order_of_the_question",
                "the answers to six endings",
            ),
            Self::LosesConcurrentAnnotations => (
                "annotate::concurrent_additions_lose_nothing",
                "the sum of what eight tasks added",
            ),
            Self::ReplacesMetadata => (
                "annotate::metadata_is_merged_member_by_member",
                "the metadata",
            ),
            Self::AnnotatesTwice => (
                "annotate::everything_at_once_is_kept_whole",
                "the same again must be answered by Already",
            ),
            Self::ForgetsTagsInFilters => (
                "filter::all_tags_of_a_filter_must_be_there",
                "the runs that",
            ),
            Self::CountsOnePage => ("filter::a_count_is_of_the_whole_list", "all runs"),
            Self::OrdersMissingValuesLast => (
                "order::a_run_without_the_value_comes_before_all_that_have_one",
                "ascending by started",
            ),
            Self::MeasuresOnePage => (
                "statistics::they_are_of_all_runs_and_not_of_a_page",
                "the runs",
            ),
            Self::InterpolatesPercentiles => (
                "statistics::percentiles_are_values_that_were_there",
                "the durations of 2 runs",
            ),
            Self::ExplainsAwayLimits => (
                "explain::a_run_whose_key_is_used_up_says_by_whom",
                "its key is used up",
            ),
            Self::EndsLateRunsUnasked => (
                "deadline::a_running_run_that_is_late_is_asked_first",
                "the status of a run that was asked",
            ),
            Self::TimesOutWithoutFencing => (
                "deadline::a_run_that_does_not_stop_in_time_is_ended_and_fenced",
                "the token",
            ),
            Self::KillsLateRuns => (
                "deadline::an_owner_that_obeys_leaves_a_run_that_timed_out",
                "status and reason",
            ),
            Self::DeletesWhatIsToBeCleanedUp => (
                "retention::a_run_whose_worktree_is_still_there_stays",
                "with a clean-up wanted or a worktree kept",
            ),
            Self::DeletesAcrossNamespaces => (
                "retention::another_namespaces_runs_stay",
                "what another namespace deletes",
            ),
            Self::NeverWakesWhoWaits => (
                "watch::a_write_of_another_handle_wakes_whoever_waits",
                "must be told",
            ),
        }
    }
}
