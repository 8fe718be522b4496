"""Filter the corpus by graded judges: the rule of Celadon (Arnett et al., 2024, arXiv 2410.22587).

Each judge's probability is cut into grades from 0 to 3, and their sum decides, by the rule of
`data.graded_toxicity`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ifguide.methods.step import CorpusJob, DocumentToxicity, Dropped, Given, Need, Step
from ifguide.settings import Settings

if TYPE_CHECKING:
    import numpy as np

Cut = Annotated[float, Field(gt=0, le=1)]


class GradedFilterOptions(Settings):
    """Train without the documents that several judges together find toxic, by the sum of their
    grades."""

    classifiers: Annotated[
        list[Annotated[str, Field(min_length=1)]],
        Field(
            min_length=1,
            max_length=5,
            description="The judges, entries of `classifiers`, each of which grades every document "
            "from 0 to 3; the published rule is of five.",
        ),
    ]
    drop: Annotated[
        Literal["toxic", "mild"],
        Field(description="What is dropped: toxic documents alone, or mildly toxic ones as well."),
    ] = "mild"
    cuts: Annotated[
        list[Cut],
        Field(
            min_length=3,
            max_length=3,
            description="Probabilities of being toxic from which a grade is 1, 2 and 3.",
        ),
    ] = [0.25, 0.5, 0.75]
    by: Annotated[
        Literal["mean", "share", "worst"],
        Field(
            description="What a long document is judged by, which a judge reads in pieces: the "
            "mean of their probabilities of being toxic, the share that is toxic, or the worst."
        ),
    ] = "mean"
    unit: Annotated[
        Literal["document", "block"],
        Field(description="What is judged and dropped: a source document, or a training block."),
    ] = "document"


class GradedFilter(Step):
    stage = "data"
    Options = GradedFilterOptions

    def mistake(self) -> tuple[str, str] | None:
        options = self.options
        if sorted(set(options.cuts)) != options.cuts:
            return "cuts", "are not in ascending order"
        if len(set(options.classifiers)) < len(options.classifiers):
            return "classifiers", "name a judge twice"
        # Of one judge no sum is toxic, of two none either: their highest sums are 3 and 6.
        if options.drop == "toxic" and len(options.classifiers) < 3:
            return "drop", "finds none: grades of fewer than three judges never make 7; give mild"
        return None

    def needs(self) -> dict[str, Need]:
        options = self.options
        return {
            f"classifiers.{place}": DocumentToxicity(options.unit, name)
            for place, name in enumerate(options.classifiers)
        }

    def keep(self, job: CorpusJob, given: Given) -> Dropped:
        import numpy as np

        from ifguide.data.graded_toxicity import MILD, TOXIC, grades, verdicts
        from ifguide.data.unit_toxicity import unit_toxicity

        options = self.options
        probabilities = np.stack(
            [unit_toxicity(job.corpus, given[name], options.by)[:, 0] for name in self.needs()],
            axis=1,
        )
        graded = grades(probabilities, options.cuts)
        lowest = TOXIC if options.drop == "toxic" else MILD
        dropped = (verdicts(graded) >= lowest).nonzero()[0]
        return Dropped(options.unit, {int(unit): self.reason(graded[unit]) for unit in dropped})

    def reason(self, graded: np.ndarray) -> str:
        """Return the grades of a unit that is dropped, by the judges that found something."""
        return "grades: " + ", ".join(
            f"{name} {grade}"
            for name, grade in zip(self.options.classifiers, graded, strict=True)
            if grade
        )
