"""The HTTP server under the gateway, as the gateway sees it. Importing this package loads neither Daphne nor Twisted.

`gateway.serving.server` does, and it must be the first to: it chooses the event loop. Everything else of the gateway imports
from here, so that another ASGI server could take its place.
"""

from gateway.serving.lifecycle import (
    ClientGone,
    Lifecycle,
    adopt,
    adopted,
    allow,
    connections,
    follow,
    in_flight,
    release,
    unsent_bytes,
)

__all__ = [
    "ClientGone",
    "Lifecycle",
    "adopt",
    "adopted",
    "allow",
    "connections",
    "follow",
    "in_flight",
    "release",
    "unsent_bytes",
]
