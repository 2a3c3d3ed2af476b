"""What is written down of what went on: signs of life of processes that nobody can ask over a socket, and calls."""

from django.db import models


class Heartbeat(models.Model):
    """When `process` ("worker") last did its periodic work, and how much of it since it started. One row
    per process name, overwritten."""

    process = models.CharField(max_length=40, unique=True)
    at = models.DateTimeField()
    tasks = models.PositiveBigIntegerField(default=0)
    failed = models.PositiveBigIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.process} at {self.at:%Y-%m-%dT%H:%M:%SZ}"


class Call(models.Model):
    """One call of a tool, prompt or resource, as it ended. Rows are written in bulk and pruned (`monitoring.calls`).

    Texts are cut to their column, secrets in them masked. It names key and remote by value: it outlives both.
    """

    at = models.DateTimeField()
    request = models.CharField(max_length=32)
    key_id = models.CharField(max_length=16)
    key_name = models.CharField(max_length=64)
    source = models.CharField(max_length=64)
    remote = models.CharField(max_length=32)
    kind = models.CharField(max_length=12)
    name = models.CharField(max_length=255)
    era = models.CharField(max_length=12)
    transport = models.CharField(max_length=8)
    outcome = models.CharField(max_length=16)
    code = models.IntegerField()
    ms = models.FloatField()
    answer_bytes = models.BigIntegerField()
    arguments = models.TextField(null=True)  # noqa: DJ001 - none were recorded, which is not the same as empty ones

    class Meta:
        # Not `db_index`, which makes a second one for LIKE of each text on PostgreSQL.
        indexes = [
            models.Index(fields=["at"], name="calls_by_time"),
            models.Index(fields=["request"], name="calls_by_request"),
        ]

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%dT%H:%M:%SZ} {self.key_name} {self.name} {self.outcome}"
