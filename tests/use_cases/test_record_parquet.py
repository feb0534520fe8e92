"""Parquet: every value comes back, in the rows and columns of the CSV, and what is held in memory is bounded."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orgstead import archive_export, record_columns, record_parquet
from orgstead.app import App
from orgstead.archive_import import Result
from orgstead.archives import TableFormat
from orgstead.csv_cells import neutralized
from orgstead.errors import ConfigurationError
from orgstead.model import Record
from orgstead.record_columns import Columns, ColumnType
from orgstead.record_parquet import parquet_table
from tests.use_cases.archived import HARD, Parts, digest, exported, filled, imported
from tests.use_cases.record_values import documents, texts, values
from tests.use_cases.shelves import Shelf

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
OWN = ["id", "created_at", "updated_at"]


def record(number: int, data: dict[str, Any]) -> Record:
    at = BEGIN + timedelta(milliseconds=number)
    size = len(orjson.dumps(data))
    return Record(org_id="o", collection="c", id=f"r{number:06}", data=data, bytes=size, created_at=at, updated_at=at)


def learnt(records: Sequence[Record]) -> Columns:
    columns = Columns()
    columns.note(records)
    return columns


def written(records: Sequence[Record], page: int = 7) -> pq.ParquetFile:
    """The file of these records, which come in pages."""
    file = io.BytesIO()
    with parquet_table(file, learnt(records)) as table:
        for begin in range(0, len(records), page):
            table.add(records[begin : begin + page])
    file.seek(0)
    return pq.ParquetFile(file)


def typed(members: Sequence[Any]) -> pq.ParquetFile:
    """A file with these values in a column ``x``."""
    return written([record(number, {"x": value}) for number, value in enumerate(members)])


def is_json(field: pa.Field[Any]) -> bool:
    return field.metadata == {b"content": b"application/json"}


def value_of(cell: Any, field: pa.Field[Any]) -> Any:
    """The JSON value that a cell stands for."""
    return orjson.loads(cell) if is_json(field) and cell is not None else cell


# --- values -----------------------------------------------------------------------------------------------------------


@given(st.lists(documents() | st.dictionaries(texts, values, max_size=4), max_size=30), st.integers(1, 8))
def test_every_value_comes_back(data: list[dict[str, Any]], most: int) -> None:
    records = [record(number, one) for number, one in enumerate(data)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record_parquet, "GROUP_ROWS", most)
        file = written(records)
    table, schema = file.read(), file.schema_arrow
    members = list(dict.fromkeys(name for one in data for name in one))
    assert schema.names == record_columns.titles(OWN, members)
    assert len(set(schema.names)) == len(schema.names)
    for place, kept in enumerate(OWN):
        assert table.column(place).to_pylist() == [getattr(one, kept) for one in records]
    for place, member in enumerate(members, len(OWN)):
        field = schema.field(place)
        found = [value_of(cell, field) for cell in table.column(place).to_pylist()]
        expected = [one.data.get(member) for one in records]
        assert found == expected
        if not pa.types.is_float64(field.type):  # where 1 is 1.0
            assert list(map(repr_of, found)) == list(map(repr_of, expected))


def repr_of(value: Any) -> bytes:
    """Tells what ``==`` does not: 1 from 1.0 and from True."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


@pytest.mark.parametrize(
    ("seen", "arrow", "kind"),
    [
        (["a", None, ""], pa.string(), ColumnType.TEXT),
        ([True, False, None], pa.bool_(), ColumnType.BOOLEAN),
        ([1, None, -(2**63), 2**63 - 1], pa.int64(), ColumnType.INTEGER),
        ([0.5, None, -0.0, 5e-324, 1e300], pa.float64(), ColumnType.NUMBER),
        ([0.5, 1, 2**53, -(2**53)], pa.float64(), ColumnType.NUMBER),
        ([0.5, 2**53 + 1], pa.string(), ColumnType.JSON),
        ([2**63], pa.string(), ColumnType.JSON),
        ([1, "1"], pa.string(), ColumnType.JSON),
        ([1, True], pa.string(), ColumnType.JSON),
        ([[1], None], pa.string(), ColumnType.JSON),
        ([{"b": 1, "a": [None]}], pa.string(), ColumnType.JSON),
        ([None, None], pa.string(), ColumnType.TEXT),
    ],
)
def test_a_column_has_the_type_of_all_its_values(seen: list[Any], arrow: pa.DataType, kind: ColumnType) -> None:
    file = typed(seen)
    field = file.schema_arrow.field("x")
    assert (field.type, is_json(field), field.nullable) == (arrow, kind is ColumnType.JSON, True)
    cells = file.read().column("x").to_pylist()
    assert [value_of(cell, field) for cell in cells] == seen
    assert [cell is None for cell in cells] == [value is None for value in seen]


