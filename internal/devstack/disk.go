package devstack

import (
	"fmt"
	"syscall"
)

// A broker refuses messages once its file system is 90 % full, whatever its configuration says. It also needs space for
// preallocated files and logs.
const (
	diskNeeded  = 1536 << 20
	diskMostPct = 89
)

// checkDisk returns an error for a file system on which a broker would refuse messages.
func checkDisk(dir string) error {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("check free space of %s: %w", dir, err)
	}
	block := uint64(fs.Bsize) // its type differs between systems
	return checkUsage(dir, (fs.Blocks-fs.Bfree)*block, fs.Bavail*block)
}

// checkUsage computes the usage as the broker does: used space as a part of used and available space, without reserved space.
func checkUsage(dir string, used, available uint64) error {
	if available < diskNeeded {
		return fmt.Errorf("%s has %d MiB free, RocketMQ needs %d: free some space or choose another directory", dir, available>>20, diskNeeded>>20)
	}
	if pct := used * 100 / (used + available); pct > diskMostPct {
		return fmt.Errorf("the disk of %s is %d %% full and RocketMQ refuses messages from 90 %%: free some space or choose another directory", dir, pct)
	}
	return nil
}
