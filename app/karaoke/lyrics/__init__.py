"""Lyrics: `lines` (words to lines), `review` (how sure they are), `lrc` (the file format), `edits`, and
`book`, which keeps them with their versions. All but `book` are pure; times are whole milliseconds.
"""
