"""SGLang's token pool: tokens that are free, held by requests, or kept by the radix tree for later requests.

srt/mem_cache/radix_cache.py of 0.5.23. Only how many tokens are where is kept, not which.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from harness.simulator.kv_cache import RadixTrie, _Node


class TokenTree(RadixTrie):
    """Prompts and answers by their common beginnings. A path that somebody holds is locked down to the root."""

    def __init__(self, page: int) -> None:
        super().__init__(page)
        self._page = page
        self._locks: dict[_Node, int] = {}
        self.locked = 0  # tokens

    @property
    def tokens(self) -> int:
        return self.blocks * self._page

    @property
    def evictable(self) -> int:
        return self.tokens - self.locked

    def match(self, ids: Sequence[int]) -> tuple[_Node, int]:
        """The node that ends where the longest cached beginning ends, and its length in tokens."""
        node, pages = self.find(ids)
        return self.split_after(node, len(pages)), len(pages) * self._page

    def keep(self, ids: Sequence[int]) -> tuple[_Node, int]:
        """Remember these, in whole pages: the node that they end in, and how many of them were there already."""
        whole = len(ids) // self._page
        known = self.insert(ids[: whole * self._page], array("i", bytes(4 * whole))) if whole else 0
        return self.match(ids)[0], known

    def lock(self, node: _Node) -> None:
        self.pin(node)
        while node is not self.root:
            if not self._locks.get(node):
                self.locked += len(node.key)
            self._locks[node] = self._locks.get(node, 0) + 1
            assert node.parent is not None
            node = node.parent

    def unlock(self, node: _Node) -> None:
        self.unpin(node)
        while node is not self.root:
            self._locks[node] -= 1
            if not self._locks[node]:
                del self._locks[node]
                self.locked -= len(node.key)
            assert node.parent is not None
            node = node.parent

    def _split(self, node: _Node, length: int) -> _Node:
        head = super()._split(node, length)
        if node in self._locks:
            self._locks[head] = self._locks[node]
        return head


class TokenPool:
    """All tokens of the pool. own: tokens that each request holds beside those of the tree."""

    def __init__(self, tokens: int, page: int, *, caching: bool = True) -> None:
        self.tokens, self.page, self.caching = tokens // page * page, page, caching
        self.tree = TokenTree(page)
        self.free = self.tokens

    @property
    def available(self) -> int:
        """Free now, or after everything is evicted that nobody holds."""
        return self.free + self.tree.evictable

    @property
    def used(self) -> int:
        """Held by requests, the tree's locked tokens among them."""
        return self.tokens - self.available

    def make_room(self, tokens: int) -> bool:
        """Evict until this many are free; False where that is not enough."""
        missing = tokens - self.free
        if missing > 0:
            self.free += len(self.tree.evict(-(-missing // self.page))) * self.page
        return self.free >= tokens

    def take(self, tokens: int) -> None:
        """There must be as many free."""
        assert self.free >= tokens, (self.free, tokens)
        self.free -= tokens

    def give(self, tokens: int) -> None:
        self.free += tokens
