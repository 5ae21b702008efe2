"""The face the doors call. What happens is in the nouns' own packages; here are the use cases that need several."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from trivet.base.error import InvalidArgument
from trivet.client.schema import (
    Finding,
    Image,
    ImageDetail,
    Info,
    LevelInfo,
    Network,
    NetworkRequest,
    Progress,
    PruneRequest,
    Removed,
    Usage,
    Volume,
    VolumeRequest,
)
from trivet.engine.event import Events
from trivet.engine.host import facts
from trivet.engine.instance.context import Context
from trivet.engine.instance.instance import Instances

VERSION = "0.1.0"

Report = Callable[[Progress], None]
