"""Shared memory (/dev/shm) that others may share: a tmpfs on the host, for as long as its instance runs.

A mount in an instance's own mount namespace can't be shown in another one (mount(2), EINVAL).
"""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path

from trivet.isolation.plan import Plan
from trivet.kernel.mount import NO_DEVICES, NO_EXECUTION, NO_SET_USER_ID, mount, unmount


def keep(plan: Plan) -> None:
    """Mount it, for the instance's root. One that is there is replaced: it is an earlier run's."""
    place = Path(plan.memory)
    drop(plan)
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    user = plan.owner.first if plan.owner else 0
    options = f"mode=1777,size={plan.shm_size},uid={user},gid={user}"
    mount(Path("shm"), place, "tmpfs", NO_SET_USER_ID | NO_DEVICES | NO_EXECUTION, options)


def drop(plan: Plan) -> None:
    """Take it away; instances that share it keep it. Missing is fine."""
    place = Path(plan.memory)
    try:
        unmount(place)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):
            raise
    with contextlib.suppress(FileNotFoundError):
        place.rmdir()
