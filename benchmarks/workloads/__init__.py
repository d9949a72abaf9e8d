"""The workloads, each a program of its own."""
