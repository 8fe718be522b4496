"""What the configuration of a sequence classifier says of its classes; no library is needed.

As in the text-classification pipeline of `transformers`: one class alone, or classes that do not
exclude each other, have a sigmoid each, and others share a softmax.
"""

from collections.abc import Mapping

from ifguide.errors import InputError

# The class of a classifier that is trained here.
TRAINED_TOXIC = 1
MULTI_LABEL = "multi_label_classification"


def has_sigmoid(classes: int, problem_type: str | None) -> bool:
    """Whether each class has a probability of its own."""
    return problem_type == MULTI_LABEL or classes == 1


def class_of(label: int | str, names: Mapping, problem_type: str | None = None) -> int:
    """Return the index of the class that `label` names, by index or by its name.

    names: `id2label` of the configuration, by index, which may be written as text. Raises
    InputError for one that is not there, and for a number that is no probability.
    """
    if problem_type == "regression":
        raise InputError("the classifier is a regression, whose output is no probability")
    by_index = {int(index): str(name) for index, name in names.items()}
    found = [index for index, name in by_index.items() if label in (index, name)]
    if len(found) != 1:
        written = ", ".join(f"{index}: {name}" for index, name in sorted(by_index.items()))
        raise InputError(f"{label}, but the classifier has the labels {written}")
    return found[0]
