-- Figures of Subscriptions for /metrics, over all tenants and nothing else of them.
--
-- How many subscriptions have each status; how many events wait for those that are active, and since when the oldest.
-- That is one look at the table of subscriptions, and one by key for each that has something waiting.
call fhir_sched_borrow_trigger_role();

create function fhir_sched_subscription_figures()
returns table (status text, subscriptions bigint, waiting bigint, oldest timestamptz)
language sql stable security definer
set search_path = pg_catalog, public, pg_temp
set enable_seqscan = off
as $$
    select s.status, count(*), coalesce(sum(s.events - s.delivered) filter (where s.status = 'active'), 0)::bigint,
           min(next.occurred_at)
    from subscriptions s
    left join lateral (
        select e.occurred_at
        from subscription_events e
        where e.tenant_id = s.tenant_id
          and e.subscription_id = s.id
          and e.number > s.delivered
          and s.status = 'active'
          and s.events > s.delivered
        order by e.number
        limit 1
    ) next on true
    group by s.status
$$;

revoke all on function fhir_sched_subscription_figures() from public;
grant execute on function fhir_sched_subscription_figures() to fhir_sched_app;
alter function fhir_sched_subscription_figures() owner to fhir_sched_trigger;
call fhir_sched_return_trigger_role();
