"""``orgstead record``, ``collection``, ``usage``, and the archive of an organization, as people type them."""

from __future__ import annotations

import csv
import io
import json
import signal
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from orgstead.model import MAX_JSON_DEPTH
from tests.cli.conftest import ORGSTEAD, Run


@pytest.fixture(autouse=True)
def acme(cli: Run) -> None:
    assert cli("db", "upgrade").code == 0
    assert cli("org", "create", "Acme", "--external-id", "x-1").code == 0


GOODS = ("--org", "acme", "-c", "goods")


def outcomes(out: str) -> list[tuple[int, str]]:
    return [(row["line"], row["result"]) for row in map(json.loads, out.splitlines())]


def listed(cli: Run, *more: str) -> dict[str, dict[str, object]]:
    return {row["id"]: row["data"] for row in json.loads(cli("record", "list", *GOODS, "--json", *more).out)}


# --- importing --------------------------------------------------------------------------------------------------------


def test_columns_of_csv_have_types(cli: Run, folder: Path) -> None:
    (folder / "in.csv").write_text(
        "sku,name,quantity,price,active,tags,zip\n"
        'a,Apple,3,1.50,true,"[""x"", 1]",01234\n'
        "b,,-7,2,no,,\n"
        "c,Cherry,1e3,1,yes,,\n"
        "d,Date,1,nan,yes,,\n"
        "e,Elder,1,1,perhaps,,\n"
        "f,Fig,9223372036854775808,1,1,,\n"
        'g,Grape,1,1,0,"{""a"":1,""a"":2}",\n'
        "a,Again,1,1,1,,\n"
        ",Nameless,1,1,1,,\n"
        "h,too few\n",
        encoding="utf-8",
    )
    types = "quantity=integer,price=number,active=boolean,tags=json"
    command = ("record", "import", "in.csv", *GOODS, "--id-column", "sku", "--types", types, "-o", "jsonl")
    result = cli(*command, "--report", "report.csv")
    assert result.code == 1
    created = [(2, "created"), (3, "created")]
    assert outcomes(result.out) == [
        *created,
        *((number, "refused") for number in range(4, 9)),
        (9, "exists"),
        (10, "refused"),
        (11, "refused"),
    ]
    assert "error import.lines_refused: 7 of 10 lines" in result.err
    assert listed(cli) == {
        "a": {"name": "Apple", "quantity": 3, "price": 1.5, "active": True, "tags": ["x", 1], "zip": "01234"},
        "b": {"quantity": -7, "price": 2, "active": False},
    }
    with (folder / "report.csv").open(encoding="utf-8", newline="") as stream:
        assert [(int(row["line"]), row["result"]) for row in csv.DictReader(stream)] == outcomes(result.out)
    again = cli(*command)
    assert outcomes(again.out)[:2] == [(2, "exists"), (3, "exists")]


def test_a_schema_says_the_types_of_columns(cli: Run, folder: Path) -> None:
    kinds = {"n": "integer", "p": ["number", "null"], "ok": "boolean", "t": "array", "s": "string"}
    schema = {"type": "object", "properties": {name: {"type": kind} for name, kind in kinds.items()}}
    (folder / "schema.json").write_text(json.dumps(schema), encoding="utf-8")
    assert cli("collection", "define", "goods", "--org", "acme", "--schema", "schema.json").code == 0
    (folder / "in.csv").write_text('id,n,p,ok,t,s,other\na,1,0.5,yes,[1],2,3\nb,x,1,1,[],,\nc,1,1,1,"{}",,\n')
    result = cli("record", "import", "in.csv", *GOODS, "--id-column", "id", "-o", "jsonl")
    assert outcomes(result.out) == [(2, "created"), (3, "refused"), (4, "refused")]
    assert json.loads(result.out.splitlines()[2])["pointer"] == "/data/t"
    assert listed(cli) == {"a": {"n": 1, "p": 0.5, "ok": True, "t": [1], "s": "2", "other": "3"}}


