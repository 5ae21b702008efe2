"""RUN: the command in a container of its own, its output as progress, its end as a result."""

from __future__ import annotations

import codecs
import re
import shutil
import struct
from collections import deque
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import msgspec

from trivet.base.error import TrivetError, Unavailable
from trivet.base.thread import in_thread
from trivet.build import cachekey
from trivet.build.builtin import HOST_NAME
from trivet.build.configuration import directory_of, shell_of
from trivet.build.debug import open_shell
from trivet.build.device import Given, give
from trivet.build.error import BuildError, StepFailed
from trivet.build.instruction import Run
from trivet.build.kept import Kept
from trivet.build.mount_source import Mounts, Source
from trivet.build.sandbox import HOSTNAME, SCRIPT, Command, cgroup_of, make_plan, run_directory
from trivet.build.scope import env_dict
from trivet.build.session import Step
from trivet.build.state import State
from trivet.build.stub import COMMON, add_target
from trivet.client.schema_network import EndpointRequest
from trivet.engine.instance.line import Line
from trivet.engine.instance.stream import Failed, Stream
from trivet.engine.instance.watch import parse_exit
from trivet.engine.network import names
from trivet.isolation.driver import Driver, Exit
from trivet.isolation.failure import explain
from trivet.isolation.plan import File, Mount, Plan, Root
from trivet.launch.channel import Channel
from trivet.launch.frame import Type
from trivet.launch.operation import Exec

TAIL = 20  # lines of output that an error shows
LONGEST = 4000  # characters of them
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,62}[A-Za-z0-9])?")


async def run(step: Step, state: State, each: Run, sources: list[Source]) -> State:
    """Carry out a RUN instruction, with what its mounts show. Raises `StepFailed` with the last lines of output."""
    session = step.session
    command = _command(step, state, each)
    epoch = session.when(state)
    shown = {name: value for name, value in state.scope.declared.items() if name not in state.env}
    arguments = f"|{len(shown)} {' '.join(f'{name}={value}' for name, value in shown.items())} " if shown else ""
    text = f"RUN {arguments}{' '.join(command.argv)}"
    given = await in_thread(give, each.devices, session.tools.cdi, session.request.allow) if each.devices else Given()
    for name in given.missing:
        step.show(f"there is no device {name} on this machine; the step runs without it\n")
    key = cachekey.run_key(
        state.chain,
        command.argv,
        env=command.env,
        cwd=command.cwd,
        user=command.user,
        network=command.network,
        script=command.script,
        mounts=await in_thread(lambda: [source.describe(step, state) for source in sources]) if sources else [],
        surroundings=[
            command.security,
            *([f"hostname {command.hostname}"] if command.hostname != HOSTNAME else ()),
            *(session.request.add_hosts if command.network != "none" else ()),
            *(f"device {name}" for name in given.names),
        ],
        epoch=epoch,
    )
    session.mounts.update(Kept.name(each.mount, each.base) for each in sources if each.mount.kind == "cache")
    found = await step.cached(state, key, text)
    if found is not None:
        return found

    async def make(root: Root, name: str) -> None:
        async with session.slots:
            await _Sandbox(step, state, command, sources, given).run(root, name)

    return await step.layered(state, [key], text, epoch, make)


def _command(step: Step, state: State, each: Run) -> Command:
    config, network, allowed = state.config, each.network, step.session.request.allow
    if network == "host" and step.session.network != "host" and "network.host" not in allowed:
        raise BuildError("RUN --network=host is not granted", hint="grant it to the build: --allow network.host")
    if each.security == "insecure" and "security.insecure" not in allowed:
        hint = "grant it to the build, if you trust it with this machine: --allow security.insecure"
        raise BuildError("RUN --security=insecure is not granted", hint=hint)
    argv, script = _argv(each, shell_of(config))
    return Command(
        argv=argv,
        env=state.scope.variables(state.env),
        cwd=directory_of(config, "."),
        user=config.user,
        network=step.session.network if network in ("", "default") else network,
        script=script,
        security=each.security or "sandbox",
        hostname=_hostname(step.session.request.build_args.get(HOST_NAME, "")),
    )


def _hostname(asked: str) -> str:
    """Name the step's host, as BUILDKIT_SANDBOX_HOSTNAME says."""
    if asked and not _NAME.fullmatch(asked):
        raise BuildError(f"{HOST_NAME}={asked[:64]} is no name of a host")
    return asked or HOSTNAME


def _argv(each: Run, shell: tuple[str, ...]) -> tuple[tuple[str, ...], str]:
    """Give what is executed, and the script if that is one.

    A lone here-document is for the shell, or a script of its own if it begins with #!; others are the
    input of the commands before them, and the shell reads them after the line.
    """
    if not each.heredocs:
        return each.command.argv(shell), ""
    line, content = each.command.words[0], each.heredocs[0].content
    if len(each.heredocs) == 1 and line.startswith("<<") and len(line.split()) == 1:
        return ((SCRIPT,), content) if content.startswith("#!") else ((*shell, content), "")
    bodies = "".join(f"{heredoc.content}{heredoc.name}\n" for heredoc in each.heredocs)
    return (*shell, f"{line}\n{bodies}"), ""


