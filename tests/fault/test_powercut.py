#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A file system loses power under a store: what was acknowledged is there afterwards.

An ext4 file system in a file is mounted, a writer commits and acknowledges transactions on it, and
at a random moment the file system is shut down without writing anything more. It is mounted again,
recovers, and the store is opened. The mount is this process's own and ends with it.

Where that cannot be done the tests are skipped. SEMEL_POWER_CUTS says how many cuts; the seed is
printed when one fails, and taken from SEMEL_SEED.
"""

import array
import ctypes
import fcntl
import os
import random
import shutil
import struct
import subprocess
import tempfile
import time
import unittest

WRITER = os.environ['SEMEL_WRITER']
CUTS = int(os.environ.get('SEMEL_POWER_CUTS', '20'))
SEED = int(os.environ.get('SEMEL_SEED', '1'))
EXT4_IOC_SHUTDOWN, NOLOGFLUSH = 0x8004587d, 2
CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 0x40000
HANG = 60  # seconds, against a hang


class CannotBeDone(Exception):
    pass


def run(*command):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=HANG)
    if done.returncode:
        raise CannotBeDone(f'{" ".join(command)}: {done.stdout.strip()}')


def have_own_mounts():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) or libc.mount(b'none', b'/', None, MS_REC | MS_PRIVATE, None):
        raise CannotBeDone(f'no mounts of its own: {os.strerror(ctypes.get_errno())}')


class Disk:
    """A file system that can lose power."""

    def __init__(self):
        base = '/dev/shm' if os.access('/dev/shm', os.W_OK) else None
        self.folder = tempfile.mkdtemp(prefix='semel-powercut-', dir=base)
        self.image, self.place = os.path.join(self.folder, 'image'), os.path.join(self.folder, 'm')
        self.mounted = False
        os.mkdir(self.place)
        with open(self.image, 'wb') as file:
            file.truncate(48 << 20)
        try:
            run('mkfs.ext4', '-q', '-F', self.image)
            self.mount()
        except (CannotBeDone, OSError):
            self.remove()
            raise

    def mount(self):
        run('mount', '-o', 'loop', self.image, self.place)
        self.mounted = True

    def cut(self):
        fd = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, EXT4_IOC_SHUTDOWN, array.array('I', [NOLOGFLUSH]))
        finally:
            os.close(fd)

    def come_back(self):
        self.unmount()
        self.mount()

    def unmount(self):
        if not self.mounted:
            return
        for _ in range(50):
            try:
                run('umount', self.place)
                self.mounted = False
                return
            except CannotBeDone as busy:
                last = busy
                time.sleep(0.1)
        raise last

    def remove(self):
        try:
            self.unmount()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def path(self):
        return os.path.join(self.place, 'db')


def try_it():
    """A disk that loses what was not synced, and keeps what was; or why there is none."""
    have_own_mounts()
    disk = Disk()
    try:
        for name, synced in (('kept', True), ('lost', False)):
            with open(os.path.join(disk.place, name), 'wb') as file:
                file.write(b'x' * 10000)
                file.flush()
                if synced:
                    os.fsync(file.fileno())
        disk.cut()
        disk.come_back()
        sizes = [os.path.getsize(os.path.join(disk.place, name))
                 if os.path.exists(os.path.join(disk.place, name)) else 0
                 for name in ('kept', 'lost')]
        if sizes[0] != 10000:
            raise CannotBeDone('the file system loses what was synced')
        return sizes[1] == 0
    finally:
        disk.remove()


class Writer:
    def __init__(self, path, *mode):
        self.process = subprocess.Popen([WRITER, path, *mode], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.acknowledged = 0
        self.rest = b''

    def wait(self):
        """For the first acknowledgement."""
        end = time.monotonic() + HANG
        while self.acknowledged == 0 and self.process.poll() is None and time.monotonic() < end:
            self.listen(0.001)

    def listen(self, seconds):
        """Take acknowledgements for a while, or until there are no more (None)."""
        end = None if seconds is None else time.monotonic() + seconds
        fd = self.process.stdout.fileno()
        os.set_blocking(fd, end is None)
        while end is None or time.monotonic() < end:
            try:
                data = os.read(fd, 65536)
            except BlockingIOError:
                time.sleep(0.0005)
                continue
            if not data:
                return
            self.rest += data
            while len(self.rest) >= 8:
                self.acknowledged = struct.unpack('<Q', self.rest[:8])[0]
                self.rest = self.rest[8:]

    def end(self):
        """It ends by itself once nothing can be written any more, or else is ended."""
        try:
            self.listen(0.05)
            self.process.kill()
            self.listen(None)
        finally:
            self.process.kill()
            self.process.wait(HANG)
            self.process.stdout.close()


def check(path):
    """(how many transactions there are, or None; what was said)"""
    done = subprocess.run([WRITER, path, 'check'], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=HANG)
    if done.returncode:
        return None, done.stderr.strip()
    return int(done.stdout), ''


class PowerCuts(unittest.TestCase):
    loses = None  # may it lose what was not synced? why not, if it cannot be tried

    @classmethod
    def setUpClass(cls):
        try:
            cls.loses = try_it()
        except (CannotBeDone, OSError, subprocess.SubprocessError) as error:
            print(f'left out: {error}', flush=True)
            raise unittest.SkipTest(str(error)) from error

    def setUp(self):
        self.random = random.Random(SEED)
        self.disk = Disk()
        self.addCleanup(self.disk.remove)

    def one_cut(self, *mode):
        """(acknowledged before the cut, at all, found or None, words)

        What is acknowledged while the cut is under way may be lost: a sync that comes between the
        end of the journal and that of the file system succeeds and does nothing. No power cut is
        so slow.
        """
        writer = Writer(self.disk.path(), *mode)
        try:
            if self.random.randrange(4) > 0 or mode:
                writer.wait()  # else it may still be opening
            writer.listen(self.random.uniform(0.002, 0.12))
            before = writer.acknowledged
            self.disk.cut()
        finally:
            writer.end()
        self.disk.come_back()
        found, words = check(self.disk.path())
        return before, writer.acknowledged, found, words

    def test_what_was_acknowledged_is_there(self):
        total = last = 0
        for cut in range(CUTS):
            before, acknowledged, found, words = self.one_cut()
            where = f'seed {SEED}, cut {cut}: acknowledged {before} to {acknowledged}, {words}'
            self.assertIsNotNone(found, where)
            self.assertGreaterEqual(found, max(before, last), where)
            self.assertLessEqual(found, max(acknowledged, last) + 1, where)
            total, last = total + max(0, found - last), found
        print(f'{CUTS} cuts, {total} transactions', flush=True)
        self.assertGreater(total, CUTS)

    def test_without_syncs_losses_are_found(self):
        if not self.loses:
            self.skipTest('this file system loses nothing')
        losses = 0
        for _ in range(5):
            before, _, found, _ = self.one_cut('off')
            losses += found is None or found < before
            self.disk.remove()
            self.disk = Disk()
            self.addCleanup(self.disk.remove)
        print(f'5 cuts, {losses} losses', flush=True)
        self.assertGreater(losses, 0)


if __name__ == '__main__':
    unittest.main(verbosity=2)
