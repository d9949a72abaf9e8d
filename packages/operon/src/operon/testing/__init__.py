"""What tests use: the deterministic simulator of the engine."""
