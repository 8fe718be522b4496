"""The parts of an experiment that rules ask, made and checked once when the workflow is parsed."""

from dataclasses import dataclass

from ifguide.methods.step import steps_of
from ifguide.workflow.cards import Cards
from ifguide.workflow.checks import Checks, check_method_steps
from ifguide.workflow.evaluation import Evaluation
from ifguide.workflow.experiment import Experiment
from ifguide.workflow.influence import Influence
from ifguide.workflow.judges import Judges
from ifguide.workflow.lasting import Lasting
from ifguide.workflow.layout import Layout
from ifguide.workflow.learned import Learned
from ifguide.workflow.methods import Methods, needed_files
from ifguide.workflow.part_names import fill_in_parts
from ifguide.workflow.planned_facts import planned_facts
from ifguide.workflow.rivals import Rivals
from ifguide.workflow.shown import Shown
from ifguide.workflow.sources import Sources
from ifguide.workflow.strengths import spread_out


@dataclass(frozen=True)
class Parts:
    experiment: Experiment
    layout: Layout
    sources: Sources
    influence: Influence
    methods: Methods
    judges: Judges
    rivals: Rivals
    shown: Shown
    evaluation: Evaluation
    lasting: Lasting
    cards: Cards
    learned: Learned

    def planned_facts(self) -> dict:
        return planned_facts(
            self.experiment, self.sources, self.influence, self.methods, self.judges
        )


def open_experiment(config: dict) -> Parts:
    """Return the parts of an experiment. Stops with one line where the config does not hold.

    config: valid, all defaults filled in.
    """
    fill_in_parts(config)
    spread_out(config)
    steps = {name: steps_of(entry) for name, entry in config["methods"].items()}
    check_method_steps(config, steps)
    layout = Layout(config["experiment"], config["overlay"])
    experiment = Experiment(config, layout)
    sources = Sources(config, layout, needed_files(steps))
    influence = Influence(experiment)
    methods = Methods(experiment, sources, influence, steps)
    shown = Shown(experiment, influence, methods)
    Checks(experiment, sources, influence, methods, shown).run()
    judges = Judges(experiment, sources)
    rivals = Rivals(experiment, sources, influence, methods, judges)
    evaluation = Evaluation(experiment, methods)
    lasting = Lasting(experiment, methods, judges)
    cards = Cards(experiment, influence, methods)
    learned = Learned(experiment, methods, rivals, judges, lasting)
    return Parts(
        experiment,
        layout,
        sources,
        influence,
        methods,
        judges,
        rivals,
        shown,
        evaluation,
        lasting,
        cards,
        learned,
    )
