"""A run that was killed goes on to the same bits; a folder of another run is refused."""

import errno
import linecache
import os
import random
import signal
import subprocess
import sys
import time
import types

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkpointed import ROUNDS, arrays, compiling_once, policy_of, run
from conftest import ROOT

from cqbayes._tools.digests import differences, fingerprint
from cqbayes.environments.queue import retrial_queue
from cqbayes.environments.synthetic import synthetic
from cqbayes.errors import InputError
from cqbayes.policies.oracle import oracle
from cqbayes.policies.random import random as random_policy
from cqbayes.policies.wrappers.explore import explore
from cqbayes.simulation.checkpoint import Checkpoint
from cqbayes.simulation.loop import simulate


def _same(first, second):
    assert first.keys() == second.keys()
    for name, values in first.items():
        assert values.dtype == second[name].dtype
        np.testing.assert_array_equal(values, second[name])


def _refused(folder, kind="random", **changes):
    with pytest.raises(InputError) as error:
        run(kind, Checkpoint(folder, every=50), **changes)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture(scope="module")
def plain():
    return run("random", None)


@pytest.fixture
def kept(tmp_path):
    """The folder of a finished run."""
    run("random", Checkpoint(tmp_path / "run", every=50))
    return tmp_path / "run"


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "kills"), [("online", 3), ("laplace", 2)])
@pytest.mark.long
def test_killed_at_random_moments_it_ends_with_the_same_bits(kind, kills, tmp_path):
    environment = compiling_once(tmp_path / "cache")

    def start(folder, out):
        command = [sys.executable, ROOT / "tests" / "checkpointed.py", kind, folder, tmp_path / out]
        return subprocess.Popen([str(part) for part in command], env=environment)

    assert start("none", "plain.npz").wait() == 0
    folder, dice, moments = tmp_path / "run", random.Random(3), []
    state = folder / "state"
    for _ in range(kills):
        before = state.stat().st_mtime_ns if state.exists() else 0
        process = start(folder, "killed.npz")
        while process.poll() is None:
            if state.exists() and state.stat().st_mtime_ns > before:
                time.sleep(dice.uniform(0, 0.2))
                process.kill()
                break
            time.sleep(0.001)
        assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
        moments.append(len(list(folder.glob("rounds-*"))))
    assert 0 < moments[0] < moments[-1] < ROUNDS, moments
    assert start(folder, "killed.npz").wait() == 0
    with np.load(tmp_path / "plain.npz") as first, np.load(tmp_path / "killed.npz") as second:
        _same(dict(first), dict(second))
    assert len(list(folder.glob("rounds-*"))) == ROUNDS
    assert list(folder.glob(".*")) == []


def test_checkpoints_change_nothing_and_a_finished_run_is_there_at_once(plain, kept, monkeypatch):
    monkeypatch.setattr("cqbayes.simulation.loop._run_chunk", None)
    _same(arrays(plain), arrays(run("random", Checkpoint(kept, every=50))))
    assert sorted(path.name for path in kept.iterdir()) == [
        *(f"rounds-{first:09}-{min(first + 49, ROUNDS):09}" for first in range(1, ROUNDS, 50)),
        "state",
    ]


def test_a_shorter_run_is_continued(plain, tmp_path):
    run("random", Checkpoint(tmp_path, every=64), rounds=100)
    _same(arrays(plain), arrays(run("random", Checkpoint(tmp_path, every=1_000))))
    assert "rounds was 240, is 200" in _refused(tmp_path, rounds=200)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"rounds": 200}, "rounds was 240, is 200"),
        ({"num_seeds": 3}, "num_seeds was 2, is 3"),
        ({"record": False}, "record was True, is False"),
        ({"key": jax.random.key(3)}, "key was [0, 2], is [0, 3]"),
        ({"c": 0.7}, "policy.select.schedule.c was float32 0.5, is float32 0.69"),
        ({"arrival_rate": 0.5}, "world.arrivals was float32 0.60"),
        ({"kind": "online"}, "policy.init was cqbayes.policies.policy._no_state"),
    ],
)
def test_another_run_is_refused(kept, changes, named):
    before = {path: path.read_bytes() for path in kept.iterdir()}
    assert named in (said := _refused(kept, **changes)), said
    assert "use another folder, or delete this one" in said
    assert {path: path.read_bytes() for path in kept.iterdir()} == before


