"""The generator of the quickstart's corpus, whose rows the package ships: `python -m tools.quickstart` writes them anew."""
