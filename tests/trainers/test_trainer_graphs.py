from __future__ import annotations

import ast
import io
import itertools
import sys
import tokenize
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers import graphs, misuse
from trainers.errors import InputError
from trainers.graph_kinds import EDGE_KINDS, NAME, NODE_KINDS, STRING
from trainers.graphs import ProgramGraph

SPACE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
TOKEN_KINDS = range(NAME, STRING + 1)


def edges(graph: ProgramGraph, kind: str) -> list[tuple[int, int]]:
    return [(source, target) for source, target, number in graph.edges if EDGE_KINDS[number] == kind]


def in_order(graph: ProgramGraph) -> list[str]:
    """The tokens' texts along the ``next_token`` edges."""
    after = dict(edges(graph, "next_token"))
    at = next((node for node in after if node not in after.values()), None)
    texts = []
    while at is not None:
        texts.append(graph.texts[at])
        at = after.get(at)
    return texts


def flow(code: str, kind: str) -> set[str]:
    """Edges of data flow, each name with the number of its occurrence in the code: ``b2 a1`` leads from b2 to a1."""
    graph = graphs.read(code, 512)
    assert graph.fault is None
    names: dict[int, str] = {}
    seen: Counter[str] = Counter()
    for node, text in enumerate(graph.texts):
        if text.isidentifier():
            seen[text] += 1
            names[node] = f"{text}{seen[text]}"
    return {f"{names[source]} {names[target]}" for source, target in edges(graph, kind)}


@pytest.fixture(scope="module")
def codes() -> list[str]:
    corpus = misuse.Corpus(
        misuse.standard_library() / "json", seed=1, validation_fraction=0.1, longest=2000, twins_each=2
    )
    return [row.code for row in corpus.rows]


def test_every_edge_has_its_reverse(codes: list[str]) -> None:
    for code in codes:
        graph = graphs.read(code, 5000)
        counts = Counter(graph.edges)
        for source, target, kind in graph.edges:
            assert counts[target, source, kind ^ 1] == counts[source, target, kind]
            assert 0 <= min(source, target) <= max(source, target) < len(graph.kinds)
        assert len(graph.kinds) == len(graph.texts) == len(graph.spans)


def test_syntax_is_a_tree_with_all_that_ast_sees(codes: list[str]) -> None:
    for code in codes:
        graph = graphs.read(code, 5000)
        parents = Counter(child for _, child in edges(graph, "child"))
        assert set(parents.values()) == {1}
        assert set(range(len(graph.kinds))) - set(parents) == {0}  # one root
        made_of = Counter(NODE_KINDS[kind] for kind in graph.kinds)
        syntax = ast.parse(code)
        in_text = {id(part) for text in ast.walk(syntax) if isinstance(text, ast.JoinedStr) for part in ast.walk(text)}
        expected = Counter(
            type(node).__name__
            for node in ast.walk(syntax)
            if not isinstance(node, (ast.expr_context, ast.operator, ast.unaryop, ast.cmpop, ast.boolop, ast.JoinedStr))
            and id(node) not in in_text
        )
        for name in ("If", "Call", "Attribute", "FunctionDef", "Return", "Assign", "For", "arg", "keyword", "Compare"):
            assert made_of[name] >= expected[name], name
            if not in_text:
                assert made_of[name] == expected[name], name


def test_tokens_are_those_of_python(codes: list[str]) -> None:
    for code in codes:
        if sys.version_info >= (3, 12) and "f'" in code + code.replace('"', "'"):
            continue  # an f-string is one token here, several there
        real = [
            token.string for token in tokenize.generate_tokens(io.StringIO(code).readline) if token.type not in SPACE
        ]
        assert in_order(graphs.read(code, 5000)) == real


def test_a_node_knows_its_place_in_the_text(codes: list[str]) -> None:
    for code in [*codes, "\ufeffé = 'ü'\r\nf'''{é}\n'''; ñ = é\r"]:
        graph = graphs.read(code, 5000)
        text = graphs.normalised(code)
        for kind, name, (begin, end) in zip(graph.kinds, graph.texts, graph.spans, strict=True):
            if kind in TOKEN_KINDS:
                assert text[begin:end] == name
            elif NODE_KINDS[kind] == "Module":
                assert ast.dump(ast.parse(text[begin:end])) == ast.dump(ast.parse(text))


