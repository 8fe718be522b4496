"""Where everything lies below `results/` and `logs/`: the one place that knows.

A name that is not given stands as Snakemake's wildcard, so that the output of a rule and what
another rule, a script or a test asks for are written by one function. Folders end without a slash.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from ifguide.files.checksums import RESULTS

PLANTED_FILES = (
    "documents.jsonl",
    "held_out.jsonl",
    "queries.jsonl",
    "development.jsonl",
    "prompts.jsonl",
    "toxigen.json",
    "lambada.jsonl",
    "explicit_labelled.jsonl",
    "implicit_labelled.jsonl",
    "hostile_labelled.jsonl",
    "pairs.tsv",
    "words.txt",
    "bold.json",
)
# What rules ask for of a model's folder, and all that the rule which makes it declares.
MODEL_FILES = ("model.safetensors", "config.json", "training.json")
ALL_MODEL_FILES = (*MODEL_FILES, "tokenizer.json", "losses.csv")


def shard_names(count: int) -> list[str]:
    return [f"{shard:05d}" for shard in range(count)]


def shard_files(folder: str, count: int, suffix: str = "npy") -> list[str]:
    return [f"{folder}/shard-{shard}.{suffix}" for shard in shard_names(count)]


def column_files(folder: str, count: int, columns: Iterable[str]) -> list[str]:
    """Return the files of some columns of a corpus of `count` shards."""
    return [path for column in columns for path in shard_files(f"{folder}/{column}", count)]


@dataclass(frozen=True)
class Layout:
    """The folders and files of one experiment.

    overlay: whose tables and figures are asked for. folder: where the results lie, if elsewhere.
    """

    experiment: str
    overlay: str | None = None
    folder: str | None = None

    @property
    def root(self) -> str:
        return self.folder or f"{RESULTS}/{self.experiment}"

    @property
    def logs(self) -> str:
        return f"logs/{self.experiment}"

    @property
    def run_lock(self) -> str:
        return f"{self.root}/.run.lock"

    @property
    def preflight(self) -> str:
        return f"{self.root}/.preflight"

    @property
    def kept_records(self) -> str:
        return f"{self.root}/.snakemake_records.json"

    @property
    def kept_inputs(self) -> str:
        return f"{self.root}/.inputs.json"

    @property
    def run_config(self) -> str:
        return f"{self.root}/run_config.yaml"

    # --- jobs: the log and the record of time and memory of a rule are named for it ---

    def log(self, rule: str, *wildcards: str) -> str:
        return f"{self.logs}/{_joined(rule, wildcards)}.log"

    def benchmark(self, rule: str, *wildcards: str) -> str:
        return f"{self.logs}/benchmarks/{_joined(rule, wildcards)}.tsv"

    # --- data ---

    @property
    def planted(self) -> str:
        return f"{self.root}/planted"

    def fetched(self, download: str = "{download}") -> str:
        return f"{self.root}/fetched/{download}.json"

    def fetched_repository(self, repository: str = "{repository}") -> str:
        return f"{self.root}/fetched/hub/{repository}.json"

    @property
    def documents(self) -> str:
        return f"{self.root}/corpus/documents.jsonl"

    @property
    def held_out_documents(self) -> str:
        return f"{self.root}/corpus/held_out.jsonl"

    @property
    def documents_report(self) -> str:
        return f"{self.root}/corpus/documents.json"

    def corpus(self, tokenizer: str = "{tokenizer}") -> str:
        return f"{self.root}/corpus/{tokenizer}"

    def held_out(self, tokenizer: str = "{tokenizer}") -> str:
        return f"{self.corpus(tokenizer)}/held_out"

    def kept_corpus(self, tokenizer: str = "{tokenizer}", method: str = "{method}") -> str:
        """The corpus that a method's data step leaves."""
        return f"{self.corpus(tokenizer)}/filtered/{method}"

    def tokenizer_file(self, tokenizer: str = "{tokenizer}") -> str:
        return f"{self.corpus(tokenizer)}/tokenizer/tokenizer.json"

    def token_parts(self, tokenizer: str = "{tokenizer}") -> str:
        return f"{self.corpus(tokenizer)}/parts"

    def document_toxicity(
        self,
        tokenizer: str = "{tokenizer}",
        classifier: str = "{classifier}",
        unit: str = "{unit}",
    ) -> str:
        return f"{self.corpus(tokenizer)}/toxicity/{classifier}/{unit}"

    def queries(self, queries: str = "{queries}") -> str:
        return f"{self.root}/queries/{queries}.jsonl"

    def queries_report(self, queries: str = "{queries}") -> str:
        return f"{self.root}/queries/{queries}.json"

    @property
    def disjoint(self) -> str:
        return self.queries_report("disjoint")

    def prompts(self, benchmark: str = "{benchmark}") -> str:
        return f"{self.root}/prompts/{benchmark}.jsonl"

    def prompts_report(self, benchmark: str = "{benchmark}") -> str:
        return f"{self.root}/prompts/{benchmark}.json"

    def prompt_lengths(self, benchmarks: Iterable[str], model: str = "{model}") -> list[str]:
        return [f"{self.root}/prompts/lengths/{model}/{b}.json" for b in benchmarks]

    def passages(self, benchmark: str = "{benchmark}") -> str:
        return f"{self.root}/passages/{benchmark}.jsonl"

    def passages_report(self, benchmark: str = "{benchmark}") -> str:
        return f"{self.root}/passages/{benchmark}.json"

    def pairs(self, method: str = "{method}") -> str:
        return f"{self.root}/pairs/{method}.jsonl"

    def pairs_report(self, method: str = "{method}") -> str:
        return f"{self.root}/pairs/{method}.json"

    def texts(self, texts: str = "{texts}") -> str:
        return f"{self.root}/texts/{texts}.jsonl"

    def texts_report(self, texts: str = "{texts}") -> str:
        return f"{self.root}/texts/{texts}.json"

    def judge_texts(self, classifier: str = "{classifier}") -> str:
        """What a judge that is made here is trained and measured on."""
        return f"{self.root}/texts/judges/{classifier}.jsonl"

    def judge_texts_report(self, classifier: str = "{classifier}") -> str:
        return f"{self.root}/texts/judges/{classifier}.json"

    def reward_texts(self, reward: str = "{reward}") -> str:
        return f"{self.root}/texts/rewards/{reward}.jsonl"

    def reward_texts_report(self, reward: str = "{reward}") -> str:
        return f"{self.root}/texts/rewards/{reward}.json"

    def corpus_contamination(self, benchmark: str = "{benchmark}") -> str:
        """What a benchmark's prompts have in common with the corpus."""
        return f"{self.root}/contamination/{benchmark}.json"

    # --- models ---

    def model(self, model: str = "{model}", method: str = "{method}", seed: str = "{seed}") -> str:
        return f"{self.root}/models/{model}/{method}/{seed}"

    def model_card(
        self, model: str = "{model}", method: str = "{method}", seed: str = "{seed}"
    ) -> str:
        return f"{self.model(model, method, seed)}/README.md"

    def classifier(self, classifier: str = "{classifier}") -> str:
        return f"{self.root}/classifiers/{classifier}"

    def calibration(self, classifier: str = "{classifier}") -> str:
        return f"{self.classifier(classifier)}/calibration.json"

    def reward(self, reward: str = "{reward}", tokenizer: str = "{tokenizer}") -> str:
        return f"{self.root}/rewards/{reward}/{tokenizer}"

    # --- what a method learns from a model ---

    def activations(
        self,
        texts: str = "{texts}",
        model: str = "{model}",
        method: str = "{method}",
        seed: str = "{seed}",
    ) -> str:
        return f"{self.root}/activations/{model}/{method}/{seed}/{texts}.safetensors"

    def probe(
        self,
        texts: str = "{texts}",
        model: str = "{model}",
        method: str = "{method}",
        seed: str = "{seed}",
    ) -> str:
        return f"{self.root}/probes/{model}/{method}/{seed}/{texts}.safetensors"

    def own_generations(
        self,
        name: str = "{own_generations}",
        model: str = "{model}",
        method: str = "{method}",
        seed: str = "{seed}",
    ) -> str:
        return f"{self.root}/own_generations/{model}/{method}/{seed}/{name}.jsonl"

    def prepared(
        self, model: str = "{model}", method: str = "{method}", seed: str = "{seed}"
    ) -> str:
        """What a decode step has fitted."""
        return f"{self.root}/prepared/{model}/{method}/{seed}.safetensors"

    # --- influence ---

    def influence(self, model: str = "{model}") -> str:
        return f"{self.root}/influence/{model}"

    def factors(self, model: str = "{model}") -> str:
        return f"{self.influence(model)}/factors.safetensors"

    def gradient(self, model: str = "{model}", queries: str = "{queries}") -> str:
        return f"{self.influence(model)}/gradients/{queries}.safetensors"

    def direction(self, model: str = "{model}", direction: str = "{direction}") -> str:
        return f"{self.influence(model)}/{direction}"

    def direction_file(self, model: str = "{model}", direction: str = "{direction}") -> str:
        return f"{self.direction(model, direction)}/direction.safetensors"

    def rival_file(self, model: str = "{model}", direction: str = "{direction}") -> str:
        """What a rival has fitted, and the hashes of what it was made from."""
        return f"{self.direction(model, direction)}/rival.safetensors"

    def rival_pairs(self, direction: str = "{direction}") -> str:
        return f"{self.root}/pairs/rivals/{direction}.jsonl"

    def rival_pairs_report(self, direction: str = "{direction}") -> str:
        return f"{self.root}/pairs/rivals/{direction}.json"

    def scores(
        self,
        model: str = "{model}",
        direction: str = "{direction}",
        attribution: str = "{attribution}",
    ) -> str:
        return f"{self.direction(model, direction)}/scores/{attribution}"

    def selection(
        self, model: str = "{model}", direction: str = "{direction}", selection: str = "{selection}"
    ) -> str:
        return f"{self.direction(model, direction)}/{selection}"

    def export(self, selection: str = "{selection}") -> str:
        """A selection as data, for training loops elsewhere."""
        return f"{self.root}/export/{selection}"

    # --- what is measured ---

    def evaluation(
        self,
        model: str = "{model}",
        method: str = "{method}",
        seed: str = "{seed}",
        benchmark: str = "{benchmark}",
    ) -> str:
        return f"{self.root}/evaluation/{model}/{method}/{seed}/{benchmark}"

    def evaluations(
        self,
        benchmarks: Iterable[str],
        name: str,
        model: str = "{model}",
        method: str = "{method}",
        seed: str = "{seed}",
    ) -> list[str]:
        """Return a file of each of several benchmarks, which one job makes or reads."""
        return [f"{self.evaluation(model, method, seed, b)}/{name}" for b in benchmarks]

    def relearning(
        self, model: str = "{model}", method: str = "{method}", seed: str = "{seed}"
    ) -> str:
        return f"{self.root}/relearning/{model}/{method}/{seed}.json"

    def loss_curve(self, model: str = "{model}", seed: str = "{seed}") -> str:
        """The losses of uncensored models on toxic text, by what their training cost."""
        return f"{self.root}/loss_curves/{model}/{seed}.json"

    def removal(self, model: str = "{model}", method: str = "{method}") -> str:
        return f"{self.root}/removal/{model}/{method}.json"

    def erasure(self, model: str = "{model}") -> str:
        return f"{self.root}/removal/{model}/erased.csv"

    # --- what people look at ---

    @property
    def tables(self) -> str:
        return f"{self.root}/overlays/{self.overlay}" if self.overlay else self.root

    def shown(self, name: str) -> str:
        """The path of a table, figure or page that the report shows."""
        return f"{self.tables}/{name}"

    def shown_log(self, rule: str) -> str:
        return self.log(self._shown_job(rule))

    def shown_benchmark(self, rule: str) -> str:
        return self.benchmark(self._shown_job(rule))

    def _shown_job(self, rule: str) -> str:
        return f"overlays/{self.overlay}/{rule}" if self.overlay else rule


def _joined(rule: str, wildcards: Iterable[str]) -> str:
    return "/".join([rule, *(f"{{{name}}}" for name in wildcards)])


def random_mask(selection: str) -> str:
    """The folder of as many tokens as a selection has, drawn at random."""
    return f"{selection}/random"


def moved_mask(selection: str, tokenizer: str = "{tokenizer}") -> str:
    """The folder of a selection's mask in the tokens of another tokenizer."""
    return f"{selection}/transfer/{tokenizer}"
