"""Make the model of one method: train it, edit it, or both.

settings: {"trains": bool and, if so, "architecture": {...}, "training": {...}; "steps": {key:
options} of the train and edit steps, "names": [model, method], "training_seed": int, "seed": int}.
--given: what each step needs, {key: {need: paths}}. A method without a train step learns its corpus
as it is. Started by torchrun, the processes share every step, and the first one writes.
"""

from ifguide.workflow.command_line import argument_parser, run

import json
import shutil
import time
from argparse import Namespace
from pathlib import Path

from ifguide.files.artifacts import write_json
from ifguide.methods.step import EditJob, given_of, step_at
from ifguide.models.loading import (
    TRAINING_RECORD,
    compute_device,
    load_model,
    require_finite,
    require_vocabulary,
    save_model,
    weights_sha256,
)
from ifguide.models.losses_file import LOSS_COLUMNS, write_losses
from ifguide.models.training_run import TrainedModel, TrainingRun, learn, tokens_learned_from


def main(arguments: Namespace) -> None:
    settings, output = arguments.settings, arguments.output
    job = TrainingRun(
        settings=settings,
        tokenizer_directory=arguments.tokenizer,
        output=output,
        checkpoint_steps=arguments.checkpoint_steps,
        corpus_directory=arguments.corpus,
        start_from=arguments.start_from,
    )
    train, edit = (step_at(settings["steps"], stage) for stage in ("train", "edit"))
    if train:
        trained = train.train(job, given_of(train, arguments.given))
    elif settings["trains"]:
        trained = learn(job)
    else:
        trained = as_it_is(job)
    if not job.is_first_process:
        return
    model, record = trained.model, trained.record
    if edit:
        if trained.weights is not None:
            model.load_state_dict(trained.weights)
        started = time.monotonic()
        model.eval().to(compute_device())
        edit.edit(
            EditJob(model, job.tokenizer(), job.seed("edit")), given_of(edit, arguments.given)
        )
        record = {**record, "seconds": record["seconds"] + time.monotonic() - started}
    weights = None if edit else trained.weights
    saved = save_model(model, job.tokenizer(), output, weights)
    write_losses(output / "losses.csv", trained.losses, trained.columns)
    write_json(
        output / TRAINING_RECORD,
        {
            "settings": settings,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            **record,
            "weights_sha256": saved,
        },
    )
    shutil.rmtree(job.checkpoints, ignore_errors=True)


def as_it_is(job: TrainingRun) -> TrainedModel:
    """Return the model that a method without training begins with."""
    model = load_model(job.start_from, dtype="auto")
    require_finite(model, job.start_from)
    require_vocabulary(job.start_from, model.config.vocab_size, job.tokenizer())
    record = {
        "steps": None,
        "seconds": 0.0,
        "tokens_sha256": tokens_learned_from(job.start_from),
        "mask_sha256": None,
        "start_from_sha256": weights_sha256(job.start_from),
    }
    return TrainedModel(model, [], LOSS_COLUMNS, record)


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--given", type=json.loads, default={}, metavar="JSON")
    parser.add_argument("--corpus", type=Path, help="what is trained on, if anything is")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--start-from", type=Path, help="model directory to begin with")
    parser.add_argument("--checkpoint-steps", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser, resumes=True)
