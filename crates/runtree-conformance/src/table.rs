//! The one table of cases: the suite, its report and the tests that `tests!` makes all come from it.

use crate::cases;
use crate::suite::{Case, Need};

/// Makes one `#[test]` of each case, in a module for each group.
///
/// Takes an expression that makes the [`Backend`](crate::Backend). Beside it, [`check`](crate::check) in one test gives the report
/// of the whole table.
///
/// ```ignore
/// runtree_conformance::tests!(MyBackend);
/// ```
#[macro_export]
macro_rules! tests {
    ($backend:expr) => {
        // Here, where the expression stands, and not in the modules of the groups: it means what it says here.
        fn __backend() -> impl $crate::Backend {
            $backend
        }
        $crate::__each_case! { [$crate::__tests] {} }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __tests {
    ({} $($group:ident { $($case:ident $(needs $need:ident)?,)* })*) => {$(
        mod $group {
            $(
                #[test]
                fn $case() {
                    $crate::__assert_case(
                        concat!(stringify!($group), "::", stringify!($case)),
                        super::__backend(),
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
                a_number_of_metadata_comes_back_as_it_was,
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
            create_many {
                answers_come_in_the_order_of_the_question,
                nothing_asked_is_nothing_made,
                repeating_a_call_finds_its_runs,
                a_conflict_is_the_answer_to_its_request_alone,
                requests_of_one_call_are_decided_one_after_the_other,
                one_invalid_request_refuses_the_whole_call,
                more_than_the_limit_is_refused_with_nothing_made,
                more_bytes_than_the_limit_are_refused_with_nothing_made,
                a_run_made_among_many_is_like_one_made_alone,
                concurrent_calls_make_each_run_once,
            }
            retry {
                an_ended_run_is_tried_again_whatever_its_end,
                a_run_that_has_not_ended_is_not_tried_again,
                an_unknown_run_is_not_tried_again,
                repeating_a_retry_finds_its_run,
                what_was_asked_for_is_taken_over_and_what_came_of_it_is_not,
                the_idempotency_key_stays_with_the_first_run,
                a_unique_key_in_other_hands_is_a_conflict,
                an_id_of_another_run_is_a_conflict,
                a_retry_may_wait_and_have_a_deadline_and_a_worktree,
                a_retry_is_tried_again_like_any_run,
                concurrent_retries_of_one_id_make_one_run,
                a_word_of_a_newer_version_is_not_tried_again needs ForeignWords,
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
            queue {
                a_claim_of_queues_takes_only_theirs,
                a_claim_of_queues_and_workflows_takes_what_is_of_both,
                across_queues_the_highest_priority_goes_first_then_the_oldest,
                a_run_that_names_no_queue_waits_in_the_default_one,
                a_claim_may_name_as_many_as_a_condition_may,
                a_claim_of_one_run_asks_for_no_queue,
                a_run_that_waits_again_waits_in_its_queue,
                concurrent_claimers_of_overlapping_queues_share_nothing,
            }
            concurrency {
                a_batch_takes_no_more_than_may_run,
                every_end_of_an_attempt_frees_its_place,
                an_expired_holder_frees_its_place_before_it_is_rescued,
                a_renewed_holder_keeps_its_place,
                each_run_is_measured_by_its_own_limit,
                other_keys_and_runs_without_one_are_not_held_up,
                runs_that_must_wait_do_not_hold_up_those_behind_them,
                a_claim_of_one_run_keeps_to_the_limit,
                a_limit_holds_across_queues_and_workflows_not_across_namespaces,
                a_limit_beyond_any_count_never_holds_up,
                concurrent_claimers_never_exceed_a_limit,
                a_place_that_is_freed_while_others_ask_is_given_once,
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
            end_many {
                answers_come_in_the_order_of_the_question,
                nothing_asked_is_nothing_answered,
                of_two_endings_of_one_run_the_first_decides,
                many_endings_are_like_single_ones,
                an_ending_after_the_lease_expired_is_judged_for_itself,
                an_invalid_result_refuses_the_whole_call,
                more_than_the_limit_is_refused_with_nothing_written,
                more_bytes_than_the_limit_are_refused_with_nothing_written,
                many_different_runs_end_in_one_call,
                concurrent_calls_have_one_winner_for_each_run,
            }
            release {
                a_release_does_not_count_the_attempt,
                a_release_while_a_cancel_waits_is_a_kill,
                a_release_under_an_expired_lease_is_accepted,
                a_release_is_not_repeated_on_the_next_owner,
                a_release_keeps_the_worktree_with_the_run,
            }
            annotate {
                each_field_is_set_kept_and_cleared_alone,
                everything_at_once_is_kept_whole,
                a_run_is_annotated_while_it_waits_while_it_runs_and_after_its_end,
                an_unknown_run_and_another_namespaces_run_are_not_found,
                metadata_is_merged_member_by_member,
                tags_are_added_and_removed,
                usage_is_set_or_added_to_and_stays_at_its_limit,
                counts_of_files_are_kept_in_their_order,
                values_at_their_limits_are_kept,
                what_is_beyond_the_limits_is_refused_and_changes_nothing,
                concurrent_additions_lose_nothing,
                an_annotation_and_an_ending_do_not_undo_each_other,
                a_word_of_a_newer_version_is_not_annotated needs ForeignWords,
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
            deadline {
                a_waiting_run_that_is_late_fails_at_once,
                a_run_that_is_not_late_is_left_alone,
                a_running_run_that_is_late_is_asked_first,
                a_run_that_does_not_stop_in_time_is_ended_and_fenced,
                a_grace_of_nothing_ends_with_the_second_look,
                a_grace_beyond_the_end_of_time_ends_there,
                an_owner_that_obeys_leaves_a_run_that_timed_out,
                a_release_or_a_rescue_of_a_late_run_times_it_out,
                a_completion_wins_over_a_deadline,
                a_wish_that_came_before_the_deadline_keeps_its_word,
                a_wish_that_comes_after_the_deadline_does_not_change_its_cause,
                the_earliest_deadline_goes_first_up_to_the_limit,
                an_ending_by_deadline_wants_a_cleanup,
                concurrent_looks_change_each_run_once,
                another_namespaces_runs_are_left_alone,
                a_word_of_a_newer_version_is_left_alone needs ForeignWords,
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
                a_root_without_room_for_a_name_is_refused_with_nothing_claimed,
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
            filter {
                generated_filters_show_what_their_meaning_says,
                a_filter_holds_in_every_order_and_on_every_page,
                queues_end_reasons_and_branches_are_what_they_are,
                an_owner_is_found_by_what_it_runs_now,
                all_tags_of_a_filter_must_be_there,
                members_of_metadata_are_found_by_name_and_by_value,
                a_number_is_not_its_other_spelling,
                names_of_members_are_no_paths_and_no_patterns,
                a_condition_names_at_most_so_many_values,
                a_count_is_of_the_whole_list,
            }
            order {
                each_order_pages_through_the_whole_list,
                pages_of_one_cut_between_equal_and_missing_values,
                a_run_without_the_value_comes_before_all_that_have_one,
                each_instant_and_time_has_its_place needs MovableClock,
                texts_are_ordered_by_their_bytes,
                the_largest_numbers_have_their_place,
                a_cursor_of_any_other_order_is_refused,
                a_page_begins_where_a_deleted_run_was,
                pages_stay_exact_while_runs_are_created,
                a_place_beyond_every_run_is_a_place,
            }
            statistics {
                of_nothing_everything_is_nothing,
                they_are_what_a_naive_computation_says,
                they_are_of_all_runs_and_not_of_a_page,
                percentiles_are_values_that_were_there needs MovableClock,
                who_waits_again_counts_as_nobody_who_waited,
                sums_beyond_every_integer_stay_at_the_limit,
                the_workflows_with_the_most_runs_are_counted,
                a_word_of_a_newer_version_is_counted_under_itself needs ForeignWords,
            }
            find {
                a_run_is_found_by_the_ending_of_its_id,
                what_a_person_types_in_upper_case_is_found,
                an_ended_run_is_found_as_it_is_now,
                an_ending_that_no_run_has_finds_nothing,
                an_ending_of_several_runs_is_ambiguous,
                an_ambiguous_ending_names_at_most_ten_candidates,
                a_run_is_found_by_its_idempotency_key_whole,
                a_key_that_no_run_has_finds_nothing,
                a_key_of_another_namespace_is_not_found,
            }
            explain {
                an_unknown_run_has_no_explanation,
                it_shows_the_run_and_the_instant_of_the_look,
                a_run_that_can_be_claimed_says_how_many_go_first,
                a_run_that_is_not_due_says_when_it_is,
                a_run_whose_key_is_used_up_says_by_whom,
                a_limit_of_more_than_are_named_is_still_a_limit,
                a_run_that_runs_says_who_works_on_it,
                a_run_whose_lease_expired_says_since_when,
                an_ended_run_says_when_and_why,
                a_run_that_is_to_stop_says_so_before_who_works_on_it,
                a_run_that_is_late_says_since_when,
                all_that_holds_a_waiting_run_is_named,
                a_word_of_a_newer_version_is_named needs ForeignWords,
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
            retention {
                what_ended_before_the_instant_goes_and_nothing_else,
                whatever_way_a_run_ended_it_goes,
                the_first_ended_go_first_up_to_the_limit,
                a_run_whose_worktree_is_still_there_stays,
                runs_that_must_stay_take_no_place_of_the_limit,
                nothing_of_a_deleted_run_is_left,
                a_retry_outlives_the_run_that_it_tries_again,
                another_namespaces_runs_stay,
                concurrent_deletions_take_each_run_once,
                a_word_of_a_newer_version_is_not_deleted needs ForeignWords,
            }
            watch {
                whoever_has_seen_nothing_is_answered_at_once,
                a_change_before_the_wait_is_told_at_once,
                a_write_of_another_handle_wakes_whoever_waits,
                the_runs_of_a_filter_are_watched_through_another_handle,
                all_who_wait_are_told,
                every_kind_of_change_is_told,
                a_wait_without_a_change_comes_to_an_end,
                a_mark_never_goes_back,
                a_wait_that_is_dropped_leaves_the_others_alone,
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
                deadlines_keep_their_microseconds,
                a_deadline_passes_at_its_instant_and_not_before needs MovableClock,
                a_place_is_free_at_the_instant_that_its_lease_ends needs MovableClock,
                a_clock_that_steps_back_does_not_turn_what_is_learnt_back needs MovableClock,
            }
            store {
                it_says_of_itself_what_the_backend_declared,
                handles_see_what_others_wrote,
                what_was_acknowledged_outlives_the_handles needs Outliving,
                a_call_that_is_dropped_writes_all_or_nothing,
                a_call_of_many_that_is_dropped_writes_all_or_nothing,
                an_annotation_that_is_dropped_is_written_whole_or_not_at_all,
                a_deletion_that_is_dropped_takes_runs_whole_or_not_at_all,
                an_unknown_status_is_read_and_listed_word_for_word needs ForeignWords,
                a_waiting_run_of_an_unknown_status_is_left_alone needs ForeignWords,
                a_running_run_of_an_unknown_status_is_left_alone needs ForeignWords,
            }
        }
    };
}

__each_case! { [__table] {} }
