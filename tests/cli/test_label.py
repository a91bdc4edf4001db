"""``cqbayes label``: pairs on the terminal, keys, and a file without text."""

import json

import pytest
from typer.testing import CliRunner

from cqbayes.cli import app as cli
from cqbayes.logs.retrials.labels import read_labels

SECRET = "zebra \x1b[31mcrossing\x07"


@pytest.fixture
def log(tmp_path):
    said = [f"Why a {SECRET}?", "No, wrong", "Thanks", "And where?"]
    lines = [
        {
            "id": f"c{i}",
            "model": "m",
            "messages": [
                {"role": role, "content": f"{text} {i}"}
                for text in said
                for role in ("user", "assistant")
            ],
        }
        for i in range(4)
    ]
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def _label(log, keys: str, *more: str):
    labels = log.with_name("labels.jsonl")
    arguments = ["label", str(log), "--format", "openai_chat", "--labels", str(labels), *more]
    return CliRunner().invoke(cli.app, arguments, input=keys), labels


def test_keys_are_labels(log):
    done, labels = _label(log, "xanbusNq", "--number", "6")
    assert done.exit_code == 0, done.output
    assert read_labels(labels).counts == {"asks again": 1, "neither": 2, "unclear": 1}
    assert "-- 1 of 6" in done.output
    assert "wrong" in done.output
    assert "1 asks again, 2 neither, 1 unclear" in done.output.replace("\n", " ")
    assert "\x1b[31m" not in done.output
    assert "\x07" not in done.output
    assert "zebra" not in labels.read_text()
    # And again, from there on: two are left.
    done, labels = _label(log, "bb", "--number", "6")
    assert done.exit_code == 0
    assert "-- 5 of 6" in done.output
    assert sum(read_labels(labels).counts.values()) == 6
    done, _ = _label(log, "bbb", "--number", "3", "--by", "you")
    assert "two labellers agree on" in done.output


def test_input_that_ends_stops(log):
    done, labels = _label(log, "n")
    assert done.exit_code == 0
    assert read_labels(labels).counts == {"neither": 1}
