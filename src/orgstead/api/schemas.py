"""What requests may carry and what answers look like: the models of the documentation and of validation.

Models of requests refuse members that they do not know (mass assignment) and convert nothing: a number is no text.
Models of answers describe; the answers themselves are made by ``views``, and tests hold the two together.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from orgstead.api_keys import MAX_NAME as MAX_KEY_NAME
from orgstead.model import OperationState, OrganizationStatus, PlacementKind, PlacementState, Role
from orgstead.passwords import MAX_BYTES, MIN_LENGTH


def given(value: Any) -> Any:
    """For members that may be left out, which is not the same as null. Raises ValueError for null."""
    if value is None:
        raise ValueError("null")
    return value


Text = Annotated[str | None, BeforeValidator(given), WithJsonSchema({"type": "string"})]
"""A text that may be left out, which is not the same as null: null is refused."""

Object = Annotated[dict[str, Any] | None, BeforeValidator(given), WithJsonSchema({"type": "object"})]


class Input(BaseModel):
    """A request body."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class Output(BaseModel):
    """A part of an answer."""

    model_config = ConfigDict(extra="forbid")


# What the documentation can say about a value; what is refused, and why, is the use cases' to say.
_EMAIL: dict[str, Any] = {"format": "email", "maxLength": 254}
_NAME: dict[str, Any] = {"minLength": 1, "maxLength": 255}
_NEW_PASSWORD: dict[str, Any] = {"format": "password", "minLength": MIN_LENGTH, "maxLength": MAX_BYTES}
_PASSWORD: dict[str, Any] = {"format": "password"}
_SLUG: dict[str, Any] = {"minLength": 2, "maxLength": 48, "pattern": "^[a-z0-9]+(-[a-z0-9]+)*$"}

EMAIL = "ada@acme.example"
PASSWORD = "correct horse battery"  # noqa: S105  an example of the documentation
ORGANIZATION_ID = "org_01kcy7w2e4g8m3n5p7q9r1s3t5"
OPERATION_ID = "op_01kcy7w2e4g8m3n5p7q9r1s3t5"
USER_ID = "usr_01kcy7w2e4g8m3n5p7q9r1s3t5"
API_KEY_ID = "key_01kcy7w2e4g8m3n5p7q9r1s3t5"


# --- requests -------------------------------------------------------------------------------------------------------


class OrgCreate(Input):
    """Create an organization, with its first administrator."""

    organization_name: str = Field(
        examples=["Acme Labs"], description="The organization's name.", json_schema_extra=_NAME
    )
    email: str = Field(
        examples=[EMAIL],
        description="Address of the administrator: a new account, or an existing one.",
        json_schema_extra=_EMAIL,
    )
    password: str = Field(
        examples=[PASSWORD], description="Password of the administrator's account.", json_schema_extra=_NEW_PASSWORD
    )
    plan: Text = Field(default=None, examples=["enterprise"], description="Plan; it decides where data lives.")


class OrgUpdate(Input):
    """A new name of the organization, a new e-mail address or password of the calling administrator; at least one."""

    organization_name: Text = Field(default=None, examples=["Acme Laboratories"], json_schema_extra=_NAME)
    email: Text = Field(default=None, examples=["ada.lovelace@acme.example"], json_schema_extra=_EMAIL)
    password: Text = Field(default=None, examples=["another long passphrase"], json_schema_extra=_NEW_PASSWORD)


class AdminLogin(Input):
    """An administrator's e-mail address and password."""

    email: str = Field(examples=[EMAIL])
    password: str = Field(examples=[PASSWORD], json_schema_extra=_PASSWORD)
    organization: Text = Field(
        default=None, examples=["acme-labs"], description="Id, slug or name, for people who belong to several."
    )


class Login(AdminLogin):
    """An e-mail address and password."""


class Refresh(Input):
    """The refresh token of the last answer; it works once."""

    refresh_token: str = Field(examples=["rt_01kcy7w2e4g8m3n5p7q9r1s3t5_1_" + "0" * 64])


