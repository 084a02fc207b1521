"""Speculative decoding: which drafts are accepted, what drafting costs, how many tokens to draft."""
