"""The command line: one file a command, imported only when that command is run.

*   `entry` is the table of commands; it turns errors into one line and an exit code.
*   `options` makes an option of every setting, and loads the settings.
*   `serve`, `run`, `check`, `healthcheck`, `demo` are the commands: parsing first, the work in a function of its own.
"""
