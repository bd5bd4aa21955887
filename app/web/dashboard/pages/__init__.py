"""One module a page: what it shows, read by the verbs that the API has, rendered by its template."""
