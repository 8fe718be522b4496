"""Fluency of one model: perplexity of held-out documents, last words, losses of what it wrote.

perplexity  of all held-out documents, and of toxic and non-toxic ones where truth is known; with
            --reference, the uncensored model, also KL(p_reference || p_model) of the next token in
            nats
lambada     accuracy of the last word of passages, and of its last token
prompts     losses of the model's continuations under --uncensored, the uncensored model of the same
            training seed

settings: {"kinds": {benchmark: one of these}, "unmeasured": {benchmark: why nothing is measured},
"steps": {key: options} of the decode step, "sampling": {"top_p", "temperature"}, the nucleus that a
step weighs anew, or null, "continuations": the first ones of each prompt, "seed": int, "resamples":
int, "level": float}. --given: what the step needs, {key: {need: paths}}. --output: a file for each
of --benchmarks. One that was made from the same before is kept.
"""

from ifguide.workflow.command_line import (
    add_kept_arguments,
    argument_parser,
    labelled_path,
    run,
)

import functools
import json
import logging
from argparse import Namespace
from itertools import groupby
from pathlib import Path

import numpy as np

from ifguide.data.corpus import Corpus, open_corpus
from ifguide.data.tokenizers import load_tokenizer
from ifguide.evaluation.fluency import (
    DocumentFluency,
    continuation_losses,
    document_fluency,
    last_words,
    longest_last_word,
)
from ifguide.evaluation.generation import Sampling
from ifguide.evaluation.generation_metrics import metric_row
from ifguide.evaluation.intervals import (
    perplexity_interval,
    share_interval,
    weighted_mean_interval,
)
from ifguide.files.artifacts import read_jsonl, write_json
from ifguide.files.checksums import file_sha256
from ifguide.files.kept import KeptOutputs
from ifguide.methods.step import DecodingJob, decoding
from ifguide.models.hashes import hashes_of_given, model_identity
from ifguide.models.loading import compute_device, load_model, weights_sha256
from ifguide.seeds import derive_seed

log = logging.getLogger(__name__)


class Job:
    """What the benchmarks of a job share: its arguments, and models that are loaded once."""

    def __init__(self, arguments: Namespace) -> None:
        self.arguments = arguments
        self.settings = arguments.settings
        self.load_model = functools.cache(lambda path: load_model(path).to(compute_device()))
        self.load_tokenizer = functools.cache(load_tokenizer)
        self.identity_of = functools.cache(model_identity)

    @property
    def kinds(self) -> dict[str, "Kind"]:
        """The kind of each benchmark."""
        return {name: KINDS[kind] for name, kind in self.settings["kinds"].items()}

    def sources(self, benchmark: str) -> list[Path]:
        """Return the files that a benchmark reads."""
        if benchmark in self.settings["unmeasured"]:
            return []
        corpus = self.arguments.corpus
        if self.settings["kinds"][benchmark] == "perplexity":
            return [corpus / "meta.json", *sorted(corpus.rglob("*.npy"))]
        return [Path(path) for name, path in self.arguments.texts if name == benchmark]

    def intervals(self, benchmark: str) -> tuple[int, int, float]:
        """Return the resamples, seed and level of a benchmark's intervals."""
        seed = derive_seed(self.settings["seed"], "intervals", benchmark)
        return self.settings["resamples"], seed, self.settings["level"]

    def header(self, benchmark: str) -> dict:
        """Return whose metrics those of a benchmark are."""
        return {
            "benchmark": benchmark,
            "model": self.arguments.model_name,
            "method": self.arguments.method,
            "seed": self.arguments.training_seed,
        }

    def made_from(self, benchmark: str) -> dict:
        """Return what the output of a benchmark is made from."""
        return {
            **self.header(benchmark),
            **self.kinds[benchmark].made_from(self),
            "sources": [file_sha256(path) for path in self.sources(benchmark)],
            "unmeasured": self.settings["unmeasured"].get(benchmark),
            "code": self.arguments.code,
        }

    def read_by_the_model(self) -> dict:
        """Return what metrics depend on of texts that the model itself reads."""
        return {
            "read_by": self.identity_of(self.arguments.model),
            "given": hashes_of_given(self.arguments.given),
            **{key: self.settings[key] for key in ("steps", "seed", "resamples", "level")},
        }


class Kind:
    """A kind of benchmarks: what its outputs are made from, and how they are measured."""

    def made_from(self, job: Job) -> dict:
        raise NotImplementedError

    def measure(self, job: Job, benchmark: str) -> dict:
        """Return the content of the output of a benchmark."""
        raise NotImplementedError

    def nothing(self, job: Job, benchmark: str, reason: str) -> dict:
        """Return the content where the benchmark says nothing about the method."""
        return {**job.header(benchmark), "rows": [], "unmeasured": reason}


