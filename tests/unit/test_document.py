"""What bodies are JSON for this server, and that nothing else than a refusal comes of the rest."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fhir_sched import document
from fhir_sched.outcome import FhirError, Kind

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def nested(levels: int) -> bytes:
    return b'{"a":' * (levels - 1) + b"{}" + b"}" * (levels - 1)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "empty"),
        (b" \r\n", "empty"),
        (b"\xff{}", "not UTF-8"),
        ('{"a":1}'.encode("utf-16"), "not UTF-8"),
        (b"{", "not JSON"),
        (b'{"a":1} x', "not JSON"),
        (b"{'a':1}", "not JSON"),
        (b'{"a":1,}', "not JSON"),
        (b'{"a":01}', "not JSON"),
        (b'{"a":"\x00"}', "not JSON"),
        (b'{"a":"\n"}', "not JSON"),
        (b"[]", "object"),
        (b'"text"', "object"),
        (b"null", "object"),
        (b'{"a":1,"b":{"c":1,"c":1}}', "'c' more than once"),
        (b'{"a":1,"\\u0061":2}', "'a' more than once"),
        (b'{"a":NaN}', "NaN"),
        (b'{"a":-Infinity}', "Infinity"),
        (b'{"a":"\\u0000"}', "control character"),
        (b'{"a":["\\b"]}', "control character"),
        (b'{"\\u001f":1}', "control character"),
        (b'{"a":"\\ud800"}', "surrogate"),
        (b'{"a":"\\udc00\\ud800"}', "surrogate"),
        (b'{"a":' + b"1" * 5000 + b"}", "64 digits"),
        (b'{"a":0.' + b"1" * 5000 + b"}", "64 digits"),
        (b'{"a":1e65}', "64 digits"),
        (b'{"a":0e999999999999999999999999}', "64 digits"),
        (b'{"a":1e-999999999999999999999999}', "64 digits"),
        (nested(65), "64 levels"),
        (b"[" * 100_000, "64 levels"),
    ],
    ids=lambda value: ascii(value[:40]),
)
def test_a_body_that_is_no_strict_json_is_refused_with_a_sentence(body: bytes, sentence: str) -> None:
    with pytest.raises(FhirError, match=sentence) as refused:
        document.parse(body)
    assert refused.value.status == 400
    assert refused.value.issues[0].kind is Kind.STRUCTURE


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b"\xef\xbb\xbf{}", {}),
        (b'{"a":1.10}', {"a": Decimal("1.10")}),
        (b'{"a":-7}', {"a": -7}),
        (b'{"a":12345678901234567890}', {"a": Decimal("12345678901234567890")}),
        (b'{"a":"\\ud83d\\ude00 \\t\\r\\n"}', {"a": "\U0001f600 \t\r\n"}),
        (b'{"a":"[[[[{{{{\\"]]"}', {"a": '[[[[{{{{"]]'}),
        (b'{"a":{"b":1},"c":{"b":1}}', {"a": {"b": 1}, "c": {"b": 1}}),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_strict_json_is_read_as_it_is_written(body: bytes, value: dict[str, Any]) -> None:
    assert document.parse(body) == value


def test_brackets_in_texts_do_not_count_as_levels() -> None:
    body = json.dumps({"a": "[{" * 1000, "b": '\\"[' * 1000}).encode()
    assert document.parse(body)["a"] == "[{" * 1000
    assert document.parse(nested(64))


def test_decimals_come_back_with_their_digits() -> None:
    body = b'{"a":1.10,"b":[0.0,-0.50,100000000000000000000000.1],"c":"1.10"}'
    assert document.dumps(document.parse(body)) == body


def test_names_keep_their_order() -> None:
    assert document.dumps(document.parse(b'{"b":1,"a":2,"c":{"z":1,"y":2}}')) == b'{"b":1,"a":2,"c":{"z":1,"y":2}}'


@pytest.mark.parametrize("value", [Decimal("NaN"), Decimal("Infinity"), {1, 2}, object()])
def test_what_json_cannot_hold_is_not_written(value: Any) -> None:
    with pytest.raises(TypeError):
        document.dumps({"a": value})


@pytest.mark.parametrize(
    "body",
    [
        b'"' + b'\\"' * 1_000_000,
        b'{"a":"' + b'\\"' * 1_000_000 + b'"}',
        b"\\" * 2_000_000 + b"[" * 70,
        b'"x[[[[[' * 300_000,
        b'{"a":[' + b"1," * 500_000,
        b'{"a":[' + b'{"a":"\\u0041"},' * 100_000 + b"1]}",
        b'{"a":1' + b',"a":1' * 200_000 + b"}",
    ],
    ids=lambda body: ascii(body[:12]),
)
def test_large_hostile_bodies_are_read_or_refused(body: bytes) -> None:
    read(body)  # whatever took quadratic time here would never come back


@given(st.binary())
@example(b'{"a":\xed\xa0\x80}')
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    read(body)


@given(st.text(alphabet='{}[]":,\\u0123456789dDeE.+-naftrusl \t\n', max_size=60))
def test_any_text_that_looks_like_json_is_read_or_refused(text: str) -> None:
    read(text.encode())


@given(st.dictionaries(st.text(), JSON))
def test_what_was_written_is_read_back_the_same(value: dict[str, Any]) -> None:
    read_back = read(json.dumps(value).encode())
    if read_back is not None:
        assert json.loads(document.dumps(read_back)) == value


def read(body: bytes) -> dict[str, Any] | None:
    try:
        return document.parse(body)
    except FhirError as refused:
        assert refused.status == 400  # noqa: PT017 - one of two outcomes
        return None
