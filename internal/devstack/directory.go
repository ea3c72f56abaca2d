package devstack

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// directory holds data of servers. While it is open no other process can open it.
type directory struct {
	path      string
	temporary bool

	mu   sync.Mutex
	lock *os.File // nil: closed
}

// openDirectory makes path, or a temporary directory if path is empty, which close removes unless keep.
func openDirectory(path string, keep bool) (*directory, error) {
	d := &directory{path: path}
	var err error
	if path == "" {
		d.temporary = !keep
		d.path, err = os.MkdirTemp("", "rocketflow-")
	} else {
		if d.path, err = filepath.Abs(path); err == nil {
			err = os.MkdirAll(d.path, 0o755)
		}
	}
	if err == nil {
		d.path, err = filepath.EvalSymlinks(d.path)
	}
	if err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	// Postgres, when we are root, is another user who has to get through.
	if os.Geteuid() == 0 {
		if err := os.Chmod(d.path, 0o755); err != nil {
			return nil, fmt.Errorf("make data directory: %w", err)
		}
	}
	d.lock, err = tryLock(filepath.Join(d.path, "lock"))
	if errors.Is(err, errLocked) {
		return nil, fmt.Errorf("data directory %s is in use by another process", d.path)
	}
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	return d, nil
}

func (d *directory) sub(name string) string { return filepath.Join(d.path, name) }

func (d *directory) keep() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.temporary = false
}

func (d *directory) close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lock == nil {
		return nil
	}
	defer func() { d.lock = nil }()
	defer d.lock.Close() // frees the lock
	if !d.temporary {
		return nil
	}
	err := os.RemoveAll(d.path)
	for range 3 { // what a killed server's children wrote meanwhile
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		err = os.RemoveAll(d.path)
	}
	return fmt.Errorf("remove data directory: %w", err)
}
