"""Answers that are given again: the `AnswerCache` port."""
