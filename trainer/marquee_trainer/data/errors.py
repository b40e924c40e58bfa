"""The errors of loading ratings."""

from __future__ import annotations

from collections.abc import Sequence

SHOWN_PROBLEMS = 10


class RatingsError(ValueError):
    """Ratings cannot be read or are invalid."""

    @classmethod
    def listing(
        cls, summary: str, problems: Sequence[str], total: int | None = None, hint: str = ""
    ) -> RatingsError:
        """Creates an error that lists the first problems and the total number.

        Args:
            summary: The common cause of the problems.
            problems: One line per problem; the first `SHOWN_PROBLEMS` are enough.
            total: The total number of problems; None if `problems` has all of them.
            hint: What the user can do about them; empty for no hint.
        """
        total = len(problems) if total is None else total
        shown = "".join(f"\n  {problem}" for problem in problems[:SHOWN_PROBLEMS])
        hidden = total - SHOWN_PROBLEMS
        more = f"\n  … and {hidden} more" if hidden > 0 else ""
        return cls(f"{summary} ({total}):{shown}{more}" + (f"\n{hint}" if hint else ""))


class OtherFormError(RatingsError):
    """A file has the name of a GroupLens file but another format."""
