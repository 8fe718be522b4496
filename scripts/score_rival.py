"""Scores of all tokens of the corpus by a rival of influence, and what the rival has fitted for it.

settings: {kind of rival: its options, "scores": {"blocks", ...}, "attribution": "loss", "seed":
int}, the kind being "rho", "saliency", "ate" or "token_classifier". --given: where its inputs lie,
as of `workflow.rivals`. With "blocks", the scores of blocks outside that sample are NaN.
"""

from ifguide.workflow.command_line import argument_parser, run

import json
import logging
import shutil
from argparse import Namespace
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ifguide.data.corpus import Corpus, open_corpus
from ifguide.data.preferences import PreferencePair
from ifguide.data.tokenizers import load_tokenizer
from ifguide.errors import InputError
from ifguide.evaluation.judge import TOXICITY
from ifguide.evaluation.judge_forms import judge_identity, open_judge
from ifguide.evaluation.judge_saliency import text_saliencies
from ifguide.files.artifacts import (
    canonical_json,
    read_jsonl,
    require_same,
    stream_jsonl,
    text_sha256,
    write_array,
    write_json,
)
from ifguide.files.checksums import RecordedTogether, verified_sha256
from ifguide.files.tensor_files import tensors_sha256, write_tensors
from ifguide.files.tensor_metadata import TENSORS
from ifguide.influence.document_scores import (
    document_tokens,
    documents_again,
    highest_touched,
    in_blocks,
    shared_out,
)
from ifguide.influence.excess_loss import excess_loss_scorer
from ifguide.influence.factor_blocks import sampled_blocks
from ifguide.influence.token_classifier import (
    encoder_scores,
    labelled_texts,
    labelled_tokens,
    train_encoder,
)
from ifguide.influence.treatment_effects import (
    EffectSettings,
    word_effects,
    word_spans,
    words_of,
)
from ifguide.models.loading import compute_device, load_model, verified_weights_sha256
from ifguide.seeds import derive_seed

log = logging.getLogger(__name__)


class Scored(NamedTuple):
    """What a rival gives: scores of each shard, float32 (blocks, T), and where they come from.

    tensors: what it has fitted; described: text beside them; made_from: hashes of what it read.
    """

    shards: Iterable[np.ndarray]
    tensors: dict[str, torch.Tensor]
    described: dict[str, str]
    made_from: dict[str, object]


def main(arguments: Namespace) -> None:
    settings, given = arguments.settings, arguments.given
    corpus = open_corpus(arguments.corpus)
    (kind,) = RIVALS.keys() & settings.keys()
    scratch = arguments.rival.with_name(f".{arguments.rival.stem}.trainer")
    scored = RIVALS[kind](corpus, settings[kind], given, settings, scratch)
    weights = text_sha256(canonical_json(scored.made_from))
    tensors = tensors_sha256(scored.tensors)
    unscored = unscored_blocks(corpus, settings)
    with RecordedTogether(arguments.output) as together:
        numbered = zip(arguments.output, scored.shards, corpus.meta["shards"], strict=True)
        for output, scores, shard in numbered:
            if not np.isfinite(scores).all():
                raise InputError(
                    f"config key influence.rivals: some scores of {kind} are not finite; train its "
                    "models or judge at a lower learning rate"
                )
            rows = slice(shard["first_block"], shard["first_block"] + shard["blocks"])
            scores[unscored[rows]] = np.nan
            write_array(output, scores, together.publish)
    shutil.rmtree(scratch, ignore_errors=True)
    write_tensors(
        arguments.rival,
        scored.tensors,
        {**scored.described, "weights_sha256": weights, TENSORS: tensors},
    )
    record = {
        "tokens_sha256": corpus.content_sha256,
        "weights_sha256": weights,
        "direction_sha256": tensors,
        "settings": settings,
        "made_from": scored.made_from,
    }
    for output in arguments.output:
        write_json(output.with_suffix(".json"), record)


def unscored_blocks(corpus: Corpus, settings: dict) -> np.ndarray:
    """Return which blocks are outside the sample that is scored: bool (blocks,)."""
    seed = derive_seed(settings["seed"], "scored blocks")
    unscored = np.ones(corpus.meta["blocks"], bool)
    unscored[sampled_blocks(corpus.meta["blocks"], settings["scores"]["blocks"], seed)] = False
    return unscored


# --- one function for each kind of rival: corpus, options, inputs, settings, scratch -> Scored ----


