"""A method is made of steps, at most one a stage, which run in the order of STAGES.

A step is one module of this room, or of an installed package that names it in the entry-point group
`ifguide.methods`; its key in the config is the module's name. It declares its options, what it
needs and what it costs; the workflow, the plan, the evaluation and the report ask it, and none of
them knows a step by name.

Modules of steps are imported whenever the workflow is parsed: they import PyTorch and what loads it
only within their functions.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import inspect
import pkgutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from pydantic import TypeAdapter

from ifguide.data.file_lists import from_arguments
from ifguide.errors import InputError
from ifguide.models.work import Work
from ifguide.settings import options_type

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ifguide.data.corpus import Corpus
    from ifguide.evaluation.generation import Guidance
    from ifguide.models.model_shapes import ModelShape
    from ifguide.models.training_run import TrainedModel, TrainingRun

Stage = Literal["data", "train", "edit", "decode"]
STAGES: tuple[Stage, ...] = ("data", "train", "edit", "decode")
GROUP = "ifguide.methods"
# The key of a step under which its `strength` option is given several times.
STRENGTHS = "strengths"
# Keys of a method that are no steps.
RESERVED = ("start_from", "training", "compare_with", "decode")


# --- what a step may need -------------------------------------------------------------------------


@dataclass(frozen=True)
class Mask:
    """A selection's tokens, as many drawn at random, or those known to be toxic (no selection)."""

    selection: str | None
    tokens: Literal["selected", "random", "truth"] = "selected"


@dataclass(frozen=True)
class Ranking:
    """The documents that a selection ranks."""

    selection: str


@dataclass(frozen=True)
class DocumentToxicity:
    """The toxicity of every document or block of the corpus, by an entry of `classifiers`."""

    unit: Literal["document", "block"]
    classifier: str = "explicit"


@dataclass(frozen=True)
class HeldOutScores:
    """How a judge that is trained here, an entry of `classifiers`, scores held-out texts."""

    classifier: str


@dataclass(frozen=True)
class Words:
    """Files of words and phrases, one a line."""

    files: str


@dataclass(frozen=True)
class Pairs:
    """Pairs of a preferred and a rejected text; settings: of `data.preferences.read_pairs`."""

    files: str
    format: Literal["paradetox", "preference"]
    part: tuple[float, float] | None = None
    limit: int | None = None


@dataclass(frozen=True)
class Reward:
    """A reward model, an entry of `rewards`, with the tokenizer of the language model."""

    name: str


@dataclass(frozen=True)
class LabelledTexts:
    """Texts that are toxic or not, an entry of `texts`: a file of `data.labelled_texts`."""

    texts: str


@dataclass(frozen=True)
class Activations:
    """What the model that the step acts on computes on labelled texts, an entry of `texts`.

    A file of `models.activations`. A train or edit step acts on the model of `start_from`, a decode
    step on the method's own.
    """

    texts: str


@dataclass(frozen=True)
class Probe:
    """A linear probe of toxicity on these activations: a file of `models.probe`."""

    texts: str


@dataclass(frozen=True)
class Generations:
    """Continuations by the model that the step acts on, judged: an entry of `own_generations`.

    A file of `data.own_generations`.
    """

    name: str


@dataclass(frozen=True)
class Model:
    """The model of another method, with the same training seed: a model directory."""

    method: str


Need = (
    Mask
    | Ranking
    | DocumentToxicity
    | HeldOutScores
    | Words
    | Pairs
    | Reward
    | LabelledTexts
    | Activations
    | Probe
    | Generations
    | Model
)
# What `prepare` made, among what a decode step is given.
PREPARED = "prepared"
# Of each need, by name, the files and folders that a job is given.
Given = Mapping[str, list[Path]]


# --- what a step is given and gives ---------------------------------------------------------------


@dataclass(frozen=True)
class CorpusJob:
    """What a data step is given: a corpus, the documents it was made of, and its tokenizer."""

    corpus: Corpus
    documents: Path
    tokenizer: Path


@dataclass(frozen=True)
class EditJob:
    """What an edit step is given: the model to change, its tokenizer, and a seed."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    seed: int


@dataclass(frozen=True)
class DecodingJob:
    """What a decode step is given: the model, its tokenizer, and how many tokens may follow."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    new_tokens: int


