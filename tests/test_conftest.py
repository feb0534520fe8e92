"""The account that ``conftest.py`` gives of a run: skips are named, and are failures where everything is required."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import PROJECT

SUITE = """
import pytest
from tests.support import sample

CASES = sample("a long suite", range(100), 3)

@pytest.mark.parametrize("case", CASES)
def test_sampled(case):
    assert case in range(100)

def test_real(real_data):
    assert (real_data / "organizations.csv").is_file()

def test_seed(seed):
    print("seed of the test", seed)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A small project with our conftest, one suite and no data."""
    tests = tmp_path / "tests"
    tests.mkdir()
    for name in ("conftest.py", "support.py"):
        shutil.copy(PROJECT / "tests" / name, tests / name)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib\npythonpath = .\n")
    (tests / "test_suite.py").write_text(SUITE)
    return tmp_path


def run(project: Path, *args: str, **environment: str) -> tuple[int, str]:
    """The exit code and the output of pytest in the project."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ORGSTEAD_", "PYTEST_"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *args],
        cwd=project,
        env=kept | environment | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("processes", [(), ("-p", "xdist", "-n", "2")], ids=["one process", "several"])
def test_names_what_is_skipped_and_sampled(project: Path, processes: tuple[str, ...]) -> None:
    code, output = run(project, *processes)
    assert code == 0
    account = output[output.index("not proven by this run") :]
    assert "skipped 1: the real data is not in" in account
    assert "sampled 3 of 100: a long suite" in account


def test_a_skip_fails_where_everything_is_required(project: Path) -> None:
    code, output = run(project, ORGSTEAD_TEST_REQUIRE="all")
    assert code == 1
    assert "4 passed, 1 error" in output
    assert "skipped, but ORGSTEAD_TEST_REQUIRE=all: the real data is not in" in output


def test_a_skipped_module_fails_where_everything_is_required(project: Path) -> None:
    (project / "tests" / "test_suite.py").write_text("import pytest\npytest.importorskip('no_such_module')\n")
    assert run(project)[0] == 5
    code, output = run(project, ORGSTEAD_TEST_REQUIRE="all")
    assert code == 2
    assert "could not import 'no_such_module'" in output


NEEDS_MONGOD = """
import pytest

@pytest.mark.real_mongodb
def test_failover(): pass

@pytest.mark.parametrize("engine", ["sqlite", pytest.param("mongodb", marks=pytest.mark.real_mongodb)])
def test_crash(engine): pass
"""


def test_what_needs_a_real_mongod_is_named_and_fails_only_where_that_is_asked_for(project: Path) -> None:
    (project / "tests" / "test_suite.py").write_text(NEEDS_MONGOD)
    there = {"ORGSTEAD_TEST_MONGODB_URI": "", "PATH": ""}
    code, output = run(project, ORGSTEAD_TEST_REQUIRE="all", **there)
    assert code == 0
    assert (
        "2 tests need a real mongod: tests/test_suite.py::test_crash[mongodb], tests/test_suite.py::test_failover"
        in output
    )
    assert "1 passed, 2 skipped" in output
    code, output = run(project, ORGSTEAD_TEST_REAL_MONGODB="1", **there)
    assert code == 1
    assert "skipped, but ORGSTEAD_TEST_REAL_MONGODB=1" in output
    code, output = run(project, **there | {"ORGSTEAD_TEST_MONGODB_URI": "mongodb://somewhere"})
    assert code == 0
    assert "real mongod" not in output


def test_an_expected_failure_is_not_a_skip(project: Path) -> None:
    (project / "tests" / "test_suite.py").write_text(
        "import pytest\n@pytest.mark.xfail(strict=True)\ndef test(): assert False\n"
    )
    code, output = run(project, ORGSTEAD_TEST_REQUIRE="all")
    assert code == 0
    assert "1 xfailed" in output


def test_passes_with_the_data_and_runs_everything(project: Path) -> None:
    (project / "data").mkdir()
    (project / "data" / "organizations.csv").touch()
    code, output = run(project, ORGSTEAD_TEST_REQUIRE="all", ORGSTEAD_TEST_DATA="data", ORGSTEAD_TEST_ALL="1")
    assert code == 0
    assert "102 passed" in output
    assert "not proven by this run" not in output


@pytest.mark.parametrize("said", ["::test_sampled[", "seed of the test"])
def test_a_seed_repeats_the_run(project: Path, said: str) -> None:
    def choices(seed: str) -> list[str]:
        _, output = run(project, "-s", "--verbose", ORGSTEAD_TEST_SEED=seed)
        assert f"seed: {seed} " in output
        return [line.split("[ ")[0] for line in output.splitlines() if said in line]

    assert choices("7") == choices("7") != choices("8")


HANGING = """
import asyncio
import pytest

pytestmark = pytest.mark.anyio

@pytest.fixture
async def held():
    yield
    print("fixture", "ended")

@pytest.mark.timeout(LIMIT)
async def test_hangs(held):
    await asyncio.Event().wait()

async def test_next(held):
    pass
"""


def test_a_coroutine_that_hangs_fails_and_lets_go_of_what_it_holds(project: Path) -> None:
    (project / "tests" / "test_suite.py").write_text(HANGING.replace("LIMIT", "100"))
    conftest = project / "tests" / "conftest.py"
    conftest.write_text(conftest.read_text().replace("SHARE_OF_THE_LIMIT = 0.8", "SHARE_OF_THE_LIMIT = 0.01"))
    code, output = run(project, "-p", "anyio.pytest_plugin", "-p", "pytest_timeout", "-s")
    assert code == 1
    assert "1 failed, 1 passed" in output
    assert "TimeoutError" in output
    assert output.count("fixture ended") == 2


def test_what_cannot_be_cancelled_ends_its_process_and_not_the_run(project: Path) -> None:
    hanging = HANGING.replace("LIMIT", "1").replace("await asyncio", "threading").replace("asyncio", "threading")
    (project / "tests" / "test_suite.py").write_text(hanging)
    plugins = ("-p", "anyio.pytest_plugin", "-p", "pytest_timeout", "-p", "xdist")
    code, output = run(project, *plugins, "-n", "1", "-o", "timeout_method=thread")
    assert code == 1
    assert "1 failed, 1 passed" in output
    assert "crashed while running" in output