class PasswordChange(Input):
    """A new password, and the present one as proof."""

    current_password: str = Field(examples=[PASSWORD], json_schema_extra=_PASSWORD)
    new_password: str = Field(examples=["another long passphrase"], json_schema_extra=_NEW_PASSWORD)


class Owner(Input):
    """The account of the new organization's owner: a new one, or an existing one with its password."""

    email: str = Field(examples=[EMAIL], json_schema_extra=_EMAIL)
    password: str = Field(examples=[PASSWORD], json_schema_extra=_NEW_PASSWORD)


class OrganizationCreate(Input):
    """A new organization. ``owner`` is needed without an access token, and refused with one."""

    name: str = Field(examples=["Acme Labs"], json_schema_extra=_NAME)
    slug: Text = Field(
        default=None,
        examples=["acme-labs"],
        description="2 to 48 of a-z, 0-9 and -; from the name if absent.",
        json_schema_extra=_SLUG,
    )
    plan: Text = Field(default=None, examples=["free"])
    metadata: Object = Field(
        default=None, examples=[{"crm_id": "A-17"}], description="Any JSON object of at most 16 KiB."
    )
    owner: Annotated[Owner | None, BeforeValidator(given)] = Field(
        default=None, examples=[{"email": EMAIL, "password": PASSWORD}]
    )


class OrganizationUpdate(Input):
    """A JSON merge-patch (RFC 7396): absent members stay, null inside ``metadata`` removes."""

    name: Text = Field(
        default=None,
        examples=["Acme Labs Ltd"],
        description="Display name; the slug stays.",
        json_schema_extra=_NAME,
    )
    metadata: Object = Field(
        default=None, examples=[{"crm_id": "A-18"}], description="Merged into the present object; at most 16 KiB."
    )


class Rename(Input):
    """A new name, and with it a new slug; the old slug keeps leading to the organization."""

    name: str = Field(examples=["Acme Laboratories"], json_schema_extra=_NAME)
    slug: Text = Field(default=None, examples=["acme-laboratories"], json_schema_extra=_SLUG)


class PlanChange(Input):
    """Another plan."""

    plan: str = Field(examples=["pro"])


class ApiKeyCreate(Input):
    """A new API key."""

    name: str = Field(
        examples=["nightly export"],
        description="What it is for, to tell it from others.",
        json_schema_extra={"minLength": 1, "maxLength": MAX_KEY_NAME},
    )
    role: Literal["viewer", "member", "admin", "owner"] = Field(
        examples=["viewer"], description="What it may do: not more than the caller."
    )
    expires_at: Text = Field(
        default=None,
        examples=["2027-11-23T10:00:00Z"],
        description="RFC 3339; after that it is refused. Left out: never.",
        json_schema_extra={"format": "date-time"},
    )


# --- answers --------------------------------------------------------------------------------------------------------


class Placement(Output):
    """Where the organization's data lives."""

    cell: str
    kind: PlacementKind
    epoch: int
    state: PlacementState


class Organization(Output):
    """An organization."""

    object: Literal["organization"]
    id: str = Field(examples=[ORGANIZATION_ID])
    name: str = Field(examples=["Acme Labs"])
    slug: str = Field(examples=["acme-labs"])
    collection_name: str | None = Field(
        examples=["org_acme-labs"], description="Physical name of its own collection; null when it shares one."
    )
    plan: str = Field(examples=["enterprise"])
    status: OrganizationStatus
    external_id: str | None
    metadata: dict[str, Any]
    placement: Placement
    version: int
    created_at: str = Field(examples=["2026-11-23T10:00:00.000Z"])
    updated_at: str = Field(examples=["2026-11-23T10:00:00.000Z"])


class Admin(Output):
    """The administrator that was created, or found, with the organization."""

    id: str = Field(examples=[USER_ID])
    email: str = Field(examples=[EMAIL])


