"""Error curves, drawn."""

import xml.etree.ElementTree as ET
from typing import Any

from residual.analysis.figures import ErrorCurve, Panel, error_curves, file_content, page_svg


def test_labels_of_curves_that_end_together_stand_apart() -> None:
    def heights(shallow: float, deep: float) -> list[float]:
        curves = (
            ErrorCurve("20-layer", "#000000", [1, 2], [90, shallow], [90, shallow]),
            ErrorCurve("20-layer", "#000000", [1, 2], [90, deep], [90, deep]),
        )
        figure = error_curves([Panel("two", curves)], iterations=2, drops=[1], held_out="test")
        return [text.xy[1] for text in figure.axes[0].texts if "layer" in text.get_text()]

    assert heights(0, 54) == [0, 54]
    assert heights(0, 0) == [0, 6.5]
    assert heights(1, 0) == [6.5, 0]
    assert heights(100, 100) == [93.5, 100]


def test_the_same_figure_gives_the_same_bytes() -> None:
    curves = (
        ErrorCurve("20-layer", "#e6981a", [1, 2], [90, 1], [90, 2]),
        ErrorCurve("56-layer", "#2f66c8", [1, 2], [90, 3], [90, 4]),
    )

    def draw() -> Any:
        return error_curves([Panel("two", curves)], iterations=2, drops=[], held_out="validation")

    assert file_content(draw(), "svg") == file_content(draw(), "svg")
    assert page_svg(draw(), 'a "label" & <more>') == page_svg(draw(), 'a "label" & <more>')
    assert ET.fromstring(page_svg(draw(), 'a "label" & <more>')).get("aria-label") == 'a "label" & <more>'
