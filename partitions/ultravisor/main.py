"""The ultravisor partition's program: opens the database, finishes what a crash left, and serves requests.

Descriptors: `keeper` is the wire to the keeper; every other one is a wire of a peer (`control` is hostd's,
`command` the command partition's). Configuration: `database`, path of the database file.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from hostd.wire import Wire
from partitions.messages import Fields
from partitions.service import Service
from partitions.ultravisor import checker, queries, reconcile
from partitions.ultravisor.database import Database, Fault
from partitions.ultravisor.keeper import keeper_from
from partitions.ultravisor.transactions import Transactions
from partitions.ultravisor.views import Views

if TYPE_CHECKING:
    from partitions.skeleton import Context

NOT_PEERS = ("keeper", "stdout", "stderr")


def main(context: Context) -> int:
    """Serves until the last peer has gone. Exit status 1 with a sentence where the database cannot be used."""
    try:
        serve(context)
    except Fault as fault:
        print(f"ultravisor: {fault}", file=sys.stderr, flush=True)
        return 1
    return 0


def serve(context: Context) -> None:
    keeper = keeper_from(context.fds["keeper"])
    database = Database(context.config["database"])
    transactions = Transactions(database, keeper, Views(database))
    transactions.recover()
    reconcile.remove_lost(transactions)

    def transaction(message: dict[str, Any], peer: str) -> dict[str, Any]:
        return transactions.run(Fields(message, "transaction"), peer)

    def query(message: dict[str, Any], peer: str) -> dict[str, Any]:
        return queries.run(database, Fields(message, "query"))

    def reconciliation(message: dict[str, Any], peer: str) -> dict[str, Any]:
        return reconcile.run(transactions, keeper, Fields(message, "reconcile"), peer)

    def check(message: dict[str, Any], peer: str) -> dict[str, Any]:
        Fields(message, "check").done()
        return {"version": database.version, "violations": checker.check(database, keeper)}

    handlers = {"transaction": transaction, "query": query, "reconcile": reconciliation, "check": check}
    service = Service("ultravisor", handlers, housekeeping=database.checkpoint)
    for name, descriptor in context.fds.items():
        if name not in NOT_PEERS:
            service.add(name, Wire.from_fd(descriptor))
    service.run()
    database.close()
