"""The plot of the README: ratios to nginx as an SVG, `python -m bench.plot > docs/bench.svg`. Pure but for its last lines."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from html import escape

from . import reference
from .figures import BY_KEY, Spread
from .scenarios import CODINGS, FULL, NGINX, PASS_THROUGH

PANELS = ("cpu_saturated", "cpu_paced", "ttft_p50", "stream_kib")
OURS = (PASS_THROUGH, FULL, *(f"{FULL}+{coding}" for coding in CODINGS))
ROWS = (NGINX, "haproxy", "envoy", "caddy", *OURS, "portkey", "litellm")

WIDTH, MARGIN, TITLE, ROW, LABELS, NUMBERS = 900, 16, 26, 20, 92, 76
PANEL_WIDTH = (WIDTH - 3 * MARGIN) // 2
CAPTION = "Shorter is better. Each line doubles; the thin stroke goes from the best round to the worst."

# readable on a page of either colour
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600 }
.number { font-size: 11px; fill: #57606a }
.ours { fill: #1f6feb } .theirs { fill: #a5b0bd }
.grid { stroke: #d0d7de; stroke-width: 1 } .spread { stroke: #24292f; stroke-width: 1.2 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .number { fill: #9198a1 } .theirs { fill: #6e7681 } .grid { stroke: #30363d }
  .spread { stroke: #e6edf3 }
}"""


def svg(figures: reference.Ratios) -> str:
    """Two panels side by side: bars from 1 (nginx) on a logarithmic scale, the whisker from the best round to the worst."""
    panels = [(key, rows) for key in PANELS if (rows := _rows(figures.get(key, {})))]
    parts, top = [], MARGIN
    for pair in (panels[i : i + 2] for i in range(0, len(panels), 2)):
        for column, (key, rows) in enumerate(pair):
            parts += _panel(BY_KEY[key].title, rows, MARGIN + column * (PANEL_WIDTH + MARGIN), top)
        top += TITLE + ROW * max(len(rows) for _, rows in pair) + MARGIN
    height = top + ROW
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
            'role="img" aria-label="Ratios to nginx">',
            f"<style>{STYLE}\n</style>",
            *parts,
            f'<text class="number" x="{MARGIN}" y="{top + 8}">{CAPTION}</text>',
            "</svg>\n",
        ]
    )


def _rows(ratios: Mapping[str, Spread]) -> list[tuple[str, Spread]]:
    known = {NGINX: Spread(1, 1, 1), **ratios}
    return [(name, known[name]) for name in ROWS if name in known] if ratios else []


def _panel(title: str, rows: Sequence[tuple[str, Spread]], left: int, top: int) -> list[str]:
    lowest = min(0.5, *(ratio.low for _, ratio in rows))
    highest = max(4.0, *(ratio.high for _, ratio in rows))
    start, width = left + LABELS, PANEL_WIDTH - LABELS - NUMBERS

    def x(ratio: float) -> float:
        return start + width * math.log(max(ratio, lowest) / lowest) / math.log(highest / lowest)

    first = top + TITLE
    parts = [f'<text class="title" x="{left}" y="{top + 14}">{escape(title)}, x nginx</text>']
    for power in range(math.ceil(math.log2(lowest)), math.floor(math.log2(highest)) + 1):
        at = x(2.0**power)
        parts.append(f'<path class="grid" d="M{at:.1f} {first}V{first + ROW * len(rows)}"/>')
    for number, (name, ratio) in enumerate(rows):
        y = first + ROW * number
        middle, near, far = y + ROW // 2, min(x(1), x(ratio.median)), max(x(1), x(ratio.median))
        kind = "ours" if name in OURS else "theirs"
        parts += [
            f'<text x="{start - 6}" y="{middle + 4}" text-anchor="end">{escape(name)}</text>',
            f'<rect class="{kind}" x="{near:.1f}" y="{y + 3}" width="{max(far - near, 2):.1f}" height="{ROW - 6}"/>',
            f'<path class="spread" d="M{x(ratio.low):.1f} {middle}H{x(ratio.high):.1f}"/>',
            f'<text class="number" x="{start + width + 6}" y="{middle + 4}">{ratio.median:.2f}</text>',
        ]
    return parts


if __name__ == "__main__":
    found = reference.load()
    sys.exit("there is no reference.json" if found is None else sys.stdout.write(svg(found.figures)) and 0)
