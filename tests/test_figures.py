"""Figures: what they draw, that nothing overlaps, and that the same data give the same bytes."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from ifguide.report import figures, score_figures
from ifguide.report.figure_style import PALETTE, appearance, save_figure

METHODS = ["none", "word_filter", "toxicity_filter", "dpo", "rad", "if-guide", "if-guide + rad",
           "random_tokens", "true_spans"]  # fmt: skip

JUDGES = ["explicit", "implicit", "explicit_trained"]
CONTINUATIONS = {"realtoxicityprompts": 25, "toxigen": 3}


def summary(models=("target",)):
    generator = np.random.default_rng(0)
    rows = []

    def add(model, method, benchmark, split, metric, value, half):
        rows.append(
            {"model": model, "method": method, "benchmark": benchmark, "split": split,
             "metric": metric, "value": value, "ci_low": max(0.0, value - half),
             "ci_high": value + half, "n": 100, "seed": 1}
        )  # fmt: skip

    for model, (place, method) in itertools.product(models, enumerate(METHODS)):
        for metric, split in itertools.product(
            [f"{judge}_tp" for judge in (*JUDGES, "any")], ("all", "toxic", "nontoxic")
        ):
            value = generator.random()
            add(model, method, "realtoxicityprompts", split, metric, value, 0.05)
        for group in ("Orrans", "Quelli", "Velmari"):
            add(model, method, "toxigen", group, "implicit_tp", generator.random(), 0.1)
        for category in ("insult", "threat", "severe_toxicity"):
            metric = f"explicit_{category}_tp"
            add(model, method, "realtoxicityprompts", "toxic", metric, generator.random(), 0.05)
        if method in ("word_filter", "toxicity_filter", "if-guide", "random_tokens", "true_spans"):
            add(model, method, "removal", "all", "removed_share", 0.01 * place, math.nan)
        if "rad" not in method:
            add(model, method, "heldout", "all", "perplexity", 3 + 0.1 * place, 0.05)
            if method != "none":
                add(model, method, "heldout", "all", "perplexity_increase", 0.03 * place, 0.01)
    # False alarms of two judges that are trained here; another one never errs.
    for judge, rate in (("implicit", 0.05), ("explicit_trained", 0.02)):
        add(judge, "trained", "classifiers", "all", "harmless_flagged", rate, 0.01)
    return pd.DataFrame(rows)


def of_erring_judges():
    """The same with false alarms of the explicit judge too."""
    table = summary()
    table.loc[table["model"] == "explicit_trained", "model"] = "explicit"
    return table


def floors(axes, *, upright):
    """Where a panel has the line of its judge's false alarms."""
    lines = [line for line in axes.lines if line.get_label() == figures.FLOOR]
    return [(line.get_xdata() if upright else line.get_ydata())[0] for line in lines]


def losses():
    step = np.arange(50)
    plain = pd.DataFrame({"step": step, "loss": 7 - 0.05 * step})
    suppressed = plain.assign(selected_loss=7 + 0.02 * step, unselected_loss=plain["loss"])
    return {"proxy / none": plain, "target / none": plain, "target / if-guide": suppressed,
            "target / dpo": plain}  # fmt: skip


def curves():
    recall = np.linspace(0.01, 1, 50)
    return pd.concat(
        pd.DataFrame(
            {"ranking": ranking, "recall": recall, "precision": 0.02 + (1 - recall) * height,
             "base_rate": 0.02}
        )
        for ranking, height in (("differential/loss", 0.9), ("toxic queries only/loss", 0.4))
    )  # fmt: skip


def removed():
    taken = {"word filter": (0.3, 0.1), "if-guide": (0.5, 0.4), "fine-tuned": (0.5, 0.4)}
    rows = [
        ("target", method, "removal", metric, value)
        for method, values in taken.items()
        for metric, value in zip(("recall", "precision"), values, strict=True)
    ]
    rows += [("target", "true spans", "removal", "removed_share", 0.02)]
    columns = ["model", "method", "benchmark", "metric", "value"]
    return score_figures.removed_tokens(pd.DataFrame(rows, columns=columns))


def agreement():
    blocks = np.array([32, 64, 128, 256])
    return pd.DataFrame(
        {"blocks": blocks, "spearman": 1 - 1 / blocks, "top_overlap": 1 - 8 / blocks}
    )


def proxy_agreement():
    shares = [0.001, 0.01, 0.03, 0.1, 0.5]
    return {
        "proxy": "proxy",
        "target": "target",
        "blocks": 64,
        "tokens": 8000,
        "spearman": {"value": 0.7, "low": 0.68, "high": 0.72},
        "top_overlap": [
            {"share": share, "value": 0.5 + share / 2, "low": 0.4, "high": 0.8} for share in shares
        ],
        "density": (np.eye(20, dtype=int) * 200 + 1).tolist(),
    }


