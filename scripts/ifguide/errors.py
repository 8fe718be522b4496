"""The one exception that a user is meant to read."""


class InputError(ValueError):
    """Input that the user can correct: one line that names the file and line, or the config key."""
