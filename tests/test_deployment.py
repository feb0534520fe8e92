"""``Dockerfile``, ``compose.yaml`` and what they run. No container runs here: rules are held against the files, and
what can be run without one (the wheel, the health check, the upgrade before the service) is run."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from orgstead.config import load
from orgstead.settings import describe as settings_described
from orgstead.storage import describe
from tests import product_rules
from tests.support import PROJECT

COMPOSE: dict[str, Any] = yaml.safe_load((PROJECT / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"] == "orgstead"}
APIS = {name: service for name, service in OURS.items() if "ports" in service}
SECRETS = ("ORGSTEAD_SECRET_KEY", "DATABASE_PASSWORD", "DATABASE_OWNER_PASSWORD")
GIVEN = {name: secrets.token_hex(24) for name in SECRETS}


def environment(service: dict[str, Any], given: dict[str, str]) -> dict[str, str]:
    """What compose would set, of the variables that are given to it."""

    def value(match: re.Match[str]) -> str:
        name, _, rest = match[1].partition(":")
        if name in given:
            return given[name]
        assert rest.startswith("-"), f"compose would not start: {name} {rest}"
        return rest[1:]

    return {name: re.sub(r"\$\{([^}]+)\}", value, str(text)) for name, text in service.get("environment", {}).items()}


# --- compose.yaml -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OURS)
def test_what_compose_sets_are_settings_and_they_are_good_ones(name: str) -> None:
    configuration = load(environ=environment(OURS[name], GIVEN))
    assert configuration.warnings == ()
    assert configuration.settings.mode == "production"
    for part in name.split("-")[1:]:
        assert describe(configuration.settings.database_url).concurrent, part
    if "-" not in name:
        assert "ORGSTEAD_DATABASE_URL" not in OURS[name]["environment"], "the image's own, on the volume"


@pytest.mark.parametrize("name", SERVICES)
def test_nothing_starts_without_its_secrets(name: str) -> None:
    """Compose substitutes the whole file at once, and ends where a variable with ``:?`` is missing."""
    text = json.dumps(SERVICES[name])
    for secret in SECRETS:
        for use in re.findall(rf"\$\{{{secret}[^}}]*\}}", text):
            assert use.startswith(f"${{{secret}:?"), use
    assert "password123" not in text
    if name in OURS:
        assert f"${{{SECRETS[0]}:?" in text


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_has_no_rights_to_spare(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"]), "a number other than root's"
    assert not {"privileged", "network_mode", "pid", "ipc", "cap_add"} & service.keys()
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    assert ":" in service["image"] or service["image"] == "orgstead"
    assert not service["image"].endswith(":latest")


@pytest.mark.parametrize("name", APIS)
def test_the_service_waits_for_its_database_and_for_the_upgrade(name: str) -> None:
    engine = name.partition("-")[2]
    needs = APIS[name]["depends_on"]
    upgrade = f"upgrade-{engine}".rstrip("-")
    assert needs[upgrade] == {"condition": "service_completed_successfully"}
    assert SERVICES[upgrade]["command"] == ["db", "upgrade"]
    assert SERVICES[upgrade]["restart"] == "no"
    assert SERVICES[upgrade]["environment"] == APIS[name]["environment"]
    assert APIS[name]["profiles"] == SERVICES[upgrade]["profiles"] == [engine or "embedded"]
    if engine:
        for waiting in (needs, SERVICES[upgrade]["depends_on"]):
            (database,) = (other for other in waiting if other not in OURS)
            assert waiting[database] == {"condition": "service_healthy"}
            assert SERVICES[database]["healthcheck"]["test"]
            assert SERVICES[database]["profiles"] == [engine]


def test_a_profile_is_one_service_with_what_it_needs() -> None:
    """``docker compose --profile postgres up`` starts what has that profile, and all that has none."""
    assert sorted(profile for service in APIS.values() for profile in service["profiles"]) == [
        *("embedded", "mongodb", "postgres")
    ]
    for service in SERVICES.values():
        assert len(service["profiles"]) == 1
        for needed in service.get("depends_on", ()):
            assert SERVICES[needed]["profiles"] == service["profiles"]


def test_the_commands_that_start_it_name_profiles() -> None:
    """A plain ``up`` means the one in the ``.env`` of the first section."""
    text = (PROJECT / "docs" / "operating.md").read_text(encoding="utf-8")
    commands = re.findall(r"^docker compose (?:--profile (\w+) )?up --detach$", text, flags=re.MULTILINE)
    (default,) = re.findall(r"^COMPOSE_PROFILES=(\w+)$", text, flags=re.MULTILINE)
    assert sorted(profile or default for profile in commands) == ["embedded", "mongodb", "postgres"]


def test_what_compose_mounts_is_there() -> None:
    volumes = [volume for service in SERVICES.values() for volume in service.get("volumes", ())]
    sources = {volume.split(":")[0] for volume in volumes}
    assert {source for source in sources if not source.startswith("./")} == set(COMPOSE["volumes"])
    for source in sources - set(COMPOSE["volumes"]):
        assert (PROJECT / source).exists(), source
        assert f"{source}:" in " ".join(volume for volume in volumes if volume.endswith(":ro"))


@pytest.mark.parametrize("script", sorted((PROJECT / "deploy").rglob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_valid_and_refuse_to_run_without_their_secrets(script: Path) -> None:
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True)
    done = subprocess.run(
        ["bash", script], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "PASSWORD" in done.stderr


# --- Dockerfile -------------------------------------------------------------------------------------------------------

Instruction = tuple[str, str]


def stages() -> list[list[Instruction]]:
    """The instructions of each stage of the Dockerfile."""
    text = re.sub(r"^#.*\n", "", (PROJECT / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    found: list[list[Instruction]] = []
    for line in text.replace("\\\n", " ").splitlines():
        name, _, rest = line.partition(" ")
        if name == "FROM":
            found.append([])
        if name:
            found[-1].append((name, rest.strip()))
    return found


def told(stage: list[Instruction], name: str) -> list[str]:
    return [rest for instruction, rest in stage if instruction == name]


def test_the_image_is_built_from_locked_libraries_in_two_stages() -> None:
    build, final = stages()
    for base in told(build, "FROM") + told(final, "FROM"):
        assert re.match(r"python:3\.\d+-slim-\w+", base), "a base with a version"
    installs = re.findall(r"\S+/pip (?:install|wheel)[^&]*", " ".join(told(build, "RUN")))
    assert installs
    for install in installs:
        assert "--require-hashes" in install or "--no-deps" in install, install
        assert ("--requirement" in install) == ("--require-hashes" in install)
    assert "requirements-dev.lock" not in str(build)
    assert not any("pip" in run for run in told(final, "RUN"))
    assert [copy.split()[0] for copy in told(final, "COPY")] == ["--from=build"]
    assert not told(build, "ADD") + told(final, "ADD")


def test_the_image_runs_as_nobody_in_particular() -> None:
    _, final = stages()
    (user,) = told(final, "USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    assert f"--uid {user.partition(':')[0]} " in " ".join(told(final, "RUN"))
    assert {service["user"] for service in OURS.values()} == {user}
    assert told(final, "VOLUME") == ["/data"]
    assert [name for name, _ in final].index("USER") < [name for name, _ in final].index("ENTRYPOINT")
    assert json.loads(told(final, "ENTRYPOINT")[0]) == ["orgstead"]


def variables() -> dict[str, str]:
    return dict(part.split("=", 1) for part in " ".join(told(stages()[1], "ENV")).split())


def test_the_image_sets_settings_and_writes_below_its_volume_only() -> None:
    known = {setting.variable for setting in settings_described()}
    ours = {name: value for name, value in variables().items() if name.startswith("ORGSTEAD_")}
    assert ours.keys() <= known
    settings = load(environ=ours).settings
    assert settings.data_folder == Path("/data")
    assert describe(settings.database_url).folder == Path("/data")
    assert not any(word in name for name in ours for word in ("SECRET", "PASSWORD", "TOKEN"))


def test_the_build_sees_what_it_copies_and_no_more() -> None:
    first, *rest = [
        line for line in (PROJECT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")
    ]
    assert first == "*"
    seen = {line[1:] for line in rest if line.startswith("!")}
    copied = {source for copy in told(stages()[0], "COPY") for source in copy.split()[:-1]}
    assert seen == copied
    assert all((PROJECT / source).exists() for source in copied)


# --- what can be run --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built as the image builds it: with what is installed, from the files that the build sees."""
    target = tmp_path_factory.mktemp("dist")
    script = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", script, target], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    return target / done.stdout.strip().splitlines()[-1]


