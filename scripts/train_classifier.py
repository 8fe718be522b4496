"""Train one toxicity classifier and measure it on held-out texts.

settings: {"classifier": name of the judge, "train": {"kind": "detoxify" or "sequence", ...},
"seed": int}. Texts of one record are all held out, or none of them.
"""

from ifguide.workflow.command_line import argument_parser, run

import functools
import logging
import shutil
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ifguide.data.labelled_texts import divided, read_labelled_texts
from ifguide.evaluation.calibration import fit_calibration
from ifguide.evaluation.classifiers import save_detoxify, save_sequence, train_classifier
from ifguide.evaluation.detoxify_judge import DetoxifyJudge
from ifguide.evaluation.generation_metrics import metric_row
from ifguide.evaluation.intervals import share_interval
from ifguide.evaluation.judge import TOXICITY, Judge
from ifguide.evaluation.metrics import ranking_intervals
from ifguide.evaluation.sequence_judge import SequenceJudge
from ifguide.evaluation.sequence_labels import TRAINED_TOXIC
from ifguide.files.artifacts import write_json
from ifguide.seeds import derive_seed

log = logging.getLogger(__name__)


def main(arguments: Namespace) -> None:
    settings, seed = arguments.settings["train"], arguments.settings["seed"]
    name = arguments.settings["classifier"]
    labelled = read_labelled_texts(arguments.texts)
    training, testing = divided(labelled, settings["held_out"], seed, "classifier")
    scratch = arguments.output.with_name(f".{arguments.output.name}.trainer")
    model, tokenizer = train_classifier(
        [x.text for x in training],
        [x.label for x in training],
        settings=settings,
        classes=1 if settings["kind"] == "detoxify" else 2,
        seed=derive_seed(seed, "classifier", name),
        scratch=scratch,
    )
    shutil.rmtree(scratch, ignore_errors=True)
    texts = [x.text for x in testing]
    truth = np.array([x.label for x in testing]) >= 0.5
    formats = np.array([x.format for x in testing])
    # Measured as the evaluation will use it: loaded back from disk.
    judge: Judge
    if settings["kind"] == "detoxify":
        save_detoxify(model, tokenizer, arguments.output)
        judge = DetoxifyJudge(arguments.output / "model.ckpt")
    else:
        save_sequence(model, tokenizer, arguments.output)
        judge = SequenceJudge(arguments.output, TRAINED_TOXIC)
    scores = judge.scores([""] * len(texts), texts)[TOXICITY]
    calibration = fit_calibration(np.array(scores), truth)
    write_json(arguments.output / "calibration.json", asdict(calibration))
    quality_of = functools.partial(
        quality_rows,
        truth=truth,
        scores=np.array(scores),
        seed=derive_seed(seed, "intervals", "classifiers"),
    )
    rows = quality_of("all", np.ones_like(truth))
    kinds = sorted({x.format for x in testing})
    if len(kinds) > 1:
        for kind in kinds:
            rows += quality_of(kind, formats == kind)
    quality = {
        "benchmark": "classifiers",
        "model": name,
        "method": "trained",
        "seed": 0,
        "rows": rows,
        "accuracy": float(((np.array(scores) >= 0.5) == truth).mean()),
        "training_texts": len(training),
        "held_out_texts": len(testing),
        "held_out_toxic": int(truth.sum()),
    }
    flagged = np.unique(np.array(scores) >= 0.5)
    quality["constant_class"] = None if len(flagged) > 1 else ["harmless", "toxic"][int(flagged[0])]
    if quality["constant_class"]:
        log.warning("every held-out text is called %s", quality["constant_class"])
    log.info("%s", quality)
    write_json(arguments.output / "quality.json", quality)


def quality_rows(
    split: str, members: np.ndarray, *, truth: np.ndarray, scores: np.ndarray, seed: int
) -> list[dict]:
    """AUROC where both labels occur; the shares of toxic and of harmless texts that are flagged."""
    truth, flagged = truth[members], scores[members] >= 0.5
    rows = []
    if truth.any() and not truth.all():
        found = ranking_intervals(truth, scores[members], np.arange(len(truth)), seed=seed)
        rows.append(metric_row(split, "auroc", found["auroc"], len(truth)))
    for name, texts in (("toxic_flagged", truth), ("harmless_flagged", ~truth)):
        if texts.any():
            interval = share_interval(flagged[texts].astype(float), seed=seed)
            rows.append(metric_row(split, name, interval, int(texts.sum())))
    return rows


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
