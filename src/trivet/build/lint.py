"""Build checks: what is allowed in a Dockerfile, but hardly meant. Named as BuildKit names them.

`# check=skip=RULE,RULE|all` leaves some out, `# check=error=true` makes them errors, `# check=experimental=RULE|all`
asks for those of `lint_experimental`, too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator

import msgspec

from trivet.build import instruction
from trivet.build.dockerfile import Dockerfile
from trivet.build.graph import Graph, Stage
from trivet.build.instruction import Instruction
from trivet.build.lint_experimental import EXPERIMENTAL, copied_though_ignored, undescribed
from trivet.build.source import MAXIMUM

MOST = 100  # warnings told
RESERVED = ("scratch", "context")
_SECRET = re.compile(
    r"(?i)(^|_)(apikey|auth|credentials?|key|passw(or)?d|pwd|secret|token)(_|$)|(access|secret|private|api)_?key"
)
_PUBLIC = re.compile(r"(?i)(^|_)(public|public_key)(_|$)|(_key_id|_file|_path|_url)$")
_VARIABLE = re.compile(r"(?<!\\)\$(?:\{([A-Za-z_][A-Za-z0-9_]*)(\}|[^}])|([A-Za-z_][A-Za-z0-9_]*))")
_OLD_PAIR = re.compile(r"(?i)^(ENV|LABEL)\s+[^\s=]+\s+")
_ALWAYS = frozenset({"PATH"})


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One finding."""

    rule: str
    line: int
    text: str


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """What `# check=` says."""

    skip: frozenset[str] = frozenset()
    experimental: frozenset[str] = frozenset()
    error: bool = False

    @classmethod
    def read(cls, text: str) -> Check:
        """Read `skip=A,B;experimental=C;error=true`."""
        fields = dict(part.strip().partition("=")[::2] for part in text.split(";") if part.strip())
        error = fields.get("error", "").strip().lower() == "true"
        return cls(skip=_names(fields, "skip"), experimental=_names(fields, "experimental"), error=error)

    def wants(self, rule: str) -> bool:
        """Tell whether a rule is to be looked at."""
        asked = rule not in EXPERIMENTAL or bool(self.experimental & {rule, "all"})
        return asked and not self.skip & {rule, "all"}


def _names(fields: dict[str, str], key: str) -> frozenset[str]:
    return frozenset(name.strip() for name in fields.get(key, "").split(",") if name.strip())


Found = tuple[int, str]
"""A line, and what is to be said about it."""

Rule = Callable[[Dockerfile, Graph], Iterator[Found]]


def check(dockerfile: Dockerfile, graph: Graph, wanted: Check, ignored: Callable[[str], bool]) -> list[Finding]:
    """Find what should be looked at, in order of the lines; `ignored` tells what .dockerignore leaves out."""
    rules: dict[str, Rule] = {**RULES, "CopyIgnoredFile": lambda what, _: copied_though_ignored(what, ignored)}
    findings = [
        Finding(rule=rule, line=line, text=text)
        for rule, find in rules.items()
        if wanted.wants(rule)
        for line, text in find(dockerfile, graph)
    ]
    return sorted(findings, key=lambda found: (found.line, found.rule))[:MOST]


def _instruction_casing(dockerfile: Dockerfile, graph: Graph) -> Iterator[Found]:
    words = [(each.line, each.text.split(None, 1)[0]) for each in dockerfile.instructions]
    lower = sum(word.islower() for _, word in words)
    usual = str.lower if lower * 2 > len(words) else str.upper
    for line, word in words:
        if word not in (word.upper(), word.lower()) or word != usual(word):
            casing = "lowercase" if usual is str.lower else "uppercase"
            yield line, f"command '{word}' should match the case of the command majority ({casing})"


def _from_as_casing(dockerfile: Dockerfile, graph: Graph) -> Iterator[Found]:
    for stage in graph.stages:
        words = stage.origin.text.split()
        if stage.origin.name and len(words) > 2 and words[-2].isupper() != words[0].isupper():
            yield stage.origin.line, f"'{words[-2]}' and '{words[0]}' keywords' casing do not match"


