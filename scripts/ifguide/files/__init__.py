"""What lies on disk: artifacts and their checksums, tensors, arrays, locks, tables, provenance."""
