"""Names in records: what is one, and what a program wrote for none."""

import pytest

from cqbayes.logs.formats.fields import identifier, mentioned, short


@pytest.mark.parametrize("absent", [None, "", "None", "null", "undefined"])
def test_what_programs_write_for_no_name_is_none(absent):
    assert identifier(absent) is None
    assert identifier(absent, "a") == "a"
    assert short(absent) is None
    assert mentioned([{"user": absent}, {"user": 7}], ["user"]) == "7"


def test_names_that_hold_such_a_word_are_names():
    assert identifier("None of us") == short("None of us") == "None of us"
