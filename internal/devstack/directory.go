package devstack

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
)

// directory holds data of servers, and nobody else's business: it is closed to other users. While it is open no other process
// can open it.
type directory struct {
	path      string
	temporary bool
	owner     *syscall.Credential // the user as whom servers run; nil: as we do

	mu   sync.Mutex
	lock *os.File // nil: closed
}

// lockFile marks a directory as one of ours.
const lockFile = "lock"

// openDirectory makes path, or a temporary directory if path is empty, which close removes unless keep.
func openDirectory(path string, keep bool) (*directory, error) {
	d := &directory{path: path}
	var err error
	if d.owner, err = unprivileged(); err != nil {
		return nil, err
	}
	if path == "" {
		d.temporary = !keep
		d.path, err = os.MkdirTemp("", "rocketflow-")
	} else if d.path, err = filepath.Abs(path); err == nil {
		err = os.MkdirAll(d.path, 0o700)
	}
	if err == nil {
		d.path, err = filepath.EvalSymlinks(d.path)
	}
	if err == nil {
		err = d.shut()
	}
	if err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	d.lock, err = tryLock(d.sub(lockFile))
	if errors.Is(err, errLocked) {
		return nil, fmt.Errorf("data directory %s is in use by another process", d.path)
	}
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	return d, nil
}

// shut closes the directory to all but its owner. One that holds somebody else's files, as only a Dir that was given can,
// stays as it is, but for the owner's way through.
func (d *directory) shut() error {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return err
	}
	if len(entries) > 0 && !exists(d.sub(lockFile)) {
		info, err := os.Stat(d.path)
		if err != nil || d.owner == nil {
			return err
		}
		return os.Chmod(d.path, info.Mode().Perm()|0o011)
	}
	return errors.Join(os.Chmod(d.path, 0o700), d.own(d.path))
}

// own gives a file or a directory to the user as whom servers run.
func (d *directory) own(path string) error {
	if d.owner == nil {
		return nil
	}
	return os.Lchown(path, int(d.owner.Uid), int(d.owner.Gid))
}

// ownAll is own for all that is in the directory.
func (d *directory) ownAll() error {
	return filepath.WalkDir(d.path, func(path string, _ fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // a server that runs has removed it
			return nil
		}
		if err == nil && path != d.path {
			err = d.own(path)
		}
		return err
	})
}

// unprivileged finds a user to run servers as where we are root: Postgres refuses to run as root, and nobody needs it. nil if
// we aren't.
func unprivileged() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err1 == nil && err2 == nil {
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
		}
	}
	return nil, errors.New("servers don't run as root, and there is no user postgres or nobody")
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
