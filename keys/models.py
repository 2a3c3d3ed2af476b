"""Rows about keys. The secret is in none of them. Only `keys.services` writes, only `keys.selectors` reads."""

from typing import Any, NoReturn

from django.db import models

from keys import format


class ApiKey(models.Model):
    """One key. It is never deleted: a revoked one stays, so that nothing brings it back."""

    key_id = models.CharField(max_length=format.ID_LENGTH, unique=True)
    name = models.CharField(max_length=64, db_index=True)
    hash = models.CharField(max_length=255)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField(null=True, blank=True)
    # The end of its grace, once a younger key of the same name exists.
    retires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    # What it may use, and how much of it (keys.grant); empty: everything, within the gateway's limits.
    grant = models.JSONField(default=dict, blank=True)
    # Written every few seconds at most (keys.usage); not a change in the sense of KeyGeneration.
    last_used_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix})"

    @property
    def prefix(self) -> str:
        return format.display_prefix(self.key_id)


class AppendOnlyError(TypeError):
    """Somebody tried to change the past."""


class AppendOnlyQuerySet(models.QuerySet["KeyEvent"]):
    def update(self, **kwargs: Any) -> NoReturn:
        raise AppendOnlyError("audit events are never changed")

    def delete(self) -> NoReturn:
        raise AppendOnlyError("audit events are never deleted")


class KeyEvent(models.Model):
    """The audit trail. It names keys by value: it outlives what it tells of.

    Append-only here, in the one way that code has to it. No trigger of the database's: whoever can write SQL there can drop a
    trigger too, and every later migration of the table would have to make it anew.
    """

    class Event(models.TextChoices):
        GENERATED = "generated"
        DEPRECATED = "deprecated"
        CHANGED = "changed"
        RESTORED = "restored"
        REVOKED = "revoked"
        USED = "used"

    at = models.DateTimeField(db_index=True)
    event = models.CharField(max_length=20, choices=Event)
    key_id = models.CharField(max_length=format.ID_LENGTH, db_index=True)
    name = models.CharField(max_length=64)
    actor = models.CharField(max_length=200)
    detail = models.JSONField(default=dict)

    objects = AppendOnlyQuerySet.as_manager()

    class Meta:
        constraints = [
            # `at` of a use is the start of its minute: many workers see it, one row tells it.
            models.UniqueConstraint(
                fields=["key_id", "at"], condition=models.Q(event="used"), name="keys_one_use_per_key_and_minute"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%dT%H:%M:%SZ} {self.event} {self.name} ({self.key_id})"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise AppendOnlyError("audit events are never changed")
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise AppendOnlyError("audit events are never deleted")


class KeyGeneration(models.Model):
    """One row that counts changes to keys: what every worker polls instead of the keys themselves."""

    ROW = 1

    number = models.PositiveBigIntegerField(default=0)

    def __str__(self) -> str:
        return str(self.number)
