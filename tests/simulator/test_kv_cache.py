"""Blocks: none is lost, none is held twice, and the prefix cache finds and gives up what it should."""

from __future__ import annotations

from array import array
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.simulator.kv_cache import Allocation, RadixAllocator, RadixTrie, StackAllocator

prompts = st.lists(st.integers(0, 2), min_size=1, max_size=24)
actions = st.lists(
    st.tuples(st.sampled_from(["take", "take detailed", "free", "put back"]), prompts, st.integers(0, 20)), max_size=60
)


def holders(allocator: RadixAllocator | StackAllocator, held: list[Allocation]) -> Counter[int]:
    """How often each block is free, cached, or a request's own."""
    count = Counter(allocator.free_list())
    for allocation in held:
        own = allocation.blocks[allocation.cached_tokens // allocator.block_size :]
        count.update(own)
    if isinstance(allocator, RadixAllocator):
        count.update(allocator.trie.all_blocks())
    return count


@settings(max_examples=300, deadline=None)
@given(actions, st.sampled_from([1, 4]), st.booleans(), st.booleans())
def test_every_block_is_in_exactly_one_place(
    steps: list[tuple[str, list[int], int]], block_size: int, pin_whole_node: bool, computed: bool
) -> None:
    """Free, cached, or held by one request; block 0 nowhere. True after every step, also for prompts put back."""
    blocks = 24
    allocator = RadixAllocator(blocks, block_size, pin_whole_node=pin_whole_node)
    held: list[Allocation] = []
    for action, prompt, more in steps:
        if action.startswith("take"):
            found = allocator.allocate(len(prompt) + more, None if "detailed" in action else prompt)
            if found is not None:
                assert len(found.blocks) == -(-(len(prompt) + more) // block_size)
                held.append(found)
        elif held:
            allocator.free(held.pop(more % len(held)), computed=action == "free" or computed)
        assert holders(allocator, held) == Counter(range(1, blocks))
    while held:
        allocator.free(held.pop())
    assert allocator.free_blocks + allocator.cached_blocks == blocks - 1
    everything = allocator.allocate((blocks - 1) * block_size, None)
    assert everything is not None, "what nobody holds can be had by evicting it"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 30)), max_size=50))
def test_the_stack_gives_back_what_it_got(steps: list[tuple[bool, int]]) -> None:
    """Without prefix cache: a request gets its blocks exactly if there are enough."""
    allocator = StackAllocator(12, 4)
    held: list[Allocation] = []
    for take, number in steps:
        if take:
            free = allocator.free_blocks
            found = allocator.allocate(number, None)
            assert (found is not None) == (-(-number // 4) <= free)
            held += [found] if found is not None else []
        elif held:
            allocator.free(held.pop(number % len(held)))
        assert holders(allocator, held) == Counter(range(1, 12))


def test_the_stack_is_last_in_first_out() -> None:
    """The blocks that were freed last are taken first."""
    allocator = StackAllocator(8, 1)
    first, second = allocator.allocate(2, None), allocator.allocate(2, None)
    assert first is not None
    assert second is not None
    assert (list(first.blocks), list(second.blocks)) == ([6, 7], [4, 5])
    allocator.free(first)
    again = allocator.allocate(3, None)
    assert again is not None
    assert list(again.blocks) == [3, 6, 7]


def served(allocator: RadixAllocator, prompt: list[int], new: int = 1) -> int:
    """Serve a prompt alone; how many of its tokens were cached."""
    found = allocator.allocate(len(prompt) + new, prompt)
    assert found is not None
    allocator.free(found)
    return found.cached_tokens


def test_a_prefix_is_found_token_by_token() -> None:
    """With blocks of one token: what two prompts share, and no more."""
    allocator = RadixAllocator(100, 1)
    assert served(allocator, [1, 2, 3, 4]) == 0
    assert served(allocator, [1, 2, 3, 4]) == 4
    assert served(allocator, [1, 2, 9, 9, 9]) == 2
    assert served(allocator, [1, 2, 9, 9, 8]) == 4
    assert served(allocator, [2, 2]) == 0


def test_with_larger_blocks_only_whole_ones_are_shared() -> None:
    """Seven common tokens in blocks of four make one block."""
    allocator = RadixAllocator(100, 4)
    served(allocator, [1, 2, 3, 4, 5, 6, 7, 8])
    assert served(allocator, [1, 2, 3, 4, 5, 6, 7, 9]) == 4
    assert served(allocator, [1, 2, 3, 9]) == 0


def test_generated_text_is_never_cached() -> None:
    """Only the prompt's blocks stay; those of the answer are free again."""
    allocator = RadixAllocator(100, 1)
    served(allocator, [1, 2, 3], new=50)
    assert (allocator.cached_blocks, allocator.free_blocks) == (3, 96)


def test_identical_prompts_that_run_together_do_not_share() -> None:
    """The second one's blocks are freed when both are done."""
    allocator = RadixAllocator(100, 1)
    pair = [allocator.allocate(4, [1, 2, 3]), allocator.allocate(4, [1, 2, 3])]
    for each in pair:
        assert each is not None
        assert each.cached_tokens == 0
        allocator.free(each)
    assert (allocator.cached_blocks, allocator.free_blocks) == (3, 96)


def test_the_least_recently_used_prompt_is_evicted_first() -> None:
    """Looking a prompt up keeps it; a leaf that is larger than needed is trimmed from its end."""
    allocator = RadixAllocator(21, 1)
    served(allocator, [1] * 6)
    served(allocator, [2] * 6)
    served(allocator, [1] * 6)
    assert allocator.free_blocks == 8
    assert served(allocator, [3] * 11, new=0) == 0
    assert served(allocator, [1] * 6, new=0) == 6
    assert served(allocator, [2] * 6, new=0) == 3


def test_a_pinned_prefix_is_not_evicted() -> None:
    """What a running request shares stays until it ends."""
    allocator = RadixAllocator(11, 1)
    served(allocator, [1] * 5)
    running = allocator.allocate(6, [*[1] * 5, 2])
    assert running is not None
    assert allocator.allocate(6, [3] * 6) is None
    allocator.free(running)
    assert allocator.allocate(6, [3] * 6) is not None


@pytest.mark.parametrize("block_size", [1, 4])
def test_numbers_of_nodes_are_used_again_last_freed_first(block_size: int) -> None:
    """They break ties of equal access times, as TGI's slot map does."""
    trie = RadixTrie(block_size)
    for start in (1, 2, 3):
        trie.insert([start] * block_size, array("i", [start]))
    assert trie.evict(2) == array("i", [1, 2])
    trie.insert([4] * block_size, array("i", [4]))
    assert [node.id for node in trie.root.children.values()] == [4, 3]
