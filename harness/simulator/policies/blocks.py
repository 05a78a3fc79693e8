"""vLLM's KV blocks: which are free, who holds them, and which full ones can be found again by their content.

vllm/v1/core/block_pool.py and kv_cache_manager.py of 0.32. Block 0 is the null block and never handed out. A block that
nobody holds is free even while its content can still be found; it is lost when the block is handed out again, the one
that was freed first before the others.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence


class BlockPool:
    """`blocks` blocks of `size` tokens, the null block included."""

    def __init__(self, blocks: int, size: int, *, caching: bool = True) -> None:
        self.size, self.caching = size, caching
        self.usable = blocks - 1
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(1, blocks))
        self._holders = [0] * blocks
        self._content: dict[int, int] = {}  # block -> hash of all tokens up to its end
        self._found: dict[int, int] = {}

    @property
    def free(self) -> int:
        return len(self._free)

    def needed(self, tokens: int) -> int:
        """Blocks for this many tokens."""
        return -(-tokens // self.size)

    def lookup(self, hashes: Sequence[int]) -> list[int]:
        """The blocks of the longest beginning that is cached."""
        found: list[int] = []
        for content in hashes:
            block = self._found.get(content)
            if block is None:
                break
            found.append(block)
        return found

    def unheld(self, blocks: Sequence[int]) -> int:
        """How many of these are free: to hold them takes them out of the free ones."""
        return sum(not self._holders[block] for block in blocks)

    def hold(self, blocks: Sequence[int]) -> None:
        """One more request holds these, which were found."""
        for block in blocks:
            if not self._holders[block]:
                del self._free[block]
            self._holders[block] += 1

    def allocate(self, count: int) -> list[int]:
        """New blocks, the longest free first; what was in them is lost. There must be as many."""
        taken = [self._free.popitem(last=False)[0] for _ in range(count)]
        for block in taken:
            self._holders[block] = 1
            self._forget(block)
        return taken

    def _forget(self, block: int) -> None:
        content = self._content.pop(block, None)
        if content is not None:
            del self._found[content]

    def remember(self, block: int, content: int) -> None:
        """This block is whole. Content that another block has already is not remembered twice."""
        if self.caching and content not in self._found:
            self._found[content] = block
            self._content[block] = content

    def release(self, blocks: Sequence[int]) -> None:
        """A request holds these no more. Its end is the first to be handed out again."""
        for block in reversed(blocks):
            self._holders[block] -= 1
            if not self._holders[block]:
                self._free[block] = None
                if block not in self._content:
                    self._free.move_to_end(block, last=False)


class Chain:
    """A request's blocks and the hashes of its whole blocks. held: in the order of its tokens."""

    __slots__ = ("hashes", "held", "remembered")

    def __init__(self) -> None:
        self.held: list[int] = []
        self.hashes: list[int] = []
        self.remembered = 0

    def extend(self, ids: Sequence[int], size: int) -> None:
        """Hash the whole blocks of these tokens, which come after those that are hashed already."""
        for at in range(0, len(ids) - size + 1, size):
            before = self.hashes[-1] if self.hashes else 0
            self.hashes.append(hash((before, tuple(ids[at : at + size]))))
