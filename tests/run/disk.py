# SPDX-License-Identifier: MIT
"""Disks to be filled: a file system of a kind and size, mounted at MOUNT in the mount namespace of
the test (sandbox.py), so that it is gone with the test however that ends; loop devices detach
themselves with their mount.

Kinds: tmpfs, ext4, xfs, btrfs; ext2 has no fallocate; bindfs is FUSE over a tmpfs, without
fallocate either; quota is btrfs with room enough, but a quota, so that the errno is EDQUOT.
"""
import ctypes
import errno
import os
import shutil
import subprocess

from sandbox import WORK, Skip, mount, mount_error

MIB = 1 << 20
MOUNT = "/mnt/disk"
BELOW = "/mnt/below" # what bindfs shows at MOUNT
IMAGE = "/mnt/image"
FILLER = "filler"
LEAST = {"xfs": 300 * MIB, "btrfs": 112 * MIB, "quota": 112 * MIB}
MAKE = {
    "ext4": ("mkfs.ext4", "-q", "-b", "4096", "-m", "0"),
    "ext2": ("mkfs.ext2", "-q", "-b", "4096", "-m", "0"),
    "xfs": ("mkfs.xfs", "-q"),
    "btrfs": ("mkfs.btrfs", "-q", "--mixed"),
    "quota": ("mkfs.btrfs", "-q"),
}
TYPE = {"quota": "btrfs"}
WITHOUT_FALLOCATE = ("ext2", "bindfs")

libc = ctypes.CDLL(None, use_errno=True)


def find(program):
    """The path of a program, or Skip."""
    path = shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if not path:
        raise Skip(f"{program} is not here (scripts/setup test)")
    return path


def run(*command):
    done = subprocess.run([find(command[0]), *command[1:]], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.returncode}\n{done.stdout.decode()}")


class Disk:
    """A file system at MOUNT, empty and with all its room."""

    def __init__(self, kind, size):
        self.kind = kind
        self.size = max(size, LEAST.get(kind, 0))
        self.error = errno.EDQUOT if kind == "quota" else errno.ENOSPC
        os.mkdir(MOUNT)
        getattr(self, "make_" + kind, self.make_image)()

    def make_tmpfs(self, at=MOUNT):
        mount("tmpfs", at, "tmpfs", f"size={self.size}")

    def make_bindfs(self):
        os.mkdir(BELOW)
        self.make_tmpfs(BELOW)
        if not os.path.exists("/dev/fuse"):
            raise Skip("there is no /dev/fuse")
        run("bindfs", BELOW, MOUNT)

    def make_image(self):
        with open(IMAGE, "xb") as image:
            image.truncate(self.size)
        run(*MAKE[self.kind], IMAGE)
        kind = TYPE.get(self.kind, self.kind)
        with open("/proc/filesystems", encoding="ascii") as file:
            if kind not in file.read().split():
                raise Skip(f"this kernel has no {kind}")
        run("mount", "-t", kind, "-o", "loop", IMAGE, MOUNT)

    def make_quota(self):
        self.make_image()
        run("btrfs", "quota", "enable", MOUNT)

    def fill(self, leave):
        """Take all the room but so many bytes, about: file systems need some for themselves."""
        if self.kind == "quota":
            run("btrfs", "qgroup", "limit", str(leave), MOUNT)
            return
        fd = os.open(os.path.join(MOUNT, FILLER), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        at, piece = 0, 64 * MIB
        while piece >= 4096:
            if self.take(fd, at, piece):
                at += piece
            else:
                piece //= 2
        os.ftruncate(fd, max(at - leave, 0))
        os.close(fd)
        os.sync()

    def take(self, fd, at, length):
        if self.kind not in WITHOUT_FALLOCATE:
            return libc.fallocate(fd, 0, ctypes.c_long(at), ctypes.c_long(length)) == 0
        try:
            done = os.pwrite(fd, bytes(length), at)
        except OSError as failure:
            if failure.errno != errno.ENOSPC:
                raise
            done = 0
        if done < length:
            os.ftruncate(fd, at)
        return done == length

    def free_command(self):
        """The shell command that makes room."""
        if self.kind == "quota":
            return f"{find('btrfs')} qgroup limit none {MOUNT}"
        return f"rm {MOUNT}/{FILLER}"

    def free(self):
        subprocess.run(self.free_command(), shell=True, check=True, stdout=subprocess.DEVNULL)

    def clear(self):
        """Empty again, with all its room."""
        for name in os.listdir(MOUNT):
            path = os.path.join(MOUNT, name)
            (shutil.rmtree if os.path.isdir(path) else os.unlink)(path)
        if self.kind == "quota":
            self.free()
        os.sync()
