"""From a study's best trial to a version of a dataset: computed again, asked the gates, scored on test, registered.

Test is read here and nowhere else.
"""
