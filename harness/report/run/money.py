"""What tokens and users cost on the GPUs that served."""

from __future__ import annotations

from harness.report.document import Bullets, Paragraph, Section, Table
from harness.report.money_words import money_lines, price_words, usd
from harness.report.words import load
from harness.stats.summary import Summary

_COLUMNS = ("Load", "USD per million generated tokens", "per million prompt tokens", "per million of both")


def section(summary: Summary) -> Section | None:
    """None where neither a price is known nor anything was asked."""
    costs = [(level, cost) for level in summary.levels if (cost := summary.cost(level)) is not None]
    lines = tuple(money_lines(summary.money))
    if not costs and not lines:
        return None
    blocks: list[Bullets | Table | Paragraph] = [Bullets(lines)] if lines else []
    if costs:
        rows = tuple(
            (
                load(level),
                *(
                    usd(cost.million(rate))
                    for rate in (cost.output_per_second, cost.input_per_second, cost.blended_per_second)
                ),
            )
            for level, cost in costs
        )
        how = (
            f"All of the money over one kind of tokens, or over both, with this load all day: "
            f"{price_words(costs[0][1].price)}. The columns "
            "are three views of one sum, and are not added. A price is an input: --price takes yours."
        )
        blocks += [Table(_COLUMNS, rows, frozenset((1, 2, 3))), Paragraph(how, soft=True)]
    elif summary.price is None:
        card = summary.manifest.gpu or "the GPU that served"
        blocks.append(Paragraph(f"No price known for {card}: give --price.", soft=True))
    return Section("Money and size", tuple(blocks))
