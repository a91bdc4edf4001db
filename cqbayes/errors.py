"""The one exception that bad input raises."""

import sys
from types import TracebackType


class InputError(ValueError):
    """Bad input: one line that says what was expected, what came, and what to do.

    The command line prints the line and exits with code 2.
    """


def scripts_end_in_one_line() -> None:
    """Has a script that bad input ends say so as the command line does. Notebooks stay as they are.

    Called by a script as it starts; other exceptions keep their traceback.
    """
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
        if not isinstance(error, InputError):
            return before(kind, error, where)
        print(f"cqbayes: {error}", file=sys.stderr)
        sys.exit(2)

    sys.excepthook = hook
