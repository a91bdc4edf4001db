"""Official files: small ones in the exact schema are read, and what is wrong names its row."""

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cqbayes.data import embedllm, routerbench, sprout

from cqbayes.datasets import files
from cqbayes.errors import InputError

# RouterBench

LLMS = ("gpt-4-1106-preview", "mistralai/mistral-7b-chat")


def _routerbench(num: int = 12) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "sample_id": [f"mmlu-law.val.{i}" for i in range(num)],
            "prompt": [f"['Question {i % 10}: what is it?']" for i in range(num)],
            "eval_name": ["mmlu-law"] * (num - 2) + ["mtbench-writing"] * 2,
        }
    )
    for llm in LLMS:
        frame[llm] = rng.choice([0.0, 0.5, 1.0], num)
    for llm in reversed(LLMS):
        frame[f"{llm}|model_response"] = [f"['It is {i}.']" for i in range(num)]
    for llm in reversed(LLMS):
        frame[f"{llm}|total_cost"] = rng.random(num) / 1000
    frame["oracle_model_to_route_to"] = "no_model_correct"
    frame.loc[num - 1, "prompt"] = "['Write a poem.', 'Now shorter.']"
    # In the official file scores are objects, as text is.
    return frame.astype(dict.fromkeys(LLMS, object) | {"prompt": object, "sample_id": object})


def _saved(frame: pd.DataFrame, folder: Path) -> Path:
    path = folder / "saved.parquet"
    frame.to_parquet(path)
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_routerbench_in_all_its_forms(tmp_path, suffix):
    frame, path = _routerbench(), tmp_path / f"routerbench_0shot{suffix}"
    if suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False)
    answers = routerbench.answers(path)
    assert answers.llms == LLMS
    assert answers.query_id.tolist() == frame["sample_id"].tolist()
    assert answers.text[0] == "Question 0: what is it?"
    assert answers.text[-1] == "Write a poem.\nNow shorter."
    np.testing.assert_allclose(answers.score, frame[list(LLMS)].astype(float))
    np.testing.assert_allclose(answers.cost, frame[[f"{llm}|total_cost" for llm in LLMS]])
    # A prompt that is there twice is on one side of the split.
    assert answers.text[0] == answers.text[10]
    assert answers.split[0] == answers.split[10]
    twins = frame.assign(prompt="['The same?']")
    assert len(set(routerbench.answers(_saved(twins, tmp_path)).split)) == 1
    assert set(answers.split) == {"train", "test"}


class _Payload:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_is_never_read(tmp_path):
    path, mark = tmp_path / "routerbench_0shot.pkl", tmp_path / "was here"
    path.write_bytes(pickle.dumps(_Payload(mark)))
    with pytest.raises(InputError, match="got a pickle, and reading a pickle runs the code in it"):
        routerbench.answers(path)
    assert not mark.exists()


