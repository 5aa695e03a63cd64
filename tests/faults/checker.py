"""The history of a load against the database: what must be true whatever was killed in between, and what is not.

Pure: two readings in, sentences out. Knows neither SQL nor HTTP.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from faults.ledger import End, Operation
from faults.state import State, Version


def violations(operations: Sequence[Operation], state: State) -> list[str]:
    """A sentence for each thing that is wrong, with the ids; [] when nothing is."""
    found = [sentence for law in _DATA for sentence in law(state)]
    return found + [sentence for law in _CLIENTS for sentence in law(operations, state)]


def _current(state: State, table: str) -> list[Version]:
    return [version for version in state.versions if version.current and version.table == table]


def _chains(state: State, table: str) -> dict[str, list[Version]]:
    """The versions of each id in their order."""
    chains: dict[str, list[Version]] = defaultdict(list)
    for version in state.versions:
        if version.table == table:
            chains[version.id].append(version)
    return {fhir_id: sorted(chain, key=lambda each: each.number) for fhir_id, chain in chains.items()}


# the data by themselves


def _slots_booked_once(state: State) -> Iterator[str]:
    holders: dict[str, list[str]] = defaultdict(list)
    for each in _current(state, "apt"):
        if each.occupies and not each.shared:
            for slot in each.slots:
                holders[slot].append(each.id)
    for slot, ids in holders.items():
        if len(ids) > 1:
            yield f"{slot} is booked twice, by {', '.join(sorted(ids))}"


def _practitioners_in_one_place(state: State) -> Iterator[str]:
    busy = defaultdict(list)
    for each in _current(state, "apt"):
        if each.occupies and not each.shared and each.start and each.end and each.start < each.end:
            for provider in each.providers:
                busy[provider].append((each.start, each.end, each.id))
    for provider, times in busy.items():
        for before, after in pairwise(sorted(times)):
            if after[0] < before[1]:
                yield f"practitioner {provider} has {before[2]} and {after[2]} at once"


def _slots_agree(state: State) -> Iterator[str]:
    held = {slot for each in _current(state, "apt") if each.occupies for slot in each.slots}
    for slot in _current(state, "slt"):
        if slot.status != ("busy" if slot.id in held else "free"):
            yield f"{slot.id} is {slot.status} and {'held' if slot.id in held else 'held by nobody'}"
    for missing in sorted(held - {slot.id for slot in _current(state, "slt")}):
        yield f"{missing} is held and is not there"


def _derived_rows(state: State) -> Iterator[str]:
    occupying = [each for each in _current(state, "apt") if each.occupies]
    times = {
        (each.id, provider, each.start, each.end)
        for each in occupying
        if not each.shared and each.start and each.end and each.start < each.end
        for provider in each.providers
    }
    extra = {(slot, each.id) for each in occupying for slot in each.slots[1:]}
    for row in times ^ state.times:
        yield f"provider_times and appointments differ in {row[0]} of {row[1]}"
    for slot, appointment in extra ^ state.extra:
        yield f"extra_slots and appointments differ in {slot} of {appointment}"


def _versions_contiguous(state: State) -> Iterator[str]:
    for table in ("sch", "slt", "apt"):
        for fhir_id, chain in _chains(state, table).items():
            numbers = [version.number for version in chain]
            if numbers != list(range(1, len(numbers) + 1)):
                yield f"{fhir_id} has the versions {numbers}"
            if any(version.current for version in chain[:-1]):
                yield f"{fhir_id} has history beyond its current version"
            if not chain[-1].current and chain[-1].status is not None:
                yield f"{fhir_id} ended without a deletion"


def _one_event_a_version(state: State) -> Iterator[str]:
    versions = Counter((version.id, version.number) for version in state.versions)
    events = Counter(state.events)
    for change in versions.keys() | events.keys():
        if (versions[change], events[change]) != (1, 1):
            fhir_id, number = change
            yield f"{fhir_id} version {number}: {versions[change]} rows, {events[change]} outbox rows"


def _changes_are_audited(state: State) -> Iterator[str]:
    """All appointments of a load are changed by the API: each version has its audit event, and none is told of more."""
    versions = {(version.id, version.number) for version in state.versions if version.table == "apt"}
    for fhir_id, number in versions - state.audited:
        yield f"{fhir_id} version {number} has no audit event"
    for fhir_id, number in state.audited - versions:
        yield f"{fhir_id} version {number} has an audit event and is not there"


def _slots_changed_by_appointments_alone(state: State) -> Iterator[str]:
    """Each time an appointment takes or frees a slot is one version of the slot, and the other way round."""
    turns: Counter[str] = Counter()
    for chain in _chains(state, "apt").values():
        held: set[str] = set()
        for version in chain:
            holds = set(version.slots) if version.occupies else set()
            turns.update(held ^ holds)
            held = holds
    for slot, chain in _chains(state, "slt").items():
        if len(chain) - 1 != turns[slot]:
            yield f"{slot} changed {len(chain) - 1} times, and appointments took and freed it {turns[slot]} times"
        if any(before.status == after.status for before, after in pairwise(chain)):
            yield f"{slot} was taken or freed twice in a row: {[version.status for version in chain]}"


def _keys_finished(state: State) -> Iterator[str]:
    for key, status in state.keys.items():
        if status is None:
            yield f"Idempotency-Key {key} was claimed and never finished"


# the data against what clients saw


def _marks(state: State) -> dict[str, list[Version]]:
    marks = defaultdict(list)
    for version in state.versions:
        if version.mark is not None:
            marks[version.mark].append(version)
    return marks


def _acknowledged_kept(operations: Sequence[Operation], state: State) -> Iterator[str]:
    versions = {(version.id, version.number): version for version in state.versions}
    gone = {version.id for version in state.versions if version.status is None}
    for operation in operations:
        for attempt in operation.successes:
            for mark, made in zip(operation.marks, attempt.made, strict=True):
                stored = versions.get(made)
                if stored is None or stored.mark != mark:
                    yield f"{operation.kind} {operation.number} was acknowledged as {made} and is not there"
        if operation.end is End.OK:
            for fhir_id in operation.deletes:
                if fhir_id not in gone:
                    yield f"{operation.kind} {operation.number} was acknowledged and {fhir_id} is not deleted"


def _refused_left_nothing(operations: Sequence[Operation], state: State) -> Iterator[str]:
    marks = _marks(state)
    for operation in operations:
        if operation.end in (End.REFUSED, End.UNSENT):
            for mark in operation.marks:
                for version in marks.get(mark, ()):
                    yield f"{operation.kind} {operation.number} is {operation.end} and made {version.id}"


def _whole_or_not_at_all(operations: Sequence[Operation], state: State) -> Iterator[str]:
    marks = _marks(state)
    for operation in operations:
        there = [mark in marks for mark in operation.marks]
        if any(there) and not all(there):
            yield f"{operation.kind} {operation.number} ({operation.end}) is half there: {operation.marks} {there}"


def _once_only(operations: Sequence[Operation], state: State) -> Iterator[str]:
    for mark, versions in _marks(state).items():
        if len(versions) > 1:
            yield f"{mark} was done {len(versions)} times: {sorted((each.id, each.number) for each in versions)}"
    for operation in operations:
        if len({attempt.made for attempt in operation.successes}) > 1:
            yield f"{operation.kind} {operation.number} was answered differently when it was repeated"


def _nothing_of_nobody(operations: Sequence[Operation], state: State) -> Iterator[str]:
    known = {mark for operation in operations for mark in operation.marks}
    wanted = {
        fhir_id for operation in operations if operation.end in (End.OK, End.UNKNOWN) for fhir_id in operation.deletes
    }
    for version in state.versions:
        if version.table != "apt":
            continue
        if version.status is None and version.id not in wanted:
            yield f"{version.id} was deleted and nobody asked for it"
        if version.status is not None and version.mark not in known:
            yield f"{version.id} version {version.number} is nobody's operation"


def _keys_kept(operations: Sequence[Operation], state: State) -> Iterator[str]:
    for operation in operations:
        if operation.key and operation.end is End.OK and state.keys.get(operation.key) not in (200, 201):
            yield f"{operation.kind} {operation.number} was acknowledged and its key is not kept"


def _no_server_error(operations: Sequence[Operation], _: State) -> Iterator[str]:
    for operation in operations:
        for attempt in operation.attempts:
            if attempt.status >= 500 and (attempt.status != 503 or not attempt.retry_after.isdigit()):
                yield f"{operation.kind} {operation.number} was answered {attempt.status} ({attempt.retry_after!r})"


_DATA: tuple[Callable[[State], Iterator[str]], ...] = (
    _slots_booked_once,
    _practitioners_in_one_place,
    _slots_agree,
    _derived_rows,
    _versions_contiguous,
    _one_event_a_version,
    _changes_are_audited,
    _slots_changed_by_appointments_alone,
    _keys_finished,
)
_CLIENTS: tuple[Callable[[Sequence[Operation], State], Iterator[str]], ...] = (
    _acknowledged_kept,
    _refused_left_nothing,
    _whole_or_not_at_all,
    _once_only,
    _nothing_of_nobody,
    _keys_kept,
    _no_server_error,
)