def by_excess_loss(corpus: Corpus, _: dict, given: dict, settings: dict, __: Path) -> Scored:
    made_from = {side: verified_weights_sha256(path) for side, path in given.items()}
    device = compute_device()
    score = excess_loss_scorer(
        load_model(given["model"]).to(device),
        load_model(given["reference"]).to(device),
        logits_budget_bytes=settings["scores"]["logits_budget_mib"] * 2**20,
    )
    size = settings["scores"]["batch_size"]

    def shards() -> Iterator[np.ndarray]:
        for shard, documents in zip(corpus.tokens.shards, corpus.documents.shards, strict=True):
            scores = np.zeros(shard.shape, np.float32)
            for start in range(0, len(shard), size):
                tokens = torch.from_numpy(shard[start : start + size].astype(np.int64))
                scores[start : start + size] = score(tokens.to(device)).cpu().numpy()
            yield scores * (documents >= 0)

    return Scored(shards(), {}, {}, made_from)


def by_saliency(corpus: Corpus, options: dict, given: dict, *_) -> Scored:
    judge = open_judge(options["classifier"], given["judge"])
    texts, made_from = read_judged(corpus, given)
    tokenizer = load_tokenizer(corpus.directory / "tokenizer")

    def scores() -> Iterator[np.ndarray]:
        found = text_saliencies(
            judge, (text for _, text in texts()), batch_size=options["batch_size"]
        )
        again = documents_again(corpus, texts(), tokenizer)
        for saliency, (_, tokens) in zip(found, again, strict=True):
            yield shared_out(saliency.values, saliency.offsets, tokens.offsets)

    return Scored(in_blocks(corpus, scores()), {}, {}, made_from)


def by_treatment_effect(corpus: Corpus, options: dict, given: dict, settings: dict, _) -> Scored:
    judge = open_judge(options["classifier"], given["judge"])
    texts, made_from = read_judged(corpus, given)
    tokenizer = load_tokenizer(corpus.directory / "tokenizer")
    chosen = EffectSettings(**{field.name: options[field.name] for field in fields(EffectSettings)})
    effects = word_effects(
        texts,
        lambda judged: judge.scores([""] * len(judged), judged)[TOXICITY],
        chosen,
        derive_seed(settings["seed"], "treatment effects"),
    )
    highest = sorted((-effect, word) for word, effect in effects.items() if effect > 0)[:20]
    log.info("%d words; of the largest effect: %s", len(effects), [word for _, word in highest])

    def scores() -> Iterator[np.ndarray]:
        for text, tokens in documents_again(corpus, texts(), tokenizer):
            values = np.array([effects.get(word, 0.0) for word in words_of(text)], np.float32)
            yield highest_touched(values, word_spans(text), tokens.offsets)

    words = sorted(effects)
    fitted = torch.tensor([effects[word] for word in words], dtype=torch.float32)
    described = {"words": canonical_json(words)}
    return Scored(in_blocks(corpus, scores()), {"effects": fitted}, described, made_from)


def read_judged(corpus: Corpus, given: dict):
    """Return what yields every document's number and text, and hashes of documents and judge."""
    path = Path(given["documents"])
    documents = verified_sha256(path)
    require_same("documents", corpus.meta["documents_sha256"], documents, path)

    def texts() -> Iterator[tuple[int, str]]:
        return ((record["document"], record["text"]) for record in stream_jsonl(path))

    return texts, {"documents": documents, "judge": judge_identity(given["judge"])}


def by_token_classifier(
    corpus: Corpus, options: dict, given: dict, settings: dict, scratch: Path
) -> Scored:
    tokenizer = load_tokenizer(corpus.directory / "tokenizer")
    ((form, path),) = given.items()
    records = read_jsonl(path)
    if form == "pairs":
        pairs = [PreferencePair(**record) for record in records]
        texts = labelled_tokens(tokenizer, pairs, options["max_length"])
    else:
        texts = labelled_texts(
            tokenizer,
            [record["text"] for record in records],
            [record["label"] for record in records],
            options["max_length"],
        )
    encoder = train_encoder(
        tokenizer,
        texts,
        settings=options,
        seed=derive_seed(settings["seed"], "token classifier"),
        scratch=scratch,
    )
    scores = encoder_scores(encoder, document_tokens(corpus), corpus.meta["end_of_text"])
    fitted = {name: tensor.detach().cpu() for name, tensor in encoder.state_dict().items()}
    return Scored(in_blocks(corpus, scores), fitted, {}, {form: verified_sha256(path)})


RIVALS = {
    "rho": by_excess_loss,
    "saliency": by_saliency,
    "ate": by_treatment_effect,
    "token_classifier": by_token_classifier,
}

if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--given", type=json.loads, required=True, metavar="JSON")
    parser.add_argument("--rival", type=Path, required=True, help="file of what it has fitted")
    parser.add_argument("--output", type=Path, nargs="+", required=True, help="one a shard")
    run(main, parser)
