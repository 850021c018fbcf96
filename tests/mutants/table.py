"""The defects: one text of the real code each, what stands there instead, and which tests have to see it.

`old` occurs exactly once in `file` (test_texts.py), so a mutant whose text has changed is noticed and written anew.
Tests are named as pytest names them; several where any of them may be the first to see it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    file: str
    old: str
    new: str
    why: str  # what the line is for, that is: what goes wrong without it
    tests: tuple[str, ...]
    build: bool = True  # False: its tests compile the header themselves


TAKEOVER = ("tests/system/test_failover.py::test_killed_under_load",)
DEVICE = ("tests/unit/test_device_steps.py",)

MUTANTS = {
    # ---- takeover ----
    "nothing is replayed": Mutant(
        "pyx/office.pyx",
        "            self.queue_up(number, slot)\n            self.replays += 1",
        "            self.replays += 0",
        "requests in flight when a server dies are sent again by the next one (rules.md 20)",
        TAKEOVER,
    ),
    "answers of the dead server are thrown away": Mutant(
        "pyx/io.pyx",
        "            if self.recovering and not self.final(q, slot, &answer):",
        "            if self.recovering:",
        "what has been executed is not executed again: a frame would be sent twice (rules.md 21)",
        ("tests/unit/test_office_steps.py",),
    ),
    "nothing stands in the ledger": Mutant(
        "pyx/io.pyx",
        "            pv_ledger_set(entry, id)\n            submitted += 1",
        "            pv_ledger_set(entry, 0)\n            submitted += 1",
        "a request is recorded before it is taken off its ring (rules.md 18)",
        TAKEOVER,
    ),
    "an answered request counts as in flight": Mutant(
        "pyx/office.h",
        "(int64_t)(commit->completed - e->done) >= 0 ? PV_FATE_ANSWERED",
        "false ? PV_FATE_ANSWERED",
        "complete first, clear second: what was completed and not yet cleared is not sent again (rules.md 18)",
        ("tests/unit/test_office_steps.py",),
    ),
    "cleared before it is completed": Mutant(
        "pyx/io.pyx",
        """            pv_ledger_commit_indices(q.header, q.requests.head, q.completions.tail)
            pv_producer_publish(&q.completions)
            for k in range(q.clear_count):
                pv_ledger_set(&q.ledger[q.clear[k]], 0)
""",
        """            for k in range(q.clear_count):
                pv_ledger_set(&q.ledger[q.clear[k]], 0)
            pv_ledger_commit_indices(q.header, q.requests.head, q.completions.tail)
            pv_producer_publish(&q.completions)
            for k in range(q.clear_count):
