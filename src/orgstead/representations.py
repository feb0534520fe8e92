"""What things look like as JSON, wherever they are shown: over HTTP and on the command line."""

from __future__ import annotations

from orgstead.kit import rfc3339
from orgstead.model import ApiKey, Json, Operation, Organization, Placement


def organization(organization: Organization, placement: Placement) -> dict[str, Json]:
    """An organization, with where its data lives."""
    return {
        "object": "organization",
        "id": organization.id,
        "name": organization.name,
        "slug": organization.slug,
        "collection_name": placement.space,
        "plan": organization.plan,
        "status": organization.status,
        "external_id": organization.external_id,
        "metadata": organization.metadata,
        "placement": {
            "cell": placement.cell,
            "kind": placement.kind,
            "epoch": placement.epoch,
            "state": placement.state,
        },
        "version": organization.version,
        "created_at": rfc3339(organization.created_at),
        "updated_at": rfc3339(organization.updated_at),
    }


def operation(operation: Operation) -> dict[str, Json]:
    """An operation, as those who wait for it see it: without its payload and lease."""
    return {
        "object": "operation",
        "id": operation.id,
        "organization_id": operation.org_id,
        "kind": operation.kind,
        "state": operation.state,
        "step": operation.step,
        "progress": operation.progress,
        "result": operation.result,
        "error": operation.error,
        "created_at": rfc3339(operation.created_at),
        "updated_at": rfc3339(operation.updated_at),
    }


def api_key(key: ApiKey) -> dict[str, Json]:
    """An API key without its text, which is shown once and not kept."""
    return {
        "object": "api_key",
        "id": key.id,
        "name": key.name,
        "role": key.role,
        "created_by": key.user_id,
        "expires_at": key.expires_at and rfc3339(key.expires_at),
        "last_used_at": key.used_at and rfc3339(key.used_at),
        "created_at": rfc3339(key.created_at),
        "updated_at": rfc3339(key.updated_at),
    }
