"""Errors that a user can mend: `main` prints message and hint, without a traceback, and exits 1."""


class UserError(Exception):
    """Something in the user's hands is wrong; `hint` says what to do about it."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(UserError):
    """A configuration key, type or value is wrong, or two of them do not go together."""


class DataError(UserError):
    """A data set or one of its files is missing, unreadable or malformed."""


class WeightsError(UserError):
    """A weight file cannot be read or does not fit the model."""


class CheckpointError(UserError):
    """A training checkpoint is missing, damaged or of another model."""


class InputError(UserError):
    """An input given for prediction cannot be read."""


class WorkdirError(UserError):
    """The working directory cannot be used; nothing in it was touched."""


class NonFiniteError(UserError):
    """A loss or a score is NaN or infinite: the training has diverged."""
