"""Properties that are computed once, without a lock that a forked process would wait for."""

from __future__ import annotations

import threading

import numpy as np
from forks import in_child, needs_fork

import hesskern as hk
from hesskern._base.cached import cached_property


def problem(widths=(40, 60, 40), samples=200):
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((samples, widths[0])), rng.standard_normal((samples, widths[-1]))
    return hk.LinearNetwork.random(widths, seed=0), hk.SquaredLoss(X, Y)


@needs_fork
def test_a_property_that_a_thread_computes_is_not_waited_for_in_a_child():
    net, loss = problem()
    H = loss.hessian(net, [1])
    inside, go_on = threading.Event(), threading.Event()

    def slowly(instance):
        if threading.current_thread() is not threading.main_thread():
            inside.set()
            go_on.wait(60)
        return 1

    own = type("Own", (), {})
    own.value = cached_property(slowly)
    own.value.__set_name__(own, "value")
    one = own()
    thread = threading.Thread(target=lambda: one.value)
    thread.start()
    try:
        assert inside.wait(60)
        assert in_child(lambda: [own().value, one.value, H.condition()]) == 0
    finally:
        go_on.set()
        thread.join(60)


def test_computed_once_and_kept_with_the_object():
    calls = []

    class Own:
        @cached_property
        def value(self):
            """What it is."""
            calls.append(self)
            return object()

    one, other = Own(), Own()
    assert one.value is one.value and one.value is not other.value
    assert calls == [one, other]
    assert vars(one) == {"value": one.value}
    assert Own.value.__doc__ == "What it is."
