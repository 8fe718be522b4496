"""Influence-guided token suppression: the mathematics of the workflow, without its files.

Modules read from the data towards the result: documents, corpus, models, tracked_layers, ekfac,
query_direction, token_scores, selection, objective, training, generation, toxicity, metrics.
"""
