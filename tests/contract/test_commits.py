"""How many commits calls and workflows cost, counted in the write-ahead log of each database."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import eventually

WAL_HEADER_BYTES = 32
FLUSHED = "pg_current_wal_flush_lsn()"
FRAME = struct.Struct(">II8s8x")


@pytest.fixture
def commits(contract) -> Callable[[Callable[[], Any]], int]:
    """Runs something, and says how many transactions that wrote were committed meanwhile."""
    if contract.name == "sqlite":
        wal = Path(contract.look("pragma database_list")[0][2] + "-wal")

        def counted(run: Callable[[], Any]) -> int:
            eventually(lambda: contract.look("pragma wal_checkpoint(truncate)")[0][0] == 0)
            run()
            return commits_of(wal)

    else:
        contract.look("create extension if not exists pg_walinspect schema public")

        def counted(run: Callable[[], Any]) -> int:
            ((before,),) = contract.look("select pg_current_wal_insert_lsn()")
            run()
            ((end, any_new),) = contract.look(f"select {FLUSHED}, {FLUSHED} > '{before}'")
            if not any_new:
                return 0
            ((found,),) = contract.look(
                f"select count(*) from public.pg_get_wal_records_info('{before}', '{end}') "
                "where resource_manager = 'Transaction' and record_type like 'COMMIT%'"
            )
            return int(found)

    return counted


def commits_of(wal: Path) -> int:
    """The frames that end a transaction in a write-ahead log of SQLite, which is begun anew when it was emptied.

    Its format: https://www.sqlite.org/fileformat2.html#the_write_ahead_log
    """
    content = wal.read_bytes()
    salt, size = content[16:24], FRAME.size + int.from_bytes(content[8:12], "big")
    frames = (FRAME.unpack_from(content, at) for at in range(WAL_HEADER_BYTES, len(content) - size + 1, size))
    return sum(pages > 0 for _, pages, of in frames if of == salt)


def test_a_transaction_is_one_commit(contract, commits):
    assert commits(lambda: contract.call("note_down", 1)) == 1


@pytest.mark.parametrize("transactions", [1, 5, 50])
def test_a_workflow_of_transactions_is_at_most_one_commit_for_each(contract, commits, transactions):
    """It is one in all, where they take less than the 50 ms after which others have their turn."""
    ids = list(range(transactions))
    assert 1 <= commits(lambda: contract.call("note_all", ids)) <= transactions
    assert contract.notes() == ids
    contract.records(transactions + 1)


def test_a_workflow_that_only_reads_is_no_commit_that_somebody_waits_for(contract, commits):
    contract.call("only_read", 1)
    contract.records(2)  # whatever the first call of all had to write

    def read() -> None:
        assert contract.call("only_read", 5) == [0] * 5
        contract.records(2 + 6)

    assert commits(read) <= 1


def test_an_action_between_transactions_costs_the_commit_before_it_and_the_one_of_its_record(contract, commits):
    assert commits(lambda: contract.call("note_around_action")) == 2
    assert contract.notes() == [1, 3]
