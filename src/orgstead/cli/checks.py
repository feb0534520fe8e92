"""Is this installation fit to serve? Looks, and changes nothing: also beside a running service."""

from __future__ import annotations

import os
import resource
import shutil
import stat
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from orgstead import operations
from orgstead.app import KEY_FILE, App, open_directory
from orgstead.config import Configuration
from orgstead.errors import ConfigurationError, OrgsteadError, SchemaOutdated, SchemaTooNew
from orgstead.findings import Finding, Status, fail, ok, warn
from orgstead.settings import Settings
from orgstead.storage import Description, describe
from orgstead.storage.port import Storage, SystemScope

SCOPE = SystemScope("doctor")
FEW_BYTES = 1 << 30
TOO_FEW_BYTES = 100 << 20
DESCRIPTORS_BESIDE_CONNECTIONS = 128
OLDEST_CREDIBLE_TIME = datetime(2026, 11, 1, tzinfo=UTC)
"""When this version was written: an earlier clock is wrong, and tokens would be too."""
CLOCK_TOLERANCE = timedelta(seconds=60)
_RIGHTS = "give the account that runs orgstead the right to read and write it"


async def examine(configuration: Configuration) -> list[Finding]:
    """Every check's findings, in a fixed order."""
    settings = configuration.settings
    found = [_configuration(configuration), *_secrets(configuration), *_production(settings)]
    try:
        database = describe(settings.database_url)
    except ConfigurationError as error:
        return [*found, fail("database", error.detail, error.next), _clock(), _open_files(settings)]
    found += [_folder(folder) for folder in _folders(settings, database)]
    found += _files(database)
    found += [finding async for finding in _database(settings)]
    return [*found, *_disk(database), *_processes(settings, database), _clock(), _open_files(settings)]


def _configuration(configuration: Configuration) -> Finding:
    if configuration.warnings:
        return warn("configuration", " ".join(configuration.warnings), "orgstead config docs")
    return ok(
        "configuration", f"Mode {configuration.settings.mode}; {len(configuration.sources)} settings of your own."
    )


def _secrets(configuration: Configuration) -> list[Finding]:
    """The files with secrets that everybody on this machine may read."""
    return [
        warn("secrets", f"Others on this machine may read {file}, which has a secret in it.", f"chmod 600 {file}")
        for file in configuration.secret_files
        if file.stat().st_mode & stat.S_IROTH
    ]


def _production(settings: Settings) -> list[Finding]:
    """What production needs that is not there: a fault in production mode as far as it would not start, else advice."""
    found = []
    if settings.mode == "dev":
        found.append(
            warn("production", "The mode is dev: keys are made without asking.", "set ORGSTEAD_MODE=production")
        )
    if settings.secret_key is None:
        found.append(
            (fail if settings.mode == "production" else warn)(
                "production", "There is no secret_key; production needs one.", "set ORGSTEAD_SECRET_KEY_FILE"
            )
        )
    if not (settings.public_url or "").startswith("https://"):
        found.append(
            warn(
                "production",
                "public_url is not an https:// address: passwords would travel in the clear.",
                "set ORGSTEAD_PUBLIC_URL",
            )
        )
    if settings.signup == "open":
        found.append(warn("production", "Everybody may create organizations.", "set ORGSTEAD_SIGNUP=token or closed"))
    return found or [ok("production", "Nothing is missing.")]


def _folders(settings: Settings, database: Description) -> list[Path]:
    """What the service writes to on this machine: its own database, and the key file where no key is set."""
    own_key = settings.secret_key is None and settings.mode == "dev"
    return sorted({*([settings.data_folder] if own_key else []), *([database.folder] if database.folder else [])})


