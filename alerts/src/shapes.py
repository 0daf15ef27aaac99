"""Conditions that several alerts have in common, as PromQL."""


def grown(selector: str, window: str, by: str = "model") -> str:
    """Return how much counters grew, for each `by`."""
    return f"sum by ({by}) (increase({selector}[{window}]))"


def share(part: str, whole: str, *, above: float, window: str, least: int = 0, by: str = "model") -> str:
    """Return when more than a share of what was counted is of one kind; at least so many, for one to mean something."""
    some, all_ = grown(part, window, by), grown(whole, window, by)
    expr = f"(\n  {some}\n  /\n  {all_}\n) > {above}"
    return f"{expr}\nand\n{some} >= {least}" if least else expr
