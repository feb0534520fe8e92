"""Request bodies that break what reads them, as data: every route with a body is tried with each.

``CASES`` are refused before any handler, so their statuses hold for every route. ``MERELY_ODD`` are well-formed: they
reach the handler, which answers as its schema says, and never with a 500.
"""

from __future__ import annotations

from typing import NamedTuple

JSON = "application/json"


class Case(NamedTuple):
    """``statuses`` are the ones allowed. ``headers`` beside Content-Type."""

    name: str
    body: bytes
    statuses: frozenset[int]
    content_type: str | None = JSON
    headers: tuple[tuple[str, str], ...] = ()


def _nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def _nested_objects(depth: int) -> bytes:
    return b'{"a":' * (depth - 1) + b"{}" + b"}" * (depth - 1)


def _malformed(name: str, body: bytes) -> Case:
    return Case(name, body, frozenset({400}))


def _unsupported(name: str, content_type: str | None, *headers: tuple[str, str], body: bytes = b"{}") -> Case:
    return Case(name, body, frozenset({415}), content_type, headers)


CASES: tuple[Case, ...] = (
    # syntax
    _malformed("not JSON", b"hello"),
    _malformed("white space only", b" \r\n\t "),
    _malformed("unfinished object", b'{"name":'),
    _malformed("unfinished string", b'{"name":"a'),
    _malformed("trailing comma", b'{"name":"a",}'),
    _malformed("two values", b"{}{}"),
    _malformed("text after the value", b"{} x"),
    _malformed("single quotes", b"{'name':'a'}"),
    _malformed("unquoted key", b'{name:"a"}'),
    _malformed("comment", b'{/* */"name":"a"}'),
    _malformed("leading zero", b'{"n":01}'),
    _malformed("plus sign", b'{"n":+1}'),
    _malformed("hexadecimal", b'{"n":0x10}'),
    _malformed("no digit after the point", b'{"n":1.}'),
    _malformed("raw newline in a string", b'{"name":"a\nb"}'),
    _malformed("unknown escape", b'{"name":"\\x41"}'),
    _malformed("JSON lines", b'{"a":1}\n{"a":2}'),
    # numbers
    _malformed("NaN", b'{"n":NaN}'),
    _malformed("Infinity", b'{"n":Infinity}'),
    _malformed("minus Infinity", b'{"n":-Infinity}'),
    _malformed("float overflow", b'{"n":1e999}'),
    _malformed("negative float overflow", b'{"n":-1e309}'),
    _malformed("int64 and one", b'{"n":9223372036854775808}'),
    _malformed("minus int64 and one", b'{"n":-9223372036854775809}'),
    _malformed("uint64", b'{"n":18446744073709551615}'),
    _malformed("uint64 and one", b'{"n":18446744073709551616}'),
    _malformed("300 digits", b'{"n":' + b"1" * 300 + b"}"),
    _malformed("5000 digits", b'{"n":' + b"1" * 5000 + b"}"),
    _malformed("huge integer deep inside", b'{"a":[{"b":"c:d","n":[9223372036854775808]}]}'),
    # duplicate keys
    _malformed("duplicate key", b'{"name":"a","name":"b"}'),
    _malformed("duplicate key, same value", b'{"name":"a","name":"a"}'),
    _malformed("duplicate key, one escaped", b'{"name":"a","\\u006eame":"b"}'),
    _malformed("duplicate key, nested", b'{"a":{"b":1,"b":2}}'),
    _malformed("duplicate key in an array", b'[{"b":1,"b":2}]'),
    _malformed("duplicate key beside a colon in text", b'{"a":"x:y","a":1}'),
    _malformed("duplicate empty key", b'{"":1,"":2}'),
    # text
    _malformed("lone high surrogate", b'{"name":"\\ud800"}'),
    _malformed("lone low surrogate", b'{"name":"\\udc00"}'),
    _malformed("surrogates in the wrong order", b'{"name":"\\udc00\\ud800"}'),
    _malformed("lone surrogate in a key", b'{"\\ud800":1}'),
    _malformed("lone surrogate as raw bytes", b'{"name":"\xed\xa0\x80"}'),
    _malformed("escaped NUL", b'{"name":"a\\u0000b"}'),
    _malformed("escaped NUL in a key", b'{"a\\u0000b":1}'),
    _malformed("escaped NUL after a backslash", b'{"name":"\\\\\\u0000"}'),
    _malformed("raw NUL", b'{"name":"a\x00b"}'),
    _malformed("NUL after the value", b"{}\x00"),
    # encodings
    _malformed("BOM", b"\xef\xbb\xbf{}"),
    _malformed("UTF-16 with BOM", '{"name":"a"}'.encode("utf-16")),
    _malformed("UTF-16 without BOM", '{"name":"a"}'.encode("utf-16-le")),
    _malformed("UTF-32", '{"name":"a"}'.encode("utf-32")),
    _malformed("latin-1", b'{"name":"\xe9"}'),
    _malformed("overlong UTF-8", b'{"name":"\xc0\xaf"}'),
    _malformed("truncated UTF-8", b'{"name":"\xe2\x82"}'),
    _malformed("gzip without saying so", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03"),
    # structure
    _malformed("33 arrays deep", _nested(33)),
    _malformed("33 objects deep", _nested_objects(33)),
    _malformed("200 deep", _nested(200)),
    _malformed("900 deep", _nested(900)),
    _malformed("5000 deep", _nested(5000)),
    _malformed("100,000 deep", _nested(100_000)),
    _malformed("100,000 deep, never closed", b"[" * 100_000),
    _malformed("10,001 items", b"[" + b",".join([b"1"] * 10_001) + b"]"),
    _malformed("10,001 members", b"{" + b",".join(b'"k%d":1' % n for n in range(10_001)) + b"}"),
    _malformed("10,001 spread", b"[" + b",".join([b"[" + b",".join([b"1"] * 100) + b"]"] * 100) + b"]"),
    # content types and encodings
    _unsupported("no content type", None),
    _unsupported("form", "application/x-www-form-urlencoded", body=b"name=a"),
    _unsupported("multipart", "multipart/form-data; boundary=x"),
    _unsupported("text", "text/plain"),
    _unsupported("merge patch", "application/merge-patch+json"),
    _unsupported("JSON patch", "application/json-patch+json", body=b'[{"op":"replace","path":"/owner","value":"b"}]'),
    _unsupported("JSON by suffix", "application/vnd.api+json"),
    _unsupported("almost JSON", "application/jsonx"),
    _unsupported("two types", "application/json, text/plain"),
    _unsupported("UTF-16 charset", "application/json; charset=utf-16"),
    _unsupported("UTF-7 charset", "application/json; charset=utf-7"),
    _unsupported("quoted UTF-7 charset", 'application/json; charset="utf-7"'),
    _unsupported("two charsets", "application/json; charset=utf-8; charset=utf-7"),
    _unsupported("gzip", JSON, ("Content-Encoding", "gzip")),
    _unsupported("deflate", JSON, ("Content-Encoding", "deflate")),
    _unsupported("identity, gzip", JSON, ("Content-Encoding", "identity, gzip")),
    # size
    Case("larger than 1 MiB", b'{"name":"' + b"a" * 1_048_576 + b'"}', frozenset({413})),
    Case("larger than 1 MiB and not JSON", b"a" * 1_048_577, frozenset({413})),
)

WITH_RECORDS = frozenset(
    {
        *("33 arrays deep", "33 objects deep", "10,001 items", "10,001 members", "10,001 spread"),
        *("larger than 1 MiB", "larger than 1 MiB and not JSON"),
    }
)
"""Cases that are within the limits of routes whose bodies carry records: read there, and refused for what they say."""

LARGE_CASES: tuple[Case, ...] = (
    _malformed("36 arrays deep", _nested(36)),
    _malformed("100,001 items", b"[" + b",".join([b"1"] * 100_001) + b"]"),
    _malformed("100,001 members", b"{" + b",".join(b'"%x":1' % n for n in range(100_001)) + b"}"),
    Case("larger than a record", b'{"data":{"a":"' + b"a" * (1_048_576 + 65_536) + b'"}}', frozenset({413})),
    Case("larger than a record and not JSON", b"a" * (1_048_577 + 65_536), frozenset({413})),
)
"""What is beyond the limits of those routes."""

MERELY_ODD: tuple[tuple[str, bytes], ...] = (
    ("null", b"null"),
    ("true", b"true"),
    ("number", b"1"),
    ("text", b'"name"'),
    ("empty array", b"[]"),
    ("empty object", b"{}"),
    ("white space around", b" \r\n\t{} \n"),
    ("32 deep", _nested(32)),
    ("10,000 items", b"[" + b",".join([b"1"] * 10_000) + b"]"),
    ("largest int64", b'{"n":9223372036854775807}'),
    ("smallest int64", b'{"n":-9223372036854775808}'),
    ("minus zero", b'{"n":-0}'),
    ("smallest double", b'{"n":5e-324}'),
    ("underflow", b'{"n":1e-999}'),
    ("long fraction", b'{"n":0.1234567890123456789012345678901234567890}'),
    ("long digits in text", b'{"n":"99999999999999999999999999999999999999"}'),
    ("escaped backslash before u0000", b'{"name":"\\\\u0000"}'),
    ("colons, braces and quotes in text", b'{"a:{[":"\\":{[,:","b":"\\\\"}'),
    ("emoji as escapes", b'{"name":"\\ud83d\\ude00"}'),
    ("emoji", '{"name":"😀"}'.encode()),
    ("__proto__", b'{"__proto__":{"role":"owner"},"constructor":1}'),
    ("operators", b'{"email":{"$ne":null},"password":{"$gt":""}}'),
    ("empty key", b'{"":1}'),
    ("long key", b'{"' + b"k" * 10_000 + b'":1}'),
)
"""(name, body), sent as application/json."""
