"""Error curves, drawn."""

import math
import xml.etree.ElementTree as ET
from typing import Any

import matplotlib as mpl
import pytest
from matplotlib.font_manager import FontEntry, fontManager, get_font
from PIL import Image

from residual.analysis.cost_figures import CostPoint, errors_against_costs
from residual.analysis.detection_figures import BoxDrawing, PrecisionCurve, draw_boxes, precision_recall
from residual.analysis.figures import ErrorCurve, Panel, error_curves, file_content, page_svg
from residual.analysis.fonts import OWN, font_with
from residual.analysis.layer_figures import Named, responses_figure
from residual.analysis.layers import Response
from residual.data.masks import box_mask


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


@pytest.mark.parametrize(
    ("drops", "count"), [([10, 87, 95, 100], 2), ([50, 75, 90], 2), ([40, 41, 42, 60, 99], 3)]
)
def test_drops_are_named_inside_the_axes_and_no_name_lies_on_another(drops: list[int], count: int) -> None:
    curves = (ErrorCurve("", "#000000", [1, 100], [90, 10], [90, 10]),)
    panels = [Panel("one", curves), Panel("two", curves)]
    figure = error_curves(panels, iterations=100, drops=drops, held_out="test")
    figure.draw_without_rendering()
    for ax in figure.axes:
        ends = ax.get_window_extent()
        named = [text.get_window_extent() for text in ax.texts if text.get_text() == "lr ÷ 10"]
        assert len(named) == count
        assert all(ends.x0 < name.x0 and name.x1 < ends.x1 for name in named)
        assert all(name.count_overlaps(named[:place]) == 0 for place, name in enumerate(named))
        # Each of them is drawn.
        assert sum(line.get_linestyle() == ":" for line in ax.lines) == len(drops)


def test_a_curve_that_begins_with_no_number_is_cut_at_the_top() -> None:
    curve = ErrorCurve("", "#000000", [1, 2, 3], [2.3, 1.2, 0.4], [math.nan, 80.0, 2.0])
    figure = error_curves(
        [Panel("loss", (curve,), measure="loss", top=10)], iterations=3, drops=[], held_out="test"
    )
    training, held_out = figure.axes[0].lines
    assert held_out.get_clip_on()
    assert not training.get_clip_on()  # it may end on the frame


@pytest.mark.parametrize("layers", [2, 8, 18, 108])
def test_layers_are_whole_numbers(layers: int) -> None:
    measured = [Response(f"layer{n}", n + 1.0) for n in range(layers)]
    for ax in responses_figure([(Named("one", 20, False), measured)]).axes:
        assert len(ax.get_xticks()) > 2
        assert all(tick == round(tick) for tick in ax.get_xticks())


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


def test_names_of_networks_that_cost_the_same_lie_on_nothing() -> None:
    points = [
        CostPoint("ResNet-20", (0.27, 1.1), 12.1, 8.75, True),
        CostPoint("plain-20", (0.27, 1.05), 12.4, None, False),
        CostPoint("NIN", (0.97, 2.6), 14.0, 8.81, False),
        CostPoint("DSN", (0.97, 2.6), 13.8, 8.22, False),
        CostPoint("Highway-32", (1.25, 2.7), 13.9, 8.80, False),
        CostPoint("FitNet-19", (2.5, 6), 22.0, None, False),
        CostPoint("FitNet-19 hints", (2.5, 6.1), 21.8, 8.39, False),
    ]
    figure = errors_against_costs(points, ["parameters (million)", "time (ms)"], "test error (%)")
    figure.draw_without_rendering()
    for number, ax in enumerate(figure.axes):
        names = [text.get_window_extent() for text in ax.texts]
        assert len(names) == len(points)
        for place, name in enumerate(names):
            assert ax.bbox.x0 <= name.x0 < name.x1 <= ax.bbox.x1
            assert name.count_overlaps(names[:place]) == 0
            for point in points:
                mark = ax.transData.transform((point.costs[number], point.measured))
                assert not name.contains(*mark)


def test_networks_that_cost_about_the_same_have_numbers_at_their_axis() -> None:
    points = [
        CostPoint(name, (cost,), error, None, False)
        for name, cost, error in (("plain-20", 0.2694, 9.05), ("ResNet-20", 0.2697, 8.11))
    ]
    (ax,) = errors_against_costs(points, ["parameters (million)"], "test error (%)").axes
    low, high = ax.get_xlim()
    shown = zip(ax.get_xticks(), ax.get_xticklabels(), strict=True)
    assert [label.get_text() for place, label in shown if low <= place <= high] == ["0.2", "0.5"]


def test_a_legend_of_many_classes_lies_in_the_figure_beside_the_axes() -> None:
    for count, name in ((3, "cat"), (80, "hair drier"), (200, "snowmobile"), (4, "a long name " * 8)):
        curves = [PrecisionCurve(f"{name} {number}", [0.1, 0.9], [1, 0.5]) for number in range(count)]
        figure = precision_recall(curves, "VOC")
        figure.draw_without_rendering()
        (ax,) = figure.axes
        legend, axes = ax.get_legend().get_window_extent(), ax.get_window_extent()
        assert 0 <= legend.y0 < legend.y1 <= figure.bbox.y1
        assert axes.x1 < legend.x0 < legend.x1 <= figure.bbox.x1
        assert axes.width > 3 * figure.dpi