def test_the_wheel_holds_the_package_and_needs_what_is_locked(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (about,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        metadata = HeaderParser().parsestr(archive.read(about).decode())
        entry = archive.read(about.replace("METADATA", "entry_points.txt")).decode()
    source = {path.relative_to(PROJECT / "src").as_posix() for path in (PROJECT / "src").rglob("*") if path.is_file()}
    assert {name for name in names if ".dist-info/" not in name} == {n for n in source if "__pycache__" not in n}
    assert "orgstead = orgstead.__main__:main" in entry
    locked = product_rules.locked((PROJECT / "requirements.lock").read_text(encoding="utf-8"))
    assert product_rules.required(metadata.get_all("Requires-Dist", [])) <= locked
    assert set(metadata.get_all("Provides-Extra", [])) == {"postgres", "mongodb", "parquet"}


def test_what_builds_the_wheel_is_locked_too() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    text = (PROJECT / "requirements-build.lock").read_text(encoding="utf-8")
    assert list(product_rules.unlocked(text)) == []
    needed = product_rules.required(project["build-system"]["requires"])
    assert needed == product_rules.required(project["dependency-groups"]["build"])
    assert needed <= product_rules.locked(text)


@pytest.fixture
def container(wheel: Path, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """The installed wheel with the image's settings, its volume and the secrets of compose; ports of its own."""
    site, data = tmp_path / "site", tmp_path / "data"
    data.mkdir(mode=0o700)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    given = {**variables(), **environment(SERVICES["orgstead"], GIVEN)}
    environ = {name: value.replace("/data", str(data)) for name, value in given.items() if name != "PATH"}
    environ |= {"PATH": os.environ["PATH"], "PYTHONPATH": str(site), "ORGSTEAD_MANAGEMENT__PORT": "0"}
    environ |= {"ORGSTEAD_HTTP__PORT": "0", "ORGSTEAD_HTTP__HOST": "127.0.0.1"}
    for path in (site, *site.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o222)
    yield {"env": environ, "cwd": data, "text": True}
    for path in (site, *site.rglob("*")):
        path.chmod(path.stat().st_mode | 0o200)


def test_the_service_starts_as_compose_starts_it_and_the_health_check_sees_it(container: dict[str, Any]) -> None:
    (check,) = told(stages()[1], "HEALTHCHECK")
    command = json.loads(check.partition("CMD ")[2])
    assert command[0] == "python"

    def healthy(port: int) -> bool:
        env = {**container["env"], "ORGSTEAD_MANAGEMENT__PORT": str(port)}
        done = subprocess.run([sys.executable, *command[1:]], env=env, capture_output=True, timeout=60, check=False)
        return done.returncode == 0

    orgstead = [sys.executable, "-m", "orgstead"]
    where = [sys.executable, "-c", "import orgstead; print(orgstead.__file__)"]
    assert "/site/" in subprocess.run(where, **container, capture_output=True, check=True).stdout
    subprocess.run([*orgstead, *SERVICES["upgrade"]["command"]], **container, capture_output=True, check=True)
    service = subprocess.Popen(
        [*orgstead, *json.loads(told(stages()[1], "CMD")[0])], **container, stderr=subprocess.PIPE
    )
    assert service.stderr is not None
    try:
        started = json.loads(service.stderr.readline())
        assert (started["event"], started["mode"]) == ("service.started", "production")
        port = int(started["management"].rpartition(":")[2])
        assert healthy(port)
        service.terminate()
        assert service.wait(60) == 0
        assert not healthy(port)
    finally:
        service.kill()
        service.communicate()
