"""From gradients to masks: EK-FAC, query direction, token scores, selection, transfer."""
