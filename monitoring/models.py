"""Signs of life of processes that nobody can ask over a socket, from any node."""

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
