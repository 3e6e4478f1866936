"""Pickles that would call something, were they read without care."""

from __future__ import annotations


class Call:
    """Unpickles to the result of a call, with a state set where one is given."""

    def __init__(self, function: object, *arguments: object, state: object = None):
        self.call = (function, arguments, state)

    def __reduce__(self) -> object:
        return self.call
