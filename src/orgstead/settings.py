"""Every setting of the product: its type, its default, its limits and what it is for. ``config.py`` reads them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from orgstead.model import PlacementKind
from orgstead.storage import DEFAULT_URL


def _split(value: Any) -> Any:
    """``"a, b"`` as ``("a", "b")``: environment variables hold lists as comma-separated text."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _networks(value: tuple[str, ...]) -> tuple[str, ...]:
    for network in value:
        try:
            ip_network(network)
        except ValueError:
            raise ValueError("each entry must be an IP address or a network such as 10.0.0.0/8") from None
    return value


def _host_names(value: tuple[str, ...]) -> tuple[str, ...]:
    for name in value:
        try:
            if not _HOST_NAME.fullmatch(name):
                ip_address(name)
        except ValueError:
            raise ValueError("each entry must be *, a name, *.name or an IP address, without port and path") from None
    return value


def _web_address(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("it must be an http:// or https:// address without query or fragment")
    return value.rstrip("/")


_HOST_NAME = re.compile(r"\*|(\*\.)?[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\.?")

MIN_SIGNUP_TOKEN = 16
"""Characters: with as many random ones, nobody finds it by trying."""

Texts = Annotated[tuple[str, ...], BeforeValidator(_split)]
Paths = Annotated[tuple[Path, ...], BeforeValidator(_split)]
Networks = Annotated[Texts, AfterValidator(_networks)]
HostNames = Annotated[Texts, AfterValidator(_host_names)]
WebAddress = Annotated[str, AfterValidator(_web_address)]
Port = Annotated[int, Field(ge=0, le=65535)]
Limit = Annotated[int | None, Field(ge=0), BeforeValidator(lambda value: None if value == "" else value)]
"""Empty text is None: neither an environment variable nor TOML can say that."""

Rate = Annotated[float | None, Field(gt=0, le=1_000_000), BeforeValidator(lambda value: None if value == "" else value)]


class Group(BaseModel):
    """A part of the settings with a name of its own, such as ``http``."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class HttpSettings(Group):
    host: str = Field(default="127.0.0.1", min_length=1, description="Address that the API listens on.")
    port: Port = Field(default=8410, description="Port of the API. 0 takes a free one.")
    allowed_hosts: HostNames = Field(
        default=(),
        description="Host names that requests may name; `*.example.com` covers sub-domains, "
        "`*` is every host. Empty: the host of `public_url`, the listening address and the loopback names.",
    )
    max_body_bytes: int = Field(default=1_048_576, ge=1024, description="Largest request body, in bytes.")
    workers: int = Field(
        default=1,
        ge=1,
        le=256,
        description="Processes that `serve` answers with, about one for each core. Needs a database server: the"
        " embedded database is written by one process.",
    )
    max_connections: int = Field(
        default=1000, ge=1, description="Connections that a process holds open at once; more are turned away."
    )
    deadline_seconds: float = Field(
        default=10, gt=0, le=300, description="Time for a request, after which it is given up."
    )
    header_timeout_seconds: float = Field(
        default=10, gt=0, le=300, description="Time for a request's headers to arrive."
    )
    body_timeout_seconds: float = Field(default=10.0, gt=0, le=300, description="Longest pause while a body arrives.")
    shutdown_seconds: float = Field(
        default=10, ge=0, le=300, description="Time that running requests get when stopping."
    )


class ManagementSettings(Group):
    host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Address of the management port. Keep it private. It answers to this name, `http.allowed_hosts`, "
        "localhost and every IP address.",
    )
    port: Port = Field(default=8411, description="Port of /healthz, /readyz and /metrics. 0 takes a free one.")


class PlanSettings(Group):
    placement: PlacementKind = Field(description="Where organizations on this plan keep their data.")
    max_records: Limit = Field(default=None, description="Records of an organization. Empty: no limit.")
    max_bytes: Limit = Field(
        default=None, description="Bytes of an organization's records, as compact JSON. Empty: no limit."
    )
    max_collections: Limit = Field(default=None, description="Collections of an organization. Empty: no limit.")
    max_members: Limit = Field(default=None, description="Members of an organization. Empty: no limit.")
    max_api_keys: Limit = Field(default=None, description="API keys of an organization. Empty: no limit.")
    requests_per_second: Rate = Field(
        default=None,
        description="Requests of an organization a second, for each serving process; two seconds' worth may come at "
        "once. Empty: no limit.",
    )


class ApiKeySettings(Group):
    after_demotion: Literal["dead", "limited"] = Field(
        default="dead",
        description="What becomes of an API key when the role of whoever made it falls below its own: it is refused, "
        "or it may do what they may. When they are no member any more, it is refused in any case.",
    )


class JwtSettings(Group):
    algorithm: Literal["HS256", "EdDSA", "ES256"] = Field(
        default="HS256",
        description="Algorithm of access tokens. HS256 uses `secret_key`; the others need `jwt.key_file`.",
    )
    ttl: int = Field(
        default=900,
        ge=30,
        le=900,
        description="Life of an access token, in seconds. It is accepted for 30 seconds more, for clocks that differ.",
    )
    issuer: str | None = Field(default=None, description="The `iss` claim. Empty: `public_url`.")
    audience: str = Field(default="orgstead", min_length=1, description="The `aud` claim.")
    key_file: Path | None = Field(
        default=None, description="Private key (PEM) that signs with EdDSA or ES256; nobody else may read its file."
    )
    retired_key_files: Paths = Field(
        default=(),
        description="Public keys (PEM), whose tokens are still accepted after a rotation.",
    )


class PasswordSettings(Group):
    min_length: int = Field(default=8, ge=8, le=64, description="Fewest characters of a password.")
    memory_kib: int = Field(default=19_456, ge=8192, le=4_194_304, description="Memory of one Argon2id hash, in KiB.")
    iterations: int = Field(default=2, ge=1, le=100, description="Passes of one Argon2id hash.")
    parallelism: int = Field(default=1, ge=1, le=16, description="Lanes of one Argon2id hash.")


class SessionSettings(Group):
    days: int = Field(default=30, ge=1, le=365, description="Life of a session: log in again after this many days.")
    refresh_grace_seconds: int = Field(
        default=30, ge=0, le=300, description="How long the previous refresh token still works after a rotation."
    )


class PlacementSettings(Group):
    naming: Literal["slug", "id"] = Field(
        default="slug", description="Name of a dedicated space: after the slug (renamed with it) or the unchanging id."
    )
    warn_dedicated: int = Field(default=1000, ge=0, description="Dedicated spaces from which `doctor` warns.")
    max_dedicated: int = Field(default=5000, ge=0, description="Dedicated spaces that a database may have.")


class LogSettings(Group):
    format: Literal["auto", "text", "json"] = Field(
        default="auto", description="Form of log lines; auto is text on a terminal, JSON elsewhere."
    )
    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least important lines shown."
    )


class RecordSettings(Group):
    max_bytes: int = Field(
        default=1_048_576, ge=1024, le=16_777_216, description="Largest record, in bytes of compact JSON."
    )
    unindexed: Literal["refuse", "limit"] = Field(
        default="refuse",
        description="What becomes of a query that would look at more than `records.max_examined` records because no "
        "index serves it: refuse it with advice, or answer what was found so far with a cursor to go on.",
    )
    max_examined: int = Field(
        default=10_000, ge=100, le=1_000_000, description="Records that one query may look at without returning them."
    )
    max_aggregated: int = Field(
        default=200_000, ge=1000, le=100_000_000, description="Records that one aggregate may be made of."
    )
    events_kept_days: int = Field(default=7, ge=1, le=365, description="Days for which events of records are kept.")
    require_if_match: bool = Field(
        default=False,
        description="Change and delete records only by the version that was read (`If-Match`, `if_version`).",
    )
    max_streams: int = Field(
        default=200, ge=0, le=100_000, description="Event streams that one process holds open at once."
    )
    max_organization_streams: int = Field(
        default=20, ge=0, le=100_000, description="How many of them one organization can have."
    )


DEFAULT_PLANS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "free": {
            "placement": PlacementKind.POOLED,
            "max_records": 10_000,
            "max_bytes": 100 * 1_048_576,
            "max_collections": 100,
            "max_members": 100,
            "max_api_keys": 10,
            "requests_per_second": 100,
        },
        "pro": {
            "placement": PlacementKind.POOLED,
            "max_records": 1_000_000,
            "max_bytes": 10 * 1_073_741_824,
            "max_collections": 1000,
            "max_members": 1000,
            "max_api_keys": 100,
            "requests_per_second": 1000,
        },
        "enterprise": {"placement": PlacementKind.DEDICATED},
    }
)


def _with_default_plans(value: Any) -> Any:
    """The default plans, each with what is said of it, and those that are named beside them."""
    if not isinstance(value, dict):
        return value
    plans: dict[str, Any] = {name: dict(plan) for name, plan in DEFAULT_PLANS.items()}
    for name, plan in value.items():
        plans[name] = {**plans.get(name, {}), **plan} if isinstance(plan, dict) else plan
    return plans


class Settings(BaseSettings):
    """The whole configuration, frozen. The constructor takes values only; ``config.load`` reads."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix="ORGSTEAD_",
        env_nested_delimiter="__",
        enable_decoding=False,
        hide_input_in_errors=True,
        validate_default=True,
    )

    database_url: str = Field(
        default=DEFAULT_URL, min_length=1, repr=False, description="The database. Its scheme chooses the engine."
    )
    migration_url: SecretStr | None = Field(
        default=None,
        description="The same database for the role that owns it: changes the schema and makes dedicated spaces. Needed"
        " where `database_url` names a role without those rights, as it should on a server that knows roles.",
    )
    data_folder: Path = Field(default=Path("orgstead-data"), description="Folder of the key file, made with mode 0700.")
    mode: Literal["dev", "production"] = Field(
        default="dev", description="dev makes a key file by itself; production refuses to start with anything unsafe."
    )
    secret_key: SecretStr | None = Field(
        default=None, description="Secret that tokens and cursors are signed with, at least 32 random bytes."
    )
    public_url: WebAddress | None = Field(default=None, description="Address under which people reach the service.")
    signup: Literal["open", "token", "closed"] = Field(
        default="open",
        description="Who may create an organization without an account: everyone, who has the token, no one.",
    )
    signup_token: SecretStr | None = Field(default=None, description="What `signup = token` asks for.")
    plans: Annotated[dict[str, PlanSettings], BeforeValidator(_with_default_plans)] = Field(
        default_factory=dict, description="Plans by name. Those named here are added to the default ones."
    )
    default_plan: str = Field(default="free", description="Plan of an organization that is created without naming one.")
    org_route_plan: str = Field(default="enterprise", description="The same for `POST /org/create`.")
    delete_grace_days: int = Field(default=30, ge=0, le=3650, description="Days in which a deletion can be undone.")
    name_quarantine_days: int = Field(
        default=30, ge=0, le=3650, description="Days before others may take a released name."
    )
    trusted_proxies: Networks = Field(
        default=(), description="Addresses or networks, whose X-Forwarded-For is believed."
    )
    http: HttpSettings = HttpSettings()
    management: ManagementSettings = ManagementSettings()
    jwt: JwtSettings = JwtSettings()
    passwords: PasswordSettings = PasswordSettings()
    sessions: SessionSettings = SessionSettings()
    api_keys: ApiKeySettings = ApiKeySettings()
    placement: PlacementSettings = PlacementSettings()
    records: RecordSettings = RecordSettings()
    log: LogSettings = LogSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what the constructor is given; ``load`` reads the other sources and notes where each value is from."""
        return (init_settings,)

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.signup == "token":
            token = self.signup_token.get_secret_value() if self.signup_token else ""
            if not token:
                raise ValueError("signup = token needs signup_token")
            if self.mode == "production" and len(token) < MIN_SIGNUP_TOKEN:
                raise ValueError(f"in production signup_token has at least {MIN_SIGNUP_TOKEN} characters")
        if self.jwt.algorithm != "HS256" and self.jwt.key_file is None:
            raise ValueError("jwt.algorithm EdDSA and ES256 need jwt.key_file")
        for setting in ("default_plan", "org_route_plan"):
            if getattr(self, setting) not in self.plans:
                raise ValueError(f"{setting} must name one of the plans")
        if self.placement.warn_dedicated > self.placement.max_dedicated:
            raise ValueError("placement.warn_dedicated must not be above placement.max_dedicated")
        if self.http.port and (self.http.host, self.http.port) == (self.management.host, self.management.port):
            raise ValueError("http.port and management.port must differ")
        return self

    @property
    def base_url(self) -> str:
        """``public_url``, or the listening address where none is set."""
        host = f"[{self.http.host}]" if ":" in self.http.host else self.http.host
        return self.public_url or f"http://{host}:{self.http.port}"

    @property
    def https(self) -> bool:
        """Do people reach the service over https?"""
        return self.base_url.startswith("https://")

    @property
    def issuer(self) -> str:
        return self.jwt.issuer or self.base_url

    @property
    def hosts(self) -> tuple[str, ...]:
        """The host names that requests may name, without ports."""
        if self.http.allowed_hosts:
            return self.http.allowed_hosts
        public = urlsplit(self.base_url).hostname
        names = ("localhost", "127.0.0.1", "::1", self.http.host, *([public] if public else []))
        return tuple(dict.fromkeys(names))

    def kind_of(self, plan: str) -> PlacementKind | None:
        """Where a plan keeps its data, or None if there is no such plan."""
        found = self.plans.get(plan)
        return found.placement if found else None


class Setting(BaseModel):
    """One setting as its reference shows it. ``path`` is dotted; ``plans.<name>.placement`` stands for any plan."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    path: str
    description: str
    allowed: str
    default: Any
    secret: bool

    @property
    def variable(self) -> str:
        return variable_of(self.path)