""",
        "complete first, clear second: a server that dies between the two would take the answer with it (rules.md 18)",
        ("tests/unit/test_office_steps.py",),
    ),
    "taken before it is recorded": Mutant(
        "pyx/io.pyx",
        "            entry.request = request\n            entry.position",
        "            pv_ledger_commit_indices(q.header, q.requests.head + i + 1, q.completions.tail)\n"
        "            entry.request = request\n            entry.position",
        "a request stands in the ledger before it counts as taken (rules.md 18)",
        ("tests/unit/test_office_steps.py",),
    ),
    "a seat that hangs is left alone": Mutant(
        "pyx/takeover.h",
        "        pv_watch_kill(w, seat);\n}",
        "        w->hung[seat] = true;\n}",
        "a server without progress is killed, for its pidfd alone proves that it writes nothing any more (rules.md 22)",
        ("tests/system/test_failover.py::test_stopped_and_going_on",),
    ),
    # ---- the fence ----
    "no fence in the device": Mutant(
        "pyx/intake.pyx",
        "            if not self.in_office(&request, server.slot):",
        "            if False:",
        "the device compares the epoch in the step that acts (rules.md 19)",
        ("tests/system/test_zombie.py",),
    ),
    "no fence in the monitor": Mutant(
        "pyx/translator.pyx",
        "        if pv_epoch_load(self.kernel, PV_ID_SLOT(c.id)) != call.submit.epoch or call.submit.epoch == 0:",
        "        if False:",
        "the monitor compares the epoch in the step that acts (rules.md 19)",
        ("tests/system/test_zombie.py",),
    ),
    # ---- the monitor's death ----
    "taken calls are not sealed": Mutant(
        "pyx/commit.h",
        "    atomic_store_explicit(&c->caller, caller, memory_order_release);\n    atomic_signal_fence",
        "    atomic_store_explicit(&c->caller, 0, memory_order_release);\n    atomic_signal_fence",
        "a batch of a monitor that dies becomes visible whole or not at all (rules.md 18)",
        ("tests/unit/test_commit.py",),
    ),
    "calls are taken before everybody is adopted": Mutant(
        "pyx/monitor.pyx",
        "        if self.adopting:\n            return 0\n",
        "",
        "while a monitor has not adopted everybody nothing is translated (rules.md test 26)",
        ("tests/system/test_monitor_restart.py::test_killed_again_and_again_under_load",),
    ),
    "answers before calls are given back": Mutant(
        "pyx/monitor.pyx",
        "        pv_commit_seal(&self.kernel.commit, c.id)\n",
        "",
        "what a batch decided is sealed before any of it is seen (rules.md 18)",
        ("tests/unit/test_commit.py",),
    ),
    # ---- requests ----
    "memory range by addition": Mutant(
        "pyx/validate.h",
        "if (gpa > size || length > size - gpa)",
        "if (gpa + length > size)",
        "bounds are written so that they cannot wrap (rules.md 10)",
        ("tests/unit/test_validate.py::test_borders_of_memory",),
    ),
    "a generation is as good as another": Mutant(
        "pyx/validate.h",
        "if (e->generation != r->endpoint_generation)",
        "if (false)",
        "an old handle opens nothing in a later life of its slot (rules.md 13, 25)",
        ("tests/unit/test_validate.py::test_borders_of_the_other_fields",),
    ),
    # ---- a device's death ----
    "a device clears before it has completed": Mutant(
        "pyx/completions.pyx",
        "        if self.ledger != NULL:\n            self.settle(now)",
        "        self.clear_answered()\n        if self.ledger != NULL:\n            self.settle(now)",
        "complete first, clear second: a request that nobody knows any more is never answered (rules.md 18)",
        DEVICE,
    ),
    "rings are shown before their batch has happened": Mutant(
        "pyx/completions.pyx",
        "        if changed:\n            pv_device_seal(self.ledger)",
        "        pass",
        "what was shown is done: a frame or completion that was seen does not come again (rules.md 21)",
        DEVICE,
    ),
    "what is at a medium stands nowhere": Mutant(
        "pyx/medium.pyx",
        "            f.job.entry = self.record(port, job)",
        "            f.job.entry = 0",
        "a request is recorded before its slot is given back (rules.md 18)",
        DEVICE,
    ),
    "published out of step": Mutant(
        "pyx/disk.pyx",
        "        if self.unpublished >= PUBLISH and port.medium != MEDIUM_NULL:\n            self.overdue = True",
        "        if self.unpublished >= PUBLISH and port.medium != MEDIUM_NULL:\n            self.publish()",
        "a completion and the end of its request's slot are shown together (rules.md 21)",
        DEVICE,
    ),
    "a frame leaves by a wire twice": Mutant(
        "pyx/switch.pyx",
        "            pv_device_wire(self.ledger, &self.wired_at, sender.owner, id_of(frame.job))",
        "            pass",
        "what nobody can take back is noted before it leaves (rules.md 21)",
        DEVICE,
    ),
    "a weaker process leaves the rest of a large frame to its driver": Mutant(
        "pyx/offloads.pyx",
        "            if port.progress == 0 or port.resuming == 0 or port.resuming != id_of(job):",
        "            if True:",
        "what has arrived does not come again, whatever follows (rules.md 21)",
        DEVICE,
    ),
    # ---- sleep and wake ----
    "no look before sleep": Mutant(
        "pyx/ring.h",
        "return !c->broken && atomic_load_explicit(&c->ring->tail, memory_order_seq_cst) != c->head;",
        "(void)c; return false;",
        "a ring is looked at again after sleep was announced (rules.md 16)",
        ("tests/unit/test_ring_wake.py::test_no_wake_up_is_lost[seq_cst]",),
        build=False,
    ),
    # ---- endpoints ----
    "detached before it is drained": Mutant(
        "pyx/disk.pyx",
        '        self.drain(&p.flying, f"of port {port}")',
        "        pass",
        "a port goes when the kernel has ended what it works on for it (rules.md 24)",
        ("tests/system/test_medium.py::test_a_guest_that_dies_with_requests_at_the_medium",),
    ),
    # ---- order of a flow ----
    "what the monitor still copies counts as taken": Mutant(
        "pyx/queues.pyx",
        "                if q.copies[i].state == COPY_OUT:",
        "                if False:",
        "a frame that lies on no ring, on the copy path, is not the guest's yet: it came before those of another pair",
        ("tests/unit/test_queue_order.py::test_what_the_monitor_still_copies_is_not_taken",),
    ),
    "the channel server is asked before the device": Mutant(
        "hostd/nic_queues.py",
        """        if not (await ask(device, "flows_taken", {"port": pairs[0]["port"]}))["taken"]:
            return False
        for endpoint in pairs:
            numbers = record.served.get(endpoint["generation"], [])
            if numbers and not await self.fabric.taken(endpoint["server"], numbers):
                return False
        return True
""",
        """        for endpoint in pairs:
            numbers = record.served.get(endpoint["generation"], [])
            if numbers and not await self.fabric.taken(endpoint["server"], numbers):
                return False
        return bool((await ask(device, "flows_taken", {"port": pairs[0]["port"]}))["taken"])
""",
        "what the device gives the server between the two questions is seen by the second one",
        ("tests/unit/test_queue_order.py::test_a_frame_that_moves_between_two_questions_is_seen",),
        build=False,
    ),
    # ---- the database ----
    "a slot's generation is used again": Mutant(
        "partitions/ultravisor/change.py",
        "ON CONFLICT DO UPDATE SET generation = generation + 1 RETURNING",
        "ON CONFLICT DO UPDATE SET generation = generation RETURNING",
        "no id names two lives of a slot (rules.md 25)",
        ("tests/unit/test_database.py",),
    ),
    "quotas are too large by one": Mutant(
        "partitions/ultravisor/schema.sql",
        "CONSTRAINT quota_exceeded CHECK (used <= maximum)",
        "CONSTRAINT quota_exceeded CHECK (used <= maximum + 1)",
        "what is not there is not given out (rules.md 33)",
        ("tests/unit/test_database_rules.py",),
    ),
}