def test_json_lines_one_bad_hides_no_other(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        '{"key": "a", "n": 1, "deep": {"x": [1.5, null]}}',
        '{"key": "b", "n": NaN}',
        '{"key": "c", "n": 1, "n": 2}',
        '{"key": 4}',
        '{"n": 5}',
        "[1]",
        "{",
        "[" * 100_000,
        '{"key": "../i"}',
        "",
        '{"key": "k", "big": 18446744073709551616}',
        '{"key": "l", "n": 1e999}',
        '{"key": "m", "t": "\\u0000"}',
        '{"key": "n", "t": "\\ud800"}',
        '{"key": "z"}',
    ]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
    result = cli("record", "import", "-", "--format", "jsonl", *GOODS, "--id-column", "key", "-o", "jsonl")
    assert result.code == 1
    assert outcomes(result.out) == [
        (1, "created"),
        *((number, "refused") for number in range(2, 10)),
        *((number, "refused") for number in range(11, 15)),
        (15, "created"),
    ]
    assert listed(cli) == {"a": {"n": 1, "deep": {"x": [1.5, None]}}, "z": {}}


def test_lines_are_as_deep_as_bodies_may_be_and_come_back(cli: Run, folder: Path) -> None:
    def nested(depth: int) -> str:
        return '{"in":' * depth + "1" + "}" * depth

    deepest, deeper = nested(MAX_JSON_DEPTH), nested(MAX_JSON_DEPTH + 1)
    (folder / "in.jsonl").write_text(f"{deepest}\n{deeper}\n")
    result = cli("record", "import", "in.jsonl", *GOODS)
    assert result.code == 1
    assert "line 2: refused: The line is nested more than 32 levels deep.\n" in result.err
    assert [json.dumps(data, separators=(",", ":")) for data in listed(cli).values()] == [deepest]

    (folder / "out.jsonl").write_text(cli("record", "export", *GOODS).out)
    command = ("record", "import", "--format", "records", "--org", "acme", "-c", "again")
    assert cli(*command, "out.jsonl").code == 0
    (folder / "worse.jsonl").write_text(f'{{"id": "a", "data": {deeper}}}\n')
    assert cli(*command, "worse.jsonl").code == 1

    (folder / "in.csv").write_text(f'id,tree\na,"{nested(31)}"\nb,"{deepest}"\n'.replace('"in"', '""in""'))
    result = cli(
        "record", "import", "in.csv", "--org", "acme", "-c", "trees", "--id-column", "id", "--types", "tree=json"
    )
    assert result.code == 1
    assert "line 3: refused: The column tree" in result.err
    assert list(json.loads(cli("record", "list", "--org", "acme", "-c", "trees", "-o", "json").out)[0]["data"]) == [
        "tree"
    ]


def test_rows_that_name_their_organization(cli: Run, folder: Path) -> None:
    assert cli("org", "create", "Bravo", "--plan", "enterprise").code == 0
    (folder / "in.csv").write_text("for,id,n\nx-1,a,1\nbravo,a,2\nnobody,a,3\nacme,b,4\nbravo,b,5\n")
    command = ("record", "import", "in.csv", "-c", "goods", "--org-column", "for", "--id-column", "id", "-o", "jsonl")
    result = cli(*command)
    assert result.code == 1
    found = [json.loads(line) for line in result.out.splitlines()]
    assert [row["result"] for row in found] == ["created", "created", "refused", "created", "created"]
    assert found[0]["organization_id"] == found[3]["organization_id"] != found[1]["organization_id"]
    assert listed(cli) == {"a": {"n": "1"}, "b": {"n": "4"}}
    assert json.loads(cli("record", "get", "b", "--org", "bravo", "-c", "goods", "--json").out)["data"] == {"n": "5"}
    assert [row["result"] for row in map(json.loads, cli(*command).out.splitlines())].count("exists") == 4