@dataclass(frozen=True)
class PreparationJob:
    """What a decode step is given that prepares: the model, its tokenizer, and seeds."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    seed: int
    scratch: Path


@dataclass(frozen=True)
class Dropped:
    """What a data step keeps from training: units of a corpus, and of each the reason."""

    unit: Literal["document", "block"]
    reasons: dict[int, str]


class Sizes(Protocol):
    """How large a job is in which a step acts: what its work follows from.

    Nothing is counted before it is asked for, so that a plan speaks only of what it rests on.
    """

    @property
    def block_size(self) -> int:
        """Tokens of a training block."""

    @property
    def corpus_tokens(self) -> float:
        """Tokens of the corpus: the whole one for a data step, what that step left for others."""

    @property
    def shape(self) -> ModelShape:
        """Sizes of the language model; a data step is asked without one."""

    @property
    def training(self) -> Mapping[str, Any]:
        """The settings of the config section `training`, as the model's method resolves them."""

    @property
    def rows(self) -> float:
        """Texts at whose positions a decode step acts: continuations, or texts that are read."""

    @property
    def new_tokens(self) -> int:
        """Positions of each of these texts at which a decode step acts."""

    def records(self, need: str) -> float:
        """Return the records of a need of the step, by its name."""

    def encoder_of(self, reward: Reward) -> tuple[int, int]:
        """Return the width and the number of blocks of a reward model."""


class Step:
    """One thing that a method does, at one stage."""

    stage: ClassVar[Stage]
    # A model of `settings.Settings`, or a union of several.
    Options: ClassVar[Any]
    # The option that grows from nothing: a grid of it is `strengths` in the config.
    strength: ClassVar[str | None] = None
    # Kinds of benchmarks that say something about a method with this step.
    measured_on: ClassVar[tuple[str, ...]] = ("prompts", "perplexity", "lambada")
    # Why it is not measured on the others: for the report.
    unmeasured: ClassVar[str] = ""
    # What a train step learns from, and whether processes may share it.
    reads_corpus: ClassVar[bool] = True
    needs_start: ClassVar[bool] = False
    shares_steps: ClassVar[bool] = True
    # Whether its losses are of tokens, and so can stand beside others.
    losses_of_tokens: ClassVar[bool] = True

    def __init__(self, options: Any) -> None:
        self.options = options

    @classmethod
    def key(cls) -> str:
        """Return the key of the step in the config: the name of its module."""
        return cls.__module__.rpartition(".")[2]

    @classmethod
    def from_config(cls, section: Mapping) -> Step:
        """Return the step with the options of its section, which has been checked.

        Of several strengths it has none: each is a method of its own (`workflow.strengths`).
        """
        options = {key: value for key, value in section.items() if key != STRENGTHS}
        return cls(_options(cls).validate_python(options))

    def needs(self) -> dict[str, Need]:
        """Return what has to be made or fetched before the step can act.

        By the names of the options that name it: messages speak of a need by that key.
        """
        return {}

    def mistake(self) -> tuple[str, str] | None:
        """Return an option and what is wrong with it beside the others, or None."""
        return None

    def require_model(self, model: PreTrainedModel) -> None:
        """Refuse a model that a step at the stage edit or decode cannot act on.

        model: with names and shapes alone, whose tensors have no values; asked before the first
        job. Raises InputError, with what to do.
        """

    def training(self, settings: dict) -> dict:
        """Return the training settings of a method with this train step."""
        return settings

    def work(self, sizes: Sizes) -> Work:
        """Return what the step computes in one job, for the plan.

        data: beside reading and writing the corpus; train: all of the training; edit: all of the
        edit, which follows on the training, if there is one; decode: what comes on top of the
        language model's own pass.
        """
        return Work()

    def kept_share(self) -> float:
        """Return the share of the corpus's tokens that a data step keeps, at most."""
        return 1.0

    # A step has the one of these that belongs to its stage.

    def keep(self, job: CorpusJob, given: Given) -> Dropped:
        """Return what of a corpus is not trained on; the rest is kept."""
        raise NotImplementedError

    def train(self, run: TrainingRun, given: Given) -> TrainedModel:
        """Return a trained model."""
        raise NotImplementedError

    def edit(self, job: EditJob, given: Given) -> None:
        """Change weights of the job's model in place.

        It is saved as it is left, in evaluation mode and on whichever device.
        """
        raise NotImplementedError

    def prepare(self, job: PreparationJob, given: Given) -> dict[str, torch.Tensor]:
        """Return what a decode step fits once, for all its decoding: `given[PREPARED]` is its file.

        Only steps that have something to fit define it.
        """
        raise NotImplementedError

    def preparation_work(self, sizes: Sizes) -> Work:
        """Return what `prepare` computes, for the plan; `rows` and `new_tokens` are zero."""
        return Work()

    @classmethod
    def prepares(cls) -> bool:
        return cls.prepare is not Step.prepare

    def decode(self, job: DecodingJob, given: Given) -> AbstractContextManager[Guidance | None]:
        """Return a context in which the model speaks otherwise: by hooks, guidance or both.

        Forward hooks stand on modules below the output head. Guidance changes the next token's
        distribution; None where hooks are all.
        """
        raise NotImplementedError


