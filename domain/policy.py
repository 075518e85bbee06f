"""What an operator may set about decisions, given to `decide` as a value."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Policy:
    """`ship_complete`: an order that would be cut at all is cancelled as far as it is unfulfilled."""

    ship_complete: bool = False
