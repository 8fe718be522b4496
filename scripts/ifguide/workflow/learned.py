"""What judges and methods learn from beside the corpus: the files of all that is compared."""

from collections.abc import Iterable

from ifguide.data.learned_files import KINDS
from ifguide.workflow.experiment import Experiment
from ifguide.workflow.judges import Judges
from ifguide.workflow.lasting import Lasting
from ifguide.workflow.methods import Methods
from ifguide.workflow.rivals import Rivals


class Learned:
    """The sets of query records, pairs and labelled texts of an experiment."""

    def __init__(
        self,
        experiment: Experiment,
        methods: Methods,
        rivals: Rivals,
        judges: Judges,
        lasting: Lasting,
    ) -> None:
        self.experiment = experiment
        self.layout = experiment.layout
        self.methods = methods
        self.rivals = rivals
        self.judges = judges
        self.lasting = lasting

    @property
    def _files(self) -> dict[str, Iterable[str]]:
        """The files of each of the kinds of `data.learned_files`."""
        layout, methods, rivals = self.layout, self.methods, self.rivals
        texts = {*methods.learned_texts, *rivals.learned_texts, *self.lasting.texts}
        files = {
            "queries": map(layout.queries, self.experiment.config["queries"]),
            "pairs": map(layout.pairs, methods.paired),
            "rival_pairs": rivals.learned_pairs,
            "texts": map(layout.texts, texts),
            "judges": map(layout.judge_texts, self.judges.trained),
            "rewards": map(layout.reward_texts, methods.learned_rewards),
        }
        return {kind: sorted(files[kind]) for kind in KINDS}

    @property
    def files(self) -> list[str]:
        return [path for paths in self._files.values() for path in paths]

    @property
    def options(self) -> list[str]:
        """The same as arguments of a script."""
        return [
            argument
            for kind, paths in self._files.items()
            for argument in (f"--{kind.replace('_', '-')}", *paths)
        ]
