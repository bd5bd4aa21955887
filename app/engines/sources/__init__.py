"""How the sound that an engine reads gets to it: `fetching` brings the file, `decoding` its samples."""
