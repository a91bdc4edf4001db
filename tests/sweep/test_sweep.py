"""Sweeps: what a file may say, the same bytes from every executor, and going on after anything."""

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import dying
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xarray as xr
from checkpointed import compiling_once

from cqbayes._tools.digests import differences, fingerprint
from cqbayes.cli import app as cli
from cqbayes.errors import InputError
from cqbayes.policies.belief import belief_by_name
from cqbayes.policies.setup import Setup, load_policy, policy_settings
from cqbayes.preference import Sizes
from cqbayes.sweep.cell import run_cell
from cqbayes.sweep.results import label, parameters, read_results
from cqbayes.sweep.run import run_sweep
from cqbayes.sweep.settings import Cell, cells, read_sweep, sweep_of

SMALL = {
    "rounds": 40,
    "num_seeds": 2,
    "points": 20,
    "policies": [{"name": "random"}],
    "environments": [{"settings": {"num_llms": 3, "dim": 2}}],
}
FOUR = {
    **SMALL,
    "vary": {"seed": [0, 1]},
    "policies": [{"name": "random"}, {"name": "fifo_random"}],
}


def _files(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    """Four cells, run here without interruption."""
    folder = tmp_path_factory.mktemp("serial") / "out"
    outcomes = run_sweep(sweep_of(FOUR), folder, executor="serial")
    assert [one.state for one in outcomes] == ["done"] * 4
    return folder


@pytest.fixture(scope="module", autouse=True)
def _no_processes_left():
    yield
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor().shutdown(wait=True, kill_workers=True)


# What a file may say


def test_cells_are_all_combinations_once():
    sweep = sweep_of(
        {
            **SMALL,
            "vary": {"seed": [0, 1], "rounds": [10, 20]},
            "policies": [
                {"name": "acqb", "vary": {"settings": {"c": [0.1, 0.2, 0.1]}}},
                {"name": "fifo_acqb", "posterior": "laplace", "settings": {"alpha": 0.5}},
            ],
            "environments": [
                {"slate_size": 2, "vary": {"slack": [0.1, 0.2]}},
                {"data": "paretobandit3", "settings": {"dim": 4}, "arrival_rate": 0.3},
            ],
        }
    )
    found = cells(sweep)
    assert len(found) == 2 * 2 * 3 * 3
    assert len({cell.identity() for cell in found}) == len(found)
    assert {label(cell) for cell in found} == {
        "acqb(c=0.1)",
        "acqb(c=0.2)",
        "fifo_acqb(posterior=laplace, alpha=0.5)",
    }
    assert parameters(found[-1]) == {
        "data": "paretobandit3",
        "slate_size": 1,
        "arrival_rate": 0.3,
        "data.dim": 4,
        "unstable": False,
        "rounds": 20,
        "num_seeds": 2,
        "points": 20,
        "base_seed": 1,
    }


def test_identities_are_the_same_everywhere():
    """They name files: one that changes orphans them."""
    (cell,) = cells(sweep_of(SMALL))
    assert cell.identity() == "4ccf2fae8634121b"
    assert Cell.model_validate_json(cell.json_text()) == cell


TOML = """
rounds = 40
num_seeds = 2
points = 20
vary = { seed = [0, 1] }

[[policies]]
name = "random"

[[policies]]
name = "acqb"
settings = { c = 1e-7 }

[[environments]]
settings = { num_llms = 3, dim = 2 }
"""


def test_what_files_say(tmp_path):
    fields = {**FOUR, "policies": [{"name": "random"}, {"name": "acqb", "settings": {"c": 1e-7}}]}
    (tmp_path / "sweep.toml").write_text(TOML)
    (tmp_path / "sweep.json").write_text(json.dumps(fields))
    for name in ("sweep.toml", "sweep.json"):
        assert read_sweep(tmp_path / name) == sweep_of(fields)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"polices": []}, "sweep: polices: expected one of rounds, num_seeds, .*, got \\[\\]"),
        ({"rounds": "40"}, "sweep: rounds: expected a valid integer, got '40'"),
        ({"rounds": 0}, "sweep: rounds: expected greater than or equal to 1, got 0"),
        ({"rounds": True}, "sweep: rounds: expected a valid integer, got True"),
        ({"policies": []}, "sweep: policies: expected at least one entry, got \\[\\]"),
        ({"policies": [{}]}, "sweep: policies.0.name: expected a value, got nothing"),
        ({"policies": [{"name": "acbq"}]}, "sweep: policy: expected one of acqb, .*, got 'acbq'"),
        (
            {"policies": [{"name": "random"}, {"name": "acqb", "seettings": {}}]},
            "policies.1.seettings: expected one of name, posterior, settings, got {}",
        ),
        (
            {"policies": [{"name": "acqb", "settings": {"x": 1}}]},
            "settings of acqb: expected one of c, alpha, .*, got 'x'",
        ),
        ({"policies": [{"name": "random", "settings": {"c": 1}}]}, "expected none, got 'c'"),
        (
            {"policies": [{"name": "acqb", "settings": {"c": float("nan")}}]},
            "policies.0.settings: expected finite numbers, got {'c': nan}",
        ),
        (
            {"policies": [{"name": "acqb", "vary": {"settings": {"c": 0.5}}}]},
            "policies.0.vary.settings.c: expected a list of at least one value, got 0.5",
        ),
        ({"vary": {"seed": []}}, "sweep: vary.seed: expected a list of at least one value"),
        ({"vary": [1]}, "sweep: vary: expected a valid dictionary, got \\[1\\]"),
        ({"vary": {"sead": [1]}}, "sweep: sead: expected one of rounds, .*, got 1"),
        ({"policies": [{"name": "acqb", "posterior": "x"}]}, "posterior: expected one of .*'x'"),
        ({"environments": [{"data": "x"}]}, "data: expected one of synthetic, .*, got 'x'"),
        ({"environments": [{"queue": {"x": 1}}]}, "queue: expected .*, got 'x'"),
        ({"environments": [{"settings": {"x": 1}}]}, "settings of synthetic: .*, got 'x'"),
        ({"environments": [{"slack": float("inf")}]}, "0.slack: expected a finite number, got inf"),
        ({"environments": [{"arrival_rate": 2}]}, "arrival_rate: expected less than .*, got 2"),
        (
            {"environments": [{"slack": 0.1, "arrival_rate": 0.2}]},
            "environments.0: expected slack or arrival_rate, got both",
        ),
    ],
)
def test_bad_sweeps(changes, message):
    with pytest.raises(InputError, match=message) as error:
        sweep_of({**SMALL, **changes})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.toml", "rounds = ", "a.toml: expected TOML, got: "),
        ("a.json", "[1]", "a.json: expected a table of fields, got \\[1\\]"),
        ("a.json", "{", "a.json: expected JSON, got: "),
        ("a.yaml", "", "a.yaml: expected a file that ends in .toml or .json"),
        ("a.toml", "rounds = 3\npolicies = [{ name = 3 }]", "policies.0.name: .* string, got 3"),
        ("b.toml", None, "b.toml: expected a readable file, got: No such file"),
    ],
)
def test_bad_files(name, text, message, tmp_path):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message) as error:
        read_sweep(tmp_path / name)
    assert "\n" not in str(error.value)


