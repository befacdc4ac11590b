"""The one exception that a user is meant to read."""


class UserError(Exception):
    """Something the user can mend: one sentence that names the file or field and the remedy.

    The command line prints the message without a traceback and exits with status 2. Everything else is a
    bug of ours and keeps its traceback.
    """
