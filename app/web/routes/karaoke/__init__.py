"""`/v1/lyrics` and `/v1/performances` with their singers."""
