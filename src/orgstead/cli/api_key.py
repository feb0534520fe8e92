"""``orgstead api-key``: the credentials of an organization's programs, as the operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from orgstead import api_keys
from orgstead.app import App
from orgstead.audit import OPERATOR
from orgstead.cli import within
from orgstead.cli.commands import command, group
from orgstead.cli.local import as_rows, everything, reading, writing
from orgstead.cli.output import Output
from orgstead.cli.within import Limit, Org
from orgstead.errors import NotFound
from orgstead.model import ApiKey
from orgstead.representations import api_key as shown
from orgstead.storage.port import OrgScope

app = group("List API keys of an organization, and end those that leaked.")

COLUMNS = ("id", "name", "role", "created_by", "expires_at", "last_used_at", "created_at")


@command(app, "list")
def list_(ctx: typer.Context, org: Org, limit: Limit = None) -> None:
    """List an organization's API keys, oldest first. What they open with is shown to nobody."""

    async def work(app: App, out: Output) -> None:
        org_id = (await within.organization(app, org)).organization.id

        async def fetch(after: Sequence[Any] | None, size: int) -> Sequence[ApiKey]:
            last = None if after is None else after[0]
            found, _ = await app.storage.read(OrgScope(org_id), api_keys.page, org_id, after=last, limit=size)
            return found

        await out.stream(as_rows(everything(fetch, lambda key: (key.id,), limit), shown), COLUMNS)

    reading(ctx, work)


@command(app, "delete")
def delete(
    ctx: typer.Context,
    api_key: Annotated[str, typer.Argument(metavar="KEY", help="Its id, such as key_01k….")],
    org: Org,
) -> None:
    """End an API key: it is refused from the next request on."""

    async def work(app: App, out: Output) -> None:
        org_id = (await within.organization(app, org)).organization.id
        try:
            found = await app.storage.read(OrgScope(org_id), api_keys.get, org_id, api_key)
            out.confirm(f"End the API key {found.name} ({found.id})? Programs that use it lose access at once.")
            await app.storage.run(OrgScope(org_id), api_keys.delete, org_id, api_key, OPERATOR, app.clock())
        except NotFound:
            next_ = f"orgstead api-key list --org {org_id}"
            raise NotFound("The organization has no API key of this id.", next=next_) from None
        out.item({**shown(found), "deleted": True})

    writing(ctx, work)