# What comes out


def test_results_are_one_labelled_array(serial):
    results = read_results(serial)
    assert isinstance(results, xr.Dataset)
    curve = results["routing_regret"]
    assert curve.dims == ("policy", "base_seed", "seed", "round")
    assert curve.shape == (2, 2, 2, 20)
    assert results["policy"].values.tolist() == ["fifo_random", "random"]
    assert results["round"].values[-1] == 40
    assert int(results["data.num_llms"]) == 3
    assert results["utilisation"].dims == ("policy", "base_seed", "seed", "llm")
    assert not np.isnan(results["wait_mean"]).all()
    assert results["failures"].dims == ("policy", "base_seed")
    # Worlds are shared: the oracle's queue is the same beside both policies.
    beside = results["queue_length_tail_oracle"]
    np.testing.assert_array_equal(beside.sel(policy="random"), beside.sel(policy="fifo_random"))
    assert float(abs(beside.diff("base_seed")).max()) > 0


def test_a_cell_is_what_simulate_measures(serial):
    """Regret is paired with the oracle of the same worlds."""
    one = read_results(serial).sel(policy="random", base_seed=0)
    assert int(one["failures"]) == 0
    assert 0 < float(one["mean_arrival_rate"]) < 1
    assert (one["queue_length"].values - one["queue_length_regret"].values >= 0).all()
    assert (np.diff(one["matching_regret"], axis=-1) >= -1e-6).all()


