"""What a command says when it cannot do what it was asked."""

from __future__ import annotations


class Complaint(Exception):
    """One line for the person at the terminal, and the exit code: 2 if the command was called wrongly."""

    def __init__(self, message: str, code: int = 2) -> None:
        super().__init__(message)
        self.code = code
