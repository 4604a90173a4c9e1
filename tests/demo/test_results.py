"""The demo's results: what counts as agreement, and the results as plain data."""

import dataclasses
import json
import math

import pytest

from hesskern.demo import case as demo
from hesskern.demo import results


@pytest.fixture(scope="module")
def full():
    pytest.importorskip("torch")
    return demo.run(repeats=1)


@pytest.mark.parametrize("name", ["condition", "fixed", "as_posted"])
def test_a_condition_number_slightly_off_is_caught(bare, name):
    def off_by(relative):
        part = getattr(bare, name)
        field = "value" if name == "condition" else "cond"
        moved = {field: getattr(part, field) * (1 + relative)}
        new = dataclasses.replace(part, **moved) if name == "condition" else part._replace(**moved)
        return dataclasses.replace(bare, **{name: new})

    assert off_by(1e-8).ok
    assert not off_by(1e-5).ok


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_never_agrees(value):
    assert not results.NumberCheck("x", value, 1.0, 1e-6).ok
    assert not results.NumberCheck("x", 1.0, math.nan, 1e-6).ok


def test_dict_is_strict_json_and_complete(bare):
    wild = dataclasses.replace(bare, numpy_cond=math.inf)
    found = json.loads(json.dumps(wild.as_dict(), allow_nan=False))
    assert found["numpy_cond"] is None
    assert found["autograd"] is None
    assert found["condition"]["value"] == bare.condition.value
    assert found["losses"] == bare.losses.tolist()
    assert found["as_posted"]["cond"] == bare.as_posted.cond
    assert found["ok"] is True and all(check["ok"] for check in found["checks"])
    assert set(field.name for field in dataclasses.fields(bare)) <= set(found)


def test_dict_with_autograd(full):
    found = json.loads(json.dumps(full.as_dict(), allow_nan=False))
    assert len(found["autograd"]["dense"]["values"]) == 500
