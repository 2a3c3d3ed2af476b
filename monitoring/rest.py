"""REST framework, tuned to machines: JSON whatever the client says it accepts, and errors in the shape of our commands."""

from collections.abc import Iterable
from typing import Any

from rest_framework.exceptions import APIException
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import exception_handler


class AlwaysJson(BaseContentNegotiation):
    """A probe that sends an odd Accept header wants the status, not a 406."""

    def select_parser(self, request: Request, parsers: Iterable[BaseParser]) -> BaseParser | None:
        return next(iter(parsers), None)

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        renderer = next(iter(renderers))
        return renderer, renderer.media_type


def problem(error: Exception, context: dict[str, Any]) -> Response | None:
    """REST framework's own refusals as our error document; anything else is Django's to answer."""
    response = exception_handler(error, context)
    if response is None:
        return None
    code = error.get_codes() if isinstance(error, APIException) else "refused"
    message = str(getattr(error, "detail", "refused"))
    response.data = {"ok": False, "error": code if isinstance(code, str) else "refused", "message": message}
    return response