def test_times_are_moments_in_utc() -> None:
    schema = typed([1]).schema_arrow
    for name in ("created_at", "updated_at"):
        assert schema.field(name).type == pa.timestamp("us", tz="UTC")
        assert not schema.field(name).nullable


def test_text_is_not_altered_as_it_is_for_spreadsheets() -> None:
    file = written([record(0, {"=x": "=1+1", "a.b": 'q"\r\n\u2028', "": "\t"})])
    assert file.read().select(["=x", "a.b", ""]).to_pylist() == [{"=x": "=1+1", "a.b": 'q"\r\n\u2028', "": "\t"}]


def test_names_of_columns_are_never_the_same() -> None:
    data: dict[str, Any] = {"id": 1, "data.id": 2, "data.data.id": 3, "data": 4, "data.x": 5, "created_at": 6}
    names = written([record(0, data)]).schema_arrow.names
    assert names == [
        *OWN,
        *("data.id", "data.data.id", "data.data.data.id", "data", "data.x", "data.created_at"),
    ]


def test_the_same_records_make_the_same_bytes() -> None:
    records = [record(number, {"n": number, "x": {"b": 1, "a": [number]}}) for number in range(50)]
    files = [io.BytesIO(), io.BytesIO()]
    for file, page in zip(files, (1, 50), strict=True):
        with parquet_table(file, learnt(records)) as table:
            for begin in range(0, len(records), page):
                table.add(records[begin : begin + page])
    assert files[0].getvalue() == files[1].getvalue()


# --- bounds -----------------------------------------------------------------------------------------------------------


def groups_of(file: pq.ParquetFile) -> list[int]:
    return [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]


def test_a_group_has_few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_parquet, "GROUP_ROWS", 10)
    file = typed(range(34))
    assert groups_of(file) == [10, 10, 10, 4]
    assert file.read().column("x").to_pylist() == list(range(34))


def test_a_group_of_many_columns_has_fewer_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_parquet, "GROUP_CELLS", 40)
    assert groups_of(typed(range(25))) == [10, 10, 5]


def test_a_group_has_few_bytes_and_a_large_record_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_parquet, "GROUP_BYTES", 1000)
    file = typed(["x" * 400, "y" * 400, "z" * 400, "large" * 1000, "a", "b"])
    assert groups_of(file) == [2, 1, 1, 2]