@pytest.mark.parametrize(
    "args",
    [
        ("in.csv", "-c", "goods"),
        ("in.csv", *GOODS, "--org-column", "a"),
        ("in.csv", "--org", "acme", "-c", "Bad Name"),
        ("in.csv", *GOODS, "--format", "xml"),
        ("in.csv", *GOODS, "--types", "a=colour"),
        ("in.csv", *GOODS, "--types", "a"),
        ("in.csv", *GOODS, "--types", "a=text,a=text"),
        ("in.csv", *GOODS, "--types", "missing=text"),
        ("in.csv", *GOODS, "--id-column", "missing"),
        ("in.csv", "-c", "goods", "--org-column", "missing"),
        ("in.csv", *GOODS, "--report", "in.csv"),
        ("in.jsonl", *GOODS, "--types", "a=text"),
        ("in.jsonl", *GOODS, "--format", "records", "--id-column", "a"),
        ("twice.csv", *GOODS),
        ("empty.csv", *GOODS),
        ("missing.csv", *GOODS),
        ("in.txt", *GOODS),
    ],
    ids=" ".join,
)
def test_what_is_of_no_use_is_refused_before_anything_is_done(cli: Run, folder: Path, args: tuple[str, ...]) -> None:
    for name, text in {
        "in.csv": "a\n1\n",
        "in.jsonl": "{}\n",
        "twice.csv": "a,A\n",
        "empty.csv": "",
        "in.txt": "",
    }.items():
        (folder / name).write_text(text)
    result = cli("record", "import", *args)
    assert (result.code, result.out) == (7 if "--report" in args else 2, "")
    assert result.err.startswith("error ")
    assert cli("collection", "list", "--org", "acme", "--json").out == "[]\n"
    assert (folder / "in.csv").read_text() == "a\n1\n"


