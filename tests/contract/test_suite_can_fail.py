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
from tests.contract import mutants as m
from tests.contract import (
    test_access,
    test_concurrency,
    test_digests,
    test_pages,
    test_scope,
    test_spaces,
    test_units,
    test_values,
    test_verbs,
)
from tests.contract.work import DEDICATED, POOLED

Check = Callable[..., Awaitable[None]]

IN_MEMBERSHIPS = {"table": memberships, "kind": POOLED}
EMAIL = {"table": users, "name": "users.email"}

CASES: list[tuple[type[m.Sound], Check, dict[str, Any]]] = [
    # promises 1, 2, 3
    (m.RollbackDoesNothing, test_units.test_p01_work_that_raises_leaves_nothing, {}),
    (m.RollbackDoesNothing, test_units.test_p01_neighbours_in_time_do_not_share_a_fate, {}),
    (m.RollbackDoesNothing, test_access.test_access_sees_the_latest_commit, {}),
    (m.NoTransactions, test_units.test_p01_work_that_raises_leaves_nothing, {}),
    (m.NoTransactions, test_units.test_p01_a_cancelled_caller_leaves_all_or_nothing, {}),
    (m.NoTransactions, test_units.test_p02_only_what_goes_through_the_transaction_counts_once, {}),
    (m.NoTransactions, test_units.test_p03_a_caught_error_still_ends_the_transaction, {}),
    (m.NoTransactions, test_units.test_p03_later_calls_raise_transaction_ended, {"verb": "page"}),
    (m.NoTransactions, test_units.test_p03_reading_verbs_that_fail_end_the_transaction_too, {}),
    (m.NoTransactions, test_units.test_p03_a_transaction_kept_beyond_its_unit_is_of_no_use, {}),
    (m.NoTransactions, test_units.test_p01_reading_units_see_one_snapshot, {"how": "read"}),
    (m.NoTransactions, test_units.test_p01_reading_units_see_one_snapshot, {"how": "scan"}),
    (m.NoTransactions, test_concurrency.test_race_of_owners_who_leave_keeps_the_last, {}),
    (m.NoTransactions, test_concurrency.test_race_of_units_on_one_row_adds_up, {}),
    (m.NoTransactions, test_concurrency.test_race_for_a_unique_value_has_one_winner, {}),
    (m.ReadsMayWrite, test_units.test_p01_reading_units_write_nothing, {"how": "read", "verb": "add"}),
    (m.ReadsMayWrite, test_units.test_p01_reading_units_write_nothing, {"how": "scan", "verb": "lock"}),
    # promise 4
    (m.NoScope, test_scope.test_p04_get_of_another_organization, IN_MEMBERSHIPS),
    (m.NoScope, test_scope.test_p04_find_of_another_organization, IN_MEMBERSHIPS),
    (m.NoScope, test_scope.test_p04_find_many_of_another_organization, IN_MEMBERSHIPS),
    (m.NoScope, test_scope.test_p04_lock_of_another_organization, IN_MEMBERSHIPS),
    (m.NoScope, test_scope.test_p04_replace_of_another_organization, IN_MEMBERSHIPS),
    (m.NoScope, test_scope.test_p04_remove_of_another_organization, IN_MEMBERSHIPS),
    (m.NoScope, test_scope.test_p04_take_of_another_organization, IN_MEMBERSHIPS),
    (m.NoScope, test_scope.test_p04_adjust_of_another_organization, IN_MEMBERSHIPS),
    (m.NoScope, test_scope.test_p04_page_of_another_organization, IN_MEMBERSHIPS),
    (m.NoScope, test_scope.test_p04_page_after_a_row_of_another_organization, IN_MEMBERSHIPS),
    (m.NoScope, test_scope.test_p04_aggregate_of_another_organization, IN_MEMBERSHIPS),
    (m.NoScope, test_scope.test_p04_add_for_another_organization, IN_MEMBERSHIPS),
    (m.NoScope, test_scope.test_p04_digest_of_another_organization, IN_MEMBERSHIPS),
    (m.NoScope, test_scope.test_p04_claim_of_another_organization, {"table": operations}),
    (m.NoScope, test_scope.test_p04_tables_that_a_scope_does_not_open, {"what": "organization", "verb": "page"}),
    (m.NoScope, test_scope.test_p04_the_scope_of_one_unit_does_not_reach_the_next, {}),
    (m.SharedSpaces, test_scope.test_p04_two_spaces_never_share_a_row, {"kind": DEDICATED}),
    (m.SharedSpaces, test_scope.test_p04_the_two_spaces_of_one_organization_are_apart, {}),
    # promise 5
    (m.TrimsText, test_values.test_p05_text, {"text": test_values.TEXTS["trailing spaces"]}),
    (m.TrimsText, test_values.test_p05_keys_that_look_alike_are_two, {"one": "x", "other": "x "}),
    (m.FoldsCase, test_values.test_p05_text_in_a_key, {"text": test_values.TEXTS["dotted capital i"]}),
    (m.FoldsCase, test_values.test_p05_keys_that_look_alike_are_two, {"one": "a", "other": "A"}),
    (m.CutsMilliseconds, test_values.test_p05_times, {"moment": test_values.TIMES["a millisecond"]}),
    (
        m.CutsMilliseconds,
        test_values.test_p05_values_that_are_refused,
        {"values": test_values.BAD_VALUES["microseconds"]},
    ),
    (m.ThroughDoubles, test_values.test_p05_integers, {"number": 2**53 + 1}),
    (m.ThroughDoubles, test_values.test_p05_integers, {"number": -(2**53) - 1}),
    (m.DropsNul, test_values.test_p05_text_that_is_refused, {"text": test_values.BAD_TEXTS["NUL"]}),
    (m.UnsortedText, test_values.test_p05_any_text_sorts_by_code_point.hypothesis.inner_test, {"texts": ["B", "a"]}),  # type: ignore[attr-defined]  # added by given()
    # promise 6 and the verbs
    (m.NoUnique, test_verbs.test_p06_a_second_row_of_one_unique_value, EMAIL),
    (m.NoUnique, test_concurrency.test_race_for_a_unique_value_has_one_winner, {}),
    (m.NoKey, test_verbs.test_p06_a_second_row_of_one_key, {"table": audit_entries, "kind": POOLED}),
    (m.NoKey, test_concurrency.test_race_for_a_slug_has_one_winner, {}),
    (m.EnginesNameOfTheConstraint, test_verbs.test_p06_a_second_row_of_one_key, IN_MEMBERSHIPS),
    (m.EnginesNameOfTheConstraint, test_verbs.test_p06_a_second_row_of_one_unique_value, EMAIL),
    (
        m.NoneIsAValue,
        test_verbs.test_p06_none_is_exempt_from_unique,
        {"table": organizations, "columns": ("external_id",)},
    ),
    (m.LastWriterWins, test_verbs.test_replace_is_a_compare_and_swap, {}),
    (m.LastWriterWins, test_concurrency.test_race_of_replaces_loses_no_update, {}),
    (m.TakeLooksThenRemoves, test_concurrency.test_race_to_take_has_one_winner, {}),
    (m.ClaimForgetsLeases, test_verbs.test_claim_leases_what_is_due, {}),
    (m.ClaimForgetsLeases, test_concurrency.test_race_to_claim_gives_each_row_to_one, {}),
    (m.AdjustWithoutConditions, test_verbs.test_adjust_is_one_conditional_write, {}),
    (m.AdjustWithoutConditions, test_concurrency.test_race_for_a_quota_never_exceeds_it, {"kind": POOLED}),
    (m.AdjustLooksThenWrites, test_concurrency.test_race_for_a_quota_never_exceeds_it, {"kind": DEDICATED}),
    # promise 7
    (m.PagesRepeatTheirMark, test_pages.test_p07_every_order_is_total, {"order": ()}),
    (m.PagesRepeatTheirMark, test_pages.test_p07_a_mark_need_not_be_there, {}),
    (m.PagesForgetDescending, test_pages.test_p07_every_order_is_total, {"order": ("-error",)}),
    (m.PagesForgetDescending, test_pages.test_p07_none_comes_first, {"order": ("-purge_at",)}),
    (
        m.PagesByOffset,
        test_pages.test_p07_nothing_is_skipped_or_repeated_while_others_write,
        {"order": ("created_at",)},
    ),
    # promise 9
    (m.ClosesOneSlot, test_spaces.test_p09_close_keeps_every_writer_out, {"kind": POOLED}),
    (m.ClosesOneSlot, test_concurrency.test_race_of_writers_with_a_closing_space, {"kind": DEDICATED}),
    (m.FenceLetsStaleWritersIn, test_spaces.test_p09_close_keeps_every_writer_out, {"kind": DEDICATED}),
    (
        m.FenceLetsStaleWritersIn,
        test_spaces.test_p09_a_stale_writer_never_makes_a_dropped_space_again,
        {"kind": POOLED},
    ),
    (m.OpensWithEmptyCounters, test_spaces.test_p09_open_again, {"kind": POOLED}),
    (m.OpensWithEmptyCounters, test_spaces.test_p09_open_under_the_next_epoch, {"kind": DEDICATED}),
    (m.CreateStartsAgain, test_spaces.test_p09_create_repeated, {"kind": POOLED}),
    (m.CreateStartsAgain, test_spaces.test_p09_create_leaves_a_closed_space_closed, {"kind": DEDICATED}),
    (m.RenameTrustsItsCaller, test_spaces.test_p09_rename_where_both_are_there, {}),
    (m.RenameTrustsItsCaller, test_spaces.test_p09_rename_where_neither_is_there, {}),
    (m.RenameKeepsTheOldName, test_spaces.test_p09_rename_moves_everything, {}),
    (m.RenameKeepsTheOldName, test_spaces.test_p09_a_stale_writer_never_makes_the_old_name_again, {}),
    (m.DropsNothing, test_spaces.test_p09_drop_removes_and_counts_everything, {"kind": POOLED}),
    (m.DropsNothing, test_spaces.test_p09_a_dropped_space_can_be_made_again, {"kind": DEDICATED}),
    (m.ListsAPageTwice, test_spaces.test_p09_spaces_lists_what_is_there, {"limit": 2}),
    # promise 10, access
    (m.DigestCountsOnly, test_digests.test_p10_one_value_makes_another_digest, {"difference": {"bytes": 8}}),
    (m.DigestCountsOnly, test_digests.test_p10_values_do_not_slide_between_rows, {}),
    (m.DigestKnowsThePlacement, test_digests.test_p10_equal_rows_in_both_kinds_of_space, {}),
    (m.CachedAccess, test_access.test_access_sees_the_latest_commit, {}),
    (m.CachedAccess, test_access.test_access_without_one_part, {"part": "session"}),
    (m.AccessInParts, test_access.test_access_is_one_snapshot, {}),
]


def _named(case: tuple[type[m.Sound], Check, dict[str, Any]]) -> str:
    return f"{case[0].__name__}-{case[1].__name__.removeprefix('test_')}"


@pytest.mark.parametrize(("mutant", "check", "arguments"), CASES, ids=map(_named, CASES))
async def test_a_broken_promise_is_noticed(
    storage: Storage, mutant: type[m.Sound], check: Check, arguments: dict[str, Any]
) -> None:
    """The check passes on the sound storage behind the same wrapper, and fails on the mutant."""
    await check(storage=m.Sound(storage), **arguments)
    try:
        await check(storage=mutant(storage), **arguments)
    except (AssertionError, OrgsteadError, ExceptionGroup, pytest.fail.Exception):
        return
    pytest.fail(f"{check.__name__} did not notice {mutant.__name__}")


def _mutants(module: ModuleType) -> Iterator[type[m.Sound]]:
    for thing in vars(module).values():
        if inspect.isclass(thing) and issubclass(thing, m.Sound) and thing is not m.Sound:
            yield thing


def test_every_mutant_is_tried() -> None:
    """A mutant that no check is held against proves nothing."""
    assert set(_mutants(m)) == {mutant for mutant, _, _ in CASES}
