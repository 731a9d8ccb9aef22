"""The package's exception; the extension modules raise it too."""


class Error(Exception):
    """What the tools would print: one line that says what is wrong, where, and a way out.

    Raised by everything in this package for a wrong model, configuration, plan or input.

    >>> try:
    ...     dshard.load("no-such.dsplan")
    ... except dshard.Error as error:
    ...     print(error)
    no-such.dsplan: cannot open: No such file or directory
    """
