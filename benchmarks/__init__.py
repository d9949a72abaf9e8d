"""What Operon costs, beside what its database costs bare, and beside its peers: `make bench`."""
