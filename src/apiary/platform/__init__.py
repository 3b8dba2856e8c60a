"""The platform: apps and their versions (`registry`), the processes that run them (`hosts`, `host`), and their talk."""