def with_own_training(settings: dict, **own: Any) -> dict:
    """Return training settings of a train step with examples of its own, in place of the corpus.

    own: what its options give in place of the section's. Every step of the training is one batch.
    """
    kept = {key: value for key, value in settings.items() if key != "stop_at"}
    return {**kept, "max_steps": None, "accumulation": 1, **own}


@functools.cache
def _options(step: type[Step]) -> TypeAdapter:
    return TypeAdapter(options_type(step.Options))


# --- the steps of a method ------------------------------------------------------------------------


def steps_of(entry: Mapping) -> list[Step]:
    """Return the steps of a method's entry in the config, in the order of STAGES."""
    known = registered_steps()
    steps = [known[key].from_config(entry[key]) for key in entry if key in known]
    return sorted(steps, key=lambda step: STAGES.index(step.stage))


def graded_step(entry: Mapping) -> str | None:
    """Return the key of a method's step that names several strengths, if one does."""
    known = registered_steps()
    return next((key for key in entry if key in known and STRENGTHS in entry[key]), None)


def step_at(entry: Mapping, stage: Stage) -> Step | None:
    """Return the step of a method at one stage."""
    return next((step for step in steps_of(entry) if step.stage == stage), None)


def given_of(step: Step, given: Mapping[str, Mapping[str, list[str]]]) -> Given:
    """Return what a step is given, as paths, from what all steps of a job are given."""
    own = given.get(step.key(), {})
    return {name: list(map(Path, from_arguments(paths))) for name, paths in own.items()}


def read_prepared(job: DecodingJob, given: Given) -> dict[str, torch.Tensor]:
    """Return what `prepare` gave, on the device of the model that is decoded."""
    from ifguide.files.tensor_files import read_tensors

    (path,) = given[PREPARED]
    tensors, _ = read_tensors(path)
    return {name: tensor.to(job.model.device) for name, tensor in tensors.items()}


@contextmanager
def decoding(
    entry: Mapping, given: Mapping[str, Mapping[str, list[str]]], job: DecodingJob
) -> Iterator[Guidance | None]:
    """Have a model speak as a method's decode step has it, if the method has one."""
    step = step_at(entry, "decode")
    if step is None:
        yield None
    else:
        with step.decode(job, given_of(step, given)) as guidance:
            yield guidance


# --- the registry ---------------------------------------------------------------------------------


@functools.cache
def registered_steps() -> dict[str, type[Step]]:
    """Return every step by its key: those of this room, and those of installed packages.

    Raises InputError where two have one key, or an entry point names no step.
    """
    room = importlib.import_module(__package__)
    own = [f"{__package__}.{module.name}" for module in pkgutil.iter_modules(room.__path__)]
    found = {}
    for module in own:
        if module != __name__:
            step = step_of(importlib.import_module(module))
            found[step.key()] = step
    for point in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda p: p.name):
        step = point.load()
        step = step_of(step) if inspect.ismodule(step) else step
        if not (inspect.isclass(step) and issubclass(step, Step)):
            raise InputError(f"{point.value}, an entry point of {GROUP}, is no step of a method")
        if step.key() in RESERVED or step.stage not in STAGES:
            raise InputError(
                f"the step {step.key()} of {point.value}: its module cannot be named so, or its "
                f"stage is none of {', '.join(STAGES)}"
            )
        if found.get(step.key(), step) is not step:
            raise InputError(
                f"the step {step.key()} of {point.value} has the name of another one, in "
                f"{found[step.key()].__module__}; rename its module or uninstall its package"
            )
        found[step.key()] = step
    return found


def step_of(module: Any) -> type[Step]:
    """Return the one step that a module defines."""
    steps = [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, Step)
        and value.__module__ == module.__name__
    ]
    if len(steps) != 1:
        raise InputError(f"{module.__name__}: defines {len(steps)} steps; a module is one step")
    return steps[0]
