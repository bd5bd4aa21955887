"""Finding jobs: `words` are what is searched, `terms` what may be asked; `pages` answers, page by page."""
