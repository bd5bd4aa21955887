"""Acts on many jobs: `acts` prepares and shows them, `runner` carries them out."""
