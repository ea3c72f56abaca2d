package devstack

import (
	"bufio"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// sharedMemory is where Linux has files in memory. Files of a disk cost a PostgreSQL that creates and drops many tables, as tests do, two
// fifths of its time: ext4 doesn't use the inodes of removed files again for a minute, and searches for others.
const sharedMemory = "/dev/shm"

// memoryNeeded is free memory with which data is kept in it. Tests fill less than one GiB.
const memoryNeeded = 8 << 30

// inMemory returns a directory whose files are in memory, or "" where there is none or too little memory. What processes that were killed
// have left there is removed.
func inMemory() string {
	var fs syscall.Statfs_t
	if syscall.Statfs(sharedMemory, &fs) != nil || fs.Bavail*uint64(fs.Bsize) < memoryNeeded || memoryAvailable() < memoryNeeded {
		return ""
	}
	removeAbandoned(sharedMemory, time.Minute)
	return sharedMemory
}

// memoryAvailable returns the bytes of memory that can be used without swapping, 0 where that isn't known.
func memoryAvailable() uint64 {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if kib, ok := strings.CutPrefix(lines.Text(), "MemAvailable:"); ok {
			n, _ := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(kib), " kB"), 10, 64)
			return n << 10
		}
	}
	return 0
}

// removeAbandoned removes the temporary directories in parent whose lock is older than age and held by no process.
func removeAbandoned(parent string, age time.Duration) {
	locks, _ := filepath.Glob(filepath.Join(parent, temporaryPrefix+"*", lockFile)) // the pattern is valid
	for _, path := range locks {
		if info, err := os.Stat(path); err != nil || time.Since(info.ModTime()) < age { // one that is just made isn't locked yet
			continue
		}
		if lock, err := tryLock(path); err == nil {
			_ = os.RemoveAll(filepath.Dir(path)) // it may be another user's
			_ = lock.Close()
		}
	}
}
