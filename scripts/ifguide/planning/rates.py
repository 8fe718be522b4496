"""What one core of a processor does in a second: rough, and compared with what was measured once a
run is finished."""

# Tokens.
TOKENIZED = 6e5
PACKED = 8e6
READ = 2e6
# With the prompts of one benchmark, some thousands: their n-grams, and near passages as well.
SEARCHED = 1.5e6
COMPARED = 4e5
SELECTED = 1e7
RANKED = 2e5
# Records.
PREPARED = 2000
# FLOPs of dense float64 algebra.
FLOAT64 = 1e10