@pytest.mark.parametrize(
    ("code", "writes", "uses"),
    [
        ("a = 1\nb = a\na = b\n", {"a2 a1", "a3 a1", "b2 b1"}, {"a3 a2"}),
        # either branch, or none of the two
        (
            "def f(a, c):\n    if c:\n        a = 1\n    return a\n",
            {"c2 c1", "a2 a1", "a3 a1", "a3 a2"},
            set(),
        ),
        (
            "def f(c):\n    if c:\n        a = 1\n    else:\n        a = 2\n    return a\n",
            {"c2 c1", "a3 a1", "a3 a2"},
            set(),
        ),
        # around the loop, and past it
        (
            "def f(n):\n    while n:\n        n = n - 1\n    return n\n",
            {"n2 n1", "n2 n3", "n4 n1", "n4 n3", "n3 n1", "n3 n3", "n5 n1", "n5 n3"},
            {"n4 n2", "n3 n4", "n2 n4", "n5 n2"},
        ),
        ("for i in i:\n    pass\ni\n", {"i1 i1", "i3 i1"}, {"i1 i2", "i3 i2"}),
        # after a return comes nothing
        ("def f(a):\n    return a\n    a = 2\n    a\n", {"a2 a1", "a4 a3"}, set()),
        (
            "def f(a):\n    while True:\n        if a:\n            break\n    return a\n",
            {"a2 a1", "a3 a1"},
            {"a2 a2", "a3 a2"},
        ),
        # any statement of a try may fail
        (
            "def f():\n    a = 1\n    try:\n        a = 2\n        a = 3\n    except E:\n        return a\n",
            {"a2 a1", "a3 a2", "a4 a1", "a4 a2", "a4 a3"},
            set(),
        ),
        # scopes: the same name elsewhere is another variable
        ("def f(a):\n    return a\ndef g(a):\n    return a\n", {"a2 a1", "a4 a3"}, set()),
        ("a = 1\n[a for a in a]\na\n", {"a2 a3", "a4 a1", "a5 a1", "a3 a3"}, {"a5 a4", "a3 a2", "a2 a2"}),
        ("a = 0\ndef f():\n    global a\n    a = 1\na\n", {"a3 a1", "a4 a1", "a4 a3"}, set()),
        ("a = 1\na += a\n", {"a2 a1", "a3 a1"}, {"a3 a2"}),
    ],
)  # fmt: skip
def test_values_flow_as_they_can_in_a_run(code: str, writes: set[str], uses: set[str]) -> None:
    # In ``global a``, the name is neither read nor bound; it is counted all the same.
    assert flow(code, "last_write") == writes
    assert flow(code, "last_use") == uses


def test_a_wrong_variable_changes_the_graph() -> None:
    right = "def f(a, b):\n    c = a + b\n    return c\n"
    wrong = right.replace("return c", "return a")
    one, other = graphs.read(right, 100), graphs.read(wrong, 100)
    assert one.kinds == other.kinds
    assert edges(one, "child") == edges(other, "child")
    assert set(edges(one, "last_write")) != set(edges(other, "last_write"))


@pytest.mark.parametrize("most", [8, 20, 40, 200])
def test_a_graph_is_cut_at_its_limit(codes: list[str], most: int) -> None:
    for code in codes:
        whole, cut = graphs.read(code, 5000), graphs.read(code, most)
        assert len(cut.kinds) <= most
        assert cut.cut == (len(whole.kinds) > most)
        if not cut.cut:
            assert cut == whole
        if len(code) <= most * graphs.CHARACTERS_PER_NODE:
            assert in_order(cut) == in_order(whole)[: len(in_order(cut))]


def test_what_does_not_parse_is_its_tokens_and_says_why() -> None:
    graph = graphs.read("def f(:\n    return 1\n", 100)
    assert "line 1" in (graph.fault or "")
    assert in_order(graph) == ["def", "f", "(", ":", "return", "1"]
    assert {EDGE_KINDS[kind] for _, _, kind in graph.edges} == {"next_token", "previous_token"}
    assert graphs.read("x" + "(" * 5000 + ")" * 5000, 100).cut
    assert graphs.read("-" * 1000 + "1", 5000).fault == "nested too deeply"
    assert len(graphs.read("", 100).kinds) == 1


def test_a_limit_that_cuts_every_row_is_rejected() -> None:
    code = "def f(a, b):\n    return a + b\n"
    nodes = len(graphs.read(code, 100).kinds)
    graphs.require_nodes([code, code * 2], nodes)
    with pytest.raises(InputError, match=f"max_nodes = {nodes - 1}: .* {nodes} nodes"):
        graphs.require_nodes([code, code * 2], nodes - 1)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200) | st.text("ab=+:()[]{}\n\t \\'\"#f0.,@if", max_size=80))
def test_any_text_has_a_graph(code: str) -> None:
    graph = graphs.read(code, 60)
    assert 1 <= len(graph.kinds) <= 60
    assert graph == graphs.read(code, 60)
    chain = edges(graph, "next_token")
    assert all(one[1] == other[0] for one, other in itertools.pairwise(chain))


def test_tensors_of_a_graph() -> None:
    graph = graphs.read("def f(a):\n    return a\n", 100)
    data = graphs.to_data(graph, lambda text: [len(text), 7, 7, 7, 7, 7], label=1)
    nodes = len(graph.kinds)
    assert data.x.shape == (nodes, 1 + graphs.SUBTOKENS)
    assert data.x[:, 0].tolist() == graph.kinds
    named = [index for index, text in enumerate(graph.texts) if text]
    assert data.x[named, 1].tolist() == [len(graph.texts[index]) + 1 for index in named]
    assert data.x[0, 1:].tolist() == [0, 0, 0, 0]
    assert list(zip(*data.edge_index.tolist(), data.edge_type.tolist(), strict=True)) == graph.edges
    assert data.y.tolist() == [1]
