"""Conversations: what was said in turns, kept for whoever goes on with it."""
