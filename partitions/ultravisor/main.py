"""The ultravisor partition's program: opens the database, finishes what a crash left, and serves requests.

Descriptors: `keeper` is the wire to the keeper; every other one is a wire of a peer (`control` is hostd's,
`command` the command partition's). Configuration: `database`, path of the database file.
"""

from __future__ import annotations

from hostd.wire import Message, Wire
from partitions.messages import Fields
from partitions.service import Service
from partitions.skeleton import Context
from partitions.ultravisor import checker, queries, reconcile
from partitions.ultravisor.database import Database
from partitions.ultravisor.keeper import Keeper
from partitions.ultravisor.transactions import Transactions
from partitions.ultravisor.views import Views


class Ultravisor(Service):
    """One request after the other; the database has one writer, and this is it."""

    OWN = ("keeper",)

    def attach(self) -> None:
        self._keeper = Keeper(Wire.from_fd(self.context.take("keeper")))
        self._database = Database(self.context.config["database"])
        self._transactions = Transactions(self._database, self._keeper, Views(self._database))
        self._transactions.recover()
        reconcile.remove_lost(self._transactions)

    def tidy(self) -> None:
        self._database.tidy()

    def handle_transaction(self, message: Message, _fds: list[int]) -> Message:
        return self._transactions.run(Fields.of_request(message), self.peer)

    def handle_query(self, message: Message, _fds: list[int]) -> Message:
        return queries.run(self._database, Fields.of_request(message))

    def handle_reconcile(self, message: Message, _fds: list[int]) -> Message:
        return reconcile.run(self._transactions, self._keeper, Fields.of_request(message), self.peer)

    def handle_check(self, message: Message, _fds: list[int]) -> Message:
        Fields.of_request(message).done()
        return {"version": self._database.version, "violations": checker.check(self._database, self._keeper)}


def main(context: Context) -> int:
    """Exit status 0 after `stop`; 1 with a sentence on stderr where the database cannot be used."""
    return Ultravisor(context).run()
