"""Whether two series of times differ, and by enough to be of use to anybody. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean, variance

# All three together: a difference that chance does not explain, that a network would carry, and that is no rounding.
T_MAX = 4.5
DIFFERENCE_MAX_MS = 0.3
DIFFERENCE_MAX_PERCENT = 2.0


@dataclass(frozen=True, slots=True)
class Comparison:
    one: str
    other: str
    t: float
    difference_ms: float
    percent: float

    @property
    def tells(self) -> bool:
        return (
            abs(self.t) > T_MAX
            and abs(self.difference_ms) > DIFFERENCE_MAX_MS
            and abs(self.percent) > DIFFERENCE_MAX_PERCENT
        )


def compared(series: Mapping[str, Sequence[float]]) -> list[Comparison]:
    """Every pair, by Welch's t; times in milliseconds."""
    return [_compared(one, series[one], other, series[other]) for one, other in combinations(series, 2)]


def _compared(one: str, times: Sequence[float], other: str, others: Sequence[float]) -> Comparison:
    difference = fmean(times) - fmean(others)
    spread = math.sqrt(variance(times) / len(times) + variance(others) / len(others))
    t = difference / spread if spread else math.copysign(math.inf, difference) if difference else 0.0
    return Comparison(one, other, t, difference, 100 * difference / fmean(others))
