"""Whether a URI can be an expansion of a URI template (RFC 6570), decided without regular expressions.

Remotes choose the templates and clients the URIs: a backtracking matcher would let either of them stop the gateway. This one
takes literals from left to right and never looks back, so a template in which one expression could swallow the literal behind
it may miss a URI that a perfect matcher would find; none in use does. Expressions side by side are one to it.
"""

import re

_URI_MAX = 8192
TEMPLATE_MAX = 2000
_EXPRESSION = re.compile(r"\{([^{}]*)\}")
# Operators whose expansion may hold a slash, or begins with a character of its own.
_RESERVED = "+#/?&;"


class Template:
    """Raises ValueError for text that is no template."""

    def __init__(self, text: str) -> None:
        parts = _EXPRESSION.split(text) if len(text) <= TEMPLATE_MAX else ["{"]
        literals, expressions = parts[0::2], parts[1::2]
        if any("{" in one or "}" in one for one in literals) or "" in expressions:
            raise ValueError(f"{text[:80]!r} is no URI template")
        self._literals, self._takes_slash = literals[:1], list[bool]()
        for number, (expression, literal) in enumerate(zip(expressions, literals[1:], strict=True)):
            takes_slash = expression[0] in _RESERVED
            if number and not literals[number]:
                self._literals[-1] = literal
                self._takes_slash[-1] |= takes_slash
            else:
                self._literals.append(literal)
                self._takes_slash.append(takes_slash)

    def fits(self, uri: str) -> bool:
        if len(uri) > _URI_MAX or not uri.startswith(self._literals[0]):
            return False
        at, last = len(self._literals[0]), len(self._takes_slash)
        for number, takes_slash in enumerate(self._takes_slash, start=1):
            literal = self._literals[number]
            # The last literal must end the URI; the others are taken where they come first.
            end = _last_end(uri, at, literal) if number == last else uri.find(literal, at)
            if end < 0 or (not takes_slash and "/" in uri[at:end]):
                return False
            at = end + len(literal)
        return at == len(uri)


def _last_end(uri: str, at: int, literal: str) -> int:
    end = len(uri) - len(literal)
    return end if end >= at and uri.endswith(literal) else -1
