"""Matrices from files of every kind, and the sentence for each that holds none."""

import numpy as np
import pytest

from hesskern.cli.common import RefusedError
from hesskern.cli.matrix_files import read_array, read_matrix

MATRIX = np.array([[1.0, -2.5], [3e-8, 4.0], [0.0, 6.0]])


def test_every_kind_of_file(tmp_path):
    np.save(tmp_path / "m.npy", MATRIX)
    np.savez(tmp_path / "one.npz", anything=MATRIX)
    np.savez(tmp_path / "two.npz", x=MATRIX, Y=np.zeros(3))
    np.savetxt(tmp_path / "m.txt", MATRIX)
    np.savetxt(tmp_path / "m.csv", MATRIX, delimiter=",", header="height,weight", comments="")
    for name in ("m.npy", "one.npz", "two.npz", "m.txt", "m.csv"):
        found = read_matrix(str(tmp_path / name), "X", np.dtype("float64"))
        assert found.dtype == np.float64
        np.testing.assert_array_equal(found, MATRIX)
    assert read_matrix(str(tmp_path / "m.npy"), "X", np.dtype("float32")).dtype == np.float32


@pytest.mark.parametrize(
    ("text", "first"),
    [("1,2\n3,4\n", 1.0), ("a,b\n3,4\n", 3.0), ("nan,2\n3,4\n", np.nan), ("\ufeff1,2\n", 1.0), ("-.5,1\n", -0.5)],
)
def test_a_first_line_is_a_heading_if_no_word_of_it_is_a_number(tmp_path, text, first):
    (tmp_path / "m.csv").write_text(text, encoding="utf-8")
    np.testing.assert_equal(read_array(str(tmp_path / "m.csv"), "X", "--X")[0, 0], first)


def test_integers_become_floats_and_other_kinds_stay_for_the_library_to_refuse(tmp_path):
    np.save(tmp_path / "i.npy", np.array([[1, 2]]))
    np.save(tmp_path / "c.npy", np.array([[1j]]))
    assert read_matrix(str(tmp_path / "i.npy"), "X", np.dtype("float64")).dtype == np.float64
    assert read_matrix(str(tmp_path / "c.npy"), "X", np.dtype("float64")).dtype == np.complex128


def test_what_holds_no_matrix(tmp_path):
    (tmp_path / "words.csv").write_text("a,b\nc,d\n")
    (tmp_path / "rows.txt").write_text("1 2\n3\n")
    (tmp_path / "fake.npy").write_text("1 2")
    (tmp_path / "empty.npy").touch()
    np.save(tmp_path / "none.npy", np.empty((0, 2)))
    np.savez(tmp_path / "two.npz", a=MATRIX, b=MATRIX)
    for name, words in (
        ("m.xls", "expected a name that ends in .npy, .npz, .csv, .txt"),
        ("missing.npy", "cannot read '.*': No such file"),
        ("words.csv", "does not hold a matrix of numbers"),
        ("rows.txt", "does not hold a matrix of numbers"),
        ("fake.npy", "was not written by numpy.save or numpy.savez"),
        ("none.npy", r"holds no numbers \(shape \(0, 2\)\)"),
        ("two.npz", r"holds \['a', 'b'\]; expected one array, or one with the name 'X'"),
    ):
        with pytest.raises(RefusedError, match=rf"^--X.*{words}"):
            read_array(str(tmp_path / name), "X", "--X")
