"""The examples: each runs, makes a picture that shows something, and prints what its picture is about."""

import re
import subprocess
import sys

import numpy as np
import pytest
from checkout import ROOT
from children import child_environment

pytest.importorskip("matplotlib")
pytest.importorskip("numba")
from matplotlib.image import imread

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
NAMES = [path.stem for path in EXAMPLES]


def curves_in(picture):
    """Share of the pixels that are coloured: not white, grey or black."""
    pixels = imread(picture)[..., :3]
    return float(np.mean(np.ptp(pixels, axis=2) > 0.2))


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """Run an example once, and return what it printed and the picture it made."""
    made = {}

    def run(name):
        if name not in made:
            picture = tmp_path_factory.mktemp(name) / "picture.png"
            command = [sys.executable, ROOT / "examples" / f"{name}.py", picture]
            environment = child_environment(MPLCONFIGDIR=str(picture.parent), PYTHONWARNINGS="error")
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
            assert done.returncode == 0, done.stderr
            assert done.stderr == ""
            made[name] = done.stdout, picture
        return made[name]

    return run


def test_these_are_the_examples():
    assert NAMES == ["catapult", "condition_of_w2", "edge_of_stability", "own_loops", "which_hessian"]


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_each_makes_a_picture(printed, name):
    _, picture = printed(name)
    height, width, _ = imread(picture).shape
    assert (width, height) == (1210, 484)
    assert 0.005 < curves_in(picture) < 0.5
    assert picture.stat().st_size < 200_000


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_the_docs_show_the_same_picture(printed, name):
    ours, shown = imread(printed(name)[1]), imread(ROOT / "docs" / "pictures" / f"{name}.png")
    # Other versions of matplotlib draw letters a little differently.
    assert ours.shape == shown.shape
    assert np.mean(np.abs(ours - shown).max(axis=2) > 0.2) < 0.05


@pytest.mark.long
def test_sharpness_stays_at_the_edge_where_the_step_is_large(printed):
    found = re.findall(r"from (\S+) to (\S+) times 2/lr", printed("edge_of_stability")[0])
    *beyond, below = [(float(low), float(high)) for low, high in found]
    assert len(beyond) == 3
    for low, high in beyond:
        assert low > 0.95 and high < 1.1
    assert below[1] < 0.9


@pytest.mark.long
def test_catapult_ends_well_up_to_a_limit(printed):
    found = re.findall(r"lr = (\S+)/lambda_max: (\w+) after (\d+) steps", printed("catapult")[0])
    assert [status for _, status, _ in found] == ["converged"] * 4 + ["diverged"]
    assert ("4.73", "converged", "608") in found


@pytest.mark.long
def test_condition_numbers_are_those_of_the_theory(printed):
    pattern = r"weights (.+), width (\d+), kappa\(X\) = (\d+): median (\S+), balanced (\S+)"
    found = re.findall(pattern, printed("condition_of_w2")[0])
    near_zero = [(float(median), float(balanced)) for start, *_, median, balanced in found if start == "near 0"]
    wide = {
        int(width): float(median) for start, width, kappa, median, _ in found if start != "near 0" and kappa == "10"
    }
    assert len(near_zero) == 21
    for median, balanced in near_zero:
        assert median == pytest.approx(balanced, rel=0.01)
    assert wide[1000] == pytest.approx(100, rel=0.05)
    assert wide[10] > 200


@pytest.mark.long
def test_each_matrix_is_explained(printed):
    lines = printed("which_hessian")[0].splitlines()
    assert [line.split(": ")[1].split("; ")[0] for line in lines] == [
        "vec-column",
        "gauss-newton, scale[2*N]",
        "last-batch[8], float32-stored",
    ]
    for before, after in re.findall(r"(\S+) -> (\S+)", "\n".join(lines)):
        assert float(before) > 0.5 and float(after) < 1e-14
