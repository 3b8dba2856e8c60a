"""The runtime: runs one call inside one transaction, wherever that transaction lives.

Standard library only and no import of the rest of the package, because a database server loads this
folder into its own interpreter. `declaration` is what users write, `call` runs it, `session` is what an
engine must offer.
"""
