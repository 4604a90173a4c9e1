"""Pictures: what is drawn, that texts do not run into each other, and which paths are refused."""

import dataclasses
import itertools
import os
import subprocess
import sys

import numpy as np
import pytest

from hesskern import plot
from hesskern.demo import case as demo
from hesskern.demo import results

pytest.importorskip("matplotlib")
from matplotlib.figure import Figure
from matplotlib.text import Text


@pytest.fixture(scope="module")
def bare():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch", None)
        return demo.run(repeats=1)


@pytest.fixture(scope="module")
def with_autograd(bare):
    """The same with a made-up autograd result: the picture needs numbers, not PyTorch."""
    autograd = results.AutogradResult("2.13.0", 1, 608, 0.1, 0.1, bare.fixed, 0.0)
    return dataclasses.replace(bare, autograd=autograd, autograd_missing="")


@pytest.fixture(params=["bare", "with_autograd"])
def result(request):
    return request.getfixturevalue(request.param)


def drawn(result):
    import matplotlib

    with matplotlib.rc_context(plot._STYLE):
        figure = Figure(figsize=(12, 4.6), dpi=110, layout="constrained")
        plot.draw_demo(figure, result)
        figure.draw_without_rendering()
    return figure


def texts(figure):
    return [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]


def test_texts_do_not_overlap_and_stay_inside(result):
    figure = drawn(result)
    every_axes = [ax for parent in figure.subfigs for ax in parent.axes]
    every_axes += [child for ax in every_axes for child in ax.child_axes]
    axes = [axis for ax in every_axes for axis in (ax.xaxis, ax.yaxis)]
    of_axes = {id(text) for axis in axes for text in axis.findobj(Text)}
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts(figure) if id(text) not in of_axes]
    assert len(boxes) >= 10
    # The numbers and the name along an axis count as one box each.
    along = [(f"axis {at}", axis.get_tightbbox()) for at, axis in enumerate(axes)]
    boxes += [(name, box) for name, box in along if box is not None]
    for (one, a), (two, b) in itertools.combinations(boxes, 2):
        both_axes = one.startswith("axis") and two.startswith("axis")  # they touch in the corner
        assert both_axes or not a.padded(-1.0).overlaps(b.padded(-1.0)), (one, two)
    for name, box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, name


def test_says_the_numbers(result):
    said = " ".join(text.get_text() for text in texts(drawn(result)))
    for part in ("catapult: 9.5 times", "608 epochs", "9.53e-21", "κ = 174.07", "κ = 5345.81", "475 zeros"):
        assert part in said
    assert ("hesskern[torch]" in said) == (result.autograd is None)
    assert said.count("κ = 174.07") == (1 if result.autograd is None else 2)


def test_loss_is_the_history():
    ax = Figure().subplots()
    losses = np.array([4.0, 2.0, 1.0])
    plot.loss(ax, losses)
    epochs, relative = ax.lines[0].get_data()
    np.testing.assert_array_equal(epochs, [1, 2, 3])
    np.testing.assert_array_equal(relative, [1.0, 0.5, 0.25])
    assert ax.get_yscale() == "log"
    assert not ax.child_axes  # nothing to look at more closely: the loss never rises


def test_catapult_is_marked_at_its_peak():
    ax = Figure().subplots()
    plot.loss(ax, np.array([1.0, 5.0, 2.0, 0.1, 0.01, 1e-3, 1e-4]))
    assert len(ax.child_axes) == 1
    assert [2.0, 5.0] in [line.get_xydata()[0].tolist() for line in ax.child_axes[0].lines]


def test_spectra_are_where_their_values_are(with_autograd):
    noise, counted = drawn(with_autograd).subfigs[1].axes
    lines = [sorted(segment[0][0] for segment in rows.get_segments()) for rows in counted.collections]
    np.testing.assert_allclose(lines[0], np.repeat(with_autograd.values[::-1], 5))
    np.testing.assert_allclose(lines[1], np.sort(with_autograd.autograd.dense.values[:25]))
    np.testing.assert_allclose(lines[2], np.sort(with_autograd.as_posted.values[:25]))
    assert len(noise.collections) == 2  # hesskern's zeros are exact


@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".PDF", b"%PDF")])
def test_saves(bare, tmp_path, suffix, start):
    path = tmp_path / f"demo{suffix}"
    plot.check_path(path)
    assert not path.exists()
    plot.save_demo(bare, path)
    assert path.read_bytes().startswith(start)
    assert list(tmp_path.iterdir()) == [path]


def test_picture_is_small_enough_for_a_readme(with_autograd, tmp_path):
    plot.save_demo(with_autograd, tmp_path / "demo.png")
    assert 20_000 < (tmp_path / "demo.png").stat().st_size < 200 * 1024


def test_a_style_of_the_user_is_left_alone(bare, tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    plot.save_demo(bare, tmp_path / "demo.png")
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("name", ["demo", "demo.xyz", "demo.png.txt"])
def test_unknown_suffix(tmp_path, name):
    with pytest.raises(ValueError, match=r"suffix.*expected one of .*\.png"):
        plot.check_path(tmp_path / name)


def test_path_that_cannot_be_written(tmp_path):
    with pytest.raises(FileNotFoundError):
        plot.check_path(tmp_path / "missing" / "demo.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(IsADirectoryError):
        plot.check_path(tmp_path / "folder.png")


def test_check_leaves_an_existing_file_as_it_is(tmp_path):
    path = tmp_path / "demo.png"
    path.write_bytes(b"mine")
    plot.check_path(path)
    assert path.read_bytes() == b"mine"


def test_missing_matplotlib_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'not installed; pip install "hesskern\[plot\]"'):
        plot.check_path(tmp_path / "demo.png")


def test_import_does_not_load_matplotlib():
    code = "import sys, hesskern.plot, hesskern.demo.case; print('matplotlib' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize("kind", ["fifo", "dangling"])
def test_what_is_not_a_file_is_left_alone(tmp_path, kind):
    path = tmp_path / "picture.png"
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(OSError, match="exists and is not an ordinary file"):
        plot.check_path(path)
    assert os.path.lexists(path)
