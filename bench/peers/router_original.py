#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""What bench/router.c measures, in the way of traits-futures' MultiprocessingRouter.

usage: router_original.py [--workers=4] [--size=64] [--secs=1]

Its messages go through a queue in a manager's process, from which a thread of the receiving process
takes them, one by one, and puts them into a local queue, which the main thread reads. That way is
built here anew, with Python's own multiprocessing, without the GUI's loop around it. Prints messages
per second that have arrived.
"""
import multiprocessing
import multiprocessing.managers
import queue
import sys
import threading
import time


def send(messages, size, number):
    message = (number, b"x" * size)
    while True:
        messages.put(message)


def move(messages, local):
    while True:
        local.put(messages.get())


def main():
    options = dict(arg.lstrip("-").split("=") for arg in sys.argv[1:])
    workers, size = int(options.get("workers", 4)), int(options.get("size", 64))
    seconds = float(options.get("secs", 1))
    manager = multiprocessing.Manager()
    messages, local, count = manager.Queue(10000), queue.Queue(), 0
    for number in range(workers):
        multiprocessing.Process(target=send, args=(messages, size, number), daemon=True).start()
    threading.Thread(target=move, args=(messages, local), daemon=True).start()
    local.get()
    begun = time.monotonic()
    while time.monotonic() < begun + seconds:
        local.get()
        count += 1
    print(f"figure=router_original workers={workers} size={size} "
          f"rate={count / (time.monotonic() - begun):.0f}", flush=True)
    for process in multiprocessing.active_children():
        process.terminate()


if __name__ == "__main__":
    main()
