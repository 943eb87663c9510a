"""The thread that feeds the networks."""

from __future__ import annotations

import gc
import threading
import weakref

import numpy as np
import pytest
import torch

from proxyclip.pipeline.stages.network_thread import NetworkThread


def test_the_earliest_shard_goes_first_and_each_in_its_order():
    thread, gate, done = NetworkThread(1), threading.Event(), []
    waiting = [thread.submit(0, gate.wait)]
    waiting += [thread.submit(order, done.append, (order, index)) for index in range(3) for order in (2, 1)]
    gate.set()
    for future in waiting:
        future.result()
    assert done == [(order, index) for order in (1, 2) for index in range(3)]


def test_all_is_done_by_one_thread_with_the_threads_it_was_given():
    thread = NetworkThread(2)
    found = [thread.submit(0, lambda: (threading.get_ident(), torch.get_num_threads())) for _ in range(3)]
    assert {future.result() for future in found} == {(found[0].result()[0], 2)}


def test_what_fails_tells_its_own_and_the_next_goes_on():
    thread = NetworkThread(1)
    failed, good = thread.submit(0, np.empty, -1), thread.submit(0, np.empty, 1)
    with pytest.raises(ValueError, match="negative"):
        failed.result()
    assert good.result().shape == (1,)


def test_an_idle_thread_holds_nothing():
    thread, image = NetworkThread(1), np.empty(1)
    gone = weakref.ref(image)
    thread.submit(0, np.sum, image).result()
    del image
    thread.submit(0, gc.collect).result()
    assert gone() is None