def _stage_name_casing(dockerfile: Dockerfile, graph: Graph) -> Iterator[Found]:
    for stage in graph.stages:
        name = stage.origin.text.split()[-1]
        if stage.origin.name and name != name.lower():
            yield stage.origin.line, f"stage name '{name}' should be lowercase"


def _duplicate_stage_name(dockerfile: Dockerfile, graph: Graph) -> Iterator[Found]:
    seen: set[str] = set()
    for stage in graph.stages:
        if stage.origin.name in seen:
            yield stage.origin.line, f"duplicate stage name '{stage.origin.name}', stage names should be unique"
        seen |= {stage.origin.name} - {""}


def _reserved_stage_name(dockerfile: Dockerfile, graph: Graph) -> Iterator[Found]:
    for stage in graph.stages:
        if stage.origin.name in RESERVED:
            yield stage.origin.line, f"'{stage.origin.name}' is reserved and should not be used as a stage name"


def _empty_continuation(dockerfile: Dockerfile, graph: Graph) -> Iterator[Found]:
    for line in dockerfile.empty_continuations:
        yield line, "empty continuation line"


def _json_arguments(dockerfile: Dockerfile, graph: Graph) -> Iterator[Found]:
    for stage in graph.stages:
        if any(isinstance(each, instruction.Shell) for each in stage.instructions):
            continue
        for each in stage.instructions:
            if isinstance(each, instruction.Cmd | instruction.Entrypoint) and each.command.shell:
                yield (
                    each.line,
                    f"JSON arguments recommended for {each.keyword} to prevent unintended OS signal behavior",
                )


def _maintainer(dockerfile: Dockerfile, graph: Graph) -> Iterator[Found]:
    for each in dockerfile.instructions:
        if isinstance(each, instruction.Maintainer):
            yield each.line, "MAINTAINER is deprecated in favor of using label org.opencontainers.image.authors"


def _old_pairs(dockerfile: Dockerfile, graph: Graph) -> Iterator[Found]:
    for each in dockerfile.instructions:
        if isinstance(each, instruction.Env | instruction.Label) and _OLD_PAIR.match(each.text):
            yield each.line, f'"{each.keyword} key=value" should be used instead of "{each.keyword} key value"'


def _relative_workdir(dockerfile: Dockerfile, graph: Graph) -> Iterator[Found]:
    for stage in graph.stages:
        absolute = stage.parent is not None
        for each in stage.instructions:
            if isinstance(each, instruction.Workdir):
                if not absolute and not each.path.startswith(("/", "$")):
                    yield (
                        each.line,
                        f"relative workdir '{each.path}' can have unexpected results if the base image changes",
                    )
                absolute = True


def _multiple(dockerfile: Dockerfile, graph: Graph) -> Iterator[Found]:
    kinds = (instruction.Cmd, instruction.Entrypoint, instruction.Healthcheck)
    for stage in graph.stages:
        counts = Counter(each.keyword for each in stage.instructions)
        for each in stage.instructions:
            if isinstance(each, kinds) and counts[each.keyword] > 1:
                counts[each.keyword] -= 1
                yield each.line, f"multiple {each.keyword} instructions in one stage; only the last will be used"


def _secrets(dockerfile: Dockerfile, graph: Graph) -> Iterator[Found]:
    for each in dockerfile.instructions:
        if isinstance(each, instruction.Env | instruction.Arg):
            for name, _ in each.pairs:
                if _SECRET.search(name) and not _PUBLIC.search(name):
                    yield each.line, f'do not use ARG or ENV instructions for sensitive data ({each.keyword} "{name}")'


def _undefined_in_from(dockerfile: Dockerfile, graph: Graph) -> Iterator[Found]:
    known = graph.scope.outside().keys()
    for stage in graph.stages:
        for name in _unset(f"{stage.origin.image} {stage.origin.platform}", known):
            yield stage.origin.line, f"FROM argument '{name}' is not declared"


def _default_in_from(dockerfile: Dockerfile, graph: Graph) -> Iterator[Found]:
    for stage in graph.stages:
        image = stage.image
        if image.endswith((":", "@", "/")) or image.startswith((":", "/")):
            yield (
                stage.origin.line,
                f"default value for ARG in {stage.origin.image} gives an empty or invalid base image name",
            )