def _folder(folder: Path) -> Finding:
    check = "data folder"
    try:
        found = folder.stat()
        mode = found.st_mode
    except FileNotFoundError:
        return warn(check, f"{folder} is not there yet; the first start makes it.", "orgstead up")
    except OSError as error:
        return fail(check, f"{folder} cannot be looked at: {error.strerror}.", _RIGHTS)
    if not stat.S_ISDIR(mode) or not os.access(folder, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
        return fail(check, f"{folder} is not a folder that this user can write to.", _RIGHTS)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        return warn(
            check,
            f"Others on this machine may look into {folder}.",
            f"chmod 700 {folder}" if _is_own(folder.resolve(), found) else "move the database to a folder of its own",
        )
    return ok(check, f"{folder} is ours alone.")


def _is_own(folder: Path, found: os.stat_result) -> bool:
    """Can the folder be one that was made for the data, and nobody else need look into it?"""
    shared = any(place.is_relative_to(folder) for place in (Path.cwd(), Path.home()))
    at_root = folder.parent in (folder, folder.parent.parent)
    return found.st_uid == os.geteuid() and not found.st_mode & stat.S_ISVTX and not shared and not at_root


def _files(database: Description) -> list[Finding]:
    """The files of an embedded database that the service could not write."""
    return [
        fail("database", f"{path} cannot be written by this user.", _RIGHTS)
        for path in database.files
        if path.exists() and not os.access(path, os.R_OK | os.W_OK, effective_ids=True)
    ]


def _key(settings: Settings, storage: Storage) -> Finding:
    """Whether the keys can be read and are strong. Makes none: a key file that is missing is told, not made."""
    check, file = "keys", settings.data_folder / KEY_FILE
    if settings.secret_key is None and settings.mode == "dev" and not file.exists():
        return warn(check, f"The key file {file} is not there yet; the first start makes it.", "orgstead up")
    try:
        signer = App(settings, storage).keys.signer(settings.jwt.algorithm)
    except OrgsteadError as error:
        return fail(check, error.detail, error.next)
    return ok(check, f"Tokens are signed with {signer.algorithm} and the key {signer.kid}.")


async def _database(settings: Settings) -> AsyncIterator[Finding]:
    try:
        storage = await open_directory(settings, writable=False)
    except OrgsteadError as error:
        yield fail("database", error.detail, error.next)
        return
    try:
        served = await _served(storage)
        try:
            stats = await storage.stats()
        except OrgsteadError:
            if served.status is Status.FAIL:  # it says more precisely what is wrong
                yield served
                return
            raise
        yield ok("database", ", ".join(f"{name} {value}" for name, value in stats.items()))
        for finding in await storage.examine(processes=settings.http.workers):
            yield finding
        yield _budget(settings, int(stats.get("dedicated_spaces", 0)))
        yield served
        if served.status is Status.OK:
            yield await _clock_against(storage)
        yield _key(settings, storage)
    except OrgsteadError as error:
        yield fail("database", error.detail, error.next or _reachable(storage))
    finally:
        await storage.close()


async def _served(storage: Storage) -> Finding:
    """Would the service start on this database?"""
    try:
        await storage.check()
    except (SchemaOutdated, SchemaTooNew) as error:
        return fail("schema", error.detail, error.next)
    except OrgsteadError as error:
        return fail("database", error.detail, error.next or _reachable(storage))
    return ok("schema", "The schema's version is this version's.")


def _reachable(storage: Storage) -> str:
    return f"see that the server of {storage.url} runs, and lets us in"


def _budget(settings: Settings, dedicated: int) -> Finding:
    budget, check = settings.placement, "dedicated spaces"
    detail = f"{dedicated} of {budget.max_dedicated}."
    if dedicated >= budget.max_dedicated:
        return fail(check, f"{detail} No more can be made.", "raise ORGSTEAD_PLACEMENT__MAX_DEDICATED")
    if dedicated >= budget.warn_dedicated:
        return warn(check, f"{detail} The budget will be used up.", "put new organizations on a pooled plan")
    return ok(check, detail)


async def _clock_against(storage: Storage) -> Finding:
    """A clock that was set back would make new things look older than the old ones, and tokens valid again."""
    newest = await storage.read(SCOPE, operations.page, {}, after=None, limit=1)
    if newest and newest[0].created_at > datetime.now(UTC) + CLOCK_TOLERANCE:
        return fail(
            "clock of entries",
            "The database has entries from the future: a clock was wrong, or is.",
            "timedatectl status",
        )
    return ok("clock of entries", "No entry of the database is from the future.")


def _clock() -> Finding:
    if datetime.now(UTC) < OLDEST_CREDIBLE_TIME:
        return fail("clock", "The clock is behind the day on which this version was written.", "timedatectl status")
    return ok("clock", "The time is credible.")


def _disk(database: Description) -> list[Finding]:
    folder = database.folder
    if folder is None:
        return []
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(there).free
    detail = f"{free >> 20} MiB are free."
    if free < TOO_FEW_BYTES:
        return [fail("disk", detail, "make room, or move the database to a larger disk")]
    return [warn("disk", detail, "make room") if free < FEW_BYTES else ok("disk", detail)]


def _processes(settings: Settings, database: Description) -> list[Finding]:
    """Whether `serve` would start as many processes as are asked for, and whether that many are of use."""
    workers, cores = settings.http.workers, os.cpu_count() or 1
    if workers == 1:
        return []
    if not database.concurrent:
        return [fail("processes", "One process writes this database, so one serves it.", "set http.workers to 1")]
    detail = f"{workers} processes serve on {cores} cores."
    return [
        warn("processes", detail, "set http.workers to the cores") if workers > 2 * cores else ok("processes", detail)
    ]


def _open_files(settings: Settings) -> Finding:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.http.max_connections + DESCRIPTORS_BESIDE_CONNECTIONS
    if hard != resource.RLIM_INFINITY and hard < wanted:
        detail = f"At most {hard} files may be open; {settings.http.max_connections} connections need {wanted}."
        return warn("open files", detail, f"raise the limit (LimitNOFILE={wanted} in a systemd unit)")
    return ok("open files", "Enough for http.max_connections.")