def test_routerbench_from_its_pickle_to_its_scores(tmp_path, monkeypatch):
    """What a user sees: the file is got, the message converts it, and then it is read."""
    monkeypatch.setenv("CQBAYES_DATA", str(tmp_path))
    folder = tmp_path / "routerbench"
    folder.mkdir()
    _routerbench().to_pickle(folder / "routerbench_0shot.pkl")
    with pytest.raises(InputError, match="expected SHA-256 ba4f77f19517"):
        routerbench.answers()  # before anybody is told to trust it
    file = routerbench.FILE._replace(sha256=None)
    monkeypatch.setattr(routerbench, "CARD", routerbench.CARD._replace(files=(file,)))
    assert files.state("routerbench") == "to be converted"
    assert files.missing("routerbench") == ["routerbench_0shot.parquet"]
    with pytest.raises(InputError) as refusal:
        routerbench.answers()
    said = str(refusal.value)
    assert said.isprintable()
    before, _, command = said.partition("convert it: python -c ")
    assert "only if you trust the file" in before
    exec(command.strip('"'), {})
    assert files.state("routerbench") == "there"
    (folder / "routerbench_0shot.pkl").unlink()
    assert files.missing("routerbench") == []
    assert len(routerbench.answers().query_id) == 12


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("plain", "plain"),
        ("[not a list]", "[not a list]"),
        ("[1, 2]", "[1, 2]"),
        (r"['a \d b']", r"a \d b"),
        (["one", "two"], "one\ntwo"),
        (np.array(["one", "two"], object), "one\ntwo"),
        ("[" * 5000 + "]" * 5000, "[" * 5000 + "]" * 5000),
    ],
)
def test_prompts_that_look_like_lists(given, words):
    assert routerbench.words(given) == words


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns="prompt"), "expected columns .*; no prompt"),
        (lambda f: f.drop(columns=LLMS[0]), f"no {LLMS[0]}"),
        (lambda f: f[["sample_id", "prompt", "eval_name"]], "expected columns <llm>"),
        (lambda f: f.assign(**{LLMS[0]: [0.5] * 7 + [1.5] * 5}), r"scores in \[0, 1\].* row 7"),
        (lambda f: f.assign(**{LLMS[1]: [0.5] * 7 + [-1] * 5}), r"scores in \[0, 1\].* row 7"),
        (lambda f: f.assign(**{LLMS[1]: ["0.5"] * 11 + ["good"]}), "numbers in column .* row 11"),
        (lambda f: f.assign(**{f"{LLMS[1]}|total_cost": [-1.0] * 12}), "costs in dollars.* row 0"),
        (
            lambda f: f.assign(**{f"{LLMS[1]}|total_cost": [np.inf] * 12}),
            "costs in dollars.* row 0",
        ),
        (lambda f: f.assign(sample_id=["x"] * 12), "each query_id once, not so in row 1"),
        (lambda f: f.assign(sample_id=[None] * 12), "a sample_id in every row, not so in row 0"),
        (lambda f: f.assign(prompt=["x"] * 5 + [None] * 7), "text in every row, not so in row 5"),
        (lambda f: f.iloc[:0], "at least one query, got none"),
        (
            lambda f: f.assign(**{LLMS[1]: [0.5] * 3 + [None] * 9}),
            r"a score of every LLM.*drop_incomplete=True.* not so in row 3",
        ),
    ],
)
def test_routerbench_that_is_wrong(tmp_path, change, message):
    path = _saved(change(_routerbench()), tmp_path)
    with pytest.raises(InputError, match=f"routerbench: .*{message}"):
        routerbench.answers(path)


def test_incomplete_queries_can_be_left_out(tmp_path):
    frame = _routerbench().assign(**{LLMS[1]: [None, 1.0] * 6})
    path = _saved(frame, tmp_path)
    with pytest.warns(UserWarning, match="routerbench: 6 of 12 queries lack"):
        answers = routerbench.answers(path, drop_incomplete=True)
    assert answers.query_id.tolist() == frame["sample_id"].tolist()[1::2]
    # What else is wrong is named as it stands in the file.
    path = _saved(frame.assign(**{LLMS[0]: [0.0] * 9 + [2.0] * 3}), tmp_path)
    with pytest.raises(InputError, match=r"scores in \[0, 1\].* row 9"):
        routerbench.answers(path, drop_incomplete=True)
    path = _saved(frame.assign(**{LLMS[0]: None}), tmp_path)
    with pytest.raises(InputError, match="a query with the scores of all LLMs, got none"):
        routerbench.answers(path, drop_incomplete=True)


def test_other_files_are_refused(tmp_path):
    for name, message in {
        "x.npy": "got '.npy'",
        "x.csv": "readable",
        "x.parquet": "readable",
    }.items():
        with pytest.raises(InputError, match=message):
            routerbench.answers(tmp_path / name)
    (tmp_path / "x.csv").write_bytes(b'a,b\n"\n1,2\n\xff')
    with pytest.raises(InputError, match="expected a CSV file"):
        routerbench.answers(tmp_path / "x.csv")
    (tmp_path / "x.parquet").write_text("not Parquet, as anybody can see")
    with pytest.raises(InputError, match="expected a Parquet file"):
        routerbench.answers(tmp_path / "x.parquet")
    _routerbench().set_index("sample_id").to_parquet(tmp_path / "x.parquet")
    assert routerbench.answers(tmp_path / "x.parquet").query_id[0] == "mmlu-law.val.0"


# SPROUT

PRICES = {"aws-claude-3-5-sonnet-v1": (3.0, 15.0), "wxai-llama-3-2-1b-instruct": (0.1, 0.2)}


