"""The command line's door: all commands, and how they end."""

import signal
import sys
from typing import Any, NoReturn

import typer

from cqbayes.cli.data import data_app
from cqbayes.cli.demo import demo
from cqbayes.cli.fit import fit
from cqbayes.cli.label import label
from cqbayes.cli.predict import predict
from cqbayes.cli.simulate import simulate
from cqbayes.cli.sweep import sweep
from cqbayes.errors import InputError

app = typer.Typer(
    help="Bayesian preference models of user retrials, and the queues that they route.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (demo, fit, label, predict, simulate, sweep):
    app.command()(command)
app.add_typer(data_app, name="data")


def main() -> None:
    """Runs a command; bad input is one line on standard error and exit code 2.

    Codes 1 and 3 are of commands that ran: each command's help says what they mean.
    """
    before, code = signal.signal(signal.SIGTERM, _terminated), 0
    try:
        app()
    except InputError as error:
        typer.echo(f"cqbayes: {error}", err=True)
        code = 2
    except _Terminated:
        code = 128 + signal.SIGTERM
    except SystemExit as stop:  # of typer, which turns Ctrl-C into it too
        code = stop.code
    finally:
        signal.signal(signal.SIGTERM, before)
    # Out here the frames that failed are gone, and with them what they had begun to write.
    if code:
        sys.exit(code)


class _Terminated(BaseException):
    """SIGTERM, which ends a command as Ctrl-C does: what it has begun to write is removed."""


def _terminated(number: int, frame: Any) -> NoReturn:
    raise _Terminated
