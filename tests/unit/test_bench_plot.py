"""The plot of the README."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

from bench import plot
from bench.figures import BY_KEY, Spread

SVG = "{http://www.w3.org/2000/svg}"
FIGURES = {
    "cpu_paced": {"full": Spread(2.0, 1.5, 4.0), "haproxy": Spread(1.0, 0.9, 1.1), "auth": Spread(1.0, 1.0, 1.0)},
    "ttft_p50": {"litellm": Spread(64.0, 60.0, 128.0)},
    "stream_kib": {},
}


def _texts(svg: str) -> list[str]:
    return [text.text or "" for text in ET.fromstring(svg).iter(f"{SVG}text")]


def test_a_panel_has_a_row_for_nginx_and_each_row_that_was_measured() -> None:
    texts = _texts(plot.svg(FIGURES))
    title = f"{BY_KEY['cpu_paced'].title}, x nginx"
    assert texts[:7] == [title, "nginx", "1.00", "haproxy", "1.00", "full", "2.00"]
    assert texts[7:] == [f"{BY_KEY['ttft_p50'].title}, x nginx", "nginx", "1.00", "litellm", "64.00", plot.CAPTION]


def test_bars_begin_at_nginx_and_end_at_the_median_and_whiskers_span_the_rounds() -> None:
    root = ET.fromstring(plot.svg({"cpu_paced": {"full": Spread(2.0, 1.0, 4.0)}}))
    _, full = root.iter(f"{SVG}rect")
    begin, end = float(full.attrib["x"]), float(full.attrib["x"]) + float(full.attrib["width"])
    _, whisker = (path for path in root.iter(f"{SVG}path") if path.attrib["class"] == "spread")
    low, high = map(float, re.findall(r"[MH]([\d.]+)", whisker.attrib["d"]))
    assert low == begin
    assert round((high - begin) / (end - begin), 1) == 2.0


def test_nothing_leaves_the_picture() -> None:
    root = ET.fromstring(plot.svg(FIGURES))
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for rect in root.iter(f"{SVG}rect"):
        x, y, wide, high = (float(rect.attrib[key]) for key in ("x", "y", "width", "height"))
        assert 0 <= x <= x + wide <= width
        assert 0 <= y <= y + high <= height


def test_ours_are_told_from_theirs() -> None:
    root = ET.fromstring(plot.svg(FIGURES))
    assert [rect.attrib["class"] for rect in root.iter(f"{SVG}rect")] == [
        "theirs",
        "theirs",
        "ours",
        "theirs",
        "theirs",
    ]
