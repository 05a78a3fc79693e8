"""The search against engines in values whose true boundary is known."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.engines.base import EngineFacts
from harness.probe.ask import Search
from harness.probe.checks import all_held, checks_of
from harness.probe.padded_evidence import queues
from harness.probe.setting import Failure, Goal, Outcome, Prior, ProbeGoal, Setting
from tests.probe.cells import best_history, budget, most_rows
from tests.probe.model_engine import ModelEngine, run

ANSWER = 128
FLASH = {
    "plain": lambda: ModelEngine(30_000),
    "short context": lambda: ModelEngine(300_000, context=8192),
    "blocks of 256": lambda: ModelEngine(30_000, block_size=256),
    "quadratic activations": lambda: ModelEngine(40_000, activation=lambda rows, longest: 3e-4 * rows * longest**2),
    "free memory differs": lambda: ModelEngine(30_000, states=(1.0, 0.998, 0.999)),
    "too many chats kill it": lambda: ModelEngine(30_000, rows_die=40),
}
PADDED = {
    "plain": lambda: ModelEngine(30_000, "padded"),
    "large": lambda: ModelEngine(200_000, "padded"),
    "small": lambda: ModelEngine(9_000, "padded"),
    "quadratic attention": lambda: ModelEngine(
        30_000, "padded", activation=lambda rows, longest: 0.05 * rows * longest + 6e-4 * rows * longest**2
    ),
    "a bump at middle lengths": lambda: ModelEngine(
        30_000, "padded", activation=lambda rows, longest: rows * longest * (0.36 if 1000 < longest < 2000 else 0.2)
    ),
    "a bump at middle lengths below what the longest leave": lambda: ModelEngine(
        30_000,
        "padded",
        activation=lambda rows, longest: rows * longest * (0.36 if 1000 < longest < 2000 else 0.2),
        context=4224,
    ),
    "each chat costs": lambda: ModelEngine(30_000, "padded", row_cost=100),
    "short context": lambda: ModelEngine(30_000, "padded", context=2048),
    "too many chats kill it": lambda: ModelEngine(30_000, "padded", rows_die=20),
}
ROW_PADDED = {
    "middle": lambda: ModelEngine(30_000, "padded", padded_rows=True),
    "a context as long as one prefill": lambda: ModelEngine(30_000, "padded", padded_rows=True, context=4224),
    "one chat fits": lambda: ModelEngine(12_000, "padded", padded_rows=True, context=8192),
    "large": lambda: ModelEngine(100_000, "padded", padded_rows=True),
}


def proved(search: Search) -> Setting:
    assert search.proved is not None, [str(each.failure) for each in search.evidence.outcomes]
    return search.proved.setting


@pytest.mark.parametrize("name", FLASH)
def test_flash_takes_two_starts_and_is_within_one_percent(name: str) -> None:
    """One start tells the budget, the second proves limits that leave less than one percent unused."""
    engine = FLASH[name]()
    setting = proved(run(Search(ProbeGoal(), Prior()), engine))
    assert engine.starts == 2
    usable = engine.budget(setting.max_batch_prefill_tokens or 0) - engine.block_size
    best = min(usable + 1, engine.context)
    assert best * 0.99 <= (setting.max_total_tokens or 0) <= best
    assert setting.max_batch_total_tokens is None, "inert on flash models"


@pytest.mark.parametrize("name", PADDED)
def test_padded_is_found_within_five_starts_and_one_percent(name: str) -> None:
    """The largest budget that survives every load is met within one percent, from below."""
    engine = PADDED[name]()
    setting = proved(run(Search(ProbeGoal(), Prior()), engine))
    assert engine.starts <= 5
    length, prefill = setting.max_input_tokens or 0, setting.max_batch_prefill_tokens or 0
    worst = max(engine.activation(max(1, prefill // each), each) for each in range(64, length + 1, 16))
    rows = setting.max_concurrent_requests or 0
    true = engine.memory - worst - (engine.row_cost * rows if engine.row_cost else 0)
    found = setting.max_batch_total_tokens or 0
    assert found <= engine.memory - engine.activation(max(1, prefill // length), length)
    assert 0.985 * true <= found <= true


@pytest.mark.parametrize("heeds", [True, False])
@pytest.mark.parametrize("name", ROW_PADDED)
def test_padding_of_the_whole_batch_is_recognised(name: str, heeds: bool) -> None:
    """Where a long prompt makes its batch as long, as many may run as fit at full length: the others wait where the
    engine heeds the size of a batch, and are refused where it does not.
    """
    engine = ROW_PADDED[name]()
    engine.heeds_batch_size = heeds
    prior = Prior(context=engine.context) if engine.context < 131_072 else Prior()
    setting = proved(run(Search(ProbeGoal(answer_tokens=ANSWER), prior), engine))
    most = engine.memory // (setting.max_total_tokens or 1)
    assert engine.starts <= 5
    assert most - 1 <= setting.most_at_once <= most
    assert (setting.max_batch_size is None) is not heeds
    assert setting.max_concurrent_requests == (128 if heeds else setting.most_at_once)


@pytest.mark.parametrize("counts_padding", [False, True])
@pytest.mark.parametrize("memory", [43_959, 148_155])
def test_a_padded_batch_is_proved_when_it_is_largest(memory: int, counts_padding: bool) -> None:
    """A prompt that joins chats near the end of their answers needs more than any batch of which all are read first.
    Where the engine counts more than it holds, it gets so large a budget that its batch can be proved at all.
    """
    engine = ModelEngine(
        memory,
        "padded",
        padded_rows=True,
        context=4096,
        activation=lambda rows, longest: 0.56 * rows * longest,
        counts_padding=counts_padding,
    )
    search = run(Search(ProbeGoal(answer_tokens=ANSWER), Prior(context=4096)), engine)
    setting = proved(search)
    assert engine.starts <= 6
    assert setting.most_at_once == most_rows(engine, setting.max_total_tokens or 0, setting.max_input_tokens or 0)
    assert all_held(checks_of(search.evidence))
    whole = setting.most_at_once * (setting.max_total_tokens or 0)
    assert ((setting.max_batch_total_tokens or 0) > whole) is counts_padding
    assert search.found is not None
    flag = next(each for each in search.found.flags if each.name == "max_batch_total_tokens")
    assert flag.value == setting.max_batch_total_tokens
    assert "size of the batch is what protects" in flag.reason


@pytest.mark.parametrize("goal", ["balanced", "history"])
def test_answers_that_end_early_are_not_taken_for_what_they_should_have_filled(goal: Goal) -> None:
    """One token in twenty is the last of its answer: the limits stay below the truth, what was not there is no queue,
    and the checks that were to fill something say that they did not run.
    """
    engine = ModelEngine(30_000, "padded", context=8192, ends=0.05)
    search = run(Search(ProbeGoal(goal=goal, answer_tokens=ANSWER), Prior(context=8192)), engine)
    setting = proved(search)
    assert not queues(search.evidence)
    true = budget(engine, setting.max_input_tokens or 0, 1)
    assert 0.9 * true <= (setting.max_batch_total_tokens or 0) <= true
    missing = [each for each in checks_of(search.evidence) if not each.ran]
    assert any("ended" in (each.why or "") for each in missing)


UNCHUNKED = {
    "up to the context": lambda: ModelEngine(30_000, chunking=False, context=8192),
    "linear activations": lambda: ModelEngine(30_000, chunking=False),
    "steep activations": lambda: ModelEngine(
        40_000, chunking=False, activation=lambda rows, longest: 0.8 * rows * longest
    ),
    "defaults of 2.x": lambda: ModelEngine(30_000, chunking=False, own_input=4095),
    "memory is lost": lambda: ModelEngine(30_000, chunking=False, states=(1.0, 0.9)),
}


def test_the_last_start_is_left_for_the_proof() -> None:
    """Where failed starts narrow the history of the only chat that fits, what came up is proved all the same."""
    engine = ModelEngine(12_000, "padded", padded_rows=True, context=131_072)
    setting = proved(run(Search(ProbeGoal(answer_tokens=ANSWER), Prior(context=131_072)), engine))
    assert engine.starts <= 8
    assert 0.93 * 10_000 <= (setting.max_input_tokens or 0) <= 10_000, "activations take a fifth of the prompt"
    assert setting.most_at_once == 1


@pytest.mark.parametrize("memory", [30_000, 60_000, 150_000])
@pytest.mark.parametrize("heeds", [True, False])
def test_the_longest_history_is_searched_where_a_long_prompt_pads_its_batch(memory: int, heeds: bool) -> None:
    """Up to where one prompt alone is too much, though the first start dies of many chats of the shortest."""
    engine = ModelEngine(memory, "padded", padded_rows=True, context=262_144, heeds_batch_size=heeds)
    search = Search(ProbeGoal(goal="history", answer_tokens=ANSWER), Prior(context=262_144))
    setting = proved(run(search, engine))
    longest = memory / 1.2  # activations take a fifth of the prompt
    assert 0.95 * longest <= (setting.max_input_tokens or 0) <= longest
    assert setting.most_at_once == 1


@pytest.mark.parametrize("name", UNCHUNKED)
@pytest.mark.parametrize("goal", ["balanced", "history"])
def test_without_chunking_the_history_is_searched_upward(name: str, goal: str) -> None:
    """It ends where the budget has fallen by a tenth, or where prefill budget and token budget meet, to one percent."""
    engine = UNCHUNKED[name]()
    search = Search(ProbeGoal(goal=goal, answer_tokens=ANSWER), Prior(context=engine.context))  # type: ignore[arg-type]
    setting = proved(run(search, engine))

    def usable(prefill: int) -> int:
        return engine.budget(prefill) - 1

    floor = 0.9 * usable(4096) if goal == "balanced" else 0
    fitting = (
        p for p in range(1, engine.memory) if usable(p) >= floor and p + ANSWER <= min(usable(p), engine.context)
    )
    best = max(fitting)
    assert engine.starts <= (4 if len(engine.states) == 1 else 6)
    assert 0.99 * best <= (setting.max_input_tokens or 0) <= 1.01 * best
    assert (setting.max_input_tokens or 0) + ANSWER == setting.max_total_tokens
    engine.starts = len(engine.states)
    assert engine.start(setting)[1] is None, "it must start again with what is free in the end"


@pytest.mark.parametrize(("share", "most"), [(0.1, 3), (0.35, 3), (0.55, 3), (0.9, 4), (1.4, 4)])
def test_a_prefill_that_is_too_much_tells_nothing_and_is_seldom_tried(share: float, most: int) -> None:
    """The longest history is sought from below; where a warm-up failed all the same, two starts tell where it ends."""
    engine = ModelEngine(
        14_000, chunking=False, tells_blocks=False, activation=lambda rows, longest: share * rows * longest
    )
    setting = proved(run(Search(ProbeGoal(goal="history", answer_tokens=ANSWER), Prior(context=131_072)), engine))
    best = (14_000 - 1 - ANSWER) / (1 + share)
    assert 0.99 * best <= (setting.max_input_tokens or 0) <= best
    assert engine.starts <= most


class Silent(ModelEngine):
    """One whose warm-up dies of a chat that memory does not hold, and tells nothing."""

    def start(self, setting: Setting) -> tuple[EngineFacts | None, Failure | None]:
        if (setting.max_total_tokens or 0) > self.memory * self.states[-1] and self.starts:
            self.starts += 1
            words = "cannot access local variable 'num_tokens' where it is not associated with a value"
            return EngineFacts("flash", chunking=True), Failure("warm-up", "memory", words)
        return super().start(setting)


def test_memory_that_went_is_measured_again() -> None:
    """After a warm-up that lacked memory at a prefill budget that came up before, half the chat tells what is left."""
    engine = Silent(30_000, states=(1.0, 0.8))
    setting = proved(run(Search(ProbeGoal(goal="history", answer_tokens=ANSWER), Prior(context=131_072)), engine))
    assert engine.starts == 4
    best = engine.budget(setting.max_batch_prefill_tokens or 0)
    assert 0.99 * best <= (setting.max_total_tokens or 0) <= best
    assert setting.max_batch_prefill_tokens == 1024


@pytest.mark.parametrize("at_admission", [False, True])
def test_what_memory_is_taken_for_does_not_mislead(at_admission: bool) -> None:
    """Taken at admission or as a chat grows: the budget as the flag counts it is met within one percent."""
    engine = ModelEngine(12_000, "padded", at_admission=at_admission, context=4096)
    search = Search(ProbeGoal(answer_tokens=ANSWER), Prior(context=4096))
    setting = proved(run(search, engine))
    true = engine.law.budget(setting.max_input_tokens or 0)
    assert setting.max_input_tokens == 4096 - ANSWER
    assert 0.99 * true <= (setting.max_batch_total_tokens or 0) <= true
    assert engine.starts <= 5


@pytest.mark.parametrize(("memory", "context", "granule"), [(60_000, 8192, 8), (4_274, 32_768, 16)])
def test_what_is_kept_in_chunks_is_counted_for_every_chat_that_is_let_in(
    memory: int, context: int, granule: int
) -> None:
    """Each may waste nearly a chunk: many short ones more together than a budget found by few leaves free."""
    engine = ModelEngine(memory, "padded", context=context, granule=granule)
    setting = proved(run(Search(ProbeGoal(answer_tokens=ANSWER), Prior(context=context)), engine))
    chats = setting.max_concurrent_requests or 1
    true = budget(engine, setting.max_input_tokens or 1, chats)
    assert true * 0.97 <= (setting.max_batch_total_tokens or 0) <= true + chats


def test_prompts_of_a_quarter_of_the_longest_may_need_most() -> None:
    """What several prompts of a length take that is read together is found at lengths between those of halves too."""
    engine = ModelEngine(
        14_000,
        "padded",
        context=32_768,
        activation=lambda rows, longest: rows * longest * (0.35 if 1950 < longest < 2800 else 0.2),
    )
    setting = proved(run(Search(ProbeGoal(), Prior(context=32_768)), engine))
    true = budget(engine, setting.max_input_tokens or 1, 1)
    assert (setting.max_batch_total_tokens or 0) <= true


def test_a_memory_of_hundreds_of_full_chats_is_filled_by_them() -> None:
    """While nobody knows whether a long prompt pads its batch, loads are even: as many chats as need be, all long."""
    engine = ModelEngine(410_000, "padded", activation=lambda rows, n: 0.03 * rows * n, context=2048)
    setting = proved(run(Search(ProbeGoal(answer_tokens=ANSWER), Prior(context=2048)), engine))
    true = engine.law.budget(setting.max_input_tokens or 0)
    assert 0.99 * true <= (setting.max_batch_total_tokens or 0) <= true
    assert engine.starts <= 5


def test_a_padded_history_is_searched_up_to_its_death() -> None:
    """The longest chat of an engine that reads prompts in one piece and checks nothing, within 1.5 %."""
    engine = ModelEngine(9_000, "padded", context=131_072)
    search = Search(ProbeGoal(goal="history", answer_tokens=ANSWER), Prior(context=131_072))
    setting = proved(run(search, engine))
    best = max(length for length in range(1, 9_000) if length + ANSWER <= engine.law.budget(length))
    assert 0.985 * best <= (setting.max_input_tokens or 0) <= best
    assert engine.starts <= 5


HISTORIES = {  # the engine, and the starts that it may take
    "the budget falls slowly": (lambda: ModelEngine(60_000, "padded", activation=lambda rows, n: 0.1 * rows * n), 5),
    "it falls with the square": (
        lambda: ModelEngine(100_000, "padded", activation=lambda rows, n: 1e-4 * rows * n * n),
        6,
    ),
    "each chat costs": (lambda: ModelEngine(30_000, "padded", row_cost=60), 7),
    "twenty chats kill it": (lambda: ModelEngine(60_000, "padded", rows_die=20), 6),
}


@pytest.mark.parametrize("name", HISTORIES)
def test_a_padded_history_costs_just_a_tenth_of_the_budget(name: str) -> None:
    """However the budget falls: `balanced` ends where a tenth of it is spent, or where one chat fills it, to 2 %."""
    make, most = HISTORIES[name]
    engine = make()
    search = run(Search(ProbeGoal(answer_tokens=ANSWER), Prior(context=engine.context)), engine)
    setting = proved(search)
    best = best_history(engine, "balanced", ANSWER)
    assert engine.starts <= most
    assert 0.98 * best <= (setting.max_input_tokens or 0) <= 1.02 * best
    true = budget(engine, setting.max_input_tokens or 0, setting.max_concurrent_requests or 1)
    assert 0.98 * true <= (setting.max_batch_total_tokens or 0)
    assert (setting.max_batch_total_tokens or 0) <= true or engine.rows_die is not None
    if engine.rows_die is not None:
        assert engine.rows_die / 2 <= (setting.max_concurrent_requests or 0) < engine.rows_die


@pytest.mark.parametrize("tells", [True, False])
def test_a_neighbour_that_arrives_costs_only_what_it_takes(tells: bool) -> None:
    """A start that fails for memory that was lost is repeated with the lower figure; the flags start again."""
    engine = ModelEngine(30_000, states=(1.0, 0.7), tells_blocks=tells)
    setting = proved(run(Search(ProbeGoal(), Prior()), engine))
    usable = engine.budget(4096)
    assert 0.99 * usable <= (setting.max_total_tokens or 0) <= usable
    assert engine.starts <= (3 if tells else 6)


def test_the_last_blocks_are_left_free_where_they_kill() -> None:
    """An engine that dies of a full pool of any size keeps its history; the number of chats keeps it from filling."""
    engine = ModelEngine(30_000, full_dies=0.98, context=8192)
    setting = proved(run(Search(ProbeGoal(), Prior(context=8192)), engine))
    assert setting.max_total_tokens == 8192
    assert (setting.max_concurrent_requests or 0) == int(0.98 * engine.budget(4096)) // 8192
    assert setting.cuda_memory_fraction is None


def test_a_long_history_turns_the_prefix_cache_off() -> None:
    """Where two chats do not fit, the second one could wait for ever behind the beginning that it shares."""
    engine = ModelEngine(30_000, prefix_caching=True)
    assert proved(run(Search(ProbeGoal(), Prior()), engine)).prefix_caching is False
    roomy = ModelEngine(30_000, prefix_caching=True, context=8192)
    assert proved(run(Search(ProbeGoal(), Prior()), roomy)).prefix_caching is None


@pytest.mark.parametrize("goal", ["balanced", "chats"])
def test_without_chunking_there_is_no_prefix_cache(goal: Goal) -> None:
    """A prompt that was put back for the next prefill would be taken for cached, though nobody has computed it."""
    engine = ModelEngine(30_000, prefix_caching=True, chunking=False, context=8192)
    search = run(Search(ProbeGoal(goal=goal), Prior()), engine)
    assert proved(search).prefix_caching is False
    assert search.found is not None
    (flag,) = (each for each in search.found.flags if each.name == "prefix_caching")
    assert "never computed" in flag.reason


def test_a_flaky_start_is_tried_once_more() -> None:
    """A failure that is not about memory costs one start and nothing else."""
    engine = ModelEngine(30_000, failures=[Failure("load", "other", "Shard 0 failed to start")])
    assert proved(run(Search(ProbeGoal(), Prior()), engine))
    assert engine.starts == 3


@pytest.mark.parametrize("cause", ["other", "hang"])
def test_the_same_failure_twice_ends_the_search(cause: str) -> None:
    """What fails twice for another reason than memory is no chance."""
    failure = Failure("load", cause, "no answer")  # type: ignore[arg-type]
    engine = ModelEngine(30_000, failures=[failure] * 5)
    assert run(Search(ProbeGoal(), Prior()), engine).fatal == failure
    assert engine.starts == 2


@pytest.mark.parametrize("cause", ["argument", "missing"])
def test_what_no_limit_can_mend_ends_the_search_at_once(cause: str) -> None:
    """A wrong option or a missing device is named after one start."""
    failure = Failure("launch", cause, "unexpected argument")  # type: ignore[arg-type]
    engine = ModelEngine(30_000, failures=[failure] * 5)
    assert run(Search(ProbeGoal(), Prior()), engine).fatal == failure
    assert engine.starts == 1


def test_too_little_memory_for_anything_is_said() -> None:
    """Where not even a tiny prefill fits, the search ends with that failure."""
    search = run(Search(ProbeGoal(), Prior()), ModelEngine(40))
    assert search.fatal is not None
    assert search.fatal.cause == "memory"


def test_a_failed_default_prefill_is_lowered() -> None:
    """A prefill budget that does not fit is halved, and its failure is kept as evidence."""
    search = run(Search(ProbeGoal(), Prior()), ModelEngine(9_000, default_prefill=8192))
    assert proved(search).max_batch_prefill_tokens == 4096
    assert search.evidence.prefill.smallest_failed == 8192


@pytest.mark.parametrize("version", [(2, 3, 1), (3, 3, 7)])
def test_a_prefill_that_is_lowered_below_the_longest_prompt_names_that_too(version: tuple[int, int, int]) -> None:
    """An engine whose own longest prompt does not follow from the prefill budget refuses a smaller one by itself; told
    beforehand where the release is known to be such, else after the first refusal.
    """
    engine = ModelEngine(5_000, "padded", own_input=4095, context=4096)
    search = run(Search(ProbeGoal(answer_tokens=ANSWER), Prior(context=4096, version=version)), engine)
    setting = proved(search)
    refused = [each for each in search.evidence.outcomes if each.failure and each.failure.cause == "argument"]
    assert len(refused) == (version >= (3, 0, 0))
    left = engine.memory - engine.activation(1, setting.max_input_tokens or 0)
    assert 0.97 * left <= (setting.max_batch_total_tokens or 0) <= left


def test_quick_starts_once_and_sends_nothing() -> None:
    """Without proof one start of a flash model is enough."""
    engine = ModelEngine(30_000)
    search = run(Search(ProbeGoal(quick=True), Prior()), engine)
    assert engine.starts == 1
    assert search.proved is None
    assert not search.evidence.outcomes[0].loads
    assert search.recommendation is not None


def test_resuming_asks_what_the_interrupted_search_would_have_asked() -> None:
    """The next setting depends on the outcomes alone."""
    whole = run(Search(ProbeGoal(), Prior()), ModelEngine(30_000, "padded"))
    for cut in range(1, len(whole.evidence.outcomes)):
        resumed = Search(ProbeGoal(), Prior())
        for outcome in whole.evidence.outcomes[:cut]:
            resumed.tell(outcome)
        assert resumed.ask() == whole.evidence.outcomes[cut].setting


def test_the_most_starts_are_heeded() -> None:
    """`--max-starts` ends the search, proved or not."""
    engine = ModelEngine(30_000, "padded")
    search = run(Search(ProbeGoal(max_starts=2), Prior()), engine)
    assert engine.starts == 2
    assert search.ask() is None


@settings(max_examples=25, deadline=None)
@given(
    memory=st.integers(6_000, 60_000),
    linear=st.floats(0.02, 0.6),
    quadratic=st.sampled_from([0.0, 0.0, 5e-5, 2e-4]),
    context=st.sampled_from([2048, 4096, 8192, 32_768, 131_072]),
    kind=st.sampled_from(["flash", "padded"]),
    block=st.sampled_from([1, 16, 256]),
)
def test_whatever_the_law_a_recommendation_survives(
    memory: int, linear: float, quadratic: float, context: int, kind: str, block: int
) -> None:
    """Any engine ends in a setting that held every load, or in a failure with a name."""
    engine = ModelEngine(
        memory,
        kind,  # type: ignore[arg-type]
        context=context,
        block_size=block if kind == "flash" else 1,
        activation=lambda rows, longest: linear * rows * longest + quadratic * rows * longest**2,
    )
    search = run(Search(ProbeGoal(), Prior(context=context)), engine)
    assert search.proved is not None or search.fatal is not None
    assert engine.starts <= 8


def test_median_starts_meet_the_goal() -> None:
    """Two starts on flash models and five on padded ones, at the median."""
    flash = [engine() for engine in FLASH.values()]
    padded = [engine() for engine in [*PADDED.values(), *ROW_PADDED.values()]]
    for engine in flash + padded:
        run(Search(ProbeGoal(), Prior()), engine)
    assert statistics.median(each.starts for each in flash) <= 2
    assert statistics.median(each.starts for each in padded) <= 4


def test_outcome_knows_a_death_under_load() -> None:
    """A start that never came up has not died under load."""
    assert not Outcome(Setting()).died_under_load
