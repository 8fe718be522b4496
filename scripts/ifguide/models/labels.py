"""Labels of which no loss is taken."""

IGNORED_LABEL = -100
