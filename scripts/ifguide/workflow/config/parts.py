"""The parts of labelled sources that each use takes."""

from pydantic import Field

from ifguide.settings import Settings
from ifguide.workflow.config.values import Bounds


class Parts(Settings):
    """What `part` may name: ranges of the hash of a record's prompt or text; none overlap."""

    judges: Bounds = Field([0.0, 0.25], description="Judges that are trained here.")
    methods: Bounds = Field(
        [0.25, 0.6],
        description="Whatever makes a method: queries, pairs, rewards, filters, texts.",
    )
    development: Bounds = Field(
        [0.6, 0.7], description="Prompts on which settings are chosen, none of them a test's."
    )
    tests: Bounds = Field([0.7, 1.0], description="Prompts of tests.")
