"""Agreement of the proxy's token scores with the target's: against counting, and of a run."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from conftest import TINY, copy_run, run_snakemake
from ifguide.data.corpus import open_corpus
from ifguide.errors import InputError
from ifguide.evaluation.intervals import resample_weights
from ifguide.evaluation.ranking_agreement import CELLS, agreement_intervals, rank_density
from ifguide.files.artifacts import read_json
from ifguide.files.tensor_files import read_tensors
from ifguide.influence.token_scores import backward_scorer
from ifguide.models.loading import load_model
from measure_proxy_agreement import scores_of

TARGET = Path("results/tiny/influence/target/identity")
PROXY = Path("results/tiny/influence/proxy/identity")
MODELS = Path("results/tiny/models")


def scores(seed, blocks=12, length=9):
    generator = np.random.default_rng(seed)
    first = generator.normal(size=blocks * length).astype(np.float32)
    second = first + generator.normal(size=first.size).astype(np.float32)
    return first, second, np.repeat(np.arange(blocks) * 7, length)


def test_intervals_equal_a_bootstrap_of_whole_blocks_one_by_one():
    first, second, blocks = scores(1)
    shares = [0.01, 0.1, 0.5]
    found = agreement_intervals(first, second, blocks, shares, resamples=40, seed=5, level=0.9)

    def overlap(one, two, share):
        taken = max(1, round(share * len(one)))
        tops = [set(np.argsort(-ranking, kind="stable")[:taken]) for ranking in (one, two)]
        return len(tops[0] & tops[1]) / taken

    drawn = []
    for weights in np.concatenate(list(resample_weights(12, 40, 5))):
        chosen = [i for block in range(12) for _ in range(int(weights[block]))
                  for i in range(9 * block, 9 * block + 9)]  # fmt: skip
        one, two = first[chosen], second[chosen]
        drawn.append([*(overlap(one, two, share) for share in shares), spearmanr(one, two)[0]])
    low, high = np.quantile(np.array(drawn), [0.05, 0.95], axis=0)
    for place, (row, share) in enumerate(zip(found["top_overlap"], shares, strict=True)):
        assert row["share"] == share and row["value"] == overlap(first, second, share)
        assert [row["low"], row["high"]] == pytest.approx([low[place], high[place]])
    assert found["spearman"]["value"] == pytest.approx(spearmanr(first, second)[0])
    bounds = [found["spearman"]["low"], found["spearman"]["high"]]
    assert bounds == pytest.approx([low[-1], high[-1]])


def test_the_density_counts_every_token_once_at_its_ranks():
    first, second, _ = scores(2, blocks=50, length=8)
    density = rank_density(first, second)
    assert density.shape == (CELLS, CELLS) and density.sum() == 400
    # Without ties, each band of ranks holds as many tokens.
    assert (density.sum(axis=0) == 20).all() and (density.sum(axis=1) == 20).all()
    lowest = (np.argsort(np.argsort(first)) < 20) & (np.argsort(np.argsort(second)) < 20)
    assert density[0, 0] == lowest.sum()
    assert (np.diag(rank_density(first, first)) == 20).all()
    tied = np.zeros(400, np.float32)
    assert rank_density(tied, first)[CELLS // 2].sum() == 400


# --- a finished run ---


def test_both_models_score_the_same_labels_exactly(finished):
    corpus = open_corpus(finished / "results/tiny/corpus/bpe")
    budget = {"batch_size": 4, "logits_budget_mib": 16}
    blocks = np.array([2, len(corpus.tokens) - 1])
    for folder, name in ((PROXY, "proxy"), (TARGET, "target")):
        weights = finished / MODELS / name / "none/0"
        direction = finished / folder / "direction.safetensors"
        found = scores_of(weights, direction, corpus, blocks, budget)
        score = backward_scorer(
            load_model(weights), read_tensors(direction)[0], logits_budget_bytes=2**24
        )
        exact = score(torch.from_numpy(corpus.tokens.rows(blocks).astype(np.int64))).numpy()
        expected = [row[corpus.valid(block)][1:] for row, block in zip(exact, blocks, strict=True)]
        np.testing.assert_allclose(found, np.concatenate(expected), rtol=1e-3, atol=1e-5)
    with pytest.raises(InputError, match="made from weights"):
        scores_of(finished / MODELS / "proxy/none/0", direction, corpus, blocks, budget)


def test_a_finished_comparison_of_proxy_and_target(finished):
    found = read_json(finished / TARGET / "proxy_agreement.json")
    assert (found["proxy"], found["target"], found["blocks"]) == ("proxy", "target", 16)
    assert sum(map(sum, found["density"])) == found["tokens"] <= 16 * 127
    shares = [row["share"] for row in found["top_overlap"]]
    assert shares == sorted(shares) and 0.05 in shares
    for row in [found["spearman"], *found["top_overlap"]]:
        assert -1 <= row["low"] <= row["high"] <= 1 and -1 <= row["value"] <= 1
    assert (finished / "results/tiny/figures/proxy_agreement.svg").exists()


def test_a_selection_by_its_false_discoveries_is_compared_at_the_share_that_it_took(
    finished, tmp_path
):
    clone = copy_run(finished, tmp_path / "clone")
    (clone / "wide.yaml").write_text('report: {selection: "wide"}\n', encoding="utf-8")
    compared = "results/tiny/influence/target/identity/proxy_agreement.json"
    arguments = [compared, "--cores", "1", "--configfile", TINY, "wide.yaml"]
    ran = run_snakemake(clone, *arguments)
    assert ran.returncode == 0, ran.stdout
    selection = clone / "results/tiny/influence/proxy/differential/wide/selection.json"
    shares = [row["share"] for row in read_json(clone / compared)["top_overlap"]]
    assert read_json(selection)["selected_share"] in shares
