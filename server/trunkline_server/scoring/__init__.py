"""Scoring runs: ask models what has one right answer, and record who knew it and how soon."""
