"""Blocks of TGI's KV cache: which are free, which a request holds, and which prompts stay cached.

Behaviour of TGI's v3 router (backends/v3/src/block_allocator.rs and radix.rs of TGI 3.3.7). Block 0 is reserved for
health checks and never handed out. With prefix caching a trie remembers prompts (never generated text) with their
blocks; what is cached is not free, but can be evicted: least recently used leaves first, a larger leaf only in part.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    Blocks = array[int]


@dataclass(slots=True, eq=False)
class Allocation:
    """Blocks that one request holds. cached_tokens: prompt tokens found in the prefix cache, in whole blocks.

    prompt: what is inserted into the cache at release; None for a request that does not take part.
    """

    blocks: Blocks
    cached_tokens: int = 0
    prompt: Sequence[int] | None = None
    node: _Node | None = None


class BlockAllocator(Protocol):
    """What the scheduler asks of either allocator."""

    def allocate(self, tokens: int, prompt: Sequence[int] | None) -> Allocation | None:
        """Blocks for `tokens` slots, or None when there are too few. prompt: None bypasses the prefix cache."""
        ...

    def free(self, allocation: Allocation, *, computed: bool = True) -> None:
        """Give the blocks back. computed: the prompt's KV was computed, so that it may be cached."""
        ...

    @property
    def free_blocks(self) -> int: ...

    @property
    def cached_blocks(self) -> int: ...


