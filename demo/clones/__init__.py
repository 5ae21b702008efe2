"""`make clones`: a PostgreSQL that runs in a machine, with its data loaded, cloned with all it has in memory."""
