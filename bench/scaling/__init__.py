"""How things grow: with clients, data, log, cores and apps. One module a question; `python -m bench.scaling`."""
