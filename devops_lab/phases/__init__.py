"""The eight phases: one module each, the same word as its notebook; each reads like its story."""
