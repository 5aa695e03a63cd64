"""The outbox leaves the building: events to sinks, and to Subscriptions by the seam in `fanout`."""
