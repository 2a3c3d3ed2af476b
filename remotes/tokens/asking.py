"""Asking a token endpoint for the next token: a few tries where they may help, and the two ways to show a client's secret."""

import asyncio
import secrets
from dataclasses import replace

from mcpserver.lib.clock import Clock
from remotes.config.addresses import Reach
from remotes.tokens import endpoint, grant
from remotes.tokens.endpoint import Unreachable
from remotes.tokens.grant import Denied, Grant, Token, Unclear

# An endpoint that gives no answer is asked again after each of these.
PAUSES_S = (0.5, 1.0)

Answer = tuple[Token, str] | Denied | Unclear


async def renewed(asked: Grant, reach: Reach, clock: Clock) -> tuple[Grant, Answer]:
    """The answer, with the grant as it is to be used from now on."""
    asked, answer = await _either_way(asked, reach, clock)
    for pause in PAUSES_S:
        if not isinstance(answer, Unclear):
            break
        await asyncio.sleep(pause)
        asked, answer = await _either_way(asked, reach, clock)
    return asked, answer


async def exchanged(asked: Grant, form: dict[str, str], reach: Reach, clock: Clock) -> Answer:
    """One request with `form`, whatever it asks with."""
    try:
        reply = await endpoint.post_form(asked.token_url, reach, form, asked)
    except Unreachable as error:
        return Unclear(str(error))
    now, id = clock.now().timestamp(), secrets.token_hex(8)
    return grant.read_answer(reply.status, reply.body, id=id, now=now, asked_scope=asked.scope)


async def _either_way(asked: Grant, reach: Reach, clock: Clock) -> tuple[Grant, Answer]:
    """Where nobody said how, some servers want the secret in the form: a refused client has used nothing up."""
    answer = await exchanged(asked, grant.request(asked), reach, clock)
    if answer != Denied("invalid_client") or not asked.client_secret or asked.client_auth:
        return asked, answer
    other = replace(asked, client_auth="client_secret_post")
    second = await exchanged(other, grant.request(other), reach, clock)
    return (other, second) if isinstance(second, tuple) else (asked, answer)
