"""One remote's token in this process: read for every request, renewed before its end and after a 401, the same in all processes.

A renewal happens once. In this process callers share it; across processes and nodes the lease in the table decides, and who loses
waits for the winner's token. Without the database (away, or on a full disk) the gateway renews all the same and goes on from
memory; the token is stored when that works again. A process that only probes leaves that to the gateway: two that renew
apart from each other would have a rotated refresh token used twice, which ends the login.

Nothing is logged or told here that a token could be read from.
"""

import asyncio
import logging
import os
import random
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from prometheus_client import Counter

from mcpserver.lib.clock import Clock
from mcpserver.lib.database import in_database
from mcpserver.lib.errors import GatewayError
from remotes.config.snapshot import RemoteSpec
from remotes.tokens import asking, grant, store
from remotes.tokens.grant import Denied, Holding, Unclear
from remotes.tokens.once import Once
from remotes.tokens.store import Row
from remotes.tokens.vault import Vault
from remotes.upstream.outcome import Failure, Fault

log = logging.getLogger("mcp.tokens")

RENEWALS = Counter("mcp_token_renewals_total", "Renewals of access tokens by remote and outcome", ["remote", "outcome"])

# Whoever waits for another process's renewal looks this often, and longer than a lease lasts.
_LOOK_S = 0.2
_PATIENCE_S = 45.0
# What came to nothing, a renewal or storing it, waits this long; renewals double it up to the second.
_AGAIN_S, _AGAIN_MAX_S = 2.0, 60.0
# How long a renewal may take to end when the process stops: its refresh token may be used up already.
_CLOSING_S = 5.0
_CLOSING_TRY_S = 0.5
# Tokens that live for moments are not renewed more often than this ahead of time.
_RENEWALS_APART_S = 1.0
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the credentials of a process share. `renews_alone`: without a database too. `insists`: what has ended is tried."""

    vault: Vault
    clock: Clock
    on_change: Callable[[str], None] = lambda name: None
    renews_alone: bool = False
    insists: bool = False


class TokenCredential:
    """`remotes.upstream.credential.Credential` for a remote over HTTP without an Authorization header of its own."""

    def __init__(self, spec: RemoteSpec, around: Surroundings) -> None:
        self.headers: Mapping[str, str] = _NO_HEADERS
        self.serial = 0
        self.blocked: Failure | None = None
        self.unsaved = ""
        """Why the token is in memory alone; "" when it is stored."""
        self.binding = grant.binding(spec)
        self.spec = spec
        self._around = around
        self._owner = f"{os.getpid()}-{secrets.token_hex(8)}"
        self._holding: Holding | None = None
        self._version = -1  # of the row that was read last; -1: none yet
        self._ended = ""  # why there will be no further token
        self._rejected = -1  # the serial that a 401 came to
        self._is_outdated = False  # stored under a key that is to go
        self._obtained = 0.0  # this and all below: monotonic
        self._due: float | None = None
        self._renew_from = self._save_from = 0.0
        self._again_s = _AGAIN_S
        self._last: Failure | None = None
        self._loading = Once(self._load)
        self._renewal = Once(self._renew)
        self._saving = Once(self._save)

    # What the transports and Upstream ask.

    async def ready(self, deadline: float) -> Failure | None:
        if self._version < 0 and (failure := await self._joined(self._loading, deadline)) is not None:
            return failure
        if self.blocked is not None and not self._may_insist:
            return None if self._around.insists else self.blocked
        if self._holding is None or not self._holding.grant.is_renewable:
            return None
        token = self._holding.token
        if token is None or (grant.is_over(token, self._wall()) and not self._ended):
            return await self._joined(self._renewal, deadline)
        return None

    async def renew(self, used: int, refused: Failure, deadline: float) -> Failure | None:
        if self.serial != used and self.headers:
            return None
        if self.blocked is not None and not self._may_insist:
            return self.blocked
        if self._holding is None:
            return self._failure(f"{self.spec.name} wants a login: {self._way_out}")
        token = self._holding.token
        if token is not None and grant.is_fresh(token, self._now() - self._obtained):
            await self._joined(self._loading, deadline)  # another process may have a newer one already
            if self.serial != used:
                return self.blocked
            why = "refuses a token that was issued just now: is it meant for this remote, and is its scope enough?"
            return self._failure(f"{self.spec.name} {why}")
        self._rejected = self.serial
        return await self._joined(self._renewal, deadline)

    @property
    def _may_insist(self) -> bool:
        """A machine's own credential may be good again without anybody's login."""
        return self._around.insists and self._holding is not None and self._holding.grant.is_machine

    # What the process does with it.

    async def accepted(self) -> None:
        """The remote took what had ended: every process may use it again."""
        if self._ended and self._version > 0:
            await self._tried(store.accept, self.spec.name, self._version)

    def tend(self, version: int) -> None:
        """Each second; `version` is the newest row's. Begins what is due and waits for nothing."""
        if self._version >= 0 and not (self._renewal.under_way or self._saving.under_way):
            if (self.unsaved or self._is_outdated) and self._now() >= self._save_from:
                self._saving.begin()
            elif version != self._version and not self.unsaved:
                self._loading.begin()
        self.renew_if_due()

    def renew_if_due(self) -> None:
        if self._due is not None and self._now() >= max(self._due, self._renew_from):
            self._renewal.begin()

    def describe(self) -> dict[str, Any] | None:
        """For status; None where there is no credential of this kind."""
        if self._holding is None and self.blocked is None:
            return None
        token = self._holding.token if self._holding else None
        renewable = bool(self._holding and self._holding.grant.is_renewable and not self._ended)
        return grant.described(token) | {
            "renewable": renewable,
            "ended": self._ended or None,
            "tokens_unsaved": self.unsaved or None,
        }

    async def close(self) -> None:
        """A renewal that is under way may end: what it brings must not be lost."""
        patience_s = _CLOSING_TRY_S if self._around.insists else _CLOSING_S
        await self._renewal.close(patience_s)
        await self._saving.close(patience_s)
        await self._loading.close(0)

    async def _joined(self, work: Once[Failure | None], deadline: float) -> Failure | None:
        try:
            return await work.joined(deadline)
        except TimeoutError:
            return self._failure(f"no new token for {self.spec.name} in time", Fault.TIMEOUT)

    # The stored row.

    async def _load(self) -> Failure | None:
        try:
            row = await in_database(store.read, self.spec.name)
        except GatewayError as error:
            return self._failure(f"the stored credential of {self.spec.name} cannot be read now", Fault.NOT_SENT, error)
        if not self.unsaved:
            self._adopt(row)
        return None

    def _adopt(self, row: Row) -> None:
        """What is stored for this entry, else what the configuration gives."""
        is_first, was_usable = self._version < 0, self._is_usable
        self._version, self.unsaved, self._ended, self._is_outdated = row.version, "", "", False
        configured = grant.configured(self.spec)
        holding = Holding(self.binding, configured) if configured else None
        failure = None
        if row.sealed:
            try:
                stored, is_current = self._around.vault.open(row.sealed)
            except GatewayError as error:
                # Only a grant that using does not use up may be begun anew.
                if holding is None or not holding.grant.is_machine:
                    failure = self._failure(f"{self.spec.name}: {error.message}: {error.hint}")
            else:
                if stored.binding == self.binding:
                    holding, self._ended, self._is_outdated = stored, row.refused, not is_current
        self._hold(holding)
        self.blocked = self._over() if self._ended and not self._outlives else failure
        if not is_first and self._is_usable != was_usable:
            self._around.on_change(self.spec.name)

    @property
    def _is_usable(self) -> bool:
        return self.blocked is None and bool(self.headers)

    def _hold(self, holding: Holding | None) -> None:
        old = self._holding.token if self._holding is not None else None
        new = holding.token if holding is not None else None
        self._holding, self._due = holding, None
        if new != old:
            self.serial += 1
            self.headers = MappingProxyType({"Authorization": f"Bearer {new.access}"}) if new else _NO_HEADERS
        if new is None or holding is None:
            return
        self._obtained = self._now() - max(0.0, self._wall() - new.obtained_at)
        if holding.grant.is_renewable and not self._ended:
            due_in = grant.due_in_s(new, self._wall(), random.random())  # noqa: S311 - spreads load
            self._due = None if due_in is None else max(self._now() + due_in, self._obtained + _RENEWALS_APART_S)

    # Renewing.

    async def _renew(self) -> Failure | None:
        if self._last is not None and self._now() < self._renew_from:
            return self._last
        serial, name = self.serial, self.spec.name
        try:
            is_ours = await self._claimed(serial)
        except GatewayError as error:
            if not self._around.renews_alone:
                return self._failure(f"a new token for {name} cannot be agreed on now", Fault.NOT_SENT, error)
            is_ours = True
        if is_ours is None:
            return self._later(
                self._failure(f"another process does not end renewing the token of {name}", Fault.TIMEOUT)
            )
        if not is_ours:
            RENEWALS.labels(name, "shared").inc()
            return self.blocked
        return await self._renewed()

    async def _claimed(self, serial: int) -> bool | None:
        """True: it is ours to do. False: it was done elsewhere. None: neither, in all the time there was."""
        until = self._now() + _PATIENCE_S
        while self._now() < until:
            row = await in_database(store.read, self.spec.name)
            if row.version != self._version:
                await self._reconcile(row)
                if self.serial != serial or self.blocked is not None or self._holding is None:
                    return False
            if await in_database(store.claim, self.spec.name, self._version, self._owner):
                return True
            await asyncio.sleep(_LOOK_S * (1 + random.random()))  # noqa: S311 - spreads load
        return None

    async def _renewed(self) -> Failure | None:
        assert self._holding is not None
        name, held = self.spec.name, self._holding
        if self._ended or not held.grant.is_renewable:
            await self._end(self._ended or "it cannot be renewed")
            return self.blocked
        asked, answer = await asking.renewed(held.grant, self.spec.reach, self._around.clock)
        match answer:
            case Denied(error):
                return await self._denied(error)
            case Unclear(why):
                RENEWALS.labels(name, "failed").inc()
                log.warning("the token of %s is not renewed: its authorization server: %s", name, why, extra=self._tag)
                await self._tried(store.release, name, self._owner)
                return self._later(
                    self._failure(f"no token for {name}: its authorization server: {why}", Fault.NOT_SENT)
                )
            case (token, refresh_token):
                RENEWALS.labels(name, "renewed").inc()
                log.info("the token of %s is renewed", name, extra=self._tag)
                was_usable, self.blocked, self._ended = self._is_usable, None, ""
                self._again_s, self._last = _AGAIN_S, None
                self._hold(grant.followed(replace(held, grant=asked), token, refresh_token))
                await self._save()
                if not was_usable:
                    self._around.on_change(name)
        return None

    async def _denied(self, error: str) -> Failure | None:
        """Unless somebody renewed it behind our back, while the lease could not be taken."""
        serial = self.serial
        try:
            row = await in_database(store.read, self.spec.name)
            if row.version != self._version:
                await self._reconcile(row)
        except GatewayError as unreadable:
            log.debug("the row of %s cannot be read: %s", self.spec.name, unreadable.message)
        if self.serial != serial:
            return self.blocked
        RENEWALS.labels(self.spec.name, "refused").inc()
        await self._end(f"its authorization server said {error}")
        return self.blocked

    async def _save(self) -> Failure | None:
        """Store what is held; where that fails it is used from memory and stored later."""
        holding, name, was_unsaved = self._holding, self.spec.name, self.unsaved
        if holding is None:
            return None
        try:
            sealed = self._around.vault.seal(holding)
            version = await in_database(store.save, name, max(self._version, 0), sealed, holding.token)
            if version is None:
                self.unsaved = self.unsaved or "conflict"
                await self._reconcile(await in_database(store.read, name))
            else:
                self._version, self.unsaved, self._is_outdated = version, "", False
        except GatewayError as error:
            self.unsaved = error.code
            self._save_from = self._now() + _AGAIN_S
            if not was_unsaved:
                log.warning("the token of %s cannot be stored: %s", name, error.message, extra=self._tag)
        if was_unsaved and not self.unsaved:
            log.info("the token of %s is stored", name, extra=self._tag)
        return None

    async def _reconcile(self, row: Row) -> None:
        """Another write came: take it, unless what we hold is unsaved and younger."""
        ours = self._holding.token if self._holding else None
        theirs = None
        if self.unsaved and ours is not None and row.sealed:
            try:
                theirs = self._around.vault.open(row.sealed)[0].token
            except GatewayError:
                theirs = None
        if theirs is not None and ours is not None and theirs.id != ours.id and theirs.obtained_at < ours.obtained_at:
            self._version = row.version  # the next save replaces it
        else:
            self._adopt(row)

    async def _end(self, why: str) -> None:
        """No further token. One that was not refused yet is used to its own end."""
        is_news = not self._ended
        self._ended, self._due = why, None
        if not self._outlives:
            self.blocked = self._over()
            self._around.on_change(self.spec.name)
        if is_news and self._holding is not None:
            log.warning("the credential of %s has ended: %s", self.spec.name, why, extra=self._tag)
            await self._tried(self._store_end, self._holding, why)

    def _store_end(self, holding: Holding, why: str) -> None:
        sealed = self._around.vault.seal(holding)
        version = store.refuse(self.spec.name, max(self._version, 0), sealed, holding.token, why)
        self._version = self._version if version is None else version

    @property
    def _outlives(self) -> bool:
        """Whether the last token may still be good: it has not run out, and no 401 came to it."""
        token = self._holding.token if self._holding else None
        left = grant.left_s(token, self._wall()) if token else 0.0
        return self._rejected != self.serial and (left is None or left > 0)

    async def _tried(self, fn: Callable[..., None], *args: object) -> None:
        try:
            await in_database(fn, *args)
        except GatewayError as error:
            log.warning("what became of the token of %s is not written down: %s", self.spec.name, error.message)

    # Times and words.

    def _now(self) -> float:
        return self._around.clock.monotonic()

    def _wall(self) -> float:
        return self._around.clock.now().timestamp()

    @property
    def _tag(self) -> dict[str, str]:
        return {"remote": self.spec.name}

    @property
    def _way_out(self) -> str:
        return f"mcp remote login {self.spec.name}"

    def _later(self, failure: Failure) -> Failure:
        self._last, self._renew_from = failure, self._now() + self._again_s
        self._again_s = min(2 * self._again_s, _AGAIN_MAX_S)
        return failure

    def _over(self) -> Failure:
        return self._failure(f"the credential of {self.spec.name} has ended ({self._ended}): {self._way_out}")

    def _failure(self, why: str, fault: Fault = Fault.UNAUTHORIZED, error: GatewayError | None = None) -> Failure:
        status = 401 if fault is Fault.UNAUTHORIZED else 0
        return Failure(fault, "auth", why, status=status, detail=error.message if error else "")
