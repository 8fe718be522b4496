"""Train one reward model on labelled texts, with a language model's tokenizer, and measure it.

settings: {"names": [reward, tokenizer], "train": {...}, "seed": int}. Texts of one record are all
held out, or none of them.
"""

from ifguide.workflow.command_line import argument_parser, run

import logging
import shutil
from argparse import Namespace
from pathlib import Path

import numpy as np

from ifguide.data.labelled_texts import divided, read_labelled_texts
from ifguide.data.tokenizers import load_tokenizer
from ifguide.evaluation.generation_metrics import metric_row
from ifguide.evaluation.metrics import ranking_intervals
from ifguide.files.artifacts import write_json
from ifguide.models.loading import save_model
from ifguide.models.reward_model import load_reward_model, prefix_rewards, train_reward_model
from ifguide.seeds import derive_seed

log = logging.getLogger(__name__)


def main(arguments: Namespace) -> None:
    settings, seed = arguments.settings["train"], arguments.settings["seed"]
    reward, tokenizer_name = arguments.settings["names"]
    tokenizer = load_tokenizer(arguments.tokenizer)
    labelled = read_labelled_texts(arguments.texts)
    training, testing = divided(labelled, settings["held_out"], seed, "reward")
    scratch = arguments.output.with_name(f".{arguments.output.name}.trainer")
    model = train_reward_model(
        tokenizer,
        [x.text for x in training],
        [x.label for x in training],
        settings=settings,
        seed=derive_seed(seed, "reward", reward),
        scratch=scratch,
    )
    shutil.rmtree(scratch, ignore_errors=True)
    weights = save_model(model, tokenizer, arguments.output)
    rewards = prefix_rewards(
        load_reward_model(arguments.output), tokenizer, [x.text for x in testing]
    )
    truth = np.array([x.label for x in testing]) >= 0.5
    interval = ranking_intervals(
        truth,
        np.array([values[-1].item() for values in rewards]),
        np.arange(len(truth)),
        seed=derive_seed(seed, "intervals", "rewards"),
    )["auroc"]
    quality = {
        "benchmark": "classifiers",
        "model": reward,
        "method": f"reward model, {tokenizer_name}",
        "seed": 0,
        "rows": [metric_row("all", "auroc", interval, len(truth))],
        "training_texts": len(training),
        "held_out_texts": len(testing),
        "held_out_toxic": int(truth.sum()),
        "weights_sha256": weights,
    }
    log.info("%s", quality)
    write_json(arguments.output / "quality.json", quality)


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