def _sprout(num: int, start: int = 0) -> pd.DataFrame:
    frame = pd.DataFrame(
        {
            "key": [str(start + i) for i in range(num)],
            "dataset": ["openhermes"] * num,
            "dataset_level": ["1"] * num,
            "dataset_idx": range(num),
            "prompt": [f"Question {start + i}?" for i in range(num)],
            "golden_answer": ["It is so."] * num,
        }
    )
    for j, llm in enumerate(PRICES):
        frame[llm] = [
            {
                "num_input_tokens": 10.0 + i,
                "num_output_tokens": 100.0,
                "response": "It is so.",
                "score": (i + j) % 3 / 2,
            }
            for i in range(num)
        ]
    return frame


@pytest.fixture
def sprout_folder(tmp_path):
    for start, name in enumerate(
        ("train-00000-of-00002", "train-00001-of-00002", "validation-00000-of-00001")
    ):
        _sprout(5, 5 * start).to_parquet(tmp_path / f"{name}.parquet")
    _sprout(4).to_parquet(tmp_path / "test-00000-of-00001.parquet")
    return tmp_path


def test_sprout(sprout_folder):
    answers = sprout.answers(sprout_folder)
    assert answers.llms == tuple(PRICES)
    assert answers.cost is None
    assert answers.split.tolist() == ["train"] * 15 + ["test"] * 4
    assert answers.query_id[[0, 10, 15]].tolist() == ["train/0", "validation/10", "test/0"]
    assert answers.text[12] == "Question 12?"
    np.testing.assert_allclose(answers.score[:3], [[0, 0.5], [0.5, 1], [1, 0]])
    cost = sprout.answers(sprout_folder, prices=PRICES).cost
    assert cost is not None
    np.testing.assert_allclose(cost[1], [(11 * 3 + 1500) / 1e6, (11 * 0.1 + 20) / 1e6])
    with pytest.raises(InputError, match="a price of each LLM, got none of wxai-llama"):
        sprout.answers(sprout_folder, prices={"aws-claude-3-5-sonnet-v1": (3.0, 15.0)})
    (sprout_folder / "train-00001-of-00002.parquet").unlink()
    with pytest.raises(InputError, match=r"expected 2 files train-\*.parquet in .*, got 1"):
        sprout.answers(sprout_folder)


def test_sprout_without_token_counts(sprout_folder):
    frame = _sprout(5)
    for llm in PRICES:
        frame[llm] = [{"score": cell["score"]} for cell in frame[llm]]
    frame.to_parquet(sprout_folder / "train-00000-of-00002.parquet")
    assert sprout.answers(sprout_folder).cost is None
    with pytest.raises(InputError, match=r"expected columns score, .*; no num_input_tokens"):
        sprout.answers(sprout_folder, prices=PRICES)


def _set(frame: pd.DataFrame, row: int, **changes) -> pd.DataFrame:
    llm = "wxai-llama-3-2-1b-instruct"
    frame[llm] = [cell | changes if i == row else cell for i, cell in enumerate(frame[llm])]
    return frame


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns="key"), "no key"),
        (lambda f: f[["key", "dataset", "prompt"]], "a struct column with a score for each LLM"),
        (lambda f: f.drop(columns=next(iter(PRICES))), "the same LLMs in all files"),
        (lambda f: f.assign(key=["1", "2", "2", "3"]), "each query_id once, not so in row 2"),
        (lambda f: f.assign(key=["1", None, "2", "3"]), "a key in every row, not so in row 1"),
        (lambda f: f.assign(prompt=["x", "x", "x", None]), "text in every row, not so in row 3"),
        (lambda f: _set(f, 2, score=1.5), r"scores in \[0, 1\].* row 2"),
        (lambda f: _set(f, 2, score=None), "a score of every LLM.* row 2"),
    ],
)
def test_sprout_that_is_wrong(sprout_folder, change, message):
    change(_sprout(4)).to_parquet(sprout_folder / "test-00000-of-00001.parquet")
    with pytest.raises(InputError, match=f"sprout: .*{message}") as refusal:
        sprout.answers(sprout_folder)
    assert "same LLMs" in message or "test-00000-of-00001.parquet" in str(refusal.value)


def test_sprout_without_an_answer(sprout_folder):
    """The struct itself may be missing, too."""
    frame = _set(_sprout(4), 2, score=None)
    frame.loc[3, "aws-claude-3-5-sonnet-v1"] = None
    frame.to_parquet(sprout_folder / "test-00000-of-00001.parquet")
    with pytest.warns(UserWarning, match="2 of 4 queries"):
        answers = sprout.answers(sprout_folder, prices=PRICES, drop_incomplete=True)
    assert answers.query_id[15:].tolist() == ["test/0", "test/1"]
    (sprout_folder / "test-00000-of-00001.parquet").unlink()
    with pytest.raises(InputError, match=r"expected files test-\*.parquet"):
        sprout.answers(sprout_folder)


