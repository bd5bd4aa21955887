"""Of `/performance`: `messages`, as models, and `rooms`, one for each performance watched here."""
