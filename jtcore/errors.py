"""The one error that a user's mistake raises."""

from collections.abc import Iterable


class JtError(Exception):
    """A user's mistake: where, what was found, what was expected, what to do; all problems at once.

    Commands print it without a traceback and exit with status 2.
    """

    def __init__(self, problems: str | Iterable[str]):
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class Interrupted(Exception):
    """SIGTERM or SIGINT arrived; what had been computed is on disk and can be resumed."""
