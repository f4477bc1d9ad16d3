"""The program graph of Python code: its syntax, the order of its tokens, and how values flow between variables.

After Allamanis et al. 2018 (https://arxiv.org/abs/1711.00740), made by `ast` and `tokenize` alone. The nodes
are those of the syntax tree and the tokens, each token the child of the innermost syntax node that covers it.
Four kinds of edges join them, each also in reverse:

- ``child``, from a syntax node to what it is made of; reverse ``parent``;
- ``next_token``, from a token to the one after it; reverse ``previous_token``;
- ``last_use``, from an occurrence of a variable to those where its value may have been read last; reverse
  ``next_use``;
- ``last_write``, from an occurrence to those where it may have been assigned last; reverse ``next_write``.

A variable is any name that is read or bound, in its scope. Operators and contexts (load, store) are no nodes:
the operator's token and the kind of the name's token say the same. Comments are left out. An f-string is one
token on every Python, and the syntax nodes in it, which have no tokens, carry their names themselves.
"""

from __future__ import annotations

import ast
import io
import itertools
import keyword
import re
import tokenize
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from trainers.code.graph.flow import Flow
from trainers.code.graph.kinds import (
    CHILD,
    KEYWORD,
    LAST_USE,
    LAST_WRITE,
    NAME,
    NEXT_TOKEN,
    NUMBER,
    OPERATOR,
    OTHER,
    READ,
    WRITE,
)
from trainers.code.graph.syntax import Syntax
from trainers.code.graph.tokens import NO_TOKEN, Tokens, read_tokens
from trainers.common.errors import InputError

if TYPE_CHECKING:
    from torch_geometric.data import Data
    from transformers import PreTrainedTokenizerBase

SUBTOKENS = 4
"""So many sub-tokens of a node's text are read."""
CHARACTERS_PER_NODE = 32
"""Code is cut to so many characters a node of ``max_nodes`` before it is parsed."""
NODES_PER_CHARACTER = 8
"""More than any code has."""


class ProgramGraph(NamedTuple):
    """A graph in plain Python.

    Attributes:
        kinds: each node's place in `NODE_KINDS`.
        texts: each token's text; that of a node in an f-string is its name; "" for all other syntax nodes.
        edges: source, target, and the place in `EDGE_KINDS`.
        spans: each node's first character in the `normalised` code, and the one after its last; a node in an
            f-string has that of the f-string.
        cut: whether the code has more than is in the graph: its first tokens are, with the nodes above them.
        fault: why the code does not parse, in which case the graph is of its tokens, in order, alone.
    """

    kinds: list[int]
    texts: list[str]
    edges: list[tuple[int, int, int]]
    spans: list[tuple[int, int]]
    cut: bool
    fault: str | None


def read(code: str, max_nodes: int) -> ProgramGraph:
    """The graph of any text.

    The same text makes the same graph, except for syntax that only newer versions of Python know.

    Args:
        code: a dedented function, several, or what else may come.
        max_nodes: nodes at most.
    """
    code = normalised(code)
    most = max_nodes * CHARACTERS_PER_NODE
    if len(code) > most:
        try:
            graph = _parsed(_whole_statements(code[:most]), max_nodes)
        except _Unreadable:  # what was cut off may be to blame
            graph = _tokens_alone(code[:most], max_nodes, None)
        return graph._replace(cut=True)
    try:
        return _parsed(code, max_nodes)
    except _Unreadable as error:
        return _tokens_alone(code, max_nodes, str(error))


def normalised(code: str) -> str:
    """Code as Python itself reads it: no byte order mark, and every line ends in one character."""
    return code.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def require_nodes(codes: Iterable[str], max_nodes: int) -> None:
    """At least one of the shortest rows must be a whole graph, or nothing is left to learn from.

    Raises:
        InputError: each is cut, naming ``max_nodes`` and the number that would do.
    """
    codes = list(codes)
    if all(read(code, max_nodes).cut for code in codes):
        least = min(len(read(code, NODES_PER_CHARACTER * len(code) + 1).kinds) for code in codes)
        raise InputError(f"max_nodes = {max_nodes}: every row is larger, the smallest graph has {least} nodes")


class _Unreadable(Exception):
    """The message says why the code does not parse."""


def _parsed(code: str, max_nodes: int) -> ProgramGraph:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the code's escape sequences, say: not ours to print
            tree = ast.parse(code)
            tokens = read_tokens(code, max_nodes)
        syntax = Syntax(tree, tokens)
        flow = Flow(syntax, tokens)
        flow.module(tree)
    except SyntaxError as error:
        raise _Unreadable(f"{error.msg} (line {error.lineno})") from None
    except (ValueError, tokenize.TokenError) as error:
        raise _Unreadable(str(error)) from None
    except (RecursionError, MemoryError):  # MemoryError: the parser's own stack is full
        raise _Unreadable("nested too deeply") from None
    return _assemble(syntax, tokens, flow, max_nodes)


def _whole_statements(code: str) -> str:
    """The beginning of a text that was cut anywhere, to the last place where it can end.

    That is before a statement of a module, or of a function or class in it.
    """
    end = 0, 0
    depth, begins, decorated = 0, True, False
    try:
        for kind, text, start, _, _ in tokenize.generate_tokens(io.StringIO(code).readline):
            if kind == tokenize.INDENT:
                depth += 1
            elif kind == tokenize.DEDENT:
                depth -= 1
            elif kind == tokenize.NEWLINE:
                begins = True
            elif begins and kind not in NO_TOKEN:
                begins = False
                if depth <= 1 and not decorated and text not in ("elif", "else", "except", "finally"):
                    end = start
                decorated = text == "@"
    except (tokenize.TokenError, SyntaxError):
        pass  # at the cut
    return "\n".join(code.split("\n")[: end[0] - 1]) + "\n" if end[0] else ""


