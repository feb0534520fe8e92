"""What requests about collections and records may carry, and what their answers look like. See ``schemas``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema

from orgstead.api.lists import DEFAULT_LIMIT, MAX_LIMIT
from orgstead.api.schemas import Input, Object, Output, Text, given
from orgstead.record_batches import MAX_CHANGES

Data = dict[str, Any]

FieldLists = Annotated[
    list[list[str]] | None,
    BeforeValidator(given),
    WithJsonSchema({"type": "array", "items": {"type": "array", "items": {"type": "string"}}}),
]
Names = Annotated[
    list[str] | None, BeforeValidator(given), WithJsonSchema({"type": "array", "items": {"type": "string"}})
]
Version = Annotated[int | None, BeforeValidator(given), WithJsonSchema({"type": "integer"})]

RECORD_ID = "inv-2026-001"
DATA: Data = {"customer": "Nordwind GmbH", "city": "Berlin", "total": 119.5, "tags": ["paid"]}
WHERE: Data = {"and": [{"field": "city", "eq": "Berlin"}, {"field": "total", "gte": 100}]}
_ID: dict[str, Any] = {"minLength": 1, "maxLength": 128, "pattern": "^[A-Za-z0-9._~-]+$"}
_WHERE = (
    "A condition: `{field, OP: value}` with eq, ne, in, gt, gte, lt, lte, prefix, contains or exists; and, or, not."
)
_CURSOR = "`next_cursor` of the part before, with the same `where` and `order`."


# --- requests -------------------------------------------------------------------------------------------------------


class CollectionDefine(Input):
    """A whole definition: what is left out, the collection has not."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True, validate_by_name=False)

    schema_: Object = Field(
        default=None,
        alias="schema",
        examples=[{"type": "object", "required": ["customer"], "properties": {"total": {"type": "number"}}}],
        description="JSON Schema, draft 2020-12, that every record satisfies; no references to elsewhere.",
    )
    indexes: FieldLists = Field(
        default=None,
        examples=[[["city"], ["city", "-total"]]],
        description="Fields to find and sort records by; `-` first is descending, `tags[]` is each element.",
    )
    unique: FieldLists = Field(
        default=None,
        examples=[[["customer", "city"]]],
        description="Fields that no two records have the same values in.",
    )


class RecordCreate(Input):
    """A new record."""

    id: Text = Field(
        default=None, examples=[RECORD_ID], description="Made as `rec_…` if absent.", json_schema_extra=_ID
    )
    data: Data = Field(examples=[DATA], description="Any JSON object.")


class RecordReplace(Input):
    """The whole new data of a record."""

    data: Data = Field(examples=[DATA])


class RecordPatch(Input):
    """A JSON merge-patch (RFC 7396) of a record's data: absent members stay, null removes."""

    data: Data = Field(examples=[{"total": 99, "tags": None}])


class BatchOperation(Input):
    """One change of one record."""

    op: Literal["create", "replace", "patch", "delete"] = Field(examples=["patch"])
    collection: str = Field(examples=["invoices"])
    id: Text = Field(default=None, examples=[RECORD_ID], description="May be left out for `create`.")
    data: Object = Field(
        default=None, examples=[{"total": 99}], description="Of a `patch`, the merge-patch; `delete` has none."
    )
    if_version: Version = Field(
        default=None, examples=[1], description="The `version` that the record must still have."
    )


class RecordBatch(Input):
    """Changes that are made all or none; a record may be named once."""

    operations: Annotated[list[BatchOperation], WithJsonSchema({"type": "array"})] = Field(
        examples=[
            [
                {"op": "create", "collection": "invoices", "id": RECORD_ID, "data": DATA},
                {"op": "create", "collection": "invoices", "data": {"customer": "Ostwind AG", "city": "Bremen"}},
            ]
        ],
        json_schema_extra={
            "minItems": 1,
            "maxItems": MAX_CHANGES,
            "items": {"$ref": "#/components/schemas/BatchOperation"},
        },
    )


class RecordIds(Input):
    """The records to read."""

    ids: list[str] = Field(examples=[[RECORD_ID]], min_length=1, max_length=MAX_LIMIT)