# EmbedLLM

NAMES = ("zephyr", "alpaca", "mixtral")


def _embedllm(start: int, num: int = 4) -> pd.DataFrame:
    rows = [
        {
            "prompt_id": start + i,
            "model_id": j,
            "category_id": i % 2,
            "category": ("mmlu_law", "gsm8k")[i % 2],
            "label": (i + j) % 2,
            "model_name": llm,
            "prompt": f'Question {start + i},\n"quoted"' if i else "None",
        }
        for j, llm in enumerate(NAMES)
        for i in range(num)
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def embedllm_folder(tmp_path):
    for start, part in ((0, "train"), (10, "val"), (20, "test")):
        _embedllm(start).to_csv(tmp_path / f"{part}.csv", index=False)
    return tmp_path


@pytest.mark.parametrize("rows", [100_000, 5, 1])
def test_embedllm(embedllm_folder, monkeypatch, rows):
    monkeypatch.setattr(embedllm, "ROWS", rows)
    answers = embedllm.answers(embedllm_folder)
    assert answers.llms == ("alpaca", "mixtral", "zephyr")
    assert answers.split.tolist() == ["train"] * 8 + ["test"] * 4
    assert answers.query_id.tolist() == [str(s + i) for s in (0, 10, 20) for i in range(4)]
    assert answers.text[:2].tolist() == ["None", 'Question 1,\n"quoted"']
    assert answers.task[:2].tolist() == ["mmlu_law", "gsm8k"]
    np.testing.assert_array_equal(answers.score[:2], [[1, 0, 0], [0, 1, 1]])


def test_embedllm_variants_of_a_question(embedllm_folder):
    """They are as many for every LLM; the score is the share of right answers."""
    frame = _embedllm(20)
    again = frame[frame["prompt_id"] == 21].assign(category="gpqa_main", label=1)
    pd.concat([frame, again]).to_csv(embedllm_folder / "test.csv", index=False)
    answers = embedllm.answers(embedllm_folder)
    np.testing.assert_array_equal(answers.score[9], [0.5, 1, 1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns="label"), "no label"),
        (lambda f: f.assign(label=[0] * 9 + [2] * 3), r"scores in \[0, 1\].* row 9"),
        (lambda f: f.assign(label=[0] * 9 + ["yes"] * 3), "numbers in column label.* row 9"),
        (lambda f: f.assign(label=[0] * 9 + [None] * 3), r"scores in \[0, 1\].* row 9"),
        (lambda f: f.assign(model_name=[None] * 12), "a model_name in every row.* row 0"),
        (lambda f: f.assign(prompt=[None] * 12), "text in every row.* row 0"),
        (lambda f: pd.concat([f, f[2:3]]), "equally often with each of 3 LLMs.* row 2"),
        (lambda f: f[:-1], "equally often with each of 3 LLMs.* row 3"),
        (lambda f: f[f["model_name"] != "mixtral"], "the same LLMs in all files"),
        (lambda f: f.assign(prompt_id=f["prompt_id"] - 20), "each query in one file, 4 are in two"),
        (lambda f: f[:0], "at least one query"),
    ],
)
def test_embedllm_that_is_wrong(embedllm_folder, change, message):
    change(_embedllm(20)).to_csv(embedllm_folder / "test.csv", index=False)
    with pytest.raises(InputError, match=f"embedllm: .*{message}"):
        embedllm.answers(embedllm_folder)


def test_embedllm_that_is_incomplete_or_absent(embedllm_folder):
    _embedllm(20)[:-1].to_csv(embedllm_folder / "test.csv", index=False)
    with pytest.warns(UserWarning, match="test.csv: 1 of 4 queries"):
        answers = embedllm.answers(embedllm_folder, drop_incomplete=True)
    assert answers.query_id[8:].tolist() == ["20", "21", "22"]
    (embedllm_folder / "test.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"test.csv: expected a CSV file"):
        embedllm.answers(embedllm_folder)
    (embedllm_folder / "test.csv").unlink()
    with pytest.raises(InputError, match=r"test.csv: expected a readable file"):
        embedllm.answers(embedllm_folder)