def variable_of(path: str) -> str:
    """``http.port`` -> ``ORGSTEAD_HTTP__PORT``."""
    return "ORGSTEAD_" + path.upper().replace(".", "__")


def describe(model: type[BaseModel] = Settings, prefix: str = "") -> Iterator[Setting]:
    """Every setting in the order of declaration, groups opened."""
    for name, field in model.model_fields.items():
        path = prefix + name
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Group):
            yield from describe(annotation, f"{path}.")
        elif name == "plans":
            yield from describe(PlanSettings, "plans.<name>.")
        else:
            yield Setting(
                path=path,
                description=field.description or "",
                allowed=_allowed(annotation, field.metadata),
                default=None if field.is_required() else field.default,
                secret=SecretStr in (annotation, *get_args(annotation)),
            )


_KINDS: dict[Any, str] = {
    bool: "true or false",
    int: "integer",
    float: "number",
    str: "text",
    Path: "path",
    SecretStr: "secret",
}


def _allowed(annotation: Any, metadata: list[Any]) -> str:
    """What a value may be, in words: ``integer, 0 to 65535``, ``one of dev, production``."""
    options = tuple(getattr(option, "__origin__", option) for option in get_args(annotation))
    if annotation is PlacementKind:
        return "one of " + ", ".join(PlacementKind)
    if options and all(isinstance(option, str) for option in options):
        return "one of " + ", ".join(options)
    if Ellipsis in options:
        return "comma-separated list"
    words = _KINDS[next(kind for kind in (annotation, *options) if kind in _KINDS)]
    bounds = {
        name: getattr(m, name) for m in metadata for name in ("ge", "gt", "le") if getattr(m, name, None) is not None
    }
    if {"ge", "le"} <= bounds.keys():
        return f"{words}, {bounds['ge']} to {bounds['le']}"
    if {"gt", "le"} <= bounds.keys():
        return f"{words}, above {bounds['gt']}, up to {bounds['le']}"
    if "ge" in bounds:
        return f"{words}, {bounds['ge']} or more"
    return words
