"""What others may do to configuration and remotes: the verbs of this app, each told where it lives."""

import os
from pathlib import Path

from django.conf import settings

from mcpserver.lib.database import UNUSABLE
from mcpserver.lib.errors import GatewayError
from mcpserver.lib.limits import Limits, configured
from remotes import selectors
from remotes.config.applying import apply, edit, invalid, rollback, take, validated
from remotes.config.replacing import replace
from remotes.config.starting import bootstrap
from remotes.config.watching import follow_file, reload
from remotes.health import claim_probe, record_health

__all__ = [
    "apply",
    "bootstrap",
    "claim_probe",
    "edit",
    "follow_file",
    "invalid",
    "limits",
    "record_health",
    "reload",
    "replace",
    "rollback",
    "take",
    "validated",
]


def limits() -> Limits:
    """The limits that hold for what runs beside the workers: the environment's, and where it says nothing the configuration's.

    Without a database, or with a configuration that is not valid any more, the environment's alone.
    """
    try:
        head = selectors.head()
        snapshot = validated(head[2], path=Path(settings.MCP_CONFIG)) if head is not None else None
    except (GatewayError, *UNUSABLE):
        snapshot = None
    return settings.LIMITS if snapshot is None else configured(settings.LIMITS, snapshot.gateway.limits, os.environ)
