"""The tokens of Python code, the same ones whatever version of Python reads it."""

from __future__ import annotations

import io
import itertools
import keyword
import tokenize
from typing import NamedTuple

from trainers.code.graph.kinds import KEYWORD, NAME, NUMBER, OPERATOR, OTHER, STRING

NO_TOKEN = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER,
}  # fmt: skip
_TOKEN_KINDS = {
    tokenize.NAME: NAME, tokenize.OP: OPERATOR, tokenize.NUMBER: NUMBER, tokenize.STRING: STRING,
}  # fmt: skip
# From 3.12 (f-strings) and 3.14 (t-strings) on, these come in parts.
_TEXT_BEGINS = {getattr(tokenize, name, None) for name in ("FSTRING_START", "TSTRING_START")} - {None}
_TEXT_ENDS = {getattr(tokenize, name, None) for name in ("FSTRING_END", "TSTRING_END")} - {None}


class Tokens(NamedTuple):
    """Tokens in order.

    Attributes:
        kinds, texts: of each token.
        starts, ends: line, from 1, and column in UTF-8 bytes, as `ast` has them.
        spans: first character, and the one after the last.
        cut: whether there are more.
    """

    kinds: list[int]
    texts: list[str]
    starts: list[tuple[int, int]]
    ends: list[tuple[int, int]]
    spans: list[tuple[int, int]]
    cut: bool


def read_tokens(code: str, most: int) -> Tokens:
    """The first ``most`` tokens.

    Args:
        code: as `trainers.code.graph.program_graph.normalised` leaves it.
        most: tokens at most.

    Raises:
        SyntaxError, tokenize.TokenError: it is no Python.
    """
    found = Tokens([], [], [], [], [], False)
    kinds, texts, starts, ends, spans, _ = found
    lines = [0, *itertools.accumulate(len(line) + 1 for line in code.split("\n"))]  # where each begins
    in_text, begin = 0, (0, 0)
    for kind, text, start, end, _ in tokenize.generate_tokens(io.StringIO(code).readline):
        if kind in NO_TOKEN:
            continue
        if kind in _TEXT_BEGINS:
            in_text += 1
            if in_text == 1:
                begin = start
            continue
        if in_text:
            if kind not in _TEXT_ENDS:
                continue
            in_text -= 1
            if in_text:
                continue
            kind, start = tokenize.STRING, begin
            text = code[lines[begin[0] - 1] + begin[1] : lines[end[0] - 1] + end[1]]
        if len(kinds) == most:
            found = found._replace(cut=True)
            break
        kinds.append(KEYWORD if kind == tokenize.NAME and keyword.iskeyword(text) else _TOKEN_KINDS.get(kind, OTHER))
        texts.append(text)
        starts.append(start)
        ends.append(end)
        spans.append((lines[start[0] - 1] + start[1], lines[end[0] - 1] + end[1]))
    if not code.isascii():
        for places in (starts, ends):
            places[:] = [
                (line, len(code[lines[line - 1] : lines[line - 1] + column].encode("utf-8"))) for line, column in places
            ]
    return found
