"""What a user can cause, as exceptions with one-line messages.

Each message names the value, what is allowed and what to do. The command line prints it and exits
with status 2; a traceback therefore always means a fault of ours.
"""


class UserError(Exception):
    """Base of all errors a user can cause and mend. Each argument is a line."""

    @property
    def lines(self) -> list[str]:
        """What is wrong."""
        return [str(line) for line in self.args]

    def __str__(self) -> str:
        return "\n".join(self.lines)


class Faults(UserError):  # noqa: N818  (several of them)
    """Several things that are wrong."""


class ConfigError(UserError):
    """A field is unknown, mistyped or out of range."""


class DataError(UserError):
    """A file is missing or unreadable, too many rows are unusable, or dev/test rows leaked."""


class ModelError(UserError):
    """A model cannot be loaded, or has no layer that matches `attribution.layers`."""


class NonFiniteError(UserError):
    """A loss or a gradient is NaN or infinite."""


class StorageError(UserError):
    """The stage store, Optuna's storage or the MLflow server cannot be used."""


class ClusterError(UserError):
    """The Ray cluster cannot be reached, or its nodes cannot do the work."""


class CometError(UserError):
    """COMET is not installed, or cannot load a model or score with it."""


class HubError(UserError):
    """The Hugging Face hub does not answer, or refuses the token or what is to be pushed."""


class PromotionRefused(UserError):  # noqa: N818  (what happened, not a fault)
    """The best trial did not pass a gate of promotion."""
