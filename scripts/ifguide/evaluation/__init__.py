"""What is measured of a model: generation, toxicity, fluency, intervals, summary."""
