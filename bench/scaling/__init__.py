"""How things grow: with clients, data, log, steps, sleepers, cores and apps. One module a question."""