class RecordQuery(Input):
    """Which records, in which order, and what of them."""

    where: Object = Field(default=None, examples=[WHERE], description=_WHERE)
    order: Names = Field(
        default=None, examples=[["-total"]], description="Fields, `-` first is descending; then the id."
    )
    select: Names = Field(
        default=None, examples=[["customer", "total"]], description="Members of the data to answer with."
    )
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT)] = Field(
        default=DEFAULT_LIMIT, examples=[20], description="How many at most."
    )
    cursor: Text = Field(default=None, description=_CURSOR)


class RecordAggregate(Input):
    """Figures of the records that meet a condition, by group."""

    where: Object = Field(default=None, examples=[WHERE], description=_WHERE)
    group_by: Names = Field(default=None, examples=[["city"]], description="Fields; at most four.")
    measures: Data = Field(
        examples=[{"invoices": {"count": True}, "revenue": {"sum": "total"}}],
        description="By name of your own: `{count: true}`, or `sum`, `avg`, `min`, `max` of a field.",
    )


# --- answers --------------------------------------------------------------------------------------------------------


class Collection(Output):
    """A collection, with the definition that is in force."""

    object: Literal["collection"]
    name: str = Field(examples=["invoices"])
    schema_: Data | bool | None = Field(alias="schema")
    indexes: list[list[str]]
    unique: list[list[str]]
    state: Literal["ready", "changing"]
    created_at: str = Field(examples=["2026-11-23T10:00:00.000Z"])
    updated_at: str = Field(examples=["2026-11-23T10:00:00.000Z"])


class CollectionList(Output):
    """A part of a list."""

    object: Literal["list"]
    data: list[Collection]
    next_cursor: str | None = Field(description="Pass it as `cursor` to go on; null at the end.")


class Record(Output):
    """A record."""

    object: Literal["record"]
    id: str = Field(examples=[RECORD_ID])
    collection: str = Field(examples=["invoices"])
    data: Data = Field(examples=[DATA])
    version: int
    created_at: str = Field(examples=["2026-11-23T10:00:00.000Z"])
    updated_at: str = Field(examples=["2026-11-23T10:00:00.000Z"])


class RecordList(Output):
    """A part of a list. It may be short of `limit`, even empty, and still have a `next_cursor`."""

    object: Literal["list"]
    data: list[Record]
    next_cursor: str | None = Field(description="Pass it as `cursor` to go on; null at the end.")


class FoundRecords(Output):
    """The records of the ids that exist, in their order, and the other ids."""

    object: Literal["list"]
    data: list[Record]
    missing: list[str]


class ChangedRecord(Output):
    """What became of one operation's record. A deleted one has neither version nor times."""

    object: Literal["record"]
    id: str = Field(examples=[RECORD_ID])
    collection: str = Field(examples=["invoices"])
    deleted: bool
    version: int | None
    created_at: str | None
    updated_at: str | None


class BatchResult(Output):
    """The records of the operations, in their order, without their data."""

    object: Literal["batch"]
    data: list[ChangedRecord]


class Aggregate(Output):
    """One object for each group, in the order of the groups' values: the group's values and the measures."""

    object: Literal["aggregate"]
    data: list[Data] = Field(examples=[[{"city": "Berlin", "invoices": 2, "revenue": 218.5}]])


class Count(Output):
    """How many there are."""

    object: Literal["count"]
    count: int


class Used(Output):
    """What is used, and what the plan allows: null where there is no limit."""

    used: int
    limit: int | None


class Usage(Output):
    """What the organization has and may have. `bytes` are of records, as compact JSON."""

    object: Literal["usage"]
    records: Used
    bytes: Used
    collections: Used
    members: Used
    api_keys: Used
    requests_per_second: float | None = Field(description="The plan's limit, for each serving process.")


class RecordEvent(Output):
    """Something that happened to a record or a collection; it says which, not what it holds."""

    object: Literal["event"]
    seq: int = Field(description="Counts the organization's events from 1, without gaps.")
    type: str = Field(examples=["record.updated"])
    collection: str = Field(examples=["invoices"])
    record_id: str | None = Field(examples=[RECORD_ID])
    record_version: int | None
    actor: str
    created_at: str = Field(examples=["2026-11-23T10:00:00.000Z"])


class EventList(Output):
    """A part of the feed. `next_cursor` is always there: ask with it again for what comes later."""

    object: Literal["list"]
    data: list[RecordEvent]
    next_cursor: str
