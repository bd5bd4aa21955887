"""The HTTP edge: parse, call one verb, render. Decides nothing; every route is a few lines."""
