"""Which statements of a connection have a name: the texts used last, up to a number; a text seen once has none yet.

Pure bookkeeping of what the server was told. It sends nothing and knows no connection.
"""

from __future__ import annotations

from collections import OrderedDict


class PreparedStatements:
    """Text -> name, the longest unused evicted first. `stale` are names to deallocate when there is an occasion."""

    __slots__ = ("_capacity", "_names", "_seen", "_serial", "stale")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._names: OrderedDict[str, bytes] = OrderedDict()
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._serial = 0
        self.stale: list[bytes] = []

    def __len__(self) -> int:
        return len(self._names)

    def name(self, text: str) -> bytes | None:
        """The name to execute the text by; None when it goes as text."""
        return self._names.get(text)

    def use(self, text: str) -> bytes | None:
        """Note a use; the name to prepare the text under when that is to be done now, else None."""
        if text in self._names:
            self._names.move_to_end(text)
            return None
        if text not in self._seen:
            # the first time may be the last: a search that nobody repeats would push out one that everybody does
            self._remember(text)
            return None
        del self._seen[text]
        if len(self._names) >= self._capacity:
            evicted, name = self._names.popitem(last=False)
            self._remember(evicted)
            self.stale.append(name)
        self._serial += 1
        name = self._names[text] = b"s%d" % self._serial
        return name

    def revoke(self, text: str, name: bytes) -> None:
        """The text could not be prepared under that name."""
        if self._names.get(text) == name:
            del self._names[text]

    def renew(self, text: str) -> bool:
        """Prepare the text afresh at its next use; False when it has no name."""
        name = self._names.pop(text, None)
        if name is None:
            return False
        self.stale.append(name)
        self._remember(text)
        return True

    def forget(self) -> None:
        """The server knows no name any more."""
        for text in self._names:
            self._remember(text)
        self._names.clear()
        self.stale.clear()

    def _remember(self, text: str) -> None:
        self._seen[text] = None
        if len(self._seen) > 4 * self._capacity:
            self._seen.popitem(last=False)