def test_nothing_of_a_group_is_held_once_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither its rows nor, in what is written last, its texts: the end of the file is as long for long texts."""
    monkeypatch.setattr(record_parquet, "GROUP_ROWS", 10)
    lengths = (1, 3000)
    tails = []
    for length in lengths:
        records = [record(number, {"text": f"{number:04}".ljust(length, "x")}) for number in range(200)]
        file = io.BytesIO()
        with parquet_table(file, learnt(records)) as table:
            for number, one in enumerate(records, 1):
                before = file.tell()
                table.add([one])
                assert (file.tell() > before) is (number > 10 and number % 10 == 1), "a group is written as it ends"
            table.end_group()
            tails.append(-file.tell())
        tails[-1] += file.tell()
    assert abs(tails[1] - tails[0]) < 500


@pytest.mark.parametrize("bound", ["members", "groups"])
def test_where_a_column_for_each_member_took_too_much_all_data_is_in_one(
    bound: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if bound == "members":
        records = [record(number, {f"member {number}": number}) for number in range(record_columns.MAX_COLUMNS + 1)]
    else:
        monkeypatch.setattr(record_parquet, "GROUP_ROWS", 1)
        monkeypatch.setattr(record_parquet, "MAX_CHUNKS", 400)
        records = [record(number, {"a": number, "b": number}) for number in range(200)]
    file = written(records)
    assert file.schema_arrow.names == [*OWN, "data"]
    field = file.schema_arrow.field("data")
    assert [value_of(cell, field) for cell in file.read().column("data").to_pylist()] == [one.data for one in records]
    assert written(records[:50]).schema_arrow.names != [*OWN, "data"]


def test_what_cannot_be_written_is_said_as_the_file_says_it() -> None:
    class Full:
        def write(self, data: bytes) -> None:
            raise OSError(28, "No space left on device")

    records = [record(0, {"n": 1})]
    with pytest.raises(OSError, match="No space left"), parquet_table(Full(), learnt(records)) as table:
        table.add(records)


# --- in an archive, on every engine -----------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_an_archive_has_the_rows_of_its_csv_with_types(app: App, tmp_path: Path) -> None:
    shelf = await filled(app)
    await shelf.fill("notes", [{"n": 0.5, "id": "@x", "created_at": "never", "=x": True}], prefix="x")
    manifest = await exported(app, shelf.placement.org_id, tmp_path / "a.zip", *TableFormat)
    parts = Parts.of(tmp_path / "a.zip")
    for name in ("goods", "empty", "notes"):
        lines = parts.lines(f"records/{name}.jsonl")
        file = pq.ParquetFile(io.BytesIO(parts.files[f"parquet/{name}.parquet"]))
        rows = csv.reader(io.StringIO(parts.files[f"csv/{name}.csv"].decode(), newline=""))
        members = list(dict.fromkeys(member for line in lines for member in line["data"]))
        by_title = dict(zip(record_columns.titles(OWN, members), [*OWN, *members], strict=True))
        assert by_title.keys() == set(file.schema_arrow.names)
        members = [by_title[title] for title in file.schema_arrow.names[len(OWN) :]]
        assert next(rows) == [neutralized(title) for title in record_columns.titles(["id"], members)]
        columns = file.read().to_pydict()
        assert [row[0] for row in rows] == columns["id"]
        assert columns["id"] == [line["id"] for line in lines]
        for time in ("created_at", "updated_at"):
            assert columns[time] == [datetime.fromisoformat(line[time]) for line in lines]
        for member in members:
            (title,) = record_columns.titles(OWN, [member])[len(OWN) :]
            field = file.schema_arrow.field(title)
            assert [value_of(cell, field) for cell in columns[title]] == [line["data"].get(member) for line in lines]
    goods = pq.ParquetFile(io.BytesIO(parts.files["parquet/goods.parquet"])).schema_arrow
    kinds = {name: (goods.field(name).type, is_json(goods.field(name))) for name in ("city", "price", "tags", "nested")}
    assert kinds == {
        "city": (pa.string(), False),
        "price": (pa.string(), True),  # has 2**63 - 1 and -0.5
        "tags": (pa.string(), True),
        "nested": (pa.string(), True),
    }
    assert len(pq.ParquetFile(io.BytesIO(parts.files["parquet/goods.parquet"])).read()) == len(HARD)
    for name, content in parts.files.items():
        assert manifest.files[name].bytes == len(content)


@pytest.mark.anyio
async def test_an_import_reads_nothing_of_the_tables(app: App, tmp_path: Path) -> None:
    shelf = await filled(app)
    bare = await exported(app, shelf.placement.org_id, tmp_path / "bare.zip")
    manifest = await exported(app, shelf.placement.org_id, tmp_path / "a.zip", TableFormat.PARQUET)
    assert manifest.collections == bare.collections
    assert manifest.files.keys() - bare.files.keys() == {f"parquet/{name}.parquet" for name in bare.collections}
    parts = Parts.of(tmp_path / "a.zip")
    for name in bare.collections:
        parts.files[f"parquet/{name}.parquet"] = b"no Parquet"
    parts.relink()
    found = await imported(app, parts.write(tmp_path / "a.zip"))
    assert found.result is Result.CREATED
    copy = Shelf(app, found.located.placement)
    assert (await digest(app, copy.placement)).count == (await digest(app, shelf.placement)).count
    again = await exported(app, found.located.organization.id, tmp_path / "again.zip")
    assert again.collections == bare.collections


@pytest.mark.anyio
async def test_without_the_library_it_is_said_what_to_install(
    app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = await Shelf.made(app)
    monkeypatch.delitem(sys.modules, "orgstead.record_parquet")
    monkeypatch.delattr("orgstead.record_parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with (tmp_path / "a.zip").open("w+b") as target:
        with pytest.raises(ConfigurationError, match="pyarrow") as caught:
            await archive_export.export(app, shelf.placement.org_id, target, formats=[TableFormat.PARQUET])
        assert target.tell() == 0
    assert caught.value.next == "pip install 'orgstead[parquet]'"
    await exported(app, shelf.placement.org_id, tmp_path / "a.zip", TableFormat.CSV)
