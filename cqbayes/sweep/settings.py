"""Sweeps are data: policies x environments x parameters x seeds, in a TOML or JSON file.

::

    rounds = 2_000
    num_seeds = 16                         # repetitions, at once on one device
    vary = { seed = [0, 1] }

    [[policies]]
    name = "acqb"
    vary = { settings = { c = [0.25, 0.5, 1.0] } }

    [[policies]]
    name = "random"

    [[environments]]
    data = "synthetic"
    settings = { num_llms = 5, dim = 5 }   # of the truth
    vary = { slack = [0.05, 0.1] }

A cell is one policy in one environment with one seed; here there are 4 x 2 x 2. ``vary`` replaces
fields by each of the values given, in all combinations. ``settings`` go to the function that makes
the policy or the truth, ``queue`` to :func:`cqbayes.environments.queue.retrial_queue`.

``run.py`` runs a sweep, ``cell.py`` one cell, ``results.py`` reads what came out.
"""

import hashlib
import itertools
import json
import math
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from cqbayes.errors import InputError

MOST_SHOWN = 60  # characters of a value in a message


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def _plain(value: Any) -> Any:
    """Refuses what no JSON file holds: a cell is its JSON."""
    if isinstance(value, dict):
        return {str(name): _plain(inside) for name, inside in value.items()}
    if isinstance(value, list):
        return [_plain(inside) for inside in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("expected finite numbers")
    if not isinstance(value, str | int | float | bool | None):
        raise ValueError("expected numbers, strings, booleans, lists or tables")
    return value


Settings = Annotated[dict[str, Any], AfterValidator(_plain)]


class PolicySettings(_Record):
    """A policy by name.

    Attributes:
        name: as ``cqbayes simulate --policy`` takes it.
        posterior: what a Bayesian policy keeps its posterior with: ``memory``, which knows the
            failures of each waiting query, ``online`` or an engine, which know its context alone.
        settings: keywords of the function that makes the policy.
    """

    name: str
    posterior: str = "memory"
    settings: Settings = {}


class EnvironmentSettings(_Record):
    """A queue and the truth about its users.

    Attributes:
        data: ``synthetic``, or a folder of ``data/``.
        settings: keywords of the function that makes the truth; of a data set also ``dim``.
        slate_size: most LLMs that answer one query.
        slack: distance of the arrival rate from capacity, arrivals per round; 0.1 by default.
        arrival_rate: arrivals per round, instead.
        queue: keywords of :func:`cqbayes.environments.queue.retrial_queue`.
        trace, trace_name: a Parquet file as :func:`cqbayes.environments.traffic.read_trace` takes
            it, and which of its traces; arrivals are like it, at the rate above. The file must not
            change while a sweep goes on.
        unstable: whether a load is allowed that no policy can carry.
    """

    data: str = "synthetic"
    settings: Settings = {}
    slate_size: int = Field(default=1, ge=1)
    slack: float | None = None
    arrival_rate: float | None = Field(default=None, ge=0, le=1)
    queue: Settings = {}
    unstable: bool = False
    trace: str | None = None
    trace_name: str | None = None

    @model_validator(mode="after")
    def _one_load(self) -> "EnvironmentSettings":
        if self.slack is not None and self.arrival_rate is not None:
            raise ValueError("expected slack or arrival_rate, got both")
        return self


class RunSettings(_Record):
    """How long and how often.

    Attributes:
        rounds: of each run.
        num_seeds: repetitions of a cell, run together.
        seed: decides all randomness of a cell; cells that share it meet the same worlds.
        points: rounds of each curve that are kept, at least; fewer than twice as many.
    """

    rounds: int = Field(default=1_000, ge=1)
    num_seeds: int = Field(default=8, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**32)
    points: int = Field(default=200, ge=1)


class Cell(RunSettings):
    """One policy in one environment."""

    policy: PolicySettings
    environment: EnvironmentSettings

    def json_text(self) -> str:
        """The cell as JSON that is the same wherever it is written."""
        fields = self.model_dump()
        environment = fields["environment"]
        # Cells without a trace are those that were cells before there were any.
        for name in ("trace", "trace_name"):
            if environment[name] is None:
                del environment[name]
        return json.dumps(fields, sort_keys=True, separators=(",", ":"))

    def identity(self) -> str:
        """Sixteen digits that stand for these settings, in file names."""
        return hashlib.sha256(self.json_text().encode()).hexdigest()[:16]


class Sweep(RunSettings):
    """Many cells. Entries hold the fields of the records above, and ``vary``.

    Make one with :func:`sweep_of` or :func:`read_sweep`, which say in one line what is wrong.
    """

    policies: list[dict[str, Any]] = Field(min_length=1)
    environments: list[dict[str, Any]] = Field(default=[{}], min_length=1)
    vary: dict[str, Any] = {}


def sweep_of(fields: Mapping[str, Any], source: str = "sweep") -> Sweep:
    """Checks the fields of a sweep.

    Args:
        fields: as a file has them.
        source: what messages begin with.

    Raises:
        InputError: names the field, what was expected and what came.

    Example:
        >>> len(cells(sweep_of({"policies": [{"name": "random", "vary": {}}]})))
        1
    """
    sweep = _checked(Sweep, fields, f"{source}: ")
    cells(sweep, source)
    return sweep


def read_sweep(path: str | Path) -> Sweep:
    """Reads a sweep from a TOML or JSON file.

    Raises:
        InputError: if it cannot be read, or is no sweep.
    """
    path = Path(path)
    readers = {".toml": tomllib.loads, ".json": json.loads}
    if path.suffix not in readers:
        raise InputError(f"{path}: expected a file that ends in .toml or .json")
    try:
        fields = readers[path.suffix](path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: expected a readable file, got: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: expected {path.suffix[1:].upper()}, got: {reason}") from None
    if not isinstance(fields, dict):
        raise InputError(f"{path}: expected a table of fields, got {_shown(fields)}")
    return sweep_of(fields, str(path))


def cells(sweep: Sweep, source: str = "sweep") -> list[Cell]:
    """All cells of a sweep, each once, in the order of the file.

    Raises:
        InputError: for an entry that is no policy or environment, or that does not exist.
    """
    policies = [
        settings
        for place, entry in enumerate(sweep.policies)
        for settings in _expanded(PolicySettings, entry, f"{source}: policies.{place}.")
    ]
    environments = [
        settings
        for place, entry in enumerate(sweep.environments)
        for settings in _expanded(EnvironmentSettings, entry, f"{source}: environments.{place}.")
    ]
    own = {"policies", "environments"}
    runs = _expanded(RunSettings, sweep.model_dump(exclude=own), f"{source}: ")
    _check_names(policies, environments, source)
    found = [
        Cell(policy=policy, environment=environment, **run.model_dump())
        for run in runs
        for environment in environments
        for policy in policies
    ]
    return list({cell.identity(): cell for cell in found}.values())


_Kind = TypeVar("_Kind", bound=_Record)


def _expanded(kind: type[_Kind], entry: Mapping[str, Any], prefix: str) -> list[_Kind]:
    """One record for each combination of what varies; messages begin with ``prefix``."""
    fixed = {name: value for name, value in entry.items() if name != "vary"}
    axes = list(_axes(entry.get("vary", {}), f"{prefix}vary"))
    records = []
    for values in itertools.product(*(values for _, values in axes)):
        fields = dict(fixed)
        for (path, _), value in zip(axes, values, strict=True):
            if len(path) == 2:
                inside = fields.get(path[0], {})
                value = {**inside, path[1]: value} if isinstance(inside, dict) else inside
            fields[path[0]] = value
        records.append(_checked(kind, fields, prefix))
    return records


def _axes(vary: Any, place: str) -> Iterator[tuple[tuple[str, ...], list[Any]]]:
    if not isinstance(vary, dict):
        raise InputError(f"{place}: expected a table of lists, got {_shown(vary)}")
    for name, values in vary.items():
        if isinstance(values, dict) and name in ("settings", "queue"):
            for setting, inside in values.items():
                yield (name, setting), _values(inside, f"{place}.{name}.{setting}")
        else:
            yield (name,), _values(values, f"{place}.{name}")


def _values(values: Any, place: str) -> list[Any]:
    if not isinstance(values, list) or not values:
        raise InputError(f"{place}: expected a list of at least one value, got {_shown(values)}")
    return values


def _checked(kind: type[_Kind], fields: Mapping[str, Any], prefix: str) -> _Kind:
    """The record, or the first thing that is wrong with it, in one line."""
    try:
        return kind.model_validate(dict(fields))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    path = ".".join(map(str, first["loc"]))
    expected = {
        "extra_forbidden": f"expected one of {', '.join(kind.model_fields)}",
        "missing": "expected a value",
        "too_short": "expected at least one entry",
    }.get(first["type"], first["msg"].replace("Input should be", "expected"))
    expected = expected.removeprefix("Value error, ")
    if not path:  # something about several fields, which says by itself what came
        raise InputError(f"{prefix.rstrip('. :')}: {expected}")
    got = "nothing" if first["type"] == "missing" else _shown(first["input"])
    raise InputError(f"{prefix}{path}: {expected}, got {got}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MOST_SHOWN else text[: MOST_SHOWN - 3] + "..."


def _check_names(
    policies: list[PolicySettings], environments: list[EnvironmentSettings], source: str
) -> None:
    """Refuses, before anything runs, what does not exist."""
    from cqbayes.policies.belief import check_posterior
    from cqbayes.policies.setup import check_policy_name, policy_settings
    from cqbayes.simulation.worlds import data_settings, queue_settings, trace_times

    try:
        for policy in policies:
            check_policy_name(policy.name)
            check_posterior(policy.posterior)
            taken = policy_settings(policy.name)
            _check_settings(policy.settings, taken, f"settings of {policy.name}")
        for environment in environments:
            taken = data_settings(environment.data)
            _check_settings(environment.settings, taken, f"settings of {environment.data}")
            _check_settings(environment.queue, queue_settings(), "queue")
        for trace, name in dict.fromkeys((one.trace, one.trace_name) for one in environments):
            trace_times(trace, name)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None


def _check_settings(given: Mapping[str, Any], taken: list[str], name: str) -> None:
    unknown = [setting for setting in given if setting not in taken]
    if unknown:
        known = f"one of {', '.join(taken)}" if taken else "none"
        raise InputError(f"{name}: expected {known}, got {unknown[0]!r}")
