"""Settings: the order of their sources, what is refused and how it is said, and that no secret is ever shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from orgstead.config import load
from orgstead.errors import ConfigurationError
from orgstead.model import PlacementKind
from orgstead.settings import Settings, describe

PORT = "ORGSTEAD_HTTP__PORT"
CANARY = "canary-4f1c-value"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder: nobody's ``orgstead.toml`` is read by accident."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(environ: dict[str, str], file: Path | None = None) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(environ=environ, file=file)
    assert caught.value.next, "nobody is left without a next step"
    return caught.value.detail


def test_defaults_need_no_source() -> None:
    found = load(environ={})
    assert found.settings == Settings()
    assert found.sources == {}
    assert found.source_of("http.port") == "default"


def test_the_settings_that_people_were_promised_have_the_names_and_defaults_they_were_promised() -> None:
    found = {setting.variable.removeprefix("ORGSTEAD_"): setting for setting in describe()}
    promised = {
        "DATABASE_URL": "sqlite:///orgstead-data/main.db",
        "MIGRATION_URL": None,
        "SECRET_KEY": None,
        "PUBLIC_URL": None,
        "MODE": "dev",
        "HTTP__HOST": "127.0.0.1",
        "HTTP__PORT": 8410,
        "MANAGEMENT__HOST": "127.0.0.1",
        "MANAGEMENT__PORT": 8411,
        "SIGNUP": "open",
        "PLANS__<NAME>__PLACEMENT": None,
        "JWT__ALGORITHM": "HS256",
        "JWT__TTL": 900,
        "PASSWORDS__MIN_LENGTH": 8,
        "PASSWORDS__MEMORY_KIB": 19_456,
        "PASSWORDS__ITERATIONS": 2,
        "PASSWORDS__PARALLELISM": 1,
        "DELETE_GRACE_DAYS": 30,
        "TRUSTED_PROXIES": (),
    }
    assert {name: found[name].default if name in found else "missing" for name in promised} == promised
    assert "in seconds" in found["JWT__TTL"].description


def test_each_source_gives_way_to_the_one_before_it(elsewhere: Path) -> None:
    (elsewhere / "port").write_text("3000\n")
    (elsewhere / "orgstead.toml").write_text("[http]\nport = 2000\n")
    layers = [
        ({}, None, 2000, "orgstead.toml"),
        ({f"{PORT}_FILE": "port"}, None, 3000, f"{PORT}_FILE"),
        ({f"{PORT}_FILE": "port", PORT: "4000"}, None, 4000, PORT),
        ({f"{PORT}_FILE": "port", PORT: "4000"}, 5000, 5000, "flag"),
    ]
    for environ, flag, port, source in layers:
        found = load({"http.port": flag}, environ=environ)
        assert (found.settings.http.port, found.source_of("http.port")) == (port, source)


def test_sources_are_merged_setting_by_setting(elsewhere: Path) -> None:
    (elsewhere / "orgstead.toml").write_text('[http]\nport = 2000\nhost = "::1"\n')
    found = load(environ={PORT: "4000"}).settings
    assert (found.http.host, found.http.port) == ("::1", 4000)


def test_the_process_environment_is_read_when_no_other_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PORT, "4001")
    assert load().settings.http.port == 4001
    assert Settings().http.port == 8410, "the constructor must not read the environment behind its caller's back"


def test_settings_are_frozen() -> None:
    settings = Settings()
    with pytest.raises(ValidationError):
        settings.mode = "production"
    with pytest.raises(ValidationError):
        settings.http.port = 1


def test_lists_are_separated_by_commas() -> None:
    found = load(environ={"ORGSTEAD_TRUSTED_PROXIES": "10.0.0.0/8, ::1", "ORGSTEAD_HTTP__ALLOWED_HOSTS": ""}).settings
    assert found.trusted_proxies == ("10.0.0.0/8", "::1")
    assert found.http.allowed_hosts == ()


def test_a_plan_is_added_to_the_default_ones() -> None:
    found = load(environ={"ORGSTEAD_PLANS__GOLD__PLACEMENT": "dedicated", "ORGSTEAD_DEFAULT_PLAN": "gold"})
    assert {name: plan.placement for name, plan in found.settings.plans.items()} == {
        "free": PlacementKind.POOLED,
        "pro": PlacementKind.POOLED,
        "enterprise": PlacementKind.DEDICATED,
        "gold": PlacementKind.DEDICATED,
    }
    assert found.source_of("plans.gold.placement") == "ORGSTEAD_PLANS__GOLD__PLACEMENT"
    assert found.settings.kind_of("gold") is PlacementKind.DEDICATED
    assert found.settings.kind_of("bronze") is None


def test_a_named_file_must_be_there(elsewhere: Path) -> None:
    (elsewhere / "other.toml").write_text("delete_grace_days = 7\n")
    assert load(environ={"ORGSTEAD_CONFIG": "other.toml"}).settings.delete_grace_days == 7
    assert load(environ={"ORGSTEAD_CONFIG": "nowhere"}, file=Path("other.toml")).settings.delete_grace_days == 7
    assert "nowhere.toml" in refused({}, Path("nowhere.toml"))
    assert "nowhere.toml" in refused({"ORGSTEAD_CONFIG": "nowhere.toml"})


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ORGSTEAD_HTTP_PORT", PORT),
        ("ORGSTEAD_HTPP__PORT", PORT),
        ("ORGSTEAD_SECRETKEY", "ORGSTEAD_SECRET_KEY"),
        ("ORGSTEAD_PLANS__GOLD__PLACE", "ORGSTEAD_PLANS__"),
    ],
)
def test_an_unknown_variable_warns_with_the_nearest_name(name: str, meant: str) -> None:
    (warning,) = load(environ={name: CANARY}).warnings
    assert name in warning
    assert meant in warning
    assert CANARY not in warning


def test_variables_that_are_no_settings_do_not_warn() -> None:
    environ = {"ORGSTEAD_TEST_DATA": "x", "ORGSTEAD_FAILPOINTS": "x", "ORGSTEADX": "x", "HOME": "x"}
    assert load(environ=environ).warnings == ()


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({PORT: CANARY}, f"http.port ({PORT})"),
        ({PORT: "70000"}, "0 to 65535"),
        ({"ORGSTEAD_MODE": CANARY}, "one of dev, production"),
        ({"ORGSTEAD_LOG__LEVEL": CANARY}, "one of debug, info, warning, error"),
        ({"ORGSTEAD_TRUSTED_PROXIES": CANARY}, "an IP address or a network"),
        ({"ORGSTEAD_PUBLIC_URL": CANARY}, "http://"),
        ({"ORGSTEAD_PUBLIC_URL": f"https://x/?{CANARY}"}, "without query"),
        ({"ORGSTEAD_PLANS__GOLD__PLACEMENT": CANARY}, "plans.gold.placement"),
        ({"ORGSTEAD_SIGNUP": "token"}, "signup_token"),
        ({"ORGSTEAD_SIGNUP": "token", "ORGSTEAD_SIGNUP_TOKEN": ""}, "signup_token"),
        (
            {"ORGSTEAD_MODE": "production", "ORGSTEAD_SIGNUP": "token", "ORGSTEAD_SIGNUP_TOKEN": "x" * 15},
            "signup_token",
        ),
        ({"ORGSTEAD_HTTP__ALLOWED_HOSTS": "http://example.com"}, "allowed_hosts"),
        ({"ORGSTEAD_HTTP__ALLOWED_HOSTS": "example.com,example.com:8410"}, "allowed_hosts"),
        ({"ORGSTEAD_HTTP__ALLOWED_HOSTS": "beef.de:80"}, "allowed_hosts"),
        ({"ORGSTEAD_HTTP__ALLOWED_HOSTS": "[::1]"}, "allowed_hosts"),
        ({"ORGSTEAD_JWT__ALGORITHM": "EdDSA"}, "jwt.key_file"),
        ({"ORGSTEAD_DEFAULT_PLAN": CANARY}, "default_plan"),
        ({"ORGSTEAD_ORG_ROUTE_PLAN": CANARY}, "org_route_plan"),
        ({"ORGSTEAD_PLACEMENT__WARN_DEDICATED": "9000"}, "placement.warn_dedicated"),
        ({"ORGSTEAD_MANAGEMENT__PORT": "8410"}, "must differ"),
        ({"ORGSTEAD_PASSWORDS__MIN_LENGTH": "3"}, "8 to 64"),
        ({"ORGSTEAD_HTTP__DEADLINE_SECONDS": "nan"}, "http.deadline_seconds"),
        ({"ORGSTEAD_SECRET_KEY_FILE": f"/{CANARY}"}, "ORGSTEAD_SECRET_KEY_FILE"),
    ],
)
def test_a_fault_names_setting_source_and_what_is_allowed_but_not_the_value(environ: dict[str, str], said: str) -> None:
    detail = refused(environ)
    assert said in detail
    assert CANARY not in detail


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("HTP__PORT", "ORGSTEAD_HTTP__PORT"),
        ("FOO", None),
        ("MOD", "ORGSTEAD_MODE"),
        ("JWT__TTL_SECONDS", "ORGSTEAD_JWT__TTL"),
    ],
)
def test_only_near_names_are_suggested(name: str, meant: str | None) -> None:
    (warning,) = load(environ={f"ORGSTEAD_{name}": "1"}).warnings
    assert warning == f"ORGSTEAD_{name} is not a setting" + (f"; did you mean {meant}?" if meant else ".")


def test_all_faults_are_told_at_once() -> None:
    detail = refused({PORT: "x", "ORGSTEAD_MODE": "x"})
    assert "http.port" in detail
    assert "mode" in detail


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[htp]\nport = 1", "did you mean http?"),
        ("[http]\nprot = 1", "did you mean http.port?"),
        ("http = 3", "http (bad.toml): it is a table of settings, such as http.host."),
        ("a = ", "not valid TOML"),
        ("[http]\nport = 'x'", "http.port (bad.toml)"),
    ],
)
def test_a_faulty_file_is_explained(elsewhere: Path, text: str, said: str) -> None:
    (elsewhere / "bad.toml").write_text(text)
    assert said in refused({}, Path("bad.toml"))


def test_the_line_end_of_a_secret_file_is_not_part_of_the_secret(elsewhere: Path) -> None:
    (elsewhere / "key").write_bytes(b" spaces are \r\n")
    key = load(environ={"ORGSTEAD_SECRET_KEY_FILE": "key"}).settings.secret_key
    assert key is not None
    assert key.get_secret_value() == " spaces are "


def test_unreadable_content_is_explained(elsewhere: Path) -> None:
    (elsewhere / "binary").write_bytes(b"\xff\xfe")
    (elsewhere / "huge").write_bytes(b"x" * 70_000)
    assert "UTF-8" in refused({"ORGSTEAD_SECRET_KEY_FILE": "binary"})
    assert "larger" in refused({"ORGSTEAD_SECRET_KEY_FILE": "huge"})
    assert "UTF-8" in refused({}, elsewhere / "binary")
    assert "cannot be read" in refused({}, elsewhere)
    assert "cannot be read" in refused({"ORGSTEAD_SECRET_KEY_FILE": "missing"})
    assert "There is no" in refused({}, elsewhere / "missing")


def test_a_secret_is_not_in_any_text_of_the_settings() -> None:
    environ = {
        "ORGSTEAD_SECRET_KEY": CANARY,
        "ORGSTEAD_SIGNUP_TOKEN": CANARY,
        "ORGSTEAD_DATABASE_URL": f"scheme://user:{CANARY}@host/db",
    }
    found = load(environ=environ)
    assert CANARY not in repr(found)
    assert CANARY not in str(found.settings)
    assert found.settings.secret_key is not None
    assert found.settings.secret_key.get_secret_value() == CANARY


def test_derived_addresses() -> None:
    bare = Settings()
    assert (bare.base_url, bare.issuer) == ("http://127.0.0.1:8410", "http://127.0.0.1:8410")
    public = load(environ={"ORGSTEAD_PUBLIC_URL": "https://orgs.example.com/", "ORGSTEAD_HTTP__HOST": "::"}).settings
    assert (public.base_url, public.issuer) == ("https://orgs.example.com", "https://orgs.example.com")
    assert "orgs.example.com" in public.hosts
    assert "localhost" in public.hosts
    named = load(environ={"ORGSTEAD_HTTP__ALLOWED_HOSTS": "a.example", "ORGSTEAD_HTTP__HOST": "::1"}).settings
    assert named.hosts == ("a.example",)
    assert named.base_url == "http://[::1]:8410"


def test_every_setting_is_described() -> None:
    settings = list(describe())
    assert len(settings) > 40
    for setting in settings:
        assert setting.description.endswith("."), setting.path
        assert setting.allowed, setting.path
