package devstack

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"
)

// errLocked is returned by tryLock if another process holds the lock.
var errLocked = errors.New("locked by another process")

// tryLock opens a file and locks it until the file is closed or the process ends. It returns errLocked if another process
// holds the lock.
func tryLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errLocked
		}
		return nil, &os.PathError{Op: "lock", Path: path, Err: err}
	}
	return f, nil
}

// waitLock is tryLock that waits until the lock is free or ctx ends.
func waitLock(ctx context.Context, path string) (*os.File, error) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		f, err := tryLock(path)
		if !errors.Is(err, errLocked) {
			return f, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
		}
	}
}
