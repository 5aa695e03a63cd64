"""Whether an element fulfils the criteria of `where(...)`: FHIRPath by a library, within limits. FHIRPath 2.0 (N1).

The library parses leniently and evaluates everything, also what can take for ever (`matches`, `repeat`, nested
lambdas), so the text is parsed strictly here and only an agreed part of the language goes on to be evaluated.
Knows no document beyond the element it is given.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeAlias

from antlr4 import CommonTokenStream, InputStream, ParseTreeWalker
from antlr4.error.ErrorListener import ErrorListener
from fhirpathpy import apply_parsed_path
from fhirpathpy.engine.nodes import ResourceNode
from fhirpathpy.models import models
from fhirpathpy.parser.ASTPathListener import ASTPathListener
from fhirpathpy.parser.generated.FHIRPathLexer import FHIRPathLexer
from fhirpathpy.parser.generated.FHIRPathParser import FHIRPathParser

from fhir_sched.document import dumps
from fhir_sched.outcome import FhirError, Kind
from fhir_sched.patch.limits import Effort

MAX_CRITERIA = 200
MAX_SEARCHED = 16 * 1024
"""Bytes of JSON of one element that criteria are tried on."""
MAX_LAMBDAS = 4

Tree: TypeAlias = dict[str, Any]

_LAMBDAS = frozenset(("where", "exists", "all"))
_PLAIN_FUNCTIONS = """
    empty not count first last single extension ofType is as startsWith endsWith contains lower upper length
"""
_FUNCTIONS = _LAMBDAS | frozenset(_PLAIN_FUNCTIONS.split())
_NODES = """
    TermExpression InvocationTerm LiteralTerm ParenthesizedTerm MemberInvocation FunctionInvocation ThisInvocation
    InvocationExpression IndexerExpression EqualityExpression InequalityExpression AndExpression OrExpression
    XorExpression ImpliesExpression UnionExpression MembershipExpression TypeExpression TypeSpecifier
    QualifiedIdentifier Functn ParamList Identifier NullLiteral BooleanLiteral StringLiteral NumberLiteral
    DateTimeLiteral TimeLiteral
"""
_SYNTAX = frozenset(_NODES.split())


def fulfils(value: Any, type_name: str, criteria: str, effort: Effort) -> bool:
    """Whether the element's value fulfils the criteria.

    Raises 400 for what is no FHIRPath or outside of the part that is served, 422 where it can't be evaluated on this
    element, 413 when it takes too much.
    """
    if len(dumps(value)) > MAX_SEARCHED:
        raise FhirError(Kind.TOO_LONG, f"where(…) is tried on elements of at most {MAX_SEARCHED} bytes; use an index")
    effort.begin_search()
    try:
        tree = _metered(_tree(criteria), effort)
        return bool(apply_parsed_path(ResourceNode.create_node(value, type_name), tree, {}, models["r4"]))
    except FhirError:
        raise
    except Exception:  # noqa: BLE001 - the library raises plain Exceptions and whatever its operators stumble on
        raise FhirError(
            Kind.UNPROCESSABLE, f"where({criteria}) can't be evaluated on {type_name}: its operands do not fit"
        ) from None
    finally:
        effort.end_search()


class _Node(Tree):
    """A node of the tree that counts how often it is evaluated: the library asks for its type each time."""

    effort: Effort

    def __getitem__(self, key: str) -> Any:
        if key == "type":
            self.effort.tick()
        return super().__getitem__(key)


def _metered(tree: Tree, effort: Effort) -> Tree:
    node = _Node(tree)
    node.effort = effort
    if "children" in node:
        node["children"] = [_metered(child, effort) for child in tree["children"]]
    return node


@lru_cache(maxsize=256)
def _tree(criteria: str) -> Tree:
    """The syntax tree of `where(criteria)`, in which `$this` is the element."""
    if len(criteria) > MAX_CRITERIA:
        raise FhirError(Kind.VALUE, f"the criteria of where(…) may have {MAX_CRITERIA} characters")
    try:
        tree = _parsed(f"where({criteria})")
    except FhirError:
        raise
    except Exception:  # noqa: BLE001 - the lexer raises a bare Exception, a deep text RecursionError
        raise _malformed(criteria) from None
    _check(tree, criteria)
    return tree


def _parsed(text: str) -> Tree:
    refuse = _Refuse(text)
    lexer = FHIRPathLexer(InputStream(text))
    lexer.removeErrorListeners()
    lexer.addErrorListener(refuse)
    parser = FHIRPathParser(CommonTokenStream(lexer))
    parser.removeErrorListeners()
    parser.addErrorListener(refuse)
    listener = ASTPathListener()
    ParseTreeWalker().walk(listener, parser.entireExpression())
    (whole,) = listener.parentStack[0]["children"]
    if whole["children"][0]["type"] != "TermExpression":  # the criteria closed the parenthesis themselves
        raise _malformed(text[6:-1])
    return {"children": [whole["children"][0]]}


class _Refuse(ErrorListener):  # type: ignore[misc]  # the library has no types
    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def syntaxError(self, *_: Any) -> None:  # noqa: N802 - ANTLR's name
        raise _malformed(self._text[6:-1])


def _malformed(criteria: str) -> FhirError:
    return FhirError(Kind.VALUE, f"where({criteria[:MAX_CRITERIA]}) holds no FHIRPath criteria")


def _check(tree: Tree, criteria: str) -> None:
    """Raises 400 where the tree has what is not served: other functions, variables, arithmetic, deep lambdas."""
    waiting = [(child, 0) for child in tree["children"]]
    lambdas = 0
    while waiting:
        node, depth = waiting.pop()
        kind = node["type"]
        if kind not in _SYNTAX:
            raise _unserved(criteria, f"{kind} is not served there")
        if kind == "Functn":
            name = node["children"][0]["text"].strip("`")
            if name not in _FUNCTIONS:
                raise _unserved(criteria, f"{name}() is not served there; use {', '.join(sorted(_FUNCTIONS))}")
            if name in _LAMBDAS and len(node["children"]) > 1:
                lambdas, depth = lambdas + 1, depth + 1
        if depth > 2 or lambdas > MAX_LAMBDAS + 1:  # the outer where is one of them
            raise _unserved(criteria, f"where, exists and all may stand in it {MAX_LAMBDAS} times, not in one another")
        waiting.extend((child, depth) for child in node.get("children", ()))


def _unserved(criteria: str, why: str) -> FhirError:
    return FhirError(Kind.NOT_SUPPORTED, f"where({criteria}): {why}")