def test_names_are_drawn_in_a_font_that_has_their_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    # Whatever else is installed: GNU Unifont has a letter for everything.
    shipped = [font for font in fontManager.ttflist if font.fname.startswith(mpl.get_data_path())]
    monkeypatch.setattr(fontManager, "ttflist", shipped)
    # An arc is in a font that comes with Matplotlib, and not in its own.
    assert font_with("дом").name == OWN
    assert ord("⌒") in get_font(font_with("⌒").fname).get_charmap()
    # No letter of any script, but a font for boxes has it.
    assert font_with("\U000e0123").name == OWN
    figure = precision_recall([PrecisionCurve(name, [1.0], [1.0]) for name in ("дом", "⌒")], "VOC")
    (ax,) = figure.axes
    assert ax.get_legend().get_texts()[1].get_fontfamily() == [OWN, font_with("дом⌒").name]
    # Letters that the font for Latin ones does not have would all be the same box.
    drawn = [
        draw_boxes(Image.new("RGB", (600, 600)), [BoxDrawing((0, 100, 90, 190), "#2f66c8", name)])
        for name in ("дом", "том")
    ]
    assert drawn[0].tobytes() != drawn[1].tobytes()


def test_a_font_that_is_gone_costs_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = FontEntry(fname="/gone.ttf", name="Gone", style="normal", weight=400, stretch="normal")
    monkeypatch.setattr(fontManager, "ttflist", [gone, *fontManager.ttflist])
    assert ord("⌒") in get_font(font_with("⌒").fname).get_charmap()


def test_captions_that_differ_in_their_scores_open_no_font_again(monkeypatch: pytest.MonkeyPatch) -> None:
    font_with("⌒ 0.97")

    def never(file: str) -> None:
        raise AssertionError(f"{file} was looked into before")

    monkeypatch.setattr("residual.analysis.fonts.get_font", never)
    assert font_with("⌒ 0.96") == font_with("⌒ 0.97")


def test_a_caption_does_not_cover_a_small_image() -> None:
    image = Image.new("RGB", (100, 80), "white")
    box = BoxDrawing((10, 40, 60, 70), "#e6981a", "red cell 0.97")
    drawn = draw_boxes(image, [box])
    assert drawn.size == (500, 400)
    pixels = drawn.load()
    assert pixels is not None
    # The box is where it was, and empty; its caption stands above it, black on orange.
    assert pixels[50, 340] == pixels[299, 349] == (0xE6, 0x98, 0x1A)
    inside = drawn.crop((60, 210, 290, 340)).getcolors()
    assert inside == [(230 * 130, (255, 255, 255))]
    caption = drawn.crop((50, 180, 150, 200)).getcolors(1 << 16)
    assert (0, 0, 0) in [colour for _, colour in caption or ()]
    # What has no caption, or is large, stays as it is.
    assert draw_boxes(image, [BoxDrawing(box.box, box.colour, "")]).size == (100, 80)
    assert draw_boxes(image.resize((300, 240)), [box]).size == (300, 240)


def test_a_box_is_seen_on_an_object_of_its_own_colour() -> None:
    drawn = draw_boxes(
        Image.new("RGB", (600, 600), "#2f66c8"), [BoxDrawing((100, 200, 190, 290), "#2f66c8", "")]
    )
    blue, white = (0x2F, 0x66, 0xC8), (255, 255, 255)
    # A line of two pixels between two white ones.
    assert [drawn.getpixel((x, 240)) for x in range(98, 104)] == [blue, white, blue, blue, white, blue]
    assert [drawn.getpixel((x, 240)) for x in range(186, 192)] == [blue, white, blue, blue, white, blue]
    assert [drawn.getpixel((140, y)) for y in range(198, 204)] == [blue, white, blue, blue, white, blue]


def test_a_mask_and_its_box_are_in_their_place_at_another_size() -> None:
    box = (200, 100, 400, 300)
    drawing = BoxDrawing(box, "#2f66c8", "", box_mask(box, (400, 800)))
    drawn = draw_boxes(Image.new("RGB", (800, 400)), [drawing], 200)
    assert drawn.size == (200, 100)
    (blue, *_), outside = drawn.getpixel((75, 50)), drawn.getpixel((110, 50))
    assert blue == round(0.45 * 0x2F)
    assert outside == (0, 0, 0)
    assert drawn.getpixel((50, 50)) == (0x2F, 0x66, 0xC8)


def test_captions_are_as_high_whatever_letters_they_have() -> None:
    heights = set()
    for name in ("raccoon", "Hedgehog", "e"):
        drawn = draw_boxes(Image.new("RGB", (600, 600)), [BoxDrawing((100, 100, 190, 190), "#2f66c8", name)])
        above = [drawn.getpixel((101, y)) for y in range(100)]
        heights.add(above.count((0x2F, 0x66, 0xC8)))
    assert len(heights) == 1
    assert min(heights) > 10
