"""Language models: architectures, loading, tracked layers, training, the objective, costs."""
