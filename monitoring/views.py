"""/health, /health/live, /health/ready, /metrics, and a JSON 404 for every other page that is not MCP.

Anybody may ask, so that load balancers need no key; what the remotes are called is told only to who is on this machine, or has
a key from which nothing is hidden.
The views run inside a gateway worker, in threads of Django's: none of them may wait for a database, see `facts`.
"""

from ipaddress import ip_address
from pathlib import Path

from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse

from mcpserver.lib import lean

# REST framework loads what it could show in a browser, sign or keep in PostgreSQL: a tenth of a worker's memory, for nothing.
with lean.without("psycopg", "psycopg2", "requests", "pygments", "markdown", "uritemplate", "inflection"):
    import rest_framework.compat  # noqa: F401

from rest_framework.decorators import api_view
from rest_framework.request import Request
from rest_framework.response import Response

import mcpserver
from mcpserver.lib.errors import GatewayError
from monitoring import exposition, facts, gauges, holders
from monitoring import health as rules

_FORWARDED = ("HTTP_FORWARDED", "HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_HOST", "HTTP_X_REAL_IP", "HTTP_VIA")
_NO_STORE = {"Cache-Control": "no-store"}


@api_view(["GET", "HEAD"])
def live(request: Request) -> Response:
    """That this could be answered is the answer."""
    return Response({"status": "live"}, headers=_NO_STORE)


@api_view(["GET", "HEAD"])
def ready(request: Request) -> Response:
    """Whether new requests should be sent here; a draining worker still answers those that it has."""
    said = facts.live()
    word = "starting" if said is None else "draining" if said.get("draining") else "ready"
    return Response({"status": word}, status=200 if word == "ready" else 503, headers=_NO_STORE)


@api_view(["GET", "HEAD"])
def health(request: Request) -> Response:
    """Everything, see `monitoring.health`."""
    gathered = facts.gather()
    document = rules.document(gathered, names=may_see_names(request), edits=is_local(request))
    return Response(document, status=rules.http_status(document["status"]), headers=_NO_STORE)


def metrics(request: HttpRequest) -> HttpResponse:
    """Prometheus text, of all workers of this machine. For strangers without the series that name remotes."""
    said = facts.live_of_all()
    names = may_see_names(request)
    more = gauges.Gauges(facts.gather(), said or {}, names=names, version=mcpserver.__version__)
    try:
        page = exposition.page(Path(settings.MCP_RUN_DIR), more.collect(), names=names)
    except GatewayError as error:
        return JsonResponse(error.document(), status=503)
    return HttpResponse(page, content_type=exposition.CONTENT_TYPE)


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponseBase:
    """What clients look for in vain (OAuth discovery, /register, a favicon) costs nothing and counts for nothing."""
    hint = "MCP is served at /mcp and /sse"
    document = {"ok": False, "error": "not_found", "message": "there is nothing here", "hint": hint}
    return JsonResponse(document, status=404)


def broken(request: HttpRequest) -> HttpResponseBase:
    """A bug of ours, whose traceback is in the log."""
    return JsonResponse({"ok": False, "error": "internal", "message": "the gateway failed here"}, status=500)


def refused(request: HttpRequest, exception: Exception | None = None) -> HttpResponseBase:
    """A request that Django would not take: a Host it does not know, a malformed one."""
    return JsonResponse({"ok": False, "error": "bad_request", "message": "the request was refused"}, status=400)


def may_see_names(request: HttpRequest | Request) -> bool:
    """What the remotes are called."""
    return is_local(request) or holders.sees_everything(request)


def is_local(request: HttpRequest | Request) -> bool:
    """From this machine, asked directly, under a name of this machine: a web page that rebinds its own name is not."""
    try:
        request.get_host()
        peer = ip_address(request.META.get("REMOTE_ADDR") or "")
    except (DisallowedHost, ValueError):
        return False
    mapped = getattr(peer, "ipv4_mapped", None) or peer
    return mapped.is_loopback and not any(request.META.get(header) for header in _FORWARDED)
