"""The read side of the log: what people ask about the calls that ran."""
