"""What others may do to configuration and remotes: the verbs of this app, each told where it lives."""

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
    "record_health",
    "reload",
    "replace",
    "rollback",
    "take",
    "validated",
]