class StackAllocator:
    """Without prefix cache: a stack of free blocks, last in first out."""

    def __init__(self, blocks: int, block_size: int) -> None:
        self.block_size = block_size
        self._free = array("i", range(1, blocks))

    def free_list(self) -> Sequence[int]:
        """Blocks that can be had at once, the next one last."""
        return self._free

    @property
    def free_blocks(self) -> int:
        return len(self._free)

    @property
    def cached_blocks(self) -> int:
        return 0

    def allocate(self, tokens: int, prompt: Sequence[int] | None) -> Allocation | None:
        needed = -(-tokens // self.block_size)
        if needed > len(self._free):
            return None
        return Allocation(_pop_tail(self._free, needed))

    def free(self, allocation: Allocation, *, computed: bool = True) -> None:
        self._free += allocation.blocks


def _pop_tail(stack: Blocks, count: int) -> Blocks:
    at = len(stack) - count
    tail = stack[at:]
    del stack[at:]
    return tail


class RadixAllocator:
    """With prefix cache. pin_whole_node: keep a fault of TGI, see `allocate`."""

    def __init__(self, blocks: int, block_size: int, *, pin_whole_node: bool = True) -> None:
        self.block_size = block_size
        self._free = array("i", range(1, blocks))
        self.trie = RadixTrie(block_size)
        self._pin_whole_node = pin_whole_node
        self.last_lookup = (0, 0)

    def free_list(self) -> Sequence[int]:
        """Blocks that can be had without evicting any, the next one last."""
        return self._free

    @property
    def free_blocks(self) -> int:
        return len(self._free)

    @property
    def cached_blocks(self) -> int:
        """Blocks that the trie holds, whether evictable or in use by requests."""
        return self.trie.blocks

    def allocate(self, tokens: int, prompt: Sequence[int] | None) -> Allocation | None:
        """Blocks for `tokens` slots: the longest cached prefix of `prompt`, and for the rest free or evicted ones.

        TGI pins the node in which that prefix ends, whole, even if only its first token matches. A request that could
        only be served by evicting the rest of that node then waits for ever: nothing runs, so nothing changes. With
        pin_whole_node off, the node is split where the prefix ends and only the matched part is pinned.
        """
        node, prefix = self.trie.find(prompt) if prompt is not None else (self.trie.root, array("i"))
        if not self._pin_whole_node:
            node = self.trie.split_after(node, len(prefix))
        self.trie.pin(node)
        cached = len(prefix) * self.block_size
        self.last_lookup = (cached, tokens - cached)
        rest = self._take(-(-(tokens - cached) // self.block_size))
        if rest is None:
            self.trie.unpin(node)
            return None
        return Allocation(prefix + rest, cached, prompt, node)

    def _take(self, needed: int) -> Blocks | None:
        if len(self._free) < needed:
            # What was evicted stays free even if it was not enough, as in TGI.
            self._free += self.trie.evict(needed - len(self._free))
        return _pop_tail(self._free, needed) if len(self._free) >= needed else None

    def free(self, allocation: Allocation, *, computed: bool = True) -> None:
        """Cache the prompt's whole blocks and free the rest, with the blocks of what someone else cached meanwhile."""
        blocks, prompt, cached = allocation.blocks, allocation.prompt, allocation.cached_tokens
        self.trie.unpin(allocation.node or self.trie.root)
        if prompt is None:
            self._free += blocks
            return
        size = self.block_size
        if not computed:
            self._free += blocks[cached // size :]
            return
        whole = len(prompt) // size
        if len(prompt) > cached and whole:
            known = self.trie.insert(prompt[: whole * size], blocks[:whole])
            if known > cached:
                self._free += blocks[cached // size : known // size]
        self._free += blocks[whole:]


class _Node:
    """A run of tokens with its blocks. pins: its children, plus the requests whose prefix ends here."""

    __slots__ = ("blocks", "children", "id", "key", "last_access", "parent", "pins")

    def __init__(self, id: int, key: list[int], blocks: Blocks, last_access: int, parent: _Node | None) -> None:
        self.id, self.key, self.blocks = id, key, blocks
        self.last_access, self.parent, self.pins = last_access, parent, 0
        self.children: dict[int | tuple[int, ...], _Node] = {}


class RadixTrie:
    """Prompts by their common beginnings, in whole blocks.

    Time is a counter that each lookup and each insertion advances. Leaves that nobody pins are evicted in the order of
    their last access, then of their number; numbers are handed out again, last freed first.
    """

    def __init__(self, block_size: int) -> None:
        self._block_size = block_size
        self._time = 0
        self._unused_ids: list[int] = []
        self._last_id = 1
        self.root = _Node(1, [], array("i"), 0, None)
        self.blocks = 0
        # Evictable leaves, as a heap with stale entries: one counts only while its node is a leaf of that access time.
        self._heap: list[tuple[int, int, _Node]] = []
        self._leaves: set[_Node] = set()

    def find(self, key: Sequence[int]) -> tuple[_Node, Blocks]:
        """The node in which the longest cached prefix of `key` ends, and that prefix's blocks."""
        self._time += 1
        node, blocks, at, size = self.root, array("i"), 0, self._block_size
        while len(key) - at >= size:
            child = node.children.get(self._first(key, at))
            if child is None:
                break
            self._touch(child)
            shared = self._shared(child.key, key, at)
            blocks += child.blocks[: shared // size]
            node, at = child, at + shared
            if shared < len(child.key):
                break
        return node, blocks

    def all_blocks(self) -> list[int]:
        """Every block that it holds."""
        found: list[int] = []
        nodes = [self.root]
        while nodes:
            node = nodes.pop()
            found += node.blocks
            nodes += node.children.values()
        return found

    def split_after(self, node: _Node, prefix_blocks: int) -> _Node:
        """The node that ends exactly after `prefix_blocks` blocks from the root, made by a split if need be."""
        above, each = 0, node.parent
        while each is not None:
            above, each = above + len(each.blocks), each.parent
        kept = prefix_blocks - above
        if node is self.root or kept == len(node.blocks):
            return node
        return self._split(node, kept * self._block_size)

    def pin(self, node: _Node) -> None:
        if node is self.root:
            return
        if node.pins == 0:
            self._leaves.discard(node)
        node.pins += 1

    def unpin(self, node: _Node) -> None:
        if node is self.root:
            return
        node.pins -= 1
        if node.pins == 0:
            self._add_leaf(node)

    def evict(self, needed: int) -> Blocks:
        """Up to `needed` blocks of unpinned leaves, fewer when there are no more."""
        evicted = array("i")
        while len(evicted) < needed:
            node = self._oldest_leaf()
            if node is None:
                break
            missing = needed - len(evicted)
            if missing >= len(node.blocks):
                evicted += node.blocks
                self._remove(node)
            else:
                kept = len(node.blocks) - missing
                evicted += node.blocks[kept:]
                del node.blocks[kept:], node.key[kept * self._block_size :]
                self.blocks -= missing
        return evicted

    def insert(self, key: Sequence[int], blocks: Blocks) -> int:
        """Remember `key` with its blocks; how many of its tokens were known already, whose blocks stay as they were."""
        self._time += 1
        node, at, size = self.root, 0, self._block_size
        while at < len(key):
            child = node.children.get(self._first(key, at))
            if child is None:
                self._add(node, list(key[at:]), blocks[at // size :])
                return at
            self._touch(child)
            shared = self._shared(child.key, key, at)
            at += shared
            if at == len(key):
                break
            node = child if shared == len(child.key) else self._split(child, shared)
        return at

    def _first(self, key: Sequence[int], at: int) -> int | tuple[int, ...]:
        return key[at] if self._block_size == 1 else tuple(key[at : at + self._block_size])

    def _shared(self, node_key: list[int], key: Sequence[int], at: int) -> int:
        """Length of the common prefix of a node's key and key[at:], in whole blocks."""
        count, step, limit = 0, 16, min(len(node_key), len(key) - at)
        while count < limit:
            end = min(count + step, limit)
            if node_key[count:end] != list(key[at + count : at + end]):
                while node_key[count] == key[at + count]:
                    count += 1
                break
            count, step = end, step * 4
        return count // self._block_size * self._block_size

    def _add(self, parent: _Node, key: list[int], blocks: Blocks) -> _Node:
        node = _Node(self._new_id(), key, blocks, self._time, parent)
        self.blocks += len(blocks)
        self._link(parent, node)
        self._add_leaf(node)
        return node

    def _link(self, parent: _Node, child: _Node) -> None:
        first = self._first(child.key, 0)
        if first not in parent.children:
            self.pin(parent)
        parent.children[first] = child
        child.parent = parent

    def _split(self, node: _Node, length: int) -> _Node:
        """A new parent takes the first `length` tokens; the node keeps the rest, its number and its pins."""
        head_key, head_blocks = node.key[:length], node.blocks[: length // self._block_size]
        node.key, node.blocks = node.key[length:], node.blocks[length // self._block_size :]
        self.blocks -= len(head_blocks)
        assert node.parent is not None
        parent = self._add(node.parent, head_key, head_blocks)
        self._link(parent, node)
        return parent

    def _remove(self, node: _Node) -> None:
        parent = node.parent
        assert parent is not None
        self._leaves.discard(node)
        self.blocks -= len(node.blocks)
        del parent.children[self._first(node.key, 0)]
        self._unused_ids.append(node.id)
        self.unpin(parent)

    def _new_id(self) -> int:
        if self._unused_ids:
            return self._unused_ids.pop()
        self._last_id += 1
        return self._last_id

    def _touch(self, node: _Node) -> None:
        node.last_access = self._time
        if node in self._leaves:
            heapq.heappush(self._heap, (node.last_access, node.id, node))

    def _add_leaf(self, node: _Node) -> None:
        self._leaves.add(node)
        heapq.heappush(self._heap, (node.last_access, node.id, node))

    def _oldest_leaf(self) -> _Node | None:
        while self._heap:
            last_access, _, node = self._heap[0]
            if node in self._leaves and node.last_access == last_access:
                return node
            heapq.heappop(self._heap)
        return None
