-- The kept form of an element gives way when a program that does not know it changes the column.
--
-- A row has the column and, in fhir, what the column cannot say of it ("2024-05-01T09:00:00+02:00" beside an instant).
-- Whoever changes a mapped column and leaves fhir as it was knows only the column: the column rules, and the kept form
-- and its search tokens go. Functions here are pure; the triggers at the end of the file call them.

-- Without the keys; null when nothing is left.
create function fhir_sched_without(kept jsonb, variadic keys text[]) returns jsonb
language sql immutable
return nullif(kept - keys, '{}'::jsonb);

-- Without the extensions of that name; no empty array stays behind.
create function fhir_sched_without_extension(kept jsonb, name text) returns jsonb
language plpgsql immutable
set search_path = pg_catalog, public, pg_temp
as $$
declare
    rest jsonb;
begin
    if jsonb_typeof(kept -> 'extension') is distinct from 'array' then
        return kept;
    end if;
    select jsonb_agg(e order by n)
    into rest
    from jsonb_array_elements(kept -> 'extension') with ordinality as t (e, n)
    where e ->> 'url' is distinct from 'http://fhir-sched.org/fhir/StructureDefinition/' || name;
    if rest is null then
        return nullif(kept - 'extension', '{}'::jsonb);
    end if;
    return jsonb_set(kept, '{extension}', rest);
end
$$;

-- Without the tokens of these parameters; null when none is left.
create function fhir_sched_without_tokens(tokens jsonb, variadic parameters text[]) returns jsonb
language sql immutable
set search_path = pg_catalog, public, pg_temp
as $$
    select jsonb_agg(t order by n)
    from jsonb_array_elements(tokens) with ordinality as x (t, n)
    where t ->> 0 <> all (parameters)
$$;

-- The resource type that a reference names: its type element, or the last segment but one of the literal.
create function fhir_sched_reference_type(reference jsonb) returns text
language sql immutable
set search_path = pg_catalog, public, pg_temp
as $$
    select coalesce(substring(reference ->> 'reference' from '([A-Za-z]+)/[^/]+$'), reference ->> 'type')
$$;

-- Without the tokens by which this reference was found under the parameter; an empty array when none is left.
create function fhir_sched_without_reference(tokens jsonb, parameter text, reference jsonb) returns jsonb
language sql immutable
set search_path = pg_catalog, public, pg_temp
as $$
    select coalesce(jsonb_agg(t order by n), '[]')
    from jsonb_array_elements(tokens) with ordinality as x (t, n)
    where (
        t ->> 0 = parameter
        and (
            t ->> 2 = reference ->> 'reference'
            or t ->> 1 || '/' || (t ->> 2) = substring(reference ->> 'reference' from '[A-Za-z]+/[^/]+$')
        )
        or t ->> 0 = parameter || ':identifier'
        and t ->> 1 = coalesce(reference -> 'identifier' ->> 'system', '')
        and t ->> 2 = reference -> 'identifier' ->> 'value'
    ) is not true
$$;

