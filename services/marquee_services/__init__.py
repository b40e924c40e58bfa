"""Marquee's servers, and the scoring code that they share with the trainer."""
