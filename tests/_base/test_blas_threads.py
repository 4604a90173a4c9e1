"""BLAS on one thread inside a block, in threads and in forked processes."""

from __future__ import annotations

import os
import threading

from forks import in_child, needs_fork

from hesskern._base import blas_threads


@needs_fork
def test_the_limit_on_blas_of_a_thread_is_no_limit_in_a_child():
    from threadpoolctl import threadpool_info

    def counts():
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    before, inside, go_on = counts(), threading.Event(), threading.Event()

    def limited():
        with blas_threads.one_thread(1000, 1000):
            inside.set()
            go_on.wait(60)

    def child():
        assert counts() == before
        with blas_threads.one_thread(1000, 1000):
            assert set(counts()) == {1}
        assert counts() == before

    thread = threading.Thread(target=limited)
    thread.start()
    try:
        assert inside.wait(60)
        assert in_child(child) == 0
        with blas_threads.one_thread(1000, 1000):
            assert in_child(lambda: None if set(counts()) == {1} else os._exit(3)) == 0
    finally:
        go_on.set()
        thread.join(60)
    assert counts() == before
