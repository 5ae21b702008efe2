"""A US keyboard: which keys, by QEMU's names, a text or a chord such as ctrl-alt-delete means."""

from __future__ import annotations

from trivet.base.error import InvalidArgument

_PLAIN = {
    " ": "spc",
    "\n": "ret",
    "\t": "tab",
    "-": "minus",
    "=": "equal",
    "[": "bracket_left",
    "]": "bracket_right",
    "\\": "backslash",
    ";": "semicolon",
    "'": "apostrophe",
    "`": "grave_accent",
    ",": "comma",
    ".": "dot",
    "/": "slash",
}
_SHIFTED = dict(zip('!@#$%^&*()_+{}|:"~<>?', "1234567890-=[]\\;'`,./", strict=True))
_NAMES = {
    "enter": "ret",
    "return": "ret",
    "space": "spc",
    "escape": "esc",
    "del": "delete",
    "backspace": "backspace",
    "pageup": "pgup",
    "pagedown": "pgdn",
    "control": "ctrl",
    "win": "meta_l",
    "super": "meta_l",
}
_KNOWN = (
    frozenset(
        "ctrl alt shift meta_l ctrl_r alt_r shift_r esc tab ret spc backspace delete insert home end pgup pgdn up down "
        "left right caps_lock print menu".split()
    )
    | {f"f{number}" for number in range(1, 13)}
    | set(_PLAIN.values())
)


def text(words: str) -> list[list[str]]:
    """Translate a text to chords. Raises `InvalidArgument` for what a US keyboard hasn't got."""
    return [_character(character) for character in words]


def chord(words: str) -> list[str]:
    """Read keys pressed together, joined by - or +: ctrl-alt-delete, f2, a. Raises `InvalidArgument`."""
    keys = [words] if len(words) == 1 else [word for word in words.lower().replace("+", "-").split("-") if word]
    found = [key for word in keys for key in _key(word)]
    if not found:
        raise InvalidArgument(f"{words!r} names no keys", hint="ctrl-alt-delete, f2, enter")
    return found


def _key(word: str) -> list[str]:
    name = _NAMES.get(word, word)
    return [name] if name in _KNOWN else _character(word)


def _character(character: str) -> list[str]:
    if character in _PLAIN:
        return [_PLAIN[character]]
    if character in _SHIFTED:
        return ["shift", *_character(_SHIFTED[character])]
    if len(character) == 1 and character.isascii() and character.isalnum():
        return ["shift", character.lower()] if character.isupper() else [character]
    raise InvalidArgument(f"{character!r} is not on a US keyboard")