def _tokens_alone(code: str, max_nodes: int, fault: str | None) -> ProgramGraph:
    kinds: list[int] = []
    texts: list[str] = []
    spans: list[tuple[int, int]] = []
    cut = False
    for match in re.finditer(r"\w+|[^\w\s]", code):
        if len(kinds) == max_nodes:
            cut = True
            break
        text = match.group()
        kinds.append(_kind_of_word(text) if text[0] == "_" or text[0].isalnum() else OPERATOR)
        texts.append(text)
        spans.append(match.span())
    if not kinds:
        return ProgramGraph([OTHER], [""], [], [(0, 0)], cut, fault)  # no graph is empty
    return ProgramGraph(kinds, texts, _chain(range(len(kinds))), spans, cut, fault)


def _kind_of_word(text: str) -> int:
    if keyword.iskeyword(text):
        return KEYWORD
    return NUMBER if text[0].isdigit() else NAME


def _chain(tokens: Sequence[int]) -> list[tuple[int, int, int]]:
    edges = []
    for before, after in itertools.pairwise(tokens):
        edges += [(before, after, NEXT_TOKEN), (after, before, NEXT_TOKEN + 1)]
    return edges


def _assemble(syntax: Syntax, tokens: Tokens, flow: Flow, max_nodes: int) -> ProgramGraph:
    """Tokens in order, each after those of its ancestors that are not there yet, as long as they fit."""
    kinds: list[int] = []
    texts: list[str] = []
    spans: list[tuple[int, int]] = []
    child: list[tuple[int, int, int]] = []
    nodes: dict[int, int] = {}  # of a syntax node, and of a token: number in the graph
    placed: dict[int, int] = {}

    def add(kind: int, text: str, span: tuple[int, int], parent: int) -> int:
        if parent >= 0:
            child.append((parent, len(kinds), CHILD))
            child.append((len(kinds), parent, CHILD + 1))
        kinds.append(kind)
        texts.append(text)
        spans.append(span)
        return len(kinds) - 1

    def add_syntax(number: int, span: tuple[int, int]) -> int:
        parent = syntax.parents[number]
        nodes[number] = add(syntax.kinds[number], syntax.texts[number], span, nodes[parent] if parent >= 0 else -1)
        return nodes[number]

    def span_of(number: int) -> tuple[int, int]:
        first, after = syntax.covers[number]
        return (tokens.spans[first][0], tokens.spans[after - 1][1]) if after > first else (0, 0)

    add_syntax(0, span_of(0))
    cut = tokens.cut
    for token, owner in enumerate(syntax.owners):
        missing = []
        while owner not in nodes:
            missing.append(owner)
            owner = syntax.parents[owner]
        if len(kinds) + len(missing) >= max_nodes:
            cut = True
            break
        for number in reversed(missing):
            add_syntax(number, span_of(number))
        placed[token] = add(tokens.kinds[token], tokens.texts[token], tokens.spans[token], nodes[syntax.owners[token]])
        inside = syntax.inside.get(token, [])
        for number in inside[: max_nodes - len(kinds)]:
            placed[~number] = add_syntax(number, tokens.spans[token])
        if inside and inside[-1] not in nodes:
            cut = True
            break
    edges = child + _chain([node for token, node in placed.items() if token >= 0])
    for places, kind in ((flow.read, READ), (flow.written, WRITE)):
        for place in places:
            if place >= 0 and place in placed:
                kinds[placed[place]] = kind
    for pairs, kind in zip(flow.edges(placed.__contains__), (LAST_USE, LAST_WRITE), strict=True):
        for place, origin in pairs:
            if origin in placed:
                edges.append((placed[place], placed[origin], kind))
                edges.append((placed[origin], placed[place], kind + 1))
    return ProgramGraph(kinds, texts, edges, spans, cut, None)


def to_data(graph: ProgramGraph, subtokens: Callable[[str], list[int]], label: int) -> Data:
    """A graph as tensors.

    Returns:
        ``x``: int64 of shape (nodes, 1 + `SUBTOKENS`), kind and then sub-tokens, each plus one, 0 for none;
        ``edge_index``: int64 of shape (2, edges); ``edge_type``: int64 of shape (edges,); ``y``: int64 of
        shape (1,).
    """
    import torch
    from torch_geometric.data import Data

    rows = []
    for kind, text in zip(graph.kinds, graph.texts, strict=True):
        ids = [identity + 1 for identity in subtokens(text)[:SUBTOKENS]] if text else []
        rows.append([kind, *ids, *[0] * (SUBTOKENS - len(ids))])
    edges = torch.tensor(graph.edges, dtype=torch.int64).reshape(-1, 3).t().contiguous()
    return Data(x=torch.tensor(rows), edge_index=edges[:2], edge_type=edges[2], y=torch.tensor([label]))


class _Subtokens:
    """A tokenizer for the texts of nodes, which are few and come often."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._known: dict[str, list[int]] = {}

    def __call__(self, text: str) -> list[int]:
        text = text[: SUBTOKENS * CHARACTERS_PER_NODE]
        ids = self._known.get(text)
        if ids is None:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            encoded = self._tokenizer(text, add_special_tokens=False, verbose=False)
            ids = self._known[text] = encoded["input_ids"][:SUBTOKENS]
        return ids


MOST_KNOWN = 65_536
"""Texts whose sub-tokens are remembered."""


def subtokens_of(tokenizer: PreTrainedTokenizerBase) -> Callable[[str], list[int]]:
    """The first `SUBTOKENS` sub-tokens of a text; cached."""
    return _Subtokens(tokenizer)
