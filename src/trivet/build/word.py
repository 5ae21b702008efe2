"""Words of a Dockerfile: splitting, quotes, and the expansion of variables.

Supports $name ${name} ${name:-word} ${name-word} ${name:+word} ${name+word} ${name:?word} ${name?word}
${name#pattern} ${name##pattern} ${name%pattern} ${name%%pattern} ${name/pattern/word} ${name//pattern/word}.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from trivet.build.modifier import replace, trim

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]+|[@*#?\-$!]")
_OPERATOR = re.compile(r":[-+?]|##|%%|//|[-+?#%/]")
_DEPTH = 32
_LONGEST = 128 << 10  # what execve(2) takes as one string; stops `ENV A=$A$A` from eating the memory


class WordError(ValueError):
    """A word with an open quote or a substitution that makes no sense; the caller knows file and line."""


def split_words(text: str, escape: str) -> list[str]:
    """Split at white space outside quotes; quotes and escapes are kept. An open quote reaches to the end."""
    words: list[str] = []
    word, quote, index = "", "", 0
    while index < len(text):
        char = text[index]
        if char == escape and quote != "'" and index + 1 < len(text):
            word += text[index : index + 2]
            index += 2
            continue
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char.isspace():
            if word:
                words.append(word)
            word, index = "", index + 1
            continue
        word += char
        index += 1
    return [*words, word] if word else words


def expand(text: str, variables: Mapping[str, str], escape: str = "\\") -> str:
    """Replace variables and remove quotes and escapes; an unset variable is empty. Raises `WordError`."""
    return _Expander(text, variables, escape).run()


def expand_heredoc(text: str, variables: Mapping[str, str], escape: str = "\\") -> str:
    """Replace variables in a here-document, where quotes mean nothing. Raises `WordError`."""
    return _Expander(text, variables, escape, quotes=False).run()


class _Expander:
    """One pass over a text; `_at` is the next character."""

    def __init__(
        self,
        text: str,
        variables: Mapping[str, str],
        escape: str,
        *,
        quotes: bool = True,
        pattern: bool = False,
        depth: int = 0,
    ) -> None:
        self._text = text
        self._variables = variables
        self._escape = escape
        self._quotes = quotes
        self._pattern = pattern
        self._depth = depth
        self._at = 0
        if depth > _DEPTH:
            raise WordError(f"substitutions are nested deeper than {_DEPTH}")

    def run(self) -> str:
        result = self._until("")
        if len(result) > max(_LONGEST, len(self._text)):
            raise WordError(f"the expanded text is longer than {_LONGEST} characters")
        return result

    def _until(self, end: str) -> str:
        """Expand up to an unquoted `end`, which is consumed."""
        result: list[str] = []
        while self._at < len(self._text):
            char = self._text[self._at]
            if char == end:
                self._at += 1
                return "".join(result)
            if self._quotes and char == "'":
                result.append(self._single())
            elif self._quotes and char == '"':
                self._at += 1
                result.append(self._double())
            elif char == self._escape:
                result.append(self._escaped())
            elif char == "$":
                result.append(self._dollar())
            else:
                result.append(char)
                self._at += 1
        if end:
            raise WordError(f"missing {end!r} in substitution")
        return "".join(result)

    def _single(self) -> str:
        end = self._text.find("'", self._at + 1)
        if end < 0:
            raise WordError("a single quote is never closed")
        content = self._text[self._at + 1 : end]
        self._at = end + 1
        return content

    def _double(self) -> str:
        result: list[str] = []
        while self._at < len(self._text):
            char = self._text[self._at]
            if char == '"':
                self._at += 1
                return "".join(result)
            if char == "$":
                result.append(self._dollar())
            elif char == self._escape and self._text[self._at + 1 : self._at + 2] in ('"', "$", self._escape):
                result.append(self._text[self._at + 1])
                self._at += 2
            else:
                result.append(char)
                self._at += 1
        raise WordError("a double quote is never closed")

    def _escaped(self) -> str:
        following = self._text[self._at + 1 : self._at + 2]
        self._at += 1 + len(following)
        if not following:
            return self._escape
        if self._pattern:  # whose own escapes these are
            return f"\\{following}"
        if not self._quotes and following not in ("$", self._escape):
            return self._escape + following
        return following

    def _dollar(self) -> str:
        self._at += 1
        if self._text[self._at : self._at + 1] == "{":
            self._at += 1
            return self._braced()
        match = _NAME.match(self._text, self._at)
        if match is None:
            return "$"
        self._at = match.end()
        return self._variables.get(match[0], "")

    def _braced(self) -> str:
        name = self._match(_NAME)
        if not name:
            raise WordError("bad substitution: a variable's name must follow '${'")
        if self._text[self._at : self._at + 1] == "}":
            self._at += 1
            return self._variables.get(name, "")
        operator = self._match(_OPERATOR)
        if not operator:
            raise WordError(f"bad substitution of {name}: '}}' or a modifier must follow the name")
        if operator in ("/", "//"):
            pattern, word = self._nested("/", pattern=True), self._nested("}")
            value = self._variables.get(name, "")
            return replace(value, pattern, word, everywhere=operator == "//")
        return self._modify(name, operator, self._nested("}", pattern=operator[0] in "#%"))

    def _match(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        if match is None:
            return ""
        self._at = match.end()
        return match[0]

    def _nested(self, end: str, *, pattern: bool = False) -> str:
        inner = _Expander(
            self._text, self._variables, self._escape, quotes=self._quotes, pattern=pattern, depth=self._depth + 1
        )
        inner._at = self._at
        result = inner._until(end)
        self._at = inner._at
        return result

    def _modify(self, name: str, operator: str, word: str) -> str:
        value = self._variables.get(name)
        given = bool(value) if operator.startswith(":") else value is not None
        if operator.endswith("-"):
            return value or "" if given else word
        if operator.endswith("+"):
            return word if given else ""
        if operator.endswith("?"):
            if not given:
                raise WordError(f"{name}: {word or 'is not set'}")
            return value or ""
        return trim(value or "", operator, word)
