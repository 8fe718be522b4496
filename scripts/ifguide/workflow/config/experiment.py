"""The whole config of an experiment."""

from pydantic import Field

from ifguide.settings import OrAbsent, Settings, section
from ifguide.workflow.config.contamination import Contamination
from ifguide.workflow.config.corpus import Corpus, Download, Planted, Tokenizer
from ifguide.workflow.config.evaluation import Benchmark, Evaluation, Generation
from ifguide.workflow.config.influence import Influence
from ifguide.workflow.config.judges import Classifiers, RewardModel
from ifguide.workflow.config.lasting import Lasting
from ifguide.workflow.config.methods import Methods
from ifguide.workflow.config.models import LanguageModel, Training
from ifguide.workflow.config.parts import Parts
from ifguide.workflow.config.plan import Plan
from ifguide.workflow.config.queries import QuerySet
from ifguide.workflow.config.report import Report
from ifguide.workflow.config.texts import OwnGenerations, Texts
from ifguide.workflow.config.values import Name, name_except

# The record that query records and test prompts are disjoint lies beside the sets.
QuerySetName = name_except("disjoint")


class Config(Settings):
    """Configuration of an experiment."""

    extends: OrAbsent[str] = Field(
        None,
        min_length=1,
        description="Config file that this one changes, its path relative to this file. Where a "
        "file given before it has an `experiment`, it changes that one.",
    )
    experiment: Name = Field(
        description="Name of the experiment; its results go to `results/<experiment>/`."
    )
    overlay: Name | None = Field(
        None,
        description="Name of an overlay, whose tables, figures and report go to "
        "`results/<experiment>/overlays/<overlay>/`; all else is shared with what it extends. A "
        "file with `extends` and no `experiment` is one, by its own name unless it says another.",
    )
    seed: int = Field(1, ge=0, description="The one seed from which every random number derives.")
    track_code: bool = Field(
        True,
        description="Run a stage again when the code that computes it has changed; false keeps "
        "what is finished, and the report says what other code made.",
    )
    data_dir: str = Field(
        "data",
        min_length=1,
        description="Folder of the files that `{data_dir}` stands for; downloads go there.",
    )
    downloads: dict[Name, Download] = section("Public files to fetch into `data_dir`, by name.")
    planted: Planted = section()
    parts: Parts = section()
    corpus: Corpus
    tokenizers: dict[Name, Tokenizer] = Field(min_length=1, description="Tokenizers by name.")
    queries: dict[QuerySetName, QuerySet] = Field(
        min_length=1,
        description="Sets of query records, by name: prompts and the continuations whose gradient "
        "is the query.",
    )
    classifiers: Classifiers
    training: Training = section()
    models: dict[Name, LanguageModel] = Field(
        min_length=1, description="Language models by name; one of them is the proxy."
    )
    methods: Methods
    rewards: dict[Name, RewardModel] = section(
        "Reward models by name: small unidirectional models that say at every token how toxic the "
        "text will be."
    )
    texts: dict[Name, Texts] = section(
        "Labelled texts that methods learn from, by name. No test prompt may be among them."
    )
    own_generations: dict[Name, OwnGenerations] = section(
        "What methods learn from of the text that their models write themselves, by name."
    )
    influence: Influence
    contamination: Contamination = section()
    generation: Generation = section()
    benchmarks: dict[Name, Benchmark] = Field(
        min_length=1, description="What models are evaluated on, by name."
    )
    evaluation: Evaluation
    lasting: OrAbsent[Lasting] = None
    report: Report = section()
    plan: Plan = section()
