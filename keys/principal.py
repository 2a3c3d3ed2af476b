"""Who is calling, as a value that a request carries to its end."""

from dataclasses import dataclass, field

from keys.grant import EVERYTHING, Grant, Kind, Sight, sight

__all__ = ["Kind", "Principal"]


@dataclass(frozen=True, slots=True)
class Principal:
    """A verified key. `fingerprint` is equal for keys that see the same catalogue: joined lists are cached by it."""

    key_id: str
    name: str
    grant: Grant = EVERYTHING
    fingerprint: str = field(init=False, compare=False)
    _sight: Sight | None = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        grant = self.grant
        seen = sight(grant.mcps, grant.allow, grant.deny) if grant.is_restricted else None
        object.__setattr__(self, "_sight", seen)
        object.__setattr__(self, "fingerprint", grant.fingerprint)

    def allows(self, kind: Kind, remote: str, name: str, exposed: str = "") -> bool:
        """The one predicate that filters calls, lists, reads, templates, completion and subscriptions alike.

        `name` is the remote's own; `exposed` what clients see, for tools and prompts.
        """
        return self._sight is None or self._sight.allows(kind, remote, name, exposed)

    def denies(self, remote: str, name: str) -> bool:
        """Whether it is named as forbidden: what a template leads to is allowed by its own URI, never past its template."""
        return self._sight is not None and self._sight.denies(remote, name)

    def reaches(self, remote: str) -> bool:
        """Whether anything of this remote exists for this key: its words about itself, its tasks."""
        return self._sight is None or self._sight.reaches(remote)
