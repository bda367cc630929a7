#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""What bench/exchange.c measures, with Fed-BioMed's EventWaitExchange.

usage: exchange_original.py [--source=PATH] [--others=1000] [--keep=0] [--secs=1]

PATH is fedbiomed/common/synchro.py of a copy of Fed-BioMed, which is loaded without the rest of the
package. Without --source its algorithm stands in, written anew here from its documentation: each
event looks at every listener, and for each of its ids at the list of all ids that there are; who is
met is woken through a threading.Event.
"""
import importlib.util
import sys
import threading
import time
import types

MAX_SECONDS, GRACE_SECONDS = 60, 10


class StandIn:
    """The same answers, and the same scans."""

    def __init__(self, remove_delivered):
        self.remove, self.last = remove_delivered, 0
        self.events, self.events_lock = {}, threading.Lock()
        self.listeners, self.listeners_lock = {}, threading.Lock()

    def sweep(self):
        oldest = time.time() - MAX_SECONDS - GRACE_SECONDS
        for gone in [name for name, one in self.events.items() if one["time"] < oldest]:
            del self.events[gone]

    def met(self, numbers):
        with self.listeners_lock, self.events_lock:
            there = list(self.events)
            return [number for number in numbers
                    if all(name in there for name in self.listeners[number]["ids"])]

    def event(self, name, data):
        with self.events_lock:
            self.sweep()
            self.events[name] = {"time": time.time(), "data": data}
        met = self.met(list(self.listeners))
        with self.listeners_lock:
            for number in met:
                if number in self.listeners:
                    self.listeners[number]["wake"].set()

    def wait(self, names, timeout):
        until = time.time() + timeout
        with self.listeners_lock:
            self.last += 1
            number = self.last
            mine = self.listeners[number] = {"ids": names, "wake": threading.Event()}
        while not self.met([number]) and time.time() < until:
            mine["wake"].wait(until - time.time())
            mine["wake"].clear()
        with self.listeners_lock, self.events_lock:
            met = set(names) <= set(self.events)
            data = [self.events[name]["data"] for name in names if name in self.events]
            if self.remove:
                for name in names:
                    self.events.pop(name, None)
            del self.listeners[number]
        return met, data


def load(path):
    """The class in `path`; whatever else it wants of its package is made up."""
    class Anything(types.ModuleType):
        def __getattr__(self, name):
            return type(name, (Exception,), {})

    for name in ("fedbiomed", "fedbiomed.common", "fedbiomed.common.constants",
                 "fedbiomed.common.exceptions", "fedbiomed.common.logger"):
        sys.modules.setdefault(name, Anything(name))
    spec = importlib.util.spec_from_file_location("synchro", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.EventWaitExchange


def crowd(exchange, others):
    """Listeners without threads, as their records stand in the exchange while their threads wait;
    and events that nobody takes."""
    for table in ("listeners", "_pending_listeners"):
        if hasattr(exchange, table):
            listeners = getattr(exchange, table)
    for i in range(others):
        ids, wake = [f"never-{i:030d}"], threading.Event()
        listeners[-1 - i] = {"start_time": time.time(), "ids": ids, "event_ids": ids,
                             "wake": wake, "event": wake}
    events = getattr(exchange, "events", None)
    if events is None:
        events = exchange._triggered_events
    for i in range(others):
        events[f"kept-{i:031d}"] = {"time": time.time(), "start_time": time.time(), "data": None}


def main():
    options = dict(argument.lstrip("-").split("=", 1) for argument in sys.argv[1:])
    others, keep = int(options.get("others", 1000)), int(options.get("keep", 0))
    secs, source = float(options.get("secs", 1)), options.get("source")
    exchange = (load(source) if source else StandIn)(not keep)
    crowd(exchange, others)
    ids = [f"{i:036d}" for i in range(1024)]
    data, count, began = bytes(64), 0, time.perf_counter()
    while True:
        name = ids[count % len(ids)]
        exchange.event(name, data)
        met, _ = exchange.wait([name], 0)
        assert met
        count += 1
        took = time.perf_counter() - began
        if took >= secs:
            break
    print(f"figure=exchange_original source={'given' if source else 'stand-in'} keep={keep} "
          f"others={others} pairs={count} rate={count / took:.1f} ns={took / count * 1e9:.0f}")


if __name__ == "__main__":
    main()
