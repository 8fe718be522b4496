"""The masks of published and of best scores: one method each, and as many tokens."""

import re

import numpy as np
import pytest

from conftest import TINY, copy_run, run_snakemake
from ifguide.files.artifacts import read_json
from ifguide.influence.token_weights import unmoved

COMPARISON = "config/overlays/score_comparison.yaml"
METHODS = ("published_scores", "best_scores")

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("base", [[], ["config/real_text.yaml"]])
def test_two_trainings_end_in_the_usual_table(repository, tmp_path, base):
    configs = [repository / config for config in (*base, COMPARISON)]
    arguments = ["--snakefile", repository / "workflow/Snakefile", "--directory", tmp_path]
    ran = run_snakemake(
        repository, *arguments, "--cores", "1", "--dry-run", "--configfile", *configs
    )
    assert ran.returncode == 0, ran.stdout
    jobs = {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", ran.stdout, re.M)}
    # The proxy, and three targets.
    assert (jobs["make_model"], jobs["measure_removal"], jobs["summarize"]) == (4, 2, 1)


@pytest.fixture(scope="module")
def compared(finished, tmp_path_factory):
    """The tiny run, with both masks and their purity made."""
    clone = copy_run(finished, tmp_path_factory.mktemp("compared") / "clone")
    wanted = [f"results/tiny/removal/target/{method}.json" for method in METHODS]
    ran = run_snakemake(clone, "--cores", "2", *wanted, "--configfile", TINY, COMPARISON)
    assert ran.returncode == 0, ran.stdout
    return clone / "results/tiny"


def joined(folder):
    return np.concatenate([np.load(path) for path in sorted(folder.glob("shard-*.npy"))])


def test_both_masks_have_as_many_tokens_by_the_same_rules(compared):
    records = {
        name: read_json(compared / f"influence/proxy/{name}/{name}/selection.json")
        for name in METHODS
    }
    published, best = (records[name] for name in METHODS)
    assert published["selected_tokens"] == best["selected_tokens"] == published["limit_tokens"]
    rules = ("quantile", "window", "limit", "documents", "rank_by")
    assert [published["settings"][rule] for rule in rules] == [best["settings"][r] for r in rules]
    masks = [joined(compared / f"influence/proxy/{name}/{name}/mask") for name in METHODS]
    assert (masks[0] != masks[1]).any()


def test_the_purity_is_that_of_each_mask_against_the_spans(compared):
    truth, documents = (joined(compared / f"corpus/bpe/{name}") for name in ("truth", "documents"))
    for name in METHODS:
        mask = joined(compared / f"influence/proxy/{name}/{name}/mask")
        rows = read_json(compared / f"removal/target/{name}.json")["rows"]
        found = {row["metric"]: row["value"] for row in rows}
        assert found["precision"] == pytest.approx(truth[mask].mean())
        assert found["recall"] == pytest.approx(mask[truth].mean())
        assert found["removed_share"] == pytest.approx(mask.sum() / (documents >= 0).sum())


def test_published_scores_select_at_the_place_that_predicts_a_token(compared):
    folder = compared / "influence/proxy/published_scores"
    scores = unmoved(joined(folder / "scores/position"))
    mask = joined(folder / "published_scores/mask")
    threshold = read_json(folder / "published_scores/selection.json")["threshold"]
    flagged = scores > threshold
    near = flagged.copy()
    near[:, 1:] |= flagged[:, :-1]
    near[:, :-1] |= flagged[:, 1:]
    assert not (mask & ~near).any()
    # Scores on their labels would flag other tokens.
    assert (mask & ~np.roll(near, 1, axis=1)).any()
