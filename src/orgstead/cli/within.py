"""What the commands about one organization's data have in common: which organization, and where its data lives."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from orgstead import organizations
from orgstead.api import strict_json
from orgstead.app import App
from orgstead.cli.errors import UsageError
from orgstead.cli.local import SCOPE
from orgstead.errors import MalformedRequest, NotFound
from orgstead.organizations import Located

Org = Annotated[
    str, typer.Option("--org", metavar="ORGANIZATION", help="Its id, slug (a former one too) or external id.")
]
CollectionOption = Annotated[str, typer.Option("--collection", "-c", metavar="NAME", help="The collection.")]
Limit = Annotated[int | None, typer.Option(min=1, help="At most so many; all unless told.")]


async def organization(app: App, which: str) -> Located:
    """The organization of this id, slug or external id. Raises ``NotFound``, saying how to find it."""
    try:
        org_id = await app.storage.read(SCOPE, organizations.resolve, which)
        return await app.storage.read(SCOPE, organizations.get, org_id)
    except NotFound:
        raise NotFound("There is no organization of this id, slug or external id.", next="orgstead org list") from None


def json_option(text: str, option: str) -> Any:
    """The value of an option that takes JSON, as strict as the API. Raises ``UsageError``."""
    try:
        return strict_json.decode(text.encode(errors="surrogateescape"), what=f"value of {option}")
    except MalformedRequest as error:
        raise UsageError(error.detail, next=f"quote it for your shell: {option} '{{…}}'") from None


def json_file(path: Path) -> Any:
    """What a file of JSON holds, as strict as the API. Raises ``UsageError``."""
    try:
        return strict_json.decode(path.read_bytes(), what=f"file {path.name}")
    except OSError as error:
        raise UsageError(f"The file {path.name} cannot be read: {error.strerror}.") from None
    except MalformedRequest as error:
        raise UsageError(error.detail) from None
