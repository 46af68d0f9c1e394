//! The one table of cases: the suite, its report and the tests that `tests!` makes all come from it.

use crate::cases;
use crate::suite::{Case, Need};

/// Makes one `#[test]` of each case, in a module for each group.
///
/// Takes an expression that makes the [`Backend`](crate::Backend). Beside it, [`check`](crate::check) in one test gives the report
/// of the whole table.
///
/// ```ignore
/// runtree_conformance::tests!(crate::MyBackend);
/// ```
#[macro_export]
macro_rules! tests {
    ($backend:expr) => {
        $crate::__each_case! { [$crate::__tests] { $backend } }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __tests {
    ({ $backend:expr } $($group:ident { $($case:ident $(needs $need:ident)?,)* })*) => {$(
        mod $group {
            $(
                #[test]
                fn $case() {
                    $crate::__assert_case(
                        concat!(stringify!($group), "::", stringify!($case)),
                        $backend,
                    );
                }
            )*
        }
    )*};
}

macro_rules! __table {
    ({} $($group:ident { $($case:ident $(needs $need:ident)?,)* })*) => {
        /// Every case, in the order in which they run.
        pub(crate) const CASES: &[Case] = &[$($(
            Case {
                name: concat!(stringify!($group), "::", stringify!($case)),
                need: need!($($need)?),
                run: |cx| Box::pin(cases::$group::$case(cx)),
            },
        )*)*];
    };
}

macro_rules! need {
    () => {
        Need::Nothing
    };
    ($need:ident) => {
        Need::$need
    };
}

/// Hands the table to another macro; the one place that names the cases.
#[doc(hidden)]
#[macro_export]
macro_rules! __each_case {
    ([$($then:tt)*] $arguments:tt) => {
        $($then)*! {
            $arguments
            create {
                a_new_run_is_pending_and_whole,
                what_was_not_given_is_absent,
                repeating_a_create_finds_its_run,
                an_idempotency_key_finds_the_run_of_the_same_request,
                an_idempotency_key_outlives_its_run,
                an_idempotency_key_of_another_request_is_a_conflict,
                an_id_of_another_request_is_a_conflict,
                a_unique_key_is_held_until_its_run_ends,
                the_same_request_under_a_unique_key_alone_is_still_a_conflict,
                the_idempotency_key_decides_before_the_id,
                the_id_decides_before_the_unique_key,
                an_invalid_request_writes_nothing,
                every_script_survives_in_every_text,
                texts_that_differ_only_by_case_or_composition_are_different,
                values_at_their_limits_are_kept,
                json_survives_as_it_is,
                a_result_of_null_is_not_the_absence_of_a_result,
                concurrent_creates_of_one_idempotency_key_make_one_run,
                concurrent_creates_of_one_id_make_one_run,
                concurrent_creates_of_one_unique_key_make_one_run,
                concurrent_creates_of_different_requests_make_them_all,
            }
            claim {
                a_claim_gives_the_run_to_its_owner,
                the_highest_priority_goes_first_then_the_oldest,
                runs_of_one_instant_go_in_the_order_of_their_ids needs MovableClock,
                a_batch_takes_the_first_in_order,
                a_claim_takes_at_most_its_limit,
                a_run_that_is_not_due_is_not_claimed,
                a_run_that_somebody_cancelled_is_not_claimed,
                a_run_that_runs_or_has_ended_is_not_claimed,
                an_expired_run_is_not_claimed_before_it_is_rescued,
                a_claim_of_one_run_takes_no_other,
                a_claim_of_an_unknown_run_takes_nothing,
                a_claim_of_workflows_takes_only_theirs,
                a_claim_of_no_workflows_takes_nothing,
                without_a_site_only_runs_without_a_worktree_are_claimed,
                a_run_starts_once,
                a_token_only_grows,
                concurrent_claimers_never_share_a_run,
                concurrent_claims_of_one_run_have_one_winner,
                a_claim_says_who_and_where_in_the_history,
            }
            renew {
                answers_come_in_the_order_of_the_question,
                a_lease_that_is_asked_about_twice_is_answered_twice,
                many_leases_are_renewed_at_once,
                a_renewal_of_nothing_answers_nothing,
                a_renewal_prolongs_the_lease,
                an_expired_lease_is_lost_though_nobody_took_the_run_up,
                a_renewal_tells_who_wants_the_run_to_stop,
                an_old_owner_cannot_renew_the_lease_of_the_new_one,
                a_token_from_the_future_is_lost,
                the_lease_of_an_ended_run_is_lost,
                a_renewal_leaves_no_event_and_a_lost_one_leaves_one,
                a_renewal_may_shorten_the_lease,
            }
            end {
                a_completion_keeps_the_result_and_frees_the_owner,
                a_failure_keeps_the_error,
                an_owner_may_report_that_it_was_stopped,
                repeating_an_ending_is_answered_by_already,
                a_completion_repeated_after_its_lease_is_answered_by_already,
                another_ending_of_an_ended_run_is_stale,
                an_old_owner_cannot_end_the_run_of_the_new_one,
                a_completion_after_the_lease_expired_is_rejected,
                a_failure_after_the_lease_expired_is_accepted,
                a_failure_with_attempts_left_waits_before_the_next,
                the_last_attempt_fails_for_good,
                a_failure_that_no_attempt_would_mend_is_final,
                a_failure_while_a_cancel_waits_is_a_kill,
                a_completion_wins_over_a_waiting_cancel,
                an_ended_run_never_changes,
                a_run_that_was_not_claimed_has_no_ending,
                an_ending_of_an_unknown_run_is_not_found,
                a_result_beyond_the_limits_writes_nothing,
                concurrent_endings_have_one_winner,
                an_ending_and_a_forced_kill_have_one_winner,
            }
            release {
                a_release_does_not_count_the_attempt,
                a_release_while_a_cancel_waits_is_a_kill,
                a_release_under_an_expired_lease_is_accepted,
                a_release_is_not_repeated_on_the_next_owner,
                a_release_keeps_the_worktree_with_the_run,
            }
            cancel {
                a_waiting_run_ends_at_once,
                a_scheduled_run_ends_at_once,
                a_run_that_waits_for_a_retry_ends_at_once,
                a_running_run_is_asked_not_ended,
                asking_again_changes_nothing,
                graceful_becomes_forced_and_never_back,
                a_forced_cancel_may_say_anew_why_and_until_when,
                an_ended_run_is_left_as_it_is,
                an_unknown_run_is_not_found,
                a_forced_kill_fences_the_owner,
                a_forced_kill_of_a_waiting_run_is_a_cancel_before_start,
                a_forced_kill_keeps_the_first_wish,
                a_forced_kill_without_a_wish_records_its_own,
                a_forced_kill_works_when_the_lease_has_expired,
                a_cancel_and_a_claim_of_a_waiting_run_agree,
            }
            rescue {
                an_expired_run_with_attempts_left_waits_again,
                an_expired_run_that_is_to_be_spared_is_left_alone,
                an_expired_run_without_attempts_left_is_lost,
                an_expired_run_that_somebody_cancelled_is_killed,
                a_lease_that_has_not_expired_is_left_alone,
                waiting_and_ended_runs_are_left_alone,
                a_proven_death_needs_no_waiting,
                a_proof_about_an_earlier_owner_is_worth_nothing,
                the_oldest_expiry_goes_first_up_to_the_limit,
                proven_deaths_do_not_use_up_the_limit,
                a_run_that_is_both_dead_and_expired_is_rescued_once,
                concurrent_rescuers_rescue_each_run_once,
                a_rescue_and_a_completion_agree,
                leases_are_those_of_running_runs,
                leases_of_a_machine_are_only_its_own,
                a_child_is_shown_with_its_lease,
                a_child_may_be_recorded_after_the_lease_expired,
            }
            worktree {
                a_claim_plans_the_worktree,
                a_worktree_becomes_ready_once,
                a_run_without_a_worktree_has_none_to_report,
                the_next_attempt_on_the_site_gets_the_worktree,
                a_worktree_that_is_half_made_is_handed_on_as_it_is,
                another_site_gets_a_worktree_of_its_own,
                a_checkout_is_reported_for_the_worktree_of_the_claim,
                a_site_shows_its_own_worktrees_and_no_others,
                paths_of_every_script_survive,
            }
            cleanup {
                a_completion_wants_a_cleanup,
                a_failure_wants_a_cleanup,
                a_kill_wants_a_cleanup,
                a_forced_kill_wants_a_cleanup,
                a_release_while_a_cancel_waits_wants_a_cleanup,
                a_rescue_that_ends_the_run_wants_a_cleanup,
                a_cancel_between_two_attempts_wants_a_cleanup,
                a_worktree_that_is_half_made_is_cleaned_up_too,
                a_run_that_goes_on_keeps_its_worktree,
                a_persistent_worktree_is_kept,
                each_site_cleans_up_its_own_worktree,
                a_claim_may_name_one_run_and_has_a_limit,
                a_cleanup_has_one_owner_until_its_lease_expires,
                a_late_cleanup_counts_while_nobody_took_it_over,
                a_removed_worktree_is_gone_from_its_site_and_kept_in_the_record,
                a_worktree_that_must_stay_says_why,
                a_cleanup_that_did_not_work_waits_before_the_next_try,
                a_finished_cleanup_is_answered_by_already,
                an_unknown_cleanup_is_not_found_or_stale,
                a_worktree_of_a_live_run_cannot_be_finished,
                concurrent_cleaners_never_share_a_worktree,
            }
            cleanup_lease {
                a_cleanup_that_somebody_holds_is_shown_with_its_holder,
                cleanups_of_another_place_are_not_shown,
                a_proven_death_needs_no_waiting,
                a_proof_about_an_earlier_holder_is_worth_nothing,
                a_proof_about_nobody_changes_nothing,
            }
            list {
                an_empty_store_lists_nothing,
                the_youngest_come_first_unless_asked_otherwise,
                a_summary_is_the_summary_of_the_run,
                each_condition_shows_what_it_names,
                a_range_begins_with_its_start_and_stops_before_its_end,
                a_run_that_has_not_begun_or_ended_is_in_no_such_range,
                pages_show_every_run_once,
                pages_show_every_run_of_one_instant_once needs MovableClock,
                the_last_page_says_so_also_when_it_is_full,
                what_happens_between_pages_hides_nothing_and_repeats_nothing,
                a_cursor_survives_as_text,
                a_cursor_of_another_order_is_refused,
                a_cursor_needs_no_run_behind_it,
                a_condition_without_values_is_refused,
            }
            find {
                a_run_is_found_by_the_ending_of_its_id,
                what_a_person_types_in_upper_case_is_found,
                an_ended_run_is_found_as_it_is_now,
                an_ending_that_no_run_has_finds_nothing,
                an_ending_of_several_runs_is_ambiguous,
                an_ambiguous_ending_names_at_most_ten_candidates,
            }
            events {
                the_story_of_a_run_is_told_in_order,
                numbers_have_no_gaps_when_writes_race,
                pages_follow_the_numbers,
                a_rejected_write_says_what_was_tried_under_which_token,
                answers_that_change_nothing_leave_no_event,
                an_unknown_run_has_no_history,
                events_carry_the_token_of_their_time,
            }
            namespace {
                reads_see_only_their_own,
                owners_touch_only_their_own,
                expired_runs_are_rescued_only_at_home,
                keys_and_ids_are_free_in_another_namespace,
            }
            time {
                instants_keep_their_microseconds,
                a_run_that_was_due_long_ago_is_claimed_and_one_due_at_the_end_of_time_is_not,
                what_waits_again_is_due_at_once needs MovableClock,
                a_cleanup_ends_when_its_lease_does needs MovableClock,
                a_delay_beyond_the_end_of_time_ends_there,
                the_order_of_a_life_is_the_order_of_its_instants,
                everything_is_stamped_with_the_clock_that_was_passed needs MovableClock,
                a_lease_ends_at_its_instant_and_not_before needs MovableClock,
                a_clock_that_steps_back_does_not_turn_a_run_back needs MovableClock,
                a_clock_that_steps_back_does_not_end_a_run_before_it_was_made needs MovableClock,
                a_clock_that_steps_back_does_not_lose_a_waiting_run needs MovableClock,
            }
            store {
                it_says_of_itself_what_the_backend_declared,
                handles_see_what_others_wrote,
                what_was_acknowledged_outlives_the_handles needs Outliving,
                a_call_that_is_dropped_writes_all_or_nothing,
                an_unknown_status_is_read_and_listed_word_for_word needs ForeignWords,
                a_waiting_run_of_an_unknown_status_is_left_alone needs ForeignWords,
                a_running_run_of_an_unknown_status_is_left_alone needs ForeignWords,
            }
        }
    };
}

__each_case! { [__table] {} }
