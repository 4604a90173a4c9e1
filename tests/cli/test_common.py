"""What the commands share: JSON without NaN, errors in one line, files that are refused before the work is done."""

import json
import math
import os

import pytest

from hesskern.cli.common import CommandParser, RefusedError, check_output, one_line, reason, say, to_json, write_output


def test_json_has_null_for_numbers_that_it_does_not_have():
    found = to_json({"a": math.nan, "b": [1.5, math.inf], "c": {"d": (-math.inf, 2)}, "e": "nan"})
    assert json.loads(found) == {"a": None, "b": [1.5, None], "c": {"d": [None, 2]}, "e": "nan"}


def test_errors_in_one_line():
    assert one_line(ValueError("a\n  b.")) == "a b"
    assert one_line(ValueError()) == "ValueError"
    assert reason(FileNotFoundError(2, "No such file or directory")) == "No such file or directory"
    assert reason(OSError("path is 'x', which is a folder.")) == "a folder"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.txt", "expected a name that ends in .csv or .npz"),
        ("folder.csv", "which is a folder"),
        ("nowhere/a.csv", "which is in a folder that does not exist"),
    ],
)
def test_files_that_cannot_be_written(tmp_path, name, words):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(RefusedError) as refused:
        check_output(str(tmp_path / name), "--out", (".csv", ".npz"))
    assert words in str(refused.value) and str(refused.value).startswith("--out is ")


def test_files_that_can_be_written_are_left_alone(tmp_path):
    (tmp_path / "a.csv").write_text("old")
    check_output(str(tmp_path / "a.csv"), "--out", (".csv",))
    check_output(str(tmp_path / "B.CSV"), "--out", (".csv",))
    assert os.listdir(tmp_path) == ["a.csv"] and (tmp_path / "a.csv").read_text() == "old"


def test_writing_that_fails_is_one_sentence():
    def full(path):
        raise OSError(28, "No space left on device")

    with pytest.raises(RefusedError, match=r"^--out: cannot write 'a': No space left on device\.$"):
        write_output("a", "--out", full)


def test_wrong_usage_is_one_line_and_exit_code_2(capsys):
    parser = CommandParser(prog="hesskern fit")
    parser.add_argument("--steps", type=int)
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(["--steps", "x"])
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.count("\n") == 1
    assert said.startswith("hesskern: ") and said.endswith("; hesskern fit --help lists the options.\n")


def test_programs_that_read_stderr_get_errors_only(capsys):
    say("training")
    assert capsys.readouterr().err == ""
