"""How long to wait before the next try: pure, and the same everywhere."""


def backoff_s(tries: int, *, first_s: float = 1.0, most_s: float = 60.0) -> float:
    """Doubling waits: `first_s` after the first try, never more than `most_s`."""
    return float(min(most_s, first_s * 2 ** max(0, min(tries, 30) - 1)))