-- The kept list of actors (a participant's actor, or the actor itself) after the column of one kind changed: the first
-- of that kind names the new row, a missing one is added, and none stays when the column became null. A row that
-- keeps no such list needs no change. Answers {"fhir": …, "tokens": …}.
create function fhir_sched_with_actor(
    kept jsonb, tokens jsonb, parameter text, list text, kinds text[], kind text, actor uuid
) returns jsonb
language plpgsql immutable
set search_path = pg_catalog, public, pg_temp
as $$
declare
    actors jsonb := kept -> list;
    wrapped constant boolean := list = 'participant';
    place integer;
    former jsonb;
    reference constant jsonb := jsonb_build_object('reference', kind || '/' || actor);
begin
    if jsonb_typeof(actors) is distinct from 'array' then
        return jsonb_build_object('fhir', kept, 'tokens', tokens);
    end if;
    select n - 1, case when wrapped then e -> 'actor' else e end
    into place, former
    from jsonb_array_elements(actors) with ordinality as t (e, n)
    where fhir_sched_reference_type(case when wrapped then e -> 'actor' else e end) = any (kinds)
    order by n
    limit 1;
    if former is not null and tokens is not null then
        tokens := fhir_sched_without_reference(tokens, parameter, former);
    end if;
    if actor is null then
        if place is not null then
            actors := actors - place;
        end if;
    elsif place is null then
        actors := actors || jsonb_build_array(
            case
                when wrapped then jsonb_build_object('actor', reference, 'status', 'accepted')
                else reference
            end
        );
    elsif wrapped then
        actors := jsonb_set(actors, array[place::text, 'actor'], reference);
    else
        actors := jsonb_set(actors, array[place::text], reference);
    end if;
    if actor is not null and tokens is not null then
        tokens := tokens || jsonb_build_array(jsonb_build_array(parameter, kind, actor));
    end if;
    tokens := nullif(tokens, '[]');
    return jsonb_build_object(
        'fhir', case
            when actors = '[]'::jsonb then nullif(kept - list, '{}'::jsonb)
            else jsonb_set(kept, array[list], actors)
        end,
        'tokens', tokens
    );
end
$$;

create function fhir_sched_prune_slot() returns trigger
language plpgsql security definer
set search_path = pg_catalog, public, pg_temp
as $$
begin
    if new.status is distinct from old.status then
        new.fhir := fhir_sched_without(new.fhir, 'status', '_status');
    end if;
    if new.start_at is distinct from old.start_at then
        new.fhir := fhir_sched_without(new.fhir, 'start', '_start');
    end if;
    if new.end_at is distinct from old.end_at then
        new.fhir := fhir_sched_without(new.fhir, 'end', '_end');
    end if;
    if new.schedule_id is distinct from old.schedule_id then
        new.fhir := fhir_sched_without(new.fhir, 'schedule');
    end if;
    if new.appointment_type is distinct from old.appointment_type then
        new.fhir := fhir_sched_without(new.fhir, 'appointmentType');
        new.fhir_tokens := fhir_sched_without_tokens(new.fhir_tokens, 'Slot.appointment-type');
    end if;
    return new;
end
$$;

create function fhir_sched_prune_exception() returns trigger
language plpgsql security definer
set search_path = pg_catalog, public, pg_temp
as $$
begin
    if new.start_at is distinct from old.start_at then
        new.fhir := fhir_sched_without(new.fhir, 'start', '_start');
    end if;
    if new.end_at is distinct from old.end_at then
        new.fhir := fhir_sched_without(new.fhir, 'end', '_end');
    end if;
    if new.schedule_id is distinct from old.schedule_id then
        new.fhir := fhir_sched_without(new.fhir, 'schedule');
    end if;
    if new.reason is distinct from old.reason then
        new.fhir := fhir_sched_without(new.fhir, 'comment', '_comment');
    end if;
    if new.type is distinct from old.type then
        new.fhir := fhir_sched_without_extension(new.fhir, 'schedule-exception-type');
    end if;
    return new;
end
$$;

create function fhir_sched_prune_schedule() returns trigger
language plpgsql security definer
set search_path = pg_catalog, public, pg_temp
as $$
declare
    changed jsonb;
    kinds constant jsonb := '{
        "provider": ["Practitioner", "PractitionerRole"], "location": ["Location", "HealthcareService"],
        "device": ["Device"]
    }';
begin
    if (new.actor_id, new.actor_type) is distinct from (old.actor_id, old.actor_type) then
        changed := fhir_sched_with_actor(
            new.fhir, new.fhir_tokens, 'Schedule.actor', 'actor',
            array(select jsonb_array_elements_text(kinds -> old.actor_type)),
            kinds -> new.actor_type ->> 0, new.actor_id
        );
        new.fhir := nullif(changed -> 'fhir', 'null');
        new.fhir_tokens := nullif(changed -> 'tokens', 'null');
    end if;
    if new.timezone is distinct from old.timezone then
        new.fhir := fhir_sched_without_extension(new.fhir, 'schedule-timezone');
    end if;
    if new.availability_pattern is distinct from old.availability_pattern then
        new.fhir := fhir_sched_without_extension(new.fhir, 'schedule-availability');
    end if;
    if new.service_types is distinct from old.service_types then
        new.fhir := fhir_sched_without(new.fhir, 'serviceType');
        new.fhir_tokens := fhir_sched_without_tokens(new.fhir_tokens, 'Schedule.service-type');
    end if;
    if new.is_active is distinct from old.is_active then
        new.fhir := fhir_sched_without(new.fhir, 'active', '_active');
    end if;
    return new;
end
$$;
