"""What happens to files: bytes flip, texts break off, fields swap, numbers explode."""

from __future__ import annotations

import re
from collections.abc import Callable

from hypothesis import strategies as st

Mutation = Callable[[bytes], bytes]

TOKEN = re.compile(rb"[^\s,:\[\]{}\"]+")
"""A field of a text, whatever it is separated by."""

ODD_TOKENS = (
    *(b"", b"nan", b"-inf", b"1e999", b"-1", b"0", b"1.5", b"99999999999999999999"),
    *(b"-9223372036854775809", b"2147483648", b"x", b"../x", b"/", b"\xff", b"\xc3"),
    *(b"null", b"[]", b"{}", b"\x00", b"a, b", b"\r", b"\xe2\x80\xa8"),
)

ODD_NUMBERS = (
    *(b"\xff\xff\xff\xff", b"\x00\x00\x00\x80", b"\xff\xff\xff\x7f", bytes(4)),
    *(b"\xff" * 8, b"\xff" * 7 + b"\x7f", bytes(7) + b"\x80", bytes(8)),
    *(b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f", bytes(6) + b"\xf8\x7f", b"\x01"),
)
"""Integers at their limits, NaN and infinity, as little-endian bytes."""


def _place(share: float, data: bytes) -> int:
    return int(share * len(data))


def _flip(share: float, bit: int) -> Mutation:
    def flip(data: bytes) -> bytes:
        i = _place(share, data)
        return data[:i] + bytes(b ^ (1 << bit) for b in data[i : i + 1]) + data[i + 1 :]

    return flip


def _overwrite(share: float, found: bytes) -> Mutation:
    def overwrite(data: bytes) -> bytes:
        i = _place(share, data)
        return data[:i] + found + data[i + len(found) :]

    return overwrite


def _insert(share: float, found: bytes) -> Mutation:
    def insert(data: bytes) -> bytes:
        return data[: _place(share, data)] + found + data[_place(share, data) :]

    return insert


def _cut(first: float, second: float) -> Mutation:
    def cut(data: bytes) -> bytes:
        start, end = sorted((_place(first, data), _place(second, data)))
        return data[:start] + data[end:]

    return cut


def _truncate(share: float) -> Mutation:
    return lambda data: data[: _place(share, data)]


def _replace_token(share: float, token: bytes) -> Mutation:
    def replace(data: bytes) -> bytes:
        fields = list(TOKEN.finditer(data))
        if not fields:
            return data
        field = fields[int(share * len(fields))]
        return data[: field.start()] + token + data[field.end() :]

    return replace


def _swap_tokens(first: float, second: float) -> Mutation:
    def swap(data: bytes) -> bytes:
        fields = list(TOKEN.finditer(data))
        if not fields:
            return data
        a, b = sorted((int(share * len(fields)) for share in (first, second)))
        one, other = fields[a], fields[b]
        if a == b:
            return data
        middle = data[one.end() : other.start()]
        head, tail = data[: one.start()], data[other.end() :]
        return head + other.group() + middle + one.group() + tail

    return swap


SHARES = st.floats(0, 1, exclude_max=True)
MUTATIONS = st.lists(
    st.one_of(
        st.builds(_flip, SHARES, st.integers(0, 7)),
        st.builds(_overwrite, SHARES, st.sampled_from(ODD_NUMBERS)),
        st.builds(_insert, SHARES, st.binary(min_size=1, max_size=8)),
        st.builds(_cut, SHARES, SHARES),
        st.builds(_truncate, SHARES),
        st.builds(_replace_token, SHARES, st.sampled_from(ODD_TOKENS)),
        st.builds(_swap_tokens, SHARES, SHARES),
    ),
    min_size=1,
    max_size=3,
)


def mutated(data: bytes, mutations: list[Mutation]) -> bytes:
    """All mutations, one after another."""
    for mutate in mutations:
        data = mutate(data)
    return data
