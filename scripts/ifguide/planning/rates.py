"""What one core of a processor does in a second: rough, and compared with what was measured once a
run is finished."""

# Tokens.
TOKENIZED = 6e5
PACKED = 8e6
READ = 2e6
SELECTED = 1e7
RANKED = 2e5
# Records.
PREPARED = 2000
# FLOPs of dense float64 algebra.
FLOAT64 = 1e10
