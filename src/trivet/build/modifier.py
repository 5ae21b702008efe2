"""The pattern modifiers of variables: ${x#p} ${x##p} ${x%p} ${x%%p} ${x/p/w} ${x//p/w}.

Matching follows all possibilities at once instead of backtracking, so that no pattern of a hostile
Dockerfile takes longer than pattern times value.
"""

from __future__ import annotations

_ANY, _MANY = 0, 1
Token = int | str


def trim(value: str, operator: str, pattern: str) -> str:
    """Remove the shortest (`#`, `%`) or longest (`##`, `%%`) match at the start or the end of `value`."""
    tokens = _tokens(pattern)
    if operator.startswith("%"):
        return _trim_start(value[::-1], tokens[::-1], longest=operator == "%%")[::-1]
    return _trim_start(value, tokens, longest=operator == "##")


def replace(value: str, pattern: str, word: str, *, everywhere: bool) -> str:
    """Replace the first, or every, longest match of `pattern` by `word`."""
    tokens = _tokens(pattern)
    result, at = [], 0
    while tokens and at < len(value):
        end = max(_ends(value[at:], tokens), default=0)
        if not end:
            result.append(value[at])
            at += 1
            continue
        result.append(word)
        at += end
        if not everywhere:
            break
    return "".join(result) + value[at:]


def _trim_start(value: str, tokens: list[Token], *, longest: bool) -> str:
    ends = _ends(value, tokens)
    if not ends:
        return value
    return value[max(ends) if longest else min(ends) :]


def _tokens(pattern: str) -> list[Token]:
    tokens: list[Token] = []
    characters = iter(pattern)
    for char in characters:
        if char == "\\":
            tokens.append(next(characters, "\\"))
        elif char == "?":
            tokens.append(_ANY)
        elif char != "*":
            tokens.append(char)
        elif tokens[-1:] != [_MANY]:
            tokens.append(_MANY)
    return tokens


def _ends(value: str, tokens: list[Token]) -> set[int]:
    """Find all lengths of a match at the start of `value`."""
    states = _settle({0}, tokens)
    ends = {0} if len(tokens) in states else set()
    for index, char in enumerate(value):
        states = _settle({after for state in states for after in _step(state, char, tokens)}, tokens)
        if not states:
            break
        if len(tokens) in states:
            ends.add(index + 1)
    return ends


def _step(state: int, char: str, tokens: list[Token]) -> tuple[int, ...]:
    if state == len(tokens):
        return ()
    token = tokens[state]
    if token == _MANY:
        return (state,)
    return (state + 1,) if token in (_ANY, char) else ()


def _settle(states: set[int], tokens: list[Token]) -> set[int]:
    """Add the states reached by letting a `*` match nothing."""
    return states | {state + 1 for state in states if state < len(tokens) and tokens[state] == _MANY}
