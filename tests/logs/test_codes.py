"""What numbers of users mean stands beside a posterior as it was asked for, and no user else."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

import cqbayes
from cqbayes.errors import InputError
from cqbayes.logs.codes import Users, codes_path, columns_of, hashed, save_codes
from cqbayes.logs.read import Log

USERS = ("ann@example.org", "bob@example.org", "zoë@example.org")
ASKED = ["zoë@example.org", None, "nobody@example.org", "ann@example.org", ""]
MODEL = SimpleNamespace(name="user_mnl", needs=("user",))


@pytest.fixture
def log() -> Log:
    data = cqbayes.choice_data([[1.0]] * 3, [[True]] * 3, [1, 0, 1], user=[0, 1, 2])
    return Log(data, ("a",), USERS)


def asked_for(posterior: Path, users: list[str | None]) -> list[int]:
    cells = {"user_id": pa.array(users, pa.string())}
    found = columns_of(Path("asked.jsonl"), len(users), cells, posterior, MODEL, ["a"], None)
    assert np.issubdtype(found["user"].dtype, np.integer)
    return found["user"].tolist()


@pytest.mark.parametrize("users", ["hash", "keep"])
def test_users_are_found_by_their_identifiers(log, tmp_path, users: Users):
    path = save_codes(tmp_path / "fit.nc", log, ("user",), users=users)
    assert path == codes_path(tmp_path / "fit.nc")
    assert asked_for(tmp_path / "fit.nc", ASKED) == [2, 3, 3, 0, 3]
    assert (b"ann@" in path.read_bytes()) == (users == "keep")


def test_digests_are_the_default_and_differ_from_fit_to_fit(log, tmp_path):
    found = []
    for name in ("a.nc", "b.nc"):
        path = save_codes(tmp_path / name, log, ("user",))
        found.append(json.loads(path.read_text()))
        assert set(found[-1]) == {"users", "salt"}
        assert found[-1]["users"] == hashed(USERS, found[-1]["salt"])
    one, other = found
    assert not set(one["users"]) & set(other["users"]), "digests link no two fits"
    assert len(bytes.fromhex(one["salt"])) == 32
    assert len(set(one["users"])) == 3


def test_the_salt_decides_the_digest():
    salts = ["00" * 32, "00" * 31 + "01"]
    assert len({hashed(["ann"], salt)[0] for salt in salts}) == 2
    # RFC 7693 by Python's own library, in one call.
    assert hashed(["zoë"], salts[1])[0] == _blake2b("zoë".encode(), bytes.fromhex(salts[1]))


def _blake2b(text: bytes, key: bytes) -> str:
    from hashlib import blake2b

    return blake2b(text, digest_size=16, key=key).hexdigest()


def test_users_who_are_left_out_are_nobody(log, tmp_path):
    path = save_codes(tmp_path / "fit.nc", log, ("user",), users="drop")
    assert json.loads(path.read_text()) == {"users": None, "num_users": 3}
    assert asked_for(tmp_path / "fit.nc", [None, ""]) == [3, 3]
    with pytest.raises(InputError, match="left the users of the log out") as refusal:
        asked_for(tmp_path / "fit.nc", [None, "ann@example.org"])
    assert "ann@" not in str(refusal.value)


def test_models_without_users_write_none(log, tmp_path):
    path = save_codes(tmp_path / "fit.nc", log, ("user",))
    assert path.exists()
    assert save_codes(tmp_path / "fit.nc", log, ("attempt",)) is None
    assert not path.exists(), "those of an earlier model are gone"
    nameless = log._replace(users=None)
    assert save_codes(tmp_path / "fit.nc", nameless, ("user",)) is None


@pytest.mark.parametrize("users", ["none", "", "Hash"])
def test_unknown_ways_to_write_users_are_refused(log, tmp_path, users):
    with pytest.raises(InputError, match="users: expected one of hash, keep, drop, got"):
        save_codes(tmp_path / "fit.nc", log, ("user",), users=users)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "said",
    [
        {"users": ["a"], "salt": "zz"},
        {"users": ["a"], "salt": "00" * 65},
        {"users": ["a"], "salt": 5},
        {"users": None},
        {"users": None, "num_users": "many"},
        ["users"],
    ],
)
def test_damaged_codes_are_refused(tmp_path, said):
    codes_path(tmp_path / "fit.nc").write_text(json.dumps(said))
    with pytest.raises(InputError, match=r"fit.nc.codes.json: expected what cqbayes fit writes"):
        asked_for(tmp_path / "fit.nc", ["a"])


def test_queries_without_an_attempt_are_fresh(tmp_path):
    model = SimpleNamespace(name="attempt_mnl", needs=("attempt",))

    def attempts(cells: dict[str, pa.Array]) -> list[int]:
        asked = Path("asked.jsonl")
        return columns_of(asked, 2, cells, tmp_path / "fit.nc", model, [], None)["attempt"].tolist()

    assert attempts({}) == [1, 1]
    assert attempts({"attempt": pa.array([3, 1], pa.int32())}) == [3, 1]
    with pytest.raises(InputError, match="a whole number from 1 in attempt, not so in row 2"):
        attempts({"attempt": pa.array([3, None], pa.int32())})
