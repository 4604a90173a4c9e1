"""The package itself: public names, of which some are loaded when they are asked for."""

import re

import pytest

import hesskern as hk


def test_every_public_name_is_there():
    assert dir(hk) == sorted(set(hk.__all__)) == sorted(hk.__all__)
    for name in hk.__all__:
        assert getattr(hk, name) is not None
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", hk.__version__)


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match=r"^module 'hesskern' has no attribute 'Nothing'$"):
        hk.Nothing  # noqa: B018


def test_operators_load_scipys_solvers_only_when_asked_for(python):
    done = python(
        "import sys, hesskern as hk\n"
        "assert 'scipy.sparse.linalg' not in sys.modules\n"
        "assert hk.Hessian.__name__ == 'Hessian' and 'scipy.sparse.linalg' in sys.modules"
    )
    assert done.returncode == 0, done.stderr
