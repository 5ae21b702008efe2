"""Who gets a processor first."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from trivet.kernel.priority import first, going_first


def policy() -> int:
    """The scheduling policy of the thread that asks."""
    return os.sched_getscheduler(threading.get_native_id())


@pytest.mark.needs("root")
def test_a_thread_goes_first_for_a_while() -> None:
    """It does, with those it makes, until the block ends, however it does; nobody else does."""
    with ThreadPoolExecutor(1) as bystander:
        before = bystander.submit(policy).result(), policy()
        with suppress(KeyError), going_first():
            assert policy() == os.SCHED_RR
            assert bystander.submit(policy).result() == before[0]
            with ThreadPoolExecutor(1) as made:
                assert made.submit(policy).result() == os.SCHED_RR
            raise KeyError
        assert (bystander.submit(policy).result(), policy()) == before == (os.SCHED_OTHER, os.SCHED_OTHER)


@pytest.mark.needs("root")
def test_without_the_right_to_it() -> None:
    """A thread that may not goes on as it is."""
    pid = os.fork()
    if pid == 0:
        os.setresuid(65534, 65534, 65534)
        with going_first():
            first()
            os._exit(policy())
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == os.SCHED_OTHER
