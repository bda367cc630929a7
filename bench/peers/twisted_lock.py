#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""What bench/async.c measures, with Twisted's DeferredLock, DeferredSemaphore and DeferredQueue.

usage: twisted_lock.py [--what=run|run_wanted|run_later|handoff|acquire|queue|queue_wait|semaphore]
                       [--n=100] [--secs=0.5]

Its queue of waiters is run by recursion: with more than a hundred bodies that are done at once it
breaks, so --n is at most 100 here.
"""
import sys
import time

from twisted.internet.defer import Deferred, DeferredLock, DeferredQueue, DeferredSemaphore


class Bench:
    def __init__(self, n, lock):
        self.n, self.lock, self.queue = n, lock, DeferredQueue()
        self.ran, self.handing, self.inner = 0, 0, None

    def body(self):
        self.ran += 1

    def body_later(self):
        self.ran += 1
        self.inner = Deferred()
        return self.inner

    def give_back(self, lock):
        self.ran += 1
        lock.release()

    def taken(self, _):
        self.ran += 1

    def run(self):
        self.lock.run(self.body)

    def run_wanted(self):
        self.lock.run(self.body).addCallback(lambda _: None)

    def run_later(self):
        self.lock.run(self.body_later).addCallback(lambda _: None)
        self.inner.callback(None)

    def release_timed(self):
        before = time.perf_counter()
        self.lock.release()
        self.handing += time.perf_counter() - before

    def handoff(self):
        self.lock.acquire()
        for _ in range(self.n):
            self.lock.run(self.body)
        self.release_timed()

    def acquire(self):
        self.lock.acquire()
        for _ in range(self.n):
            self.lock.acquire().addCallback(self.give_back)
        self.release_timed()

    def put_get(self):
        self.queue.put(self)
        self.queue.get().addCallback(self.taken)

    def get_put(self):
        self.queue.get().addCallback(self.taken)
        self.queue.put(self)


def main():
    options = dict(what="run", n="100", secs="0.5")
    options.update(a[2:].split("=", 1) for a in sys.argv[1:])
    what, n, secs = options["what"], min(int(options["n"]), 100), float(options["secs"])
    bench = Bench(n, DeferredSemaphore(1) if what == "semaphore" else DeferredLock())
    fn = {"run": bench.run, "run_wanted": bench.run_wanted, "run_later": bench.run_later,
          "handoff": bench.handoff, "acquire": bench.acquire, "queue": bench.put_get,
          "queue_wait": bench.get_put, "semaphore": bench.run}[what]
    for _ in range(100):
        fn()
    bench.ran = bench.handing = spent = 0
    begin = time.perf_counter()
    while spent < secs:
        for _ in range(10):
            fn()
        spent = time.perf_counter() - begin
    print(f"figure=twisted what={what} n={n} rate={bench.ran / spent:.0f} "
          f"ns={spent / bench.ran * 1e9:.1f} handoff_ns={bench.handing / bench.ran * 1e9:.1f}")


if __name__ == "__main__":
    main()
