"""Where each value of a configuration comes from: a line of the file, a variable of the environment, or nowhere (the default).

Pure.
"""

from collections.abc import Mapping
from dataclasses import fields

from mcpserver.lib.limits import Limits, variable
from remotes.config import document, schema
from remotes.config.document import Document
from remotes.config.load import path_text
from remotes.config.schema import GatewaySection
from remotes.config.snapshot import Snapshot

DEFAULT = "default"
# What every remote has, with the names of the file.
_OF_REMOTE = (
    "type", "enabled", "timeout", "connect_timeout", "list_timeout", "probe_interval", "era", "isolation",
    "retry_idempotent", "keep_cut_answers",
)  # fmt: skip


def of(text: str, name: str, snapshot: Snapshot, environment: Mapping[str, str]) -> dict[str, str]:
    """`{place: "mcp-config.yaml:12" | "environment MCP_…" | "default"}`; `text` is one that has been validated."""
    found, _ = document.read(text, is_text=schema.is_text)
    document_ = found or Document(None)
    written = {path_text(path): f"{name}:{at.line}" for path, at in document_.keys.items() if len(path) > 1}
    return (
        {f"gateway.{option}": DEFAULT for option in GatewaySection.model_fields}
        | {f"mcpServers.{remote}.{option}": DEFAULT for remote in snapshot.remotes for option in _OF_REMOTE}
        | written
        | _from_environment(environment)
    )


def _from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """A variable beats the file."""
    names = (field.name for field in fields(Limits) if environment.get(variable(field.name), "").strip())
    return {f"gateway.{name}": f"environment {variable(name)}" for name in names}
