"""The judges of toxicity: where their files lie, trained here or given, and what a job is told."""

import os
from collections.abc import Iterable, Iterator

from ifguide.data.repositories import Repository
from ifguide.evaluation.judge import LEADING
from ifguide.evaluation.published_detoxify import PUBLISHED
from ifguide.evaluation.sequence_labels import TRAINED_TOXIC
from ifguide.workflow.experiment import Experiment
from ifguide.workflow.sources import (
    CLASSIFIER_FILES,
    Sources,
    detoxify_base,
    is_repository,
    model_repository,
    words_entry,
)


class Judges:
    """The section `classifiers` of an experiment."""

    def __init__(self, experiment: Experiment, sources: Sources) -> None:
        self.settings: dict[str, dict] = experiment.config["classifiers"]
        self.corpus: list[dict] = experiment.config["corpus"]["sources"]
        self.layout = experiment.layout
        self.sources = sources

    def __iter__(self) -> Iterator[str]:
        """Yield the judges' names, the leading ones first, whatever the order of the keys."""
        yield from LEADING
        yield from sorted(self.settings.keys() - set(LEADING))

    @property
    def language(self) -> str:
        """The language of functional tests: that of the planted corpus, where there is one."""
        planted = any(entry["files"].startswith("{planted}") for entry in self.corpus)
        return "planted" if planted else "english"

    @property
    def trained(self) -> list[str]:
        return [name for name, entry in self.settings.items() if "train" in entry]

    def quality(self, classifier: str) -> str:
        return f"{self.layout.classifier(classifier)}/quality.json"

    def calibration(self, classifier: str) -> list[str]:
        """Return the calibration of a judge: one that is given, and not trained, has none."""
        return [self.layout.calibration(classifier)] if classifier in self.trained else []

    # --- published Detoxify models ---

    @property
    def published(self) -> list[str]:
        return [name for name, entry in self.settings.items() if entry.get("hub") in PUBLISHED]

    def published_weights(self, classifier: str) -> str:
        """Return the download of a published Detoxify model's weights."""
        return f"detoxify-{self.settings[classifier]['hub']}"

    def published_base(self, classifier: str) -> Repository:
        return detoxify_base(self.settings[classifier]["hub"])

    # --- what a job is told and waits for ---

    def given(self, classifier: str) -> dict:
        """Return what opens a judge: settings of `evaluation.judge_forms.open_judge`."""
        entry = self.settings[classifier]
        made = self.layout.classifier(classifier)
        if "checkpoint" in entry:
            return {"checkpoint": entry["checkpoint"]}
        if classifier in self.published:
            return {"checkpoint": f"{made}/model.ckpt"}
        if is_repository(entry):
            folder = self.sources.directory_of(model_repository(entry, CLASSIFIER_FILES))
            return {"directory": folder, "toxic_label": entry["toxic_label"]}
        if "path" in entry:
            return {"directory": entry["path"], "toxic_label": entry["toxic_label"]}
        if "planted" in entry:
            return {"planted": entry["planted"]}
        if "words" in entry:
            key = f"classifiers.{classifier}.words"
            return {"words": self.sources.arguments(words_entry(entry), key)}
        if entry["train"]["kind"] == "detoxify":
            return {"checkpoint": f"{made}/model.ckpt"}
        return {"directory": made, "toxic_label": TRAINED_TOXIC}

    def ready(self, classifier: str) -> list[str]:
        """Return what a rule waits for before it opens a judge: the last file that is written."""
        entry = self.settings[classifier]
        if "train" in entry:
            return [self.quality(classifier)]
        if "words" in entry:
            return self.sources.inputs(words_entry(entry), f"classifiers.{classifier}.words")
        if is_repository(entry):
            return [self.sources.record_of(model_repository(entry, CLASSIFIER_FILES))]
        given = self.given(classifier)
        if "directory" in given:
            return [f"{given['directory']}/config.json"]
        return [given["checkpoint"]] if "checkpoint" in given else []

    def given_of(self, classifiers: Iterable[str]) -> dict[str, dict]:
        return {name: self.given(name) for name in classifiers}

    def ready_of(self, classifiers: Iterable[str]) -> list[str]:
        return list(dict.fromkeys(path for name in classifiers for path in self.ready(name)))

    def directory(self, classifier: str) -> str | None:
        """Return where a judge's configuration lies, None of one that has none."""
        given = self.given(classifier)
        if "checkpoint" in given:
            return os.path.dirname(given["checkpoint"])
        return given.get("directory")
