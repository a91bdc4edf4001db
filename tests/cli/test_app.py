"""What a user of the shell sees: results, and one line with exit code 2 for bad input."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xarray as xr
from typer.testing import CliRunner

from cqbayes.cli import app as cli
from cqbayes.errors import InputError
from cqbayes.logs.choice_files import read_choices, write_choices


def _run(*arguments, cwd=None):
    """In a process of its own, as users do."""
    return subprocess.run(
        [sys.executable, "-m", "cqbayes.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=300,
        check=False,
    )


def _fails(arguments, capsys, monkeypatch):
    """In this process, to save the start-up: exit code and what was said."""
    monkeypatch.setattr(sys, "argv", ["cqbayes", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    said = capsys.readouterr()
    return stop.value.code, said.err, said.out


@pytest.fixture
def log(tmp_path, choices):
    path = tmp_path / "log.parquet"
    write_choices(path, choices(seed=0, num_obs=200)[0], ["a", "b", "c", "d"], "simulated")
    return path


def test_help_names_the_commands():
    shown = CliRunner().invoke(cli.app, ["--help"])
    assert shown.exit_code == 0
    for command in ("demo", "fit", "simulate", "sweep"):
        assert command in shown.output


def test_fit_writes_a_posterior_that_arviz_reads(log, tmp_path):
    out = tmp_path / "new" / "fit.nc"
    done = _run("fit", log, "--engine", "laplace", "--out", out)
    assert done.returncode == 0, done.stderr
    assert "laplace: ok" in done.stdout
    tree = xr.open_datatree(out, engine="h5netcdf")
    assert tree["posterior"]["llm"].values.tolist() == ["a", "b", "c", "d"]
    assert tree.attrs["engine"] == "laplace"
    assert tree.attrs["seed"] == 0
    assert [p.name for p in out.parent.iterdir()] == ["fit.nc"]


def test_simulate_writes_results_and_a_picture(tmp_path):
    done = _run(
        "simulate",
        "--policy",
        "fifo_random",
        "--policy",
        "cqb_eps",
        "--rounds",
        120,
        "--seeds",
        3,
        "--out",
        tmp_path / "run",
    )
    assert done.returncode == 0, done.stderr
    assert "fifo_random" in done.stdout
    curves = xr.open_dataset(tmp_path / "run" / "curves.nc", engine="h5netcdf")
    assert curves["policy"].values.tolist() == ["oracle", "fifo_random", "cqb_eps"]
    assert curves.attrs["seeds"] == 3
    assert (tmp_path / "run" / "regret.png").read_bytes().startswith(b"\x89PNG")


def test_simulate_on_real_scores(tmp_path):
    done = _run(
        "simulate",
        "--data",
        "paretobandit3",
        "--policy",
        "best_single",
        "--rounds",
        60,
        "--seeds",
        2,
        "--dim",
        4,
        "--out",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr


def test_simulate_with_a_trace(tmp_path):
    times = np.cumsum(np.random.default_rng(0).exponential(size=2_000))
    pq.write_table(pa.table({"trace": ["mine"] * 2_000, "t_s": times}), tmp_path / "t.parquet")
    trace = ["--trace", tmp_path / "t.parquet", "--trace-name", "mine"]
    sizes = ["--policy", "random", "--rounds", 60, "--seeds", 2, "--out", tmp_path / "run"]
    done = _run("simulate", *trace, *sizes)
    assert done.returncode == 0, done.stderr
    curves = xr.open_dataset(tmp_path / "run" / "curves.nc", engine="h5netcdf")
    assert curves.attrs["trace_name"] == "mine"


def test_log_round_trip(log, choices):
    data, llms = read_choices(log)
    assert llms == ["a", "b", "c", "d"]
    np.testing.assert_array_equal(data.choice, choices(seed=0, num_obs=200)[0].choice)
    assert json.loads(pq.read_schema(log).metadata[b"llms"]) == llms
    assert pq.read_schema(log).metadata[b"note"] == b"simulated"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "absent.parquet"], "absent.parquet: expected a readable file, got: No such file"),
        (["fit", "LOG", "--model", "nope"], "model: expected one of .*disjoint_mnl"),
        (
            ["fit", "LOG", "--engine", "nope"],
            "engine: expected one of auto, hmc, laplace, nuts, online",
        ),
        (["fit", "LOG", "--out", "FILE/fit.nc"], "FILE: expected a folder that can be written to"),
        (["fit", "FILE"], "FILE: expected a file .parquet, .csv, .jsonl"),
        (["fit", "LOG", "--out", "LOG"], "log.parquet: expected a name that ends in .nc or .zarr"),
        (["fit", "LOG", "--out", "x.nc/.."], "expected a name that ends in .nc or .zarr"),
        (["simulate", "--policy", "nope"], "policy: expected one of acqb"),
        (["simulate", "--data", "nope"], "data: expected one of synthetic, .*paretobandit3"),
        (
            ["simulate", "--posterior", "nope"],
            "posterior: expected one of memory, hmc, laplace, nuts, online.*'nope'",
        ),
        (["simulate", "--arrival-rate", "1.5"], r"arrival rate: expected .*\[0, 1\], got 1.5"),
        (["simulate", "--arrival-rate", "nan"], r"arrival rate: expected .*\[0, 1\], got nan"),
        (["simulate", "--slack", "0.9"], r"arrival rate: expected .*\[0, 1\], got -0"),
        (["simulate", "--slate-size", "6"], "slate size: expected 1 to 5 .*, got 6"),
        (["simulate", "--slate-size", "0"], "slate size: expected 1 to 5 .*, got 0"),
        (["simulate", "--trace", "FILE"], "FILE: expected a Parquet file, got something else"),
        (["simulate", "--trace-name", "a"], "trace: expected the file that holds a, got only its"),
        (["simulate", "--out", "FILE/x"], "FILE/x: expected a folder that can be written to"),
        (["demo", "--out", "FILE/x"], "FILE/x: expected a folder that can be written to"),
        (["simulate", "--data", "wildchat"], "wildchat: expected a data set with scores of LLMs"),
        (["simulate", "--data", "paretobandit3", "--dim", "99"], "1 to 64 context dimensions"),
    ],
)
def test_bad_input(arguments, message, log, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("not a folder, not Parquet")
    before = sorted(tmp_path.rglob("*"))
    code, said, out = _fails(
        [str(log) if a == "LOG" else a for a in arguments], capsys, monkeypatch
    )
    assert code == 2
    assert said.count("\n") == 1
    assert said.startswith("cqbayes: ")
    import re

    assert re.search(message, said), said
    assert out == ""
    assert sorted(tmp_path.rglob("*")) == before, "nothing may be left behind"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"choice": [4, 0]},
            "choice: expected 0 (retry) to 2, or -1 (silence) to -16 (other signs), got 4 in row 0",
        ),
        ({"choice": [2, 0]}, "choice: expected 0 (retry) or an LLM that was offered"),
        ({"context": [[0.1, float("nan")], [0.2, 0.3]]}, "context: expected finite numbers"),
        ({"context": [[0.1, 0.2], [0.3]]}, "expected lists of one length in column context"),
        ({"context": [0.1, 0.2]}, "expected lists in column context"),
        ({"weight": [1.0, -2.0]}, "weight: expected a weight of at least 0"),
        ({"weight": [0.0, 0.0]}, "data: expected at least one row of positive weight"),
        ({"context": [[0.1, 1e300], [0.2, 0.3]]}, "context: expected finite numbers"),
        ({"offered": None}, "expected columns context, offered, choice; got no offered"),
    ],
)
def test_bad_logs(change, message, tmp_path, capsys, monkeypatch):
    columns = {
        "context": [[0.1, 0.2], [0.3, 0.4]],
        "offered": [[True, False], [True, True]],
        "choice": [1, 0],
        **change,
    }
    path = tmp_path / "bad.parquet"
    pq.write_table(pa.table({k: v for k, v in columns.items() if v is not None}), path)
    arguments = ["fit", path, "--out", tmp_path / "out" / "fit.nc"]
    code, said, _ = _fails(arguments, capsys, monkeypatch)
    assert (code, said.count("\n")) == (2, 1)
    assert message in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_fit_that_is_stopped_leaves_nothing_behind(tmp_path, stop, code):
    row = '{{"query_id": "{}", "attempt": 1, "offered": ["a", "b"], "chosen": "a", "text": "x"}}\n'
    (tmp_path / "log.jsonl").write_text("{\n" + "".join(map(row.format, range(400_000))))
    arguments = ["fit", "log.jsonl", "--encoder", "constant", "--quarantine", "aside.jsonl"]
    process = subprocess.Popen(
        [sys.executable, "-m", "cqbayes.cli", *arguments],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 120
        while not list(tmp_path.glob(".*")):  # what is set aside, as yet without its name
            assert process.poll() is None, "it ended before it could be stopped"
            assert time.monotonic() < end
            time.sleep(0.01)
        process.send_signal(stop)
        assert process.wait(120) == code
    finally:
        process.kill()
        process.wait()
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]


def test_a_signal_while_the_quarantine_file_is_made_leaves_nothing_behind(tmp_path, monkeypatch):
    from cqbayes.logs.quarantine import Ledger

    ledger = Ledger(tmp_path / "aside.jsonl")
    made = []

    def interrupted(*args, opener, **kwargs):
        os.close(opener(str(args[0]), os.O_CREAT | os.O_WRONLY))
        made.extend(tmp_path.iterdir())
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.open", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ledger.put_aside("reason", "log:1", {})
    monkeypatch.undo()
    assert len(made) == 1
    ledger.discard()
    assert not list(tmp_path.iterdir())


def test_a_stopped_command_has_cleaned_up_before_the_interpreter_ends(monkeypatch):
    # What is cleaned up only while the interpreter ends may find its modules gone.
    clean = []

    def steps():
        try:
            yield
        finally:
            clean.append(True)

    def app():
        running = steps()
        next(running)
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(130)

    monkeypatch.setattr(cli, "app", app)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 130
    assert clean, "the frames that failed are still held"


def test_interrupted_writes_leave_the_old_file(tmp_path):
    from cqbayes._tools.files import replacing

    path = tmp_path / "results.csv"
    path.write_text("old")

    def fail():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise OSError("disk full")

    with pytest.raises(InputError, match=r"results.csv: could not be written: disk full"):
        fail()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["results.csv"]
