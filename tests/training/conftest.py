"""The ways to take steps on a GPU."""

import pytest


@pytest.fixture(params=["persistent", "stepwise"])
def execution(request, monkeypatch):
    """Both ways to take steps; a network of any size fits, or none does."""
    if request.param == "stepwise":
        monkeypatch.setattr("hesskern.backends.cuda.descents.plan", lambda *_: None)
    return request.param
