"""What workers have counted, kept beyond their lives, so that the sums of all never fall when one of them dies.

Whoever answers a scrape tells here what it is about to show of each worker and hears what to add: the counts of all workers
that are not among those it has. So nothing was ever shown that is not known here, a worker that is gone, hung or draining
keeps the counts it was last seen with, and no file is written. Pure; it lives as long as the supervisor, with which all
counts begin anew.
"""

from collections.abc import Mapping

Counts = Mapping[str, float]

# Workers whose counts are remembered one by one: the living, and the last that went, in case somebody still has them.
APART_MAX = 64
# Above any number of series that a worker makes; what is more than that is not kept.
SERIES_MAX = 50_000


class Ledger:
    def __init__(self) -> None:
        self._of: dict[str, dict[str, float]] = {}
        self._long_gone: dict[str, float] = {}

    def told(self, workers: Mapping[str, Counts]) -> Counts:
        """Take down what these have counted; the sum of what all others had."""
        for worker, counts in workers.items():
            before = self._of.pop(worker, {})
            # Two who ask at once may tell in the other order than they read: a count of one worker never falls.
            self._of[worker] = {name: max(counts[name], before.get(name, 0.0)) for name in list(counts)[:SERIES_MAX]}
        while len(self._of) > APART_MAX:
            _add(self._long_gone, self._of.pop(next(iter(self._of))))
        total = dict(self._long_gone)
        for worker, counts in self._of.items():
            if worker not in workers:
                _add(total, counts)
        return total


def _add(total: dict[str, float], counts: Counts) -> None:
    for name, count in counts.items():
        total[name] = total.get(name, 0.0) + count
