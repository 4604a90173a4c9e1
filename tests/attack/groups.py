"""What is attacked: each group is a module with ``run(seed, backend=None, everything=False) -> Judge``."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

from attack.judge import Judge

Run = Callable[..., Judge]


@dataclass(frozen=True, slots=True)
class Group:
    """One kind of attack.

    Attributes
    ----------
    module : str
        In `attack`, with the function `run`.
    per_minute : int
        Seeds of a run of one minute with a fixed seed; in a run against the clock the proportions are the same.
        0: only where it is asked for by name.
    what : str
        What one case is, in the plural.
    needs : str
        A package or module without which the group is left out.
    """

    module: str
    per_minute: int
    what: str
    needs: str = "numpy"


GROUPS = {
    "problem": Group("problems", 8000, "random problems"),
    "fit": Group("training", 1200, "training runs"),
    "resume": Group("resumes", 300, "resumed runs"),
    "kill": Group("kills", 16, "killed or interrupted runs"),
    "thread": Group("threads", 20, "uses from several threads"),
    "softmax": Group("softmax_problems", 800, "softmax last layers"),
    "exact": Group("exact_conditions", 150, "condition numbers in high precision"),
    "jitted": Group("jitted", 300, "calls of hesskern.numba", "numba"),
    "torch": Group("torch_models", 200, "PyTorch models", "torch"),
    "autograd": Group("witnesses", 2, "runs of explain and validate", "torch"),
    "cuda": Group("on_device", 40, "problems on the CUDA backend's host twin", "torch"),
    "malformed": Group("malformed_calls", 20, "malformed calls", "attack.malformed"),
    "damage": Group("damaged_files", 20, "damaged files", "attack.damage"),
    "grading": Group("graded_blocks", 150, "graded blocks", "attack.gradings"),
    "broken": Group("broken", 0, "cases that break"),
    "dependent": Group("dependent_integers", 400, "layers on dependent integers"),
    "far": Group("far_scales", 200, "networks on samples whose squares leave float64"),
    "reductions": Group("reductions", 200, "networks and last layers that reductions make small"),
    "own": Group("own_losses", 400, "losses of the user's own"),
    "unbalanced": Group("unbalanced_units", 150, "networks with unbalanced hidden units", "attack.unbalanced"),
}


def available() -> dict[str, Group]:
    """Return the groups whose module and packages are there."""
    return {
        name: group
        for name, group in GROUPS.items()
        if group.per_minute
        and importlib.util.find_spec(f"attack.{group.module}")
        and importlib.util.find_spec(group.needs)
    }


def load(name: str) -> Run:
    """Return the function that runs one case of a group."""
    run: Run = importlib.import_module(f"attack.{GROUPS[name].module}").run
    return run
