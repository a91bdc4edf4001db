"""``cqbayes fit`` from the shell: what is printed, one JSON object, and how it ends."""

import json
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from typer.testing import CliRunner

import cqbayes
from cqbayes.cli import app as cli
from cqbayes.diagnostics.data_verdict import DataVerdict, Finding
from cqbayes.errors import InputError
from cqbayes.logs.fit import Fitted, fit_to
from cqbayes.posterior.info import InferenceInfo, Status

SECRET = "zebra crossing"
USERS = ("ann@example.org", "bob@example.org")


def write_log(path: Path, broken: int = 0, **cells) -> Path:
    """60 services of two LLMs, half of them retried, by two users, and lines that are no rows."""
    rows = [
        {
            "query_id": f"q{i}",
            "attempt": 1,
            "user_id": USERS[i % 2],
            "timestamp": f"2026-01-{1 + i // 24:02}T{i % 24:02}:00:00Z",
            "offered": ["a", "b"],
            "chosen": [None, "a", None, "b"][i % 4],
            "text": SECRET,
            "embedding": [1.0],
            "propensity": 0.5,
            **cells,
        }
        for i in range(60)
    ]
    lines = [*map(json.dumps, rows), *[f'{{"{SECRET}"'] * broken]
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Of one fit: the folder, what came out, and what it came to."""
    folder = tmp_path_factory.mktemp("fit")
    log = write_log(folder / "log.jsonl", broken=2)
    made: list[Fitted] = []

    def fit_and_keep(*args, **options):
        made.append(fit_to(*args, **options))
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cqbayes.logs.fit.fit_to", fit_and_keep)
        result = CliRunner().invoke(
            cli.app,
            [
                *("fit", str(log), "--engine", "laplace", "--model", "user_mnl", "--json"),
                *("--out", str(folder / "fit.nc")),
            ],
        )
    return folder, result, made[0]


def test_json_is_one_object_and_nothing_else(done):
    folder, result, fitted = done
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["ok"] is True
    assert said["data"] == fitted.data.to_dict()
    assert said["sampler"]["engine"] == "laplace"
    assert said["counts"]["records"]["set_aside"] == {"line": 2}
    assert said["counts"]["services"] == 60
    assert said["counts"]["retried"] == 30
    assert [row["llm"] for row in said["acceptance"]["fresh"]] == ["a", "b"]
    assert said["paths"] == {
        "posterior": str(folder / "fit.nc"),
        "contexts": None,
        "codes": str(folder / "fit.nc.codes.json"),
    }
    assert SECRET not in result.output


def test_the_posterior_has_the_verdict_and_the_columns(done):
    folder, _, fitted = done
    stored = cqbayes.load_posterior(folder / "fit.nc", llms=["a", "b"])
    assert DataVerdict.from_dict(stored.verdict) == fitted.data
    assert stored.tree.attrs["seed"] == 0
    kept = stored.columns
    assert kept["chosen"].values[:4].tolist() == [0, 1, 0, 2]
    assert kept["user"].values[:4].tolist() == [0, 1, 0, 1]
    assert kept["time"].values[1] - kept["time"].values[0] == 3_600
    assert kept["propensity"].values.tolist() == [0.5] * 60
    assert len(np.unique(kept["query"])) == 60


def test_no_user_is_in_what_is_written(done):
    folder, _, _ = done
    for path in folder.iterdir():
        written = path.read_bytes()
        assert any(user.encode() in written for user in USERS) == (path.name == "log.jsonl")
        assert (SECRET.encode() in written) == (path.name == "log.jsonl")


@pytest.mark.parametrize(
    ("status", "level", "code", "said"),
    [
        (Status.OK, "note", 0, ""),
        (Status.POOR_MIXING, "note", 1, "cqbayes: not to be relied on: the chains disagree"),
        (Status.OK, "warn", 3, "cqbayes: data not to be believed as they are: few_rows"),
        (Status.OK, "fail", 3, "cqbayes: data not to be believed as they are: few_rows"),
        (Status.POOR_MIXING, "fail", 1, "cqbayes: not to be relied on: the chains disagree"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_exit_codes(done, monkeypatch, capsys, status, level, code, said, as_json):
    folder, _, fitted = done
    info = InferenceInfo("nuts", jnp.array(int(status)), {})
    data = DataVerdict((Finding("few_rows", level, "a sentence"),))
    found = fitted._replace(info=info, data=data)
    monkeypatch.setattr("cqbayes.logs.fit.fit_to", lambda *_, **__: found)
    arguments = ["fit", str(folder / "log.jsonl"), "--model", "user_mnl"]
    arguments += ["--out", str(folder / "again.nc")]
    arguments += ["--json"] if as_json else []
    monkeypatch.setattr(sys, "argv", ["cqbayes", *arguments])
    try:
        cli.main()
        ended = 0
    except SystemExit as stop:
        ended = stop.code
    assert ended == code
    out, err = capsys.readouterr()
    assert said in err
    if as_json:
        assert json.loads(out)["ok"] == (code == 0)
    else:
        assert str(info) in out
        assert str(data) in out
    for name in ("again.nc", "again.nc.codes.json"):
        (folder / name).unlink()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--users", "md5"], "users: expected one of hash, keep, drop, got 'md5'"),
        (["--most-set-aside", "0.01"], "expected at most 1% of the records to be set aside"),
        (["--model", "nope"], "model: expected one of"),
    ],
)
def test_bad_input_ends_before_the_fit(done, tmp_path, arguments, message):
    folder, _, _ = done
    out = ["--out", str(tmp_path / "fit.nc")]
    result = CliRunner().invoke(cli.app, ["fit", str(folder / "log.jsonl"), *out, *arguments])
    assert isinstance(result.exception, InputError)
    assert message in str(result.exception)
    assert not list(tmp_path.iterdir())


def test_much_that_is_set_aside_is_refused_and_can_be_asked_for(tmp_path, monkeypatch):
    log = write_log(tmp_path / "log.jsonl", broken=30)
    arguments = ["fit", str(log), "--out", str(tmp_path / "fit.nc"), "--model", "disjoint_mnl"]
    result = CliRunner().invoke(cli.app, arguments)
    assert isinstance(result.exception, InputError)
    assert "expected at most 20% of the records to be set aside, got 30 of 90" in str(
        result.exception
    )
    result = CliRunner().invoke(
        cli.app, [*arguments, "--engine", "laplace", "--json", "--most-set-aside", "0.5"]
    )
    assert result.exit_code == 3, result.output
    (worst, *_) = json.loads(result.stdout)["data"]["findings"]
    assert (worst["name"], worst["level"]) == ("set_aside", "fail")


def test_help_says_how_it_ends():
    shown = CliRunner().invoke(cli.app, ["fit", "--help"])
    assert shown.exit_code == 0
    words = " ".join(shown.output.replace("│", " ").split())
    for part in ("Exit codes: 0", "1, the sampler", "2, bad input", "3, the fit ran"):
        assert part in words
    for option in ("--json", "--last", "--signs", "--most-set-aside", "--users", "--model"):
        assert option in words