def test_other_versions_are_refused(kept, monkeypatch):
    monkeypatch.setattr("cqbayes.simulation.checkpoint.provenance", lambda: {"jax": "0.1"})
    assert "version of jax was" in _refused(kept)


def test_other_schedules_are_refused(tmp_path):
    """A continued run may refit later on, but not have refitted otherwise."""
    from cqbayes.simulation.checkpoint import _check_same

    before = {"rounds": 100, "refit_after": [50]}
    _check_same(tmp_path, before, {"rounds": 200, "refit_after": [50, 100, 150]})
    for schedule in ([40], [50, 75], []):
        with pytest.raises(InputError, match=r"refit_after was \[50\], is"):
            _check_same(tmp_path, before, {"rounds": 200, "refit_after": schedule})


def test_damaged_files_are_refused(kept):
    dice = np.random.default_rng(0)
    for path in sorted(kept.iterdir())[-2:]:
        whole = path.read_bytes()
        flipped = bytearray(whole)
        flipped[dice.integers(len(whole))] ^= 4
        for content in (b"", whole[:-1], whole[: len(whole) // 2], bytes(flipped), b"{}\n"):
            path.write_bytes(content)
            said = _refused(kept)
            assert said.startswith(f"{path}: expected a checkpoint as it was written"), said
        path.write_bytes(whole)
    path = min(kept.iterdir())
    path.unlink()
    assert _refused(kept).startswith(f"{path}: expected a part of a checkpoint, got: No such file")


@pytest.mark.parametrize("writes", [1, 2, 5, 6])
def test_a_full_disk_keeps_the_moment_before(plain, writes, tmp_path, monkeypatch):
    left = writes
    fsync = os.fsync

    def full(handle):
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        assert _refused(tmp_path).endswith("could not be written: No space left on device")
    assert list(tmp_path.glob(".*")) == []
    _same(arrays(plain), arrays(run("random", Checkpoint(tmp_path, every=50))))


def test_what_killed_processes_left_is_removed(kept):
    (kept / ".12345").write_bytes(b"half")
    (kept / "rounds-000000241-000000300").write_bytes(b"never made it into the state")
    (kept / "notes.txt").write_text("mine")
    run("random", Checkpoint(kept, every=50))
    assert (
        sorted(p.name for p in kept.iterdir() if "rounds-0000002" not in p.name)[0] == "notes.txt"
    )
    assert not (kept / ".12345").exists()
    assert not (kept / "rounds-000000241-000000300").exists()


def test_arrays_per_seed(tmp_path):
    populations = eqx.filter_vmap(synthetic)(jax.random.split(jax.random.key(1), 2))
    env = eqx.filter_vmap(retrial_queue)(populations, np.array([0.3, 0.5]))
    policy = eqx.filter_vmap(oracle)(populations)
    settings = {"num_seeds": 2, "policy_per_seed": True, "env_per_seed": True}
    plain, stopped, continued = (
        simulate(jax.random.key(2), policy, env, rounds, checkpoint=where, **settings)
        for rounds, where in ((90, None), (40, Checkpoint(tmp_path)), (90, Checkpoint(tmp_path)))
    )
    assert stopped.metrics.served.shape == (2, 40)
    _same(arrays(plain), arrays(continued))


def test_bad_checkpoints(tmp_path):
    with pytest.raises(InputError, match="at least one round between two, got 0"):
        run("random", Checkpoint(tmp_path / "new", every=0))
    (tmp_path / "file").write_text("")
    assert "expected a folder that can be written to" in _refused(tmp_path / "file")
    assert "empty folder or one of a run, got one with file" in _refused(tmp_path)


# Fingerprints


def test_equal_things_have_equal_fingerprints_and_others_name_what_differs():
    for kind in ("random", "online", "laplace"):
        first, again, other = (fingerprint("p", policy_of(kind, c)) for c in (0.5, 0.5, 0.6))
        assert differences(first, again) == ""
        assert differences(first, other).startswith("p.select.schedule.c was float32 0.5, is float")


def test_fingerprints_see_into_closures_defaults_and_arrays():
    def make(scale, default, array):
        def itself(x, given=default, *, name="a"):
            return itself(x) * scale + array

        return itself

    array = np.arange(3.0)
    base = fingerprint("f", make(1, 2, array))
    assert base == fingerprint("f", make(1, 2, array.copy()))
    assert differences(base, fingerprint("f", make(3, 2, array))) == "f.scale was 1, is 3"
    assert differences(base, fingerprint("f", make(1, 3, array))) == "f.default 0 was 2, is 3"
    assert "f.array was" in differences(base, fingerprint("f", make(1, 2, array + 1)))
    assert fingerprint("k", jax.random.key(1)) != fingerprint("k", jax.random.key(2))
    assert differences(dict.fromkeys("abcde", 1), {}).endswith("; and 2 more")


def _module(text, folder, name="mine"):
    """A user's module, as if it were imported anew after an edit."""
    path = folder / f"{name}.py"
    path.write_text(text)
    linecache.clearcache()
    module = types.ModuleType(name)
    exec(compile(text, str(path), "exec"), module.__dict__)
    return module


MINE = """
SCALE = 0.5

def helper(t, shift=1):
    return t + shift

def schedule(t):
    return SCALE / helper(t)

def over(table):
    return lambda t: table[0] / t

two = [lambda t: 0.5 / t, lambda t: 0.9 / t]
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [("SCALE = 0.5", "SCALE = 0.9"), ("t + shift", "t - shift"), ("SCALE / helper", "helper")],
)
def test_a_users_function_is_another_once_its_file_is_edited(before, after, tmp_path):
    base = fingerprint("f", _module(MINE, tmp_path).schedule)
    assert base["f"] == "mine.schedule"
    assert fingerprint("f", _module(MINE, tmp_path).schedule) == base
    changed = _module(MINE.replace(before, after, 1), tmp_path).schedule
    assert differences(base, fingerprint("f", changed)).startswith("f.code was ")


def test_a_users_file_may_be_moved(tmp_path):
    (tmp_path / "other").mkdir()
    one, other = _module(MINE, tmp_path), _module(MINE, tmp_path / "other")
    assert fingerprint("f", one.schedule) == fingerprint("f", other.schedule)


def test_functions_of_one_line_and_of_one_factory_are_told_apart(tmp_path):
    mine = _module(MINE, tmp_path)
    first, second = (fingerprint("f", one) for one in mine.two)
    assert differences(first, second).startswith("f.code was ")
    first, second = (fingerprint("f", mine.over(np.array([x, 1.0]))) for x in (1.0, 2.0))
    assert differences(first, second).startswith("f.table was ")


def test_what_packages_bring_is_known_by_its_version_alone():
    assert not any(name.endswith(".code") for name in fingerprint("p", policy_of("laplace", 0.5)))
    assert not any(name.endswith(".code") for name in fingerprint("f", jnp.cumsum))


def test_a_function_without_source_is_refused():
    scope = {"__name__": "mine"}
    exec("schedule = lambda t: 0.5 / t", scope)
    with pytest.raises(InputError, match=r"source can be read, mine.<lambda> has none; write it"):
        fingerprint("f", scope["schedule"])


def test_digests_of_users_files_are_the_same_in_every_process(tmp_path):
    (tmp_path / "mine.py").write_text(MINE + "odd = lambda t: t in {'a', 'b', 'c', 'd', 'e'}\n")
    code = (
        "import mine; from cqbayes._tools.digests import fingerprint\n"
        "print(fingerprint('f', mine.odd)['f.code'])"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1


def test_a_changed_schedule_is_refused(tmp_path):
    settings = {"checkpoint": Checkpoint(tmp_path, every=5)}
    env = retrial_queue(synthetic(jax.random.key(0), 3, 2), 0.4)

    def start(schedule, rounds):
        policy = explore(random_policy(3), schedule, 3, 1)
        return simulate(jax.random.key(1), policy, env, rounds, **settings)

    before, after = (lambda t: 0.5 / t**0.5), (lambda t: 0.9 / t**0.25)
    start(before, 10)
    start(before, 12)
    with pytest.raises(InputError, match=r"policy.select.schedule.code was"):
        start(after, 15)
