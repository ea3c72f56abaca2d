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

// directory is a data directory of servers. Other users can't read it, and only one process can have it open.
type directory struct {
	path      string
	temporary bool
	owner     *syscall.Credential // the user that servers run as; nil for the current one

	mu   sync.Mutex
	lock *os.File // nil once closed
}

// temporaryPrefix begins the names of temporary directories.
const temporaryPrefix = "rocketflow-"

// lockFile is in each directory that openDirectory has created or used.
const lockFile = "lock"

// openDirectory creates path and locks it. If path is empty, it creates a temporary directory in parent, or in the default one if that is
// empty, too; close removes it unless keep is set.
func openDirectory(path, parent string, keep bool) (*directory, error) {
	d := &directory{path: path}
	var err error
	if d.owner, err = unprivileged(); err != nil {
		return nil, err
	}
	if path == "" {
		d.temporary = !keep
		d.path, err = os.MkdirTemp(parent, temporaryPrefix)
	} else if d.path, err = filepath.Abs(path); err == nil {
		err = os.MkdirAll(d.path, 0o700)
	}
	if err == nil {
		d.path, err = filepath.EvalSymlinks(d.path)
	}
	if err == nil {
		err = d.restrict()
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

// restrict makes the directory readable by its owner alone. A directory with other files in it, which only a configured Dir
// can be, keeps its permissions, except that the owner may pass through it.
func (d *directory) restrict() error {
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
	return errors.Join(os.Chmod(d.path, 0o700), d.chown(d.path))
}

// chown gives a file or a directory to the user that servers run as.
func (d *directory) chown(path string) error {
	if d.owner == nil {
		return nil
	}
	return os.Lchown(path, int(d.owner.Uid), int(d.owner.Gid))
}

// chownAll is chown for everything in the directory. A running server may remove files meanwhile.
func (d *directory) chownAll() error {
	return filepath.WalkDir(d.path, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && path != d.path {
			err = d.chown(path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
}

// unprivileged returns the user to run servers as if the current user is root, because PostgreSQL refuses to run as root. For
// another user it returns nil.
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
	return nil, errors.New("servers can't run as root, and there is no user postgres or nobody")
}

// sub returns a path in the directory.
func (d *directory) sub(name string) string { return filepath.Join(d.path, name) }

// keep makes close keep a temporary directory.
func (d *directory) keep() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.temporary = false
}

// close unlocks the directory, and removes it if it is temporary. Further calls do nothing.
func (d *directory) close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lock == nil {
		return nil
	}
	defer func() { d.lock = nil }()
	defer d.lock.Close() // releases the lock
	if !d.temporary {
		return nil
	}
	err := os.RemoveAll(d.path)
	for range 3 { // children of a killed server may still write
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		err = os.RemoveAll(d.path)
	}
	return fmt.Errorf("remove data directory: %w", err)
}
