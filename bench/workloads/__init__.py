"""The workloads, by name; one file each."""

from bench.mix import Workload
from bench.workloads import checkout, flow, hotel, increment, retwis, shop, tpcc

# Calls of one transaction or query each.
DATA = (
    increment.WORKLOAD,
    shop.WORKLOAD,
    checkout.WORKLOAD,
    retwis.WORKLOAD,
    retwis.TIMELINES,
    hotel.WORKLOAD,
    tpcc.WORKLOAD,
)
FLOWS = (flow.WORKFLOW_1, flow.WORKFLOW_5, flow.QUEUED)
WORKLOADS: dict[str, Workload] = {workload.name: workload for workload in (*DATA, *FLOWS)}
DATA_NAMES = frozenset(workload.name for workload in DATA)
FLOW_NAMES = frozenset(workload.name for workload in FLOWS)
