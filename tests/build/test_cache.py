"""The layer cache, and builds that give the same digest every time."""

from __future__ import annotations

import time
from functools import partial

import msgspec
import pytest
from tests.build.workshop import Content, Workshop

from trivet.build.cache import KIND, CacheEntry
from trivet.build.cachekey import run_key

pytestmark = pytest.mark.needs("root")

SERVICE = """
    FROM base
    RUN echo installed > /installed
    WORKDIR /srv
    COPY app .
    RUN cat app > out
    CMD ["./app"]
"""


def test_second_build_does_nothing(workshop: Workshop) -> None:
    """A build of the same input takes every step from the cache and gives the same image."""
    first = workshop.build(SERVICE, {"app": b"1"})
    second = workshop.build(SERVICE, {"app": b"1"}, mtime=1_800_000_000)
    assert (first.run, second.run, second.cached) == (4, 0, 4)
    assert second.id == first.id


def test_changed_content(workshop: Workshop) -> None:
    """A changed file runs again what comes after it, and only that."""
    workshop.build(SERVICE, {"app": b"1"})
    changed = workshop.build(SERVICE, {"app": b"2"})
    assert (changed.cached, changed.run) == (2, 2)
    assert changed.files["srv/out"].content == b"2"


def test_configuration_does_not_matter(workshop: Workshop) -> None:
    """A changed LABEL, CMD or EXPOSE makes no command run again; a changed environment does."""
    workshop.build(SERVICE, {"app": b"1"})
    labelled = SERVICE.replace("FROM base", "FROM base\nLABEL a=b\nEXPOSE 80\nCMD true")
    assert workshop.build(labelled, {"app": b"1"}).run == 0
    assert workshop.build(SERVICE.replace("FROM base", "FROM base\nENV NEW=1"), {"app": b"1"}).run > 0


def test_arguments_matter_where_they_are_declared(workshop: Workshop) -> None:
    """A build argument counts from its ARG on."""
    dockerfile = "FROM base\nRUN echo before\nARG V\nRUN echo $V > /v\n"
    workshop.build(dockerfile, build_args={"V": "1"})
    again = workshop.build(dockerfile, build_args={"V": "2"})
    assert (again.cached, again.run) == (1, 1)
    assert again.files["v"].content == b"2\n"


def test_no_cache(workshop: Workshop) -> None:
    """With --no-cache every step is carried out."""
    workshop.build(SERVICE, {"app": b"1"})
    assert workshop.build(SERVICE, {"app": b"1"}, no_cache=True).run == 4


def test_copy_from_stage(workshop: Workshop) -> None:
    """A stage that is built anew but gives the same file leaves what copies that file alone."""
    dockerfile = (
        "FROM base AS one\nARG V\nRUN echo $V > /other; echo same > /f\nFROM base\nCOPY --from=one /f /\nRUN cat /f"
    )
    workshop.build(dockerfile, build_args={"V": "a"})
    again = workshop.build(dockerfile, build_args={"V": "b"})
    assert (again.run, again.cached) == (1, 2)


def test_steps_without_changes(workshop: Workshop) -> None:
    """A command that writes nothing makes no layer, and is remembered all the same."""
    assert len(workshop.build("FROM base\nRUN true # nothing").layers) == 1
    assert workshop.build("FROM base\nRUN true # nothing").cached == 1


def test_lost_layer(workshop: Workshop) -> None:
    """When a cached layer is gone from the store, its step runs again."""
    workshop.build("FROM base\nRUN echo lost > /lost")
    (entry,) = [
        each for each in workshop.cache.entries() if each.layer and len(each.below) == 1 and each.layer.size < 300
    ][-1:]
    assert entry.layer
    workshop.images.content.delete(entry.layer.digest)
    built = workshop.build("FROM base\nRUN echo lost > /lost")
    assert built.files["lost"].content == b"lost\n"


def test_collection_keeps_the_cache(workshop: Workshop) -> None:
    """Collecting garbage leaves cached layers alone until the cache is pruned."""
    workshop.build(SERVICE, {"app": b"collect"})
    workshop.images.prune()
    assert workshop.build(SERVICE, {"app": b"collect"}).run == 0
    forgotten = workshop.cache.prune()
    assert forgotten
    workshop.images.prune()
    assert workshop.cache.entries() == []
    assert workshop.build(SERVICE, {"app": b"collect"}).run == 4


def test_old_steps_are_forgotten(workshop: Workshop) -> None:
    """When the engine starts, steps that nobody needed for a month are forgotten, and only those."""
    workshop.build("FROM base\nRUN echo old > /old")
    table = workshop.records.table(KIND, CacheEntry)
    old = workshop.cache.entries()[-1]
    table.put(old.key, msgspec.structs.replace(old, used=old.used - 31 * 86400))
    known = len(workshop.cache.entries())
    workshop.builder.cleanup()
    assert len(workshop.cache.entries()) == known - 1
    assert workshop.build("FROM base\nRUN echo old > /old").run == 1


PURE = "FROM base\nENV A=b\nCOPY d /d/\nWORKDIR /w\nADD f x/y/\nCOPY --chown=5 --from=base /etc/passwd /p\nLABEL c=d"


def test_reproducible_without_asking(workshop: Workshop) -> None:
    """A build that runs no command gives the same digest on another day, without cache."""
    files: dict[str, Content] = {"d/e": b"1", "f": b"2"}
    first = workshop.build(PURE, files, no_cache=True)
    time.sleep(1.1)
    assert workshop.build(PURE, files, no_cache=True).id == first.id
    assert first.image.created is not None


def test_timestamp(workshop: Workshop) -> None:
    """With a timestamp no time in the image is younger, commands included, and file times don't matter."""
    when = 1_600_000_000
    dockerfile = f"{PURE}\nRUN mkdir /new && echo new > /new/file"
    files: dict[str, Content] = {"d/e": b"1", "f": b"2"}
    first = workshop.build(dockerfile, files, no_cache=True, timestamp=when)
    second = workshop.build(dockerfile, files, no_cache=True, timestamp=when, mtime=1_800_000_000)
    assert first.id == second.id
    assert first.image.created == "2020-09-13T12:26:40Z"
    assert all(file.info.mtime <= when for layer in first.layers[1:] for file in layer.values())


def test_keys() -> None:
    """Every part of a RUN's surroundings changes its key, and the order of variables doesn't."""
    key = partial(
        run_key,
        "below",
        ("sh", "-c", "true"),
        env={"a": "1", "b": "2"},
        cwd="/",
        user="",
        network="bridge",
        script="",
        mounts=(),
        surroundings=(),
        epoch=0,
    )
    others = [
        key(env={"a": "1"}),
        key(cwd="/x"),
        key(user="x"),
        key(network="none"),
        key(script="#!"),
        key(mounts=["x"]),
    ]
    others += [
        key(mounts=["x"]),
        key(epoch=1),
        key(surroundings=["x"]),
        partial(run_key, "other", *key.args[1:], **key.keywords)(),
    ]
    others += [partial(run_key, "below", ("sh", "-c true"), **key.keywords)()]
    assert len({key(), *others}) == 11
    assert key() == key(env={"b": "2", "a": "1"})
