"""One channel's text, which may be JSON: tool arguments, structured answers. Sans-IO, sees the text in any pieces.

A text that begins with `{` or `[` (tool arguments: or with `"` or a number) is read as JSON (RFC 8259) as long as it is JSON:

- Each string, also one that is a key, is a text of its own: a match never spans two. Escapes are decoded before the
  scanner sees them; what is not replaced is written back in its own spelling, replacements are escaped. So what was
  valid JSON stays so.
- A number is a text of its own too. It waits until it has ended, since one that is replaced becomes a string. So does a
  `true`, `false` or `null`, which may be the beginning of something else.
- A value, or an item of an array, stands behind its key as its context (`entity.py`): `api_key": "` gives it its meaning.
- A string's closing quote waits for what comes behind it: only that says whether it was one (`["ann"@example.com]`).
- All else passes as it is.

A text that is itself the value of a key, in a document that somebody else took apart, is given it: `TextRedactor(...,
key="api_key")`, or for a text that is no JSON `scanner.redactor(replace, naming("api_key"))`.

From the first character on that JSON does not allow, the rest is plain text: the string that it stands in or behind, or
the number before it, goes on with it. Any other text is plain from its first character on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from .scanner import Redactor, Replace, Scanner

_SPACE = re.compile(r"[ \t\n\r]*")
_UNESCAPED = re.compile(r'[^"\\]+')
_ESCAPE = re.compile(r'\\(?:(["\\/bfnrt])|u([0-9a-fA-F]{4}))')
_ESCAPE_BEGUN = re.compile(r"\\(?:u[0-9a-fA-F]{0,3})?\Z")
_LOW_SURROGATE = re.compile(r"\\u([dD][c-fC-F][0-9a-fA-F]{2})")
_LOW_SURROGATE_BEGUN = re.compile(r"(?:\\(?:u(?:[dD](?:[c-fC-F][0-9a-fA-F]?)?)?)?)?\Z")
_SCALAR_LIKE = re.compile(r"[-+.0-9eE]+|[a-z]+")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_WORDS = ("true", "false", "null")
_SHORT = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_MOST = 1000  # digits of a number, spaces that wait behind it or behind a string, open brackets
_KEY_CHARACTERS = 64  # the last of a key, which count


def naming(key: str) -> str:
    """The context of a value with this key."""
    return f'{key[-_KEY_CHARACTERS:]}": "' if key else ""


class TextRedactor:
    """One channel: `feed` the text as it comes, then `finish` once. Raises what the scanner's redactor raises.

    `arguments`: the text is meant to be JSON, so that a string or a number may stand alone. `key`: what the text is the value
    of.
    """

    __slots__ = (
        "_arguments", "_contexts", "_in_string", "_is_key", "_key_read", "_nesting", "_out", "_redactor", "_replace",
        "_scanner", "_spelt", "_state", "_tail", "feed",
    )  # fmt: skip

    feed: Callable[[str], str]

    def __init__(self, scanner: Scanner, replace: Replace, *, arguments: bool = False, key: str = "") -> None:
        self._scanner = scanner
        self._replace = replace
        self._arguments = arguments
        self._redactor: Redactor | None = None  # of the string, or of the plain text, that goes on
        self._spelt: list[str] = []  # how the characters stood that it holds
        self._nesting: list[str] = []  # the brackets that are open
        self._contexts = [naming(key)]  # of values: outside of them all, and in each
        self._in_string = False  # whether the redactor began in a string, so that what it replaces is written as in one
        self._is_key = False
        self._key_read = ""  # the last characters of the key that goes on
        self._tail = ""  # the beginning of a token that is not complete
        self._out: list[str] = []
        # Not bound: what holds a method of its own is not freed before the garbage collector comes by.
        self._state: Callable[[TextRedactor, str, int], int] = TextRedactor._start
        self.feed = self._feed

    def _feed(self, text: str) -> str:
        """What may go now."""
        text = self._tail + text
        self._tail = ""
        at = 0
        while at < len(text):
            at = self._state(self, text, at)
        if self._state is TextRedactor._plain and not self._in_string and self._redactor is not None:
            self.feed = self._redactor.feed  # it stays plain
        return self._taken()

    def finish(self) -> str:
        """The end of the channel: what was still held."""
        tail, self._tail = self._tail, ""
        if self._state is TextRedactor._scalar:
            self._put_last_scalar(tail)
        elif self._state is TextRedactor._closing:
            self._end_redactor()
            self._out.append(tail)
        elif self._redactor is None:
            self._out.append(tail)
        else:
            if tail:
                self._scan(tail, list(tail))
            self._end_redactor()
        return self._taken()

    @property
    def held(self) -> bool:
        """Whether anything of the text is held back now."""
        return bool(self._tail or self._spelt or (self._redactor is not None and self._redactor.held))

    def _taken(self) -> str:
        out = "".join(self._out)
        self._out.clear()
        return out

    # States: each takes what it can of `text` from `at` on, and says where it stopped

    def _start(self, text: str, at: int) -> int:
        """Before the first document."""
        return self._begin(text, at, '{["-0123456789' if self._arguments else "{[")

    def _next(self, text: str, at: int) -> int:
        """Behind a document."""
        return self._begin(text, at, '{["' if self._arguments else "{[")

    def _plain(self, text: str, at: int) -> int:
        """Text that is not JSON, to its end."""
        rest = text[at:]
        if self._redactor is None:
            context = self._contexts[-1]
            if text[at] in "'`":  # which stands in the place of the quote
                context = context.removesuffix('"')
            self._redactor = self._scanner.redactor(self._replace, context)
            self._in_string = False
        if self._in_string:
            self._scan(rest, list(rest))
        else:
            self._out.append(self._redactor.feed(rest))
        return len(text)

    def _value(self, text: str, at: int) -> int:
        at = self._skip_space(text, at)
        if at == len(text):
            return at
        first = text[at]
        if first == '"':
            return self._begin_string(at, is_key=False)
        if first in "{[" and len(self._nesting) < _MOST:
            self._nesting.append(first)
            self._contexts.append(self._contexts[-1])
            self._state = TextRedactor._first_key if first == "{" else TextRedactor._first_item
            return self._pass(first, at)
        self._state = TextRedactor._scalar if first in "-0123456789tfn" else TextRedactor._plain
        return at

    def _first_item(self, text: str, at: int) -> int:
        at = self._skip_space(text, at)
        if at < len(text):
            if text[at] == "]":
                return self._close(at, "]")
            self._state = TextRedactor._value
        return at

    def _first_key(self, text: str, at: int) -> int:
        at = self._skip_space(text, at)
        if at < len(text):
            if text[at] == "}":
                return self._close(at, "}")
            self._state = TextRedactor._key
        return at

    def _key(self, text: str, at: int) -> int:
        at = self._skip_space(text, at)
        if at < len(text):
            if text[at] == '"':
                return self._begin_string(at, is_key=True)
            self._state = TextRedactor._plain
        return at

    def _colon(self, text: str, at: int) -> int:
        at = self._skip_space(text, at)
        if at < len(text):
            if text[at] == ":":
                self._state = TextRedactor._value
                return self._pass(":", at)
            self._state = TextRedactor._plain
        return at

    def _after(self, text: str, at: int) -> int:
        """Behind a value."""
        if not self._nesting:
            self._state = TextRedactor._next
            return at
        at = self._skip_space(text, at)
        if at < len(text):
            mark, inner = text[at], self._nesting[-1]
            if mark == ",":
                self._state = TextRedactor._key if inner == "{" else TextRedactor._value
                return self._pass(",", at)
            if mark == ("}" if inner == "{" else "]"):
                return self._close(at, mark)
            self._state = TextRedactor._plain
        return at

    def _string(self, text: str, at: int) -> int:
        run = _UNESCAPED.match(text, at)
        if run is not None:
            self._scan(run[0], list(run[0]))
            return run.end()
        if text[at] == '"':
            self._state = TextRedactor._closing
            return at
        return self._escape(text, at)

    def _closing(self, text: str, at: int) -> int:
        """At the quote that ends a string, if what follows it agrees."""
        end = self._space_end(text, at + 1)
        is_far = end - at > _MOST
        if end == len(text) and not is_far:
            return self._wait(text, at)
        if not is_far and text[end] not in self._behind_string():
            self._state = TextRedactor._plain
            return at
        self._end_redactor()
        if self._is_key:
            self._contexts[-1] = naming(self._key_read)
        self._state = TextRedactor._colon if self._is_key else TextRedactor._after
        return self._pass('"', at)

    def _behind_string(self) -> str:
        """What JSON allows there, beside spaces."""
        if self._is_key:
            return ":"
        return ",]}" if self._nesting else '{["'

    def _escape(self, text: str, at: int) -> int:
        escape = _ESCAPE.match(text, at)
        if escape is None:
            if _ESCAPE_BEGUN.match(text, at):
                return self._wait(text, at)
            self._state = TextRedactor._plain
            return at
        end = escape.end()
        character = _SHORT.get(escape[1], escape[1]) if escape[1] else chr(int(escape[2], 16))
        if "\ud800" <= character < "\udc00":  # the first half of a pair, if the second follows
            low = _LOW_SURROGATE.match(text, end)
            if low is not None:
                end = low.end()
                character = chr(0x10000 + ((ord(character) - 0xD800) << 10) + (int(low[1], 16) - 0xDC00))
            elif _LOW_SURROGATE_BEGUN.match(text, end):
                return self._wait(text, at)
        self._scan(character, [text[at:end]])
        return end

    def _scalar(self, text: str, at: int) -> int:
        like = _SCALAR_LIKE.match(text, at)
        assert like is not None
        end = self._space_end(text, like.end())
        is_long, is_far = len(like[0]) > _MOST, end - like.end() > _MOST
        if end == len(text) and not is_long and not is_far:
            return self._wait(text, at)
        known = like[0] in _WORDS or _NUMBER.fullmatch(like[0])
        if is_long or not known or not self._nesting or (not is_far and text[end] not in ",]}"):
            self._state = TextRedactor._plain
            return at
        self._put_scalar(like[0])
        self._state = TextRedactor._after
        return like.end()

    # Their parts

    def _begin(self, text: str, at: int, marks: str) -> int:
        at = self._skip_space(text, at)
        if at < len(text):
            self._state = TextRedactor._value if text[at] in marks else TextRedactor._plain
        return at

    def _pass(self, token: str, at: int) -> int:
        self._out.append(token)
        return at + len(token)

    def _wait(self, text: str, at: int) -> int:
        self._tail = text[at:]
        return len(text)

    def _close(self, at: int, bracket: str) -> int:
        self._nesting.pop()
        self._contexts.pop()
        self._state = TextRedactor._after
        return self._pass(bracket, at)

    def _space_end(self, text: str, at: int) -> int:
        space = _SPACE.match(text, at)
        assert space is not None
        return space.end()

    def _skip_space(self, text: str, at: int) -> int:
        end = self._space_end(text, at)
        if end > at:
            self._out.append(text[at:end])
        return end

    def _begin_string(self, at: int, *, is_key: bool) -> int:
        self._in_string = True
        self._is_key = is_key
        self._key_read = ""
        self._redactor = self._scanner.redactor(self._replace, (not is_key and self._contexts[-1]) or '"')
        self._state = TextRedactor._string
        return self._pass('"', at)

    def _scan(self, characters: str, spelt: list[str]) -> None:
        assert self._redactor is not None
        if self._is_key:
            self._key_read = (self._key_read + characters)[-_KEY_CHARACTERS:]
        self._spelt += spelt
        self._put(self._redactor.scan(characters))

    def _end_redactor(self) -> None:
        assert self._redactor is not None
        if self._spelt:
            self._put(self._redactor.end())
        else:
            self._out.append(self._redactor.finish())
        self._redactor = None

    def _put(self, pieces: list[tuple[int, str | None]]) -> None:
        for consumed, replacement in pieces:
            self._out.append("".join(self._spelt[:consumed]) if replacement is None else _quoted(replacement)[1:-1])
            del self._spelt[:consumed]

    def _put_scalar(self, scalar: str) -> None:
        redacted = self._scanner.redact(scalar, self._replace, self._contexts[-1])
        self._out.append(scalar if redacted == scalar else _quoted(redacted))

    def _put_last_scalar(self, tail: str) -> None:
        """With what the text ends: a number that stands alone, or one that no bracket follows."""
        scalar = tail.rstrip(" \t\n\r")
        if self._nesting or _NUMBER.fullmatch(scalar):
            self._put_scalar(scalar)
            self._out.append(tail[len(scalar) :])
        else:
            self._out.append(self._scanner.redact(tail, self._replace, self._contexts[-1]))


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