class CreatedOrganization(Output):
    """An organization and its first administrator."""

    organization: Organization
    admin: Admin


class OrganizationList(Output):
    """A part of a list."""

    object: Literal["list"]
    data: list[Organization]
    next_cursor: str | None = Field(description="Pass it as `cursor` to go on; null at the end.")


class Deletion(Output):
    """What became of the organization. ``purge_at`` is when its data is, or was, removed."""

    id: str = Field(examples=[ORGANIZATION_ID])
    status: Literal["closed", "purging", "purged"]
    purge_at: str = Field(examples=["2026-12-23T10:00:00.000Z"])


class Tokens(Output):
    """An access token for ``Authorization: Bearer``, and the refresh token that gets the next one."""

    access_token: str
    token_type: Literal["bearer"]
    expires_in: int = Field(examples=[900], description="Seconds.")
    refresh_token: str
    organization_id: str = Field(examples=[ORGANIZATION_ID])


class Me(Output):
    """The caller, and the organization that the access token is for."""

    object: Literal["user"]
    id: str = Field(examples=[USER_ID])
    email: str = Field(examples=[EMAIL])
    organization_id: str = Field(examples=[ORGANIZATION_ID])
    role: Role
    session_id: str
    created_at: str


class Operation(Output):
    """Work of several steps. ``error`` is the code of the last failure, ``progress`` goes from 0 to 1."""

    object: Literal["operation"]
    id: str = Field(examples=[OPERATION_ID])
    organization_id: str = Field(examples=[ORGANIZATION_ID])
    kind: str = Field(examples=["organization.rename"])
    state: OperationState
    step: str
    progress: float
    result: dict[str, Any]
    error: str | None
    created_at: str
    updated_at: str


class Fault(Output):
    """One place of the request that is wrong."""

    pointer: str = Field(examples=["/organization_name"], description="RFC 6901, or `/` and a query parameter's name.")
    code: str
    detail: str


class OrganizationChoice(Output):
    """One of the organizations to choose from."""

    id: str
    slug: str
    name: str


class Quota(Output):
    """The limit of the plan that is in the way."""

    what: str = Field(examples=["records"])
    used: int = Field(examples=[10000])
    limit: int = Field(examples=[10000])


class Problem(Output):
    """An error (RFC 9457). ``code`` is stable; ``detail`` is for people."""

    type: str = Field(examples=["urn:orgstead:error:organization.name_taken"])
    title: str
    status: int
    detail: str
    code: str = Field(examples=["organization.name_taken"])
    request_id: str
    errors: list[Fault]
    organizations: list[OrganizationChoice] | None = Field(
        default=None, description="With `auth.organization_required`: what to choose from."
    )
    quota: Quota | None = Field(default=None, description="With `quota.exceeded`: the limit, and what is used of it.")


class KeySet(Output):
    """Public keys of access tokens (RFC 7517); empty with HS256."""

    keys: list[dict[str, Any]]


class ApiKey(Output):
    """An API key, without its text."""

    object: Literal["api_key"]
    id: str = Field(examples=[API_KEY_ID])
    name: str = Field(examples=["nightly export"])
    role: Role
    created_by: str = Field(examples=[USER_ID], description="Who was shown it last. It ends with their membership.")
    expires_at: str | None = Field(examples=["2027-11-23T10:00:00.000Z"])
    last_used_at: str | None = Field(examples=["2026-11-23T10:00:00.000Z"], description="To the hour.")
    created_at: str
    updated_at: str


class NewApiKey(ApiKey):
    """An API key with its text, for ``Authorization: Bearer``."""

    token: str = Field(
        examples=["ok_" + "01kcy7w2e4g8m3n5p7q9r1s3t5" * 3 + "0" * 39],
        description="The key itself. It is shown now and never again.",
    )


class ApiKeyList(Output):
    """A part of a list."""

    object: Literal["list"]
    data: list[ApiKey]
    next_cursor: str | None = Field(description="Pass it as `cursor` to go on; null at the end.")
