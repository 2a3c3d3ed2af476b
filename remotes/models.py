"""What is remembered about remotes: every configuration that ever ran, which one runs, and how the remotes were last seen.

A revision is never changed and never deleted: histories, rollbacks and backups rely on its number meaning one text.
"""

from typing import Any

from django.db import models
from django.utils import timezone

HEAD = 1


class ImmutableQuerySet(models.QuerySet["ConfigRevision"]):
    """Refuses the two bulk ways around `ConfigRevision.save`."""

    def update(self, **_: Any) -> int:
        raise TypeError("a revision is never changed")

    def delete(self) -> tuple[int, dict[str, int]]:
        raise TypeError("a revision is never deleted")


class ConfigRevision(models.Model):
    number = models.PositiveIntegerField(primary_key=True)
    sha256 = models.CharField(max_length=64, db_index=True)
    text = models.TextField()
    actor = models.CharField(max_length=200)
    at = models.DateTimeField(default=timezone.now)

    objects = ImmutableQuerySet.as_manager()

    class Meta:
        ordering = ("number",)

    def __str__(self) -> str:
        return f"revision {self.number} by {self.actor}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise TypeError("a revision is never changed")
        super().save(*args, **(kwargs | {"force_insert": True}))

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        raise TypeError("a revision is never deleted")


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


class AppendOnlyQuerySet(models.QuerySet["RemoteEvent"]):
    def update(self, **_: Any) -> int:
        raise TypeError("audit events are never changed")

    def delete(self) -> tuple[int, dict[str, int]]:
        raise TypeError("audit events are never deleted")


class RemoteEvent(models.Model):
    """The audit trail of remotes. It names them by value: it outlives what it tells of."""

    class Event(models.TextChoices):
        LOGGED_IN = "logged_in"
        LOGGED_OUT = "logged_out"
        CREDENTIAL_REFUSED = "credential_refused"

    at = models.DateTimeField(default=timezone.now, db_index=True)
    event = models.CharField(max_length=30, choices=Event)
    remote = models.CharField(max_length=64, db_index=True)
    actor = models.CharField(max_length=200, default="gateway")
    detail = models.JSONField(default=dict)

    objects = AppendOnlyQuerySet.as_manager()

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%dT%H:%M:%SZ} {self.event} {self.remote}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise TypeError("audit events are never changed")
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        raise TypeError("audit events are never deleted")
