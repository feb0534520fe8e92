"""The database servers that the tests start: on loopback, on free ports, in temporary folders, stopped by pid."""

from tests.servers import mongodb, postgres
from tests.servers.unavailable import EngineUnavailable

__all__ = ["EngineUnavailable", "mongodb", "postgres"]