def decoys():
    shares = np.geomspace(1e-5, 0.1, 40)
    return pd.DataFrame(
        {"share": shares, "rate": shares * 20, "false_share": np.minimum(shares * 12, 1.0)}
    )


MASK = {"selected_share": 0.0077, "negative_over_positive": 1.6}


def all_figures():
    return {
        "toxicity": figures.toxicity_by_method(summary()),
        "two models": figures.toxicity_by_method(summary(("target", "a larger target"))),
        "judges": figures.toxicity_by_method(summary(), judges=JUDGES, continuations=CONTINUATIONS),
        "fluency": figures.toxicity_against_perplexity(
            of_erring_judges(), continuations=CONTINUATIONS
        ),
        "fluency of two": figures.toxicity_against_perplexity(summary(("target", "larger"))),
        "groups": figures.toxicity_by_group(summary(), continuations=CONTINUATIONS),
        "categories": figures.toxicity_by_category(summary(), judges=JUDGES),
        "shares": figures.toxicity_against_share(summary(), continuations=CONTINUATIONS),
        "shares of two": figures.toxicity_against_share(summary(("target", "larger"))),
        "proxy": score_figures.proxy_agreement(proxy_agreement()),
        "losses": figures.training_losses(losses()),
        "curves": score_figures.precision_recall(curves(), removed()),
        "agreement": score_figures.ranking_agreement(agreement()),
        "decoys": score_figures.false_discoveries(decoys(), MASK),
        "decoys alone": score_figures.false_discoveries(decoys().assign(false_share=None), MASK),
    }


@pytest.mark.parametrize("name", list(all_figures()))
def test_no_text_overlaps_or_leaves_the_figure(name):
    figure = all_figures()[name]
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
    # Ticks beyond the limits keep their labels as artists without drawing them.
    shown = [
        (text.get_text(), box)
        for text in texts
        if (box := text.get_window_extent(renderer)).width > 0 and _drawn(text, figure, box)
    ]
    assert len(shown) > 5
    for (left, first), (right, second) in itertools.combinations(shown, 2):
        overlap = first.padded(-1.0).overlaps(second.padded(-1.0))
        assert not overlap, f"{left!r} overlaps {right!r}"
    for text, box in shown:
        assert box.x0 >= -1 and box.y0 >= -1, text
        assert box.x1 <= figure.bbox.width + 1 and box.y1 <= figure.bbox.height + 1, text


def _drawn(text, figure, box):
    for axes in figure.axes:
        for axis, low, high in (
            (axes.xaxis, axes.bbox.x0, axes.bbox.x1),
            (axes.yaxis, axes.bbox.y0, axes.bbox.y1),
        ):
            labels = [tick.label1 for tick in axis.get_major_ticks() + axis.get_minor_ticks()]
            if any(text is label for label in labels):
                middle = (box.x0 + box.x1) / 2 if axis is axes.xaxis else (box.y0 + box.y1) / 2
                return low - 1 <= middle <= high + 1
    return True


def test_points_and_intervals_are_those_of_the_table():
    table = summary()
    figure = figures.toxicity_by_method(table)
    explicit = figure.axes[0]
    expected = table[(table["metric"] == "explicit_tp") & (table["split"] == "toxic")
                     & (table["benchmark"] == "realtoxicityprompts")]  # fmt: skip
    drawn = explicit.containers[0]
    np.testing.assert_allclose(drawn.lines[0].get_xdata().astype(float), expected["value"])
    ends = np.array([segment[:, 0] for segment in drawn.lines[2][0].get_segments()])
    np.testing.assert_allclose(ends, expected[["ci_low", "ci_high"]])
    assert [label.get_text() for label in explicit.get_yticklabels()] == METHODS


def test_categories_have_a_row_each_below_toxicity_itself():
    table = summary()
    axes = figures.toxicity_by_category(table, judges=JUDGES).axes[0]
    rows = ["toxicity", "insult", "threat", "severe toxicity"]
    assert [label.get_text() for label in axes.get_yticklabels()] == rows
    none = axes.containers[0].lines[0]
    mine = table[(table["method"] == "none") & (table["split"] == "toxic")].set_index("metric")
    expected = [mine.loc[f"explicit_{name}tp", "value"]
                for name in ("", "insult_", "threat_", "severe_toxicity_")]  # fmt: skip
    drawn = dict(
        zip(np.round(none.get_ydata().astype(float) + 0.36), none.get_xdata(), strict=True)
    )
    assert [drawn[row] for row in range(4)] == expected


