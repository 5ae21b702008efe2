"""What a stage is after a step: the image so far, and the arguments it knows."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache

import msgspec

from trivet.build.cachekey import chain
from trivet.build.scope import Scope, env_dict
from trivet.engine.image.commit import Draft
from trivet.oci.config import Config, History
from trivet.oci.layer import Layer


class State(msgspec.Struct, frozen=True, kw_only=True):
    """A stage between two steps; `has_cmd` tells whether the stage itself has set CMD.

    `keeps_times` is of stages with a RUN that shows a cache: cargo, make and the like compare the times of their
    sources with those of what they have kept there, so that here files have their real times while the build runs.
    """

    draft: Draft
    scope: Scope
    has_cmd: bool = False
    keeps_times: bool = False

    @property
    def config(self) -> Config:
        """The defaults of the image so far."""
        return self.draft.config.defaults

    @property
    def env(self) -> dict[str, str]:
        """The image's environment."""
        return env_dict(self.config.env)

    @property
    def chain(self) -> str:
        """The name of the files so far."""
        return chain(self.draft.layers)

    @property
    def created(self) -> int:
        """When the image so far was made, in Unix time; 0 if it doesn't say."""
        return _seconds(self.draft.config.created or "")

    def with_config(self, config: Config, text: str, when: int, *, has_cmd: bool | None = None) -> State:
        """Change the configuration; `text` goes into the history."""
        draft = self.draft.changed(config, history=history(text, when))
        return msgspec.structs.replace(self, draft=draft, has_cmd=self.has_cmd if has_cmd is None else has_cmd)

    def replacing(self, config: Config) -> State:
        """Change the configuration as part of the step that was put on top."""
        image = msgspec.structs.replace(self.draft.config, config=config)
        return msgspec.structs.replace(self, draft=msgspec.structs.replace(self.draft, config=image))

    def with_layer(self, layer: Layer | None, text: str, when: int, config: Config | None = None) -> State:
        """Put a step's layer on top; None is a step that changed no file."""
        if layer is None:
            return self.with_config(config or self.config, text, when)
        draft = self.draft.with_layer(layer, history=history(text, when), config=config)
        return msgspec.structs.replace(self, draft=draft)


@lru_cache(64)  # each step asks
def _seconds(text: str) -> int:
    try:
        return max(int(datetime.fromisoformat(text).timestamp()), 0)
    except (ValueError, OverflowError):
        return 0


def history(text: str, when: int) -> History:
    """Describe a step as `image history` shows it."""
    return History(created=stamp(when), created_by=text)


def stamp(when: int) -> str:
    """Spell Unix time as the image specification does."""
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
