"""The judges of toxicity: where their files lie, trained here or given."""

from ifguide.data.repositories import Repository
from ifguide.workflow.experiment import Experiment
from ifguide.workflow.sources import CLASSIFIER_FILES, Sources, detoxify_base, model_repository


class Judges:
    """The section `classifiers` of an experiment."""

    def __init__(self, experiment: Experiment, sources: Sources) -> None:
        self.settings = experiment.config["classifiers"]
        self.layout = experiment.layout
        self.sources = sources
        self.explicit, self.implicit = self.settings["explicit"], self.settings["implicit"]

    @property
    def trained(self) -> list[str]:
        return [name for name, entry in self.settings.items() if "train" in entry]

    def quality(self, classifier: str) -> str:
        return f"{self.layout.classifier(classifier)}/quality.json"

    @property
    def explicit_checkpoint(self) -> str:
        made = f"{self.layout.classifier('explicit')}/model.ckpt"
        return self.explicit.get("checkpoint", made)

    @property
    def explicit_ready(self) -> str:
        """What a rule waits for: the last file of it that is written."""
        return self.quality("explicit") if "train" in self.explicit else self.explicit_checkpoint

    @property
    def published_weights(self) -> str | None:
        """The download of a published Detoxify model's weights."""
        return f"detoxify-{self.explicit['hub']}" if "hub" in self.explicit else None

    @property
    def published_base(self) -> Repository:
        return detoxify_base(self.explicit["hub"])

    @property
    def _implicit_repository(self) -> Repository | None:
        hub = "hub" in self.implicit
        return model_repository(self.implicit, CLASSIFIER_FILES) if hub else None

    @property
    def implicit_directory(self) -> str:
        if repository := self._implicit_repository:
            return self.sources.directory_of(repository)
        return self.implicit.get("path", self.layout.classifier("implicit"))

    @property
    def implicit_ready(self) -> str:
        """What a rule waits for before it reads the implicit classifier."""
        if "train" in self.implicit:
            return self.quality("implicit")
        if repository := self._implicit_repository:
            return self.sources.record_of(repository)
        return f"{self.implicit_directory}/config.json"