def test_a_quota_is_filled_and_not_exceeded(cli: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORGSTEAD_PLANS__FREE__MAX_RECORDS", "3")
    (folder / "in.csv").write_text("id\n" + "".join(f"r{n}\n" for n in range(5)))
    result = cli("record", "import", "in.csv", *GOODS, "--id-column", "id", "-o", "jsonl")
    assert [what for _, what in outcomes(result.out)] == ["created"] * 3 + ["refused"] * 2
    used = {row["what"]: (row["used"], row["limit"]) for row in json.loads(cli("usage", "acme", "--json").out)}
    assert (used["records"], used["members"]) == ((3, 3), (0, 100))


def test_ctrl_c_keeps_what_was_said_to_be_done_and_the_next_run_goes_on(cli: Run, folder: Path) -> None:
    total = 9_000
    with (folder / "many.csv").open("w", encoding="utf-8") as stream:
        stream.write("id,n\n")
        stream.writelines(f"r{number},{number}\n" for number in range(total))
    args = ("record", "import", "many.csv", *GOODS, "--id-column", "id", "-o", "jsonl")
    with subprocess.Popen([*ORGSTEAD, *args], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        said = [json.loads(process.stdout.readline())]
        process.send_signal(signal.SIGINT)
        said += [json.loads(line) for line in process.stdout]
        process.wait(timeout=60)
    assert process.returncode in (0, 130), "it may have been done by then"
    again = {row["record_id"]: row["result"] for row in map(json.loads, cli(*args).out.splitlines())}
    assert len(again) == total
    assert {again[row["record_id"]] for row in said} == {"exists"}
    assert cli("fsck", "--json").out == "[]\n"


def test_lines_without_ids_are_not_to_be_imported_twice(cli: Run, folder: Path) -> None:
    (folder / "in.csv").write_text("n,m\n" + "1,2\n" * 4_000 + "1\n")
    result = cli("record", "import", "in.csv", *GOODS)
    assert "next: import that line alone, mended\n" in result.err
    pages = (folder / "orgstead-data" / "main.db").stat().st_size // 4096
    small = ("--database-url", f"sqlite:///orgstead-data/main.db?max_pages={pages + pages // 2}")
    result = cli("record", "import", "in.csv", *GOODS, "-o", "jsonl", *small)
    assert result.code == 8
    told = outcomes(result.out)
    assert f"import the lines behind line {told[-1][0]}, and refused ones" in result.err
    assert len(listed(cli)) == 4_000 + len(told)


# --- reading ----------------------------------------------------------------------------------------------------------


def test_records_are_listed_queried_and_exported(cli: Run, folder: Path) -> None:
    (folder / "in.jsonl").write_text("".join(json.dumps({"id": f"r{n}", "n": n, "c": "=1"}) + "\n" for n in range(5)))
    assert cli("record", "import", "in.jsonl", *GOODS, "--id-column", "id").code == 0
    assert list(listed(cli)) == [f"r{n}" for n in range(5)]
    assert list(listed(cli, "--limit", "2")) == ["r0", "r1"]
    where = '{"field": "n", "gte": 2}'
    asked = cli("record", "query", *GOODS, "--where", where, "--order", "-n", "--select", "n", "--limit", "2", "--json")
    assert [(row["id"], row["data"]) for row in json.loads(asked.out)] == [("r4", {"n": 4}), ("r3", {"n": 3})]

    assert cli("record", "export", *GOODS, "out.csv").code == 0
    with (folder / "out.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert rows[3] == {"id": "r3", "n": "3", "c": "'=1"}
    assert stat.S_IMODE((folder / "out.csv").stat().st_mode) == 0o600
    assert cli("record", "export", *GOODS, "out.csv").code == 7
    assert cli("record", "export", *GOODS, "out.csv", "--force").code == 0
    assert cli("record", "export", *GOODS, "--format", "csv").out == (folder / "out.csv").read_bytes().decode()

    lines = cli("record", "export", *GOODS).out
    (folder / "again.jsonl").write_text(lines)
    again = ("--org", "acme", "-c", "again")
    assert cli("record", "import", "again.jsonl", *again, "--format", "records").code == 0
    second = [json.loads(line) for line in cli("record", "export", *again).out.splitlines()]
    assert [(row["id"], row["data"]) for row in second] == [
        (row["id"], row["data"]) for row in map(json.loads, lines.splitlines())
    ]
    assert not list(folder.glob("*.part"))


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("record", "list", "--org", "nobody", "-c", "goods"), 5),
        (("record", "list", *GOODS), 5),
        (("record", "get", "x", *GOODS), 5),
        (("record", "query", *GOODS, "--where", "{"), 2),
        (("record", "query", *GOODS, "--where", '{"$where": "1"}'), 2),
        (("record", "query", *GOODS, "--where", '{"field": "a", "field": "b", "eq": 1}'), 2),
        (("record", "query", *GOODS, "--where", "\udcff"), 2),
        (("record", "export", *GOODS), 5),
        (("record", "export", *GOODS, "x.txt"), 2),
        (("record", "list", "--org", "acme", "-c", "../../x"), 5),
        (("collection", "get", "goods", "--org", "acme"), 5),
        (("collection", "define", "goods", "--org", "acme", "--file", "missing.json"), 2),
        (("collection", "define", "Bad", "--org", "acme"), 2),
        (("usage", "nobody"), 5),
    ],
    ids=str,
)
def test_what_is_not_there_or_no_question_is_said(cli: Run, folder: Path, args: tuple[str, ...], code: int) -> None:
    result = cli(*args)
    assert (result.code, result.out) == (code, "")
    assert result.err.startswith("error ")
    assert not list(folder.glob("x.*"))


def test_collections_are_defined_and_shown(cli: Run, folder: Path) -> None:
    args = ("goods", "--org", "acme", "--index", "city,-price", "--index", "tags[]", "--unique", "sku")
    assert cli("collection", "define", *args).code == 0
    found = json.loads(cli("collection", "get", "goods", "--org", "acme", "--json").out)
    assert (found["indexes"], found["unique"]) == ([["city", "-price"], ["tags[]"]], [["sku"]])
    (folder / "d.json").write_text(json.dumps({"indexes": [["a"]]}))
    assert cli("collection", "define", "goods", "--org", "acme", "--file", "d.json").code == 0
    assert cli("collection", "list", "--org", "acme", "-o", "id").out == "goods\n"
    assert cli("collection", "define", "goods", "--org", "acme", "--file", "d.json", "--index", "b").code == 2