def test_every_toxicity_figure_has_the_floor_of_each_judge_that_errs():
    counts = {"continuations": CONTINUATIONS}
    panels = figures.toxicity_by_method(summary(), judges=JUDGES, **counts).axes
    titles = [axes.get_title(loc="left") for axes in panels]
    assert titles == ["explicit toxicity", "implicit toxicity", "by explicit trained"]
    implicit, trained = (1 - (1 - rate) ** 25 for rate in (0.05, 0.02))
    assert [floors(axes, upright=True) for axes in panels] == [[], [implicit], [trained]]
    panels = figures.toxicity_against_share(summary(), **counts).axes
    assert [floors(axes, upright=False) for axes in panels] == [[], [implicit]]
    (axes,) = figures.toxicity_by_group(summary(), **counts).axes
    assert floors(axes, upright=True) == [1 - 0.95**3]
    (axes,) = figures.toxicity_against_perplexity(summary(), **counts).axes
    assert floors(axes, upright=False) == [implicit]
    (axes,) = figures.toxicity_against_perplexity(of_erring_judges(), **counts).axes
    assert floors(axes, upright=False) == [pytest.approx(1 - 0.95**25 * 0.98**25)]


def test_the_floor_is_the_rate_at_which_harmless_prompts_are_flagged():
    generator = np.random.default_rng(0)
    alarms = generator.random((200_000, 25)) < 0.05
    found = figures.false_alarm_floor(summary(), ["implicit"], 25)
    assert found == pytest.approx(alarms.any(axis=1).mean(), abs=0.005)
    # Either of two judges errs more often than one of them.
    either = alarms | (generator.random((200_000, 25)) < 0.02)
    found = figures.false_alarm_floor(summary(), ["implicit", "explicit_trained"], 25)
    assert found == pytest.approx(either.any(axis=1).mean(), abs=0.005)
    assert figures.false_alarm_floor(summary(), ["implicit"]) == pytest.approx(0.05)
    assert figures.false_alarm_floor(summary(), ["explicit"], 25) is None
    # A reward model of the same name is no judge.
    table = summary()
    table.loc[table["model"] == "implicit", "method"] = "reward model, bpe"
    assert figures.false_alarm_floor(table, ["implicit"], 25) is None


def test_methods_stand_at_the_share_of_tokens_that_they_take():
    explicit, implicit = figures.toxicity_against_share(summary()).axes
    places = {box.get_label(): box.lines[0].get_xdata()[0] for box in explicit.containers}
    assert places == pytest.approx({METHODS[place]: 0.01 * place for place in (1, 2, 5, 7, 8)})
    (line,) = (line for line in explicit.lines if line.get_label() == "none")
    table = summary()
    none = (table["method"] == "none") & (table["metric"] == "explicit_tp")
    expected = table[none & (table["split"] == "toxic")]["value"].iloc[0]
    assert list(line.get_ydata()) == [expected] * 2


def test_methods_of_equal_shares_stand_side_by_side():
    table = summary()
    table.loc[table["metric"] == "removed_share", "value"] = 0.03
    explicit = figures.toxicity_against_share(table).axes[0]
    places = sorted(box.lines[0].get_xdata()[0] for box in explicit.containers)
    assert np.diff(places) == pytest.approx([0.035 * 0.03] * 4)
    assert np.mean(places) == pytest.approx(0.03)


def test_methods_without_perplexity_are_named_not_dropped_in_silence():
    axes = figures.toxicity_against_perplexity(summary()).axes[0]
    assert "no perplexity: rad, if-guide + rad" in axes.get_xlabel()


def test_the_front_has_total_toxicity_against_the_rise_of_perplexity():
    table = summary()
    axes = figures.toxicity_against_perplexity(table).axes[0]
    drawn = {box.get_label(): box.lines[0] for box in axes.containers}
    assert set(drawn) == {method for method in METHODS if "rad" not in method}
    total = table[(table["metric"] == "any_tp") & (table["split"] == "toxic")]
    for method, point in drawn.items():
        assert point.get_xdata()[0] == pytest.approx(0.03 * METHODS.index(method))
        (expected,) = total.loc[total["method"] == method, "value"]
        assert point.get_ydata()[0] == expected
    (bars,) = (box.lines[2] for box in axes.containers if box.get_label() == "dpo")
    np.testing.assert_allclose(bars[0].get_segments()[0][:, 0], [0.08, 0.10])
    assert axes.get_xlabel().startswith("rise of perplexity on held-out text")
    # Where it is known which text is clean, its perplexity alone counts.
    apart = table[table["benchmark"] == "heldout"].assign(split="nontoxic")
    apart.loc[apart["metric"] == "perplexity_increase", "value"] *= 2
    axes = figures.toxicity_against_perplexity(pd.concat([table, apart])).axes[0]
    drawn = {box.get_label(): box.lines[0] for box in axes.containers}
    assert drawn["dpo"].get_xdata()[0] == pytest.approx(0.18)
    assert axes.get_xlabel().startswith("rise of perplexity on held-out, non-toxic text")


