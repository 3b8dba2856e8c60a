"""Engines: the seam to the databases (`protocol`), what is the same for all (`dispatch`), and a folder for each."""
