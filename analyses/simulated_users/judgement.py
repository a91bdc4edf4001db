"""Whether a log of simulated users is read for what it is: fitted, and held against the truth."""

import functools
import json
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from simulated_users.formats import write_log
from simulated_users.users import simulate_users
from simulated_users.wordings import DOMAINS, Words, invented, real
from simulated_users.worlds import Faults, World, world_of

from cqbayes import InputError, TextOptions, TurnOptions, fit, replacing

MARGIN = 0.03  # further than this outside its interval, a truth was missed
REFUSED = "refused"


class Judged(NamedTuple):
    """A world, what was found of it, and the truth.

    Attributes:
        world: its settings.
        seed: what decided users, wordings and gateway.
        truth, mean, low, high: first-attempt acceptance of each LLM, and 90 percent intervals; NaN
            where there is none.
        ok: whether the fit vouches for itself and for its data.
        findings: names of what was found in the data, each with its level.
        others: LLMs in the fit that no user ever met.
        services: rows that were fitted.
        seconds: of CPU and waiting, for reading and fitting.
        said: what was refused, in the words of the error.
    """

    world: World
    seed: int
    truth: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    ok: bool
    findings: tuple[tuple[str, str], ...] = ()
    others: int = 0
    services: int = 0
    seconds: float = 0.0
    said: str = ""

    @property
    def covered(self) -> np.ndarray:
        return (self.low <= self.truth) & (self.truth <= self.high)

    @property
    def outside(self) -> np.ndarray:
        """How far each truth lies outside its interval; infinity where there is none."""
        away = np.maximum(self.low - self.truth, self.truth - self.high)
        return np.where(np.isnan(away), np.inf, np.maximum(away, 0.0))

    @property
    def wrong(self) -> bool:
        """Whether a truth was missed, or an LLM was found that is none."""
        return bool(np.any(self.outside > MARGIN)) or self.others > 0

    @property
    def error(self) -> float:
        """Mean distance of the estimates from the truth."""
        return float(np.mean(np.abs(self.mean - self.truth)))

    @property
    def doubts(self) -> tuple[str, ...]:
        """Names of what speaks against the fit."""
        return tuple(name for name, level in self.findings if level != "note")

    def as_json(self) -> dict[str, Any]:
        """Plain numbers and names, of which :func:`judged_of` makes the same again."""
        own = self._asdict()
        for name in ("truth", "mean", "low", "high"):
            own[name] = [None if np.isnan(x) else round(float(x), 6) for x in own[name]]
        world = {**self.world._asdict(), "faults": self.world.faults._asdict()}
        return {**own, "world": world}


def judged_of(found: dict[str, Any]) -> Judged:
    """What :meth:`Judged.as_json` gave."""
    world = dict(found["world"])
    faults = Faults(**world.pop("faults"))
    tuples = {k: tuple(v) if isinstance(v, list) else v for k, v in world.items()}
    numbers = {k: np.array(found[k], float) for k in ("truth", "mean", "low", "high")}
    findings = tuple((name, level) for name, level in found["findings"])
    return Judged(
        **{**found, **numbers, "world": World(**tuples, faults=faults), "findings": findings}
    )


def judge(world: World, seed: int, words: Words, **settings: Any) -> Judged:
    """Simulates a world, writes its log, fits that, and holds the fit against the truth.

    Args:
        world: its settings.
        seed: decides all randomness.
        words: what users say.
        settings: others of :func:`cqbayes.fit`.
    """
    simulated = simulate_users(world, seed, words)
    truth = simulated.truth
    unknown = np.full(len(truth), np.nan)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path = write_log(Path(folder) / "log", world, simulated, seed)
        try:
            text = TextOptions(encoder="constant")
            turns = TurnOptions(detector=words.detector)
            fitted = fit(path, format=world.format, text=text, turns=turns, seed=seed, **settings)
            at = fitted.acceptance(seed=seed)
        except InputError as error:
            said = str(error).replace(folder, "")
            none = (unknown, unknown, unknown)
            return Judged(
                world, seed, truth, *none, ok=False, findings=((REFUSED, "fail"),), said=said
            )
    seconds = time.perf_counter() - began
    names = list(fitted.log.llms)
    mean, low, high = unknown.copy(), unknown.copy(), unknown.copy()
    for place, name in enumerate(world.llms):
        if name in names:
            own = at.sel(llm=name)
            mean[place] = float(own["overall_mean"])
            low[place], high[place] = np.asarray(own["overall_interval"], float)
    sampler = () if fitted.info.ok else ((f"engine: {fitted.info.verdict.name}", "fail"),)
    found = tuple((one.name, one.level) for one in fitted.data.findings)
    return Judged(
        world,
        seed,
        truth,
        mean,
        low,
        high,
        ok=bool(fitted.ok),
        findings=(*sampler, *found),
        others=len(set(names) - set(world.llms)),
        services=int(fitted.log.data.num_obs),
        seconds=seconds,
    )


@functools.cache
def words_of(folder: Path | None, domain: str, seed: int) -> Words:
    """Wordings of real dialogues where the folder has them, and invented ones elsewhere."""
    found = None if folder is None else real(folder, domain)
    return invented(seed) if found is None else found


def judge_once(
    number: int, seed: int, sessions: int, out: Path, data: Path | None, engine: str
) -> Judged:
    """Judges a world, or reads what an earlier call found of the same one.

    Args:
        number: of the world.
        seed: of all worlds.
        sessions: of each.
        out: where a file a world is kept.
        data: where real wordings are looked for.
        engine: as in :func:`cqbayes.fit`.
    """
    # All formats and behaviours come with each domain: there are seven formats.
    world, domain = world_of(number, seed, sessions), DOMAINS[number % len(DOMAINS)]
    words = words_of(data, domain, seed)
    asked = {"seed": seed * 10_000 + number, "engine": engine, "domain": words.domain}
    path = out / f"world-{number:03}.json"
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        done = judged_of(found["judged"])
        if found["asked"] == asked and done.world == world:
            return done
    judged = judge(world, asked["seed"], words, engine=engine)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps({"asked": asked, "judged": judged.as_json()}, indent=1))
    return judged
