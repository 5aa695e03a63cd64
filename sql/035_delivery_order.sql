-- Deliveries are taken in the order in which their events were written, so that the first one of a row is always among
-- them: in the order in which they are due, what waits behind a retried event would fill every batch and hold it up.
create index ix_outbox_deliveries_order on outbox_deliveries (tenant_id, sink, created_at, event_id)
    where parked_at is null;
