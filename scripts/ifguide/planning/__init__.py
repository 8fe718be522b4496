"""What an experiment costs before it has run."""