def test_values_reach_the_oracle_as_a_policy_but_not_as_the_yardstick():
    """Queue-length regret is that of departures."""

    def results(queue):
        environment = {**SMALL["environments"][0], "arrival_rate": 0.5, "queue": queue}
        fields = {**SMALL, "policies": [{"name": "oracle"}], "environments": [environment]}
        (cell,) = cells(sweep_of(fields))
        return pq.read_table(pa.BufferReader(run_cell(cell)))

    plain, valued = results({}), results({"values": [0.1, 1.0, 0.2]})
    column = "queue_length_tail_oracle"
    assert valued[column] == plain[column]
    assert valued["queue_length"] != plain["queue_length"]
    regret = np.array(valued["matching_regret"].to_pylist())
    np.testing.assert_allclose(regret, 0, atol=1e-5)


def test_a_ragged_grid_is_a_table(tmp_path):
    settings = SMALL["environments"][0]
    loads = [{**settings, "slack": 0.2}, {**settings, "arrival_rate": 0.3}]
    run_sweep(sweep_of({**SMALL, "environments": loads}), tmp_path, executor="serial")
    table = read_results(tmp_path)
    assert isinstance(table, pd.DataFrame)
    assert len(table) == 2 * 2 * 20
    assert table["arrival_rate"].dropna().unique().tolist() == [0.3]
    assert table["slack"].dropna().unique().tolist() == [0.2]
    assert table.groupby(["seed", "mean_arrival_rate"])["round"].max().tolist() == [40] * 4
    assert table["routing_regret"].dtype == float
    assert (table["failures"] == 0).all()


def test_settings_reach_the_policy(tmp_path):
    values = {"settings": {"values": [[1, 0, 0], [0, 1, 0]]}}
    sweep = sweep_of({**SMALL, "policies": [{"name": "best_single", "vary": values}]})
    run_sweep(sweep, tmp_path, executor="serial")
    used = read_results(tmp_path)["utilisation"]
    for place, policy in enumerate(("[1, 0, 0]", "[0, 1, 0]")):
        answered = used.sel(policy=f"best_single(values={policy})")
        assert (answered[:, place] > 0).all()
        assert float(answered.sum()) == pytest.approx(float(answered[:, place].sum()))


@pytest.mark.parametrize("name", ["acqb", "fifo_thompson"])
def test_a_policy_with_settings_is_the_usual_one_but_for_them(name):
    sizes = Sizes(3, 2)
    setup = Setup(sizes, 2, belief_by_name("online", sizes))
    usual = fingerprint("policy", load_policy(name, setup))
    assert differences(usual, fingerprint("policy", load_policy(name, setup, {"alpha": 1.0}))) == ""
    other = fingerprint("policy", load_policy(name, setup, {"alpha": 0.5}))
    assert "alpha was float32 1.0, is float32 0.5" in differences(usual, other)
    with pytest.raises(InputError, match=r"settings of (acqb|thompson): expected .*'b'"):
        load_policy(name, setup, {"b": 1})


def test_a_policy_whose_build_takes_settings_gets_them(monkeypatch):
    def build(setup, *, depth=1):
        return setup.slate_size, depth

    monkeypatch.setattr("cqbayes.policies.random.build", build)
    setup = Setup(Sizes(3, 2), 2, belief_by_name("online", Sizes(3, 2)))
    assert policy_settings("random") == ["depth"]
    assert load_policy("random", setup, {"depth": 4}) == (2, 4)