class _Sandbox:
    """One command, from its network to its exit code."""

    def __init__(self, step: Step, state: State, command: Command, sources: list[Source], given: Given) -> None:
        self._given = given
        self._step = step
        self._state = state
        self._command = command
        self._sources = sources
        self._tail: deque[str] = deque(maxlen=TAIL)
        self._ended = False

    async def run(self, root: Root, name: str) -> None:
        """Run it in `root`; whatever happens, nothing of it goes on after this returns.

        Its control group and its address are taken away beside the next step, when it has ended well: the kernel lets
        one wait for it, and with the program everything has ended that was in its namespaces.
        """
        session = self._step.session
        async with AsyncExitStack() as undo:
            rest = ExitStack()
            undo.push_async_callback(in_thread, rest.close)
            end = await self._run(root, name, rest)
            if not end.code:
                session.later(undo.pop_all().aclose())
        if end.code:
            file = session.graph.dockerfile.file
            output = "\n".join(self._tail).strip("\n")[-LONGEST:]
            raise StepFailed(file, self._step.line, self._step.title.removeprefix("RUN "), end.code, output)

    async def _run(self, root: Root, name: str, rest: ExitStack) -> Exit:
        tools = self._step.session.tools
        async with AsyncExitStack() as undo:
            plan = await self._plan(root, name, undo, rest)
            undo.push_async_callback(self._kill, plan)  # before what is shown to it is taken away
            stream = Line(await in_thread(_start, tools.driver, plan))
            undo.callback(stream.close)
            await stream.attach(stdout=True, stderr=True)
            end = await self._follow(stream, plan)
            if end.code and self._step.session.request.on_error == "shell":
                shell = shell_of(self._state.config)
                await open_shell(self._step.session, plan, shell, self._step.title)
            if not end.code:
                self._ended = True
                rest.callback(tools.driver.release, plan)
        return end

    async def _kill(self, plan: Plan) -> None:
        if not self._ended:
            await in_thread(self._step.session.tools.driver.release, plan)

    async def _plan(self, root: Root, name: str, undo: AsyncExitStack, rest: ExitStack) -> Plan:
        """Connect the step to its network, and describe its container."""
        session, tools = self._step.session, self._step.session.tools
        rest.callback(tools.networks.release, name)
        wish = EndpointRequest(network=self._command.network or "bridge")
        (attachment,) = await in_thread(tools.networks.attach, name, name, "netns", [wish])
        directory = session.work / "file" / name
        rest.callback(shutil.rmtree, directory, ignore_errors=True)
        files = tools.networks.files(name, self._command.hostname, directory, extra_hosts=session.request.add_hosts)
        if self._command.script:
            content = self._command.script.encode()
            files += (File(target=SCRIPT, source=str(directory / "script"), content=content, mode=0o755),)
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        names.write(files)
        stub = session.work / "stub" / name
        shown = await Mounts(self._step, self._state, stub).provide(self._sources, self._command.cwd, undo)
        _add_targets(stub, self._given.mounts)
        mounts = (*shown.mounts, *self._given.mounts)
        plan = make_plan(
            name,
            self._command,
            root=_over(root, *([stub] if mounts else []), tools.home / COMMON),
            run=run_directory(tools.run, name),
            cgroup=cgroup_of(tools.cgroup, name),
            secret={
                "SOURCE_DATE_EPOCH": str(session.when(self._state)),
                **self._state.scope.secret(),
                **env_dict(self._given.env),
                **shown.env,
            },
            attachment=attachment,
            files=files,
            mounts=mounts,
            wishes=session.request,
        )
        program = msgspec.structs.replace(plan.program, groups=self._given.groups)
        return msgspec.structs.replace(plan, devices=self._given.devices, program=program)

    async def _follow(self, stream: Stream, plan: Plan) -> Exit:
        """Let the command go and pass its output on until it ends."""
        try:
            await stream.go()
        except Failed as failure:
            raise _not_started(plan, failure) from None
        decoders = {kind: codecs.getincrementaldecoder("utf-8")("replace") for kind in (Type.STDOUT, Type.STDERR)}
        while frame := await stream.receive():
            if frame.type == Type.EXIT:
                return parse_exit(frame.payload)
            if frame.type in decoders:
                self._output(decoders[frame.type].decode(frame.payload))
        raise Unavailable("the monitor of the step ended without a word")

    def _output(self, text: str) -> None:
        self._step.show(text)
        first, *rest = text.split("\n")
        if self._tail:
            self._tail[-1] = (self._tail[-1] + first)[-LONGEST:]
        else:
            self._tail.append(first[-LONGEST:])
        self._tail.extend(line[-LONGEST:] for line in rest)


def _start(driver: Driver, plan: Plan) -> Channel:
    driver.prepare(plan)
    return driver.start(plan)


def _not_started(plan: Plan, failure: Failed) -> TrivetError:
    """Say why a program that was set up could not be executed."""
    _, number = struct.unpack_from("<II", failure.payload)
    program = Exec(plan.program.argv, plan.program.env)
    return explain(program, number, failure.payload[8:].decode(errors="replace"), "the image")


def _add_targets(stub: Path, mounts: tuple[Mount, ...]) -> None:
    for mount in mounts:
        add_target(stub, mount.target, is_file=not Path(mount.source).is_dir())


def _over(root: Root, *stubs: Path) -> Root:
    """Put directories of mount targets below all layers."""
    return msgspec.structs.replace(root, lowers=(*root.lowers, *(str(stub) for stub in stubs)))
