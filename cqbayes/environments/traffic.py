"""Arrivals from a real trace, rescaled to a load and resampled for many seeds.

A trace is a list of times of requests, in seconds. It is cut into rounds of equal length, so that
on average ``arrival_rate`` requests fall into a round. Unlike in the plain queue, several requests
may fall into one round.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int, PRNGKeyArray

from cqbayes.environments.rules import Arrivals
from cqbayes.errors import InputError

# Limits of the longest gap of a trace if longest_gap is absent: the larger of a share of its span
# and a number of mean gaps; with FEWEST_GAPS gaps or more, also a multiple of the tenth longest.
SHARE_OF_SPAN, MEAN_GAPS = 0.1, 10.0
TIMES_THE_TENTH, FEWEST_GAPS = 20.0, 50
MOST_ROUNDS = 50_000_000


def read_trace(
    path: Path, name: str | None = None, *, longest_gap: float | None = None
) -> Float[np.ndarray, " request"]:
    """Times of a trace's requests in seconds, the first at 0, from Parquet.

    Args:
        path: a file with a column ``t_s`` of seconds, and a column ``trace`` of names if it holds
            several traces.
        name: name of the trace.
        longest_gap: as in :func:`check_times`.

    Raises:
        InputError: for a file that cannot be read, missing columns, an unknown trace, or times that
            :func:`check_times` refuses.
    """
    try:
        table = pq.ParquetFile(path)
        columns = table.schema_arrow.names
        wanted = [column for column in ("trace", "t_s") if column in columns]
        if "t_s" not in wanted:
            raise InputError(f"{path}: expected a column t_s of seconds, found none")
        frame = table.read(columns=wanted).to_pandas()
    except OSError as error:
        raise InputError(f"{path}: expected a readable file, got: {error.strerror}") from None
    except pa.ArrowInvalid:
        raise InputError(f"{path}: expected a Parquet file, got something else") from None
    kind = table.schema_arrow.field("t_s").type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise InputError(f"{path}: expected numbers of seconds in column t_s, got {kind}")
    if "trace" in frame:
        frame = frame.dropna(subset="trace").astype({"trace": str})
        known = sorted(frame["trace"].unique())
        if name not in known and (name is not None or len(known) != 1):
            raise InputError(f"{path}: expected one of the traces {', '.join(known)}, got {name}")
        if name is not None:
            frame = frame[frame["trace"] == name]
    elif name is not None:
        raise InputError(f"{path}: expected a column trace with the name {name}, found none")
    times = frame["t_s"].to_numpy(float)
    check_times(times, longest_gap=longest_gap)
    return times - times[0]


def check_times(times: Float[np.ndarray, " request"], *, longest_gap: float | None = None) -> None:
    """Refuses times that are not in order, are not finite, or have a too long gap.

    A missing part of a trace looks like a gap that is much longer than all other gaps. If
    ``longest_gap`` is absent, a gap is too long in two cases: it is longer than a tenth of the span
    (with fewer than 100 gaps: ten mean gaps), or there are 50 gaps or more and it is longer than 20
    times the tenth longest gap.

    Real traces are bursty, and their own longest gaps must pass. In two one-hour traces of Azure's
    LLMs the longest gap is 24 and 557 mean gaps long, but only 2.4 and 2.8 times the tenth longest
    gap. In 20,000 requests of steady traffic a hole of 200 mean gaps is noticed. In the burstier
    Azure trace, whose gaps spread 12 times as much as those of the other, a hole is noticed only
    from 344 seconds on, a tenth of the span. A shorter hole cannot be told from a natural gap: the
    longest natural gap has 217 seconds.

    Args:
        times: times of requests, in seconds.
        longest_gap: most seconds between two requests.

    Raises:
        InputError: for such times; the message gives the row, counted from 0.
    """
    if times.ndim != 1 or times.size < 2:
        raise InputError(f"trace: expected at least two times, got shape {times.shape}")
    if not np.isfinite(times).all():
        row = int(np.argmin(np.isfinite(times)))
        raise InputError(
            f"trace: expected finite times, row {row} is {times[row]}; remove this row"
        )
    gaps = np.diff(times)
    if (gaps < 0).any():
        row = int(np.argmax(gaps < 0)) + 1
        raise InputError(f"trace: expected times in order, row {row} is before row {row - 1}; sort")
    span = times[-1] - times[0]
    if span <= 0:
        raise InputError("trace: expected times that differ, got the same time in all rows")
    limit = _longest_gap(gaps) if longest_gap is None else longest_gap
    if gaps.max() > limit:
        row = int(np.argmax(gaps))
        raise InputError(
            f"trace: expected no gap over {limit:.4g} s, got {gaps[row]:.4g} s after row {row}; "
            "cut the trace there, or pass a larger longest_gap"
        )


def _longest_gap(gaps: Float[np.ndarray, " gap"]) -> float:
    """The longest gap, in seconds, that still counts as natural in this trace."""
    span, positive = gaps.sum(), np.sort(gaps[gaps > 0])
    limit = max(SHARE_OF_SPAN * span, MEAN_GAPS * span / gaps.size)
    if positive.size < FEWEST_GAPS:
        return float(limit)
    return float(min(limit, TIMES_THE_TENTH * positive[-10]))


def arrivals_from_trace(
    times: Float[np.ndarray, " request"],
    arrival_rate: float,
    *,
    longest_gap: float | None = None,
) -> Arrivals:
    """Arrivals of the trace, in rounds that hold ``arrival_rate`` requests on average.

    This function does not check whether a queue can serve so many requests. For that, call
    ``check_stable(arrivals.rate, capacity(population))`` of :mod:`cqbayes.environments.load`.

    Args:
        times: times of requests, in seconds, as :func:`read_trace` gives them.
        arrival_rate: mean number of requests in a round.
        longest_gap: as in :func:`check_times`.

    Raises:
        InputError: for times that :func:`check_times` refuses, or a rate that is not positive.

    Example:
        >>> import numpy as np
        >>> arrivals_from_trace(np.array([0.0, 1.0, 2.0, 3.0, 4.0]), 0.5).counts.tolist()
        [1, 0, 1, 0, 1, 0, 1, 0, 1]
    """
    check_times(times, longest_gap=longest_gap)
    if not 0 < arrival_rate < np.inf:
        raise InputError(f"arrival rate: expected a positive number, got {arrival_rate}")
    length = arrival_rate * (times[-1] - times[0]) / (times.size - 1)
    if (times[-1] - times[0]) / length > MOST_ROUNDS:
        raise InputError(
            f"trace: expected at most {MOST_ROUNDS} rounds, got more; raise the arrival rate"
        )
    # 1e-9 puts a request on the border of two rounds into the later round, despite rounding.
    counts = np.bincount(np.floor((times - times[0]) / length + 1e-9).astype(np.int64))
    return Arrivals(jnp.asarray(counts, jnp.int32), int(counts.max()))


def block_bootstrap(
    key: PRNGKeyArray,
    arrivals: Arrivals,
    rounds: int,
    num_seeds: int,
    block: int | None = None,
) -> Arrivals:
    """Many random traces like the given one, by the circular block bootstrap.

    A new trace is a sequence of blocks of the given trace, and each block starts at a round drawn
    uniformly. Bursts shorter than a block mostly stay whole. The beginning of the trace follows its
    end, so that every round is drawn equally often.

    Args:
        key: JAX key for the starts of blocks.
        arrivals: arrivals of one trace, as :func:`arrivals_from_trace` gives them.
        rounds: number of rounds of each new trace.
        num_seeds: number of new traces.
        block: rounds in a block; a twentieth of the trace if absent.

    Returns:
        Counts ``[seed, round]``, for ``equinox.filter_vmap`` over :func:`retrial_queue`.

    Raises:
        InputError: for a block longer than the trace.

    Source: Politis and Romano, A circular block-resampling procedure for stationary data, 1992.
    """
    counts: Int[np.ndarray, " round"] = np.asarray(arrivals.counts)
    block = max(1, counts.size // 20) if block is None else block
    if not 1 <= block <= counts.size:
        raise InputError(f"block: expected 1 to {counts.size} rounds, got {block}")
    starts = jax.random.randint(key, (num_seeds, -(-rounds // block), 1), 0, counts.size)
    places = (starts + jnp.arange(block)) % counts.size
    return Arrivals(arrivals.counts[places].reshape(num_seeds, -1)[:, :rounds], arrivals.most)