def test_no_results(tmp_path, serial):
    with pytest.raises(InputError, match="expected a sweep's folder with finished cells"):
        read_results(tmp_path)
    for name, content in _files(serial).items():
        (tmp_path / name).write_bytes(content)
    path = next(tmp_path.glob("*.parquet"))
    for content in (b"", path.read_bytes()[:-100]):
        path.write_bytes(content)
        with pytest.raises(InputError, match="expected a sweep's Parquet file, got a damaged one"):
            read_results(tmp_path)
        with pytest.raises(InputError, match="expected a sweep's Parquet file, got a damaged one"):
            run_sweep(sweep_of(FOUR), tmp_path, executor="serial")


# Engines


@pytest.mark.slow
def test_processes_leave_the_same_bytes(serial, tmp_path, monkeypatch):
    for name, value in compiling_once(tmp_path / "cache").items():
        monkeypatch.setenv(name, value)
    run_sweep(sweep_of(FOUR), tmp_path / "out", executor="processes", jobs=2)
    assert _files(tmp_path / "out") == _files(serial)


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_process_that_dies_is_a_failed_cell_and_the_rest_go_on(jobs, tmp_path, monkeypatch):
    monkeypatch.setattr("cqbayes.sweep.executors._in_worker", dying.in_worker)
    sweep = sweep_of({**SMALL, "vary": {"seed": list(range(12))}})
    outcomes = run_sweep(sweep, tmp_path, executor="processes", jobs=jobs)
    assert [one.cell.seed for one in outcomes] == list(range(12))
    states = ["done", "failed", "failed"] + 9 * ["done"]
    assert [one.state for one in outcomes] == states
    assert outcomes[1].reason.startswith(
        "its process died (SIGKILL(-9)), perhaps for lack of memory"
    )
    assert outcomes[2].reason.startswith("its process died (EXIT(7)), perhaps for lack of memory")
    failure = json.loads((tmp_path / f"{outcomes[1].cell.identity()}.failed.json").read_text())
    assert failure["cell"]["seed"] == 1
    used = {int(path.read_bytes()) for path in tmp_path.glob("*.parquet")}
    assert os.getpid() not in used, "nothing that may die runs in the process that drives"


@pytest.mark.slow
@pytest.mark.long
def test_ray_leaves_the_same_bytes_and_no_processes(serial, tmp_path):
    """In a process of its own, since Ray has warnings and threads of its own."""
    pytest.importorskip("ray", reason="Ray is not installed")
    (tmp_path / "four.json").write_text(json.dumps(FOUR))
    code = (
        "import sys, ray; from cqbayes.sweep.settings import read_sweep\n"
        "from cqbayes.sweep.run import run_sweep\n"
        "ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)\n"
        "run_sweep(read_sweep(sys.argv[1]), sys.argv[2], executor='ray')\n"
        "assert ray.is_initialized(), 'it was not ours to shut down'\n"
        "ray.shutdown()\n"
        "run_sweep(read_sweep(sys.argv[1]), sys.argv[3], executor='ray', jobs=2)\n"
        "assert not ray.is_initialized()\n"
    )
    arguments = [str(tmp_path / name) for name in ("four.json", "given", "own")]
    command = [sys.executable, "-c", code, *arguments]
    with tempfile.TemporaryDirectory(prefix="ray") as short:  # sockets have short names
        own = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": short}
        environment = {**compiling_once(tmp_path / "cache"), **own, "HOME": str(tmp_path)}
        subprocess.run(command, env=environment, check=True, timeout=300, start_new_session=True)
    assert _files(tmp_path / "given") == _files(tmp_path / "own") == _files(serial)
    names = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not [name for name in names if str(tmp_path).encode() in name]


def test_bad_executors(tmp_path):
    with pytest.raises(
        InputError, match="executor: expected one of processes, ray, serial, got 'x'"
    ):
        run_sweep(sweep_of(SMALL), tmp_path, executor="x")
    with pytest.raises(InputError, match="jobs: expected at least one, got 0"):
        run_sweep(sweep_of(SMALL), tmp_path, jobs=0)
    assert list(tmp_path.iterdir()) == []


