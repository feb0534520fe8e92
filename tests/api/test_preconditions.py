"""Entity tags: what changes them, and when a condition holds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orgstead.api.preconditions import Conditions, content_tag, etag, is_unchanged
from orgstead.errors import PreconditionFailed
from orgstead.storage import tables
from tests.rows import sample

ORGANIZATION = replace(sample(tables.organizations), version=7)
PLACEMENT = replace(sample(tables.placements), version=3)
TAG = etag(ORGANIZATION, PLACEMENT)


def test_a_tag_changes_with_either_row_and_is_never_the_same_for_two_states() -> None:
    tags = [
        etag(replace(ORGANIZATION, version=version), replace(PLACEMENT, version=place))
        for version in (1, 11, 111)
        for place in (1, 11, 111)
    ]
    assert len(set(tags)) == len(tags)


def test_a_tag_of_content_is_one_for_each_content_and_well_formed() -> None:
    bodies = [b"", b"{}", b'{"a":1}', b'{"a":2}']
    tags = [content_tag(body) for body in bodies]
    assert len(set(tags)) == len(tags)
    assert tags == [content_tag(body) for body in bodies]
    for tag in tags:
        assert is_unchanged([b'"x", ' + tag], tag)


@pytest.mark.parametrize("fields", [[], [b"*"], [b" * "]])
def test_no_condition_asks_for_no_version(fields: list[bytes]) -> None:
    assert Conditions(fields).version(ORGANIZATION, PLACEMENT) is None


@pytest.mark.parametrize("fields", [[TAG], [b'"x", ' + TAG], [TAG + b',"x"'], [b'"x"', TAG]])
def test_the_current_tag_asks_for_the_version_that_was_read(fields: list[bytes]) -> None:
    assert Conditions(fields).version(ORGANIZATION, PLACEMENT) == 7


@pytest.mark.parametrize(
    "fields",
    [[b"W/" + TAG], [b'"7"'], [b'"7.4"'], [b'"8.3"'], [TAG.strip(b'"')], [b"*, x"], [b","], [b""], [b" "], [b"", b""]],
)
def test_any_other_tag_fails(fields: list[bytes]) -> None:
    with pytest.raises(PreconditionFailed):
        Conditions(fields).version(ORGANIZATION, PLACEMENT)
    with pytest.raises(PreconditionFailed):
        Conditions(fields).require(TAG)


@pytest.mark.parametrize("field", [b"*", TAG, b"W/" + TAG, b'"x",' + TAG, b"", b"x", b"*, x", b'"x" "y"', b'"x",'])
def test_what_the_client_has_seen_or_cannot_say_is_not_changed(field: bytes) -> None:
    with pytest.raises(PreconditionFailed):
        Conditions(none_match=[field]).require(TAG)
    with pytest.raises(PreconditionFailed):
        Conditions([TAG], [field]).version(ORGANIZATION, PLACEMENT)


def test_what_the_client_has_not_seen_is_changed() -> None:
    assert Conditions(none_match=[b'"x"', b'W/"y"']).version(ORGANIZATION, PLACEMENT) is None
    assert Conditions([TAG], [b'"x"']).version(ORGANIZATION, PLACEMENT) == 7


def test_what_is_not_there_matches_nothing() -> None:
    for none_match in ([b"*"], [TAG], []):
        Conditions(none_match=none_match).require(None)
    for match in (b"*", TAG):
        with pytest.raises(PreconditionFailed):
            Conditions([match]).require(None)


@pytest.mark.parametrize(
    ("field", "unchanged"),
    [
        (b"*", True),
        (TAG, True),
        (b"W/" + TAG, True),
        (b'"a,b", ' + TAG, True),
        (b'"x"', False),
        (b"", False),
        (b'"', False),
    ],
)
def test_a_read_compares_weakly(field: bytes, unchanged: bool) -> None:
    assert is_unchanged([field], TAG) is unchanged
