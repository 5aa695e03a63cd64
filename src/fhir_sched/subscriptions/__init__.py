"""Subscriptions: what is asked for, who is told of which event, how it is sent. Subscriptions R5 Backport 1.1.0."""