def test_without_ray(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'cqbayes\[cluster\]'"):
        run_sweep(sweep_of(SMALL), tmp_path, executor="ray")


# Going on


def test_a_sweep_goes_on_where_it_stopped(serial, tmp_path, monkeypatch):
    ran = []

    def counted(cell):
        if len(ran) == 2:
            raise KeyboardInterrupt
        ran.append(cell)
        return run_cell(cell)

    with monkeypatch.context() as patched:
        patched.setattr("cqbayes.sweep.cell.run_cell", counted)
        with pytest.raises(KeyboardInterrupt):
            run_sweep(sweep_of(FOUR), tmp_path, executor="serial")
    assert len(list(tmp_path.glob("*.parquet"))) == 2
    (tmp_path / ".12345.parquet").write_bytes(b"half")
    assert isinstance(read_results(tmp_path), xr.Dataset | pd.DataFrame)
    outcomes = run_sweep(sweep_of(FOUR), tmp_path, executor="serial")
    assert [one.state for one in outcomes] == ["kept", "kept", "done", "done"]
    assert _files(tmp_path) == _files(serial)


def test_more_cells_may_be_added_and_others_are_refused(tmp_path, monkeypatch):
    run_sweep(sweep_of(SMALL), tmp_path, executor="serial")
    before = _files(tmp_path)
    for change, named in (
        ({"rounds": 41}, "rounds was 40, is 41"),
        ({"policies": [{"name": "fifo_random"}]}, "policies.0.name was random, is fifo_random"),
        ({"environments": [{}]}, "environments.0.settings.num_llms was 3, is absent"),
    ):
        with pytest.raises(InputError, match=named):
            run_sweep(sweep_of({**SMALL, **change}), tmp_path, executor="serial")
    with monkeypatch.context() as patched:
        patched.setattr("cqbayes.sweep.run.provenance", lambda: {"jax": "0"})
        with pytest.raises(InputError, match=r"jax was .*, is 0"):
            run_sweep(sweep_of(SMALL), tmp_path, executor="serial")
    assert _files(tmp_path) == before
    outcomes = run_sweep(sweep_of(FOUR), tmp_path, executor="serial")
    assert [one.state for one in outcomes] == ["kept", "done", "done", "done"]


def test_a_sweep_that_was_killed_at_its_very_beginning(serial, tmp_path):
    (tmp_path / ".123.json").write_text("half")
    run_sweep(sweep_of(FOUR), tmp_path, executor="serial")
    assert _files(tmp_path) == _files(serial)


def test_folders_of_others(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match=r"expected an empty folder or that of a sweep"):
        run_sweep(sweep_of(SMALL), tmp_path, executor="serial")
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(InputError, match=r"expected a sweep's settings, got a damaged file"):
        run_sweep(sweep_of(SMALL), tmp_path, executor="serial")
    assert sorted(_files(tmp_path)) == ["sweep.json", "thesis.tex"]


def test_one_cell_that_fails_does_not_stop_the_rest(tmp_path, monkeypatch, capsys):
    fields = {**SMALL, "environments": [{**SMALL["environments"][0], "vary": {"slack": [0.1, 3]}}]}
    (tmp_path / "sweep.json").write_text(json.dumps(fields))
    arguments = ["sweep", str(tmp_path / "sweep.json"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["cqbayes", *arguments, "--executor", "serial"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    said = capsys.readouterr()
    assert stop.value.code == 1
    assert "1 done, 0 kept, 1 failed" in said.out
    assert "failed: arrival rate: expected a probability per round in [0, 1]" in said.err
    (path,) = (tmp_path / "out").glob("*.failed.json")
    failure = json.loads(path.read_text())
    assert failure["cell"]["environment"]["slack"] == 3
    assert failure["reason"].startswith("arrival rate: expected a probability")

    def broken(cell):
        raise ZeroDivisionError("first\nsecond")

    with monkeypatch.context() as patched:
        patched.setattr("cqbayes.sweep.cell.run_cell", broken)
        outcomes = run_sweep(sweep_of(fields), tmp_path / "out", executor="serial")
    assert [one.state for one in outcomes] == ["kept", "failed"]
    assert outcomes[1].reason == "ZeroDivisionError: first"
    monkeypatch.setattr("cqbayes.sweep.cell.run_cell", lambda cell: b"better now")
    run_sweep(sweep_of(fields), tmp_path / "out", executor="serial")
    assert list((tmp_path / "out").glob("*.failed.json")) == []


def test_loads_that_nobody_can_carry_are_announced_once(tmp_path, capsys):
    """Before anything runs, and once for all the policies and seeds of an environment."""
    settings = SMALL["environments"][0]
    loads = [{**settings, "slack": -0.1, "unstable": True}, {**settings, "unstable": True}]
    sweep = sweep_of({**FOUR, "environments": loads})
    outcomes = run_sweep(sweep, tmp_path, executor="serial")
    assert {one.state for one in outcomes} == {"done"}
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("cqbayes: environment {")
    assert "'slack': -0.1" in line
    assert line.endswith("every queue grows without end")
    run_sweep(sweep, tmp_path, executor="serial")
    assert capsys.readouterr().err == "", "nothing is run"


def test_sweeps_with_traces(tmp_path):
    path = tmp_path / "trace.parquet"
    times = np.cumsum(np.random.default_rng(0).lognormal(sigma=1.5, size=3_000))
    pd.DataFrame({"trace": "mine", "t_s": times}).to_parquet(path)
    settings = SMALL["environments"][0]
    trace = {**settings, "trace": str(path), "trace_name": "mine", "slack": 0.2}
    fields = {**SMALL, "rounds": 400, "environments": [trace, {**settings, "slack": 0.2}]}
    outcomes = run_sweep(sweep_of(fields), tmp_path / "out", executor="serial")
    assert [one.reason for one in outcomes] == ["", ""]
    found = [pq.read_table(path) for path in _shards(tmp_path / "out", outcomes)]
    jumps = [np.diff(np.stack(table["queue_length"].to_pylist())).max() for table in found]
    assert jumps[0] > jumps[1], "several arrive in one round"
    for wrong, message in (
        ({"trace_name": "other"}, "sweep: .*: expected one of the traces mine, got other"),
        ({"trace": "absent.parquet"}, "sweep: absent.parquet: expected a readable file"),
        ({"trace": None}, "sweep: trace: expected the file that holds mine, got only its name"),
    ):
        with pytest.raises(InputError, match=message):
            sweep_of({**fields, "environments": [{**trace, **wrong}]})


def _shards(folder, outcomes):
    return [folder / f"{one.cell.identity()}.parquet" for one in outcomes]


def test_a_full_disk_stops_the_sweep_in_one_line(serial, tmp_path, monkeypatch):
    import errno

    calls = itertools.count()
    fsync = os.fsync

    def full(handle):
        if next(calls) > 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(InputError, match="could not be written: No space left on device"):
            run_sweep(sweep_of(FOUR), tmp_path, executor="serial")
    assert list(tmp_path.glob(".*")) == []
    run_sweep(sweep_of(FOUR), tmp_path, executor="serial")
    assert _files(tmp_path) == _files(serial)


@pytest.mark.slow
@pytest.mark.long
def test_stopped_processes_leave_finished_cells(tmp_path):
    """Killed, then interrupted, the sweep ends with the bytes of one that ran through."""
    fields = {**SMALL, "rounds": 500, "vary": {"seed": list(range(12))}}
    (tmp_path / "sweep.json").write_text(json.dumps(fields))
    out, environment = tmp_path / "out", compiling_once(tmp_path / "cache")
    command = [sys.executable, "-m", "cqbayes.cli", "sweep", str(tmp_path / "sweep.json")]
    command += ["--out", str(out), "--jobs", "2"]

    def start():
        quiet = subprocess.DEVNULL
        return subprocess.Popen(command, env=environment, stdout=quiet, stderr=quiet)

    def finished():
        return len(list(out.glob("[!.]*.parquet")))

    for stop, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)):
        enough = finished() + 2
        process = start()
        while process.poll() is None and finished() < enough:
            time.sleep(0.005)
        process.send_signal(stop)
        assert process.wait() == code
        assert enough <= finished() < 12
        for path in out.glob("[!.]*.parquet"):
            assert pq.read_table(path).num_rows == 2
    assert start().wait() == 0
    run_sweep(sweep_of(fields), tmp_path / "whole", executor="serial")
    assert _files(out) == _files(tmp_path / "whole")
