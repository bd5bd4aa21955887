"""Verbs on the rows of karaoke: lyrics with their versions, performances."""
