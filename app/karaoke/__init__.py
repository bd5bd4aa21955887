"""Karaoke: lyrics in time with a song, and performances that several devices share.

`lyrics` makes timed lines of a transcript, reads and writes LRC, and keeps every version of a correction.
`stage` is what happens on the evening: one state a performance, moved by compare-and-set, the singers who
wait, and the tokens of guests' phones. Both stand beside the line: the songs are made by jobs
(`stem_separation`, `voice_conversion`, `transcription`), and nothing here makes a job wait.
"""
