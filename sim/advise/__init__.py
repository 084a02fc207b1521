"""Advice: draft length, drafter and load limits for a deployment, from its prices and from simulations."""