def _undefined(dockerfile: Dockerfile, graph: Graph) -> Iterator[Found]:
    """Only in stages whose base is a stage, scratch or nothing we would have to fetch, is all of ENV known."""
    for stage in graph.stages:
        known = _inherited(graph, stage)
        for each in stage.instructions:
            if known is not None:
                for name in _unset(_expanded(each), known):
                    yield each.line, f"usage of undefined variable '${name}'"
            if known is not None and isinstance(each, instruction.Env | instruction.Arg):
                known |= {name for name, _ in each.pairs}


def _inherited(graph: Graph, stage: Stage) -> set[str] | None:
    if stage.image == "scratch":
        return set(_ALWAYS)
    if stage.parent is None:
        return None
    parent = graph.stages[stage.parent]
    known = _inherited(graph, parent)
    if known is None:
        return None
    env = [each for each in parent.instructions if isinstance(each, instruction.Env | instruction.Arg)]
    return known | {name for each in env for name, _ in each.pairs}


def _expanded(each: Instruction) -> str:
    """Give the parts of an instruction in which variables are replaced by the builder."""
    if isinstance(each, instruction.Run | instruction.Cmd | instruction.Entrypoint | instruction.Healthcheck):
        return ""
    return "" if isinstance(each, instruction.OnBuild | instruction.Shell) else each.text


def _unset(text: str, known: Collection[str]) -> Iterator[str]:
    for match in _VARIABLE.finditer(text[:MAXIMUM]):
        name = match[1] or match[3]
        if name not in known and match[2] in (None, "}"):
            yield name


def _redundant_platform(dockerfile: Dockerfile, graph: Graph) -> Iterator[Found]:
    for stage in graph.stages:
        platform = stage.origin.platform
        if platform in ("$TARGETPLATFORM", "${TARGETPLATFORM}"):
            yield (
                stage.origin.line,
                f"setting platform to predefined {platform} in FROM is redundant as this is the default",
            )


def _platform(dockerfile: Dockerfile, graph: Graph) -> Iterator[Found]:
    for stage in graph.stages:
        platform = stage.origin.platform
        if platform and "$" not in platform:
            yield stage.origin.line, f'FROM --platform flag should not use constant value "{platform}"'


def _expose(dockerfile: Dockerfile, graph: Graph) -> Iterator[Found]:
    for each in dockerfile.instructions:
        for port in each.ports if isinstance(each, instruction.Expose) else ():
            protocol = port.partition("/")[2]
            if protocol != protocol.lower() and "$" not in protocol:
                yield each.line, f"defined protocol '{port}' in EXPOSE instruction should be lowercase"


def _exposed_address(dockerfile: Dockerfile, graph: Graph) -> Iterator[Found]:
    for each in dockerfile.instructions:
        for port in each.ports if isinstance(each, instruction.Expose) else ():
            if ":" in port:
                yield (
                    each.line,
                    f"EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'",
                )


RULES: dict[str, Rule] = {
    "ConsistentInstructionCasing": _instruction_casing,
    "DuplicateStageName": _duplicate_stage_name,
    "ExposeInvalidFormat": _exposed_address,
    "ExposeProtoCasing": _expose,
    "FromAsCasing": _from_as_casing,
    "FromPlatformFlagConstDisallowed": _platform,
    "InvalidDefaultArgInFrom": _default_in_from,
    "InvalidDefinitionDescription": undescribed,
    "JSONArgsRecommended": _json_arguments,
    "LegacyKeyValueFormat": _old_pairs,
    "MaintainerDeprecated": _maintainer,
    "MultipleInstructionsDisallowed": _multiple,
    "NoEmptyContinuation": _empty_continuation,
    "RedundantTargetPlatform": _redundant_platform,
    "ReservedStageName": _reserved_stage_name,
    "SecretsUsedInArgOrEnv": _secrets,
    "StageNameCasing": _stage_name_casing,
    "UndefinedArgInFrom": _undefined_in_from,
    "UndefinedVar": _undefined,
    "WorkdirRelativePath": _relative_workdir,
}
