"""Entity tags: what changes them, and when a condition holds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orgstead.api.preconditions import content_tag, etag, is_unchanged, version_if_matched
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


@pytest.mark.parametrize("fields", [[], [b""], [b"*"], [b" * "]])
def test_no_condition_asks_for_no_version(fields: list[bytes]) -> None:
    assert version_if_matched(fields, ORGANIZATION, PLACEMENT) is None


@pytest.mark.parametrize("fields", [[TAG], [b'"x", ' + TAG], [TAG + b',"x"'], [b'"x"', TAG]])
def test_the_current_tag_asks_for_the_version_that_was_read(fields: list[bytes]) -> None:
    assert version_if_matched(fields, ORGANIZATION, PLACEMENT) == 7


@pytest.mark.parametrize(
    "fields", [[b"W/" + TAG], [b'"7"'], [b'"7.4"'], [b'"8.3"'], [TAG.strip(b'"')], [b"*, x"], [b","]]
)
def test_any_other_tag_fails(fields: list[bytes]) -> None:
    with pytest.raises(PreconditionFailed):
        version_if_matched(fields, ORGANIZATION, PLACEMENT)


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
