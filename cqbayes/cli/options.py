"""What several commands have in common."""

from typing import Annotated

import typer

MOST_LINES = 60  # of a table
Seed = Annotated[int, typer.Option(help="Decides all randomness.", min=0, max=2**32 - 1)]
