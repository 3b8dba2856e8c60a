"""The app that the other modules declare their functions on."""

from apiary import App

app = App("nectar")
