"""How far a first contact has come, step by step and with its times: what a probe tells when it is asked for a trace.

The steps are those of `diagnosis.Phase`. It only moves on: that a second request connects anew is no step back.
"""

from collections.abc import Callable
from typing import Any

from remotes.config.snapshot import RemoteSpec
from remotes.diagnosis import Phase
from remotes.upstream.record import Places, Record


class Journey:
    def __init__(self, spec: RemoteSpec, clock: Callable[[], float]) -> None:
        self.record = _Record(Places(2), on_born=lambda: self.reach(Phase.HANDSHAKE))
        self._clock = clock
        self._reached = [(Phase.SPAWN if spec.transport == "stdio" else Phase.DNS, clock())]

    @property
    def phase(self) -> Phase:
        return self._reached[-1][0]

    def reach(self, phase: Phase) -> None:
        if phase.order > self.phase.order:
            self._reached.append((phase, self._clock()))

    def steps(self, failed: Phase | None) -> list[dict[str, Any]]:
        """Every step that was taken; `failed`: the one that ended it, None when all went well."""
        ends = [at for _, at in self._reached[1:]] + [self._clock()]
        taken = [
            (phase, round((end - began) * 1000, 1)) for (phase, began), end in zip(self._reached, ends, strict=True)
        ]
        if failed is None:
            return [_step(phase, ms) for phase, ms in taken]
        before = [_step(phase, ms) for phase, ms in taken if phase.order < failed.order]
        rest_ms = sum(ms for phase, ms in taken if phase.order >= failed.order)
        return [*before, _step(failed, round(rest_ms, 1), ok=False)]


class _Record(Record):
    on_born: Callable[[], None] = lambda: None

    def born(self, pid: int) -> None:
        Record.born(self, pid)
        self.on_born()


def _step(phase: Phase, ms: float, *, ok: bool = True) -> dict[str, Any]:
    return {"name": str(phase), "ok": ok, "ms": ms}
