"""The suite's own proof: its checks go red on a storage that breaks what they check, and are green otherwise."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from orgstead.errors import OrgsteadError
from orgstead.storage.port import Storage
from orgstead.storage.tables import audit_entries, memberships, operations, organizations, users
from tests.contract import broken_spaces as spaces
from tests.contract import broken_units as units
from tests.contract import broken_values as values
from tests.contract import (
    test_access,
    test_concurrency,
    test_digests,
    test_pages,
    test_scope,
    test_several_tables,
    test_spaces,
    test_spaces_renamed,
    test_units,
    test_values,
    test_verbs,
)
from tests.contract.broken_units import Sound
from tests.contract.work import DEDICATED, POOLED

Check = Callable[..., Awaitable[None]]

IN_MEMBERSHIPS = {"table": memberships, "kind": POOLED}
EMAIL = {"table": users, "name": "users.email"}

CASES: list[tuple[type[Sound], Check, dict[str, Any]]] = [
    # promises 1, 2, 3
    (units.RollbackDoesNothing, test_units.test_p01_work_that_raises_leaves_nothing, {}),
    (units.RollbackDoesNothing, test_units.test_p01_neighbours_in_time_do_not_share_a_fate, {}),
    (units.RollbackDoesNothing, test_access.test_access_sees_the_latest_commit, {}),
    (units.NoTransactions, test_units.test_p01_work_that_raises_leaves_nothing, {}),
    (units.NoTransactions, test_units.test_p01_a_cancelled_caller_leaves_all_or_nothing, {}),
    (units.NoTransactions, test_units.test_p02_only_what_goes_through_the_transaction_counts_once, {}),
    (units.NoTransactions, test_units.test_p03_a_caught_error_still_ends_the_transaction, {}),
    (units.NoTransactions, test_units.test_p03_later_calls_raise_transaction_ended, {"verb": "page"}),
    (units.NoTransactions, test_units.test_p03_reading_verbs_that_fail_end_the_transaction_too, {}),
    (units.NoTransactions, test_units.test_p03_a_transaction_kept_beyond_its_unit_is_of_no_use, {}),
    (units.NoTransactions, test_units.test_p01_reading_units_see_one_snapshot, {"how": "read"}),
    (units.NoTransactions, test_units.test_p01_reading_units_see_one_snapshot, {"how": "scan"}),
    (units.NoTransactions, test_concurrency.test_race_of_owners_who_leave_keeps_the_last, {}),
    (units.NoTransactions, test_concurrency.test_race_of_units_on_one_row_adds_up, {}),
    (units.NoTransactions, test_concurrency.test_race_for_a_unique_value_has_one_winner, {}),
    (units.ReadsMayWrite, test_units.test_p01_reading_units_write_nothing, {"how": "read", "verb": "add"}),
    (units.ReadsMayWrite, test_units.test_p01_reading_units_write_nothing, {"how": "scan", "verb": "lock"}),
    # promise 4
    (units.NoScope, test_scope.test_p04_get_of_another_organization, IN_MEMBERSHIPS),
    (units.NoScope, test_scope.test_p04_find_of_another_organization, IN_MEMBERSHIPS),
    (units.NoScope, test_scope.test_p04_find_many_of_another_organization, IN_MEMBERSHIPS),
    (units.NoScope, test_scope.test_p04_lock_of_another_organization, IN_MEMBERSHIPS),
    (units.NoScope, test_scope.test_p04_replace_of_another_organization, IN_MEMBERSHIPS),
    (units.NoScope, test_scope.test_p04_remove_of_another_organization, IN_MEMBERSHIPS),
    (units.NoScope, test_scope.test_p04_take_of_another_organization, IN_MEMBERSHIPS),
    (units.NoScope, test_scope.test_p04_adjust_of_another_organization, IN_MEMBERSHIPS),
    (units.NoScope, test_scope.test_p04_page_of_another_organization, IN_MEMBERSHIPS),
    (units.NoScope, test_scope.test_p04_page_after_a_row_of_another_organization, IN_MEMBERSHIPS),
    (units.NoScope, test_scope.test_p04_aggregate_of_another_organization, IN_MEMBERSHIPS),
    (units.NoScope, test_scope.test_p04_add_for_another_organization, IN_MEMBERSHIPS),
    (units.NoScope, test_scope.test_p04_add_all_of_another_organization, IN_MEMBERSHIPS),
    (units.NoScope, test_scope.test_p04_digest_of_another_organization, IN_MEMBERSHIPS),
    (units.NoScope, test_scope.test_p04_claim_of_another_organization, {"table": operations}),
    (units.NoScope, test_scope.test_p04_tables_that_a_scope_does_not_open, {"what": "organization", "verb": "page"}),
    (units.NoScope, test_scope.test_p04_the_scope_of_one_unit_does_not_reach_the_next, {}),
    (units.SharedSpaces, test_scope.test_p04_two_spaces_never_share_a_row, {"kind": DEDICATED}),
    (units.SharedSpaces, test_scope.test_p04_the_two_spaces_of_one_organization_are_apart, {}),
    # promise 5
    (values.TrimsText, test_values.test_p05_text, {"text": test_values.TEXTS["trailing spaces"]}),
    (values.TrimsText, test_values.test_p05_keys_that_look_alike_are_two, {"one": "x", "other": "x "}),
    (values.FoldsCase, test_values.test_p05_text_in_a_key, {"text": test_values.TEXTS["dotted capital i"]}),
    (values.FoldsCase, test_values.test_p05_keys_that_look_alike_are_two, {"one": "a", "other": "A"}),
    (values.CutsMilliseconds, test_values.test_p05_times, {"moment": test_values.TIMES["a millisecond"]}),
    (
        values.CutsMilliseconds,
        test_values.test_p05_values_that_are_refused,
        {"values": test_values.BAD_VALUES["microseconds"]},
    ),
    (values.ThroughDoubles, test_values.test_p05_integers, {"number": 2**53 + 1}),
    (values.ThroughDoubles, test_values.test_p05_integers, {"number": -(2**53) - 1}),
    (values.DropsNul, test_values.test_p05_text_that_is_refused, {"text": test_values.BAD_TEXTS["NUL"]}),
    (values.UnsortedText, test_values.sorted_by_code_point, {"texts": ["B", "a"]}),
    # promise 6 and the verbs
    (values.NoUnique, test_verbs.test_p06_a_second_row_of_one_unique_value, EMAIL),
    (values.NoUnique, test_concurrency.test_race_for_a_unique_value_has_one_winner, {}),
    (values.NoKey, test_verbs.test_p06_a_second_row_of_one_key, {"table": audit_entries, "kind": POOLED}),
    (values.NoKey, test_concurrency.test_race_for_a_slug_has_one_winner, {}),
    (values.EnginesNameOfTheConstraint, test_verbs.test_p06_a_second_row_of_one_key, IN_MEMBERSHIPS),
    (values.EnginesNameOfTheConstraint, test_verbs.test_p06_a_second_row_of_one_unique_value, EMAIL),
    (
        values.NoneIsAValue,
        test_verbs.test_p06_none_is_exempt_from_unique,
        {"table": organizations, "columns": ("external_id",)},
    ),
    (units.LastWriterWins, test_verbs.test_replace_is_a_compare_and_swap, {}),
    (units.LastWriterWins, test_concurrency.test_race_of_replaces_loses_no_update, {}),
    (units.TakeLooksThenRemoves, test_concurrency.test_race_to_take_has_one_winner, {}),
    (units.ClaimForgetsLeases, test_verbs.test_claim_leases_what_is_due, {}),
    (units.ClaimForgetsLeases, test_concurrency.test_race_to_claim_gives_each_row_to_one, {}),
    (units.AdjustWithoutConditions, test_verbs.test_adjust_is_one_conditional_write, {}),
    (units.AdjustWithoutConditions, test_concurrency.test_race_for_a_quota_never_exceeds_it, {"kind": POOLED}),
    (units.AdjustLooksThenWrites, test_concurrency.test_race_for_a_quota_never_exceeds_it, {"kind": DEDICATED}),
    # promise 7
    (values.PagesRepeatTheirMark, test_pages.test_p07_every_order_is_total, {"order": ()}),
    (values.PagesRepeatTheirMark, test_pages.test_p07_a_mark_need_not_be_there, {}),
    (values.PagesForgetDescending, test_pages.test_p07_every_order_is_total, {"order": ("-error",)}),
    (values.PagesForgetDescending, test_pages.test_p07_none_comes_first, {"order": ("-purge_at",)}),
    (
        values.PagesByOffset,
        test_pages.test_p07_nothing_is_skipped_or_repeated_while_others_write,
        {"order": ("created_at",)},
    ),
    (values.PagesIncludeTheirEnd, test_pages.test_p07_a_list_ends_where_it_is_told, {"order": ("created_at",)}),
    (values.PagesIncludeTheirEnd, test_pages.test_p07_a_list_ends_where_it_is_told, {"order": ("-error",)}),
    (
        values.PagesOfAnyWeight,
        test_pages.test_p07_a_list_of_large_rows_ends_by_their_weight,
        {"kind": POOLED, "order": ()},
    ),
    (values.PagesOfAnyWeight, test_pages.test_p07_rows_by_their_keys_are_bounded_by_weight, {"kind": POOLED}),
    (values.AddsToTheFirstTable, test_several_tables.test_rows_of_several_tables_are_added, {"what": "pooled"}),
    (values.BlamesTheFirstTable, test_several_tables.test_rows_of_several_tables_are_added_or_none, IN_MEMBERSHIPS),
    (units.NoTransactions, test_several_tables.test_rows_of_several_tables_in_a_unit_that_fails, {}),
    (values.RemovesWhatIsThere, test_verbs.test_many_rows_are_removed_or_none, IN_MEMBERSHIPS),
    (values.RemovesWhatIsThere, test_scope.test_p04_remove_many_of_another_organization, IN_MEMBERSHIPS),
    # promise 9
    (spaces.ClosesOneSlot, test_spaces.test_p09_close_keeps_every_writer_out, {"kind": POOLED}),
    (spaces.ClosesOneSlot, test_concurrency.test_race_of_writers_with_a_closing_space, {"kind": DEDICATED}),
    (spaces.FenceLetsStaleWritersIn, test_spaces.test_p09_close_keeps_every_writer_out, {"kind": DEDICATED}),
    (
        spaces.FenceLetsStaleWritersIn,
        test_spaces_renamed.test_p09_a_stale_writer_never_makes_a_dropped_space_again,
        {"kind": POOLED},
    ),
    (spaces.OpensWithEmptyCounters, test_spaces.test_p09_open_again, {"kind": POOLED}),
    (spaces.OpensWithEmptyCounters, test_spaces.test_p09_open_under_the_next_epoch, {"kind": DEDICATED}),
    (spaces.CreateStartsAgain, test_spaces.test_p09_create_repeated, {"kind": POOLED}),
    (spaces.CreateStartsAgain, test_spaces.test_p09_create_leaves_a_closed_space_closed, {"kind": DEDICATED}),
    (spaces.RenameTrustsItsCaller, test_spaces_renamed.test_p09_rename_where_both_are_there, {}),
    (spaces.RenameTrustsItsCaller, test_spaces_renamed.test_p09_rename_where_neither_is_there, {}),
    (spaces.RenameKeepsTheOldName, test_spaces_renamed.test_p09_rename_moves_everything, {}),
    (spaces.RenameKeepsTheOldName, test_spaces_renamed.test_p09_a_stale_writer_never_makes_the_old_name_again, {}),
    (spaces.DropsNothing, test_spaces_renamed.test_p09_drop_removes_and_counts_everything, {"kind": POOLED}),
    (spaces.DropsNothing, test_spaces_renamed.test_p09_a_dropped_space_can_be_made_again, {"kind": DEDICATED}),
    (spaces.ListsAPageTwice, test_spaces.test_p09_spaces_lists_what_is_there, {"limit": 2}),
    # promise 10, access
    (spaces.DigestCountsOnly, test_digests.test_p10_one_value_makes_another_digest, {"difference": {"bytes": 8}}),
    (spaces.DigestCountsOnly, test_digests.test_p10_values_do_not_slide_between_rows, {}),
    (spaces.DigestKnowsThePlacement, test_digests.test_p10_equal_rows_in_both_kinds_of_space, {}),
    (spaces.CachedAccess, test_access.test_access_sees_the_latest_commit, {}),
    (spaces.CachedAccess, test_access.test_access_without_one_part, {"part": "session"}),
    (spaces.MixedUpAccess, test_access.test_access_of_many_at_once, {}),
    (spaces.SharedAccess, test_access.test_access_of_many_at_once_while_some_leave, {}),
    (spaces.JoinedAccess, test_access.test_access_sees_what_was_committed_before_it_was_asked, {}),
    (spaces.AccessInParts, test_access.test_access_is_one_snapshot, {}),
]


TRIES = 5
"""How often a mutant may be lucky: a race that it has opened is not lost each time."""


def _named(case: tuple[type[Sound], Check, dict[str, Any]]) -> str:
    return f"{case[0].__name__}-{case[1].__name__.removeprefix('test_')}"


@pytest.mark.parametrize(("mutant", "check", "arguments"), CASES, ids=map(_named, CASES))
async def test_a_broken_promise_is_noticed(
    storage: Storage, mutant: type[Sound], check: Check, arguments: dict[str, Any]
) -> None:
    """The check passes on the sound storage behind the same wrapper, and fails on the mutant."""
    await check(storage=Sound(storage), **arguments)
    for _ in range(TRIES):
        try:
            await check(storage=mutant(storage), **arguments)
        except (AssertionError, OrgsteadError, ExceptionGroup, pytest.fail.Exception):
            return
    pytest.fail(f"{check.__name__} did not notice {mutant.__name__}")


def _mutants(module: ModuleType) -> Iterator[type[Sound]]:
    for thing in vars(module).values():
        if inspect.isclass(thing) and issubclass(thing, Sound) and thing is not Sound:
            yield thing


def test_every_mutant_is_tried() -> None:
    """A mutant that no check is held against proves nothing."""
    assert {mutant for module in (spaces, units, values) for mutant in _mutants(module)} == {case[0] for case in CASES}
