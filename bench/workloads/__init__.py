"""The workloads, by name; one file each."""

from bench.mix import Workload
from bench.workloads import checkout, hotel, increment, retwis, shop, tpcc

WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        increment.WORKLOAD,
        shop.WORKLOAD,
        checkout.WORKLOAD,
        retwis.WORKLOAD,
        retwis.TIMELINES,
        hotel.WORKLOAD,
        tpcc.WORKLOAD,
    )
}
