"""Finding jobs by a line of text: `language` reads it."""
