"""The dashboard: pages for people, over the same verbs that the API calls.

The server renders (`templates/`), by `shell`; `pages/` has one module a page; what they load lies in
`app/web/static`. A page stays up to date by being fetched again: its modules listen to events, fetch what
changed as HTML and put it in place, so each thing is drawn by one template. Whatever changes something goes
through the API as anybody's request would.
"""
