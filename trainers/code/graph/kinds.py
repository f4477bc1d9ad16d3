"""What a program graph is made of: the kinds of its nodes and of its edges."""

from __future__ import annotations

EDGE_KINDS = (
    "child", "parent", "next_token", "previous_token", "last_use", "next_use", "last_write", "next_write",
)  # fmt: skip
"""An even one is followed by its reverse."""

NODE_KINDS = (
    # What no entry below names.
    "other",
    # Tokens. A name is one that is read as a variable, one that is bound, or another one (an attribute, say).
    "name", "read", "write", "reserved word", "operator", "number", "string",
    # Syntax nodes of every Python from 3.10 to 3.14.
    "Module",
    "FunctionDef", "AsyncFunctionDef", "ClassDef", "Return", "Delete", "Assign", "TypeAlias", "AugAssign",
    "AnnAssign", "For", "AsyncFor", "While", "If", "With", "AsyncWith", "Match", "Raise", "Try", "TryStar",
    "Assert", "Import", "ImportFrom", "Global", "Nonlocal", "Expr", "Pass", "Break", "Continue",
    "BoolOp", "NamedExpr", "BinOp", "UnaryOp", "Lambda", "IfExp", "Dict", "Set", "ListComp", "SetComp",
    "DictComp", "GeneratorExp", "Await", "Yield", "YieldFrom", "Compare", "Call", "FormattedValue",
    "Interpolation", "JoinedStr", "TemplateStr", "Constant", "Attribute", "Subscript", "Starred", "Name", "List",
    "Tuple", "Slice",
    "comprehension", "ExceptHandler", "arguments", "arg", "keyword", "alias", "withitem", "match_case",
    "MatchValue", "MatchSingleton", "MatchSequence", "MatchMapping", "MatchClass", "MatchStar", "MatchAs",
    "MatchOr",
    "TypeVar", "ParamSpec", "TypeVarTuple",
)  # fmt: skip
"""The same on every Python, so that weights trained on one fit on another."""

OTHER, NAME, READ, WRITE, KEYWORD, OPERATOR, NUMBER, STRING = range(8)
CHILD, NEXT_TOKEN, LAST_USE, LAST_WRITE = 0, 2, 4, 6
