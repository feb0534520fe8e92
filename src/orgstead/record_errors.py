"""The errors about records, collections, queries and quotas: a branch of the tree in ``errors.py``."""

from __future__ import annotations

from orgstead.errors import Conflict, InvalidInput, OrgsteadError


class InvalidRecord(InvalidInput):
    code = "record.invalid"
    title = "The record is not as the schema or the indexes of its collection need it; `errors` names each place."


class InvalidRecordId(InvalidInput):
    code = "record.id_invalid"
    title = "A record's id is 1 to 128 of A-Z, a-z, 0-9, dot, underscore, tilde and hyphen."


class InvalidDefinition(InvalidInput):
    code = "collection.definition_invalid"
    title = "The collection's name, schema, indexes or unique fields are not acceptable; `errors` names each place."


class InvalidQuery(InvalidInput):
    code = "query.invalid"
    title = "The query is not one that this service understands; `errors` names each place."


class QueryUnindexed(InvalidInput):
    code = "query.unindexed"
    title = "The query would have to look at too many records, because no index of the collection serves it."


class QueryTooLarge(InvalidInput):
    code = "query.too_large"
    title = "The query's result is made of more records or groups than one answer can be; narrow it."


class RecordTooLarge(OrgsteadError):
    code = "record.too_large"
    title = "The record is larger than this service accepts."


class FeedExpired(OrgsteadError):
    code = "feed.expired"
    title = "Events after this cursor are not kept any more, or never were; read the records anew and start at the end."


class QuotaExceeded(OrgsteadError):
    """``what`` is the counter that is at its limit: records, bytes, collections, members or api_keys."""

    code = "quota.exceeded"
    title = "The organization's plan does not allow more; delete something, or change to a plan with a higher limit."

    def __init__(
        self, detail: str | None = None, *, what: str = "", limit: int = 0, used: int = 0, next: str | None = None
    ) -> None:
        super().__init__(detail, next=next)
        self.what = what
        self.limit = limit
        self.used = used


class RecordExists(Conflict):
    code = "record.exists"
    title = "The collection has a record with this id already."


class UniqueTaken(Conflict):
    code = "record.unique_taken"
    title = "Another record of the collection has the same value in fields that are declared unique."


class DefinitionViolated(Conflict):
    code = "collection.violated"
    title = "Records that are there violate the new definition, which was not applied; `errors` names some of them."


class CollectionNotEmpty(Conflict):
    code = "collection.not_empty"
    title = "The collection has records; delete them first."


class CollectionChanging(Conflict):
    code = "collection.changing"
    title = "The collection's definition is being changed already; retry when that has ended."