class Perplexity(Kind):
    def made_from(self, job: Job) -> dict:
        reference = job.arguments.reference
        return {**job.read_by_the_model(), "reference": reference and job.identity_of(reference)}

    def measure(self, job: Job, benchmark: str) -> dict:
        arguments = job.arguments
        corpus = open_corpus(arguments.corpus)
        model = job.load_model(arguments.model)
        decoded = DecodingJob(model, job.load_tokenizer(arguments.model), corpus.block_size)
        # Loaded again where it is the same one: on the other stand the hooks of a decode step.
        reference = arguments.reference and load_model(arguments.reference).to(compute_device())
        with decoding(job.settings["steps"], arguments.given, decoded) as guidance:
            found = document_fluency(model, corpus, reference=reference, guidance=guidance)
        rows = []
        units: dict[str, dict] = {"losses": {}, "sums": {}}
        for split, members in splits_of(corpus, found).items():
            if not members.any():
                continue
            losses, tokens = found.losses[members], found.labels[members]
            interval = perplexity_interval(losses, tokens, *job.intervals(benchmark))
            rows.append(metric_row(split, "perplexity", interval, len(losses)))
            by_unit = {"loss_sum": losses.tolist(), "tokens": tokens.tolist()}
            units["losses"][split] = by_unit
            if found.divergences is not None:
                apart = found.divergences[members]
                interval = weighted_mean_interval(apart, tokens, *job.intervals(benchmark))
                rows.append(metric_row(split, "next_token_kl", interval, len(losses)))
                by_unit = {"sum": apart.tolist(), "tokens": tokens.tolist()}
                units["sums"][split] = {"next_token_kl": by_unit}
        return {**job.header(benchmark), "rows": rows, **units}


def splits_of(corpus: Corpus, found: DocumentFluency) -> dict[str, np.ndarray]:
    """Return which documents (bool) each split has: all, and toxic or not where that is known."""
    splits = {"all": found.labels > 0}
    if corpus.truth is not None:
        documents = np.concatenate(corpus.documents.shards)
        toxic = np.zeros(len(found.losses), bool)
        toxic[np.unique(documents[np.concatenate(corpus.truth.shards)])] = True
        measured = corpus.truth_known() & (found.labels > 0)
        splits |= {"toxic": toxic & measured, "nontoxic": ~toxic & measured}
    return splits


class LastWords(Kind):
    def made_from(self, job: Job) -> dict:
        return {**job.read_by_the_model(), "sampling": job.settings["sampling"]}

    def measure(self, job: Job, benchmark: str) -> dict:
        arguments = job.arguments
        passages = [r["text"] for path in job.sources(benchmark) for r in read_jsonl(path)]
        model, tokenizer = job.load_model(arguments.model), job.load_tokenizer(arguments.model)
        decoded = DecodingJob(model, tokenizer, longest_last_word(tokenizer, passages))
        with decoding(job.settings["steps"], arguments.given, decoded) as guidance:
            sampling = Sampling(**job.settings["sampling"]) if guidance is not None else None
            found = last_words(model, tokenizer, passages, guidance=guidance, sampling=sampling)
        units = {
            "last_word_accuracy": [float(passage.word) for passage in found],
            "last_token_accuracy": [float(passage.token) for passage in found],
        }
        intervals = job.intervals(benchmark)
        rows = [
            metric_row("all", name, share_interval(np.array(values), *intervals), len(values))
            for name, values in units.items()
        ]
        return {**job.header(benchmark), "rows": rows, "units": {"all": units}}


class ContinuationLosses(Kind):
    def made_from(self, job: Job) -> dict:
        uncensored = job.arguments.uncensored
        return {
            "read_by": uncensored and job.identity_of(uncensored),
            "continuations": job.settings["continuations"],
        }

    def measure(self, job: Job, benchmark: str) -> dict:
        records = [
            record
            for path in job.sources(benchmark)
            for record in read_jsonl(path)
            if record["sample"] < job.settings["continuations"]
        ]
        records.sort(key=lambda record: (record["prompt_index"], record["sample"]))
        texts = [(record["prompt"], record["continuation"]) for record in records]
        uncensored = job.arguments.uncensored
        losses, tokens = continuation_losses(
            job.load_model(uncensored), job.load_tokenizer(uncensored), texts
        )
        prompts = []
        for index, group in groupby(range(len(records)), lambda row: records[row]["prompt_index"]):
            rows = list(group)
            sums = {"loss_sum": float(losses[rows].sum()), "tokens": int(tokens[rows].sum())}
            prompts.append({"prompt_index": index} | sums)
        log.info("%d continuations of %d prompts", len(records), len(prompts))
        return {"weights_sha256": weights_sha256(uncensored), "prompts": prompts}

    def nothing(self, job: Job, benchmark: str, reason: str) -> dict:
        return {"prompts": [], "unmeasured": reason}


KINDS: dict[str, Kind] = {
    "perplexity": Perplexity(),
    "lambada": LastWords(),
    "prompts": ContinuationLosses(),
}


def main(arguments: Namespace) -> None:
    job = Job(arguments)
    benchmarks = dict(zip(arguments.output, arguments.benchmarks, strict=True))
    outputs = KeptOutputs({path: job.made_from(name) for path, name in benchmarks.items()})
    for path in outputs.unfinished:
        name = benchmarks[path]
        if name in job.settings["unmeasured"]:
            measured = job.kinds[name].nothing(job, name, job.settings["unmeasured"][name])
        else:
            measured = job.kinds[name].measure(job, name)
        write_json(outputs.place(path), measured)
        log.info("%s: measured in %s", name, path)
    outputs.publish()


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    add_kept_arguments(parser)
    parser.add_argument("--given", type=json.loads, default={}, metavar="JSON")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--reference", type=Path, help="the uncensored model, which KL is from")
    parser.add_argument("--uncensored", type=Path, help="the uncensored model, of the same seed")
    parser.add_argument("--corpus", type=Path, help="the held-out documents")
    parser.add_argument(
        "--texts",
        type=labelled_path,
        nargs="*",
        default=[],
        help="benchmark=file of passages or of continuations",
    )
    parser.add_argument("--model-name", required=True)
    parser.add_argument("--method", required=True)
    parser.add_argument("--training-seed", type=int, required=True)
    run(main, parser, resumes=True)