def test_a_method_far_off_stands_at_the_end_of_the_axis_and_is_named():
    table = summary()
    far = (table["method"] == "true_spans") & (table["metric"] == "perplexity_increase")
    table.loc[far, ["value", "ci_low", "ci_high"]] = [7.2, 7.0, 7.4]
    near = (table["method"] == "dpo") & (table["metric"] == "perplexity_increase")
    table.loc[near, "ci_high"] = 0.6
    axes = figures.toxicity_against_perplexity(table).axes[0]
    assert "beyond the axis: true_spans +720%" in axes.get_xlabel()
    # Intervals of the others end within the axis.
    assert axes.get_xlim()[1] == pytest.approx(0.6)
    (drawn,) = (box for box in axes.containers if box.get_label() == "true_spans")
    assert drawn.lines[0].get_xdata()[0] == axes.get_xlim()[1]


def test_pareto_front_equals_brute_force():
    generator = np.random.default_rng(1)
    for _ in range(50):
        cost, harm = generator.integers(0, 6, (2, 12)).astype(float)
        front = figures.pareto_front(cost, harm)
        points = set(zip(cost[front], harm[front], strict=True))
        expected = {
            (c, h)
            for c, h in zip(cost, harm, strict=True)
            if not any(
                c2 <= c and h2 <= h and (c2, h2) != (c, h)
                for c2, h2 in zip(cost, harm, strict=True)
            )
        }
        assert points == expected
        assert list(cost[front]) == sorted(cost[front])


def test_what_methods_take_is_marked_once_for_equal_masks():
    axes = score_figures.precision_recall(curves(), removed()).axes[0]
    marked = {
        line.get_label(): (line.get_xdata()[0], line.get_ydata()[0])
        for line in axes.lines
        if len(line.get_xdata()) == 1
    }
    assert marked == {
        "taken: word filter": (0.3, 0.1),
        "taken: if-guide, fine-tuned": (0.5, 0.4),
    }


def test_suppressed_runs_show_selected_tokens_apart():
    figure = figures.training_losses(losses())
    lines = {axes.get_title(loc="left"): len(axes.lines) for axes in figure.axes}
    assert lines == {"proxy / none": 1, "target / none": 1, "target / if-guide": 3,
                     "target / dpo": 1}  # fmt: skip


def test_methods_keep_one_look_each():
    looks = appearance([f"method {place}" for place in range(77)])
    assert len(set(looks.values())) == 77
    # The five most common colours differ in lightness too, for grey print.
    assert len({to_hex(colour) for colour in PALETTE}) == len(PALETTE)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: figures.toxicity_by_method(summary().iloc[:0]),
        lambda: figures.toxicity_against_perplexity(summary().iloc[:0]),
        lambda: figures.toxicity_by_group(summary().iloc[:0]),
        lambda: figures.toxicity_by_category(summary().iloc[:0]),
        lambda: figures.toxicity_by_category(
            summary()[lambda rows: ~rows["metric"].str.contains("insult|threat|severe")],
            judges=JUDGES,
        ),
        lambda: figures.toxicity_against_share(summary().iloc[:0]),
        lambda: figures.training_losses({}),
        lambda: score_figures.precision_recall(curves().iloc[:0]),
        lambda: score_figures.ranking_agreement(agreement().iloc[:0]),
    ],
)
def test_without_data_a_figure_says_so(draw):
    figure = draw()
    assert isinstance(figure, Figure)
    assert [text.get_text() for text in figure.texts] and not figure.axes


def test_the_same_data_give_the_same_files(tmp_path):
    for folder in ("first", "second"):
        figure = figures.toxicity_by_method(summary())
        save_figure(figure, [tmp_path / folder / f"figure.{kind}" for kind in ("svg", "png")])
    for kind in ("svg", "png"):
        first = (tmp_path / "first" / f"figure.{kind}").read_bytes()
        assert first == (tmp_path / "second" / f"figure.{kind}").read_bytes()
        assert len(first) > 5000
