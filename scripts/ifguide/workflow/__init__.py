"""What the rules call: the config, the layout of results, what a rule waits for."""
