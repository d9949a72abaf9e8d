"""Run what core decides: threads, the loop, claiming, leases, waking. Must not know SQL, HTTP, nor which store."""