@pytest.mark.parametrize("option", ["--file", "--schema"])
def test_a_definition_whose_member_comes_twice_is_none(cli: Run, folder: Path, option: str) -> None:
    """Which of them counts would be the parser's choice; the API refuses it, too."""
    (folder / "d.json").write_text('{\n"unique": [["a"]],\n"unique": []}')
    result = cli("collection", "define", "goods", "--org", "acme", option, "d.json")
    assert (result.code, result.out) == (2, "")
    assert "An object in the file d.json has the same member twice." in result.err
    (folder / "d.json").write_text('{\n"unique": [["a"]\n}')
    assert "(line 3, column 1)" in cli("collection", "define", "goods", "--org", "acme", option, "d.json").err
    assert cli("collection", "list", "--org", "acme", "--json").out == "[]\n"


# --- archives ---------------------------------------------------------------------------------------------------------


def test_an_organization_goes_into_an_archive_and_comes_out(cli: Run, folder: Path) -> None:
    (folder / "in.csv").write_text("id,n\n" + "".join(f"r{n},{n}\n" for n in range(1500)))
    assert cli("record", "import", "in.csv", *GOODS, "--id-column", "id").code == 0
    result = cli("org", "export", "acme", "acme.zip", "--csv", "--parquet", "--json")
    told = json.loads(result.out)
    assert (told["records"], told["collections"], told["bytes"]) == (1500, 1, (folder / "acme.zip").stat().st_size)
    assert stat.S_IMODE((folder / "acme.zip").stat().st_mode) == 0o600
    with zipfile.ZipFile(folder / "acme.zip") as archive:
        numbers = pq.read_table(io.BytesIO(archive.read("parquet/goods.parquet"))).column("n").to_pylist()
    assert {*numbers} == {str(number) for number in range(1500)}
    assert cli("org", "export", "acme", "acme.zip").code == 7
    other = ("--database-url", f"sqlite:///{folder / 'other.db'}")
    assert cli("db", "upgrade", *other).code == 0
    (folder / "renamed.csv").write_bytes((folder / "acme.zip").read_bytes())  # told by content, not by name
    first = json.loads(cli("org", "import", "renamed.csv", "--plan", "enterprise", "--json", *other).out)
    assert (first["result"], first["slug"], first["plan"]) == ("created", "acme", "enterprise")
    assert first["external_id"] == "x-1"
    again = cli("org", "import", "acme.zip", "--json", *other)
    assert (json.loads(again.out)["result"], json.loads(again.out)["id"]) == ("exists", first["id"])
    assert cli("record", "export", *GOODS, *other).out == cli("record", "export", *GOODS).out
    assert cli("fsck", "--json", *other).out == "[]\n"
    copy = cli("org", "import", "acme.zip", "--json")
    assert json.loads(copy.out)["slug"] == "acme-2"
    assert "copy" in copy.err


def test_parquet_without_its_library_says_what_to_install(folder: Path) -> None:
    """And nothing else of the command line needs it."""
    hidden = "import sys; sys.modules['pyarrow'] = None; sys.argv[0] = 'orgstead'"
    script = f"{hidden}; from orgstead.__main__ import main; sys.exit(main())"
    command = [sys.executable, "-c", script, "org", "export", "acme", "acme.zip"]
    done = subprocess.run([*command, "--parquet"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "pyarrow" in done.stderr
    assert done.stderr.endswith("next: pip install 'orgstead[parquet]'\n")
    assert not list(folder.glob("acme.zip*"))
    assert subprocess.run([*command, "--csv"], capture_output=True, check=False).returncode == 0


def test_what_is_no_archive_changes_nothing(cli: Run, folder: Path) -> None:
    assert cli("org", "export", "acme", "acme.zip").code == 0
    whole = (folder / "acme.zip").read_bytes()
    before = cli("org", "list", "--json").out
    for name, content in {"cut.zip": whole[:-30], "odd.zip": b"PK\x03\x04" + bytes(100)}.items():
        (folder / name).write_bytes(content)
        result = cli("org", "import", name)
        assert (result.code, result.out) == (2, "")
        assert result.err.startswith("error archive.invalid: ")
    assert cli("org", "import", "acme.zip", "--plan", "nonsense").code == 2
    assert cli("org", "import", "acme.zip", "--report", "r.csv").code == 2
    assert cli("org", "export", "nobody", "new.zip").code == 5
    assert cli("org", "list", "--json").out == before
    assert not (folder / "new.zip").exists()
    assert not list(folder.glob("*.part"))
