"""What is remembered about remotes: every configuration that ever ran, which one runs, how the remotes were last seen, and what
their tools were when they were approved.

A revision is never changed and never deleted: histories, rollbacks and backups rely on its number meaning one text. Nor is an
event of the audit trail.
"""

from typing import Any, TypeVar

from django.db import models
from django.utils import timezone

HEAD = 1

M = TypeVar("M", bound=models.Model)


class ImmutableQuerySet(models.QuerySet[M]):
    """Refuses the two bulk ways around `Immutable.save`."""

    def update(self, **_: Any) -> int:
        raise TypeError("a written record is never changed")

    def delete(self) -> tuple[int, dict[str, int]]:
        raise TypeError("a written record is never deleted")


class Immutable(models.Model):
    """A row that is written once."""

    objects = ImmutableQuerySet.as_manager()

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise TypeError("a written record is never changed")
        super().save(*args, **(kwargs | {"force_insert": True}))

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        raise TypeError("a written record is never deleted")


class ConfigRevision(Immutable):
    number = models.PositiveIntegerField(primary_key=True)
    sha256 = models.CharField(max_length=64, db_index=True)
    text = models.TextField()
    actor = models.CharField(max_length=200)
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ("number",)

    def __str__(self) -> str:
        return f"revision {self.number} by {self.actor}"


class RevisionHead(models.Model):
    """One row, HEAD: the number of the revision that runs. Moved by compare-and-set alone; 0 before the first."""

    number = models.PositiveIntegerField(default=0)

    def __str__(self) -> str:
        return f"head at revision {self.number}"


class RemoteCircuit(models.Model):
    """A circuit breaker that is not closed, as all workers and nodes share it; a closed one has no row.

    Moved by compare-and-set on `mark`, which is new with every change. `digest` is that of the spec it judges: another address is
    another remote. `lasts_s`: how long after `since` the next try, or the next claim of one, is due.
    """

    name = models.CharField(max_length=64, unique=True)
    digest = models.CharField(max_length=64)
    mark = models.CharField(max_length=32)
    state = models.CharField(max_length=20)
    since = models.DateTimeField()
    lasts_s = models.FloatField()
    wait_s = models.FloatField()
    failures = models.PositiveIntegerField()
    reason = models.TextField(blank=True, default="")
    contact_closes = models.BooleanField(default=False)

    def __str__(self) -> str:
        return f"{self.name}: {self.state}"


class RemoteHealth(models.Model):
    """The last probe of one remote. Not history: one row each, overwritten."""

    name = models.CharField(max_length=64, unique=True)
    status = models.CharField(max_length=20, default="unknown")
    checked_at = models.DateTimeField(null=True)
    latency_ms = models.FloatField(null=True)
    era = models.CharField(max_length=20, blank=True, default="")
    transport = models.CharField(max_length=20, blank=True, default="")
    tools = models.PositiveIntegerField(null=True)
    phase = models.CharField(max_length=20, blank=True, default="")
    error = models.TextField(blank=True, default="")
    last_ok_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name_plural = "remote health"

    def __str__(self) -> str:
        return f"{self.name}: {self.status}"


class StoredToken(models.Model):
    """The access token of one remote with what renews it, encrypted. Written by `remotes.tokens.store` alone.

    `version` counts every change and never goes back, so that one number tells a process whether it still has the newest.
    """

    name = models.CharField(max_length=64, unique=True)
    version = models.PositiveBigIntegerField(default=0)
    sealed = models.TextField(blank=True, default="")
    refused = models.CharField(max_length=200, blank=True, default="")
    expires_at = models.DateTimeField(null=True)
    scope = models.CharField(max_length=1000, blank=True, default="")
    updated_at = models.DateTimeField(default=timezone.now)
    lease_owner = models.CharField(max_length=64, blank=True, default="")
    lease_until = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"the token of {self.name}, version {self.version}"


class ToolPin(models.Model):
    """One tool of one remote: the definition that was approved, and the one last seen where that is another.

    `sha256` is empty for a tool that nobody has approved yet; `seen_sha256` for one that its remote no longer lists. Definitions
    are packed and bounded (remotes.pinning).
    """

    remote = models.CharField(max_length=64)
    # The remote's own name of it, whatever that is.
    tool = models.CharField(max_length=512)
    sha256 = models.CharField(max_length=64, blank=True)
    definition = models.BinaryField(null=True)
    approved_at = models.DateTimeField(null=True)
    approved_by = models.CharField(max_length=200, blank=True)
    seen_sha256 = models.CharField(max_length=64, blank=True)
    seen_definition = models.BinaryField(null=True)
    seen_at = models.DateTimeField()
    # Fingerprints that were told of since the last approval, so that flapping is not told again and again.
    reported = models.JSONField(default=list)
    reported_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("remote", "tool")
        constraints = [models.UniqueConstraint(fields=["remote", "tool"], name="remotes_one_pin_per_tool")]

    def __str__(self) -> str:
        return f"{self.remote}: {self.tool}"


class RemoteEvent(Immutable):
    """The audit trail of remotes and their tools. It names them by value: it outlives what it tells of."""

    class Event(models.TextChoices):
        LOGGED_IN = "logged_in"
        LOGGED_OUT = "logged_out"
        CREDENTIAL_REFUSED = "credential_refused"
        TOOL_PINNED = "tool_pinned"
        TOOL_CHANGED = "tool_changed"
        TOOL_ADDED = "tool_added"
        TOOL_REMOVED = "tool_removed"
        TOOL_APPROVED = "tool_approved"

    at = models.DateTimeField(default=timezone.now, db_index=True)
    event = models.CharField(max_length=30, choices=Event)
    remote = models.CharField(max_length=64, db_index=True)
    # Empty where the event is not about a tool, or about several: `detail` names them.
    tool = models.CharField(max_length=512, blank=True, default="")
    actor = models.CharField(max_length=200, default="gateway")
    detail = models.JSONField(default=dict)

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%dT%H:%M:%SZ} {self.event} {self.remote} {self.tool}".rstrip()
